//! Int4 matrix product with `SMMLA`.
//!
//! The two halves of packed weights, zipped as 32-bit lanes, are operands of 2 outputs x 8 inputs, and 8 inputs of four
//! rows operands of 2 rows x 8 inputs. The 1 to 3 rows behind the last four take the `SDOT` kernel.

use core::arch::aarch64::{
    int8x16_t, int32x4_t, vdupq_n_f32, vdupq_n_s32, vld1q_s8, vreinterpretq_s8_s32, vreinterpretq_s32_s8,
    vzip1q_s32, vzip2q_s32,
};
use core::arch::asm;

use kinglet_model_format::Int4Matrix;

use super::finish::split;
use super::int4::{add_group, finish, scales, unpack};
use super::matmul_i4_dotprod::{matmul_i4_block16x4_dotprod, tile_rest};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Up to 8 rows x 8 outputs at a time.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn matmul_i4_block16x4_i8mm<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    if matmul.rows.rows() < 4 {
        return matmul_i4_block16x4_dotprod(matmul);
    }
    for panel in matmul.panels() {
        let quad_rows = panel.rows / 4 * 4;
        // SAFETY: each tile ends at or before the last four rows, `half + 8 <= 16`; the others stand in plain order.
        unsafe {
            for half in [0, 8] {
                let mut row = 0;
                while quad_rows - row >= 8 {
                    tile::<2>(&panel, row, half);
                    row += 8;
                }
                if row < quad_rows {
                    tile::<1>(&panel, row, half);
                }
            }
            tile_rest(&panel, quad_rows);
        }
    }
}

/// `QUADS` times four rows x 8 outputs.
///
/// # Safety
/// The rows from `row`, a multiple of 4, on must exist; `first` must be 0 or 8.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn tile<const QUADS: usize>(panel: &Int4Panel<'_>, row: usize, first: usize) {
    let mut totals = [[[vdupq_n_f32(0.0); 2]; 4]; QUADS];
    // SAFETY: the rows exist; the group is the panel's.
    unsafe {
        for group in panel.groups() {
            let sums = group_sums::<QUADS>(panel, row, first, &group);
            for vector in 0..2 {
                let scales = scales(panel, group.index, first + 4 * vector);
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    for (totals, sums) in totals.chunks_exact_mut(2).zip(sums) {
                        let [upper, lower] = split(sums[2 * vector], sums[2 * vector + 1]);
                        totals[0][vector] = add_group(totals[0][vector], upper, scales);
                        totals[1][vector] = add_group(totals[1][vector], lower, scales);
                    }
                }
            }
        }
        for (index, totals) in totals.as_flattened().iter().enumerate() {
            finish(panel, row + index, first, *totals);
        }
    }
}

/// 16 times the sums of one group, each vector 2 rows x 2 outputs.
///
/// # Safety
/// The rows from `row`, a multiple of 4, on must exist, the group be one of the panel's, and `first` 0 or 8.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn group_sums<const QUADS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    first: usize,
    group: &Group,
) -> [[[int32x4_t; 4]; 2]; QUADS] {
    let mut sums = [[[vdupq_n_s32(0); 4]; 2]; QUADS];
    // SAFETY: each four rows have `4 * inputs` bytes and the panel `8 * inputs`, of which the group's are read.
    unsafe {
        let mut values = panel.values.add(row * panel.inputs + 4 * group.first);
        let mut weights = panel.weights.add(group.first * 8 + first * 4);
        for _ in 0..(group.last - group.first) / 8 {
            let [a, b] = zip(unpack(weights));
            let [c, d] = zip(unpack(weights.add(16)));
            for (index, sums) in sums.iter_mut().enumerate() {
                let four = values.add(4 * index * panel.inputs);
                let pairs = zip([vld1q_s8(four), vld1q_s8(four.add(16))]);
                for (sums, inputs) in sums.iter_mut().zip(pairs) {
                    for (sum, weights) in sums.iter_mut().zip([a, b, c, d]) {
                        *sum = smmla(*sum, inputs, weights);
                    }
                }
            }
            weights = weights.add(64);
            values = values.add(32);
        }
    }
    sums
}

/// 4 outputs, or rows, x 4 inputs and the 4 inputs after them, as twice 2 x 8 inputs.
#[inline]
#[target_feature(enable = "neon")]
fn zip([low, high]: [int8x16_t; 2]) -> [int8x16_t; 2] {
    let (low, high) = (vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high));
    [vreinterpretq_s8_s32(vzip1q_s32(low, high)), vreinterpretq_s8_s32(vzip2q_s32(low, high))]
}

/// 2 rows x 8 inputs times 2 outputs x 8 inputs.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sums: int32x4_t, inputs: int8x16_t, weights: int8x16_t) -> int32x4_t {
    // SAFETY: sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {inputs:v}.16b, {weights:v}.16b",
            sums = inout(vreg) sums, inputs = in(vreg) inputs, weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
