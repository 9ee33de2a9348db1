//! Opening a model: what several commands share.

use std::path::Path;

use kinglet::model_file::{Loading, ModelFile};
use kinglet_model_format::Model;

use crate::failure::Failure;

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
