//! What every AArch64 kernel for int4 weights needs.

use core::arch::aarch64::{
    int16x8_t, int32x4_t, uint8x8_t, vand_u8, vdup_n_u8, vdupq_n_u8, vget_low_u16, vld1_u8, vld1q_u8,
    vmlaq_s32, vmovl_high_u16, vmovl_u8, vmovl_u16, vreinterpretq_s16_u16, vreinterpretq_s32_u32, vshr_n_u8,
    vshrq_n_s32,
};
use core::arch::asm;

use crate::arch::int4_panel::Int4Panel;
use crate::arch::panel::Panel;

/// The multipliers of a group as bytes: of outputs 0 to 7, and of outputs 8 to 15.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn halves(place: *const u8) -> [uint8x8_t; 2] {
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

/// Adds the sums of a group, given 16 times as large, times their multipliers to the totals.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_group(totals: int32x4_t, sums: int32x4_t, multipliers: int32x4_t) -> int32x4_t {
    vmlaq_s32(totals, vshrq_n_s32::<4>(sums), multipliers)
}

/// Where each byte of a half of multipliers goes beside the weights of 4 outputs x 4 inputs: bytes 0 to 3, and 4 to 7, four times each.
const FOUR_TIMES: [u8; 32] = {
    let mut places = [0; 32];
    let mut place = 0;
    while place < 32 {
        places[place] = place as u8 / 4;
        place += 1;
    }
    places
};

/// Four times the same instruction: on `$to`, `$from` and the operand behind it.
macro_rules! each {
    ($name:literal: $($to:literal $from:literal $operand:literal),+) => {
        concat!($($name, " ", $to, ".16b, ", $from, ".16b, ", $operand, "\n"),+)
    };
}

/// The panel as int8, its weights in `room`.
///
/// # Safety
/// `16 * inputs` bytes may be written at `room`, which stays as it is as long as the result is used.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn unpack<'a>(panel: Int4Panel<'a>, room: *mut i8) -> Panel<'a> {
    // SAFETY: 8 inputs of 16 outputs are 64 bytes of the panel's `8 * inputs` and 128 of the room, for inputs that are a multiple of
    // 16 and not zero; so are those of a group, each of which has 8 bytes of multipliers.
    unsafe {
        asm!(
            "2:",
            "ldr d24, [{multipliers}], #8",
            "cmp {left}, {group}",
            "csel {inputs}, {left}, {group}, lo",
            "ushr v25.8b, v24.8b, #4",
            "and v24.8b, v24.8b, {low_half:v}.8b",
            "sub {left}, {left}, {inputs}",
            "tbl v20.16b, {{v24.16b}}, {first:v}.16b",
            "tbl v21.16b, {{v24.16b}}, {second:v}.16b",
            "tbl v22.16b, {{v25.16b}}, {first:v}.16b",
            "tbl v23.16b, {{v25.16b}}, {second:v}.16b",
            "3:",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{packed}], #64",
            "subs {inputs}, {inputs}, #8",
            each!("shl": "v4" "v0" "#4", "v5" "v1" "#4", "v6" "v2" "#4", "v7" "v3" "#4"),
            each!("sshr": "v0" "v0" "#4", "v1" "v1" "#4", "v2" "v2" "#4", "v3" "v3" "#4"),
            each!("sshr": "v4" "v4" "#4", "v5" "v5" "#4", "v6" "v6" "#4", "v7" "v7" "#4"),
            each!("mul": "v0" "v0" "v20.16b", "v1" "v1" "v21.16b", "v2" "v2" "v22.16b", "v3" "v3" "v23.16b"),
            each!("mul": "v4" "v4" "v20.16b", "v5" "v5" "v21.16b", "v6" "v6" "v22.16b", "v7" "v7" "v23.16b"),
            "st1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{room}], #64",
            "st1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{room}], #64",
            "b.ne 3b",
            "cbnz {left}, 2b",
            multipliers = inout(reg) panel.multipliers => _,
            packed = inout(reg) panel.packed => _,
            room = inout(reg) room => _,
            left = inout(reg) panel.panel.inputs => _,
            group = in(reg) panel.group_inputs,
            inputs = out(reg) _,
            low_half = in(vreg) vdupq_n_u8(0xf),
            first = in(vreg) vld1q_u8(FOUR_TIMES.as_ptr()),
            second = in(vreg) vld1q_u8(FOUR_TIMES.as_ptr().add(16)),
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
            options(nostack),
        );
    }
    Panel { weights: room, ..panel.panel }
}
