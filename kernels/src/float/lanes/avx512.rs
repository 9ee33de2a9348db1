//! Sixteen lanes as one AVX-512 vector.

use core::arch::x86_64::*;

use super::{LANES, Lanes, Operation};

/// Exists only where AVX-512 F, BW, VL do: [`run`] makes it.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The features exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
pub(super) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    // Twelve chains hide the latency of two multiply-adds a cycle.
    operation.run::<Avx512, 12, 12>(Avx512(()))
}

macro_rules! avx512 {
    ($($code:tt)*) => {{
        // SAFETY: an `Avx512` exists only where the features do; pointers come from array references of the
        // length read.
        unsafe { $($code)* }
    }};
}

impl Lanes for Avx512 {
    type F = __m512;
    type Quad = [f32; 4];
    /// Each in the lower half of 32 bits, the upper half 0: `vpmaddwd` then multiplies one by one.
    type Words = __m512i;
    type Sums = __m512i;

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        avx512!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        avx512!(_mm512_loadu_ps(values.as_ptr()))
    }

    #[inline(always)]
    fn store(self, vector: __m512, values: &mut [f32; LANES]) {
        avx512!(_mm512_storeu_ps(values.as_mut_ptr(), vector))
    }

    #[inline(always)]
    fn to_bytes(self, vector: __m512) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        avx512! {
            let narrow = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(vector));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow);
        }
        bytes
    }

    #[inline(always)]
    fn load_twice(self, values: &[f32; LANES / 2]) -> __m512 {
        avx512! {
            let order = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            _mm512_permutexvar_ps(order, _mm512_castps256_ps512(_mm256_loadu_ps(values.as_ptr())))
        }
    }

    #[inline(always)]
    fn swap_pairs(self, vector: __m512) -> __m512 {
        avx512!(_mm512_permute_ps::<0b10_11_00_01>(vector))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        avx512!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        avx512!(_mm512_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        avx512!(_mm512_abs_ps(a))
    }

    #[inline(always)]
    fn max(self, bound: __m512, value: __m512) -> __m512 {
        // The instruction returns its second operand when one is NaN.
        avx512!(_mm512_max_ps(bound, value))
    }

    #[inline(always)]
    fn min(self, bound: __m512, value: __m512) -> __m512 {
        avx512!(_mm512_min_ps(bound, value))
    }

    #[inline(always)]
    fn where_less(self, a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
        avx512!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then))
    }

    #[inline(always)]
    fn any_greater(self, a: __m512, b: __m512) -> bool {
        avx512!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) != 0)
    }

    #[inline(always)]
    fn bits_to_exponent(self, a: __m512) -> __m512 {
        avx512!(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a))))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        avx512! {
            let upper = _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_castps512_ps256(upper));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        avx512! {
            let upper = _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a);
            let eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_castps512_ps256(upper));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn quad(self, values: &[f32; 4]) -> [f32; 4] {
        *values
    }

    #[inline(always)]
    fn fma_quad<const LANE: i32>(self, a: __m512, quad: [f32; 4], c: __m512) -> __m512 {
        self.fma(a, self.splat(quad[LANE as usize]), c)
    }

    #[inline(always)]
    fn splat_words(self, value: i16) -> __m512i {
        avx512!(_mm512_set1_epi32(i32::from(value.cast_unsigned())))
    }

    #[inline(always)]
    fn load_words(self, values: &[i16; LANES]) -> __m512i {
        avx512!(_mm512_cvtepu16_epi32(_mm256_loadu_si256(values.as_ptr().cast())))
    }

    #[inline(always)]
    fn to_words(self, vector: __m512) -> [i16; LANES] {
        let mut words = [0; LANES];
        avx512! {
            let narrow = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(vector));
            _mm256_storeu_si256(words.as_mut_ptr().cast(), narrow);
        }
        words
    }

    #[inline(always)]
    fn no_sums(self) -> __m512i {
        avx512!(_mm512_setzero_si512())
    }

    #[inline(always)]
    fn multiply_bytes(self, bytes: &[i8; LANES], words: __m512i, sums: __m512i) -> __m512i {
        avx512! {
            let bytes = _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm512_add_epi32(sums, _mm512_madd_epi16(bytes, words))
        }
    }

    #[inline(always)]
    fn sums_to_floats(self, sums: __m512i) -> __m512 {
        avx512!(_mm512_cvtepi32_ps(sums))
    }

    #[inline(always)]
    fn total(self, sums: __m512i) -> i64 {
        avx512! {
            let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
            let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
            _mm512_reduce_add_epi64(_mm512_add_epi64(low, high))
        }
    }
}
