//! Everything that can go wrong in the recogniser.

use kinglet_kernels::KernelError;
use thiserror::Error;

/// Why an utterance cannot be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's region is smaller than [`memory_required`](crate::memory_required) says.
    #[error("the memory region has {given} bytes, this model and these limits need {needed}")]
    RegionTooSmall {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// A limit lies outside what this program can do.
    #[error("limit `{name}` must lie between {least} and {most}")]
    Limit {
        /// The limit.
        name: &'static str,
        /// Smallest value.
        least: u32,
        /// Largest value.
        most: u32,
    },
    /// The audio is longer than the limit that the memory was reckoned for.
    #[error("the utterance has {samples} samples, the limit is {limit}: cut it or raise `utterance_seconds`")]
    UtteranceTooLong {
        /// Samples given.
        samples: usize,
        /// Samples allowed.
        limit: usize,
    },
    /// The model needs something that this version does not run.
    #[error("this version cannot run a model with {0}")]
    Unsupported(&'static str),
    /// Decoding by CTC was asked of a model that cannot.
    #[error("the model has no CTC head: leave decoding at `attention`")]
    NoCtcHead,
    /// The model's encoder sees whole utterances.
    #[error("the model's encoder sees whole utterances: only one with chunks can encode audio as it arrives")]
    NoChunks,
    /// Features were asked of a model that reckons none.
    #[error("the model's frontend is no filter bank: it has no features to give")]
    NoFilterBank,
    /// The values pushed are no whole number of frames.
    #[error("{values} values are no whole number of frames of {inputs}")]
    PartialFrame {
        /// Values given.
        values: usize,
        /// Values of a frame.
        inputs: usize,
    },
    /// The memory for these limits does not fit this machine's addresses.
    #[error(
        "this model and these limits need {needed} bytes, more than this machine can address: lower `utterance_seconds` or `beam`"
    )]
    TooLarge {
        /// Bytes needed.
        needed: u64,
    },
    /// A kernel refused its arguments; no input leads here, so this is a defect worth reporting.
    #[error("internal error: {0}")]
    Kernel(#[from] KernelError),
}
