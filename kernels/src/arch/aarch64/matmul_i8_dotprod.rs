//! Int8 matrix product with `SDOT`: 16 outputs x 4 inputs a block are four operands as they lie.

use core::arch::aarch64::vdupq_n_s32;
use core::arch::asm;

use kinglet_model_format::OUTPUT_BLOCK;

use super::finish::finish_row;
use super::matmul_i8_dotprod_wide as wide;
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// 12 rows at a time, then 4: 16 accumulators, 8 registers of weights, 4 of rows; the 1 to 3 rows behind them together.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn matmul_i8_block16x4_dotprod(matmul: Matmul<'_>) {
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
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn multiply_panel(panel: &Panel<'_>) {
    let quad_rows = panel.rows / 4 * 4;
    // The last panel of a matrix may have fewer outputs: what is written whole does not serve it.
    let tiles = if panel.width == OUTPUT_BLOCK { panel.rows / wide::ROWS } else { 0 };
    let wide_rows = tiles * wide::ROWS;
    // SAFETY: twelve rows and all outputs, then four, as long as there are as many; the rows behind them stand in plain order.
    unsafe {
        // One loop, so that the tile is compiled in once.
        for half in 0..2 * tiles {
            wide::tile(panel, half / 2 * wide::ROWS, half % 2 * (OUTPUT_BLOCK / 2));
        }
        for row in (wide_rows..quad_rows).step_by(4) {
            tile_quad(panel, row);
        }
        tile_rest(panel, quad_rows);
    }
}

/// The 0 to 3 rows from `row` on.
///
/// # Safety
/// `row` is the number of rows rounded down to a multiple of 4.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tile_rest(panel: &Panel<'_>, row: usize) {
    // SAFETY: the rows exist.
    unsafe {
        match panel.rows - row {
            3 => tile_3_rows(panel, row),
            2 => tile_2_rows(panel, row),
            1 => tile_1_row(panel, row),
            _ => {}
        }
    }
}

/// One block of weights times 4 inputs of one row: 64 products.
macro_rules! block {
    ($a:ident $b:ident $c:ident $d:ident, $w0:literal $w1:literal $w2:literal $w3:literal, $x:ident $lane:literal) => {
        concat!(
            block!(@ $a, $w0, $x, $lane), block!(@ $b, $w1, $x, $lane),
            block!(@ $c, $w2, $x, $lane), block!(@ $d, $w3, $x, $lane),
        )
    };
    (@ $sum:ident, $weights:literal, $x:ident, $lane:literal) => {
        concat!("sdot {", stringify!($sum), ":v}.4s, {", $weights, ":v}.16b, {", stringify!($x), ":v}.4b[", $lane, "]\n")
    };
}

/// A function for some number of rows in plain order. Each row: its number, its pointer, its register, its four accumulators.
macro_rules! tile {
    ($name:ident: $($number:literal $pointer:ident $x:ident [$a:ident $b:ident $c:ident $d:ident])+) => {
        /// # Safety
        /// The rows from `row` on must exist.
        #[inline]
        #[target_feature(enable = "neon,dotprod")]
        unsafe fn $name(panel: &Panel<'_>, row: usize) {
            let zero = vdupq_n_s32(0);
            $(let ($a, $b, $c, $d);)+
            // SAFETY: `inputs`, a multiple of 16 and not zero, bytes are read of each row, which exists, and
            // 16 times as many of the weights. Sums of products of int8 are all that is computed. The rows
            // given to `finish_row` exist.
            unsafe {
                let values = panel.values.add(row * panel.inputs);
                asm!(
                    "2:",
                    $(concat!("ldr {", stringify!($x), ":q}, [{", stringify!($pointer), "}], #16"),)+
                    "ldp {w0:q}, {w1:q}, [{weights}], #256",
                    "ldp {w2:q}, {w3:q}, [{weights}, #-224]",
                    "ldp {w4:q}, {w5:q}, [{weights}, #-192]",
                    "ldp {w6:q}, {w7:q}, [{weights}, #-160]",
                    $(block!($a $b $c $d, "w0" "w1" "w2" "w3", $x 0),)+
                    "ldp {w0:q}, {w1:q}, [{weights}, #-128]",
                    "ldp {w2:q}, {w3:q}, [{weights}, #-96]",
                    $(block!($a $b $c $d, "w4" "w5" "w6" "w7", $x 1),)+
                    "ldp {w4:q}, {w5:q}, [{weights}, #-64]",
                    "ldp {w6:q}, {w7:q}, [{weights}, #-32]",
                    $(block!($a $b $c $d, "w0" "w1" "w2" "w3", $x 2),)+
                    "subs {left}, {left}, #16",
                    $(block!($a $b $c $d, "w4" "w5" "w6" "w7", $x 3),)+
                    "b.ne 2b",
                    $($pointer = inout(reg) values.add($number * panel.inputs) => _,)+
                    weights = inout(reg) panel.weights => _,
                    left = inout(reg) panel.inputs => _,
                    $($x = out(vreg) _,)+
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                    w4 = out(vreg) _, w5 = out(vreg) _, w6 = out(vreg) _, w7 = out(vreg) _,
                    $($a = inout(vreg) zero => $a, $b = inout(vreg) zero => $b,
                      $c = inout(vreg) zero => $c, $d = inout(vreg) zero => $d,)+
                    options(nostack, readonly),
                );
                $(finish_row(panel, row + $number, 0, [$a, $b, $c, $d]);)+
            }
        }
    };
}

tile!(tile_1_row: 0 pointer0 x0 [a0 b0 c0 d0]);
tile!(tile_2_rows: 0 pointer0 x0 [a0 b0 c0 d0] 1 pointer1 x1 [a1 b1 c1 d1]);
tile!(tile_3_rows: 0 pointer0 x0 [a0 b0 c0 d0] 1 pointer1 x1 [a1 b1 c1 d1] 2 pointer2 x2 [a2 b2 c2 d2]);

/// A block times 4 inputs of four rows, which share a register.
macro_rules! block_quad {
    ($w0:literal $w1:literal $w2:literal $w3:literal, $x:ident) => {
        concat!(
            block!(a0 b0 c0 d0, $w0 $w1 $w2 $w3, $x 0), block!(a1 b1 c1 d1, $w0 $w1 $w2 $w3, $x 1),
            block!(a2 b2 c2 d2, $w0 $w1 $w2 $w3, $x 2), block!(a3 b3 c3 d3, $w0 $w1 $w2 $w3, $x 3),
        )
    };
}

/// Four rows that stand side by side.
///
/// # Safety
/// The rows from `row`, a multiple of 4, on must exist.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn tile_quad(panel: &Panel<'_>, row: usize) {
    let zero = vdupq_n_s32(0);
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    // SAFETY: `4 * inputs`, a multiple of 64 and not zero, bytes are read of the rows, which exist, and
    // 16 times `inputs` of the weights. Sums of products of int8 are all that is computed. The rows given to
    // `finish_row` exist.
    unsafe {
        asm!(
            "2:",
            "ldp {x0:q}, {x1:q}, [{values}], #64",
            "ldp {w0:q}, {w1:q}, [{weights}], #256",
            "ldp {w2:q}, {w3:q}, [{weights}, #-224]",
            "ldp {w4:q}, {w5:q}, [{weights}, #-192]",
            "ldp {w6:q}, {w7:q}, [{weights}, #-160]",
            block_quad!("w0" "w1" "w2" "w3", x0),
            "ldp {w0:q}, {w1:q}, [{weights}, #-128]",
            "ldp {w2:q}, {w3:q}, [{weights}, #-96]",
            "ldp {x2:q}, {x3:q}, [{values}, #-32]",
            block_quad!("w4" "w5" "w6" "w7", x1),
            "ldp {w4:q}, {w5:q}, [{weights}, #-64]",
            "ldp {w6:q}, {w7:q}, [{weights}, #-32]",
            block_quad!("w0" "w1" "w2" "w3", x2),
            "subs {left}, {left}, #16",
            block_quad!("w4" "w5" "w6" "w7", x3),
            "b.ne 2b",
            values = inout(reg) panel.values.add(row * panel.inputs) => _,
            weights = inout(reg) panel.weights => _,
            left = inout(reg) panel.inputs => _,
            x0 = out(vreg) _, x1 = out(vreg) _, x2 = out(vreg) _, x3 = out(vreg) _,
            w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
            w4 = out(vreg) _, w5 = out(vreg) _, w6 = out(vreg) _, w7 = out(vreg) _,
            a0 = inout(vreg) zero => a0, b0 = inout(vreg) zero => b0, c0 = inout(vreg) zero => c0, d0 = inout(vreg) zero => d0,
            a1 = inout(vreg) zero => a1, b1 = inout(vreg) zero => b1, c1 = inout(vreg) zero => c1, d1 = inout(vreg) zero => d1,
            a2 = inout(vreg) zero => a2, b2 = inout(vreg) zero => b2, c2 = inout(vreg) zero => c2, d2 = inout(vreg) zero => d2,
            a3 = inout(vreg) zero => a3, b3 = inout(vreg) zero => b3, c3 = inout(vreg) zero => c3, d3 = inout(vreg) zero => d3,
            options(nostack, readonly),
        );
        finish_row(panel, row, 0, [a0, b0, c0, d0]);
        finish_row(panel, row + 1, 0, [a1, b1, c1, d1]);
        finish_row(panel, row + 2, 0, [a2, b2, c2, d2]);
        finish_row(panel, row + 3, 0, [a3, b3, c3, d3]);
    }
}
