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

/// Checked: `values` is `[2 rows, outputs]`, `outputs` is not zero, and a bias has as many values.
struct Join<'a> {
    values: &'a mut [f32],
    outputs: usize,
    bias: Option<&'a [f32]>,
}

impl Operation for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let outputs = self.outputs;
        let (first, _) = self.values.split_at_mut(2 * outputs);
        let (whole, rest) = first.split_at_mut(outputs);
        // A sum that is there already: the first row is its own result.
        add_both(lanes, &[], rest, self.bias, whole);
        for row in 1..self.values.len() / (2 * outputs) {
            let (joined, pair) = self.values.split_at_mut(2 * row * outputs);
            let (whole, rest) = pair.split_at(outputs);
            if let Some(out) = joined.get_mut(row * outputs..(row + 1) * outputs) {
                add_both(lanes, whole, rest.get(..outputs).unwrap_or(&[]), self.bias, out);
            }
        }
    }
}

/// `out = whole + rest + bias`; `out` itself is the whole where `whole` is empty. All have one length.
#[inline(always)]
fn add_both<L: Lanes>(lanes: L, whole: &[f32], rest: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let (outs, out_tail) = out.as_chunks_mut::<LANES>();
    let (rests, rest_tail) = rest.as_chunks::<LANES>();
    let (wholes, whole_tail) = whole.as_chunks::<LANES>();
    let (biases, bias_tail) = bias.unwrap_or(&[]).as_chunks::<LANES>();
    for (index, (out, rest)) in outs.iter_mut().zip(rests).enumerate() {
        let whole = lanes.load(wholes.get(index).unwrap_or(out));
        let sum = lanes.add(whole, lanes.load(rest));
        let sum = match biases.get(index) {
            Some(bias) => lanes.add(sum, lanes.load(bias)),
            None => sum,
        };
        lanes.store(sum, out);
    }
    for (index, (out, rest)) in out_tail.iter_mut().zip(rest_tail).enumerate() {
        let sum = whole_tail.get(index).unwrap_or(out) + rest;
        *out = bias_tail.get(index).map_or(sum, |bias| sum + bias);
    }
}

impl Kernels {
    /// Adds the two products that stand for each of `rows` rows after [`split_rows`](Self::split_rows), and `bias`: row `r` of the
    /// result is `values[2 r] + values[2 r + 1] + bias`, all rows of `outputs` values from the beginning on.
    ///
    /// # Errors
    /// When a slice is too short, or `outputs` is zero.
    pub fn join_rows(
        self,
        values: &mut [f32],
        rows: usize,
        outputs: usize,
        bias: Option<&[f32]>,
    ) -> Result<(), KernelError> {
        KernelError::check_range("outputs", outputs, 1, usize::MAX / 2)?;
        let needed = rows.checked_mul(2 * outputs).ok_or(KernelError::TooLarge)?;
        let given = values.len();
        let too_short = KernelError::TooShort { name: "values", needed, given };
        let values = values.get_mut(..needed).ok_or(too_short)?;
        let bias = bias.map(|bias| KernelError::prefix("bias", bias, outputs)).transpose()?;
        if rows > 0 {
            self.run(Join { values, outputs, bias });
        }
        Ok(())
    }

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
