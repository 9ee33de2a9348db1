//! Row quantization with NEON.

use core::arch::aarch64::{
    int8x16_t, uint32x4_t, vabsq_f32, vcvtnq_s32_f32, vdupq_n_f32, vdupq_n_u32, vget_high_s8, vget_low_s8,
    vld1q_f32_x4, vmaxq_u32, vmaxvq_u32, vmulq_f32, vreinterpretq_s8_s16, vreinterpretq_s16_s32,
    vreinterpretq_u32_f32, vst1_s8, vst1q_s8, vuzp1q_s8, vuzp1q_s16,
};
use core::arch::asm;

use crate::arch::scalar::{RowScale, finite, row_scale};
use crate::quantize::Quantization;

/// The magnitudes of four registers into the accumulators a, b, c, d, as integers.
macro_rules! largest {
    ($a:literal $b:literal $c:literal $d:literal) => {
        concat!(
            largest!(@ "fabs" $a $a, $b $b, $c $c, $d $d),
            largest!(@ "umax" "{a:v}" $a, "{b:v}" $b, "{c:v}" $c, "{d:v}" $d),
        )
    };
    (@ "fabs" $($to:literal $from:literal),+) => {
        concat!($("fabs ", $to, ".4s, ", $from, ".4s\n"),+)
    };
    (@ "umax" $($to:literal $from:literal),+) => {
        concat!($("umax ", $to, ".4s, ", $to, ".4s, ", $from, ".4s\n"),+)
    };
}

/// 32 values: loaded, scaled, rounded to even and narrowed to their low bytes, into two registers.
macro_rules! quantize_32 {
    ($low:literal $high:literal) => {
        concat!(
            "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{source}], #64\n",
            "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{source}], #64\n",
            quantize_32!(@ "fmul" ", {inverse:v}.s[0]": "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"),
            quantize_32!(@ "fcvtns" "": "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"),
            "uzp1 v0.8h, v0.8h, v1.8h\n",
            "uzp1 v2.8h, v2.8h, v3.8h\n",
            "uzp1 v4.8h, v4.8h, v5.8h\n",
            "uzp1 v6.8h, v6.8h, v7.8h\n",
            "uzp1 ", $low, ".16b, v0.16b, v2.16b\n",
            "uzp1 ", $high, ".16b, v4.16b, v6.16b\n",
        )
    };
    (@ $name:literal $operand:literal: $($v:literal)+) => {
        concat!($($name, " ", $v, ".4s, ", $v, ".4s", $operand, "\n"),+)
    };
}

/// Blocks of 64 values, at least one, to `$target`, which moves on; `$store` stores v16 to v19.
macro_rules! quantize_blocks {
    ($blocks:ident, $inverse:ident, $target:ident, $($store:literal),+; $($operand:tt)*) => {
        asm!(
            "2:",
            quantize_32!("v16" "v17"),
            "subs {blocks}, {blocks}, #1",
            quantize_32!("v18" "v19"),
            $($store,)+
            "b.ne 2b",
            source = inout(reg) $blocks.as_ptr() => _,
            blocks = inout(reg) $blocks.len() => _,
            target = inout(reg) $target,
            inverse = in(vreg) vdupq_n_f32($inverse),
            $($operand)*
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            options(nostack),
        )
    };
}

/// Every row. `PAIRS`: the order [`RowOrder::PairsOf8`](crate::quantize::RowOrder::PairsOf8), else
/// [`RowOrder::Rows`](crate::quantize::RowOrder::Rows).
#[target_feature(enable = "neon")]
pub(super) fn quantize_rows_neon<const PAIRS: bool>(quantization: Quantization<'_>) {
    let Quantization { source, source_stride, inputs, padded_inputs, values, scales } = quantization;
    let rows = scales.len();
    for (row, scale_out) in scales.iter_mut().enumerate() {
        let source = &source[row * source_stride..][..inputs];
        let maximum = largest_magnitude(source);
        let finite_row = maximum <= f32::MAX.to_bits();
        let scale =
            if finite_row { RowScale::for_maximum(f32::from_bits(maximum)) } else { row_scale(source) };
        *scale_out = scale.scale;
        let paired = PAIRS && row < rows / 2 * 2;
        let start = if paired { (row & !1) * padded_inputs + (row & 1) * 8 } else { row * padded_inputs };
        // SAFETY: a row takes `padded_inputs` bytes from its start on; the first of a pair takes every other 8
        // of `2 * padded_inputs`, the second the 8 after each, and both rows of the pair exist.
        unsafe {
            let target = values.as_mut_ptr().add(start);
            match (paired, finite_row) {
                (true, true) => quantize_row::<true>(source, scale.inverse, target),
                (false, true) => quantize_row::<false>(source, scale.inverse, target),
                (true, false) => quantize_strange_row::<true>(source, scale.inverse, target),
                (false, false) => quantize_strange_row::<false>(source, scale.inverse, target),
            }
        }
    }
}

/// The largest magnitude as bits, which order as the floats do; above infinity's where there is a NaN.
#[inline]
#[target_feature(enable = "neon")]
fn largest_magnitude(row: &[f32]) -> u32 {
    let zero = vdupq_n_u32(0);
    let mut largest = [zero; 4];
    let (blocks, rest) = row.as_chunks::<64>();
    if !blocks.is_empty() {
        let [mut a, mut b, mut c, mut d] = largest;
        // SAFETY: 64 floats are read of each block, and there is at least one.
        unsafe {
            asm!(
                "2:",
                "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{source}], #64",
                "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{source}], #64",
                largest!("v0" "v1" "v2" "v3"),
                "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{source}], #64",
                largest!("v4" "v5" "v6" "v7"),
                "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{source}], #64",
                "subs {blocks}, {blocks}, #1",
                largest!("v0" "v1" "v2" "v3"),
                largest!("v4" "v5" "v6" "v7"),
                "b.ne 2b",
                source = inout(reg) blocks.as_ptr() => _,
                blocks = inout(reg) blocks.len() => _,
                a = inout(vreg) a, b = inout(vreg) b, c = inout(vreg) c, d = inout(vreg) d,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(nostack, readonly),
            );
        }
        largest = [a, b, c, d];
    }
    if !rest.is_empty() {
        let (chunks, tail) = rest.as_chunks::<16>();
        for chunk in chunks {
            largest = larger(largest, chunk);
        }
        if !tail.is_empty() {
            largest = larger(largest, &padded(tail));
        }
    }
    let [a, b, c, d] = largest;
    vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)))
}

/// `tail` and zeros. Not a copy of slices: a call would cost more than the few values.
#[inline]
fn padded(tail: &[f32]) -> [f32; 16] {
    let mut chunk = [0.0; 16];
    for (target, &value) in chunk.iter_mut().zip(tail) {
        *target = value;
    }
    chunk
}

#[inline]
#[target_feature(enable = "neon")]
fn larger([a, b, c, d]: [uint32x4_t; 4], chunk: &[f32; 16]) -> [uint32x4_t; 4] {
    let magnitude = |values| vreinterpretq_u32_f32(vabsq_f32(values));
    // SAFETY: the chunk holds 16 floats.
    let chunk = unsafe { vld1q_f32_x4(chunk.as_ptr()) };
    [
        vmaxq_u32(a, magnitude(chunk.0)),
        vmaxq_u32(b, magnitude(chunk.1)),
        vmaxq_u32(c, magnitude(chunk.2)),
        vmaxq_u32(d, magnitude(chunk.3)),
    ]
}

/// One row that holds neither NaN nor infinity.
///
/// # Safety
/// Where `PAIRED`, 8 bytes at `target` and at every 16th after it may be written, else all bytes, in both
/// cases as many as the row has inputs with padding to 16.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quantize_row<const PAIRED: bool>(row: &[f32], inverse: f32, mut target: *mut i8) {
    let (blocks, rest) = row.as_chunks::<64>();
    // SAFETY: 64 floats are read of each block, and there is at least one; the caller's for what is written.
    unsafe {
        if blocks.is_empty() {
        } else if PAIRED {
            quantize_blocks!(blocks, inverse, target,
                "st1 {{v16.d}}[0], [{target}], {step}", "st1 {{v16.d}}[1], [{target}], {step}",
                "st1 {{v17.d}}[0], [{target}], {step}", "st1 {{v17.d}}[1], [{target}], {step}",
                "st1 {{v18.d}}[0], [{target}], {step}", "st1 {{v18.d}}[1], [{target}], {step}",
                "st1 {{v19.d}}[0], [{target}], {step}", "st1 {{v19.d}}[1], [{target}], {step}";
                step = in(reg) 16_usize,);
        } else {
            quantize_blocks!(blocks, inverse, target,
                "st1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{target}], #64";);
        }
    }
    if rest.is_empty() {
        return;
    }
    let (chunks, tail) = rest.as_chunks::<16>();
    // SAFETY: the caller's: each chunk takes the next 16 bytes.
    unsafe {
        for chunk in chunks {
            target = store::<PAIRED>(target, quantize_16(chunk, inverse));
        }
        if !tail.is_empty() {
            store::<PAIRED>(target, quantize_16(&padded(tail), inverse));
        }
    }
}

/// One row that may hold anything.
///
/// # Safety
/// As for `quantize_row`.
#[cold]
#[target_feature(enable = "neon")]
unsafe fn quantize_strange_row<const PAIRED: bool>(row: &[f32], inverse: f32, mut target: *mut i8) {
    for chunk in row.chunks(16) {
        // SAFETY: the caller's: each chunk takes the next 16 bytes.
        target = unsafe { store::<PAIRED>(target, quantize_16(&padded(chunk).map(finite), inverse)) };
    }
}

/// Stores 16 values and gives the place of the next.
///
/// # Safety
/// 16 bytes at `target` may be written, or where `PAIRED` 8 there and 8 from the 16th on.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<const PAIRED: bool>(target: *mut i8, values: int8x16_t) -> *mut i8 {
    // SAFETY: the caller's. The place of the next may lie outside, where nothing is stored.
    unsafe {
        if PAIRED {
            vst1_s8(target, vget_low_s8(values));
            vst1_s8(target.add(16), vget_high_s8(values));
        } else {
            vst1q_s8(target, values);
        }
    }
    target.wrapping_add(if PAIRED { 32 } else { 16 })
}

/// Rounded to even; the low bytes of the integers, which all lie within -127 to 127.
#[inline]
#[target_feature(enable = "neon")]
fn quantize_16(chunk: &[f32; 16], inverse: f32) -> int8x16_t {
    // SAFETY: the chunk holds 16 floats.
    let chunk = unsafe { vld1q_f32_x4(chunk.as_ptr()) };
    let inverse = vdupq_n_f32(inverse);
    let [a, b, c, d] = [chunk.0, chunk.1, chunk.2, chunk.3]
        .map(|values| vreinterpretq_s16_s32(vcvtnq_s32_f32(vmulq_f32(values, inverse))));
    vuzp1q_s8(vreinterpretq_s8_s16(vuzp1q_s16(a, b)), vreinterpretq_s8_s16(vuzp1q_s16(c, d)))
}
