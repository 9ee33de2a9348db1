//! Four rows side by side times int4 weights on cores without `SDOT`, two rows x 16 outputs at a time.
//!
//! What is read for 4 inputs, 2 rows and 16 outputs is two loads: `LD4R` spreads pairs of inputs, so that a register of weights
//! has 2 inputs of 8 outputs. A panel is laid out that way, once for all rows, each piece with its multipliers behind it.

use core::arch::aarch64::{
    int32x4_t, vdupq_n_s32, vld1q_u8, vreinterpretq_s16_s8, vst1q_s16, vuzp1q_s16, vuzp2q_s16,
};
use core::arch::asm;

use super::finish::finish_two_rows;
use super::int4::{multipliers_16, steps};
use super::matmul_i4_neon::{PIECE, multiply, stretches};
use crate::arch::int4_panel::Int4Panel;

/// Writes the panel as the kernel below reads it: for each piece `[inputs / 4][2][16][2]` weights and 16 multipliers of two bytes.
///
/// # Safety
/// The panel's invariants; `18 * inputs` bytes may be written at `room`, which stays as it is as long as the result is used.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn lay_out(panel: &Int4Panel<'_>, room: *mut i8) -> *const i8 {
    let mut target = room;
    for group in stretches(panel) {
        for first in (group.first..group.last).step_by(PIECE) {
            let last = group.last.min(first + PIECE);
            // SAFETY: of the panel's `8 * inputs` bytes those of the piece are read, and twice as many are written; its inputs
            // are of one group, which has its multipliers, and 32 bytes more are written.
            unsafe {
                for block in first / 8..last / 8 {
                    lay_out_8(panel.packed.add(64 * block), target.cast());
                    target = target.add(128);
                }
                let group = first / panel.group_inputs;
                for (half, multipliers) in
                    multipliers_16(panel.multipliers.add(8 * group)).into_iter().enumerate()
                {
                    vst1q_s16(target.add(16 * half).cast(), multipliers);
                }
                target = target.add(32);
            }
        }
    }
    room
}

/// 8 inputs of 16 outputs.
///
/// # Safety
/// 64 bytes must be readable at `packed`; 128 may be written at `target`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn lay_out_8(packed: *const u8, target: *mut i16) {
    for half in 0..2 {
        // SAFETY: the caller's.
        unsafe {
            let [first, second] = [0, 16].map(|offset| vld1q_u8(packed.add(32 * half + offset)));
            for (four, (first, second)) in steps(first).into_iter().zip(steps(second)).enumerate() {
                let (first, second) = (vreinterpretq_s16_s8(first), vreinterpretq_s16_s8(second));
                let target = target.add(32 * four + 8 * half);
                vst1q_s16(target, vuzp1q_s16(first, second));
                vst1q_s16(target.add(16), vuzp2q_s16(first, second));
            }
        }
    }
}

/// All fours of rows x 16 outputs, of a panel that `lay_out` has written to `weights`.
///
/// # Safety
/// The panel's invariants.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn multiply_quads(panel: &Int4Panel<'_>, weights: *const i8) {
    for row in (0..panel.panel.rows / 4 * 4).step_by(2) {
        // SAFETY: both rows exist, as the first or the second two of four.
        unsafe { tile(panel, weights, row) }
    }
}

/// Loads 4 inputs of two rows, and their weights.
macro_rules! load {
    ($x0:literal $x1:literal $x2:literal $x3:literal, $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "ld4r {{", $x0, ".8h, ", $x1, ".8h, ", $x2, ".8h, ", $x3, ".8h}}, [{values}], {quad}\n",
            "ld1 {{", $w0, ".16b, ", $w1, ".16b, ", $w2, ".16b, ", $w3, ".16b}}, [{weights}], #64\n",
        )
    };
    (even) => { load!("v0" "v1" "v2" "v3", "v16" "v17" "v18" "v19") };
    (odd) => { load!("v4" "v5" "v6" "v7", "v20" "v21" "v22" "v23") };
}

/// 4 inputs of two rows x 16 outputs.
macro_rules! multiply_4 {
    ($first:literal even) => { multiply_4!($first: "v0" "v1" "v2" "v3", "v16" "v17" "v18" "v19") };
    ($first:literal odd) => { multiply_4!($first: "v4" "v5" "v6" "v7", "v20" "v21" "v22" "v23") };
    ($first:literal: $x0:literal $x1:literal $x2:literal $x3:literal, $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            multiply!($first: a b $w0 $x0, c d $w1 $x0, e f $w0 $x2, g h $w1 $x2),
            multiply!("smlal": a b $w2 $x1, c d $w3 $x1, e f $w2 $x3, g h $w3 $x3),
        )
    };
}

/// 16 inputs of two rows x 16 outputs: what is loaded is used four inputs later.
macro_rules! multiply_16 {
    ($first:literal) => {
        concat!(
            load!(even), load!(odd),
            multiply_4!($first even), load!(even), multiply_4!("smlal" odd), load!(odd),
            multiply_4!("smlal" even), multiply_4!("smlal" odd),
        )
    };
}

/// Two rows of four x 16 outputs.
///
/// # Safety
/// The panel's invariants, and what `lay_out` has written at `weights`; both rows, from `row`, an even number, on, must be of four.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile(panel: &Int4Panel<'_>, weights: *const i8, row: usize) {
    let (mut values, mut weights) =
        (panel.panel.values.wrapping_add(row / 4 * 4 * panel.panel.inputs + row % 4 * 4), weights);
    let mut totals = [[vdupq_n_s32(0); 4]; 2];
    // SAFETY: each time 4 inputs of four rows go by, of which two rows are read, as many as there are; of the weights as many
    // bytes are read as were written. The rows exist.
    unsafe {
        for stretch in stretches(panel) {
            (values, weights) = add(&mut totals, values, weights, (stretch.last - stretch.first) / 16);
        }
        finish_two_rows(&panel.panel, row, totals);
    }
}

/// Adds `blocks` times 16 inputs of two rows, and returns where the next are.
///
/// # Safety
/// `values` must be the first or the second two of four rows, so many inputs wide, and `weights` what `lay_out` has written.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add(
    totals: &mut [[int32x4_t; 4]; 2],
    mut values: *const i8,
    mut weights: *const i8,
    blocks: usize,
) -> (*const i8, *const i8) {
    let [[mut p, mut q, mut r, mut s], [mut t, mut u, mut v, mut w]] = *totals;
    // SAFETY: the caller's. Sums of products are all that is computed.
    unsafe {
        asm!(
            "2:",
            multiply_16!("smull"),
            // Below zero where there are no 16 inputs more, above where there are more than 16.
            "subs {blocks}, {blocks}, #2",
            "b.mi 3f",
            multiply_16!("smlal"),
            "3:",
            "ldp q0, q1, [{weights}], #32",
            "addp {a:v}.8h, {a:v}.8h, {b:v}.8h", "addp {c:v}.8h, {c:v}.8h, {d:v}.8h",
            "addp {e:v}.8h, {e:v}.8h, {f:v}.8h", "addp {g:v}.8h, {g:v}.8h, {h:v}.8h",
            "smlal {p:v}.4s, {a:v}.4h, v0.4h", "smlal2 {q:v}.4s, {a:v}.8h, v0.8h",
            "smlal {r:v}.4s, {c:v}.4h, v1.4h", "smlal2 {s:v}.4s, {c:v}.8h, v1.8h",
            "smlal {t:v}.4s, {e:v}.4h, v0.4h", "smlal2 {u:v}.4s, {e:v}.8h, v0.8h",
            "smlal {v:v}.4s, {g:v}.4h, v1.4h", "smlal2 {w:v}.4s, {g:v}.8h, v1.8h",
            "b.gt 2b",
            values = inout(reg) values,
            weights = inout(reg) weights,
            blocks = inout(reg) blocks => _,
            quad = in(reg) 16_usize,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            p = inout(vreg) p, q = inout(vreg) q, r = inout(vreg) r, s = inout(vreg) s,
            t = inout(vreg) t, u = inout(vreg) u, v = inout(vreg) v, w = inout(vreg) w,
            options(nostack, readonly),
        );
    }
    *totals = [[p, q, r, s], [t, u, v, w]];
    (values, weights)
}
