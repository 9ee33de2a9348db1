//! Int8 matrix product with `SMMLA`: 2 rows x 8 inputs times 2 outputs x 8 inputs, 32 products.
//!
//! `ZIP1` and `ZIP2` of two neighbouring blocks, as 32-bit lanes, give operands of 2 outputs x 8 inputs, and those of
//! the same inputs of four rows operands of 2 rows x 8 inputs. The 1 to 3 rows behind the last four take the `SDOT` kernel.

use core::arch::aarch64::{int32x4_t, vdupq_n_s32};
use core::arch::asm;

use super::finish::{finish_row, split};
use super::matmul_i8_dotprod::{matmul_i8_block16x4_dotprod, tile_rest};
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// Up to 12 rows x 8 outputs at a time: 24 accumulators.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn matmul_i8_block16x4_i8mm(matmul: Matmul<'_>) {
    if matmul.rows.rows() < 4 {
        return matmul_i8_block16x4_dotprod(matmul);
    }
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
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn multiply_panel(panel: &Panel<'_>) {
    let quad_rows = panel.rows / 4 * 4;
    // SAFETY: each tile ends at or before the last four rows, `half + 8 <= 16`; the others stand in plain order.
    unsafe {
        for half in [0, 8] {
            let mut row = 0;
            while quad_rows - row >= 12 {
                tile_3_quads(panel, row, half);
                row += 12;
            }
            match quad_rows - row {
                8 => tile_2_quads(panel, row, half),
                4 => tile_1_quad(panel, row, half),
                _ => {}
            }
        }
        tile_rest(panel, quad_rows);
    }
}

/// Stores four rows: each vector of sums is 2 rows x 2 outputs, first those of the first two rows.
///
/// # Safety
/// Four rows from `row` on must exist; `first + 8 <= 16`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_quad(panel: &Panel<'_>, row: usize, first: usize, [a, b, c, d, e, f, g, h]: [int32x4_t; 8]) {
    let ([r0, r1], [s0, s1]) = (split(a, b), split(c, d));
    let ([r2, r3], [s2, s3]) = (split(e, f), split(g, h));
    // SAFETY: the caller's.
    unsafe {
        finish_row(panel, row, first, [r0, s0]);
        finish_row(panel, row + 1, first, [r1, s1]);
        finish_row(panel, row + 2, first, [r2, s2]);
        finish_row(panel, row + 3, first, [r3, s3]);
    }
}

/// Four rows times 8 outputs x 8 inputs.
macro_rules! multiply {
    ($pointer:ident $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        concat!(
            "ldp {v0:q}, {v1:q}, [{", stringify!($pointer), "}], #32\n",
            "zip1 {v2:v}.4s, {v0:v}.4s, {v1:v}.4s\n",
            "zip2 {v3:v}.4s, {v0:v}.4s, {v1:v}.4s\n",
            multiply!(@ "v2": $a "w0", $b "w1", $c "w2", $d "w3"),
            multiply!(@ "v3": $e "w0", $f "w1", $g "w2", $h "w3"),
        )
    };
    (@ $x:literal: $($sum:ident $weights:literal),+) => {
        concat!($("smmla {", stringify!($sum), ":v}.4s, {", $x, ":v}.16b, {", $weights, ":v}.16b\n"),+)
    };
}

/// 8 outputs x 8 inputs, for all rows of a tile.
macro_rules! step {
    ($([$($operand:ident)+])+) => {
        concat!(
            "ldp {v0:q}, {v1:q}, [{weights}], #128\n",
            "ldp {v2:q}, {v3:q}, [{weights}, #-64]\n",
            "zip1 {w0:v}.4s, {v0:v}.4s, {v2:v}.4s\n",
            "zip2 {w1:v}.4s, {v0:v}.4s, {v2:v}.4s\n",
            "zip1 {w2:v}.4s, {v1:v}.4s, {v3:v}.4s\n",
            "zip2 {w3:v}.4s, {v1:v}.4s, {v3:v}.4s\n",
            $(multiply!($($operand)+)),+
        )
    };
}

/// A function for some number of fours of rows. Each: its number, its pointer, its eight accumulators.
macro_rules! tile {
    ($name:ident: $($number:literal $pointer:ident $a:ident $b:ident $c:ident $d:ident
        $e:ident $f:ident $g:ident $h:ident),+) => {
        /// # Safety
        /// The rows from `row`, a multiple of 4, on must exist; `first` must be 0 or 8.
        #[inline]
        #[target_feature(enable = "neon,i8mm")]
        unsafe fn $name(panel: &Panel<'_>, row: usize, first: usize) {
            let zero = vdupq_n_s32(0);
            $(let ($a, $b, $c, $d, $e, $f, $g, $h);)+
            // SAFETY: `4 * inputs` bytes are read of each four rows, where `inputs` is a multiple of 16 and not zero,
            // and of each block of weights 8 outputs from `first` on. Sums of products of int8 are all that is
            // computed. The rows given to `finish_quad` exist.
            unsafe {
                let values = panel.values.add(row * panel.inputs);
                asm!(
                    "2:",
                    step!($([$pointer $a $b $c $d $e $f $g $h])+),
                    "subs {left}, {left}, #16",
                    step!($([$pointer $a $b $c $d $e $f $g $h])+),
                    "b.ne 2b",
                    $($pointer = inout(reg) values.add(4 * $number * panel.inputs) => _,)+
                    weights = inout(reg) panel.weights.add(4 * first) => _,
                    left = inout(reg) panel.inputs => _,
                    v0 = out(vreg) _, v1 = out(vreg) _, v2 = out(vreg) _, v3 = out(vreg) _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                    $($a = inout(vreg) zero => $a, $b = inout(vreg) zero => $b,
                      $c = inout(vreg) zero => $c, $d = inout(vreg) zero => $d,
                      $e = inout(vreg) zero => $e, $f = inout(vreg) zero => $f,
                      $g = inout(vreg) zero => $g, $h = inout(vreg) zero => $h,)+
                    options(nostack, readonly),
                );
                $(finish_quad(panel, row + 4 * $number, first, [$a, $b, $c, $d, $e, $f, $g, $h]);)+
            }
        }
    };
}

tile!(tile_1_quad: 0 pointer0 a0 b0 c0 d0 e0 f0 g0 h0);
tile!(tile_2_quads: 0 pointer0 a0 b0 c0 d0 e0 f0 g0 h0, 1 pointer1 a1 b1 c1 d1 e1 f1 g1 h1);
tile!(tile_3_quads: 0 pointer0 a0 b0 c0 d0 e0 f0 g0 h0, 1 pointer1 a1 b1 c1 d1 e1 f1 g1 h1,
    2 pointer2 a2 b2 c2 d2 e2 f2 g2 h2);
