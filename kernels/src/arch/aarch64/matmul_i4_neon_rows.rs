//! Rows in fours times int4 weights on cores without `SDOT`, 8 rows x 8 outputs at a time, then 4.
//!
//! Weights and rows become int16 in memory, once for all products: `MLA` then takes each input of a row where it stands among others, so
//! that two loads serve 32 of them, and sums need no joining. It multiplies as many pairs as `SMLAL` with int8, and sums of a
//! piece fit int16 all the same.

use core::arch::aarch64::{
    vget_low_s8, vld1q_s8, vld4q_s8, vmovl_high_s8, vmovl_s8, vshlq_n_s8, vshrq_n_s8, vst1q_s16,
};
use core::arch::asm;
use core::mem::MaybeUninit;

use super::finish::{clear, finish_4};
use super::int4::multipliers_16;
use super::matmul_i4_neon::{PIECE, stretch, stretches};
use crate::arch::int4_panel::Int4Panel;

/// Outputs of a tile: half a panel.
const HALF: usize = 8;

/// Bytes of the room for each input of `rows` rows: a panel's weights and the rows themselves.
pub(super) const fn room(rows: usize) -> usize {
    2 * (TILE_BYTES + rows)
}

/// Bytes of a tile's weights and multipliers for each input: a piece has 16 inputs or more.
const TILE_BYTES: usize = 17;

/// Writes the panel as the kernel below reads it, the second half of the outputs `TILE_BYTES` times the inputs behind the first: for each
/// piece `[inputs][8]` weights and 8 multipliers, all of two bytes.
///
/// # Safety
/// The panel's invariants; `2 * TILE_BYTES * inputs` bytes may be written at `room`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn lay_out(panel: &Int4Panel<'_>, room: *mut i8) {
    let (mut low, mut high): (*mut i16, *mut i16) =
        (room.cast(), room.wrapping_add(TILE_BYTES * panel.panel.inputs).cast());
    for stretch in stretches(panel) {
        for start in (stretch.first..stretch.last).step_by(PIECE) {
            let end = stretch.last.min(start + PIECE);
            // SAFETY: of the panel's `8 * inputs` bytes those of the piece are read, and twice as many are written for each half; its
            // inputs are of one group, which has its multipliers, and 16 bytes more are written.
            unsafe {
                for eight in start / 8..end / 8 {
                    let packed = vld4q_s8(panel.packed.add(64 * eight).cast());
                    for (input, packed) in [packed.0, packed.1, packed.2, packed.3].into_iter().enumerate() {
                        let first = vshrq_n_s8::<4>(vshlq_n_s8::<4>(packed));
                        let second = vshrq_n_s8::<4>(packed);
                        vst1q_s16(low.add(8 * input), vmovl_s8(vget_low_s8(first)));
                        vst1q_s16(high.add(8 * input), vmovl_high_s8(first));
                        vst1q_s16(low.add(8 * input + 32), vmovl_s8(vget_low_s8(second)));
                        vst1q_s16(high.add(8 * input + 32), vmovl_high_s8(second));
                    }
                    (low, high) = (low.add(64), high.add(64));
                }
                let multipliers = multipliers_16(panel.multipliers.add(8 * (start / panel.group_inputs)));
                vst1q_s16(low, multipliers[0]);
                vst1q_s16(high, multipliers[1]);
                (low, high) = (low.add(8), high.add(8));
            }
        }
    }
}

/// Writes the rows that stand in fours as the kernel below reads them: `[rows / 8][inputs / 4][8][4]`, the last four alone where their number is
/// odd, of two bytes.
///
/// # Safety
/// `inputs`, a multiple of 16, times `rows` bytes must be readable at `values`, and twice as many be writable at `target`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn widen_rows(values: *const i8, rows: usize, inputs: usize, target: *mut i8) {
    let mut target: *mut i16 = target.cast();
    for row in (0..rows).step_by(8) {
        let fours = if row + 8 <= rows { 2 } else { 1 };
        for input in (0..inputs).step_by(4) {
            for four in 0..fours {
                // SAFETY: four inputs of four rows are read, which are there, and twice as many bytes written.
                unsafe {
                    let values = vld1q_s8(values.add((row + 4 * four) * inputs + 4 * input));
                    vst1q_s16(target, vmovl_s8(vget_low_s8(values)));
                    vst1q_s16(target.add(8), vmovl_high_s8(values));
                    target = target.add(16);
                }
            }
        }
    }
}

/// The rows that stand in fours x 16 outputs; `values` is what `widen_rows` has written.
///
/// # Safety
/// The panel's invariants; `2 * TILE_BYTES * inputs` bytes may be written at `room`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn multiply_rows(panel: &Int4Panel<'_>, values: *const i8, room: *mut i8) {
    let rows = panel.panel.rows / 4 * 4;
    // SAFETY: the caller's; the rows of each tile exist, and the weights are those that have been written.
    unsafe {
        lay_out(panel, room);
        for first in (0..panel.panel.width).step_by(HALF) {
            let weights = room.wrapping_add(first / HALF * TILE_BYTES * panel.panel.inputs);
            for row in (0..rows / 8 * 8).step_by(8) {
                multiply_tile::<8>(panel, values, weights, row, first);
            }
            if rows % 8 > 0 {
                multiply_tile::<4>(panel, values, weights, rows - 4, first);
            }
        }
    }
}

/// `ROWS` rows, 8 or 4, from `row` on, x 8 outputs.
///
/// # Safety
/// The panel's invariants; `values` and `weights` must be what the functions above have written; the rows must exist, as must output `first`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multiply_tile<const ROWS: usize>(
    panel: &Int4Panel<'_>,
    values: *const i8,
    weights: *const i8,
    row: usize,
    first: usize,
) {
    let values = values.wrapping_add(2 * row * panel.panel.inputs);
    let out = panel.panel.out.wrapping_add(row * panel.panel.out_stride + first);
    let outputs = panel.panel.width - first;
    // SAFETY: the caller's; where outputs are missing, results go by way of `edge`.
    unsafe {
        if outputs >= HALF {
            tile::<ROWS>(panel, values, weights, row, first, out, panel.panel.out_stride);
        } else {
            let mut edge = MaybeUninit::<[f32; 8 * HALF]>::uninit();
            let edge: *mut f32 = edge.as_mut_ptr().cast();
            tile::<ROWS>(panel, values, weights, row, first, edge, HALF);
            for index in 0..ROWS {
                let out = out.wrapping_add(index * panel.panel.out_stride);
                out.copy_from_nonoverlapping(edge.add(index * HALF), outputs);
            }
        }
    }
}

/// Sums of int16, a register a row, of one input more, which is `$even` or `$odd` of eight in a register of two rows.
macro_rules! multiply_1 {
    (8 $name:literal $w:literal $even:literal $odd:literal) => {
        concat!(
            multiply_1!(4 $name $w $even $odd),
            multiply_1!(@ $name $w: "v20" "v2" $even, "v21" "v2" $odd, "v22" "v3" $even, "v23" "v3" $odd),
        )
    };
    (4 $name:literal $w:literal $even:literal $odd:literal) => {
        multiply_1!(@ $name $w: "v16" "v0" $even, "v17" "v0" $odd, "v18" "v1" $even, "v19" "v1" $odd)
    };
    (@ $name:literal $w:literal: $($sum:literal $x:literal $lane:literal),+) => {
        concat!($($name, " ", $sum, ".8h, ", $w, ".8h, ", $x, ".h[", $lane, "]\n"),+)
    };
}

/// 4 inputs.
macro_rules! multiply_4 {
    (@ 8) => { "ld1 {{v0.8h, v1.8h, v2.8h, v3.8h}}, [{values}], #64\n" };
    (@ 4) => { "ldp q0, q1, [{values}], #32\n" };
    ($rows:tt $first:literal) => {
        concat!(
            multiply_4!(@ $rows),
            "ld1 {{v4.8h, v5.8h, v6.8h, v7.8h}}, [{weights}], #64\n",
            multiply_1!($rows $first "v4" 0 4), multiply_1!($rows "mla" "v5" 1 5),
            multiply_1!($rows "mla" "v6" 2 6), multiply_1!($rows "mla" "v7" 3 7),
        )
    };
}

/// 16 inputs.
macro_rules! multiply_16 {
    ($rows:tt $first:literal) => {
        concat!(
            multiply_4!($rows $first), multiply_4!($rows "mla"), multiply_4!($rows "mla"), multiply_4!($rows "mla"),
        )
    };
}

/// Sums of a piece times the multipliers, which are in v0, to the totals of a row.
macro_rules! add_piece {
    ($($sum:literal $low:literal $high:literal),+) => {
        concat!($(
            "smlal ", $low, ".4s, ", $sum, ".4h, v0.4h\n",
            "smlal2 ", $high, ".4s, ", $sum, ".8h, v0.8h\n",
        )+)
    };
}

/// A tile: what clears the totals, adds a piece to them and makes floats of them. The totals of a row are two registers.
macro_rules! multiply {
    ($rows:tt $clear:expr, $add:expr, $finish:expr; $panel:ident $values:ident $weights:ident $row:ident $first:ident $out:ident $stride:ident) => {{
        let panel = &$panel.panel;
        asm!(
            $clear,
            // Stretches, whose pieces have 32 inputs, but perhaps the last.
            "2:",
            "cmp {left}, {stretch}",
            "csel {blocks}, {left}, {stretch}, lo",
            "sub {left}, {left}, {blocks}",
            "3:",
            multiply_16!($rows "mul"),
            // Below zero where there are no 16 inputs more, above where there are more than 16.
            "subs {blocks}, {blocks}, #32",
            "b.mi 4f",
            multiply_16!($rows "mla"),
            "4:",
            "ldr q0, [{weights}], #16",
            $add,
            "b.gt 3b",
            "cbnz {left}, 2b",
            "ldp q0, q1, [{scales}]",
            $finish,
            values = inout(reg) $values => _,
            weights = inout(reg) $weights => _,
            left = inout(reg) panel.inputs => _,
            stretch = in(reg) stretch($panel),
            blocks = out(reg) _,
            row_scales = inout(reg) panel.row_scales.add($row) => _,
            scales = in(reg) panel.scales.as_ptr().add($first),
            bias = in(reg) panel.bias.as_ptr().add($first),
            out = inout(reg) $out => _,
            stride = in(reg) 4 * $stride,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _,
            out("v15") _, out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _,
            out("v22") _, out("v23") _, out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _,
            out("v29") _, out("v30") _, out("v31") _,
            options(nostack),
        );
    }};
}

/// [`multiply_tile`] to where there is room for 8 outputs of each row.
///
/// # Safety
/// As there; rows of 8 floats, `stride` apart, may be written at `out`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const ROWS: usize>(
    panel: &Int4Panel<'_>,
    values: *const i8,
    weights: *const i8,
    row: usize,
    first: usize,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: of values and weights as many bytes are read as were written. Sums of products are all that is computed of integers. The
    // rows have as many scales, the outputs 8 of scales and bias from `first` on, and 8 floats are written for each row.
    unsafe {
        if ROWS == 8 {
            multiply!(8
                clear!("v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15" "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31"),
                concat!(
                    add_piece!("v16" "v8" "v9", "v17" "v10" "v11", "v18" "v12" "v13", "v19" "v14" "v15"),
                    add_piece!("v20" "v24" "v25", "v21" "v26" "v27", "v22" "v28" "v29", "v23" "v30" "v31"),
                ),
                concat!(
                    finish_4!(0 "v8" "v9", 1 "v10" "v11", 2 "v12" "v13", 3 "v14" "v15"),
                    finish_4!(0 "v24" "v25", 1 "v26" "v27", 2 "v28" "v29", 3 "v30" "v31"),
                );
                panel values weights row first out stride);
        } else {
            multiply!(4
                clear!("v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15"),
                add_piece!("v16" "v8" "v9", "v17" "v10" "v11", "v18" "v12" "v13", "v19" "v14" "v15"),
                finish_4!(0 "v8" "v9", 1 "v10" "v11", 2 "v12" "v13", 3 "v14" "v15");
                panel values weights row first out stride);
        }
    }
}
