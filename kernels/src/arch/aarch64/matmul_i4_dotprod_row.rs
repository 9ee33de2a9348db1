//! One row times int4 weights with `SDOT`, in groups of 32 inputs: the step of a decoder. All panels in one loop of assembly, as what
//! leads from one to the next would otherwise be a seventh of the instructions.

use core::arch::aarch64::{float32x4_t, vdupq_n_f32, vdupq_n_s8, vld1q_u8};
use core::arch::asm;

use kinglet_model_format::{Int4Matrix, OUTPUT_BLOCK, ShortScale};

use super::matmul_i4_dotprod::{multiply_8, multiply_16};
use crate::matmul::Matmul;

/// Inputs for which 16 times a total is below 2^31: 16 * 8 * 127 * 15 times as many.
const MOST_INPUTS: usize = 8192;
/// Inputs that share a multiplier.
const GROUP: usize = 32;
/// For each of 8 bytes a lane of four, of which it is the lowest: bytes that do not exist become zero.
const LANES: [u8; 32] = {
    let mut lanes = [0xff; 32];
    let mut byte = 0;
    while byte < 8 {
        lanes[4 * byte] = byte as u8;
        byte += 1;
    }
    lanes
};
/// The bias of outputs that have none.
const NO_BIAS: [f32; OUTPUT_BLOCK] = [0.0; OUTPUT_BLOCK];

/// Multiplies by those panels that have 16 outputs; returns how many these are, or 0 where another kernel must do it all: for several
/// rows, or other groups.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn whole_panels<'a>(matmul: &mut Matmul<'a, Int4Matrix<'a>>) -> usize {
    let (rows, weights, scales) = (matmul.rows, matmul.weights, matmul.weights.scales());
    let (inputs, panels) = (rows.padded_inputs(), weights.outputs() / OUTPUT_BLOCK);
    let groups = scales.group_inputs == GROUP && inputs.is_multiple_of(GROUP) && inputs <= MOST_INPUTS;
    if rows.rows() != 1 || !groups || inputs == 0 || panels == 0 {
        return 0;
    }
    let (bias, bias_step) = match matmul.bias {
        Some(bias) => (bias.as_ptr(), size_of_val(&NO_BIAS)),
        None => (NO_BIAS.as_ptr(), 0),
    };
    // SAFETY: there are one row and one of its scales; the weights have these panels with their scales and multipliers, the bias
    // and the result as many outputs.
    unsafe {
        let place = Place {
            values: rows.values().as_ptr(),
            inputs,
            packed: weights.values().as_ptr(),
            multipliers: scales.multipliers.as_ptr(),
            scales: scales.scales.as_ptr(),
            bias,
            bias_step,
            out: matmul.out.as_mut_ptr(),
            panels,
        };
        multiply(place, vdupq_n_f32(*rows.scales().as_ptr()));
    }
    panels
}

/// Where everything is.
struct Place {
    /// `[inputs]`.
    values: *const i8,
    /// A multiple of [`GROUP`], not zero and at most [`MOST_INPUTS`].
    inputs: usize,
    /// `[panels][inputs / 8][16][4]`, two weights a byte.
    packed: *const u8,
    /// `[panels][inputs / GROUP][8]`.
    multipliers: *const u8,
    /// `[panels][16]`.
    scales: *const ShortScale,
    /// `[panels][16]` where the step is 64, `[16]` where it is 0.
    bias: *const f32,
    bias_step: usize,
    /// `[panels][16]`.
    out: *mut f32,
    /// Not zero.
    panels: usize,
}

/// # Safety
/// Everything must be where `place` says.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply(place: Place, row_scale: float32x4_t) {
    let Place { values, inputs, packed, multipliers, scales, bias, bias_step, out, panels } = place;
    // SAFETY: 32 bytes of the row are read for each group, 256 of the weights and 8 of the multipliers; 32 of the scales and 64 of the
    // bias for each panel, for which as many are written. Sums of products are all that is computed of integers.
    unsafe {
        asm!(
            "2:",
            "movi {e:v}.4s, #0", "movi {f:v}.4s, #0", "movi {g:v}.4s, #0", "movi {h:v}.4s, #0",
            "mov {at}, {values}",
            "mov {left}, {inputs}",
            "3:",
            "ldp q16, q17, [{at}], #32",
            "movi {a:v}.4s, #0", "movi {b:v}.4s, #0", "movi {c:v}.4s, #0", "movi {d:v}.4s, #0",
            multiply_16!("v16"),
            "ldr d22, [{multipliers}], #8",
            multiply_16!("v17"),
            "and v23.8b, v22.8b, {low_half:v}.8b",
            "ushr v22.8b, v22.8b, #4",
            // From each byte of multipliers a lane.
            "tbl v0.16b, {{v23.16b}}, {first:v}.16b",
            "tbl v1.16b, {{v23.16b}}, {second:v}.16b",
            "tbl v2.16b, {{v22.16b}}, {first:v}.16b",
            "tbl v3.16b, {{v22.16b}}, {second:v}.16b",
            "subs {left}, {left}, #32",
            "mla {e:v}.4s, {a:v}.4s, v0.4s", "mla {f:v}.4s, {b:v}.4s, v1.4s",
            "mla {g:v}.4s, {c:v}.4s, v2.4s", "mla {h:v}.4s, {d:v}.4s, v3.4s",
            "b.ne 3b",
            // As `finish_row` does it; a sixteenth of the totals becomes a float, which is exact but for the rounding to it.
            "ldp q1, q3, [{scales}], #32",
            // As `ShortScale::to_f32` does it.
            "movi v4.4s, #0x28, lsl #24",
            "ushll v0.4s, v1.4h, #13", "ushll2 v1.4s, v1.8h, #13", "ushll v2.4s, v3.4h, #13", "ushll2 v3.4s, v3.8h, #13",
            "add v0.4s, v0.4s, v4.4s", "add v1.4s, v1.4s, v4.4s", "add v2.4s, v2.4s, v4.4s", "add v3.4s, v3.4s, v4.4s",
            "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{bias}], {bias_step}",
            "scvtf {e:v}.4s, {e:v}.4s, #4", "scvtf {f:v}.4s, {f:v}.4s, #4",
            "scvtf {g:v}.4s, {g:v}.4s, #4", "scvtf {h:v}.4s, {h:v}.4s, #4",
            "fmul v0.4s, v0.4s, {row_scale:v}.4s", "fmul v1.4s, v1.4s, {row_scale:v}.4s",
            "fmul v2.4s, v2.4s, {row_scale:v}.4s", "fmul v3.4s, v3.4s, {row_scale:v}.4s",
            "fmla v4.4s, {e:v}.4s, v0.4s", "fmla v5.4s, {f:v}.4s, v1.4s",
            "fmla v6.4s, {g:v}.4s, v2.4s", "fmla v7.4s, {h:v}.4s, v3.4s",
            "subs {panels}, {panels}, #1",
            "st1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{out}], #64",
            "b.ne 2b",
            values = in(reg) values,
            inputs = in(reg) inputs,
            at = out(reg) _,
            left = out(reg) _,
            weights = inout(reg) packed => _,
            multipliers = inout(reg) multipliers => _,
            scales = inout(reg) scales => _,
            bias = inout(reg) bias => _,
            bias_step = in(reg) bias_step,
            out = inout(reg) out => _,
            panels = inout(reg) panels => _,
            mask = in(vreg) vdupq_n_s8(0xf0_u8 as i8),
            low_half = in(vreg) vdupq_n_s8(0xf),
            first = in(vreg) vld1q_u8(LANES.as_ptr()),
            second = in(vreg) vld1q_u8(LANES.as_ptr().add(16)),
            row_scale = in(vreg) row_scale,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _,
            out("v23") _,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            options(nostack),
        );
    }
}
