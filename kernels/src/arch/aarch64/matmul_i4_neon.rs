//! Int4 matrix product for cores without `SDOT`.
//!
//! Weights are unpacked to int8, -8 to 7: 32 products with a row's values, at most 127 in magnitude, fit an int16
//! sum, as 32 * 8 * 127 < 32768. So 128 inputs go by before `SADALP` adds pairs of neighbours into int32.

use core::arch::aarch64::{
    int16x8_t, int32x4_t, vdupq_n_f32, vdupq_n_s16, vdupq_n_s32, vget_low_s8, vld1q_dup_s32, vld1q_u8,
    vmlal_high_s8, vmlal_s8, vpadalq_s16, vpaddq_s32, vreinterpretq_s8_s32, vreinterpretq_s8_u8, vshlq_n_s8,
    vshlq_n_s32, vshrq_n_s8,
};

use kinglet_model_format::Int4Matrix;

use super::int4::{add_group, finish, scales};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Two rows x 8 outputs at a time: 8 int16 and 8 int32 accumulators.
#[target_feature(enable = "neon")]
pub(super) fn matmul_i4_block16x4_neon<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    for panel in matmul.panels() {
        for half in [0, 8] {
            let mut row = 0;
            // SAFETY: each tile ends at or before the last row; `half + 8 <= 16`.
            unsafe {
                while panel.rows - row >= 2 {
                    tile::<2>(&panel, row, half);
                    row += 2;
                }
                if row < panel.rows {
                    tile::<1>(&panel, row, half);
                }
            }
        }
    }
}

/// `ROWS` rows x 8 outputs.
///
/// # Safety
/// The rows from `row` on must exist; `first` must be 0 or 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const ROWS: usize>(panel: &Int4Panel<'_>, row: usize, first: usize) {
    let mut totals = [[vdupq_n_f32(0.0); 2]; ROWS];
    // SAFETY: the rows exist; the group is the panel's.
    unsafe {
        for group in panel.groups() {
            let sums = group_sums::<ROWS>(panel, row, first, &group);
            for vector in 0..2 {
                let scales = scales(panel, group.index, first + 4 * vector);
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    let sum = vpaddq_s32(sums[2 * vector], sums[2 * vector + 1]);
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
/// The rows from `row` on must exist, the group be one of the panel's, and `first` 0 or 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn group_sums<const ROWS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    first: usize,
    group: &Group,
) -> [[int32x4_t; 4]; ROWS] {
    let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
    for chunk in (group.first..group.last).step_by(128) {
        let mut products = [[vdupq_n_s16(0); 4]; ROWS];
        // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
        unsafe {
            let mut values = panel.values.add(row * panel.inputs + chunk);
            let mut weights = panel.weights.add(chunk * 8 + first * 4);
            for _ in 0..(group.last - chunk).min(128) / 16 {
                for step in 0..2 {
                    let values = values.add(8 * step);
                    multiply(&mut products, values, panel.inputs, weights.add(64 * step));
                }
                weights = weights.add(128);
                values = values.add(16);
            }
        }
        for (sums, products) in sums.iter_mut().zip(products) {
            for (sum, products) in sums.iter_mut().zip(products) {
                *sum = vpadalq_s16(*sum, products);
            }
        }
    }
    sums
}

/// Adds the products of 8 inputs and 8 outputs.
///
/// # Safety
/// 8 values must be readable at `values + row * stride` for each row, 32 bytes at `weights`.
#[inline(always)]
unsafe fn multiply<const ROWS: usize>(
    products: &mut [[int16x8_t; 4]; ROWS],
    values: *const i8,
    stride: usize,
    weights: *const u8,
) {
    // SAFETY: the caller's; every AArch64 kernel runs where NEON exists.
    unsafe {
        let packed = [vld1q_u8(weights), vld1q_u8(weights.add(16))].map(|packed| vreinterpretq_s8_u8(packed));
        for (row, products) in products.iter_mut().enumerate() {
            let values = values.add(row * stride).cast::<i32>();
            let low_values = vreinterpretq_s8_s32(vld1q_dup_s32(values));
            let high_values = vreinterpretq_s8_s32(vld1q_dup_s32(values.add(1)));
            for (index, packed) in packed.into_iter().enumerate() {
                let (low, high) = (vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed)), vshrq_n_s8::<4>(packed));
                let [a, b] = [2 * index, 2 * index + 1];
                products[a] = vmlal_s8(products[a], vget_low_s8(low), vget_low_s8(low_values));
                products[b] = vmlal_high_s8(products[b], low, low_values);
                products[a] = vmlal_s8(products[a], vget_low_s8(high), vget_low_s8(high_values));
                products[b] = vmlal_high_s8(products[b], high, high_values);
            }
        }
    }
}
