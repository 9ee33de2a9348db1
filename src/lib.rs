//! Kinglet: offline speech recognition for small ARM devices.
//!
//! ```text
//! file -> audio (16 kHz mono) -> utterances -> transcription (runtime, threads) -> output (text, JSON, SRT, WebVTT)
//! microphone -> ring -> resampler -> Recognizer (runtime) -> output
//! ```
//!
//! This crate is what surrounds the recogniser on a machine with files: it finds the model, decodes audio and writes
//! transcripts. The recogniser itself is in `kinglet-runtime`, which opens nothing and allocates nothing.
#![deny(unsafe_code)]

pub mod audio;
#[cfg(feature = "embed-model")]
mod embedded_model;
pub mod initramfs;
#[cfg(feature = "microphone")]
pub mod microphone;
pub mod model_file;
pub mod output;
pub mod transcription;
pub mod utterances;
