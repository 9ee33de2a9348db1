//! Few rows: a register of weights meets each row by itself.

use core::arch::x86_64::*;

use super::*;

/// The rows from `first` on.
///
/// # Safety
/// `weights` must be those of the product, and `S` the shape of its blocks.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<W: Weights, S: Shape>(product: &Product<'_>, weights: W, first: usize) {
    if first == product.rows {
        return;
    }
    // SAFETY: the columns are those of the weights.
    unsafe {
        match weights.index().columns() {
            BlockColumns::Bytes(columns) => all::<W, S, _>(product, &weights, columns, first),
            BlockColumns::Words(columns) => all::<W, S, _>(product, &weights, columns, first),
        }
    }
}

/// # Safety
/// As above, and `columns` must be those of the weights.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all<W: Weights, S: Shape, I: ColumnId>(
    product: &Product<'_>,
    weights: &W,
    columns: &[I],
    first: usize,
) {
    let mut rest = columns;
    let mut place = weights.block::<S>(0);
    // A single row takes little longer than what stands around it, so this walks by itself and not through
    // `BlockIndex::rows`.
    for (panel, counts) in weights.index().counts().chunks(S::ROWS).enumerate() {
        let mut block_rows = [const { Blocks { place: core::ptr::null(), columns: &[] } }; 4];
        for (blocks, &count) in block_rows.iter_mut().zip(counts) {
            let (columns, later) = rest.split_at(count.into());
            *blocks = Blocks { place, columns };
            place = place.wrapping_add(columns.len() * (W::BYTES / S::BLOCKS));
            rest = later;
        }
        // SAFETY: the caller's promise; these are the blocks of the panel.
        unsafe { every_row::<W, S, I>(product, weights, panel * OUTPUT_BLOCK, &block_rows, first) }
    }
}

/// A row of blocks.
#[derive(Clone, Copy)]
struct Blocks<'a, I> {
    /// The first block.
    place: *const u8,
    columns: &'a [I],
}

/// # Safety
/// As above, and `block_rows` must be those of the panel that begins with `first_output`.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn every_row<W: Weights, S: Shape, I: ColumnId>(
    product: &Product<'_>,
    weights: &W,
    first_output: usize,
    block_rows: &[Blocks<'_, I>; 4],
    first: usize,
) {
    let mut row = first;
    // SAFETY: the caller's promise; each tile ends at or before the last row.
    unsafe {
        while product.rows - row >= 4 {
            tile::<W, S, I, 4, 2>(product, weights, first_output, block_rows, row);
            row += 4;
        }
        if product.rows - row >= 2 {
            tile::<W, S, I, 2, 2>(product, weights, first_output, block_rows, row);
            row += 2;
        }
        if product.rows - row == 1 {
            tile::<W, S, I, 1, 4>(product, weights, first_output, block_rows, row);
        }
    }
}

/// `ROWS` rows of one panel, `CHAINS` registers of weights at a time so that no sum waits for itself.
///
/// # Safety
/// As above, and the rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<W: Weights, S: Shape, I: ColumnId, const ROWS: usize, const CHAINS: usize>(
    product: &Product<'_>,
    weights: &W,
    first_output: usize,
    block_rows: &[Blocks<'_, I>; 4],
    row: usize,
) {
    let (groups, group_inputs) = weights.groups();
    let mut panel = [_mm512_setzero_si512(); ROWS];
    // SAFETY: the blocks of a group are some of those of its row of blocks; the outputs and the groups exist, and so do the
    // rows.
    unsafe {
        for (index, &Blocks { mut place, columns }) in block_rows.iter().enumerate().take(S::ROWS) {
            let mut totals = [_mm512_setzero_si512(); ROWS];
            let mut rest = columns;
            for group in 0..groups {
                let count = if group + 1 == groups {
                    rest.len()
                } else {
                    let end = (group + 1) * (group_inputs / 4 / S::QUADS);
                    rest.iter().position(|id| id.place() >= end).unwrap_or(rest.len())
                };
                let (columns, later) = rest.split_at(count);
                let sums = sums::<W, S, I, ROWS, CHAINS>(product, place, columns, row);
                let multipliers = weights.multipliers(first_output, group);
                for (total, sum) in totals.iter_mut().zip(sums) {
                    *total = add_group::<W>(*total, sum, multipliers);
                }
                place = place.wrapping_add(count * (W::BYTES / S::BLOCKS));
                rest = later;
            }
            let lanes = lanes::<S>(index);
            for (panel, total) in panel.iter_mut().zip(totals) {
                *panel = _mm512_mask_mov_epi32(*panel, lanes, total);
            }
        }
        let (bias, exists) = (product.bias(first_output), product.exists(first_output));
        let scales = _mm512_loadu_ps(weights.scales().as_ptr().add(first_output));
        for (index, total) in panel.into_iter().enumerate() {
            let row_scale = _mm512_set1_ps(*product.row_scales.add(row + index));
            let out = product.out.add((row + index) * product.out_stride + first_output);
            _mm512_mask_storeu_ps(out, exists, finish(total, row_scale, scales, bias));
        }
    }
}

/// Four blocks, which are four registers or one.
#[inline(always)]
fn add_four<S: Shape>(add: &mut impl FnMut(usize, [usize; 4], usize), chain: usize, columns: [usize; 4]) {
    if S::BLOCKS == 4 {
        add(chain, columns, 4);
    } else {
        for (index, column) in columns.into_iter().enumerate() {
            add(index, [column; 4], 1);
        }
    }
}

/// The sums of outputs over the blocks at `place`, without the rows' offset.
///
/// # Safety
/// These blocks must exist and have these columns, and the rows from `row` on exist.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<W: Weights, S: Shape, I: ColumnId, const ROWS: usize, const CHAINS: usize>(
    product: &Product<'_>,
    place: *const u8,
    columns: &[I],
    row: usize,
) -> [__m512i; ROWS] {
    let offset = _mm512_set1_epi8(-128);
    let mut chains = [[_mm512_setzero_si512(); CHAINS]; ROWS];
    let mut offsets = [_mm512_setzero_si512(); CHAINS];
    let mut place = place;
    // SAFETY: blocks and columns are as many as `columns`; the rows exist and have these columns.
    unsafe {
        let values = product.values.add(row * product.inputs);
        // The `count` blocks in `columns`, at most those of a register.
        let mut add = |chain: usize, columns: [usize; 4], count: usize| {
            let chain = chain % CHAINS;
            let weights = W::register::<S>(place, count);
            offsets[chain] = _mm512_dpbusd_epi32(offsets[chain], offset, weights);
            for (index, chains) in chains.iter_mut().enumerate() {
                let inputs = S::inputs(values.add(index * product.inputs), columns, count);
                chains[chain] = _mm512_dpbusd_epi32(chains[chain], inputs, weights);
            }
            place = place.wrapping_add(W::BYTES);
        };
        let (eights, rest) = columns.as_chunks::<8>();
        for eight in eights {
            let fours = eight.as_chunks::<4>().0;
            for (chain, four) in fours.iter().enumerate() {
                add_four::<S>(&mut add, chain, I::places(four));
            }
        }
        let (four, rest) = rest.as_chunks::<4>();
        if let [four] = four {
            add_four::<S>(&mut add, 0, I::places(four));
        }
        if S::BLOCKS == 1 {
            for id in rest {
                add(0, [id.place(); 4], 1);
            }
        } else if !rest.is_empty() {
            let place = |index: usize| rest.get(index).map_or(0, |id| id.place());
            add(0, [place(0), place(1), place(2), 0], rest.len());
        }
        let mut result = [_mm512_setzero_si512(); ROWS];
        let offset = join(offsets);
        for index in 0..ROWS {
            result[index] = S::outputs(_mm512_sub_epi32(join(chains[index]), offset));
        }
        result
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn join<const CHAINS: usize>(chains: [__m512i; CHAINS]) -> __m512i {
    let mut sum = chains[0];
    for chain in &chains[1..] {
        sum = _mm512_add_epi32(sum, *chain);
    }
    sum
}
