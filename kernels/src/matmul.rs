//! Int8 rows times int8 weights, to floats.

use kinglet_model_format::Int8Matrix;

use crate::arch;
use crate::{KernelError, Kernels, QuantizedRows};

/// The checked arguments of a matrix product.
///
/// Invariants, relied on by unsafe code in the kernels: `rows.inputs() == weights.inputs()`; `bias`, if any,
/// has `weights.outputs()` values; `out` has `weights.outputs()` values from each of the starts
/// `row * out_stride`, and these rows do not overlap; there is at least one row.
pub(crate) struct Matmul<'a> {
    pub(crate) rows: &'a QuantizedRows<'a>,
    pub(crate) weights: &'a Int8Matrix<'a>,
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
        let (expected, outputs) = (weights.inputs(), weights.outputs());
        if rows.inputs() != expected {
            return Err(KernelError::Inputs { expected, given: rows.inputs() });
        }
        if !self.reads(rows) {
            return Err(KernelError::RowOrder);
        }
        if rows.rows() > 1 && out_stride < outputs {
            return Err(KernelError::Stride { outputs, stride: out_stride });
        }
        KernelError::check_rows("out", out.len(), rows.rows(), outputs, out_stride)?;
        let bias = match bias {
            None => None,
            Some(bias) => {
                let given = bias.len();
                let too_short = KernelError::TooShort { name: "bias", needed: outputs, given };
                Some(bias.get(..outputs).ok_or(too_short)?)
            }
        };
        if rows.rows() > 0 {
            arch::matmul(self, Matmul { rows, weights, bias, out, out_stride });
        }
        Ok(())
    }
}
