//! Few rows times int4 weights with `SDOT`: weights become int8, 16 times as large, in registers.

use core::arch::aarch64::{
    int8x16_t, int32x4_t, vandq_s8, vdupq_n_s8, vdupq_n_s32, vld1q_s8, vld1q_u8, vreinterpretq_s8_u8,
    vshlq_n_s8,
};
use core::arch::asm;

use super::finish::finish_row;
use super::int4::{add_group, multipliers_32};
use crate::arch::int4_panel::{Group, Int4Panel};

/// All rows, 1 to 3, together.
///
/// # Safety
/// The panel's invariants.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn few_rows(panel: &Int4Panel<'_>) {
    // SAFETY: the panel has these rows.
    unsafe {
        match panel.panel.rows {
            1 => tile::<1>(panel),
            2 => tile::<2>(panel),
            _ => tile::<3>(panel),
        }
    }
}

/// `ROWS` rows, which are all, x 16 outputs.
///
/// # Safety
/// The panel must have so many rows, in plain order.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile<const ROWS: usize>(panel: &Int4Panel<'_>) {
    let mut totals = [[vdupq_n_s32(0); 4]; ROWS];
    // SAFETY: the rows exist; the group is the panel's.
    unsafe {
        for group in panel.groups() {
            let sums = group_sums::<ROWS>(panel, &group);
            let multipliers = multipliers_32(panel.multipliers.add(8 * group.index));
            for (totals, sums) in totals.iter_mut().zip(&sums) {
                for vector in 0..4 {
                    totals[vector] = add_group(totals[vector], sums[vector], multipliers[vector]);
                }
            }
        }
        for (row, totals) in totals.into_iter().enumerate() {
            finish_row(&panel.panel, row, 0, totals);
        }
    }
}

/// 16 times the sums of one group.
///
/// # Safety
/// The panel must have so many rows, in plain order, and the group be one of its own.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group_sums<const ROWS: usize>(panel: &Int4Panel<'_>, group: &Group) -> [[int32x4_t; 4]; ROWS] {
    let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
    // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
    unsafe {
        let weights = panel.packed.add(group.first * 8);
        let blocks = (group.last - group.first) / 16;
        let values = panel.panel.values.add(group.first);
        match ROWS {
            1 => sums[0] = row_sums(values, weights, blocks),
            _ => add_rows(&mut sums, values, panel.panel.inputs, weights, blocks),
        }
    }
    sums
}

/// 8 inputs x 16 outputs of one row, in quarters `$q0` and `$q1` of `$x`: each register of weights unpacked in two.
macro_rules! multiply_8 {
    ($x:literal $q0:literal $q1:literal: $($weights:literal $low:literal $sum:literal),+) => {
        concat!(
            $("shl ", $low, ".16b, ", $weights, ".16b, #4\n",)+
            $("and ", $weights, ".16b, ", $weights, ".16b, {mask:v}.16b\n",)+
            $("sdot {", $sum, ":v}.4s, ", $low, ".16b, ", $x, ".4b[", $q0, "]\n",)+
            $("sdot {", $sum, ":v}.4s, ", $weights, ".16b, ", $x, ".4b[", $q1, "]\n",)+
        )
    };
}

/// 16 inputs, in `$x`, x 16 outputs.
macro_rules! multiply_16 {
    ($x:literal) => {
        concat!(
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{weights}], #64\n",
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{weights}], #64\n",
            multiply_8!($x 0 1: "v0" "v18" "a", "v1" "v19" "b", "v2" "v20" "c", "v3" "v21" "d"),
            multiply_8!($x 2 3: "v4" "v18" "a", "v5" "v19" "b", "v6" "v20" "c", "v7" "v21" "d"),
        )
    };
}

pub(super) use {multiply_8, multiply_16};

/// 16 times the sums of one row over `blocks` times 16 inputs.
///
/// # Safety
/// `16 * blocks` bytes must be readable at `values`, `128 * blocks` at `weights`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn row_sums(values: *const i8, weights: *const u8, blocks: usize) -> [int32x4_t; 4] {
    let zero = vdupq_n_s32(0);
    let (a, b, c, d);
    // SAFETY: the caller's. Sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "tbz {blocks}, #0, 2f",
            "ldr q16, [{values}], #16",
            multiply_16!("v16"),
            "2:",
            "lsr {blocks}, {blocks}, #1",
            "cbz {blocks}, 4f",
            "3:",
            "ldp q16, q17, [{values}], #32",
            multiply_16!("v16"),
            "subs {blocks}, {blocks}, #1",
            multiply_16!("v17"),
            "b.ne 3b",
            "4:",
            values = inout(reg) values => _,
            weights = inout(reg) weights => _,
            blocks = inout(reg) blocks => _,
            mask = in(vreg) vdupq_n_s8(0xf0_u8 as i8),
            a = inout(vreg) zero => a, b = inout(vreg) zero => b,
            c = inout(vreg) zero => c, d = inout(vreg) zero => d,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            options(nostack, readonly),
        );
    }
    [a, b, c, d]
}

/// Adds `blocks` times 16 inputs of rows in plain order.
///
/// # Safety
/// `16 * blocks` bytes of each row must be readable at `values`, the rows `stride` apart, and `128 * blocks` at `weights`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn add_rows<const ROWS: usize>(
    sums: &mut [[int32x4_t; 4]; ROWS],
    values: *const i8,
    stride: usize,
    weights: *const u8,
    blocks: usize,
) {
    for block in 0..blocks {
        // SAFETY: the caller's.
        unsafe {
            let (values, weights) = (values.add(16 * block), weights.add(128 * block));
            let mut inputs = [vld1q_s8(values); ROWS];
            for (row, inputs) in inputs.iter_mut().enumerate().skip(1) {
                *inputs = vld1q_s8(values.add(row * stride));
            }
            for vector in 0..4 {
                let [first, second] = unpack(weights.add(16 * vector));
                let [third, fourth] = unpack(weights.add(64 + 16 * vector));
                for (sums, &inputs) in sums.iter_mut().zip(&inputs) {
                    let half = sdot::<1>(sdot::<0>(sums[vector], first, inputs), second, inputs);
                    sums[vector] = sdot::<3>(sdot::<2>(half, third, inputs), fourth, inputs);
                }
            }
        }
    }
}

/// 16 bytes of packed weights as two registers of weights 16 times as large: inputs 0 to 3, and 4 to 7, of 4 outputs.
///
/// # Safety
/// 16 bytes must be readable at `packed`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn unpack(packed: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller's.
    let packed = vreinterpretq_s8_u8(unsafe { vld1q_u8(packed) });
    [vshlq_n_s8::<4>(packed), vandq_s8(packed, vdupq_n_s8(0xf0_u8 as i8))]
}

/// 4 outputs x 4 inputs of weights times the 4 values in quarter `QUARTER` of `inputs`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot<const QUARTER: i32>(mut sums: int32x4_t, weights: int8x16_t, inputs: int8x16_t) -> int32x4_t {
    // SAFETY: sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {inputs:v}.4b[{quarter}]",
            sums = inout(vreg) sums, weights = in(vreg) weights, inputs = in(vreg) inputs, quarter = const QUARTER,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
