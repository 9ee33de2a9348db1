//! The FSMN memory: a depthwise convolution over time, of a whole pass or one token at a time.

use crate::error::Error;
use crate::project::{part, part_mut};
use core::ops::Range;
use kinglet_kernels::{KernelError, Kernels, Rows, TimeConvolution};
use kinglet_model_format::Memory;

/// Adds the memory of the frames `range` to `out`, `[range, width]`. `source` has `frames` rows; those before and behind
/// them count as zero. `taps` is room for [`Sizes::taps`](crate::sizes::Sizes::taps).
pub(crate) fn add(
    kernels: Kernels,
    memory: &Memory<'_>,
    taps: &mut [f32],
    source: Rows<'_>,
    frames: usize,
    range: Range<usize>,
    out: &mut [f32],
) -> Result<(), Error> {
    let (needed, given) = (memory.values.room(), taps.len());
    let weights = memory.kernel(taps).ok_or(KernelError::TooShort { name: "taps", needed, given })?;
    let left = memory.config.look_back();
    let convolution = TimeConvolution { weights, left, add_input: false, add_to_out: true };
    kernels.convolve_time(&convolution, source, frames, range, out, memory.width)?;
    Ok(())
}

/// What a decoder block remembers of the last tokens of every hypothesis: `[kernel, beam, width]`, the token of a step
/// in row `step % kernel`. A hypothesis finds its own past by the slots that it had, so that nothing is moved when
/// hypotheses change places.
pub(crate) struct Ring<'a> {
    pub(crate) frames: &'a mut [f32],
    pub(crate) beam: usize,
}

impl Ring<'_> {
    /// Adds to `out` the memory of `frame`, the input of hypothesis `slot` at `step`, and keeps the frame. `path` holds the
    /// hypothesis' columns, `step * beam + slot` each, this step's included; it is not looked at where the beam is one.
    /// `gathered` has room for `[kernel, width]`.
    pub(crate) fn add(
        &mut self,
        kernels: Kernels,
        memory: &Memory<'_>,
        (step, slot, path): (usize, usize, &[u16]),
        frame: &[f32],
        (gathered, taps): (&mut [f32], &mut [f32]),
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (kernel, width, beam) = (memory.config.kernel, memory.width, self.beam);
        let count = kernel.min(step + 1);
        let place = |step: usize, slot: usize| (step % kernel * beam + slot) * width;
        part_mut(self.frames, place(step, slot), width)?.copy_from_slice(part(frame, 0, width)?);
        for (index, row) in gathered.chunks_exact_mut(width).take(count).enumerate() {
            let earlier = step + 1 + index - count;
            let slot = match beam {
                1 => 0,
                _ => path.get(earlier).map_or(slot, |&column| usize::from(column) % beam),
            };
            row.copy_from_slice(part(self.frames, place(earlier, slot), width)?);
        }
        let source = Rows { values: part(gathered, 0, count * width)?, stride: width };
        add(kernels, memory, taps, source, count, count - 1..count, out)
    }
}
