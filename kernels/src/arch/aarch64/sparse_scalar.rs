//! Products with block-sparse weights in a build without feature `sparse`: correct, small and slow.

use kinglet_model_format::{SparseInt4Matrix, SparseInt8Matrix};

use crate::Kernels;
use crate::arch::scalar;
use crate::matmul::Matmul;

pub(crate) fn dispatch_matmul_sparse_int8<'a>(_: Kernels, matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    scalar::matmul_sparse_i8(matmul);
}

pub(crate) fn dispatch_matmul_sparse_int4<'a>(
    _: Kernels,
    matmul: Matmul<'a, SparseInt4Matrix<'a>>,
    _: &mut [i8],
) {
    scalar::matmul_sparse_i4(matmul);
}
