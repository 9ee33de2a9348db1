//! Row quantization with AVX2 and with AVX-512.

use core::arch::x86_64::{
    __m128i, _mm_packs_epi16, _mm_set1_epi8, _mm_storeu_si128, _mm_xor_si128, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cvtps_epi32, _mm256_extracti128_si256, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_epu32, _mm256_mul_ps, _mm256_packs_epi32, _mm256_permute4x64_epi64,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_and_si512,
    _mm512_cvtepi32_epi8, _mm512_cvtps_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_max_epu32,
    _mm512_mul_ps, _mm512_reduce_max_epu32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512,
};

use crate::arch::scalar::{RowScale, finite, row_scale};
use crate::quantize::Quantization;

/// The rows, by `$largest_magnitude` (bits, which order as the floats do; above infinity's where there is a
/// NaN) and `$quantize_16`.
macro_rules! quantize_rows {
    ($(#[$doc:meta])* $name:ident, $features:literal, $largest_magnitude:ident, $quantize_16:ident) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub(super) fn $name(quantization: Quantization<'_>) {
            let Quantization { source, source_stride, inputs, padded_inputs, values, scales } = quantization;
            for (row, scale_out) in scales.iter_mut().enumerate() {
                let source = &source[row * source_stride..][..inputs];
                let target = &mut values[row * padded_inputs..][..padded_inputs];
                let (chunks, tail) = source.as_chunks::<16>();
                let mut last = [0.0; 16];
                last[..tail.len()].copy_from_slice(tail);
                let maximum = $largest_magnitude(chunks, &last);
                let is_finite = maximum <= f32::MAX.to_bits();
                let scale =
                    if is_finite { RowScale::for_maximum(f32::from_bits(maximum)) } else { row_scale(source) };
                *scale_out = scale.scale;
                let last = (!tail.is_empty()).then_some(&last);
                for (chunk, target) in chunks.iter().chain(last).zip(target.as_chunks_mut::<16>().0) {
                    let quantized = if is_finite {
                        $quantize_16(chunk, scale.inverse)
                    } else {
                        $quantize_16(&chunk.map(finite), scale.inverse)
                    };
                    // SAFETY: the target holds 16 bytes.
                    unsafe { _mm_storeu_si128(target.as_mut_ptr().cast(), quantized) };
                }
            }
        }
    };
}

quantize_rows!(
    /// Every row in the order [`RowOrder::Rows`](crate::quantize::RowOrder::Rows).
    quantize_rows_avx2, "avx2", largest_magnitude_avx2, quantize_16_avx2
);
quantize_rows!(
    /// Every row in the order [`RowOrder::OffsetRows`](crate::quantize::RowOrder::OffsetRows).
    quantize_rows_avx512, "avx512f,avx512bw,avx512vl", largest_magnitude_avx512, quantize_16_avx512
);

#[inline]
#[target_feature(enable = "avx2")]
fn largest_magnitude_avx2(chunks: &[[f32; 16]], last: &[f32; 16]) -> u32 {
    let magnitude = _mm256_set1_epi32(i32::MAX);
    let mut largest = [_mm256_setzero_si256(); 2];
    for chunk in chunks.iter().chain([last]) {
        for (half, largest) in largest.iter_mut().enumerate() {
            // SAFETY: the chunk holds 16 floats.
            let bits = unsafe { _mm256_loadu_si256(chunk.as_ptr().add(8 * half).cast()) };
            *largest = _mm256_max_epu32(*largest, _mm256_and_si256(bits, magnitude));
        }
    }
    let mut lanes = [0_u32; 8];
    // SAFETY: 8 lanes are 32 bytes.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_max_epu32(largest[0], largest[1])) };
    lanes.into_iter().fold(0, u32::max)
}

/// Rounded to even, as the processor does unless told otherwise.
#[inline]
#[target_feature(enable = "avx2")]
fn quantize_16_avx2(chunk: &[f32; 16], inverse: f32) -> __m128i {
    let inverse = _mm256_set1_ps(inverse);
    let quantize = |half: usize| {
        // SAFETY: the chunk holds 16 floats.
        let values = unsafe { _mm256_loadu_ps(chunk.as_ptr().add(8 * half)) };
        _mm256_cvtps_epi32(_mm256_mul_ps(values, inverse))
    };
    // Packing works within 128 bits: the permutation puts the four quarters into order again.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(quantize(0), quantize(1)));
    _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn largest_magnitude_avx512(chunks: &[[f32; 16]], last: &[f32; 16]) -> u32 {
    let magnitude = _mm512_set1_epi32(i32::MAX);
    let mut largest = _mm512_setzero_si512();
    for chunk in chunks.iter().chain([last]) {
        // SAFETY: the chunk holds 16 floats.
        let bits = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        largest = _mm512_max_epu32(largest, _mm512_and_si512(bits, magnitude));
    }
    _mm512_reduce_max_epu32(largest)
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn quantize_16_avx512(chunk: &[f32; 16], inverse: f32) -> __m128i {
    // SAFETY: the chunk holds 16 floats.
    let values = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
    let integers = _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(inverse)));
    _mm_xor_si128(_mm512_cvtepi32_epi8(integers), _mm_set1_epi8(-128))
}
