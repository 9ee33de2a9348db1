//! Sixteen lanes as one AVX-512 vector.

use core::arch::x86_64::*;

use super::{LANES, Lanes, Operation, QUADS, Run};

/// Exists only where AVX-512 F, BW, VL do: [`run`] makes it.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

/// # Safety
/// The features exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
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
    fn mul_quad<const LANE: i32>(self, a: __m512, quad: [f32; 4]) -> __m512 {
        self.mul(a, self.splat(quad[LANE as usize]))
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

    #[inline(always)]
    fn power_parts(self, biased: __m512) -> (__m512, __m512, __m512) {
        let scaled = self.mul(biased, self.splat(8_388_608.0));
        avx512! {
            // The maximum is 0 where the first operand is NaN.
            let bits = _mm512_cvttps_epi32(_mm512_max_ps(scaled, _mm512_setzero_ps()));
            let mask = |mask: u32| _mm512_set1_epi32(mask.cast_signed());
            let part = _mm512_and_si512(bits, mask(0x007f_ffff));
            (
                _mm512_castsi512_ps(_mm512_and_si512(bits, mask(0xff80_0000))),
                _mm512_castsi512_ps(_mm512_or_si512(part, mask(0x3f00_0000))),
                _mm512_castsi512_ps(bits),
            )
        }
    }

    #[inline(always)]
    fn to_quads(self, vectors: [__m512; 4]) -> [i8; QUADS] {
        let mut bytes = [0; QUADS];
        avx512! {
            let low = _mm512_set1_epi32(0xff);
            let [first, second, third, fourth] = vectors.map(|vector| _mm512_cvtps_epi32(vector));
            let second = _mm512_slli_epi32::<8>(_mm512_and_si512(second, low));
            let third = _mm512_slli_epi32::<16>(_mm512_and_si512(third, low));
            let front = _mm512_or_si512(_mm512_and_si512(first, low), second);
            let back = _mm512_or_si512(third, _mm512_slli_epi32::<24>(fourth));
            _mm512_storeu_si512(bytes.as_mut_ptr().cast(), _mm512_or_si512(front, back));
        }
        bytes
    }

    #[inline(always)]
    unsafe fn multiply_quads(self, rows: *const i8, columns: *const i8, runs: &[Run]) -> [__m512i; 4] {
        // `vpdpbusd` takes one operand without sign: the rows plus 128, and 128 times the columns is taken off again.
        let mut sums = [self.no_sums(); 4];
        let mut excess = self.no_sums();
        for block in runs.iter().flat_map(|run| run.first..run.first + run.blocks) {
            // SAFETY: the caller's promise; VNNI is among the features.
            unsafe {
                let sign = _mm512_set1_epi8(-128);
                let columns = _mm512_loadu_si512(columns.add(64 * block).cast());
                excess = _mm512_dpbusd_epi32(excess, sign, columns);
                for row in 0..4 {
                    let values = rows.add(16 * block + 4 * row).cast::<i32>().read_unaligned();
                    let values = _mm512_xor_si512(_mm512_set1_epi32(values), sign);
                    sums[row] = _mm512_dpbusd_epi32(sums[row], values, columns);
                }
            }
        }
        for row in 0..4 {
            sums[row] = avx512!(_mm512_sub_epi32(sums[row], excess));
        }
        sums
    }
}
