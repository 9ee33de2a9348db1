//! Int4 matrix product with `SDOT`.

use core::arch::aarch64::{int8x16_t, int32x4_t, vdupq_n_f32, vdupq_n_s32, vld1q_s8};
use core::arch::asm;

use kinglet_model_format::Int4Matrix;

use super::int4::{add_group, finish, scales, unpack};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Up to 4 rows at a time: 16 accumulators.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn matmul_i4_block16x4_dotprod<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    for panel in matmul.panels() {
        let mut row = 0;
        // SAFETY: each tile ends at or before the last row.
        unsafe {
            while panel.rows - row >= 4 {
                tile::<4>(&panel, row);
                row += 4;
            }
            match panel.rows - row {
                3 => tile::<3>(&panel, row),
                2 => tile::<2>(&panel, row),
                1 => tile::<1>(&panel, row),
                _ => {}
            }
        }
    }
}

/// `ROWS` rows, in plain order, x 16 outputs.
///
/// # Safety
/// The rows from `row` on must exist.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tile<const ROWS: usize>(panel: &Int4Panel<'_>, row: usize) {
    let mut totals = [[vdupq_n_f32(0.0); 4]; ROWS];
    // SAFETY: the rows exist; the group is the panel's.
    unsafe {
        for group in panel.groups() {
            let sums = group_sums::<ROWS>(panel, row, &group);
            for vector in 0..4 {
                let scales = scales(panel, group.index, 4 * vector);
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    totals[vector] = add_group(totals[vector], sums[vector], scales);
                }
            }
        }
        for (index, totals) in totals.into_iter().enumerate() {
            finish(panel, row + index, 0, totals);
        }
    }
}

/// 16 times the sums of one group.
///
/// # Safety
/// The rows from `row` on must exist, and the group be one of the panel's.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group_sums<const ROWS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    group: &Group,
) -> [[int32x4_t; 4]; ROWS] {
    let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
    // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
    unsafe {
        let mut values = panel.values.add(row * panel.inputs + group.first);
        let mut weights = panel.weights.add(group.first * 8);
        let end = panel.weights.add(group.last * 8);
        while weights < end {
            let mut inputs = [vld1q_s8(values); ROWS];
            for (index, inputs) in inputs.iter_mut().enumerate().skip(1) {
                *inputs = vld1q_s8(values.add(index * panel.inputs));
            }
            for vector in 0..4 {
                let [low, high] = unpack(weights.add(16 * vector));
                for (sums, &inputs) in sums.iter_mut().zip(&inputs) {
                    sums[vector] = sdot::<0>(sums[vector], low, inputs);
                }
                for (sums, &inputs) in sums.iter_mut().zip(&inputs) {
                    sums[vector] = sdot::<1>(sums[vector], high, inputs);
                }
            }
            for vector in 0..4 {
                let [low, high] = unpack(weights.add(64 + 16 * vector));
                for (sums, &inputs) in sums.iter_mut().zip(&inputs) {
                    sums[vector] = sdot::<2>(sums[vector], low, inputs);
                }
                for (sums, &inputs) in sums.iter_mut().zip(&inputs) {
                    sums[vector] = sdot::<3>(sums[vector], high, inputs);
                }
            }
            weights = weights.add(128);
            values = values.add(16);
        }
    }
    sums
}

/// 4 outputs x 4 inputs of weights times inputs `4 * QUARTER` to `4 * QUARTER + 3` of a row's 16.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const QUARTER: i32>(mut sums: int32x4_t, weights: int8x16_t, inputs: int8x16_t) -> int32x4_t {
    // SAFETY: sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {inputs:v}.4b[{quarter}]",
            sums = inout(vreg) sums, weights = in(vreg) weights, inputs = in(vreg) inputs, quarter = const QUARTER,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
