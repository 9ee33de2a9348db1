//! Many rows: 16 or 32 at a time, transposed, so that a weight meets 16 rows in one instruction.
//!
//! Blocks are where they please, so the outputs of a row of blocks share nothing but its own inputs: with the outputs in the
//! lanes, each row and block would need a load of its own. With rows in the lanes, two registers of inputs serve 8 weights.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::*;

/// Most inputs of a tile of 16 rows; of a tile of 32, half as many. Both fit the first cache.
const MOST_INPUTS: usize = 2048;
/// Panels whose results can wait for each other: then rows are written in long pieces.
const WAITING: usize = 4;
/// Bytes a multiple of which lies between rows whose lines drive each other from the first cache before they are full.
const CROWDED: usize = 4096;

/// A register for each group of 4 inputs; clearing them would take as long as a sparse product.
type Registers = [MaybeUninit<__m512i>; MOST_INPUTS / 4];

/// Where a tile lives between its steps.
struct Scratch {
    /// `[inputs / 4][16 or 32 rows][4]`.
    inputs: Registers,
    /// A row of blocks of int4 weights as int8.
    unpacked: Registers,
    /// Sums of panels.
    sums: [Sums; WAITING],
}

/// `[16 rows, one or two][outputs][16 rows]`, in the end `[16 rows, one or two][rows][outputs]`.
type Sums = [[__m512i; OUTPUT_BLOCK]; 2];

/// All rows that fill tiles well; returns the first that is left.
///
/// # Safety
/// `weights` must be those of the product, and `S` the shape of its blocks.
#[inline(never)] // Few rows shall not pay for its stack.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<W: Weights, S: Shape>(product: &Product<'_>, weights: W) -> usize {
    if product.inputs > MOST_INPUTS || weights.groups().0 > 1 {
        return 0;
    }
    let mut scratch = Scratch {
        inputs: [const { MaybeUninit::uninit() }; MOST_INPUTS / 4],
        unpacked: [const { MaybeUninit::uninit() }; MOST_INPUTS / 4],
        sums: [[[_mm512_setzero_si512(); OUTPUT_BLOCK]; 2]; WAITING],
    };
    let mut row = 0;
    // SAFETY: the caller's promise; the rows of each tile exist, and its inputs fit.
    unsafe {
        while product.rows - row >= LEAST_TILE {
            let left = product.rows - row;
            if left > 16 && product.inputs <= MOST_INPUTS / 2 {
                tile::<W, S, 2>(product, &weights, &mut scratch, row, left.min(32));
                row += left.min(32);
            } else {
                tile::<W, S, 1>(product, &weights, &mut scratch, row, left.min(16));
                row += left.min(16);
            }
        }
    }
    row
}

/// `count` rows from `row` on, at most `16 * VECTORS`.
///
/// # Safety
/// As above; the rows must exist and `VECTORS` times the inputs must be at most [`MOST_INPUTS`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<W: Weights, S: Shape, const VECTORS: usize>(
    product: &Product<'_>,
    weights: &W,
    Scratch { inputs, unpacked, sums: all_waiting }: &mut Scratch,
    row: usize,
    count: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for vector in 0..VECTORS {
            let count = count.saturating_sub(16 * vector).min(16);
            transpose_rows::<VECTORS>(product, inputs, vector, row + 16 * vector, count);
        }
        let mut block_rows = weights.index().rows();
        for first_panel in (0..product.outputs.div_ceil(OUTPUT_BLOCK)).step_by(WAITING) {
            let panels = WAITING.min(product.outputs.div_ceil(OUTPUT_BLOCK) - first_panel);
            let whole = product.outputs - first_panel * OUTPUT_BLOCK >= WAITING * OUTPUT_BLOCK;
            let crowded = (product.out_stride * size_of::<f32>()).is_multiple_of(CROWDED);
            let at_once = if whole && !crowded { count / 16 * 16 } else { 0 };
            let mut offsets = [_mm512_setzero_si512(); WAITING];
            for (sums, offset) in all_waiting.iter_mut().zip(&mut offsets).take(panels) {
                for index in 0..S::ROWS {
                    let Some(block_row) = block_rows.next() else { break };
                    let part = all_sums::<W, S, VECTORS>(weights, &block_row, inputs, unpacked, sums);
                    *offset = _mm512_mask_mov_epi32(*offset, lanes::<S>(index), part);
                }
            }
            // Sixteen rows and then the next, so that the lines that are being filled stay few.
            for first in (0..16 * VECTORS).step_by(16) {
                for (panel, sums) in all_waiting.iter_mut().enumerate().take(panels) {
                    let first_output = (first_panel + panel) * OUTPUT_BLOCK;
                    let place = (row + first, count.saturating_sub(first).min(16), first_output);
                    let sums = &raw mut sums[first / 16];
                    let (out, stride) = if first < at_once {
                        (
                            product.out.add((row + first) * product.out_stride + first_output),
                            product.out_stride,
                        )
                    } else {
                        (sums.cast(), OUTPUT_BLOCK)
                    };
                    scale::<W>(product, weights, place, sums, offsets[panel], out, stride);
                }
            }
            let first_output = first_panel * OUTPUT_BLOCK;
            for index in at_once..count {
                let out = product.out.add((row + index) * product.out_stride + first_output);
                for (panel, sums) in all_waiting.iter().enumerate() {
                    let (out, results) =
                        (out.wrapping_add(panel * OUTPUT_BLOCK), sums[index / 16][index % 16]);
                    if whole {
                        _mm512_storeu_epi32(out.cast(), results);
                    } else if panel < panels {
                        let exists = product.exists(first_output + panel * OUTPUT_BLOCK);
                        _mm512_mask_storeu_epi32(out.cast(), exists, results);
                    }
                }
            }
        }
    }
}

/// Puts 16 rows into the `vector`th of each `VECTORS` registers; rows from `count` on become 0.
///
/// # Safety
/// `count` rows from `row` on must exist, and `inputs` have room for `VECTORS * product.inputs / 4` registers.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn transpose_rows<const VECTORS: usize>(
    product: &Product<'_>,
    inputs: &mut Registers,
    vector: usize,
    row: usize,
    count: usize,
) {
    let quads = product.inputs / 4;
    for quad in (0..quads).step_by(16) {
        let exist = 16.min(quads - quad);
        let mut registers = [_mm512_setzero_si512(); 16];
        for (index, register) in registers.iter_mut().enumerate() {
            if index < count {
                // SAFETY: the row exists, and `exist` of its groups of 4 inputs.
                *register = unsafe {
                    let values = product.values.add((row + index) * product.inputs + 4 * quad);
                    _mm512_maskz_loadu_epi32(u16::MAX >> (16 - exist), values.cast())
                };
            }
        }
        for (index, register) in transpose(registers).into_iter().enumerate().take(exist) {
            inputs[(quad + index) * VECTORS + vector].write(register);
        }
    }
}

/// The sums of a row of blocks, with the rows' offset in them, and that offset.
///
/// # Safety
/// The row of blocks must be one of the weights', and `inputs` hold all inputs.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all_sums<W: Weights, S: Shape, const VECTORS: usize>(
    weights: &W,
    block_row: &BlockRow<'_>,
    inputs: &Registers,
    unpacked: &mut Registers,
    sums: &mut Sums,
) -> __m512i {
    let place = weights.block::<S>(block_row.first_block);
    // SAFETY: the blocks are those of the row; it has at most one for each group of 4 inputs.
    unsafe {
        let offset = offset::<W, S>(place, block_row.columns.len(), unpacked);
        let first = block_row.first_output % OUTPUT_BLOCK;
        let blocks = if W::SCALED { unpacked.as_ptr().cast() } else { place.cast() };
        match block_row.columns {
            BlockColumns::Bytes(columns) => passes::<S, _, VECTORS>(columns, blocks, inputs, sums, first),
            BlockColumns::Words(columns) => passes::<S, _, VECTORS>(columns, blocks, inputs, sums, first),
        }
        offset
    }
}

/// 128 times the sum of the weights of each output; int4 weights go to `unpacked`.
///
/// # Safety
/// `count` blocks must exist, and `unpacked` have room for them.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn offset<W: Weights, S: Shape>(place: *const u8, count: usize, unpacked: &mut Registers) -> __m512i {
    let (registers, rest) = (count / S::BLOCKS, count % S::BLOCKS);
    let mut sums = [_mm512_setzero_si512(); 2];
    let mut add = |index: usize, count: usize| {
        // SAFETY: these blocks exist.
        let weights = unsafe { W::register::<S>(place.wrapping_add(index * W::BYTES), count) };
        sums[index % 2] = _mm512_dpbusd_epi32(sums[index % 2], _mm512_set1_epi8(-128), weights);
        if W::SCALED {
            unpacked[index].write(weights);
        }
    };
    for pair in 0..registers / 2 {
        add(2 * pair, S::BLOCKS);
        add(2 * pair + 1, S::BLOCKS);
    }
    if registers % 2 > 0 {
        add(registers - 1, S::BLOCKS);
    }
    if rest > 0 {
        add(registers, rest);
    }
    // SAFETY: the instructions exist.
    unsafe { S::outputs(_mm512_add_epi32(sums[0], sums[1])) }
}

/// All outputs, 8 or 4 at a time, the `place`th of their panel and on.
///
/// # Safety
/// There must be a block of int8 for each of the columns, and `inputs` hold these.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn passes<S: Shape, I: ColumnId, const VECTORS: usize>(
    columns: &[I],
    blocks: *const i32,
    inputs: &Registers,
    sums: &mut Sums,
    place: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if S::OUTPUTS == 16 {
            pass::<S, I, VECTORS, 8>(columns, blocks, inputs, sums, (0, 0));
            pass::<S, I, VECTORS, 8>(columns, blocks, inputs, sums, (8, 8));
        } else {
            pass::<S, I, VECTORS, 4>(columns, blocks, inputs, sums, (0, place));
        }
    }
}

/// `OUTPUTS` outputs of each block from `first` on, the `place`th of their panel and on.
///
/// # Safety
/// As above, and blocks must have these outputs.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<S: Shape, I: ColumnId, const VECTORS: usize, const OUTPUTS: usize>(
    columns: &[I],
    blocks: *const i32,
    inputs: &Registers,
    sums: &mut Sums,
    (first, place): (usize, usize),
) {
    let mut totals = [[_mm512_setzero_si512(); VECTORS]; OUTPUTS];
    let mut weights = blocks.wrapping_add(first * S::QUADS);
    for id in columns {
        let found = inputs.as_ptr().cast::<__m512i>().wrapping_add(id.place() * S::QUADS * VECTORS);
        for quad in 0..S::QUADS {
            let mut rows = [_mm512_setzero_si512(); VECTORS];
            for (vector, rows) in rows.iter_mut().enumerate() {
                // SAFETY: the caller's promise for the inputs.
                *rows = unsafe { *found.add(quad * VECTORS + vector) };
            }
            for (output, totals) in totals.iter_mut().enumerate() {
                // SAFETY: the caller's promise for the blocks.
                let weight = unsafe { weights.add(output * S::QUADS + quad).read_unaligned() };
                let weight = _mm512_set1_epi32(weight);
                for (total, rows) in totals.iter_mut().zip(rows) {
                    *total = _mm512_dpbusd_epi32(*total, rows, weight);
                }
            }
        }
        weights = weights.wrapping_add(S::OUTPUTS * S::QUADS);
    }
    for (output, totals) in totals.into_iter().enumerate() {
        for (vector, total) in totals.into_iter().enumerate() {
            sums[vector][place + output] = total;
        }
    }
}

/// Makes results of the sums of a panel for `count` rows from `row` on, and writes those of 16 rows, `stride` apart: a row
/// too many costs less than a branch.
///
/// # Safety
/// The rows and `first_output` must exist; the sums can be read, and 16 floats may be written at each of 16 places from
/// `out` on, `stride` apart, which may be where the sums are.
#[inline(never)] // The transposition needs all registers.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn scale<W: Weights>(
    product: &Product<'_>,
    weights: &W,
    (row, count, first_output): (usize, usize, usize),
    sums: *const [__m512i; OUTPUT_BLOCK],
    offset: __m512i,
    out: *mut f32,
    stride: usize,
) {
    let bias = product.bias(first_output);
    let mut row_scales = [0.0; 16];
    // SAFETY: the panel and the rows exist, and all that is written may be.
    unsafe {
        let scales = _mm512_loadu_ps(weights.scales().as_ptr().add(first_output));
        let (multipliers, transposed) = (weights.multipliers(first_output, 0), transpose(*sums));
        row_scales.as_mut_ptr().copy_from_nonoverlapping(product.row_scales.add(row), count);
        for (index, (sum, row_scale)) in transposed.into_iter().zip(row_scales).enumerate() {
            let total = add_group::<W>(_mm512_setzero_si512(), _mm512_sub_epi32(sum, offset), multipliers);
            let result = finish(total, _mm512_set1_ps(row_scale), scales, bias);
            _mm512_storeu_ps(out.add(index * stride), result);
        }
    }
}

/// Lane `i` of register `j` becomes lane `j` of register `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(registers: [__m512i; 16]) -> [__m512i; 16] {
    let mut result = registers;
    for first in 0..4 {
        let quarter = |index: usize| registers[4 * first + index];
        let quarter = quarters([quarter(0), quarter(1), quarter(2), quarter(3)]);
        for (index, register) in quarter.into_iter().enumerate() {
            result[4 * first + index] = register;
        }
    }
    // Now each quarter of a register holds four lanes that stay together.
    let registers = result;
    for index in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|first| registers[first + index]);
        let (even_low, odd_low) =
            (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
        let (even_high, odd_high) =
            (_mm512_shuffle_i32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d));
        result[index] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even_low, even_high);
        result[index + 4] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd_low, odd_high);
        result[index + 8] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even_low, even_high);
        result[index + 12] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd_low, odd_high);
    }
    result
}

/// In each quarter, lane `i` of register `j` becomes lane `j` of register `i`.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (low_next, high_next) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(low, low_next),
        _mm512_unpackhi_epi64(low, low_next),
        _mm512_unpacklo_epi64(high, high_next),
        _mm512_unpackhi_epi64(high, high_next),
    ]
}
