//! From int32 sums to floats, the same for every AArch64 kernel.

use core::arch::aarch64::{
    int32x4_t, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vmulq_f32, vst1q_f32,
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
    let mut edge = [0.0_f32; 16];
    let whole = panel.width == 16;
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place; a whole
    // panel is 16 wide, another goes through `edge`, of which what lies inside the row is copied.
    unsafe {
        let row_scale = vdupq_n_f32(*panel.row_scales.add(row));
        let out = panel.out.add(row * panel.out_stride);
        let target = if whole { out } else { edge.as_mut_ptr() };
        for (vector, sums) in sums.into_iter().enumerate() {
            let lane = first + 4 * vector;
            let scale = vmulq_f32(row_scale, vld1q_f32(panel.scales.add(lane)));
            let bias = vld1q_f32(panel.bias.as_ptr().add(lane));
            vst1q_f32(target.add(lane), vfmaq_f32(bias, vcvtq_f32_s32(sums), scale));
        }
        if !whole {
            for lane in first..panel.width.min(first + 4 * VECTORS) {
                *out.add(lane) = edge[lane];
            }
        }
    }
}
