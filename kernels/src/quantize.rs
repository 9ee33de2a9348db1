//! Rows of floats to rows of int8 with one scale a row.

use kinglet_model_format::{INPUT_PAD, round_up};

use crate::arch;
use crate::{InstructionSet, KernelError, Kernels};

/// The order and offset in which an instruction set keeps quantized values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// `[rows][padded inputs]`.
    Rows,
    /// `[rows][padded inputs]`, each value plus 128, as `VPDPBUSD` takes one operand without sign.
    OffsetRows,
    /// `[rows / 4][padded inputs / 4][4][4]`: 4 inputs of 4 rows side by side, so that one load serves 4 rows wherever
    /// a block of a sparse matrix stands; the 1 to 3 rows behind stand as in `Rows`.
    Quads,
}

impl RowOrder {
    const fn of(set: InstructionSet) -> Self {
        match set {
            InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => Self::Quads,
            InstructionSet::Avx512Vnni => Self::OffsetRows,
            _ => Self::Rows,
        }
    }
}

/// Int8 rows `[rows, inputs]` with one scale a row, in storage that the caller owns.
///
/// Symmetric: the float value is about `value * scale`. Inputs are padded to a multiple of 16 with zeros.
///
/// Invariants, relied on by unsafe code in the kernels: `values.len() == rows * padded inputs` in the order
/// `order`, `scales.len() == rows`.
#[derive(Debug, Clone, Copy)]
pub struct QuantizedRows<'a> {
    rows: usize,
    inputs: usize,
    order: RowOrder,
    values: &'a [i8],
    scales: &'a [f32],
}

impl<'a> QuantizedRows<'a> {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row, without padding.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// One scale a row, `[rows]`.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// The quantized value, whatever the order in memory; zero outside.
    pub fn value(&self, row: usize, input: usize) -> i8 {
        if row >= self.rows || input >= self.inputs {
            return 0;
        }
        let width = self.padded_inputs();
        let in_quad = self.order == RowOrder::Quads && row < self.rows / 4 * 4;
        let index = if in_quad {
            (row / 4 * 4) * width + (input / 4) * 16 + (row % 4) * 4 + input % 4
        } else {
            row * width + input
        };
        let stored = self.values.get(index).copied().unwrap_or(0);
        if self.order == RowOrder::OffsetRows { (stored as u8 ^ 0x80) as i8 } else { stored }
    }

    pub(crate) fn order(&self) -> RowOrder {
        self.order
    }

    pub(crate) fn values(&self) -> &'a [i8] {
        self.values
    }

    pub(crate) fn padded_inputs(&self) -> usize {
        round_up(self.inputs, INPUT_PAD)
    }
}

/// The checked arguments of a quantization.
///
/// Invariants, relied on by unsafe code in the kernels: `source` holds `inputs` values from each of the
/// starts `row * source_stride`, for each of the `rows = scales.len()`; `values.len() == rows * padded_inputs`.
pub(crate) struct Quantization<'a> {
    pub(crate) source: &'a [f32],
    pub(crate) source_stride: usize,
    pub(crate) inputs: usize,
    pub(crate) padded_inputs: usize,
    pub(crate) values: &'a mut [i8],
    pub(crate) scales: &'a mut [f32],
}

impl Kernels {
    /// Whether `rows` can be multiplied by these kernels.
    pub(crate) fn reads(self, rows: &QuantizedRows<'_>) -> bool {
        rows.order() == RowOrder::of(self.instruction_set())
    }

    /// Bytes that [`quantize_rows`](Self::quantize_rows) needs for `[rows, inputs]`, the same on every
    /// instruction set; `usize::MAX` when the shape does not fit the address space.
    pub fn quantized_bytes(rows: usize, inputs: usize) -> usize {
        let width = inputs.checked_next_multiple_of(INPUT_PAD).unwrap_or(usize::MAX);
        rows.saturating_mul(width)
    }

    /// Quantizes `[rows, inputs]` floats. Row `r` starts at `source[r * source_stride]`; rows may overlap,
    /// which makes a strided convolution a matrix product.
    ///
    /// For each row, with `max` the largest magnitude: `scale = max / 127` and
    /// `value = round_half_even(x * (127 / max))`. A NaN counts as 0 and an infinity as the largest finite
    /// value of its sign; a row whose `max` is below 1e-35 becomes zeros with scale 0.
    ///
    /// `values` needs [`quantized_bytes`](Self::quantized_bytes) elements and `scales` one a row; what they
    /// hold beyond that stays.
    ///
    /// # Errors
    /// When a slice is too short.
    pub fn quantize_rows<'a>(
        self,
        source: &[f32],
        source_stride: usize,
        rows: usize,
        inputs: usize,
        values: &'a mut [i8],
        scales: &'a mut [f32],
    ) -> Result<QuantizedRows<'a>, KernelError> {
        KernelError::check_rows("source", source.len(), rows, inputs, source_stride)?;
        let padded_inputs = inputs.checked_next_multiple_of(INPUT_PAD).ok_or(KernelError::TooLarge)?;
        let bytes = rows.checked_mul(padded_inputs).ok_or(KernelError::TooLarge)?;
        let given = values.len();
        let too_short = KernelError::TooShort { name: "values", needed: bytes, given };
        let values = values.get_mut(..bytes).ok_or(too_short)?;
        let given = scales.len();
        let too_short = KernelError::TooShort { name: "scales", needed: rows, given };
        let scales = scales.get_mut(..rows).ok_or(too_short)?;
        arch::quantize_rows(
            self,
            Quantization { source, source_stride, inputs, padded_inputs, values, scales },
        );
        Ok(QuantizedRows { rows, inputs, order: RowOrder::of(self.instruction_set()), values, scales })
    }
}
