//! Few rows times int4 weights on cores without `SDOT`.
//!
//! Weights are unpacked to int8, -8 to 7: 32 products with a row's values, at most 127 in magnitude, fit an int16
//! sum, as 32 * 8 * 127 < 32768. So all the products of a small group are added up as int16 and multiplied into int32, and
//! in a larger one 128 inputs go by before `SADALP` adds pairs of neighbours into int32.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, vdupq_n_s16, vdupq_n_s32, vget_low_s16, vld1q_dup_s32, vld1q_u8,
    vmlal_high_s16, vmlal_s16, vmlaq_s32, vpadalq_s16, vpaddq_s16, vpaddq_s32, vreinterpretq_s8_s32,
    vreinterpretq_s8_u8, vshlq_n_s8, vshrq_n_s8,
};
use core::arch::asm;

use super::finish::finish_row;
use super::int4::{multipliers_16, multipliers_32};
use crate::arch::int4_panel::{Group, Int4Panel};

/// Inputs of a group whose sums fit int16.
const SMALL_GROUP: usize = 32;
/// Inputs in four lanes of int16 sums.
const MOST_PRODUCTS: usize = 128;

/// All rows, 1 to 3, each by itself: 8 int16 accumulators.
///
/// # Safety
/// The panel's invariants.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn few_rows(panel: &Int4Panel<'_>) {
    for row in 0..panel.panel.rows {
        let mut totals = [vdupq_n_s32(0); 4];
        // SAFETY: the row exists, in plain order; the group is the panel's.
        unsafe {
            for group in panel.groups() {
                if group.last - group.first <= SMALL_GROUP {
                    add_small_group(&mut totals, panel, row, &group);
                } else {
                    add_large_group(&mut totals, panel, row, &group);
                }
            }
            finish_row(&panel.panel, row, 0, totals);
        }
    }
}

/// Adds a group of at most 32 inputs.
///
/// # Safety
/// The row must exist, in plain order, and the group be one of the panel's.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_small_group(totals: &mut [int32x4_t; 4], panel: &Int4Panel<'_>, row: usize, group: &Group) {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] =
            products(panel, row, group.first..group.last).map(|[low, high]| vpaddq_s16(low, high));
        let multipliers = multipliers_16(panel.multipliers.add(8 * group.index));
        for (half, sums) in [vpaddq_s16(a, b), vpaddq_s16(c, d)].into_iter().enumerate() {
            let multipliers = multipliers[half];
            let (low, high) = (vget_low_s16(sums), vget_low_s16(multipliers));
            totals[2 * half] = vmlal_s16(totals[2 * half], low, high);
            totals[2 * half + 1] = vmlal_high_s16(totals[2 * half + 1], sums, multipliers);
        }
    }
}

/// Adds a group of any size.
///
/// # Safety
/// The row must exist, in plain order, and the group be one of the panel's.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_large_group(totals: &mut [int32x4_t; 4], panel: &Int4Panel<'_>, row: usize, group: &Group) {
    // Two partial sums of each of two outputs a vector.
    let mut sums = [[vdupq_n_s32(0); 2]; 4];
    // SAFETY: the caller's.
    unsafe {
        for first in (group.first..group.last).step_by(MOST_PRODUCTS) {
            let products = products(panel, row, first..group.last.min(first + MOST_PRODUCTS));
            for (sum, products) in sums.as_flattened_mut().iter_mut().zip(products.as_flattened()) {
                *sum = vpadalq_s16(*sum, *products);
            }
        }
        let multipliers = multipliers_32(panel.multipliers.add(8 * group.index));
        for ((total, [low, high]), multipliers) in totals.iter_mut().zip(sums).zip(multipliers) {
            *total = vmlaq_s32(*total, vpaddq_s32(low, high), multipliers);
        }
    }
}

/// The sums of at most 128 inputs in 16 outputs, four partial sums of each of two outputs a vector.
///
/// # Safety
/// The row must exist, in plain order, and have these inputs, multiples of 16.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn products(
    panel: &Int4Panel<'_>,
    row: usize,
    inputs: core::ops::Range<usize>,
) -> [[int16x8_t; 2]; 4] {
    let mut products = [[vdupq_n_s16(0); 2]; 4];
    // SAFETY: the row has `inputs` bytes and the panel `8 * inputs`, of which those of the range are read.
    unsafe {
        let mut values = panel.panel.values.add(row * panel.panel.inputs + inputs.start);
        let mut weights = panel.packed.add(inputs.start * 8);
        for _ in 0..inputs.len() / 16 {
            multiply(&mut products, values, weights);
            multiply(&mut products, values.add(8), weights.add(64));
            weights = weights.add(128);
            values = values.add(16);
        }
    }
    products
}

/// Adds the products of 8 inputs and 16 outputs.
///
/// # Safety
/// 8 values must be readable at `values`, 64 bytes at `weights`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply(products: &mut [[int16x8_t; 2]; 4], values: *const i8, weights: *const u8) {
    // SAFETY: the caller's.
    unsafe {
        let [first, second] =
            [values, values.add(4)].map(|four| vreinterpretq_s8_s32(vld1q_dup_s32(four.cast())));
        for (vector, products) in products.iter_mut().enumerate() {
            let packed = vreinterpretq_s8_u8(vld1q_u8(weights.add(16 * vector)));
            let (low, high) = (vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed)), vshrq_n_s8::<4>(packed));
            *products = multiply_add(multiply_add(*products, low, first), high, second);
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
