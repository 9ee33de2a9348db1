//! Symbols of a trellis to int4: 16 outputs x 8 inputs at a time, levels looked up in four registers.

use core::arch::aarch64::{
    uint8x16_t, uint8x16x4_t, vandq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vld1q_u8_x4, vqtbl4q_u8,
    vreinterpretq_s8_u8, vshrq_n_u8, vsliq_n_u8, vsriq_n_u8, vst1q_s8,
};

use kinglet_model_format::trellis::{LEVEL_AT, TURN};
use kinglet_model_format::{Int3Block, Int3Matrix, WideBlock};

use crate::arch::scalar::for_each_block;

/// As [`scalar::widen_trellis`](crate::arch::scalar::widen_trellis).
#[target_feature(enable = "neon")]
pub(super) fn widen_trellis(weights: &Int3Matrix<'_>, first: usize, wide: &mut [i8]) {
    // SAFETY: both have 64 bytes.
    let (levels, turns) = unsafe { (vld1q_u8_x4(LEVEL_AT.as_ptr().cast()), vld1q_u8_x4(TURN.as_ptr())) };
    for_each_block(weights, first, wide, |block, before, wide| {
        widen_block(levels, turns, block, before, wide);
    });
}

#[inline]
#[target_feature(enable = "neon")]
fn widen_block(
    levels: uint8x16x4_t,
    turns: uint8x16x4_t,
    block: &Int3Block,
    before: &Int3Block,
    wide: &mut WideBlock,
) {
    let (then, now) = (pairs(before), pairs(block));
    let [low, high] = [0, 1].map(|input| {
        let ([first, second], [third, fourth]) = (then[input], now[input]);
        let (a, b, c) = (between(first, second), between(second, third), between(third, fourth));
        [(b, a), (third, second), (c, b), (fourth, third)]
            .map(|(later, earlier)| level(levels, turns, later, earlier))
    });
    for (step, wide) in wide.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        // Of the low one just its half byte is left.
        let both = vsliq_n_u8::<4>(low[step], high[step]);
        // SAFETY: these are 16 bytes.
        unsafe { vst1q_s8(wide.as_mut_ptr(), vreinterpretq_s8_u8(both)) };
    }
}

/// Of both inputs the pairs of symbols, six bits each.
#[inline]
#[target_feature(enable = "neon")]
fn pairs(block: &Int3Block) -> [[uint8x16_t; 2]; 2] {
    // SAFETY: three times 16 bytes of 48.
    let [a, b, c] = [0, 16, 32].map(|first| unsafe { vld1q_u8(block.as_ptr().add(first)) });
    // The top two bits of each, side by side.
    let last = vshrq_n_u8::<2>(vsriq_n_u8::<4>(vsriq_n_u8::<2>(c, b), a));
    let six = vdupq_n_u8(63);
    [[vandq_u8(a, six), vandq_u8(b, six)], [vandq_u8(c, six), last]]
}

/// The pair of the later symbol of `a` and the earlier one of `b`.
#[inline]
#[target_feature(enable = "neon")]
fn between(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    vandq_u8(vsliq_n_u8::<3>(vshrq_n_u8::<3>(b), a), vdupq_n_u8(63))
}

/// As [`trellis::level`](kinglet_model_format::trellis::level).
#[inline]
#[target_feature(enable = "neon")]
fn level(levels: uint8x16x4_t, turns: uint8x16x4_t, later: uint8x16_t, earlier: uint8x16_t) -> uint8x16_t {
    vqtbl4q_u8(levels, veorq_u8(later, vqtbl4q_u8(turns, earlier)))
}
