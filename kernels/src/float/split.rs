//! Rows as the sum of two that int8 can hold: sixteen bits of activation for two int8 products.

use super::Rows;
use super::lanes::{LANES, Lanes, Operation};
use crate::arch::scalar::RowScale;
use crate::{KernelError, Kernels};

/// Adding and taking away 1.5 * 2^23 rounds what is far smaller to an integer, half to even.
const ROUNDER: f32 = 12_582_912.0;

/// Checked: `source` has the rows, `out` is `[2 rows, inputs]`, `inputs` is not zero.
struct Split<'a> {
    source: Rows<'a>,
    inputs: usize,
    out: &'a mut [f32],
}

impl Operation for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let inputs = self.inputs;
        for (row, out) in self.out.chunks_exact_mut(2 * inputs).enumerate() {
            let source = self.source.values.get(row * self.source.stride..).and_then(|row| row.get(..inputs));
            let (whole, rest) = out.split_at_mut(inputs);
            if let Some(source) = source {
                whole.copy_from_slice(source);
                remainder(lanes, source, rest);
            }
        }
    }
}

/// What `source` is without its int8 rounding.
#[inline(always)]
fn remainder<L: Lanes>(lanes: L, source: &[f32], out: &mut [f32]) {
    let (blocks, rest) = source.as_chunks::<LANES>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<LANES>();
    let mut largest = lanes.splat(0.0);
    for block in blocks {
        largest = lanes.max(largest, lanes.abs(lanes.load(block)));
    }
    if !rest.is_empty() {
        largest = lanes.max(largest, lanes.abs(lanes.load_part(rest, 0.0)));
    }
    let maximum = lanes.largest(largest);
    // A row with an infinity or a NaN has no remainder that would mean anything.
    if !maximum.is_finite() {
        out.fill(0.0);
        return;
    }
    let scale = RowScale::for_maximum(maximum);
    let (step, inverse) = (lanes.splat(scale.scale), lanes.splat(scale.inverse));
    for (block, out) in blocks.iter().zip(out_blocks) {
        lanes.store(without_rounded(lanes, lanes.load(block), step, inverse), out);
    }
    if !rest.is_empty() {
        lanes.store_part(without_rounded(lanes, lanes.load_part(rest, 0.0), step, inverse), out_rest);
    }
}

#[inline(always)]
fn without_rounded<L: Lanes>(lanes: L, values: L::F, step: L::F, inverse: L::F) -> L::F {
    let rounder = lanes.splat(ROUNDER);
    let rounded = lanes.sub(lanes.add(lanes.mul(values, inverse), rounder), rounder);
    lanes.fnma(rounded, step, values)
}

impl Kernels {
    /// Writes each of `rows` rows of `inputs` values twice: as it is, and as what
    /// [`quantize_rows`](Self::quantize_rows) loses of it. Quantized, multiplied and added, the two rows carry sixteen
    /// bits: `out` is `[2 rows, inputs]`.
    ///
    /// # Errors
    /// When a slice is too short, or `inputs` is zero.
    pub fn split_rows(
        self,
        source: Rows<'_>,
        rows: usize,
        inputs: usize,
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        KernelError::check_range("inputs", inputs, 1, usize::MAX)?;
        source.check("source", rows, inputs)?;
        let needed = rows.checked_mul(2 * inputs).ok_or(KernelError::TooLarge)?;
        let given = out.len();
        let out = out.get_mut(..needed).ok_or(KernelError::TooShort { name: "out", needed, given })?;
        self.run(Split { source, inputs, out });
        Ok(())
    }
}
