//! Rows through a matrix: rounded once, multiplied by as many matrices as need them.

use crate::error::Error;
use kinglet_kernels::{KernelError, Kernels, QuantizedRows, Rows};
use kinglet_model_format::{ActivationBits, Linear, Matrix};

/// Room to round rows in: for `n` rows of `i` inputs at sixteen bits, `2 n` rows everywhere.
pub(crate) struct Rounding<'a> {
    /// `[2 rows, inputs]`; not used at eight bits.
    pub(crate) split: &'a mut [f32],
    /// [`Kernels::quantized_bytes`] of the rows, of twice as many at sixteen bits.
    pub(crate) rows: &'a mut [i8],
    /// One a row, two at sixteen bits.
    pub(crate) scales: &'a mut [f32],
}

/// Rows of floats, in the forms that matrices take.
pub(crate) struct Input<'a> {
    kernels: Kernels,
    source: Rows<'a>,
    rows: usize,
    bits: ActivationBits,
    quantized: QuantizedRows<'a>,
}

/// Values that the result of [`Input::times`] needs for one row of one output.
pub(crate) const fn result_rows(bits: ActivationBits) -> usize {
    match bits {
        ActivationBits::Eight => 1,
        ActivationBits::Sixteen => 2,
    }
}

impl<'a> Input<'a> {
    /// Rounds `[rows, inputs]`; row `r` begins at `source[r * stride]`, and rows may overlap.
    pub(crate) fn new(
        kernels: Kernels,
        bits: ActivationBits,
        source: Rows<'a>,
        rows: usize,
        inputs: usize,
        rounding: &'a mut Rounding<'_>,
    ) -> Result<Self, Error> {
        let Rounding { split, rows: values, scales } = rounding;
        let quantized = match bits {
            ActivationBits::Eight => {
                kernels.quantize_rows(source.values, source.stride, rows, inputs, values, scales)?
            }
            ActivationBits::Sixteen => {
                kernels.split_rows(source, rows, inputs, split)?;
                kernels.quantize_rows(split, inputs, 2 * rows, inputs, values, scales)?
            }
        };
        Ok(Self { kernels, source, rows, bits, quantized })
    }

    /// `out = rows x weights + bias`, `[rows, outputs]`. `out` must have room for [`result_rows`] times as many rows.
    pub(crate) fn times(&self, linear: &Linear<'_>, out: &mut [f32]) -> Result<(), Error> {
        let outputs = linear.weight.outputs();
        match (&linear.weight, self.bits) {
            (Matrix::Int8(weights), ActivationBits::Eight) => {
                self.kernels.matmul(&self.quantized, weights, linear.bias, out, outputs)?;
            }
            (Matrix::Int8(weights), ActivationBits::Sixteen) => {
                self.kernels.matmul(&self.quantized, weights, None, out, outputs)?;
                self.join(linear.bias, out, outputs)?;
            }
            (Matrix::Float(weights), _) => {
                let (inputs, values) = (weights.inputs(), weights.values());
                let (source, rows) = (self.source, self.rows);
                self.kernels.matmul_f32(source, rows, inputs, outputs, values, linear.bias, out, outputs)?;
            }
            (Matrix::Int4(weights), ActivationBits::Eight) => {
                self.kernels.matmul_int4(&self.quantized, weights, linear.bias, out, outputs)?;
            }
            (Matrix::Int4(weights), ActivationBits::Sixteen) => {
                self.kernels.matmul_int4(&self.quantized, weights, None, out, outputs)?;
                self.join(linear.bias, out, outputs)?;
            }
        }
        Ok(())
    }

    /// Adds the two rows that stand for each row of the input, and the bias.
    fn join(&self, bias: Option<&[f32]>, out: &mut [f32], outputs: usize) -> Result<(), Error> {
        for row in 0..self.rows {
            let (whole, rest) = part_mut(out, 2 * row * outputs, 2 * outputs)?.split_at_mut(outputs);
            self.kernels.add(whole, rest)?;
            if let Some(bias) = bias {
                self.kernels.add(whole, bias)?;
            }
            if row > 0 {
                let start = 2 * row * outputs;
                out.copy_within(start..start + outputs, row * outputs);
            }
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
