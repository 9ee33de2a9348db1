//! Int4 matrix product for cores without `SDOT`.
//!
//! Weights are unpacked to int8, -8 to 7: 32 products with a row's values, at most 127 in magnitude, fit an int16
//! sum, as 32 * 8 * 127 < 32768. So 128 inputs go by before `SADALP` adds pairs of neighbours into int32.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vdupq_n_f32, vdupq_n_s16, vdupq_n_s32, vld1q_dup_s32, vld1q_u8,
    vpadalq_s16, vpaddq_s32, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshlq_n_s8, vshlq_n_s32, vshrq_n_s8,
};
use core::arch::asm;

use kinglet_model_format::Int4Matrix;

use super::int4::{add_group, finish, scales};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Two rows x 8 outputs at a time, or one row x 16: 8 int16 and 8 int32 accumulators. The 1 to 3 rows behind the last four
/// stand in plain order.
#[target_feature(enable = "neon")]
pub(super) fn matmul_i4_block16x4_neon<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    for panel in matmul.panels() {
        let quad_rows = panel.rows / 4 * 4;
        // SAFETY: two rows of a four, then each row behind the last four; `half + 8 <= 16`.
        unsafe {
            for half in [0, 8] {
                for row in (0..quad_rows).step_by(2) {
                    tile::<2, 2>(&panel, row, half);
                }
            }
            for row in quad_rows..panel.rows {
                tile::<1, 4>(&panel, row, 0);
            }
        }
    }
}

/// `ROWS` rows x `4 * VECTORS` outputs: two rows of four that stand side by side, or one in plain order.
///
/// # Safety
/// The rows from `row` on must exist and stand in that order; `first` must be 0 or 8, `first + 4 * VECTORS` at most 16.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(panel: &Int4Panel<'_>, row: usize, first: usize) {
    let mut totals = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
    // SAFETY: the rows exist; the group is the panel's.
    unsafe {
        for group in panel.groups() {
            let sums = group_sums::<ROWS, VECTORS>(panel, row, first, &group);
            for vector in 0..VECTORS {
                let scales = scales(panel, group.index, first + 4 * vector);
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    let sum = vpaddq_s32(sums[vector][0], sums[vector][1]);
                    totals[vector] = add_group(totals[vector], vshlq_n_s32::<4>(sum), scales);
                }
            }
        }
        for (index, totals) in totals.into_iter().enumerate() {
            finish(panel, row + index, first, totals);
        }
    }
}

/// The sums of one group, two partial sums of each of two outputs a vector.
///
/// # Safety
/// The rows from `row` on must exist, in the order that `tile` wants, the group be one of the panel's, and
/// `first + 4 * VECTORS` at most 16.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn group_sums<const ROWS: usize, const VECTORS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    first: usize,
    group: &Group,
) -> [[[int32x4_t; 2]; VECTORS]; ROWS] {
    let mut sums = [[[vdupq_n_s32(0); 2]; VECTORS]; ROWS];
    for chunk in (group.first..group.last).step_by(128) {
        let mut products = [[[vdupq_n_s16(0); 2]; VECTORS]; ROWS];
        // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
        unsafe {
            // 4 inputs of a row take 4 bytes in plain order, 16 among four rows.
            let step = if ROWS == 1 { 4 } else { 16 };
            let row_start =
                if ROWS == 1 { row * panel.inputs } else { row / 4 * 4 * panel.inputs + row % 4 * 4 };
            let mut values = panel.values.add(row_start + chunk / 4 * step);
            let mut weights = panel.weights.add(chunk * 8 + first * 4);
            for _ in 0..(group.last - chunk).min(128) / 16 {
                multiply(&mut products, values, step, weights);
                multiply(&mut products, values.add(2 * step), step, weights.add(64));
                weights = weights.add(128);
                values = values.add(4 * step);
            }
        }
        for (sums, products) in sums.iter_mut().zip(products) {
            for (sum, products) in sums.as_flattened_mut().iter_mut().zip(products.as_flattened()) {
                *sum = vpadalq_s16(*sum, *products);
            }
        }
    }
    sums
}

/// Adds the products of 8 inputs and `4 * VECTORS` outputs.
///
/// # Safety
/// 4 values must be readable at `values + 4 * row` and `step` behind, for each row, `16 * VECTORS` bytes at `weights`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply<const ROWS: usize, const VECTORS: usize>(
    products: &mut [[[int16x8_t; 2]; VECTORS]; ROWS],
    values: *const i8,
    step: usize,
    weights: *const u8,
) {
    let zero = vreinterpretq_s8_s32(vdupq_n_s32(0));
    let mut inputs = [[zero; 2]; ROWS];
    // SAFETY: the caller's.
    unsafe {
        for (row, inputs) in inputs.iter_mut().enumerate() {
            let [first, second] = [values.add(4 * row), values.add(4 * row + step)];
            *inputs = [vld1q_dup_s32(first.cast()), vld1q_dup_s32(second.cast())]
                .map(|four| vreinterpretq_s8_s32(four));
        }
        for vector in 0..VECTORS {
            let packed = vreinterpretq_s8_u8(vld1q_u8(weights.add(16 * vector)));
            let (low, high) = (vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed)), vshrq_n_s8::<4>(packed));
            for (products, [first, second]) in products.iter_mut().zip(inputs) {
                let products = &mut products[vector];
                *products = multiply_add(multiply_add(*products, low, first), high, second);
            }
        }
    }
}

/// Adds 16 products. As intrinsics these two instructions become four: the compiler first moves the upper halves down.
#[inline]
#[target_feature(enable = "neon")]
fn multiply_add([mut low, mut high]: [int16x8_t; 2], a: int8x16_t, b: int8x16_t) -> [int16x8_t; 2] {
    // SAFETY: sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "smlal {low:v}.8h, {a:v}.8b, {b:v}.8b",
            "smlal2 {high:v}.8h, {a:v}.16b, {b:v}.16b",
            low = inout(vreg) low, high = inout(vreg) high, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [low, high]
}
