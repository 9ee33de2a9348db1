//! Audio files in, 16 kHz mono out.
//!
//! ```text
//! paths, folders, `-`  ->  inputs  ->  decoder (WAV, FLAC, MP3, Ogg Vorbis)  ->  mean of the channels  ->  resampler
//! ```
//!
//! Everything is read in pieces, so an hour of audio needs no more memory than a second of it.
//! Not here: voice activity and segmentation (they belong to the runtime), microphones, Opus and AAC.

mod decoder;
mod inputs;
mod resampler;

pub use decoder::AudioReader;
pub use inputs::{Input, InputError, find_inputs};
pub use resampler::{Resampler, UnsupportedRate};

/// Why a file gives no audio at all. A file that gives some audio is not an error: see [`AudioReader::damage`].
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file is missing or may not be read.
    #[error("cannot be opened: {0}; check the path and its permissions")]
    Open(std::io::Error),
    /// A file of no bytes.
    #[error("is an empty file; record or copy it again")]
    Empty,
    /// No known container was found in it.
    #[error("is not audio that Kinglet can read; give WAV, FLAC, MP3 or Ogg Vorbis")]
    Unrecognised,
    /// The container is known, its content is not.
    #[error("holds no audio that Kinglet can decode ({0}); convert it to WAV or FLAC first")]
    UnsupportedCodec(&'static str),
    /// The container is known, but its beginning is unusable.
    #[error("is damaged: {0}; nothing in it could be decoded")]
    Damaged(String),
    /// The sample rate is outside what the resampler takes.
    #[error(transparent)]
    Rate(#[from] UnsupportedRate),
}
