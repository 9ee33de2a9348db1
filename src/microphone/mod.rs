//! Audio from a device, 16 kHz mono.
//!
//! ```text
//! device -> callback (copies) -> ring, 10 s -> samples of any format -> mean of the channels -> resampler -> 16 kHz mono
//! ```
//!
//! The callback runs in the audio system's thread: it copies what it is given into a lock-free ring and does nothing
//! else. What does not fit is counted and lost.

mod capture;
mod devices;
mod error;

pub use capture::{Microphone, Received};
pub use devices::{CaptureFormat, DeviceInfo, Selection, list};
pub use error::DeviceError;
