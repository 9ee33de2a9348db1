//! Block-sparse matrix products with `VPDPBUSD`, for every shape of blocks.
//!
//! A register holds one block of 64 weights, or four of 16; int4 weights become int8, each 16 times as large, as in the dense
//! kernel. Rows are stored plus 128: 128 times the sum of an output's weights is taken off again.
//!
//! Many rows go through [`tiles`], where a register holds one input of 16 rows; few rows through [`rows`], where it holds
//! the outputs of one.

mod rows;
mod tiles;

use core::arch::x86_64::*;

use kinglet_model_format::{
    BlockColumns, BlockIndex, BlockRow, BlockShape, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix,
};

use super::ColumnId;
use super::matmul_i4_avx512vnni::multipliers;
use crate::matmul::Matmul;

/// Fewer rows than this are not worth a tile of 16.
const LEAST_TILE: usize = 9;

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul_sparse_i8_avx512vnni<'a>(matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    let weights = *matmul.weights;
    // SAFETY: the weights are those of the product.
    unsafe { multiply(&Product::new(matmul, weights.outputs()), weights) }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul_sparse_i4_avx512vnni<'a>(matmul: Matmul<'a, SparseInt4Matrix<'a>>) {
    let weights = *matmul.weights;
    // SAFETY: the weights are those of the product.
    unsafe { multiply(&Product::new(matmul, weights.outputs()), weights) }
}

/// # Safety
/// `weights` must be those of the product.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<W: Weights>(product: &Product<'_>, weights: W) {
    // SAFETY: the shape is that of the weights' blocks.
    unsafe {
        match weights.index().shape() {
            BlockShape::Outputs16Inputs4 => all_rows::<W, Blocks16x4>(product, weights),
            BlockShape::Outputs4Inputs16 => all_rows::<W, Blocks4x16>(product, weights),
            BlockShape::Outputs4Inputs4 => all_rows::<W, Blocks4x4>(product, weights),
        }
    }
}

/// # Safety
/// `weights` must be those of the product, and `S` the shape of its blocks.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all_rows<W: Weights, S: Shape>(product: &Product<'_>, weights: W) {
    // SAFETY: the caller's promise; the rows exist.
    unsafe {
        let tiled = if product.rows >= LEAST_TILE { tiles::multiply::<W, S>(product, weights) } else { 0 };
        rows::multiply::<W, S>(product, weights, tiled);
    }
}

/// A product without its weights.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`].
struct Product<'a> {
    /// Rows, at least one.
    rows: usize,
    /// Inputs with padding, a multiple of 16.
    inputs: usize,
    outputs: usize,
    /// `[rows][inputs]`, each plus 128.
    values: *const u8,
    row_scales: *const f32,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    out_stride: usize,
}

impl<'a> Product<'a> {
    fn new<M>(matmul: Matmul<'a, M>, outputs: usize) -> Self {
        let Matmul { rows, bias, out, out_stride, .. } = matmul;
        Self {
            rows: rows.rows(),
            inputs: rows.padded_inputs(),
            outputs,
            values: rows.values().as_ptr().cast(),
            row_scales: rows.scales().as_ptr(),
            bias,
            out: out.as_mut_ptr(),
            out_stride,
        }
    }

    /// Which outputs of the panel that begins with `first_output` exist.
    #[inline(always)]
    fn exists(&self, first_output: usize) -> __mmask16 {
        u16::MAX >> (16 - OUTPUT_BLOCK.min(self.outputs - first_output))
    }

    /// The bias of that panel.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn bias(&self, first_output: usize) -> __m512 {
        match self.bias {
            // SAFETY: only the bias of outputs that exist is read.
            Some(bias) => unsafe {
                _mm512_maskz_loadu_ps(self.exists(first_output), bias.as_ptr().add(first_output))
            },
            None => _mm512_setzero_ps(),
        }
    }
}

/// The shape of blocks.
///
/// The unit of all that is not a sum is a panel of 16 outputs: one row of blocks, or four.
trait Shape {
    /// Outputs of a block.
    const OUTPUTS: usize;
    /// Groups of 4 inputs in a block.
    const QUADS: usize;
    /// Blocks in a register.
    const BLOCKS: usize = 64 / (Self::OUTPUTS * Self::QUADS * 4);
    /// Rows of blocks in a panel.
    const ROWS: usize = OUTPUT_BLOCK / Self::OUTPUTS;

    /// Of the inputs of one row, those that meet a register of weights: of the first `count` of `columns`, and anything for
    /// further blocks.
    ///
    /// # Safety
    /// The row must have these columns.
    unsafe fn inputs(row: *const u8, columns: [usize; 4], count: usize) -> __m512i;

    /// The sums of outputs from `sums` that [`VPDPBUSD`](_mm512_dpbusd_epi32) made of registers of weights: 16 outputs, or 4
    /// four times.
    ///
    /// # Safety
    /// None beyond the instructions.
    unsafe fn outputs(sums: __m512i) -> __m512i;
}

struct Blocks16x4;
struct Blocks4x16;
struct Blocks4x4;

impl Shape for Blocks16x4 {
    const OUTPUTS: usize = 16;
    const QUADS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn inputs(row: *const u8, columns: [usize; 4], _: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(row.add(columns[0] * 4).cast::<i32>().read_unaligned()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn outputs(sums: __m512i) -> __m512i {
        sums
    }
}

impl Shape for Blocks4x16 {
    const OUTPUTS: usize = 4;
    const QUADS: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn inputs(row: *const u8, columns: [usize; 4], _: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(row.add(columns[0] * 16).cast())) }
    }

    /// Each quarter holds four parts of one sum.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn outputs(sums: __m512i) -> __m512i {
        let pairs = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b10_11_00_01>(sums));
        let sums = _mm512_add_epi32(pairs, _mm512_shuffle_epi32::<0b01_00_11_10>(pairs));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
        _mm512_permutexvar_epi32(order, sums)
    }
}

impl Shape for Blocks4x4 {
    const OUTPUTS: usize = 4;
    const QUADS: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn inputs(row: *const u8, columns: [usize; 4], count: usize) -> __m512i {
        // SAFETY: the caller's promise.
        let quad = |index: usize| unsafe {
            _mm_set1_epi32(row.add(columns[index] * 4).cast::<i32>().read_unaligned())
        };
        let mut inputs = _mm512_castsi128_si512(quad(0));
        if count > 1 {
            inputs = _mm512_mask_broadcast_i32x4(inputs, 0x00f0, quad(1));
        }
        if count > 2 {
            inputs = _mm512_mask_broadcast_i32x4(inputs, 0x0f00, quad(2));
        }
        if count > 3 {
            inputs = _mm512_mask_broadcast_i32x4(inputs, 0xf000, quad(3));
        }
        inputs
    }

    /// Each quarter holds a part of each sum.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn outputs(sums: __m512i) -> __m512i {
        let pairs = _mm512_add_epi32(sums, _mm512_shuffle_i32x4::<0b10_11_00_01>(sums, sums));
        _mm512_add_epi32(pairs, _mm512_shuffle_i32x4::<0b01_00_11_10>(pairs, pairs))
    }
}

/// Block-sparse weights, as int8 in registers.
trait Weights: Copy {
    /// Bytes for 64 weights.
    const BYTES: usize;
    /// Whether a register holds 16 times the weights.
    const SCALED: bool;

    fn index(&self) -> BlockIndex<'_>;

    /// Groups of inputs with a multiplier of their own, each of as many inputs.
    fn groups(&self) -> (usize, usize);

    /// The first byte of a block.
    fn block<S: Shape>(&self, block: usize) -> *const u8;

    /// The register of weights at `place`, of which `count` blocks exist; the rest of it is 0.
    ///
    /// # Safety
    /// These blocks must exist.
    unsafe fn register<S: Shape>(place: *const u8, count: usize) -> __m512i;

    /// The scales of the outputs, padded to 16.
    fn scales(&self) -> &[f32];

    /// The multipliers of a panel in one group of inputs.
    ///
    /// # Safety
    /// Panel and group must exist.
    unsafe fn multipliers(&self, first_output: usize, group: usize) -> __m512i;
}

/// The lanes of a panel that the `index`th of its rows of blocks fills.
#[inline(always)]
fn lanes<S: Shape>(index: usize) -> __mmask16 {
    if S::ROWS == 1 { u16::MAX } else { 0xf << (4 * index) }
}

/// Which of the 16 lanes of a register `count` blocks fill.
fn filled<S: Shape>(count: usize) -> __mmask16 {
    if S::BLOCKS == 1 || count >= S::BLOCKS { u16::MAX } else { (1 << (4 * count)) - 1 }
}

impl Weights for SparseInt8Matrix<'_> {
    const BYTES: usize = 64;
    const SCALED: bool = false;

    fn index(&self) -> BlockIndex<'_> {
        SparseInt8Matrix::index(self)
    }

    fn groups(&self) -> (usize, usize) {
        (1, usize::MAX)
    }

    fn block<S: Shape>(&self, block: usize) -> *const u8 {
        self.values().as_ptr().wrapping_add(block * (Self::BYTES / S::BLOCKS)).cast()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn register<S: Shape>(place: *const u8, count: usize) -> __m512i {
        // SAFETY: only blocks that exist are read.
        unsafe { _mm512_maskz_loadu_epi32(filled::<S>(count), place.cast()) }
    }

    fn scales(&self) -> &[f32] {
        SparseInt8Matrix::scales(self)
    }

    /// Not asked for.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn multipliers(&self, _: usize, _: usize) -> __m512i {
        _mm512_set1_epi32(1)
    }
}

impl Weights for SparseInt4Matrix<'_> {
    const BYTES: usize = 32;
    const SCALED: bool = true;

    fn index(&self) -> BlockIndex<'_> {
        SparseInt4Matrix::index(self)
    }

    fn groups(&self) -> (usize, usize) {
        (SparseInt4Matrix::groups(self), SparseInt4Matrix::scales(self).group_inputs)
    }

    fn block<S: Shape>(&self, block: usize) -> *const u8 {
        self.values().as_ptr().wrapping_add(block * (Self::BYTES / S::BLOCKS))
    }

    /// Every 16 bytes (8 in a block of 4 x 4) fill as much with their low halves and then as much with their high ones.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn register<S: Shape>(place: *const u8, count: usize) -> __m512i {
        let (low, high) = (0x0004_0004_0004_0004, 0);
        let (order, shifts) = if S::BLOCKS == 1 {
            let shifts = _mm512_setr_epi64(low, low, high, high, low, low, high, high);
            (_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), shifts)
        } else {
            let shifts = _mm512_setr_epi64(low, high, low, high, low, high, low, high);
            (_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), shifts)
        };
        // SAFETY: only blocks that exist are read.
        let packed = unsafe { _mm256_maskz_loadu_epi16(filled::<S>(count), place.cast()) };
        let twice = _mm512_permutexvar_epi64(order, _mm512_castsi256_si512(packed));
        _mm512_and_si512(_mm512_sllv_epi16(twice, shifts), _mm512_set1_epi8(0xf0_u8 as i8))
    }

    fn scales(&self) -> &[f32] {
        SparseInt4Matrix::scales(self).scales
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn multipliers(&self, first_output: usize, group: usize) -> __m512i {
        let place = (first_output / OUTPUT_BLOCK * SparseInt4Matrix::groups(self) + group) * 8;
        // SAFETY: each group of 16 outputs has 8 bytes.
        unsafe { multipliers(SparseInt4Matrix::scales(self).multipliers.as_ptr().add(place)) }
    }
}

/// A total with the sums of a group; int4 weights were 16 times as large.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_group<W: Weights>(total: __m512i, sum: __m512i, multipliers: __m512i) -> __m512i {
    if W::SCALED {
        _mm512_add_epi32(total, _mm512_mullo_epi32(_mm512_srai_epi32::<4>(sum), multipliers))
    } else {
        sum
    }
}

/// The result for a row.
#[inline]
#[target_feature(enable = "avx512f")]
fn finish(total: __m512i, row_scale: __m512, scale: __m512, bias: __m512) -> __m512 {
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(row_scale, scale), bias)
}
