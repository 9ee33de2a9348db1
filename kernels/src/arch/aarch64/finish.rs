//! From sums to floats, the same for every AArch64 kernel.

use core::arch::aarch64::{
    float32x4_t, int32x4_t, vcvtq_f32_s32, vdupq_lane_f32, vdupq_n_f32, vfmaq_f32, vld1_f32, vld1q_f32,
    vmulq_f32, vst1q_f32,
};
use core::arch::asm;
use core::mem::MaybeUninit;

use crate::arch::panel::Panel;

/// Scales `4 * VECTORS` sums of `row`, from output `first` of the panel on, adds the bias and stores them.
///
/// # Safety
/// `row < panel.rows` and `first + 4 * VECTORS <= 16`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn finish_row<const VECTORS: usize>(
    panel: &Panel<'_>,
    row: usize,
    first: usize,
    sums: [int32x4_t; VECTORS],
) {
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place.
    unsafe {
        let row_scale = vdupq_n_f32(*panel.row_scales.add(row));
        let mut results = [row_scale; VECTORS];
        for (vector, (result, sums)) in results.iter_mut().zip(sums).enumerate() {
            let scale = vmulq_f32(row_scale, vld1q_f32(panel.scales.add(first + 4 * vector)));
            let bias = vld1q_f32(panel.bias.as_ptr().add(first + 4 * vector));
            *result = vfmaq_f32(bias, vcvtq_f32_s32(sums), scale);
        }
        let out = panel.out.add(row * panel.out_stride).wrapping_add(first);
        store(out, panel.width.saturating_sub(first), results);
    }
}

/// Scales the sums of `row` and the row behind it, all 16 outputs of the panel, adds the bias and stores them: scales and bias
/// are read once for both.
///
/// # Safety
/// `row + 1 < panel.rows`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn finish_two_rows(panel: &Panel<'_>, row: usize, sums: [[int32x4_t; 4]; 2]) {
    // SAFETY: the rows exist, so their scales do, and `width` floats may be written at the place of each; where outputs are
    // missing results go by way of `edge`.
    unsafe {
        let row_scales = vld1_f32(panel.row_scales.add(row));
        let row_scales = [vdupq_lane_f32::<0>(row_scales), vdupq_lane_f32::<1>(row_scales)];
        let scales: [_; 4] = core::array::from_fn(|vector| vld1q_f32(panel.scales.add(4 * vector)));
        let bias: [_; 4] = core::array::from_fn(|vector| vld1q_f32(panel.bias.as_ptr().add(4 * vector)));
        let mut edge = MaybeUninit::<[f32; 32]>::uninit();
        let out = panel.out.add(row * panel.out_stride);
        let whole = panel.width == 16;
        let (target, stride) = if whole { (out, panel.out_stride) } else { (edge.as_mut_ptr().cast(), 16) };
        for (index, (row_scale, sums)) in row_scales.into_iter().zip(sums).enumerate() {
            let target = target.add(index * stride);
            for (vector, sums) in sums.into_iter().enumerate() {
                let scale = vmulq_f32(row_scale, scales[vector]);
                vst1q_f32(target.add(4 * vector), vfmaq_f32(bias[vector], vcvtq_f32_s32(sums), scale));
            }
        }
        if !whole {
            store_edge(out, panel.width, edge.as_ptr().cast());
            store_edge(out.add(panel.out_stride), panel.width, edge.as_ptr().cast::<float32x4_t>().add(4));
        }
    }
}

/// Sums of 2 rows x 2 outputs, twice, as 4 outputs of each row. Intrinsics for this become moves and inserts as well.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn split(first: int32x4_t, second: int32x4_t) -> [int32x4_t; 2] {
    let (upper, lower);
    // SAFETY: nothing but registers is touched.
    unsafe {
        asm!(
            "uzp1 {upper:v}.2d, {first:v}.2d, {second:v}.2d",
            "uzp2 {lower:v}.2d, {first:v}.2d, {second:v}.2d",
            first = in(vreg) first, second = in(vreg) second, upper = out(vreg) upper, lower = lateout(vreg) lower,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    [upper, lower]
}

/// Stores `4 * VECTORS` floats, or the first `width` where these are fewer.
///
/// # Safety
/// As many floats may be written at `out`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store<const VECTORS: usize>(
    out: *mut f32,
    width: usize,
    results: [float32x4_t; VECTORS],
) {
    // SAFETY: the caller's.
    unsafe {
        if width >= 4 * VECTORS {
            for (vector, result) in results.into_iter().enumerate() {
                vst1q_f32(out.add(4 * vector), result);
            }
        } else {
            // A copy, so that the results of whole vectors stay in registers.
            let edge = results;
            store_edge(out, width, edge.as_ptr());
        }
    }
}

/// # Safety
/// `width` floats may be read at `results` and written at `out`.
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn store_edge(out: *mut f32, width: usize, results: *const float32x4_t) {
    // SAFETY: the caller's; a vector is four floats.
    unsafe { out.copy_from_nonoverlapping(results.cast(), width) }
}
