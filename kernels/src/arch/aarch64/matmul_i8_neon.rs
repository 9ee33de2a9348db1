//! Int8 matrix product for cores without `SDOT`.
//!
//! Two products of int8 fit an int16 sum, as rows hold at most 127 in magnitude: 2 * 127 * 128 < 32768. So
//! `SMULL` of one block and `SMLAL` of the next share a register before `SADALP` adds pairs of neighbours
//! into int32. Each accumulator holds two partial sums of each of two outputs; `ADDP` joins them at the end.

use core::arch::aarch64::{vdupq_n_s32, vpaddq_s32};
use core::arch::asm;

use super::finish::finish_row;
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// 4 rows x 8 outputs at a time: 16 accumulators, 4 registers of weights, 8 of rows, 4 of int16 sums. Each of the 1 to 3
/// rows behind them, in plain order, alone.
#[target_feature(enable = "neon")]
pub(super) fn matmul_i8_block16x4_neon(matmul: Matmul<'_>) {
    for panel in matmul.panels() {
        // SAFETY: the panel's own invariants.
        unsafe { multiply_panel(&panel) }
    }
}

/// All rows x 16 outputs.
///
/// # Safety
/// The panel's invariants.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn multiply_panel(panel: &Panel<'_>) {
    let quad_rows = panel.rows / 4 * 4;
    // SAFETY: four rows, as long as there are four, then each row behind them; `half + 8 <= 16`.
    unsafe {
        for half in [0, 8] {
            for row in (0..quad_rows).step_by(4) {
                tile_quad(panel, row, half);
            }
        }
        for row in quad_rows..panel.rows {
            tile_row(panel, row);
        }
    }
}

/// 8 outputs x 8 inputs of one row: `w0 w1` from one block and `w2 w3` from the next, `$x $y` the inputs of each.
macro_rules! multiply {
    ($x:ident $y:ident, $p:ident $q:ident $r:ident $s:ident) => {
        concat!(
            multiply!(@ "smull", $p, "w0", $x, ".8b"), multiply!(@ "smull2", $q, "w0", $x, ".16b"),
            multiply!(@ "smull", $r, "w1", $x, ".8b"), multiply!(@ "smull2", $s, "w1", $x, ".16b"),
            multiply!(@ "smlal", $p, "w2", $y, ".8b"), multiply!(@ "smlal2", $q, "w2", $y, ".16b"),
            multiply!(@ "smlal", $r, "w3", $y, ".8b"), multiply!(@ "smlal2", $s, "w3", $y, ".16b"),
        )
    };
    (@ $name:literal, $sum:ident, $weights:literal, $x:ident, $half:literal) => {
        concat!($name, " {", stringify!($sum), ":v}.8h, {", $weights, ":v}", $half, ", {", stringify!($x), ":v}", $half, "\n")
    };
}

/// Four int16 sums into four accumulators.
macro_rules! widen {
    ($($sum:ident $product:ident),+) => {
        concat!($("sadalp {", stringify!($sum), ":v}.4s, {", stringify!($product), ":v}.8h\n"),+)
    };
}

/// One row x 16 outputs.
///
/// # Safety
/// The row must exist and stand in plain order.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile_row(panel: &Panel<'_>, row: usize) {
    let zero = vdupq_n_s32(0);
    let (a, b, c, d, e, f, g, h);
    // SAFETY: `inputs`, a multiple of 16 and not zero, bytes are read of the row, which exists, and 16 times as many
    // of the weights. Sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "2:",
            "ldp {w0:q}, {w1:q}, [{weights}], #256",
            "ld1r {{{x:v}.4s}}, [{values}], #4",
            "ld1r {{{y:v}.4s}}, [{values}], #4",
            "ldp {w2:q}, {w3:q}, [{weights}, #-192]",
            multiply!(x y, p q r s),
            "ldp {w0:q}, {w1:q}, [{weights}, #-224]",
            "ldp {w2:q}, {w3:q}, [{weights}, #-160]",
            widen!(a p, b q, c r, d s),
            multiply!(x y, p q r s),
            "ldp {w0:q}, {w1:q}, [{weights}, #-128]",
            "ld1r {{{x:v}.4s}}, [{values}], #4",
            "ld1r {{{y:v}.4s}}, [{values}], #4",
            "ldp {w2:q}, {w3:q}, [{weights}, #-64]",
            widen!(e p, f q, g r, h s),
            multiply!(x y, p q r s),
            "ldp {w0:q}, {w1:q}, [{weights}, #-96]",
            "ldp {w2:q}, {w3:q}, [{weights}, #-32]",
            widen!(a p, b q, c r, d s),
            multiply!(x y, p q r s),
            "subs {left}, {left}, #16",
            widen!(e p, f q, g r, h s),
            "b.ne 2b",
            values = inout(reg) panel.values.add(row * panel.inputs) => _,
            weights = inout(reg) panel.weights => _,
            left = inout(reg) panel.inputs => _,
            w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
            x = out(vreg) _, y = out(vreg) _,
            p = out(vreg) _, q = out(vreg) _, r = out(vreg) _, s = out(vreg) _,
            a = inout(vreg) zero => a, b = inout(vreg) zero => b, c = inout(vreg) zero => c, d = inout(vreg) zero => d,
            e = inout(vreg) zero => e, f = inout(vreg) zero => f, g = inout(vreg) zero => g, h = inout(vreg) zero => h,
            options(nostack, readonly),
        );
        let sums = [vpaddq_s32(a, b), vpaddq_s32(c, d), vpaddq_s32(e, f), vpaddq_s32(g, h)];
        finish_row(panel, row, 0, sums);
    }
}

/// 8 outputs x 8 inputs of four rows side by side: w0 w1 from one block and w2 w3 from the next.
macro_rules! multiply_quad {
    () => {
        concat!(
            "ldp {w0:q}, {w1:q}, [{weights}], #128\n",
            "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{values}], #16\n",
            "ldp {w2:q}, {w3:q}, [{weights}, #-64]\n",
            "ld4r {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{values}], #16\n",
            multiply_quad!("v0" "v4": a0 b0 c0 d0),
            multiply_quad!("v1" "v5": a1 b1 c1 d1),
            multiply_quad!("v2" "v6": a2 b2 c2 d2),
            multiply_quad!("v3" "v7": a3 b3 c3 d3),
        )
    };
    ($x:literal $y:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            "smull {p:v}.8h, {w0:v}.8b, ", $x, ".8b\n", "smull2 {q:v}.8h, {w0:v}.16b, ", $x, ".16b\n",
            "smull {r:v}.8h, {w1:v}.8b, ", $x, ".8b\n", "smull2 {s:v}.8h, {w1:v}.16b, ", $x, ".16b\n",
            "smlal {p:v}.8h, {w2:v}.8b, ", $y, ".8b\n", "smlal2 {q:v}.8h, {w2:v}.16b, ", $y, ".16b\n",
            "smlal {r:v}.8h, {w3:v}.8b, ", $y, ".8b\n", "smlal2 {s:v}.8h, {w3:v}.16b, ", $y, ".16b\n",
            widen!($a p, $b q, $c r, $d s),
        )
    };
}

/// Four rows side by side x 8 outputs.
///
/// # Safety
/// The rows from `row`, a multiple of 4, on must exist; `first` must be 0 or 8.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile_quad(panel: &Panel<'_>, row: usize, first: usize) {
    let zero = vdupq_n_s32(0);
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    // SAFETY: `4 * inputs`, a multiple of 64 and not zero, bytes are read of the rows, which exist, and of each block
    // of weights 8 outputs from `first` on. Sums of products of int8 are all that is computed.
    unsafe {
        asm!(
            "2:",
            multiply_quad!(),
            "subs {left}, {left}, #16",
            multiply_quad!(),
            "b.ne 2b",
            values = inout(reg) panel.values.add(row * panel.inputs) => _,
            weights = inout(reg) panel.weights.add(4 * first) => _,
            left = inout(reg) panel.inputs => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
            p = out(vreg) _, q = out(vreg) _, r = out(vreg) _, s = out(vreg) _,
            a0 = inout(vreg) zero => a0, b0 = inout(vreg) zero => b0, c0 = inout(vreg) zero => c0, d0 = inout(vreg) zero => d0,
            a1 = inout(vreg) zero => a1, b1 = inout(vreg) zero => b1, c1 = inout(vreg) zero => c1, d1 = inout(vreg) zero => d1,
            a2 = inout(vreg) zero => a2, b2 = inout(vreg) zero => b2, c2 = inout(vreg) zero => c2, d2 = inout(vreg) zero => d2,
            a3 = inout(vreg) zero => a3, b3 = inout(vreg) zero => b3, c3 = inout(vreg) zero => c3, d3 = inout(vreg) zero => d3,
            options(nostack, readonly),
        );
        finish_row(panel, row, first, [vpaddq_s32(a0, b0), vpaddq_s32(c0, d0)]);
        finish_row(panel, row + 1, first, [vpaddq_s32(a1, b1), vpaddq_s32(c1, d1)]);
        finish_row(panel, row + 2, first, [vpaddq_s32(a2, b2), vpaddq_s32(c2, d2)]);
        finish_row(panel, row + 3, first, [vpaddq_s32(a3, b3), vpaddq_s32(c3, d3)]);
    }
}
