//! AArch64. The dot product and matrix multiplication instructions have no stable intrinsics: the inner
//! loops are inline assembly, whole, so that no register is left to chance.

mod detect;
#[cfg_attr(not(feature = "sparse"), allow(dead_code, reason = "some of it serves sparse kernels alone"))]
mod finish;
mod int4;
mod matmul_i4;
mod matmul_i4_dotprod;
mod matmul_i4_dotprod_row;
mod matmul_i4_neon;
mod matmul_i4_neon_rows;
mod matmul_i8_dotprod;
mod matmul_i8_dotprod_wide;
mod matmul_i8_i8mm;
mod matmul_i8_neon;
mod quantize;
#[cfg_attr(not(feature = "sparse"), path = "sparse_scalar.rs")]
mod sparse;
mod trellis;

pub(crate) use detect::exists;
pub(crate) use sparse::{dispatch_matmul_sparse_int4, dispatch_matmul_sparse_int8};

use kinglet_model_format::{Int3Matrix, Int4Matrix};

use crate::arch::scalar;
use crate::matmul::Matmul;
use crate::quantize::Quantization;
use crate::{InstructionSet, Kernels};

/// Bytes of the room for each input of a product of `rows` rows with int4 weights: what takes most of it.
pub(crate) const fn int4_room(rows: usize) -> usize {
    matmul_i4_neon_rows::room(rows)
}

pub(crate) fn dispatch_quantize_rows(kernels: Kernels, quantization: Quantization<'_>) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that NEON exists.
        InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => unsafe {
            quantize::quantize_rows_neon(quantization)
        },
        _ => scalar::quantize_rows(quantization),
    }
}

pub(crate) fn dispatch_widen_trellis(
    kernels: Kernels,
    weights: &Int3Matrix<'_>,
    first: usize,
    wide: &mut [i8],
) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that NEON exists.
        InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => unsafe {
            trellis::widen_trellis(weights, first, wide);
        },
        _ => scalar::widen_trellis(weights, first, wide),
    }
}

pub(crate) fn dispatch_matmul(kernels: Kernels, matmul: Matmul<'_>) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::I8mm => unsafe { matmul_i8_i8mm::matmul_i8_block16x4_i8mm(matmul) },
        // SAFETY: as above.
        InstructionSet::Dotprod => unsafe { matmul_i8_dotprod::matmul_i8_block16x4_dotprod(matmul) },
        // SAFETY: as above.
        InstructionSet::Neon => unsafe { matmul_i8_neon::matmul_i8_block16x4_neon(matmul) },
        _ => scalar::matmul_i8_block16x4(matmul),
    }
}

pub(crate) fn dispatch_matmul_int4<'a>(
    kernels: Kernels,
    matmul: Matmul<'a, Int4Matrix<'a>>,
    room: &mut [i8],
) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::I8mm => unsafe { matmul_i4::matmul_i4_block16x4_i8mm(matmul, room) },
        // SAFETY: as above.
        InstructionSet::Dotprod => unsafe { matmul_i4::matmul_i4_block16x4_dotprod(matmul, room) },
        // SAFETY: as above.
        InstructionSet::Neon => unsafe { matmul_i4_neon::matmul_i4_block16x4_neon(matmul, room) },
        _ => scalar::matmul_i4_block16x4(matmul),
    }
}
