//! The Kinglet recogniser.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

mod segmenter;
mod voice_activity;

pub use segmenter::{Pushed, Segment, Segmenter, SegmenterConfig};
pub use voice_activity::{FRAME_SAMPLES, FrameActivity, VoiceActivity};

/// Samples a second of all audio here: mono, `f32` in `[-1, 1]`.
pub const SAMPLE_RATE: u32 = 16_000;
