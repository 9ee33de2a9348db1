//! Many rows with `SDOT`: 12 rows x 8 outputs a tile, 24 accumulators, which takes a load for 9.6 `SDOT`s where 4 rows x 16 outputs take
//! one for 6.4.

use core::arch::asm;

use super::finish::{clear, finish_4};
use crate::arch::panel::Panel;

/// Rows of a tile.
pub(super) const ROWS: usize = 12;

/// 4 inputs, in `$x`, of four rows, times 8 outputs, in `$w` and `$v`. The accumulators: two a row.
macro_rules! multiply_4 {
    ($x:literal $w:literal $v:literal: $($lane:literal $a:literal $b:literal),+) => {
        concat!($(
            "sdot ", $a, ".4s, ", $w, ".16b, ", $x, ".4b[", $lane, "]\n",
            "sdot ", $b, ".4s, ", $v, ".16b, ", $x, ".4b[", $lane, "]\n",
        )+)
    };
}

/// 8 inputs of the twelve rows times 8 outputs, whose weights are in v0 to v3.
macro_rules! multiply_8 {
    () => {
        concat!(
            "ldp q4, q5, [{first}], #32\n",
            "ldp q6, q7, [{second}], #32\n",
            multiply_4!("v4" "v0" "v1": 0 "v8" "v9", 1 "v10" "v11", 2 "v12" "v13", 3 "v14" "v15"),
            multiply_4!("v5" "v2" "v3": 0 "v8" "v9", 1 "v10" "v11", 2 "v12" "v13", 3 "v14" "v15"),
            "ldp q4, q5, [{third}], #32\n",
            multiply_4!("v6" "v0" "v1": 0 "v16" "v17", 1 "v18" "v19", 2 "v20" "v21", 3 "v22" "v23"),
            multiply_4!("v7" "v2" "v3": 0 "v16" "v17", 1 "v18" "v19", 2 "v20" "v21", 3 "v22" "v23"),
            multiply_4!("v4" "v0" "v1": 0 "v24" "v25", 1 "v26" "v27", 2 "v28" "v29", 3 "v30" "v31"),
            multiply_4!("v5" "v2" "v3": 0 "v24" "v25", 1 "v26" "v27", 2 "v28" "v29", 3 "v30" "v31"),
        )
    };
}

/// [`ROWS`] rows from `row` on, in fours that stand side by side, x 8 outputs from `first` on.
///
/// # Safety
/// The panel's invariants; its width must be 16, the rows from `row`, a multiple of 4, on must exist, and `first` be 0 or 8.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn tile(panel: &Panel<'_>, row: usize, first: usize) {
    // SAFETY: `4 * inputs`, a multiple of 64 and not zero, bytes are read of each four rows, which exist, and of each block of
    // weights 8 outputs from `first` on. Sums of products of int8 are all that is computed of them. The rows have 12 scales, the
    // outputs 8 of scales and bias from `first` on, and 8 floats are written for each row.
    unsafe {
        let values = panel.values.add(row * panel.inputs);
        asm!(
            clear!("v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15" "v16" "v17" "v18" "v19"),
            clear!("v20" "v21" "v22" "v23" "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31"),
            "2:",
            "ldp q0, q1, [{weights}], #256",
            "ldp q2, q3, [{weights}, #-192]",
            multiply_8!(),
            "ldp q0, q1, [{weights}, #-128]",
            "ldp q2, q3, [{weights}, #-64]",
            "subs {left}, {left}, #16",
            multiply_8!(),
            "b.ne 2b",
            "ldp q0, q1, [{scales}]",
            finish_4!(0 "v8" "v9", 1 "v10" "v11", 2 "v12" "v13", 3 "v14" "v15"),
            finish_4!(0 "v16" "v17", 1 "v18" "v19", 2 "v20" "v21", 3 "v22" "v23"),
            finish_4!(0 "v24" "v25", 1 "v26" "v27", 2 "v28" "v29", 3 "v30" "v31"),
            first = inout(reg) values => _,
            second = inout(reg) values.add(4 * panel.inputs) => _,
            third = inout(reg) values.add(8 * panel.inputs) => _,
            weights = inout(reg) panel.weights.add(4 * first) => _,
            left = inout(reg) panel.inputs => _,
            row_scales = inout(reg) panel.row_scales.add(row) => _,
            scales = in(reg) panel.scales.as_ptr().add(first),
            bias = in(reg) panel.bias.as_ptr().add(first),
            out = inout(reg) panel.out.add(row * panel.out_stride + first) => _,
            stride = in(reg) 4 * panel.out_stride,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}
