//! Block-sparse matrix products with `VPMADDUBSW`, for every shape of blocks.
//!
//! As in the dense kernel, the magnitude of a weight is the operand without sign, and the row's value carries the sign of the
//! product. A step is 64 weights in two registers, one block or four; int4 weights become int8.

use core::arch::x86_64::*;

use kinglet_model_format::{BlockColumns, BlockShape, SparseInt4Matrix, SparseInt8Matrix};

use super::ColumnId;
use super::matmul_i4_avx2::multipliers;
use crate::arch::sparse_panel::SparsePanel;
use crate::matmul::Matmul;

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_sparse_i8_avx2<'a>(matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    let shape = matmul.block_shape();
    for panel in matmul.panels() {
        // SAFETY: the shape is that of the panel's blocks.
        unsafe { shaped(shape, &panel) }
    }
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_sparse_i4_avx2<'a>(matmul: Matmul<'a, SparseInt4Matrix<'a>>) {
    let shape = matmul.block_shape();
    for panel in matmul.panels() {
        // SAFETY: the shape is that of the panel's blocks.
        unsafe { shaped(shape, &panel) }
    }
}

/// # Safety
/// `shape` must be that of the panel's blocks.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn shaped<W: Weights>(shape: BlockShape, panel: &SparsePanel<'_, W>) {
    // SAFETY: the caller's promise.
    unsafe {
        match shape {
            BlockShape::Outputs16Inputs4 => all_rows::<W, Blocks16x4>(panel),
            BlockShape::Outputs4Inputs16 => all_rows::<W, Blocks4x16>(panel),
            BlockShape::Outputs4Inputs4 => all_rows::<W, Blocks4x4>(panel),
        }
    }
}

/// # Safety
/// `B` must be the shape of the panel's blocks.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn all_rows<W: Weights, B: Shape>(panel: &SparsePanel<'_, W>) {
    // SAFETY: the columns are the panel's.
    unsafe {
        match panel.columns {
            BlockColumns::Bytes(columns) => tiles::<W, B, _>(panel, columns),
            BlockColumns::Words(columns) => tiles::<W, B, _>(panel, columns),
        }
    }
}

/// Up to 4 rows x 16 outputs at a time: 8 of the 16 registers are accumulators.
///
/// # Safety
/// As above, and `columns` must be those of the panel.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles<W: Weights, B: Shape, I: ColumnId>(panel: &SparsePanel<'_, W>, columns: &[I]) {
    let mut row = 0;
    // SAFETY: the caller's promise; each tile ends at or before the last row.
    unsafe {
        while panel.rows - row >= 4 {
            tile::<W, B, I, 4>(panel, columns, row);
            row += 4;
        }
        match panel.rows - row {
            3 => tile::<W, B, I, 3>(panel, columns, row),
            2 => tile::<W, B, I, 2>(panel, columns, row),
            1 => tile::<W, B, I, 1>(panel, columns, row),
            _ => {}
        }
    }
}

/// # Safety
/// As above, and the rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<W: Weights, B: Shape, I: ColumnId, const ROWS: usize>(
    panel: &SparsePanel<'_, W>,
    columns: &[I],
    row: usize,
) {
    let mut totals = [[_mm256_setzero_si256(); 2]; ROWS];
    let mut rest = columns;
    let mut weights = panel.weights;
    let groups = panel.inputs.div_ceil(panel.group_inputs);
    for group in 0..groups {
        let count = if group + 1 == groups {
            rest.len()
        } else {
            let end = (group + 1) * (panel.group_inputs / B::INPUTS);
            rest.iter().position(|id| id.place() >= end).unwrap_or(rest.len())
        };
        let (blocks, later) = rest.split_at(count);
        // SAFETY: the blocks of a group are some of the panel's, the rows and the group exist.
        unsafe {
            let sums = sums::<W, B, I, ROWS>(panel, weights, blocks, row);
            W::add_group::<B, ROWS>(panel, group, &mut totals, sums);
        }
        weights = weights.wrapping_add(count * (W::BYTES / B::BLOCKS));
        rest = later;
    }
    for (index, totals) in totals.into_iter().enumerate() {
        // SAFETY: the row exists.
        unsafe { finish::<W, B>(panel, row + index, totals) }
    }
}

/// The sums of outputs over the blocks at `weights`.
///
/// # Safety
/// These blocks must exist and have these columns, and the rows from `row` on exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums<W: Weights, B: Shape, I: ColumnId, const ROWS: usize>(
    panel: &SparsePanel<'_, W>,
    mut weights: *const W,
    columns: &[I],
    row: usize,
) -> [[__m256i; 2]; ROWS] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    let values = panel.values.wrapping_add(row * panel.inputs);
    let mut add = |id: *const I, count: usize| {
        // SAFETY: the caller's promise.
        let registers = unsafe { W::registers::<B>(weights, count) };
        let magnitudes = registers.map(|weights| _mm256_abs_epi8(weights));
        for (index, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let inputs = unsafe { B::inputs(values.wrapping_add(index * panel.inputs), id, count) };
            for half in 0..2 {
                let signed = _mm256_sign_epi8(inputs[half], registers[half]);
                let pairs = _mm256_maddubs_epi16(magnitudes[half], signed);
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
            }
        }
        weights = weights.wrapping_add(W::BYTES);
    };
    let (steps, rest) = (columns.len() / B::BLOCKS, columns.len() % B::BLOCKS);
    let mut id = columns.as_ptr();
    for _ in 0..steps {
        add(id, B::BLOCKS);
        id = id.wrapping_add(B::BLOCKS);
    }
    if rest > 0 {
        add(id, rest);
    }
    for sums in &mut sums {
        // SAFETY: the instructions exist.
        *sums = unsafe { B::outputs(*sums) };
    }
    sums
}

/// Scales the totals of `row`, adds the bias and stores as many outputs as exist.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish<W: Weights, B: Shape>(panel: &SparsePanel<'_, W>, row: usize, totals: [__m256i; 2]) {
    let mut edge = [0.0_f32; 16];
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place; a whole panel of 16 is 16
    // wide, another goes through `edge`, of which `width` floats are copied.
    unsafe {
        let row_scale = _mm256_set1_ps(*panel.row_scales.add(row));
        let out = panel.out.add(row * panel.out_stride);
        let scales = scales::<B>(panel.scales);
        let target = if panel.width == 16 { out } else { edge.as_mut_ptr() };
        for half in 0..B::HALVES {
            let bias = _mm256_loadu_ps(panel.bias.as_ptr().add(8 * half));
            let scale = _mm256_mul_ps(row_scale, scales[half]);
            let result = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[half]), scale, bias);
            _mm256_storeu_ps(target.add(8 * half), result);
        }
        if panel.width == 4 {
            _mm_storeu_ps(out, _mm_loadu_ps(edge.as_ptr()));
        } else if panel.width < 16 {
            out.copy_from_nonoverlapping(edge.as_ptr(), panel.width);
        }
    }
}

/// Scales of the outputs of a block, in their first lanes.
///
/// # Safety
/// They must exist.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn scales<B: Shape>(place: *const f32) -> [__m256; 2] {
    // SAFETY: there are 16 or 4.
    unsafe {
        if B::HALVES == 2 {
            return [_mm256_loadu_ps(place), _mm256_loadu_ps(place.add(8))];
        }
        [_mm256_castps128_ps256(_mm_loadu_ps(place)), _mm256_setzero_ps()]
    }
}

/// The shape of blocks. A step is two registers of weights.
trait Shape {
    /// Inputs of a block.
    const INPUTS: usize;
    /// Blocks in a step.
    const BLOCKS: usize;
    /// Registers that the outputs of a block fill.
    const HALVES: usize;

    /// Of the inputs of one row, those that meet the weights of a step, for the `count` blocks in `columns`.
    ///
    /// # Safety
    /// The row must have these columns.
    unsafe fn inputs<I: ColumnId>(row: *const i8, columns: *const I, count: usize) -> [__m256i; 2];

    /// One sum an output, from the sums of the steps.
    ///
    /// # Safety
    /// None beyond the instructions.
    unsafe fn outputs(sums: [__m256i; 2]) -> [__m256i; 2];
}

struct Blocks16x4;
struct Blocks4x16;
struct Blocks4x4;

impl Shape for Blocks16x4 {
    const INPUTS: usize = 4;
    const BLOCKS: usize = 1;
    const HALVES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn inputs<I: ColumnId>(row: *const i8, columns: *const I, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_set1_epi32(quad(row, columns)); 2] }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn outputs(sums: [__m256i; 2]) -> [__m256i; 2] {
        sums
    }
}

impl Shape for Blocks4x16 {
    const INPUTS: usize = 16;
    const BLOCKS: usize = 1;
    const HALVES: usize = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn inputs<I: ColumnId>(row: *const i8, columns: *const I, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { [_mm256_broadcastsi128_si256(_mm_loadu_si128(row.add((*columns).place() * 16).cast())); 2] }
    }

    /// Each half of a register holds four parts of one sum.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn outputs(sums: [__m256i; 2]) -> [__m256i; 2] {
        let pairs = _mm256_hadd_epi32(sums[0], sums[1]);
        let sums = _mm256_hadd_epi32(pairs, pairs);
        let (even, odd) = (_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        [_mm256_castsi128_si256(_mm_unpacklo_epi32(even, odd)), _mm256_setzero_si256()]
    }
}

impl Shape for Blocks4x4 {
    const INPUTS: usize = 4;
    const BLOCKS: usize = 4;
    const HALVES: usize = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn inputs<I: ColumnId>(row: *const i8, columns: *const I, count: usize) -> [__m256i; 2] {
        let mut quads = [_mm_setzero_si128(); 4];
        for (index, lanes) in quads.iter_mut().enumerate() {
            if index < count {
                // SAFETY: the caller's promise.
                *lanes = _mm_set1_epi32(unsafe { quad(row, columns.add(index)) });
            }
        }
        [_mm256_set_m128i(quads[1], quads[0]), _mm256_set_m128i(quads[3], quads[2])]
    }

    /// Each half of a register holds a part of each sum.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn outputs(sums: [__m256i; 2]) -> [__m256i; 2] {
        let sums = _mm256_add_epi32(sums[0], sums[1]);
        let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        [_mm256_castsi128_si256(sums), _mm256_setzero_si256()]
    }
}

/// Four inputs of a row.
///
/// # Safety
/// The row must have this column of 4 inputs.
#[inline(always)]
unsafe fn quad<I: ColumnId>(row: *const i8, column: *const I) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { row.add((*column).place() * 4).cast::<i32>().read_unaligned() }
}

/// What weights are stored in.
trait Weights: Sized {
    /// Bytes of a step.
    const BYTES: usize;

    /// The weights of a step, of which `count` blocks exist; the rest is 0.
    ///
    /// # Safety
    /// These blocks must exist.
    unsafe fn registers<B: Shape>(place: *const Self, count: usize) -> [__m256i; 2];

    /// Adds the sums of a group to the totals.
    ///
    /// # Safety
    /// The group must be one of the panel's.
    unsafe fn add_group<B: Shape, const ROWS: usize>(
        panel: &SparsePanel<'_, Self>,
        group: usize,
        totals: &mut [[__m256i; 2]; ROWS],
        sums: [[__m256i; 2]; ROWS],
    );
}

impl Weights for i8 {
    const BYTES: usize = 64;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn registers<B: Shape>(place: *const i8, count: usize) -> [__m256i; 2] {
        let place = place.cast::<__m128i>();
        // SAFETY: the blocks are 64 bytes, or 16 each.
        unsafe {
            if count == B::BLOCKS {
                return [_mm256_loadu_si256(place.cast()), _mm256_loadu_si256(place.add(2).cast())];
            }
            let block = |index: usize| {
                if index < count { _mm_loadu_si128(place.add(index)) } else { _mm_setzero_si128() }
            };
            [_mm256_set_m128i(block(1), block(0)), _mm256_set_m128i(block(3), block(2))]
        }
    }

    /// There is one group.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn add_group<B: Shape, const ROWS: usize>(
        _: &SparsePanel<'_, i8>,
        _: usize,
        totals: &mut [[__m256i; 2]; ROWS],
        sums: [[__m256i; 2]; ROWS],
    ) {
        *totals = sums;
    }
}

impl Weights for u8 {
    const BYTES: usize = 32;

    /// Every 16 bytes (8 in a block of 4 x 4) fill as much with their low halves and then as much with their high ones.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn registers<B: Shape>(place: *const u8, count: usize) -> [__m256i; 2] {
        // SAFETY: the blocks are 32 bytes, or 8 each.
        unsafe {
            if B::BLOCKS == 1 {
                return [0, 16].map(|start| {
                    let packed = _mm_loadu_si128(place.add(start).cast());
                    signed(_mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed))
                });
            }
            let block = |index: usize| {
                let packed = if index < count {
                    _mm_loadl_epi64(place.add(8 * index).cast())
                } else {
                    _mm_setzero_si128()
                };
                _mm_unpacklo_epi64(packed, _mm_srli_epi16::<4>(packed))
            };
            [signed(_mm256_set_m128i(block(1), block(0))), signed(_mm256_set_m128i(block(3), block(2)))]
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn add_group<B: Shape, const ROWS: usize>(
        panel: &SparsePanel<'_, u8>,
        group: usize,
        totals: &mut [[__m256i; 2]; ROWS],
        sums: [[__m256i; 2]; ROWS],
    ) {
        // SAFETY: the panel has the group; a block of 4 outputs takes 4 of its 8 bytes.
        let multipliers = unsafe {
            let place = panel.multipliers.add(8 * group);
            if B::HALVES == 2 {
                multipliers(place)
            } else {
                let four = place.add(panel.lane % 8).cast::<u32>().read_unaligned();
                let four = four >> (panel.lane / 8 * 4) & 0x0f0f_0f0f;
                let four = _mm_cvtepu8_epi32(_mm_cvtsi32_si128(four as i32));
                [_mm256_castsi128_si256(four), _mm256_setzero_si256()]
            }
        };
        for (totals, sums) in totals.iter_mut().zip(sums) {
            for half in 0..B::HALVES {
                let product = _mm256_mullo_epi32(sums[half], multipliers[half]);
                totals[half] = _mm256_add_epi32(totals[half], product);
            }
        }
    }
}

/// The low halves of bytes as int8.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(halves: __m256i) -> __m256i {
    let eight = _mm256_set1_epi8(8);
    let flipped = _mm256_xor_si256(_mm256_and_si256(halves, _mm256_set1_epi8(0xf)), eight);
    _mm256_sub_epi8(flipped, eight)
}
