//! Many rows: 16 or 32 at a time, transposed, so that a weight meets 16 rows in one instruction.
//!
//! Blocks are where they please, so the outputs of a row of blocks share nothing but its own inputs: with the outputs in the
//! lanes, each row and block would need a load of its own. With rows in the lanes, two registers of inputs serve 8 weights.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::*;

/// Most inputs of a tile of 16 rows; of a tile of 32, half as many. Both fit the first cache.
const MOST_INPUTS: usize = 2048;
/// Rows of blocks whose sums wait for each other: then a line of the result is written at one time. Where rows of the result
/// are a power of two apart, 32 lines would otherwise drive each other from the cache before they are full.
const WAITING: usize = 4;

/// A register for each group of 4 inputs; clearing them would take as long as a sparse product.
type Registers = [MaybeUninit<__m512i>; MOST_INPUTS / 4];

/// Where a tile lives between its steps.
struct Scratch {
    /// `[inputs / 4][16 or 32 rows][4]`.
    inputs: Registers,
    /// A row of blocks of int4 weights as int8.
    unpacked: Registers,
    /// `[rows of blocks][16 rows, one or two][outputs][16 rows]`.
    sums: [Sums; WAITING],
}

/// `[16 rows, one or two][outputs][16 rows]`.
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
        loop {
            let mut waiting = [const { None }; WAITING];
            for (place, sums) in waiting.iter_mut().zip(all_waiting.iter_mut()) {
                let Some(block_row) = block_rows.next() else { break };
                let offset = all_sums::<W, S, VECTORS>(weights, &block_row, inputs, unpacked, sums);
                *place = Some((block_row, offset));
            }
            for vector in 0..VECTORS {
                let count = count.saturating_sub(16 * vector).min(16);
                for (waiting, sums) in waiting.iter().zip(all_waiting.iter()) {
                    let Some((block_row, offset)) = waiting else { break };
                    let scale = weights.scales::<S>(block_row.first_output, 0);
                    let place = (row + 16 * vector, count, block_row.first_output);
                    store::<W, S>(product, place, &sums[vector], *offset, scale);
                }
            }
            if waiting[WAITING - 1].is_none() {
                return;
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
        let blocks = if W::SCALED { unpacked.as_ptr().cast() } else { place.cast() };
        match block_row.columns {
            BlockColumns::Bytes(columns) => passes::<S, _, VECTORS>(columns, blocks, inputs, sums),
            BlockColumns::Words(columns) => passes::<S, _, VECTORS>(columns, blocks, inputs, sums),
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

/// All outputs, 8 or 4 at a time.
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
) {
    // SAFETY: the caller's promise.
    unsafe {
        if S::OUTPUTS == 16 {
            pass::<S, I, VECTORS, 8>(columns, blocks, inputs, sums, 0);
            pass::<S, I, VECTORS, 8>(columns, blocks, inputs, sums, 8);
        } else {
            pass::<S, I, VECTORS, 4>(columns, blocks, inputs, sums, 0);
        }
    }
}

/// `OUTPUTS` outputs of each block from `first` on.
///
/// # Safety
/// As above, and blocks must have these outputs.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pass<S: Shape, I: ColumnId, const VECTORS: usize, const OUTPUTS: usize>(
    columns: &[I],
    blocks: *const i32,
    inputs: &Registers,
    sums: &mut Sums,
    first: usize,
) {
    let mut totals = [[_mm512_setzero_si512(); VECTORS]; OUTPUTS];
    let mut weights = blocks.wrapping_add(first * S::QUADS);
    for id in columns {
        let place = inputs.as_ptr().cast::<__m512i>().wrapping_add(id.place() * S::QUADS * VECTORS);
        for quad in 0..S::QUADS {
            let mut rows = [_mm512_setzero_si512(); VECTORS];
            for (vector, rows) in rows.iter_mut().enumerate() {
                // SAFETY: the caller's promise for the inputs.
                *rows = unsafe { *place.add(quad * VECTORS + vector) };
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
            sums[vector][first + output] = total;
        }
    }
}

/// Scales the sums of `count` rows from `row` on, adds the bias and stores the outputs that exist.
///
/// # Safety
/// The rows and `first_output` must exist.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store<W: Weights, S: Shape>(
    product: &Product<'_>,
    (row, count, first_output): (usize, usize, usize),
    sums: &[__m512i; OUTPUT_BLOCK],
    offset: __m512i,
    scale: __m512,
) {
    let (bias, exists) = product.bias::<S>(first_output);
    let result = |sums: __m512i, row_scale: __m512| {
        let total = add_group::<W>(_mm512_setzero_ps(), _mm512_sub_epi32(sums, offset), scale);
        finish::<W>(total, row_scale, scale, bias)
    };
    // SAFETY: these rows exist, and as many outputs as are stored.
    unsafe {
        let row_scales = product.row_scales.add(row);
        let place = |index: usize| product.out.add((row + index) * product.out_stride + first_output);
        if S::OUTPUTS == 16 {
            for (index, sums) in transpose(*sums).into_iter().enumerate().take(count) {
                let result = result(sums, _mm512_set1_ps(*row_scales.add(index)));
                _mm512_mask_storeu_ps(place(index), exists, result);
            }
            return;
        }
        let row_scales = _mm512_maskz_loadu_ps(u16::MAX >> (16 - count), row_scales);
        // Four rows in each register: the first, fifth, ninth and thirteenth in the first.
        for (first, sums) in quarters([sums[0], sums[1], sums[2], sums[3]]).into_iter().enumerate() {
            let order = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
            let order = _mm512_add_epi32(order, _mm512_set1_epi32(first as i32));
            let result = result(sums, _mm512_permutexvar_ps(order, row_scales));
            let exists = exists as u8;
            let lanes = [
                _mm512_extractf32x4_ps::<0>(result),
                _mm512_extractf32x4_ps::<1>(result),
                _mm512_extractf32x4_ps::<2>(result),
                _mm512_extractf32x4_ps::<3>(result),
            ];
            for (index, lane) in lanes.into_iter().enumerate() {
                if 4 * index + first < count {
                    _mm_mask_storeu_ps(place(4 * index + first), exists, lane);
                }
            }
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
