//! The FSMN memory of a block: a convolution over time, channel by channel.

use crate::config::MemoryConfig;
use crate::matrix::FloatMatrix;

/// The kernel of a memory: output `[t, c]` is the sum over taps `k` of `kernel[k, c]` times input
/// `[t - look_back + k, c]`, where frames outside the utterance are zero. What the input itself adds to the output
/// (FunASR's residual) is part of the tap that sees it.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    /// Length and look-ahead.
    pub config: MemoryConfig,
    /// `[kernel][width]`: a matrix whose inputs are the taps.
    pub kernel: FloatMatrix<'a>,
}

impl<'a> Memory<'a> {
    /// Channels.
    pub fn width(&self) -> usize {
        self.kernel.outputs()
    }

    /// Values from one tap to the next in [`values`](Self::values).
    pub fn stride(&self) -> usize {
        self.kernel.padded_outputs()
    }

    /// `[kernel][stride]`.
    pub fn values(&self) -> &'a [f32] {
        self.kernel.values()
    }
}
