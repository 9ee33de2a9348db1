//! Everything that can go wrong, as one line on the console.

use kinglet_model_format::FormatError;
use thiserror::Error;

/// Why there is no transcript.
#[derive(Debug, Error)]
#[cfg_attr(feature = "raspi3b", expect(dead_code, reason = "this board does not copy the recording"))]
pub enum Failure {
    #[error("no model in {place}: {remedy}")]
    NoModel { place: &'static str, remedy: &'static str },
    #[error("the model has {stated} bytes, {place} has room for {capacity}: pack a smaller one")]
    ModelTooLarge { stated: u64, capacity: usize, place: &'static str },
    #[error("{0}; write it again")]
    Model(#[from] FormatError),
    #[error("{0}")]
    Recogniser(#[from] kinglet_runtime::Error),
    #[error("no recording: {0}")]
    NoRecording(&'static str),
    #[error("the recording cannot be read")]
    RecordingUnreadable,
    #[error(
        "the recording is empty or does not consist of 16-bit samples: `kinglet flash` writes one that does"
    )]
    RecordingShape,
    #[error("the recording has {bytes} bytes, beside the recogniser there is memory for {free}: record less")]
    RecordingTooLong { bytes: u64, free: usize },
}
