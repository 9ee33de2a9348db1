//! Int8 rows times int8, int4 or int3 weights, dense or in blocks, to floats.

use kinglet_model_format::{
    INPUT_PAD, Int3Matrix, Int4Matrix, Int8Matrix, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix, round_up,
};

use crate::arch;
use crate::{KernelError, Kernels, QuantizedRows};

/// Fewer rows than this take int4 weights as they are.
pub(crate) const LEAST_UNPACKED: usize = 4;

/// Bytes of int3 weights as int4, widened at a time: so many that what a product does once for each call hardly counts, and no more
/// than stay in the first-level cache; one panel at least.
const fn wide_bytes(inputs: usize) -> usize {
    const BYTES: usize = 8192;
    let panel = panel_bytes(inputs);
    if panel > BYTES { panel } else { BYTES }
}

/// Bytes of 16 outputs of int4 weights.
const fn panel_bytes(inputs: usize) -> usize {
    OUTPUT_BLOCK / 2 * round_up(inputs, INPUT_PAD)
}

/// The checked arguments of a product with weights of the kind `W`.
///
/// Invariants, relied on by unsafe code in the kernels: `rows.inputs() == weights.inputs()`; `bias`, if any,
/// has `weights.outputs()` values; `out` has `weights.outputs()` values from each of the starts
/// `row * out_stride`, and these rows do not overlap; there is at least one row.
pub(crate) struct Matmul<'a, W = Int8Matrix<'a>> {
    pub(crate) rows: &'a QuantizedRows<'a>,
    pub(crate) weights: &'a W,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
}

impl Kernels {
    /// `out[row, output] = fma(sum as f32, row scale * weight scale, bias or 0)`, where `sum` is the int32
    /// sum over the inputs of row value times weight: `[rows, inputs] x [outputs, inputs] -> [rows, outputs]`.
    ///
    /// Row `r` of the result starts at `out[r * out_stride]`; nothing is written beyond `outputs` values of a
    /// row. Any number of rows: one is a matrix-vector product. Sums wrap beyond 133 000 inputs.
    ///
    /// # Errors
    /// When lengths do not fit, or `rows` were quantized by kernels with another order of values.
    pub fn matmul(
        self,
        rows: &QuantizedRows<'_>,
        weights: &Int8Matrix<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let bias = self.check_product(rows, weights.inputs(), weights.outputs(), bias, out, out_stride)?;
        if rows.rows() > 0 {
            arch::matmul(self, Matmul { rows, weights, bias, out, out_stride });
        }
        Ok(())
    }

    /// [`matmul`](Self::matmul) with int4 weights, which gives what their products with their multipliers give as int8 weights,
    /// bit for bit. `room` has [`int4_room`](Self::int4_room) bytes, whatever is in them.
    ///
    /// # Errors
    /// When lengths do not fit, or `rows` were quantized by kernels with another order of values.
    pub fn matmul_int4(
        self,
        rows: &QuantizedRows<'_>,
        weights: &Int4Matrix<'_>,
        bias: Option<&[f32]>,
        room: &mut [i8],
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let bias = self.check_product(rows, weights.inputs(), weights.outputs(), bias, out, out_stride)?;
        Self::check_room(Self::int4_room(rows.rows(), rows.inputs()), room)?;
        if rows.rows() > 0 {
            arch::matmul_int4(self, Matmul { rows, weights, bias, out, out_stride }, room);
        }
        Ok(())
    }

    /// Bytes of `room` for [`matmul_int4`](Self::matmul_int4) and [`matmul_sparse_int4`](Self::matmul_sparse_int4): with few rows weights are unpacked in registers, with more 16
    /// outputs at a time become int8 or int16 once for all rows. On some processors the rows themselves are written there too, as int16.
    pub const fn int4_room(rows: usize, inputs: usize) -> usize {
        if rows < LEAST_UNPACKED { 0 } else { arch::int4_room(rows) * round_up(inputs, INPUT_PAD) }
    }

    /// [`matmul_int4`](Self::matmul_int4) with int3 weights, some panels of 16 outputs after the other: they become int4 in `room`, which has
    /// [`int3_room`](Self::int3_room) bytes, and then go by as such.
    ///
    /// # Errors
    /// When lengths do not fit, or `rows` were quantized by kernels with another order of values.
    pub fn matmul_int3(
        self,
        rows: &QuantizedRows<'_>,
        weights: &Int3Matrix<'_>,
        bias: Option<&[f32]>,
        room: &mut [i8],
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let (inputs, outputs) = (weights.inputs(), weights.outputs());
        let bias = self.check_product(rows, inputs, outputs, bias, out, out_stride)?;
        Self::check_room(Self::int3_room(rows.rows(), inputs), room)?;
        if rows.rows() == 0 {
            return Ok(());
        }
        let (panels, at_once) = (weights.panels(), wide_bytes(inputs) / panel_bytes(inputs));
        let (wide, room) = room.split_at_mut(wide_bytes(inputs));
        for panel in (0..panels).step_by(at_once) {
            let (first, count) = (panel * OUTPUT_BLOCK, at_once.min(panels - panel));
            let wide = &mut wide[..count * panel_bytes(inputs)];
            arch::widen_int3(self, weights, panel, wide);
            // There are such panels, and these are their values.
            let Some(weights) = weights.as_int4(panel, count, wide) else { break };
            let (bias, out) = (bias.map(|bias| &bias[first..]), &mut out[first..]);
            arch::matmul_int4(self, Matmul { rows, weights: &weights, bias, out, out_stride }, room);
        }
        Ok(())
    }

    /// Bytes of `room` for [`matmul_int3`](Self::matmul_int3): those of int4, and the panels that are int4 at a time.
    pub const fn int3_room(rows: usize, inputs: usize) -> usize {
        wide_bytes(inputs) + Self::int4_room(rows, inputs)
    }

    /// [`matmul`](Self::matmul) with block-sparse int8 weights: what is not stored counts as zero.
    ///
    /// # Errors
    /// When lengths do not fit, or `rows` were quantized by kernels with another order of values.
    pub fn matmul_sparse_int8(
        self,
        rows: &QuantizedRows<'_>,
        weights: &SparseInt8Matrix<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let bias = self.check_product(rows, weights.inputs(), weights.outputs(), bias, out, out_stride)?;
        if rows.rows() > 0 {
            arch::matmul_sparse_int8(self, Matmul { rows, weights, bias, out, out_stride });
        }
        Ok(())
    }

    /// [`matmul_int4`](Self::matmul_int4) with block-sparse weights: what is not stored counts as zero.
    ///
    /// # Errors
    /// When lengths do not fit, or `rows` were quantized by kernels with another order of values.
    pub fn matmul_sparse_int4(
        self,
        rows: &QuantizedRows<'_>,
        weights: &SparseInt4Matrix<'_>,
        bias: Option<&[f32]>,
        room: &mut [i8],
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let bias = self.check_product(rows, weights.inputs(), weights.outputs(), bias, out, out_stride)?;
        Self::check_room(Self::int4_room(rows.rows(), rows.inputs()), room)?;
        if rows.rows() > 0 {
            arch::matmul_sparse_int4(self, Matmul { rows, weights, bias, out, out_stride }, room);
        }
        Ok(())
    }

    /// Checks that `room` has as many bytes as are `needed`.
    fn check_room(needed: usize, room: &[i8]) -> Result<(), KernelError> {
        let given = room.len();
        if given < needed { Err(KernelError::TooShort { name: "room", needed, given }) } else { Ok(()) }
    }

    /// Checks what [`Matmul`] promises, and cuts the bias to the outputs.
    fn check_product<'a>(
        self,
        rows: &QuantizedRows<'_>,
        inputs: usize,
        outputs: usize,
        bias: Option<&'a [f32]>,
        out: &[f32],
        out_stride: usize,
    ) -> Result<Option<&'a [f32]>, KernelError> {
        if rows.inputs() != inputs {
            return Err(KernelError::Inputs { expected: inputs, given: rows.inputs() });
        }
        if !self.reads(rows) {
            return Err(KernelError::RowOrder);
        }
        KernelError::check_stride(outputs, out_stride, rows.rows())?;
        KernelError::check_rows("out", out.len(), rows.rows(), outputs, out_stride)?;
        bias.map(|bias| KernelError::prefix("bias", bias, outputs)).transpose()
    }
}
