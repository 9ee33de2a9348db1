//! The FSMN memory of a block: a convolution over time, channel by channel.

use crate::config::MemoryConfig;
use crate::floats::Floats;
use crate::matrix::FloatMatrix;

/// The kernel of a memory: output `[t, c]` is the sum over taps `k` of `kernel[k, c]` times input
/// `[t - look_back + k, c]`, where frames outside the utterance are zero. What the input itself adds to the output
/// (FunASR's residual) is part of the tap that sees it.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    /// Length and look-ahead.
    pub config: MemoryConfig,
    /// Channels.
    pub width: usize,
    /// `[kernel][width]`, `width` rounded up to [`OUTPUT_BLOCK`](crate::OUTPUT_BLOCK): a matrix whose inputs are the taps.
    pub values: Floats<'a>,
}

impl<'a> Memory<'a> {
    /// The kernel as f32; nothing where `room` is shorter than [`Floats::room`] of its values.
    pub fn kernel<'r>(&self, room: &'r mut [f32]) -> Option<FloatMatrix<'r>>
    where
        'a: 'r,
    {
        FloatMatrix::new(self.width, self.config.kernel, self.values.widen(room)?).ok()
    }
}
