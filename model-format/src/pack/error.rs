//! Why a checkpoint cannot be packed.

use crate::error::FormatError;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;
use thiserror::Error;

/// Why a checkpoint cannot be packed; each message names the file or tensor and what was expected.
#[derive(Debug, Error)]
pub enum PackError {
    /// A file of the checkpoint cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// `config.json` is not what this program reads.
    #[error("{}: {error}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: serde_json::Error,
    },
    /// The checkpoint is of a kind that this program does not read.
    #[error("config.json: format `{0}` is unknown, expected `kinglet-checkpoint-1`")]
    Format(String),
    /// The safetensors file is damaged.
    #[error("{}: {error}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: safetensors::SafeTensorError,
    },
    /// A tensor that the config asks for is not there.
    #[error("tensor `{name}` is missing, expected shape {expected:?}")]
    TensorMissing {
        /// Its name.
        name: String,
        /// Shape that the config asks for.
        expected: Vec<usize>,
    },
    /// A tensor has another shape or type.
    #[error("tensor `{name}` is {found}, expected F32 {expected:?}")]
    TensorShape {
        /// Its name.
        name: String,
        /// Shape that the config asks for.
        expected: Vec<usize>,
        /// Type and shape in the checkpoint.
        found: String,
    },
    /// A tensor holds NaN or an infinity.
    #[error("tensor `{name}` holds a value that is not a finite number, at position {position}")]
    NotFinite {
        /// Its name.
        name: String,
        /// Position of the first such value.
        position: usize,
    },
    /// Scales and multipliers of a matrix are none.
    #[error("{0}")]
    Grid(String),
    /// A weight is not a multiple of the scale and the multiplier that the checkpoint states for it.
    #[error(
        "`{name}` is not on its grid: output {output}, input {input} is {value}, {multiple} times scale x multiplier, not a whole number -8 to 7 times"
    )]
    OffGrid {
        /// Name of the matrix.
        name: String,
        /// Output of the first such weight.
        output: usize,
        /// Its input, in the order in which groups are counted.
        input: usize,
        /// Its value.
        value: f32,
        /// The value over scale and multiplier.
        multiple: f32,
    },
    /// Weights for a trellis that no symbols name on the scale and multipliers beside them.
    #[error(
        "`{name}` is not what symbols of a trellis name: output {output}, input {input} is {value}, {multiple} times scale x multiplier; training/calibrate.py finds such weights, and so does packing without `.scale`"
    )]
    OffTrellis {
        /// Name of the matrix.
        name: String,
        /// Output of the first such weight.
        output: usize,
        /// Its input, in the order in which groups are counted.
        input: usize,
        /// Its value.
        value: f32,
        /// The value over scale and multiplier.
        multiple: f32,
    },
    /// The checkpoint holds tensors that the config does not use.
    #[error("the checkpoint holds tensors that its config does not use: {}", .0.join(", "))]
    Unused(Vec<String>),
    /// Layers cannot share what they are said to.
    #[error("sharing: {0}")]
    Share(String),
    /// Options for single matrices cannot be followed.
    #[error("options: {0}")]
    Options(String),
    /// A line of `vocabulary.txt` is not hexadecimal, or there are too few or many.
    #[error("vocabulary.txt: {0}")]
    Vocabulary(String),
    /// The config holds a value that the format cannot.
    #[error("config.json: {0}")]
    Value(String),
    /// The packed file does not pass its own reader: a limit of the format is exceeded.
    #[error("this checkpoint does not fit the format: {0}")]
    Refused(#[from] FormatError),
}
