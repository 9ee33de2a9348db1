//! From sums to floats, the same for every AArch64 kernel.

use core::arch::aarch64::{
    float32x4_t, int32x4_t, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmulq_f32, vst1q_f32,
};

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
        let results = scale(row_scale, panel.scales.add(first), panel.bias.as_ptr().add(first), sums);
        let out = panel.out.add(row * panel.out_stride).wrapping_add(first);
        store(out, panel.width.saturating_sub(first), results);
    }
}

/// Sums of one row times their scales, plus their bias.
///
/// # Safety
/// As many floats must be readable at `scales` and at `bias`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn scale<const VECTORS: usize>(
    row_scale: float32x4_t,
    scales: *const f32,
    bias: *const f32,
    sums: [int32x4_t; VECTORS],
) -> [float32x4_t; VECTORS] {
    let mut results = [row_scale; VECTORS];
    for (vector, (result, sums)) in results.iter_mut().zip(sums).enumerate() {
        // SAFETY: the caller's.
        unsafe {
            let scale = vmulq_f32(row_scale, vld1q_f32(scales.add(4 * vector)));
            *result = vfmaq_f32(vld1q_f32(bias.add(4 * vector)), vcvtq_f32_s32(sums), scale);
        }
    }
    results
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
            store_edge(out, width, &edge);
        }
    }
}

/// # Safety
/// `width` floats may be written at `out`, fewer than there are results.
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn store_edge(out: *mut f32, width: usize, results: &[float32x4_t]) {
    // SAFETY: the caller's; a vector is four floats.
    unsafe { out.copy_from_nonoverlapping(results.as_ptr().cast(), width) }
}
