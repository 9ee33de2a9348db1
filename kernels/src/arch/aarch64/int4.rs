//! What every AArch64 kernel for int4 weights needs.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, vandq_s8, vcvtq_n_f32_s32, vdupq_n_f32, vdupq_n_s8, vfmaq_f32,
    vld1_u16, vld1q_f32, vld1q_u8, vreinterpretq_s8_u8, vshlq_n_s8,
};
use core::arch::asm;

use super::finish::store;
use crate::arch::int4_panel::Int4Panel;

/// 16 bytes of packed weights as two registers of weights 16 times as large: inputs 0 to 3, and 4 to 7, of 4 outputs.
///
/// # Safety
/// 16 bytes must be readable at `packed`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack(packed: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller's.
    let packed = vreinterpretq_s8_u8(unsafe { vld1q_u8(packed) });
    [vshlq_n_s8::<4>(packed), vandq_s8(packed, vdupq_n_s8(0xf0_u8 as i8))]
}

/// The scales of 4 outputs from output `first` of the panel on.
///
/// # Safety
/// The panel must have the group; `first + 4 <= 16`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn scales(panel: &Int4Panel<'_>, group: usize, first: usize) -> float32x4_t {
    // SAFETY: a group has 16 scales.
    unsafe { widened(panel.scales.add(16 * group + first)) }
}

/// Four f16 as f32.
///
/// # Safety
/// They must be readable at `halves`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn widened(halves: *const u16) -> float32x4_t {
    let floats: float32x4_t;
    // SAFETY: the caller's. The instruction has no stable intrinsic.
    unsafe {
        let bits = vld1_u16(halves);
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) floats, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    floats
}

/// Adds the sums of a group, given 16 times as large, to the totals.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_group(totals: float32x4_t, sums: int32x4_t, scales: float32x4_t) -> float32x4_t {
    vfmaq_f32(totals, vcvtq_n_f32_s32::<4>(sums), scales)
}

/// Scales `4 * VECTORS` totals of `row`, from output `first` of the panel on, adds the bias and stores them.
///
/// # Safety
/// `row < panel.rows` and `first + 4 * VECTORS <= 16`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn finish<const VECTORS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    first: usize,
    totals: [float32x4_t; VECTORS],
) {
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place.
    unsafe {
        let row_scale = vdupq_n_f32(*panel.row_scales.add(row));
        let mut results = totals;
        for (vector, result) in results.iter_mut().enumerate() {
            let bias = vld1q_f32(panel.bias.as_ptr().add(first + 4 * vector));
            *result = vfmaq_f32(bias, *result, row_scale);
        }
        let out = panel.out.add(row * panel.out_stride).wrapping_add(first);
        store(out, panel.width.saturating_sub(first), results);
    }
}
