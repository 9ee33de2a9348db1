//! The Kinglet recogniser.
//!
//! ```text
//! samples -> Segmenter -> frontend -> encoder -> cross-attention caches -> search over the decoder -> alignment -> Transcript
//!            (voice       (convolutions                                    (greedy or beam,            (times of
//!             activity)    or filter bank)                                  one token a step)           words)
//! ```
//!
//! [`Transcriber`] recognises one utterance; [`Recognizer`] cuts a stream into utterances and recognises each. Both
//! live in one region of memory that the caller gives once; [`memory_required`] says how large it must be.
//! [`FeatureStream`] and [`EncoderStream`] do the first half of the work while an utterance is still being spoken, with
//! models whose encoder sees chunks.
//!
//! This crate opens no file, starts no thread, asks for no time and allocates nothing: audio is pushed, text is
//! polled, and the same samples give the same text whatever the chunks and the processor.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod error;
mod region;
mod sizes;
mod project;
mod residual;
mod voice_activity;
mod segmenter;
mod frontend;
mod filter_bank;
mod angles;
mod rotary;
mod sinusoids;
mod memory;
mod merge;
mod encoder;
mod encoder_stream;
mod cross_cache;
mod decoder;
mod repetition;
mod search;
mod ctc;
mod alignment;
mod doubt;
mod transcript;
mod transcriber;
mod cutter;
mod running_words;
mod partial;
mod recognizer;

pub use cutter::{Cutter, quantize_sample};
pub use encoder_stream::{EncoderStream, encoder_stream_memory, list_encoder_stream_buffers};
pub use error::Error;
pub use filter_bank::{FeatureStream, feature_stream_memory};
pub use partial::PartialConfig;
pub use recognizer::{Event, Partial, Recognizer, Utterance, memory_required};
pub use region::Buffer;
pub use segmenter::{Pushed, Running, Segment, Segmenter, SegmenterConfig};
pub use sizes::{Decoding, Limits};
pub use transcriber::{Stage, Transcriber, list_buffers, transcriber_memory};
pub use transcript::{Transcript, Word};
pub use voice_activity::{FRAME_SAMPLES, FrameActivity, VoiceActivity};

/// Samples a second of all audio here, mono.
pub const SAMPLE_RATE: u32 = 16_000;

#[cfg(test)]
mod tests;
