//! Int8 matrix product for cores without `SDOT`.
//!
//! Two products of int8 fit an int16 sum, as rows hold at most 127 in magnitude: 2 * 127 * 128 < 32768. So
//! `SMULL` of one block and `SMLAL` of the next share a register before `SADALP` adds pairs of neighbours
//! into int32. Each accumulator holds two partial sums of each of two outputs; `ADDP` joins them at the end.

use core::arch::aarch64::{int32x4_t, vdupq_n_s32, vpaddq_s32};
use core::arch::asm;

use super::finish::finish_row;
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// Two rows at a time: 16 accumulators, 4 registers of weights, 4 of rows, 8 of int16 sums.
#[target_feature(enable = "neon")]
pub(super) fn matmul_i8_block16x4_neon(matmul: Matmul<'_>) {
    for panel in matmul.panels() {
        let mut row = 0;
        // SAFETY: each tile ends at or before the last row.
        unsafe {
            while panel.rows - row >= 2 {
                tile_2_rows(&panel, row);
                row += 2;
            }
            if row < panel.rows {
                tile_1_row(&panel, row);
            }
        }
    }
}

/// Joins the partial sums.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish(panel: &Panel<'_>, row: usize, [a, b, c, d, e, f, g, h]: [int32x4_t; 8]) {
    let sums = [vpaddq_s32(a, b), vpaddq_s32(c, d), vpaddq_s32(e, f), vpaddq_s32(g, h)];
    // SAFETY: the caller's.
    unsafe { finish_row(panel, row, 0, sums) }
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

/// A function for some number of rows. Each row: its number, its pointer, two registers of inputs, four of
/// products, eight accumulators.
macro_rules! tile {
    ($name:ident: $($number:literal $pointer:ident $x:ident $y:ident [$p:ident $q:ident $r:ident $s:ident]
        [$a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident])+) => {
        /// # Safety
        /// The rows from `row` on must exist.
        #[inline]
        #[target_feature(enable = "neon")]
        unsafe fn $name(panel: &Panel<'_>, row: usize) {
            let zero = vdupq_n_s32(0);
            $(let ($a, $b, $c, $d, $e, $f, $g, $h);)+
            // SAFETY: `inputs`, a multiple of 16 and not zero, bytes are read of each row, which exists, and
            // 16 times as many of the weights. Sums of products of int8 are all that is computed. The rows
            // given to `finish` exist.
            unsafe {
                let values = panel.values.add(row * panel.inputs);
                asm!(
                    "2:",
                    "ldp {w0:q}, {w1:q}, [{weights}], #256",
                    $(concat!("ld1r {{{", stringify!($x), ":v}.4s}}, [{", stringify!($pointer), "}], #4"),
                      concat!("ld1r {{{", stringify!($y), ":v}.4s}}, [{", stringify!($pointer), "}], #4"),)+
                    "ldp {w2:q}, {w3:q}, [{weights}, #-192]",
                    $(multiply!($x $y, $p $q $r $s),)+
                    "ldp {w0:q}, {w1:q}, [{weights}, #-224]",
                    "ldp {w2:q}, {w3:q}, [{weights}, #-160]",
                    $(widen!($a $p, $b $q, $c $r, $d $s),)+
                    $(multiply!($x $y, $p $q $r $s),)+
                    "ldp {w0:q}, {w1:q}, [{weights}, #-128]",
                    $(concat!("ld1r {{{", stringify!($x), ":v}.4s}}, [{", stringify!($pointer), "}], #4"),
                      concat!("ld1r {{{", stringify!($y), ":v}.4s}}, [{", stringify!($pointer), "}], #4"),)+
                    "ldp {w2:q}, {w3:q}, [{weights}, #-64]",
                    $(widen!($e $p, $f $q, $g $r, $h $s),)+
                    $(multiply!($x $y, $p $q $r $s),)+
                    "ldp {w0:q}, {w1:q}, [{weights}, #-96]",
                    "ldp {w2:q}, {w3:q}, [{weights}, #-32]",
                    $(widen!($a $p, $b $q, $c $r, $d $s),)+
                    $(multiply!($x $y, $p $q $r $s),)+
                    "subs {left}, {left}, #16",
                    $(widen!($e $p, $f $q, $g $r, $h $s),)+
                    "b.ne 2b",
                    $($pointer = inout(reg) values.add($number * panel.inputs) => _,)+
                    weights = inout(reg) panel.weights => _,
                    left = inout(reg) panel.inputs => _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                    $($x = out(vreg) _, $y = out(vreg) _,
                      $p = out(vreg) _, $q = out(vreg) _, $r = out(vreg) _, $s = out(vreg) _,
                      $a = inout(vreg) zero => $a, $b = inout(vreg) zero => $b,
                      $c = inout(vreg) zero => $c, $d = inout(vreg) zero => $d,
                      $e = inout(vreg) zero => $e, $f = inout(vreg) zero => $f,
                      $g = inout(vreg) zero => $g, $h = inout(vreg) zero => $h,)+
                    options(nostack, readonly),
                );
                $(finish(panel, row + $number, [$a, $b, $c, $d, $e, $f, $g, $h]);)+
            }
        }
    };
}

tile!(tile_1_row: 0 pointer0 x0 y0 [p0 q0 r0 s0] [a0 b0 c0 d0 e0 f0 g0 h0]);
tile!(tile_2_rows: 0 pointer0 x0 y0 [p0 q0 r0 s0] [a0 b0 c0 d0 e0 f0 g0 h0]
    1 pointer1 x1 y1 [p1 q1 r1 s1] [a1 b1 c1 d1 e1 f1 g1 h1]);
