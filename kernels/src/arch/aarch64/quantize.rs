//! Row quantization with NEON.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, uint32x4_t, vabsq_f32, vcvtnq_s32_f32, vdupq_n_f32, vdupq_n_u32, vget_high_s8,
    vget_low_s8, vld1q_f32_x4, vmaxq_u32, vmaxvq_u32, vmulq_f32, vreinterpretq_s8_s16, vreinterpretq_s16_s32,
    vreinterpretq_u32_f32, vst1_s8, vst1q_s8, vuzp1q_s8, vuzp1q_s16,
};

use crate::arch::scalar::{RowScale, finite, row_scale};
use crate::quantize::Quantization;

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
                (true, true) => quantize_row::<true, true>(source, scale.inverse, target),
                (true, false) => quantize_row::<true, false>(source, scale.inverse, target),
                (false, true) => quantize_row::<false, true>(source, scale.inverse, target),
                (false, false) => quantize_row::<false, false>(source, scale.inverse, target),
            }
        }
    }
}

/// The largest magnitude as bits, which order as the floats do; above infinity's where there is a NaN.
#[inline]
#[target_feature(enable = "neon")]
fn largest_magnitude(row: &[f32]) -> u32 {
    let mut largest = [vdupq_n_u32(0); 4];
    let (chunks, tail) = row.as_chunks::<16>();
    for chunk in chunks {
        largest = larger(largest, chunk);
    }
    if !tail.is_empty() {
        let mut chunk = [0.0; 16];
        chunk[..tail.len()].copy_from_slice(tail);
        largest = larger(largest, &chunk);
    }
    let [a, b, c, d] = largest;
    vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d)))
}

#[inline]
#[target_feature(enable = "neon")]
fn larger(largest: [uint32x4_t; 4], chunk: &[f32; 16]) -> [uint32x4_t; 4] {
    // SAFETY: the chunk holds 16 floats.
    let chunk = unsafe { vld1q_f32_x4(chunk.as_ptr()) };
    let [a, b, c, d] = largest;
    [
        vmaxq_u32(a, magnitude(chunk.0)),
        vmaxq_u32(b, magnitude(chunk.1)),
        vmaxq_u32(c, magnitude(chunk.2)),
        vmaxq_u32(d, magnitude(chunk.3)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn magnitude(values: float32x4_t) -> uint32x4_t {
    vreinterpretq_u32_f32(vabsq_f32(values))
}

/// One row. `FINITE`: it holds neither NaN nor infinity.
///
/// # Safety
/// Where `PAIRED`, 8 bytes at `target` and at every 16th after it may be written, else all bytes, in both
/// cases as many as the row has inputs with padding to 16.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quantize_row<const PAIRED: bool, const FINITE: bool>(
    row: &[f32],
    inverse: f32,
    mut target: *mut i8,
) {
    let store = |target: *mut i8, values: int8x16_t| {
        // SAFETY: the caller's: 16 inputs take 16 bytes, or 8 of each of two times 16.
        unsafe {
            if PAIRED {
                vst1_s8(target, vget_low_s8(values));
                vst1_s8(target.add(16), vget_high_s8(values));
                target.add(32)
            } else {
                vst1q_s8(target, values);
                target.add(16)
            }
        }
    };
    let (chunks, tail) = row.as_chunks::<16>();
    for chunk in chunks {
        let quantized =
            if FINITE { quantize_16(chunk, inverse) } else { quantize_16(&chunk.map(finite), inverse) };
        target = store(target, quantized);
    }
    if !tail.is_empty() {
        let mut chunk = [0.0; 16];
        chunk[..tail.len()].copy_from_slice(tail);
        store(target, quantize_16(&chunk.map(finite), inverse));
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
