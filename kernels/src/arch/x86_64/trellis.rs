//! Symbols of a trellis to int4: 16 outputs x 8 inputs at a time, one input of each pair in either half of a register.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_or_si128, _mm_slli_epi16, _mm_storeu_si128, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi8, _mm256_shuffle_epi8, _mm256_slli_epi16,
    _mm256_srli_epi16, _mm256_xor_si256,
};

use kinglet_model_format::trellis::{LEVEL_AT, TURN};
use kinglet_model_format::{Int3Block, Int3Matrix, WideBlock};

use crate::arch::scalar::for_each_block;

/// As [`scalar::widen_trellis`](crate::arch::scalar::widen_trellis).
#[target_feature(enable = "avx2")]
pub(super) fn widen_trellis(weights: &Int3Matrix<'_>, first: usize, wide: &mut [i8]) {
    let (levels, turns) = (table(&LEVEL_AT.map(|level| level as u8)), table(&TURN));
    for_each_block(weights, first, wide, |block, before, wide| {
        widen_block(levels, turns, block, before, wide);
    });
}

#[inline]
#[target_feature(enable = "avx2")]
fn widen_block(
    levels: [__m256i; 4],
    turns: [__m256i; 4],
    block: &Int3Block,
    before: &Int3Block,
    wide: &mut WideBlock,
) {
    let ([first, second], [third, fourth]) = (pairs(before), pairs(block));
    let (a, b, c) = (between(first, second), between(second, third), between(third, fourth));
    let steps = [(b, a), (third, second), (c, b), (fourth, third)];
    for ((later, earlier), wide) in steps.into_iter().zip(wide.as_chunks_mut::<16>().0) {
        let both = look_up(levels, _mm256_xor_si256(later, look_up(turns, earlier)));
        // Half bytes, so that nothing leaves a byte.
        let both = _mm256_and_si256(both, _mm256_set1_epi8(0xf));
        let high = _mm_slli_epi16::<4>(_mm256_extracti128_si256::<1>(both));
        let halves = _mm_or_si128(_mm256_castsi256_si128(both), high);
        // SAFETY: these are 16 bytes.
        unsafe { _mm_storeu_si128(wide.as_mut_ptr().cast(), halves) };
    }
}

/// The two pairs of symbols, six bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(block: &Int3Block) -> [__m256i; 2] {
    // SAFETY: three times 16 bytes of 48.
    let load = |first| unsafe { _mm_loadu_si128(block.as_ptr().add(first).cast::<__m128i>()) };
    let [a, b, c] = [load(0), load(16), load(32)];
    let six = _mm256_set1_epi8(63);
    let last = {
        let [a, b, c] = [a, b, c].map(|vector| _mm256_broadcastsi128_si256(vector));
        let [a, b] = [(_mm256_srli_epi16::<6>(a), 0x03), (_mm256_srli_epi16::<4>(b), 0x0c)]
            .map(|(bits, kept)| _mm256_and_si256(bits, _mm256_set1_epi8(kept)));
        let c = _mm256_and_si256(_mm256_srli_epi16::<2>(c), _mm256_set1_epi8(0x30));
        _mm256_castsi256_si128(_mm256_or_si256(_mm256_or_si256(a, b), c))
    };
    [_mm256_set_m128i(c, a), _mm256_set_m128i(last, b)].map(|pairs| _mm256_and_si256(pairs, six))
}

/// The pair of the later symbol of `a` and the earlier one of `b`.
#[inline]
#[target_feature(enable = "avx2")]
fn between(a: __m256i, b: __m256i) -> __m256i {
    let a = _mm256_and_si256(_mm256_slli_epi16::<3>(a), _mm256_set1_epi8(0x38));
    let b = _mm256_and_si256(_mm256_srli_epi16::<3>(b), _mm256_set1_epi8(0x07));
    _mm256_or_si256(a, b)
}

/// 16 of 64 bytes a register, twice.
#[inline]
#[target_feature(enable = "avx2")]
fn table(bytes: &[u8; 64]) -> [__m256i; 4] {
    // SAFETY: four times 16 bytes of 64.
    [0, 16, 32, 48].map(|first| unsafe {
        _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().add(first).cast()))
    })
}

/// The bytes at `places` 0 to 63.
#[inline]
#[target_feature(enable = "avx2")]
fn look_up(table: [__m256i; 4], places: __m256i) -> __m256i {
    let [a, b, c, d] = table.map(|part| _mm256_shuffle_epi8(part, places));
    // Which part: bits 4 and 5, moved to where a blend looks.
    let (fourth, fifth) = (_mm256_slli_epi16::<3>(places), _mm256_slli_epi16::<2>(places));
    let [low, high] = [(a, b), (c, d)].map(|(even, odd)| _mm256_blendv_epi8(even, odd, fourth));
    _mm256_blendv_epi8(low, high, fifth)
}
