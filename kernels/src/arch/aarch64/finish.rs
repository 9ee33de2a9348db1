//! From sums to floats, the same for every AArch64 kernel.

use core::arch::aarch64::{
    float32x4_t, int32x4_t, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmulq_f32, vst1q_f32,
};
use core::arch::asm;

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
            let scale = vmulq_f32(row_scale, vld1q_f32(panel.scales.as_ptr().add(first + 4 * vector)));
            let bias = vld1q_f32(panel.bias.as_ptr().add(first + 4 * vector));
            *result = vfmaq_f32(bias, vcvtq_f32_s32(sums), scale);
        }
        let out = panel.out.add(row * panel.out_stride).wrapping_add(first);
        store(out, panel.width.saturating_sub(first), results);
    }
}

/// Four rows of 8 sums each to floats in assembly, as `finish_row` makes them: the scales of the outputs are in v0 and v1, and the bias
/// is loaded where the result is to be, which saves a move.
macro_rules! finish_4 {
    ($($lane:literal $a:literal $b:literal),+) => {
        concat!("ldr q2, [{row_scales}], #16\n", $(
            "ldp q4, q5, [{bias}]\n",
            "fmul v6.4s, v0.4s, v2.s[", $lane, "]\n",
            "fmul v7.4s, v1.4s, v2.s[", $lane, "]\n",
            "scvtf ", $a, ".4s, ", $a, ".4s\n",
            "scvtf ", $b, ".4s, ", $b, ".4s\n",
            "fmla v4.4s, ", $a, ".4s, v6.4s\n",
            "fmla v5.4s, ", $b, ".4s, v7.4s\n",
            "st1 {{v4.4s, v5.4s}}, [{out}], {stride}\n",
        )+)
    };
}
pub(super) use finish_4;

/// Zero in each register.
macro_rules! clear {
    ($($sum:literal)+) => {
        concat!($("movi ", $sum, ".4s, #0\n"),+)
    };
}
pub(super) use clear;

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
