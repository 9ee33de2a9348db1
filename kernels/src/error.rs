//! Everything that a kernel refuses.

use thiserror::Error;

/// Shapes and lengths that do not fit together. Checked once, before anything is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KernelError {
    /// A slice is shorter than the shape asks for.
    #[error("`{name}` holds {given} elements, the shape needs {needed}")]
    TooShort {
        /// The argument.
        name: &'static str,
        /// Elements that the shape needs.
        needed: usize,
        /// Elements that were given.
        given: usize,
    },
    /// Rows of one width meet a matrix of another.
    #[error("rows of {given} inputs cannot be multiplied by a matrix of {expected} inputs")]
    Inputs {
        /// Inputs of the matrix.
        expected: usize,
        /// Inputs of the rows.
        given: usize,
    },
    /// Rows of the result would overlap.
    #[error("output rows of {outputs} values do not fit a stride of {stride}")]
    Stride {
        /// Outputs of the matrix.
        outputs: usize,
        /// Distance between two rows of the result.
        stride: usize,
    },
    /// The rows were quantized by kernels that keep values in another order.
    #[error("rows were quantized for another instruction set; quantize and multiply with the same kernels")]
    RowOrder,
    /// A number is outside its range.
    #[error("`{name}` is {given}, it must be {least} to {most}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// Its value.
        given: usize,
        /// The smallest allowed.
        least: usize,
        /// The largest allowed.
        most: usize,
    },
    /// The shape does not fit the address space.
    #[error("the shape is too large")]
    TooLarge,
}

impl KernelError {
    /// `Ok` when `given` elements are enough for `rows` rows of `width`, `stride` apart.
    pub(crate) fn check_rows(
        name: &'static str,
        given: usize,
        rows: usize,
        width: usize,
        stride: usize,
    ) -> Result<(), Self> {
        let Some(last_row) = rows.checked_sub(1) else { return Ok(()) };
        let start = last_row.checked_mul(stride).ok_or(Self::TooLarge)?;
        let needed = start.checked_add(width).ok_or(Self::TooLarge)?;
        if given < needed { Err(Self::TooShort { name, needed, given }) } else { Ok(()) }
    }

    /// `Ok` when `given` is in `least..=most`.
    pub(crate) fn check_range(
        name: &'static str,
        given: usize,
        least: usize,
        most: usize,
    ) -> Result<(), Self> {
        if given < least || given > most {
            Err(Self::OutOfRange { name, given, least, most })
        } else {
            Ok(())
        }
    }

    /// `Ok` when `rows` rows of `outputs` values, `stride` apart, do not overlap.
    pub(crate) fn check_stride(outputs: usize, stride: usize, rows: usize) -> Result<(), Self> {
        if rows > 1 && stride < outputs { Err(Self::Stride { outputs, stride }) } else { Ok(()) }
    }

    /// The first `needed` elements of `slice`.
    pub(crate) fn prefix<'a, T>(name: &'static str, slice: &'a [T], needed: usize) -> Result<&'a [T], Self> {
        slice.get(..needed).ok_or(Self::TooShort { name, needed, given: slice.len() })
    }
}
