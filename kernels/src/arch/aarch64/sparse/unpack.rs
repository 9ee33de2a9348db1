//! A row of blocks of int4 weights as int8 weights, their multipliers included.

use core::arch::aarch64::{
    int8x16_t, uint8x16_t, vcombine_u8, vdupq_lane_u8, vdupq_n_s8, vld1_u8, vld1q_u8, vmulq_s8,
    vreinterpretq_s8_s64, vreinterpretq_s8_u8, vreinterpretq_s8_u16, vreinterpretq_s64_s8,
    vreinterpretq_u16_u8, vshlq_n_s8, vshrq_n_s8, vst1q_s8, vzip1q_s64, vzip1q_u8, vzip1q_u16, vzip2q_u8,
    vzip2q_u16,
};

use kinglet_model_format::BlockShape;

use super::multipliers_of_4;
use super::product::Strip;
use crate::arch::aarch64::int4::halves;

/// Writes the weights of a strip of blocks of `shape` to `room` as those of an int8 matrix.
///
/// # Safety
/// The strip's invariants; its ids must be of two bytes where `WIDE`; at `room` twice the bytes of its weights may be written.
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack<const WIDE: bool>(strip: &Strip<'_>, shape: BlockShape, room: *mut i8) {
    let (mut group, mut multipliers) = (usize::MAX, [vdupq_n_s8(0); 4]);
    let (mut packed, mut target) = (strip.run.weights, room);
    for block in 0..strip.run.blocks {
        let group_of_block = strip.group_of::<WIDE>(block);
        // SAFETY: the group has its multipliers, and the block its weights, of which there are twice as many bytes behind.
        unsafe {
            if group != group_of_block {
                group = group_of_block;
                multipliers = beside_weights(strip.multipliers.add(8 * group), strip.lane, shape);
            }
            if shape == BlockShape::Outputs4Inputs4 {
                let halves = vld1_u8(packed);
                let [low, high] = steps(vcombine_u8(halves, halves)).map(|steps| vreinterpretq_s64_s8(steps));
                vst1q_s8(target, vmulq_s8(vreinterpretq_s8_s64(vzip1q_s64(low, high)), multipliers[0]));
            } else {
                for half in 0..2 {
                    let [low, high] = steps(vld1q_u8(packed.add(16 * half)));
                    vst1q_s8(target.add(32 * half), vmulq_s8(low, multipliers[2 * half]));
                    vst1q_s8(target.add(32 * half + 16), vmulq_s8(high, multipliers[2 * half + 1]));
                }
            }
            packed = packed.add(shape.weights() / 2);
            target = target.add(shape.weights());
        }
    }
}

/// The weights in the low and in the high halves of bytes, without their multipliers.
#[inline]
#[target_feature(enable = "neon")]
fn steps(packed: uint8x16_t) -> [int8x16_t; 2] {
    let packed = vreinterpretq_s8_u8(packed);
    [vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed)), vshrq_n_s8::<4>(packed)]
}

/// The multipliers of a group beside the weights of a block, from output `lane` of 16 on.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn beside_weights(group: *const u8, lane: usize, shape: BlockShape) -> [int8x16_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        if shape == BlockShape::Outputs16Inputs4 {
            return each_four_times(group);
        }
        let four = multipliers_of_4(group, lane);
        if shape == BlockShape::Outputs4Inputs16 {
            return [
                vdupq_lane_u8::<0>(four),
                vdupq_lane_u8::<1>(four),
                vdupq_lane_u8::<2>(four),
                vdupq_lane_u8::<3>(four),
            ]
            .map(|multipliers| vreinterpretq_s8_u8(multipliers));
        }
        let four = vcombine_u8(four, four);
        let pairs = vreinterpretq_u16_u8(vzip1q_u8(four, four));
        [vreinterpretq_s8_u16(vzip1q_u16(pairs, pairs)); 4]
    }
}

/// The multipliers of a group beside the weights of 4 outputs x 4 inputs: 4 outputs a register, each four times.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn each_four_times(place: *const u8) -> [int8x16_t; 4] {
    // SAFETY: the caller's.
    let [low, high] = unsafe { halves(place) };
    let all = vcombine_u8(low, high);
    let (low, high) = (vreinterpretq_u16_u8(vzip1q_u8(all, all)), vreinterpretq_u16_u8(vzip2q_u8(all, all)));
    [vzip1q_u16(low, low), vzip2q_u16(low, low), vzip1q_u16(high, high), vzip2q_u16(high, high)]
        .map(|lanes| vreinterpretq_s8_u16(lanes))
}
