//! x86-64: where people develop, and where peers are measured.

mod matmul_i4_avx2;
mod matmul_i4_avx512vnni;
mod matmul_i8_avx2;
mod matmul_i8_avx512vnni;
mod matmul_sparse_avx2;
mod quantize;
mod sparse_avx512vnni;
mod trellis;

use kinglet_model_format::{Int3Matrix, Int4Matrix, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix};

use crate::arch::scalar;
use crate::matmul::Matmul;
use crate::quantize::Quantization;
use crate::{InstructionSet, Kernels};

#[cfg(any(test, feature = "std"))]
macro_rules! has {
    ($($feature:tt)+) => { $(std::arch::is_x86_feature_detected!($feature))&&+ };
}
#[cfg(not(any(test, feature = "std")))]
macro_rules! has {
    ($($feature:tt)+) => { $(cfg!(target_feature = $feature))&&+ };
}

pub(crate) fn exists(set: InstructionSet) -> bool {
    match set {
        InstructionSet::Avx2 => has!("avx2" "fma" "f16c"),
        InstructionSet::Avx512Vnni => {
            has!("avx2" "fma" "f16c" "avx512f" "avx512bw" "avx512vl" "avx512vnni")
        }
        _ => false,
    }
}

/// Bytes of the room for each input of a product of any rows with int4 weights: those of a panel as int8.
pub(crate) const fn int4_room(_: usize) -> usize {
    OUTPUT_BLOCK
}

pub(crate) fn dispatch_quantize_rows(kernels: Kernels, quantization: Quantization<'_>) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::Avx512Vnni => unsafe { quantize::quantize_rows_avx512(quantization) },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { quantize::quantize_rows_avx2(quantization) },
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
        // SAFETY: `Kernels` proves that AVX2 exists.
        InstructionSet::Avx512Vnni | InstructionSet::Avx2 => unsafe {
            trellis::widen_trellis(weights, first, wide);
        },
        _ => scalar::widen_trellis(weights, first, wide),
    }
}

pub(crate) fn dispatch_matmul(kernels: Kernels, matmul: Matmul<'_>) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::Avx512Vnni => unsafe {
            matmul_i8_avx512vnni::matmul_i8_block16x4_avx512vnni(matmul);
        },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { matmul_i8_avx2::matmul_i8_block16x4_avx2(matmul) },
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
        InstructionSet::Avx512Vnni => unsafe {
            matmul_i4_avx512vnni::matmul_i4_block16x4_avx512vnni(matmul, room);
        },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { matmul_i4_avx2::matmul_i4_block16x4_avx2(matmul, room) },
        _ => scalar::matmul_i4_block16x4(matmul),
    }
}

pub(crate) fn dispatch_matmul_sparse_int8<'a>(kernels: Kernels, matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::Avx512Vnni => unsafe { sparse_avx512vnni::matmul_sparse_i8_avx512vnni(matmul) },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { matmul_sparse_avx2::matmul_sparse_i8_avx2(matmul) },
        _ => scalar::matmul_sparse_i8(matmul),
    }
}

pub(crate) fn dispatch_matmul_sparse_int4<'a>(
    kernels: Kernels,
    matmul: Matmul<'a, SparseInt4Matrix<'a>>,
    _: &mut [i8],
) {
    match kernels.instruction_set() {
        // SAFETY: `Kernels` proves that the instructions exist.
        InstructionSet::Avx512Vnni => unsafe { sparse_avx512vnni::matmul_sparse_i4_avx512vnni(matmul) },
        // SAFETY: as above.
        InstructionSet::Avx2 => unsafe { matmul_sparse_avx2::matmul_sparse_i4_avx2(matmul) },
        _ => scalar::matmul_sparse_i4(matmul),
    }
}

/// The number of a column of blocks, as an index stores it.
trait ColumnId: Copy {
    fn place(self) -> usize;

    /// Four at a time, which is one load: loads are what sparse products wait for.
    fn places(four: &[Self; 4]) -> [usize; 4];
}

impl ColumnId for u8 {
    #[inline(always)]
    fn place(self) -> usize {
        self.into()
    }

    #[inline(always)]
    fn places(four: &[u8; 4]) -> [usize; 4] {
        let word = u32::from_le_bytes(*four);
        [0, 8, 16, 24].map(|shift| (word >> shift) as usize & 0xff)
    }
}

impl ColumnId for u16 {
    #[inline(always)]
    fn place(self) -> usize {
        self.into()
    }

    #[inline(always)]
    fn places(four: &[u16; 4]) -> [usize; 4] {
        four.map(usize::from)
    }
}
