//! Int4 matrix product for cores without `SDOT`.
//!
//! Weights become int8, -8 to 7, without their multipliers: 32 products with a row's values, at most 127 in magnitude, fit an
//! int16 sum, as 32 * 8 * 127 < 32768. So inputs go by in pieces of 32: `SMLAL` alone makes the int16 sums of a piece, `ADDP`
//! joins those of an output, and they are multiplied by the output's multiplier into int32.

use core::arch::aarch64::{int32x4_t, vdupq_n_s32, vdupq_n_u16};
use core::arch::asm;

use kinglet_model_format::Int4Matrix;

use super::finish::finish_row;
use super::matmul_i4_neon_rows::{self as wide, multiply_rows, widen_rows};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Inputs whose products fit an int16 sum.
pub(super) const PIECE: usize = 32;

/// Rows in fours take a panel that is laid out for all of them in `room`, behind which are these rows as int16; the 1 to 3 behind
/// them, in plain order, take the weights as they are.
///
/// `room` has as many bytes for each input as [`wide::room`] says where there are four rows.
#[target_feature(enable = "neon")]
pub(super) fn matmul_i4_block16x4_neon<'a>(matmul: Matmul<'a, Int4Matrix<'a>>, room: &mut [i8]) {
    let rows = matmul.rows.rows();
    let inputs = matmul.rows.padded_inputs();
    let quad_rows = rows / 4 * 4;
    let weights = room.as_mut_ptr();
    let values = weights.wrapping_add(wide::room(0) * inputs);
    // SAFETY: with four rows the room is large enough.
    unsafe { widen_rows(matmul.rows.values().as_ptr(), quad_rows, inputs, values) }
    for panel in matmul.panels() {
        // SAFETY: the panel's own invariants; with four rows the room is large enough; the rows behind stand in plain order.
        unsafe {
            if quad_rows > 0 {
                multiply_rows(&panel, values, weights);
            }
            for row in quad_rows..rows {
                multiply_row(&panel, row);
            }
        }
    }
}

/// Inputs of a stretch.
#[inline(always)]
pub(super) fn stretch(panel: &Int4Panel<'_>) -> usize {
    if panel.group_inputs.is_multiple_of(PIECE) { panel.panel.inputs } else { panel.group_inputs }
}

/// Stretches of inputs, each cut into pieces of 32 and perhaps one of 16 at its end: a group or several, so that no piece has
/// inputs of two.
#[inline(always)]
pub(super) fn stretches(panel: &Int4Panel<'_>) -> impl Iterator<Item = Group> + use<> {
    panel.cut(stretch(panel))
}

/// Sums of int16, in two registers, of one more register of weights each.
macro_rules! multiply {
    ($name:literal: $($low:ident $high:ident $weights:literal $x:literal),+) => {
        concat!($(
            $name, " {", stringify!($low), ":v}.8h, ", $weights, ".8b, ", $x, ".8b\n",
            $name, "2 {", stringify!($high), ":v}.8h, ", $weights, ".16b, ", $x, ".16b\n",
        )+)
    };
}

/// 8 inputs, in `$x` and `$y`, x 16 outputs: registers of weights are unpacked in two, the first by way of another.
macro_rules! multiply_8 {
    ($name:literal $x:literal $y:literal: $($weights:literal $other:literal),+) => {
        concat!(
            $("shl ", $other, ".16b, ", $weights, ".16b, #4\n",)+
            $("sshr ", $other, ".16b, ", $other, ".16b, #4\n",)+
            multiply_8!(@ $name $x: $($other)+),
            $("sshr ", $weights, ".16b, ", $weights, ".16b, #4\n",)+
            multiply_8!(@ "smlal" $y: $($weights)+),
        )
    };
    (@ $name:literal $x:literal: $w0:literal $w1:literal $w2:literal $w3:literal) => {
        multiply!($name: a b $w0 $x, c d $w1 $x, e f $w2 $x, g h $w3 $x)
    };
}

/// 16 inputs x 16 outputs.
macro_rules! multiply_16 {
    ($first:literal) => {
        concat!(
            "ld1 {{v4.16b, v5.16b, v6.16b, v7.16b}}, [{weights}], #64\n",
            "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{values}], #16\n",
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{weights}], #64\n",
            multiply_8!($first "v0" "v1": "v4" "v20", "v5" "v21", "v6" "v22", "v7" "v23"),
            multiply_8!("smlal" "v2" "v3": "v16" "v20", "v17" "v21", "v18" "v22", "v19" "v23"),
        )
    };
}

/// One row x 16 outputs.
///
/// # Safety
/// The panel's invariants; the row must exist, in plain order.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply_row(panel: &Int4Panel<'_>, row: usize) {
    let mut totals = [vdupq_n_s32(0); 4];
    // Where groups are pieces, each has its multipliers; otherwise all pieces of a group have the same.
    let (stretch, step) = match panel.group_inputs {
        PIECE => (panel.panel.inputs, 8),
        inputs => (inputs, 0),
    };
    // SAFETY: the row exists; the group is the panel's.
    unsafe {
        for group in panel.cut(stretch) {
            add_row(&mut totals, panel, row, &group, step);
        }
        finish_row(&panel.panel, row, 0, totals);
    }
}

/// Adds a group, or several of 32 inputs, whose multipliers are `step` bytes apart.
///
/// # Safety
/// The row must exist, in plain order, the inputs be the panel's, and the multipliers there.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_row(
    totals: &mut [int32x4_t; 4],
    panel: &Int4Panel<'_>,
    row: usize,
    group: &Group,
    step: usize,
) {
    let [mut t, mut u, mut v, mut w] = *totals;
    // SAFETY: the row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read, 16 inputs at least; 8 bytes of
    // multipliers are read for each piece. Sums of products are all that is computed.
    unsafe {
        asm!(
            "2:",
            multiply_16!("smull"),
            // Below zero where there are no 16 inputs more, above where there are more than 16.
            "subs {blocks}, {blocks}, #2",
            "b.mi 3f",
            multiply_16!("smlal"),
            "3:",
            "ld1 {{v4.8b}}, [{multipliers}], {step}",
            "addp {a:v}.8h, {a:v}.8h, {b:v}.8h", "addp {c:v}.8h, {c:v}.8h, {d:v}.8h",
            "addp {e:v}.8h, {e:v}.8h, {f:v}.8h", "addp {g:v}.8h, {g:v}.8h, {h:v}.8h",
            "ushll v4.8h, v4.8b, #0",
            "addp {a:v}.8h, {a:v}.8h, {c:v}.8h",
            "and v5.16b, v4.16b, {mask:v}.16b",
            "addp {e:v}.8h, {e:v}.8h, {g:v}.8h",
            "ushr v4.8h, v4.8h, #4",
            "smlal {t:v}.4s, {a:v}.4h, v5.4h", "smlal2 {u:v}.4s, {a:v}.8h, v5.8h",
            "smlal {v:v}.4s, {e:v}.4h, v4.4h", "smlal2 {w:v}.4s, {e:v}.8h, v4.8h",
            "b.gt 2b",
            values = inout(reg) panel.panel.values.add(row * panel.panel.inputs + group.first) => _,
            weights = inout(reg) panel.packed.add(8 * group.first) => _,
            multipliers = inout(reg) panel.multipliers.add(8 * group.index) => _,
            step = in(reg) step,
            blocks = inout(reg) (group.last - group.first) / 16 => _,
            mask = in(vreg) vdupq_n_u16(0xf),
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            t = inout(vreg) t, u = inout(vreg) u, v = inout(vreg) v, w = inout(vreg) w,
            options(nostack, readonly),
        );
    }
    *totals = [t, u, v, w];
}
