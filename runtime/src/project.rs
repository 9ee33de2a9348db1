//! Rows through a matrix: quantized once, multiplied by as many matrices as need them.

use crate::error::Error;
use kinglet_kernels::{KernelError, Kernels, QuantizedRows, Rows};
use kinglet_model_format::{Linear, Matrix};

/// Rows of floats, in both the forms that matrices take.
pub(crate) struct Input<'a> {
    kernels: Kernels,
    source: &'a [f32],
    stride: usize,
    quantized: QuantizedRows<'a>,
}

impl<'a> Input<'a> {
    /// Quantizes `[rows, inputs]`; row `r` begins at `source[r * stride]`, and rows may overlap. `values` and
    /// `scales` are room for [`Kernels::quantized_bytes`] and one scale a row.
    pub(crate) fn new(
        kernels: Kernels,
        source: &'a [f32],
        stride: usize,
        rows: usize,
        inputs: usize,
        values: &'a mut [i8],
        scales: &'a mut [f32],
    ) -> Result<Self, Error> {
        let quantized = kernels.quantize_rows(source, stride, rows, inputs, values, scales)?;
        Ok(Self { kernels, source, stride, quantized })
    }

    /// `out[row] = rows x weights + bias`, `[rows, outputs]`; row `r` begins at `out[r * out_stride]`.
    pub(crate) fn times(&self, linear: &Linear<'_>, out: &mut [f32], out_stride: usize) -> Result<(), Error> {
        match &linear.weight {
            Matrix::Int8(weights) => {
                self.kernels.matmul(&self.quantized, weights, linear.bias, out, out_stride)?;
            }
            Matrix::Float(weights) => {
                let source = Rows { values: self.source, stride: self.stride };
                let (rows, inputs, outputs) = (self.quantized.rows(), weights.inputs(), weights.outputs());
                let values = weights.values();
                self.kernels.matmul_f32(
                    source,
                    rows,
                    inputs,
                    outputs,
                    values,
                    linear.bias,
                    out,
                    out_stride,
                )?;
            }
            Matrix::Int4(_) => return Err(Error::Unsupported("int4 weights")),
        }
        Ok(())
    }
}

/// The first `length` values, as an error instead of a panic where there are fewer.
pub(crate) fn prefix<T>(slice: &[T], length: usize) -> Result<&[T], Error> {
    let given = slice.len();
    slice.get(..length).ok_or(Error::Kernel(KernelError::TooShort { name: "buffer", needed: length, given }))
}

/// [`prefix`], to write to.
pub(crate) fn prefix_mut<T>(slice: &mut [T], length: usize) -> Result<&mut [T], Error> {
    let given = slice.len();
    slice.get_mut(..length).ok_or(Error::Kernel(KernelError::TooShort {
        name: "buffer",
        needed: length,
        given,
    }))
}

/// `slice[start .. start + length]`.
pub(crate) fn part<T>(slice: &[T], start: usize, length: usize) -> Result<&[T], Error> {
    prefix(slice.get(start..).unwrap_or(&[]), length)
}

/// [`part`], to write to.
pub(crate) fn part_mut<T>(slice: &mut [T], start: usize, length: usize) -> Result<&mut [T], Error> {
    prefix_mut(slice.get_mut(start..).unwrap_or(&mut []), length)
}
