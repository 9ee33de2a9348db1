//! Which model to use: options that several commands share.

use std::path::{Path, PathBuf};

use clap::Args;
use kinglet::model_file::{Loading, ModelFile};
use kinglet_model_format::Model;

use crate::failure::Failure;

/// Model options.
#[derive(Debug, Args)]
pub struct ModelOptions {
    /// Model to use instead of the built-in one
    #[arg(long, value_name = "FILE", env = "KINGLET_MODEL")]
    model: Option<PathBuf>,
    /// Read the model into memory instead of mapping the file
    #[arg(long)]
    no_mmap: bool,
}

impl ModelOptions {
    /// The bytes of the model.
    pub fn open(&self) -> Result<ModelFile, Failure> {
        match &self.model {
            Some(path) => open(path, self.no_mmap),
            None => built_in(),
        }
    }

    /// What the model is called in messages.
    pub fn name(&self) -> String {
        self.model.as_deref().map_or_else(|| "built-in model".into(), |path| path.display().to_string())
    }

    /// Checks the model that [`Self::open`] gave.
    pub fn parse<'m>(&self, file: &'m ModelFile) -> Result<Model<'m>, Failure> {
        parse(&self.name(), file)
    }
}

/// Opens a model file.
pub fn open(path: &Path, read: bool) -> Result<ModelFile, Failure> {
    let loading = if read { Loading::Read } else { Loading::Map };
    ModelFile::open(path, loading)
        .map_err(|cause| Failure::input(path.display(), format!("cannot be opened: {cause}; check the path")))
}

/// Checks a model file.
pub fn parse<'m>(name: &str, file: &'m ModelFile) -> Result<Model<'m>, Failure> {
    Model::parse(file).map_err(|cause| Failure::input(name, format!("{cause}; copy or pack it again")))
}

#[cfg(feature = "embed-model")]
fn built_in() -> Result<ModelFile, Failure> {
    Ok(ModelFile::embedded())
}

#[cfg(not(feature = "embed-model"))]
fn built_in() -> Result<ModelFile, Failure> {
    Err(Failure {
        status: 1,
        message: "this program was built without a model: name one with `--model FILE`".into(),
    })
}
