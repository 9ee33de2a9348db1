//! The inner loop that attention and the float matrix product share.

use super::lanes::{LANES, Lanes};

/// Sixteen floats at `start`.
///
/// # Safety
/// They can be read for `'a`.
#[inline(always)]
pub(super) unsafe fn block<'a>(start: *const f32) -> &'a [f32; LANES] {
    // SAFETY: the caller's promise; f32 arrays have the alignment of f32.
    unsafe { &*start.cast() }
}

/// `sums[r] + sum over k of rows[r][k] * columns[k * stride ..][..16]`, added in the order of `k`: the result
/// does not depend on `ROWS`.
///
/// # Safety
/// `inputs` floats can be read at each of `rows`, and sixteen at `columns + k * stride` for each `k < inputs`.
#[inline(always)]
pub(super) unsafe fn accumulate<L: Lanes, const ROWS: usize>(
    lanes: L,
    mut sums: [L::F; ROWS],
    rows: &[*const f32; ROWS],
    columns: *const f32,
    stride: usize,
    inputs: usize,
) -> [L::F; ROWS] {
    let mut column = columns;
    let mut rows = *rows;
    for row in 0..ROWS {
        rows[row] = lanes.opaque(rows[row]);
    }
    for _ in 0..inputs / 4 {
        let mut quads = [lanes.quad(&[0.0; 4]); ROWS];
        for row in 0..ROWS {
            // SAFETY: the caller's promise for `rows`: four of `inputs` are left.
            quads[row] = lanes.quad(unsafe { &*rows[row].cast() });
            rows[row] = rows[row].wrapping_add(4);
        }
        // SAFETY: the caller's promise for `columns`: four of `inputs` are left.
        let (first, second, third, fourth) = unsafe {
            (
                block(column),
                block(column.add(stride)),
                block(column.add(2 * stride)),
                block(column.add(3 * stride)),
            )
        };
        let vector = lanes.load(first);
        for row in 0..ROWS {
            sums[row] = lanes.fma_quad::<0>(vector, quads[row], sums[row]);
        }
        let vector = lanes.load(second);
        for row in 0..ROWS {
            sums[row] = lanes.fma_quad::<1>(vector, quads[row], sums[row]);
        }
        let vector = lanes.load(third);
        for row in 0..ROWS {
            sums[row] = lanes.fma_quad::<2>(vector, quads[row], sums[row]);
        }
        let vector = lanes.load(fourth);
        for row in 0..ROWS {
            sums[row] = lanes.fma_quad::<3>(vector, quads[row], sums[row]);
        }
        column = column.wrapping_add(4 * stride);
    }
    for _ in 0..inputs % 4 {
        // SAFETY: the caller's promise for `columns`: some of `inputs` are left.
        let vector = lanes.load(unsafe { block(column) });
        for row in 0..ROWS {
            // SAFETY: the caller's promise for `rows`: some of `inputs` are left.
            let value = unsafe { *rows[row] };
            rows[row] = rows[row].wrapping_add(1);
            sums[row] = lanes.fma(vector, lanes.splat(value), sums[row]);
        }
        column = column.wrapping_add(stride);
    }
    sums
}
