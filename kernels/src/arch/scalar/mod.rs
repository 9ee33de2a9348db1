//! Plain Rust: the fallback, and the oracle of every other implementation.

mod int3;
mod matmul_i4;
mod matmul_i8;
mod matmul_sparse;
mod quantize;

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(crate) use int3::for_each_block;
pub(crate) use int3::{widen_odd_panels, widen_trellis};
pub(crate) use matmul_i4::matmul_i4_block16x4;
pub(crate) use matmul_i8::matmul_i8_block16x4;
pub(crate) use matmul_sparse::{matmul_sparse_i4, matmul_sparse_i8};
#[cfg(target_arch = "aarch64")]
pub(crate) use quantize::SMALLEST_MAXIMUM;
pub(crate) use quantize::{RowScale, quantize_rows};
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
pub(crate) use quantize::{finite, row_scale};

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
pub(crate) use native::*;

/// An architecture without kernels of its own: what `arch` asks of a native folder.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod native {
    use kinglet_model_format::{Int3Matrix, Int4Matrix, SparseInt4Matrix, SparseInt8Matrix};

    use crate::matmul::Matmul;
    use crate::quantize::Quantization;
    use crate::{InstructionSet, Kernels};

    pub(crate) fn exists(_: InstructionSet) -> bool {
        false
    }

    /// Weights are taken as they are.
    pub(crate) const fn int4_room(_: usize) -> usize {
        0
    }

    pub(crate) fn dispatch_quantize_rows(_: Kernels, quantization: Quantization<'_>) {
        super::quantize_rows(quantization);
    }

    pub(crate) fn dispatch_widen_trellis(
        _: Kernels,
        weights: &Int3Matrix<'_>,
        first: usize,
        wide: &mut [i8],
    ) {
        super::widen_trellis(weights, first, wide);
    }

    pub(crate) fn dispatch_matmul(_: Kernels, matmul: Matmul<'_>) {
        super::matmul_i8_block16x4(matmul);
    }

    pub(crate) fn dispatch_matmul_int4<'a>(_: Kernels, matmul: Matmul<'a, Int4Matrix<'a>>, _: &mut [i8]) {
        super::matmul_i4_block16x4(matmul);
    }

    pub(crate) fn dispatch_matmul_sparse_int8<'a>(_: Kernels, matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
        super::matmul_sparse_i8(matmul);
    }

    pub(crate) fn dispatch_matmul_sparse_int4<'a>(
        _: Kernels,
        matmul: Matmul<'a, SparseInt4Matrix<'a>>,
        _: &mut [i8],
    ) {
        super::matmul_sparse_i4(matmul);
    }
}
