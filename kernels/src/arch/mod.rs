//! The implementations: one folder an architecture, and here the only choice between them.

pub(crate) mod scalar;

use crate::matmul::Matmul;
use crate::quantize::Quantization;
use crate::{InstructionSet, Kernels};

/// Whether the instructions of `set` can be executed here.
pub(crate) fn exists(set: InstructionSet) -> bool {
    set == InstructionSet::Scalar
}

pub(crate) fn quantize_rows(kernels: Kernels, quantization: Quantization<'_>) {
    match kernels.instruction_set() {
        _ => scalar::quantize_rows(quantization),
    }
}

pub(crate) fn matmul(kernels: Kernels, matmul: Matmul<'_>) {
    match kernels.instruction_set() {
        _ => scalar::matmul_i8_block16x4(matmul),
    }
}
