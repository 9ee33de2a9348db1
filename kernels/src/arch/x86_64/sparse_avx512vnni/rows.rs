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
    for block_row in weights.index().rows() {
        // SAFETY: the columns are those of the row of blocks.
        unsafe {
            match block_row.columns {
                BlockColumns::Bytes(columns) => all::<W, S, _>(product, &weights, &block_row, columns, first),
                BlockColumns::Words(columns) => all::<W, S, _>(product, &weights, &block_row, columns, first),
            }
        }
    }
}

/// # Safety
/// As above, and `columns` must be those of the row of blocks.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all<W: Weights, S: Shape, I: ColumnId>(
    product: &Product<'_>,
    weights: &W,
    block_row: &BlockRow<'_>,
    columns: &[I],
    first: usize,
) {
    let mut row = first;
    // SAFETY: the caller's promise; each tile ends at or before the last row.
    unsafe {
        while product.rows - row >= 4 {
            tile::<W, S, I, 4, 2>(product, weights, block_row, columns, row);
            row += 4;
        }
        if product.rows - row >= 2 {
            tile::<W, S, I, 2, 2>(product, weights, block_row, columns, row);
            row += 2;
        }
        if product.rows - row == 1 {
            tile::<W, S, I, 1, 4>(product, weights, block_row, columns, row);
        }
    }
}

/// `ROWS` rows of one row of blocks, `CHAINS` registers of weights at a time so that no sum waits for itself.
///
/// # Safety
/// As above, and the rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<W: Weights, S: Shape, I: ColumnId, const ROWS: usize, const CHAINS: usize>(
    product: &Product<'_>,
    weights: &W,
    block_row: &BlockRow<'_>,
    columns: &[I],
    row: usize,
) {
    let first_output = block_row.first_output;
    let (groups, group_inputs) = weights.groups();
    let mut totals = [_mm512_setzero_ps(); ROWS];
    let mut scale = _mm512_setzero_ps();
    let mut start = 0;
    // SAFETY: the blocks of a group are some of the row's; the outputs and the groups exist, and so do the rows.
    unsafe {
        for group in 0..groups {
            let rest = &columns[start..];
            let count = if group + 1 == groups {
                rest.len()
            } else {
                let columns = (group + 1) * (group_inputs / 4 / S::QUADS);
                rest.iter().position(|id| id.place() >= columns).unwrap_or(rest.len())
            };
            let place = weights.block::<S>(block_row.first_block + start);
            let sums = sums::<W, S, I, ROWS, CHAINS>(product, place, &rest[..count], row);
            scale = weights.scales::<S>(first_output, group);
            for index in 0..ROWS {
                totals[index] = add_group::<W>(totals[index], sums[index], scale);
            }
            start += count;
        }
        let (bias, exists) = product.bias::<S>(first_output);
        for (index, total) in totals.into_iter().enumerate() {
            let row_scale = _mm512_set1_ps(*product.row_scales.add(row + index));
            let out = product.out.add((row + index) * product.out_stride + first_output);
            _mm512_mask_storeu_ps(out, exists, finish::<W>(total, row_scale, scale, bias));
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
    let (registers, rest) = (columns.len() / S::BLOCKS, columns.len() % S::BLOCKS);
    let (mut place, mut id) = (place, columns.as_ptr());
    // SAFETY: blocks and columns are as many as `columns`; the rows exist and have these columns.
    unsafe {
        let values = product.values.add(row * product.inputs);
        let mut add = |chain: usize, count: usize| {
            let weights = W::register::<S>(place, count);
            offsets[chain] = _mm512_dpbusd_epi32(offsets[chain], offset, weights);
            for (index, chains) in chains.iter_mut().enumerate() {
                let inputs = S::inputs(values.add(index * product.inputs), id, count);
                chains[chain] = _mm512_dpbusd_epi32(chains[chain], inputs, weights);
            }
            place = place.wrapping_add(W::BYTES);
            id = id.wrapping_add(S::BLOCKS);
        };
        for _ in 0..registers / CHAINS {
            for chain in 0..CHAINS {
                add(chain, S::BLOCKS);
            }
        }
        for chain in 0..CHAINS - 1 {
            if chain < registers % CHAINS {
                add(chain, S::BLOCKS);
            }
        }
        if rest > 0 {
            add(0, rest);
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
