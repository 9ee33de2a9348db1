//! The implementations: one folder an architecture, and here the only choice between them.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod int4_panel;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod panel;
pub(crate) mod scalar;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
#[allow(dead_code, reason = "an architecture without sparse kernels of its own leaves it unused")]
mod sparse_panel;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as native;
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
use scalar as native;
#[cfg(target_arch = "x86_64")]
use x86_64 as native;

use kinglet_model_format::{Int3Coding, Int3Matrix, Int4Matrix, SparseInt4Matrix, SparseInt8Matrix};

use crate::matmul::Matmul;
use crate::quantize::Quantization;
use crate::{InstructionSet, Kernels};

/// Whether the instructions of `set` can be executed here.
pub(crate) fn exists(set: InstructionSet) -> bool {
    set == InstructionSet::Scalar || native::exists(set)
}

pub(crate) fn quantize_rows(kernels: Kernels, quantization: Quantization<'_>) {
    match kernels.instruction_set() {
        InstructionSet::Scalar => scalar::quantize_rows(quantization),
        _ => native::dispatch_quantize_rows(kernels, quantization),
    }
}

pub(crate) fn matmul(kernels: Kernels, matmul: Matmul<'_>) {
    match kernels.instruction_set() {
        InstructionSet::Scalar => scalar::matmul_i8_block16x4(matmul),
        _ => native::dispatch_matmul(kernels, matmul),
    }
}

/// Bytes of the room for each input of a product of `rows` rows with int4 weights, where these are enough to unpack weights for.
pub(crate) const fn int4_room(rows: usize) -> usize {
    native::int4_room(rows)
}

/// `room` holds a panel of int8 weights where there are rows enough to unpack one.
pub(crate) fn matmul_int4<'a>(kernels: Kernels, matmul: Matmul<'a, Int4Matrix<'a>>, room: &mut [i8]) {
    match kernels.instruction_set() {
        InstructionSet::Scalar => scalar::matmul_i4_block16x4(matmul),
        _ => native::dispatch_matmul_int4(kernels, matmul, room),
    }
}

/// Panels of int3 weights from the `first`th on as those of int4, as many as there is room for.
pub(crate) fn widen_int3(kernels: Kernels, weights: &Int3Matrix<'_>, first: usize, wide: &mut [i8]) {
    match (weights.coding(), kernels.instruction_set()) {
        (Int3Coding::Odd, _) => scalar::widen_odd_panels(weights, first, wide),
        (Int3Coding::Trellis, InstructionSet::Scalar) => scalar::widen_trellis(weights, first, wide),
        (Int3Coding::Trellis, _) => native::dispatch_widen_trellis(kernels, weights, first, wide),
    }
}

pub(crate) fn matmul_sparse_int8<'a>(kernels: Kernels, matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    match kernels.instruction_set() {
        InstructionSet::Scalar => scalar::matmul_sparse_i8(matmul),
        _ => native::dispatch_matmul_sparse_int8(kernels, matmul),
    }
}

/// `room` holds a row of blocks of int8 weights where there are rows enough to unpack one.
pub(crate) fn matmul_sparse_int4<'a>(
    kernels: Kernels,
    matmul: Matmul<'a, SparseInt4Matrix<'a>>,
    room: &mut [i8],
) {
    match kernels.instruction_set() {
        InstructionSet::Scalar => scalar::matmul_sparse_i4(matmul),
        _ => native::dispatch_matmul_sparse_int4(kernels, matmul, room),
    }
}
