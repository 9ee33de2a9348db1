//! Rows through a matrix: rounded once, multiplied by as many matrices as need them.

use crate::error::Error;
use crate::residual::Spare;
use core::cell::Cell;
use kinglet_kernels::{KernelError, Kernels, QuantizedRows, Rows};
use kinglet_model_format::{ActivationBits, Floats, Linear, Matrix};

/// Room to round rows in: for `n` rows of `i` inputs at sixteen bits, `2 n` rows everywhere. Where layers add to shared
/// matrices, each has [`Need`](crate::residual::Need) more, and `split` at least that.
pub(crate) struct Rounding<'a> {
    /// `[2 rows, inputs]` while rows are rounded to sixteen bits, then room for residuals.
    pub(crate) split: &'a mut [f32],
    /// [`Kernels::quantized_bytes`] of the rows, of twice as many at sixteen bits.
    pub(crate) rows: &'a mut [i8],
    /// One a row, two at sixteen bits.
    pub(crate) scales: &'a mut [f32],
    /// [`Sizes::biases`](crate::sizes::Sizes::biases): a bias of f16 as f32.
    pub(crate) bias: &'a mut [f32],
    /// [`Kernels::int4_room`] or [`Kernels::int3_room`] for the products with int4 or int3 matrices.
    pub(crate) room: &'a mut [i8],
}

/// Rows of floats, in the forms that matrices take.
pub(crate) struct Input<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) source: Rows<'a>,
    pub(crate) rows: usize,
    pub(crate) bits: ActivationBits,
    quantized: QuantizedRows<'a>,
    /// Taken by one product at a time, as is the next.
    spare: Cell<Spare<'a>>,
    bias: Cell<&'a mut [f32]>,
    pub(crate) room: Cell<&'a mut [i8]>,
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
        let Rounding { split, rows: values, scales, bias, room } = rounding;
        let copies = rows * result_rows(bits);
        let (values, spare_rows) = split_at(values, Kernels::quantized_bytes(copies, inputs));
        let (scales, spare_scales) = split_at(scales, copies);
        let quantized = match bits {
            ActivationBits::Eight => {
                kernels.quantize_rows(source.values, source.stride, rows, inputs, values, scales)?
            }
            ActivationBits::Sixteen => {
                kernels.split_rows(source, rows, inputs, split)?;
                kernels.quantize_rows(split, inputs, 2 * rows, inputs, values, scales)?
            }
        };
        let spare = Cell::new(Spare { floats: split, rows: spare_rows, scales: spare_scales });
        let (bias, room) = (Cell::new(&mut **bias), Cell::new(&mut **room));
        Ok(Self { kernels, source, rows, bits, quantized, spare, bias, room })
    }

    /// `out = rows x weights + bias`, `[rows, outputs]`. `out` must have room for [`result_rows`] times as many rows.
    pub(crate) fn times(&self, linear: &Linear<'_>, out: &mut [f32]) -> Result<(), Error> {
        self.product(&linear.weight, linear.bias, out)?;
        if let Some(residual) = &linear.residual {
            let mut spare = self.spare.take();
            let added = self.add_residual(residual, &mut spare, out);
            self.spare.set(spare);
            added?;
        }
        linear.diagonal.map_or(Ok(()), |diagonal| self.add_diagonal(diagonal, out))
    }

    /// [`times`](Self::times) for a matrix to which nothing is added but a bias.
    pub(crate) fn product(
        &self,
        weight: &Matrix<'_>,
        bias: Option<Floats<'_>>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Some(bias) = bias else { return self.multiply(weight, None, out) };
        let room = self.bias.take();
        let (needed, given) = (bias.room(), room.len());
        let done = match bias.widen(room) {
            Some(bias) => self.multiply(weight, Some(bias), out),
            None => Err(KernelError::TooShort { name: "bias", needed, given }.into()),
        };
        self.bias.set(room);
        done
    }

    fn multiply(&self, weight: &Matrix<'_>, bias: Option<&[f32]>, out: &mut [f32]) -> Result<(), Error> {
        let outputs = weight.outputs();
        // Rows in two halves are joined with the bias; what multiplies floats has none of them.
        let split = self.bits == ActivationBits::Sixteen && !matches!(weight, Matrix::Float(_));
        let (kernels, rows) = (self.kernels, &self.quantized);
        let added = if split { None } else { bias };
        match weight {
            Matrix::Int8(weights) => kernels.matmul(rows, weights, added, out, outputs)?,
            Matrix::Int4(weights) => {
                let room = self.room.take();
                let done = kernels.matmul_int4(rows, weights, added, room, out, outputs);
                self.room.set(room);
                done?;
            }
            Matrix::Int3(weights) => {
                let room = self.room.take();
                let done = kernels.matmul_int3(rows, weights, added, room, out, outputs);
                self.room.set(room);
                done?;
            }
            Matrix::SparseInt8(weights) => kernels.matmul_sparse_int8(rows, weights, added, out, outputs)?,
            Matrix::SparseInt4(weights) => {
                let room = self.room.take();
                let done = kernels.matmul_sparse_int4(rows, weights, added, room, out, outputs);
                self.room.set(room);
                done?;
            }
            Matrix::Float(weights) => {
                let (inputs, values) = (weights.inputs(), weights.values());
                let (source, rows) = (self.source, self.rows);
                kernels.matmul_f32(source, rows, inputs, outputs, values, added, out, outputs)?;
            }
        }
        if split {
            kernels.join_rows(out, self.rows, outputs, bias)?;
        }
        Ok(())
    }
}

/// The first `length` values and the rest; all and none where there are fewer.
fn split_at<T>(slice: &mut [T], length: usize) -> (&mut [T], &mut [T]) {
    slice.split_at_mut(length.min(slice.len()))
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
