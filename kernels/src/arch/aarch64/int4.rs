//! What every AArch64 kernel for int4 weights needs.

use core::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, uint8x8_t, uint8x16_t, vand_u8, vcombine_u8, vdup_n_u8, vget_low_u16,
    vld1_u8, vld1q_u8, vmlaq_s32, vmovl_high_u16, vmovl_u8, vmovl_u16, vmulq_s8, vreinterpretq_s8_u8,
    vreinterpretq_s8_u16, vreinterpretq_s16_u16, vreinterpretq_s32_u32, vreinterpretq_u16_u8, vshlq_n_s8,
    vshr_n_u8, vshrq_n_s8, vshrq_n_s32, vst1q_s8, vzip1q_u8, vzip1q_u16, vzip2q_u8, vzip2q_u16,
};

use crate::arch::int4_panel::Int4Panel;
use crate::arch::panel::Panel;

/// The multipliers of a group as bytes: of outputs 0 to 7, and of outputs 8 to 15.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn halves(place: *const u8) -> [uint8x8_t; 2] {
    // SAFETY: the caller's.
    let packed = unsafe { vld1_u8(place) };
    [vand_u8(packed, vdup_n_u8(0xf)), vshr_n_u8::<4>(packed)]
}

/// The multipliers of a group, 8 outputs a register.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn multipliers_16(place: *const u8) -> [int16x8_t; 2] {
    // SAFETY: the caller's.
    unsafe { halves(place) }.map(|half| vreinterpretq_s16_u16(vmovl_u8(half)))
}

/// The multipliers of a group, 4 outputs a register.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn multipliers_32(place: *const u8) -> [int32x4_t; 4] {
    // SAFETY: the caller's.
    let [low, high] = unsafe { halves(place) }.map(|half| vmovl_u8(half));
    [vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)]
        .map(|lanes| vreinterpretq_s32_u32(lanes))
}

/// The weights in the low and in the high halves of bytes, without their multipliers.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn steps(packed: uint8x16_t) -> [int8x16_t; 2] {
    let packed = vreinterpretq_s8_u8(packed);
    [vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed)), vshrq_n_s8::<4>(packed)]
}

/// Adds the sums of a group, given 16 times as large, times their multipliers to the totals.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_group(totals: int32x4_t, sums: int32x4_t, multipliers: int32x4_t) -> int32x4_t {
    vmlaq_s32(totals, vshrq_n_s32::<4>(sums), multipliers)
}

/// The panel as int8, its weights in `room`.
///
/// # Safety
/// `16 * inputs` bytes may be written at `room`, which stays as it is as long as the result is used.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack<'a>(panel: Int4Panel<'a>, room: *mut i8) -> Panel<'a> {
    for group in panel.groups() {
        // SAFETY: the group has its multipliers; of the panel's `8 * inputs` bytes those of the group are read, and twice as
        // many are written.
        unsafe {
            let multipliers = each_four_times(panel.multipliers.add(8 * group.index));
            let mut packed = panel.packed.add(8 * group.first);
            let mut target = room.add(16 * group.first);
            for _ in 0..(group.last - group.first) / 8 {
                for (vector, multipliers) in multipliers.into_iter().enumerate() {
                    let [low, high] = steps(vld1q_u8(packed.add(16 * vector)));
                    vst1q_s8(target.add(16 * vector), vmulq_s8(low, multipliers));
                    vst1q_s8(target.add(64 + 16 * vector), vmulq_s8(high, multipliers));
                }
                packed = packed.add(64);
                target = target.add(128);
            }
        }
    }
    Panel { weights: room, ..panel.panel }
}

/// The multipliers of a group beside the weights of 4 outputs x 4 inputs: 4 outputs a register, each four times.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn each_four_times(place: *const u8) -> [int8x16_t; 4] {
    // SAFETY: the caller's.
    let [low, high] = unsafe { halves(place) };
    let all = vcombine_u8(low, high);
    let (low, high) = (vreinterpretq_u16_u8(vzip1q_u8(all, all)), vreinterpretq_u16_u8(vzip2q_u8(all, all)));
    [vzip1q_u16(low, low), vzip2q_u16(low, low), vzip1q_u16(high, high), vzip2q_u16(high, high)]
        .map(|lanes| vreinterpretq_s8_u16(lanes))
}
