//! Int8 matrix product with `SMMLA`: 2 rows x 8 inputs times 2 outputs x 8 inputs, 32 products.
//!
//! `ZIP1` and `ZIP2` of two neighbouring blocks, as 32-bit lanes, give operands of 2 outputs x 8 inputs; rows
//! come in pairs, interleaved by 8 bytes at quantization. An odd last row takes the `SDOT` kernel.

use core::arch::aarch64::{
    int32x4_t, vdupq_n_s32, vreinterpretq_s32_s64, vreinterpretq_s64_s32, vuzp1q_s64, vuzp2q_s64,
};
use core::arch::asm;

use super::finish::finish_row;
use super::matmul_i8_dotprod::tile_1_row;
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// Up to 8 rows x 8 outputs at a time.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn matmul_i8_block16x4_i8mm(matmul: Matmul<'_>) {
    for panel in matmul.panels() {
        for half in [0, 8] {
            let mut row = 0;
            // SAFETY: each tile ends at or before the last pair of rows; `half + 8 <= 16`.
            unsafe {
                while panel.rows - row >= 8 {
                    tile_4_pairs(&panel, row, half);
                    row += 8;
                }
                match (panel.rows - row) / 2 {
                    3 => tile_3_pairs(&panel, row, half),
                    2 => tile_2_pairs(&panel, row, half),
                    1 => tile_1_pair(&panel, row, half),
                    _ => {}
                }
            }
        }
        if panel.rows % 2 == 1 {
            // SAFETY: the last row exists; as it has no partner, its values stand in plain order.
            unsafe { tile_1_row(&panel, panel.rows - 1) }
        }
    }
}

/// Stores a pair of rows: each vector of sums is 2 rows x 2 outputs.
///
/// # Safety
/// `row` and the row after it must exist; `first + 8 <= 16`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_pair(panel: &Panel<'_>, row: usize, first: usize, sums: [int32x4_t; 4]) {
    let [a, b, c, d] = sums.map(|sums| vreinterpretq_s64_s32(sums));
    let upper = [vreinterpretq_s32_s64(vuzp1q_s64(a, b)), vreinterpretq_s32_s64(vuzp1q_s64(c, d))];
    let lower = [vreinterpretq_s32_s64(vuzp2q_s64(a, b)), vreinterpretq_s32_s64(vuzp2q_s64(c, d))];
    // SAFETY: the caller's.
    unsafe {
        finish_row(panel, row, first, upper);
        finish_row(panel, row + 1, first, lower);
    }
}

/// One pair of rows times 8 outputs x 8 inputs.
macro_rules! multiply {
    ($x:ident, $($sum:ident $weights:literal),+) => {
        concat!($("smmla {", stringify!($sum), ":v}.4s, {", stringify!($x), ":v}.16b, {", $weights, ":v}.16b\n"),+)
    };
}

/// A function for some number of pairs. Each pair: its number, its pointer, two registers of inputs, four
/// accumulators.
macro_rules! tile {
    ($name:ident: $($number:literal $pointer:ident $x:ident $y:ident [$a:ident $b:ident $c:ident $d:ident])+) => {
        /// # Safety
        /// The pairs of rows from `row`, which is even, on must exist; `first` must be 0 or 8.
        #[inline]
        #[target_feature(enable = "neon,i8mm")]
        unsafe fn $name(panel: &Panel<'_>, row: usize, first: usize) {
            let zero = vdupq_n_s32(0);
            $(let ($a, $b, $c, $d);)+
            // SAFETY: `2 * inputs` bytes are read of each pair, where `inputs` is a multiple of 16 and not zero,
            // and of each block of weights 8 outputs from `first` on. Sums of products of int8 are all that is
            // computed. The rows given to `finish_pair` exist.
            unsafe {
                let values = panel.values.add(row * panel.inputs);
                asm!(
                    "2:",
                    "ldp {v0:q}, {v1:q}, [{weights}], #256",
                    "ldp {v2:q}, {v3:q}, [{weights}, #-192]",
                    $(concat!("ldp {", stringify!($x), ":q}, {", stringify!($y), ":q}, [{", stringify!($pointer), "}], #32"),)+
                    "zip1 {w0:v}.4s, {v0:v}.4s, {v2:v}.4s",
                    "zip2 {w1:v}.4s, {v0:v}.4s, {v2:v}.4s",
                    "zip1 {w2:v}.4s, {v1:v}.4s, {v3:v}.4s",
                    "zip2 {w3:v}.4s, {v1:v}.4s, {v3:v}.4s",
                    "ldp {v0:q}, {v1:q}, [{weights}, #-128]",
                    "ldp {v2:q}, {v3:q}, [{weights}, #-64]",
                    $(multiply!($x, $a "w0", $b "w1", $c "w2", $d "w3"),)+
                    "zip1 {w0:v}.4s, {v0:v}.4s, {v2:v}.4s",
                    "zip2 {w1:v}.4s, {v0:v}.4s, {v2:v}.4s",
                    "zip1 {w2:v}.4s, {v1:v}.4s, {v3:v}.4s",
                    "zip2 {w3:v}.4s, {v1:v}.4s, {v3:v}.4s",
                    "subs {left}, {left}, #16",
                    $(multiply!($y, $a "w0", $b "w1", $c "w2", $d "w3"),)+
                    "b.ne 2b",
                    $($pointer = inout(reg) values.add(2 * $number * panel.inputs) => _,)+
                    weights = inout(reg) panel.weights.add(4 * first) => _,
                    left = inout(reg) panel.inputs => _,
                    v0 = out(vreg) _, v1 = out(vreg) _, v2 = out(vreg) _, v3 = out(vreg) _,
                    w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                    $($x = out(vreg) _, $y = out(vreg) _,
                      $a = inout(vreg) zero => $a, $b = inout(vreg) zero => $b,
                      $c = inout(vreg) zero => $c, $d = inout(vreg) zero => $d,)+
                    options(nostack, readonly),
                );
                $(finish_pair(panel, row + 2 * $number, first, [$a, $b, $c, $d]);)+
            }
        }
    };
}

tile!(tile_1_pair: 0 pointer0 x0 y0 [a0 b0 c0 d0]);
tile!(tile_2_pairs: 0 pointer0 x0 y0 [a0 b0 c0 d0] 1 pointer1 x1 y1 [a1 b1 c1 d1]);
tile!(tile_3_pairs: 0 pointer0 x0 y0 [a0 b0 c0 d0] 1 pointer1 x1 y1 [a1 b1 c1 d1] 2 pointer2 x2 y2 [a2 b2 c2 d2]);
tile!(tile_4_pairs: 0 pointer0 x0 y0 [a0 b0 c0 d0] 1 pointer1 x1 y1 [a1 b1 c1 d1] 2 pointer2 x2 y2 [a2 b2 c2 d2]
    3 pointer3 x3 y3 [a3 b3 c3 d3]);
