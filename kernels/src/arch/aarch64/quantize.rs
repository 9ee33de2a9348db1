//! Row quantization with NEON.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4x4_t, uint32x4_t, vabsq_f32, vbicq_u32, vcltq_f32, vcvtnq_s32_f32,
    vdivq_f32, vdupq_n_f32, vdupq_n_u32, vgetq_lane_f32, vld1q_f32, vld1q_f32_x4, vmaxq_u32, vmaxvq_u32,
    vmulq_f32, vpmaxq_u32, vreinterpretq_f32_u32, vreinterpretq_s8_s16, vreinterpretq_s16_s32,
    vreinterpretq_s32_s8, vreinterpretq_u32_f32, vst1q_f32, vst1q_s8, vst4q_s32, vuzp1q_s8, vuzp1q_s16,
};
use core::arch::asm;

use crate::arch::scalar::{RowScale, SMALLEST_MAXIMUM, finite, row_scale};
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

/// 32 values: loaded from two places, scaled, rounded to even and narrowed to their low bytes, into two registers.
macro_rules! quantize_32 {
    ($source0:literal $lane0:literal $low:literal, $source1:literal $lane1:literal $high:literal) => {
        concat!(
            "ld1 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{", $source0, "}], #64\n",
            "ld1 {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{", $source1, "}], #64\n",
            quantize_32!(@ "fmul" ", {inverse:v}.s[" $lane0 "]": "v0" "v1" "v2" "v3"),
            quantize_32!(@ "fmul" ", {inverse:v}.s[" $lane1 "]": "v4" "v5" "v6" "v7"),
            quantize_32!(@ "fcvtns" "" "" "": "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"),
            "uzp1 v0.8h, v0.8h, v1.8h\n",
            "uzp1 v2.8h, v2.8h, v3.8h\n",
            "uzp1 v4.8h, v4.8h, v5.8h\n",
            "uzp1 v6.8h, v6.8h, v7.8h\n",
            "uzp1 ", $low, ".16b, v0.16b, v2.16b\n",
            "uzp1 ", $high, ".16b, v4.16b, v6.16b\n",
        )
    };
    (@ $name:literal $operand:literal $lane:literal $end:literal: $($v:literal)+) => {
        concat!($($name, " ", $v, ".4s, ", $v, ".4s", $operand, $lane, $end, "\n"),+)
    };
}

/// Every row, in the order [`RowOrder::Quads`](crate::quantize::RowOrder::Quads).
#[target_feature(enable = "neon")]
pub(super) fn quantize_rows_neon(quantization: Quantization<'_>) {
    let Quantization { source, source_stride, inputs, padded_inputs, values, scales } = quantization;
    if padded_inputs == 0 {
        return scales.fill(0.0);
    }
    let row = |row: usize| &source[row * source_stride..][..inputs];
    let (quads, rest) = scales.as_chunks_mut::<4>();
    let quad_rows = 4 * quads.len();
    let (quad_values, rest_values) = values.split_at_mut(quad_rows * padded_inputs);
    for ((quad, scales), values) in
        quads.iter_mut().enumerate().zip(quad_values.chunks_exact_mut(4 * padded_inputs))
    {
        let rows = [0, 1, 2, 3].map(|index| row(4 * quad + index));
        let (row_scales, inverses, finite) = quad_factors(rows);
        // SAFETY: there are four scales; the rows have the same length and `values` as many bytes as four of them with padding to 16.
        unsafe {
            vst1q_f32(scales.as_mut_ptr(), row_scales);
            if finite {
                quantize_quad(rows, inverses, values.as_mut_ptr());
            } else {
                quantize_strange_quad(rows, inverses, values.as_mut_ptr());
            }
        }
    }
    for ((index, scale_out), values) in
        rest.iter_mut().enumerate().zip(rest_values.chunks_exact_mut(padded_inputs))
    {
        let row = row(quad_rows + index);
        let maximum = vmaxvq_u32(largest_magnitudes(row));
        let finite = maximum <= f32::MAX.to_bits();
        let scale = if finite { RowScale::for_maximum(f32::from_bits(maximum)) } else { row_scale(row) };
        *scale_out = scale.scale;
        // SAFETY: `values` has as many bytes as the row with padding to 16.
        unsafe {
            if finite {
                quantize_row(row, scale.inverse, values.as_mut_ptr());
            } else {
                quantize_strange_row(row, scale.inverse, values.as_mut_ptr());
            }
        }
    }
}

/// Scales and inverse scales of four rows, and whether these hold neither NaN nor infinity.
#[inline]
#[target_feature(enable = "neon")]
fn quad_factors(rows: [&[f32]; 4]) -> (float32x4_t, float32x4_t, bool) {
    let [a, b, c, d] = rows.map(|row| largest_magnitudes(row));
    let maxima = vpmaxq_u32(vpmaxq_u32(a, b), vpmaxq_u32(c, d));
    if vmaxvq_u32(maxima) > f32::MAX.to_bits() {
        return strange_factors(rows);
    }
    // `RowScale::for_maximum`, four at a time.
    let (maxima, most) = (vreinterpretq_f32_u32(maxima), vdupq_n_f32(127.0));
    let zeros = vcltq_f32(maxima, vdupq_n_f32(SMALLEST_MAXIMUM));
    let keep = |quotient| vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(quotient), zeros));
    let (scales, inverses) = (keep(vdivq_f32(maxima, most)), keep(vdivq_f32(most, maxima)));
    (scales, inverses, true)
}

/// The factors of four rows of which one holds NaN or infinity.
#[cold]
#[inline(never)]
#[target_feature(enable = "neon")]
fn strange_factors(rows: [&[f32]; 4]) -> (float32x4_t, float32x4_t, bool) {
    let factors = rows.map(row_scale);
    let [scales, inverses] = [factors.map(|factors| factors.scale), factors.map(|factors| factors.inverse)];
    // SAFETY: four floats each.
    unsafe { (vld1q_f32(scales.as_ptr()), vld1q_f32(inverses.as_ptr()), false) }
}

/// The largest magnitudes, of each fourth value, as bits, which order as the floats do; above infinity's where there is a NaN.
#[inline]
#[target_feature(enable = "neon")]
fn largest_magnitudes(row: &[f32]) -> uint32x4_t {
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
    vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d))
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

/// Four rows that hold neither NaN nor infinity.
///
/// # Safety
/// The rows must have the same length; 4 times as many bytes, with padding to 16, may be written at `target`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quantize_quad(rows: [&[f32]; 4], inverses: float32x4_t, mut target: *mut i8) {
    let [(chunks, a), (_, b), (_, c), (_, d)] = rows.map(<[f32]>::as_chunks::<16>);
    if !chunks.is_empty() {
        let [p, q, r, s] = rows.map(<[f32]>::as_ptr);
        // SAFETY: 16 floats are read of each row for each chunk, of which there is at least one, and 64 bytes written.
        unsafe {
            asm!(
                "2:",
                quantize_32!("p" 0 "v16", "q" 1 "v17"),
                "subs {chunks}, {chunks}, #1",
                quantize_32!("r" 2 "v18", "s" 3 "v19"),
                "st4 {{v16.4s, v17.4s, v18.4s, v19.4s}}, [{target}], #64",
                "b.ne 2b",
                p = inout(reg) p => _, q = inout(reg) q => _, r = inout(reg) r => _, s = inout(reg) s => _,
                chunks = inout(reg) chunks.len() => _,
                target = inout(reg) target,
                inverse = in(vreg) inverses,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                options(nostack),
            );
        }
    }
    if !a.is_empty() {
        // SAFETY: the caller's: the last inputs take the last 64 bytes.
        unsafe { store_quad(target, [a, b, c, d].map(padded), inverses) }
    }
}

/// Four rows that may hold anything.
///
/// # Safety
/// As for `quantize_quad`.
#[cold]
#[target_feature(enable = "neon")]
unsafe fn quantize_strange_quad(rows: [&[f32]; 4], inverses: float32x4_t, target: *mut i8) {
    for start in (0..rows[0].len()).step_by(16) {
        let chunks = rows.map(|row| padded(&row[start..row.len().min(start + 16)]).map(finite));
        // SAFETY: the caller's: each 16 inputs take the next 64 bytes.
        unsafe { store_quad(target.add(4 * start), chunks, inverses) }
    }
}

/// Stores 16 inputs of four rows.
///
/// # Safety
/// 64 bytes at `target` may be written.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_quad(target: *mut i8, chunks: [[f32; 16]; 4], inverses: float32x4_t) {
    let quantized = |row: usize, inverse| vreinterpretq_s32_s8(quantize_16(&chunks[row], inverse));
    let rows = int32x4x4_t(
        quantized(0, vgetq_lane_f32::<0>(inverses)),
        quantized(1, vgetq_lane_f32::<1>(inverses)),
        quantized(2, vgetq_lane_f32::<2>(inverses)),
        quantized(3, vgetq_lane_f32::<3>(inverses)),
    );
    // SAFETY: the caller's.
    unsafe { vst4q_s32(target.cast(), rows) }
}

/// One row that holds neither NaN nor infinity.
///
/// # Safety
/// As many bytes at `target` as the row has inputs, with padding to 16, may be written.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quantize_row(row: &[f32], inverse: f32, mut target: *mut i8) {
    let (blocks, rest) = row.as_chunks::<64>();
    if !blocks.is_empty() {
        let source = blocks.as_ptr().cast::<f32>();
        // SAFETY: 64 floats are read of each block, of which there is at least one, and 64 bytes written.
        unsafe {
            asm!(
                "2:",
                quantize_32!("source" 0 "v16", "source" 0 "v17"),
                "subs {blocks}, {blocks}, #1",
                quantize_32!("source" 0 "v18", "source" 0 "v19"),
                "st1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{target}], #64",
                "b.ne 2b",
                source = inout(reg) source => _,
                blocks = inout(reg) blocks.len() => _,
                target = inout(reg) target,
                inverse = in(vreg) vdupq_n_f32(inverse),
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                options(nostack),
            );
        }
    }
    let (chunks, tail) = rest.as_chunks::<16>();
    // SAFETY: the caller's: each chunk takes the next 16 bytes.
    unsafe {
        for (index, chunk) in chunks.iter().enumerate() {
            vst1q_s8(target.add(16 * index), quantize_16(chunk, inverse));
        }
        if !tail.is_empty() {
            vst1q_s8(target.add(16 * chunks.len()), quantize_16(&padded(tail), inverse));
        }
    }
}

/// One row that may hold anything.
///
/// # Safety
/// As for `quantize_row`.
#[cold]
#[target_feature(enable = "neon")]
unsafe fn quantize_strange_row(row: &[f32], inverse: f32, target: *mut i8) {
    for (index, chunk) in row.chunks(16).enumerate() {
        let chunk = padded(chunk).map(finite);
        // SAFETY: the caller's: each chunk takes the next 16 bytes.
        unsafe { vst1q_s8(target.add(16 * index), quantize_16(&chunk, inverse)) }
    }
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
