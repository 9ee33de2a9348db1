//! The FSMN memory: a depthwise convolution over time, of a whole pass or one token at a time.

use crate::error::Error;
use crate::project::{part, part_mut};
use kinglet_kernels::{KernelError, Kernels, Rows, TimeConvolution};
use kinglet_model_format::Memory;

/// What a memory adds to what it is added to, once its taps are f32: where they lie, or in `taps`, which is
/// [`Sizes::taps`](crate::sizes::Sizes::taps) long.
pub(crate) fn convolution<'r>(
    memory: &Memory<'r>,
    taps: &'r mut [f32],
) -> Result<TimeConvolution<'r>, Error> {
    let (needed, given) = (memory.values.room(), taps.len());
    let weights = memory.kernel(taps).ok_or(KernelError::TooShort { name: "taps", needed, given })?;
    let left = memory.config.look_back();
    Ok(TimeConvolution { weights, left, add_input: false, add_to_out: true })
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
        memory: &TimeConvolution<'_>,
        (step, slot, path): (usize, usize, &[u16]),
        frame: &[f32],
        gathered: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (kernel, width, beam) = (memory.weights.inputs(), memory.weights.outputs(), self.beam);
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
        kernels.convolve_time(memory, source, count, count - 1..count, out, width)?;
        Ok(())
    }
}
