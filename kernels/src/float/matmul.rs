//! Float rows times float weights: a strided convolution of few channels as a matrix product.

use super::Rows;
use super::lanes::{LANES, Lanes, Operation};
use super::tile::accumulate;
use crate::{KernelError, Kernels};

/// Rows that pass over one block of weights while it lies in the first cache.
const PANEL: usize = 60;

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `source` has `rows` rows of `inputs` floats; `weights` has `inputs` rows of
/// `outputs` rounded up to 16; `bias` has `outputs` values.
struct Matmul<'a> {
    source: Rows<'a>,
    rows: usize,
    inputs: usize,
    outputs: usize,
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for Matmul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(mut self, lanes: L) {
        let mut first = 0;
        while first < self.rows {
            let end = self.rows.min(first + PANEL);
            let mut output = 0;
            while output < self.outputs {
                let mut row = first;
                while row + TILE <= end {
                    self.tile::<L, TILE>(lanes, row, output);
                    row += TILE;
                }
                while row < end {
                    self.tile::<L, 1>(lanes, row, output);
                    row += 1;
                }
                output += LANES;
            }
            first = end;
        }
    }
}

impl Matmul<'_> {
    /// `ROWS` rows from `row`, sixteen outputs from `output`. The rows exist, and `output` is a multiple of 16
    /// below `outputs`.
    #[inline(always)]
    fn tile<L: Lanes, const ROWS: usize>(&mut self, lanes: L, row: usize, output: usize) {
        let bias = match self.bias.and_then(|bias| bias.get(output..)) {
            Some(bias) => match bias.first_chunk() {
                Some(bias) => lanes.load(bias),
                None => lanes.load_part(bias, 0.0),
            },
            None => lanes.splat(0.0),
        };
        let start = self.source.values.as_ptr();
        let mut rows = [start; ROWS];
        for index in 0..ROWS {
            rows[index] = start.wrapping_add((row + index) * self.source.stride);
        }
        let stride = self.outputs.next_multiple_of(LANES);
        let columns = self.weights.as_ptr().wrapping_add(output);
        // SAFETY: rows and weights have these floats, by the invariants.
        let sums = unsafe { accumulate(lanes, [bias; ROWS], &rows, columns, stride, self.inputs) };
        let valid = self.outputs - output;
        for index in 0..ROWS {
            let Some(out) = self.out.get_mut((row + index) * self.out_stride + output..) else { return };
            if valid >= LANES {
                if let Some(out) = out.first_chunk_mut() {
                    lanes.store(sums[index], out);
                }
            } else if let Some(out) = out.get_mut(..valid) {
                lanes.store_part(sums[index], out);
            }
        }
    }
}

impl Kernels {
    /// `out[row, output] = bias[output] + sum over k of source[row, k] * weights[k, output]`, multiply-adds in the
    /// order of `k`. Rows of `source` may overlap, as the windows of a strided convolution do.
    /// `weights` is `[inputs, outputs rounded up to 16]`; `out` row `r` starts at `out[r * out_stride]` and
    /// nothing is written beyond its `outputs` values.
    ///
    /// # Errors
    /// When a slice is too short or rows of the result overlap.
    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    pub fn matmul_f32(
        self,
        source: Rows<'_>,
        rows: usize,
        inputs: usize,
        outputs: usize,
        weights: &[f32],
        bias: Option<&[f32]>,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        source.check("source", rows, inputs)?;
        let padded = outputs.checked_next_multiple_of(LANES).ok_or(KernelError::TooLarge)?;
        KernelError::check_rows("weights", weights.len(), inputs, padded, padded)?;
        KernelError::check_rows("out", out.len(), rows, outputs, out_stride)?;
        KernelError::check_stride(outputs, out_stride, rows)?;
        let bias = bias.map(|bias| KernelError::prefix("bias", bias, outputs)).transpose()?;
        self.run(Matmul { source, rows, inputs, outputs, weights, bias, out, out_stride });
        Ok(())
    }
}
