//! Sixteen lanes as two AVX vectors.

use core::arch::x86_64::*;

use super::{LANES, Lanes, Operation, QUADS, Run};

/// Exists only where AVX2 and FMA do: [`run`] makes it.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

/// Lanes 0..8 and 8..16.
type Vectors = [__m256; 2];

/// # Safety
/// The features exist.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    // Five sums of two registers, one operand of two and one broadcast value: 13 of 16.
    operation.run::<Avx2, 5, 6>(Avx2(()))
}

macro_rules! avx2 {
    ($($code:tt)*) => {{
        // SAFETY: an `Avx2` exists only where the features do; pointers come from array references of the length
        // read.
        unsafe { $($code)* }
    }};
}

/// One instruction on each of the two vectors.
macro_rules! each {
    ($function:ident $(::<$constant:tt>)? ($($operand:expr),*)) => {
        avx2!([$function $(::<$constant>)? ($($operand[0]),*), $function $(::<$constant>)? ($($operand[1]),*)])
    };
}

impl Lanes for Avx2 {
    type F = Vectors;
    type Quad = [f32; 4];
    /// Each in the lower half of 32 bits, the upper half 0: `vpmaddwd` then multiplies one by one.
    type Words = [__m256i; 2];
    type Sums = [__m256i; 2];

    #[inline(always)]
    fn splat(self, value: f32) -> Vectors {
        [avx2!(_mm256_set1_ps(value)); 2]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Vectors {
        avx2!([_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))])
    }

    #[inline(always)]
    fn store(self, vector: Vectors, values: &mut [f32; LANES]) {
        avx2! {
            _mm256_storeu_ps(values.as_mut_ptr(), vector[0]);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), vector[1]);
        }
    }

    #[inline(always)]
    fn to_bytes(self, vector: Vectors) -> [i8; LANES] {
        let integers = each!(_mm256_cvtps_epi32(vector));
        let mut bytes = [0; LANES];
        avx2! {
            // Packing works within 128-bit halves; the permutation puts its quarters in order.
            let words = _mm256_packs_epi32(integers[0], integers[1]);
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let packed = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed);
        }
        bytes
    }

    #[inline(always)]
    fn load_twice(self, values: &[f32; LANES / 2]) -> Vectors {
        avx2! {
            let all = _mm256_loadu_ps(values.as_ptr());
            [
                _mm256_permutevar8x32_ps(all, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)),
                _mm256_permutevar8x32_ps(all, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7)),
            ]
        }
    }

    #[inline(always)]
    fn swap_pairs(self, vector: Vectors) -> Vectors {
        each!(_mm256_permute_ps::<0b10_11_00_01>(vector))
    }

    #[inline(always)]
    fn add(self, a: Vectors, b: Vectors) -> Vectors {
        each!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Vectors, b: Vectors) -> Vectors {
        each!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Vectors, b: Vectors) -> Vectors {
        each!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Vectors, b: Vectors) -> Vectors {
        each!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Vectors, b: Vectors, c: Vectors) -> Vectors {
        each!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn fnma(self, a: Vectors, b: Vectors, c: Vectors) -> Vectors {
        each!(_mm256_fnmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn abs(self, a: Vectors) -> Vectors {
        let sign = self.splat(-0.0);
        each!(_mm256_andnot_ps(sign, a))
    }

    #[inline(always)]
    fn max(self, bound: Vectors, value: Vectors) -> Vectors {
        // The instruction returns its second operand when one is NaN.
        each!(_mm256_max_ps(bound, value))
    }

    #[inline(always)]
    fn min(self, bound: Vectors, value: Vectors) -> Vectors {
        each!(_mm256_min_ps(bound, value))
    }

    #[inline(always)]
    fn where_less(self, a: Vectors, b: Vectors, then: Vectors, otherwise: Vectors) -> Vectors {
        let less = each!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        each!(_mm256_blendv_ps(otherwise, then, less))
    }

    #[inline(always)]
    fn any_greater(self, a: Vectors, b: Vectors) -> bool {
        let greater = each!(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b));
        avx2!(_mm256_movemask_ps(_mm256_or_ps(greater[0], greater[1])) != 0)
    }

    #[inline(always)]
    fn bits_to_exponent(self, a: Vectors) -> Vectors {
        let bits = each!(_mm256_castps_si256(a));
        let bits = each!(_mm256_slli_epi32::<23>(bits));
        each!(_mm256_castsi256_ps(bits))
    }

    #[inline(always)]
    fn sum(self, a: Vectors) -> f32 {
        avx2! {
            let eight = _mm256_add_ps(a[0], a[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self, a: Vectors) -> f32 {
        avx2! {
            let eight = _mm256_max_ps(a[0], a[1]);
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
    fn fma_quad<const LANE: i32>(self, a: Vectors, quad: [f32; 4], c: Vectors) -> Vectors {
        self.fma(a, self.splat(quad[LANE as usize]), c)
    }

    #[inline(always)]
    fn mul_quad<const LANE: i32>(self, a: Vectors, quad: [f32; 4]) -> Vectors {
        self.mul(a, self.splat(quad[LANE as usize]))
    }

    #[inline(always)]
    fn splat_words(self, value: i16) -> [__m256i; 2] {
        [avx2!(_mm256_set1_epi32(i32::from(value.cast_unsigned()))); 2]
    }

    #[inline(always)]
    fn load_words(self, values: &[i16; LANES]) -> [__m256i; 2] {
        avx2! {
            let words = _mm256_loadu_si256(values.as_ptr().cast());
            [
                _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words)),
                _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(words)),
            ]
        }
    }

    #[inline(always)]
    fn to_words(self, vector: Vectors) -> [i16; LANES] {
        let integers = each!(_mm256_cvtps_epi32(vector));
        let mut words = [0; LANES];
        avx2! {
            // Packing works within 128-bit halves; the permutation puts its quarters in order.
            let packed = _mm256_packs_epi32(integers[0], integers[1]);
            _mm256_storeu_si256(words.as_mut_ptr().cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
        words
    }

    #[inline(always)]
    fn no_sums(self) -> [__m256i; 2] {
        [avx2!(_mm256_setzero_si256()); 2]
    }

    #[inline(always)]
    fn multiply_bytes(self, bytes: &[i8; LANES], words: [__m256i; 2], sums: [__m256i; 2]) -> [__m256i; 2] {
        avx2! {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let low = _mm256_cvtepi8_epi32(bytes);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes, bytes));
            [
                _mm256_add_epi32(sums[0], _mm256_madd_epi16(low, words[0])),
                _mm256_add_epi32(sums[1], _mm256_madd_epi16(high, words[1])),
            ]
        }
    }

    #[inline(always)]
    fn sums_to_floats(self, sums: [__m256i; 2]) -> Vectors {
        each!(_mm256_cvtepi32_ps(sums))
    }

    #[inline(always)]
    fn total(self, sums: [__m256i; 2]) -> i64 {
        let mut lanes = [0_i32; LANES];
        avx2! {
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums[0]);
            _mm256_storeu_si256(lanes.as_mut_ptr().add(8).cast(), sums[1]);
        }
        lanes.into_iter().map(i64::from).sum()
    }

    #[inline(always)]
    fn power_parts(self, biased: Vectors) -> (Vectors, Vectors, Vectors) {
        let scaled = self.mul(biased, self.splat(8_388_608.0));
        // The maximum is 0 where the first operand is NaN.
        let zero = self.splat(0.0);
        let positive = each!(_mm256_max_ps(scaled, zero));
        let bits = each!(_mm256_cvttps_epi32(positive));
        let mask = |mask: u32| [avx2!(_mm256_set1_epi32(mask.cast_signed())); 2];
        let (whole, part, half) = (mask(0xff80_0000), mask(0x007f_ffff), mask(0x3f00_0000));
        let power = each!(_mm256_and_si256(bits, whole));
        let part = each!(_mm256_and_si256(bits, part));
        let part = each!(_mm256_or_si256(part, half));
        (
            each!(_mm256_castsi256_ps(power)),
            each!(_mm256_castsi256_ps(part)),
            each!(_mm256_castsi256_ps(bits)),
        )
    }

    #[inline(always)]
    fn to_quads(self, vectors: [Vectors; 4]) -> [i8; QUADS] {
        let low = [avx2!(_mm256_set1_epi32(0xff)); 2];
        let [first, second, third, fourth] = vectors.map(|vector| each!(_mm256_cvtps_epi32(vector)));
        let (first, second) = (each!(_mm256_and_si256(first, low)), each!(_mm256_and_si256(second, low)));
        let (third, second) = (each!(_mm256_and_si256(third, low)), each!(_mm256_slli_epi32::<8>(second)));
        let (third, fourth) = (each!(_mm256_slli_epi32::<16>(third)), each!(_mm256_slli_epi32::<24>(fourth)));
        let (front, back) = (each!(_mm256_or_si256(first, second)), each!(_mm256_or_si256(third, fourth)));
        let quads = each!(_mm256_or_si256(front, back));
        let mut bytes = [0; QUADS];
        avx2! {
            _mm256_storeu_si256(bytes.as_mut_ptr().cast(), quads[0]);
            _mm256_storeu_si256(bytes.as_mut_ptr().add(32).cast(), quads[1]);
        }
        bytes
    }

    #[inline(always)]
    unsafe fn multiply_quads(self, rows: *const i8, columns: *const i8, runs: &[Run]) -> [[__m256i; 2]; 4] {
        let mut sums = [self.no_sums(); 4];
        for block in runs.iter().flat_map(|run| run.first..run.first + run.blocks) {
            // SAFETY: the caller's promise. As in the product of matrices, the magnitude of the columns is the operand
            // without sign, and 2 * 128 * 127 fits int16.
            unsafe {
                let columns = columns.add(64 * block).cast::<__m256i>();
                let columns = [_mm256_loadu_si256(columns), _mm256_loadu_si256(columns.add(1))];
                let sizes = [_mm256_abs_epi8(columns[0]), _mm256_abs_epi8(columns[1])];
                for row in 0..4 {
                    let values = rows.add(16 * block + 4 * row).cast::<i32>().read_unaligned();
                    let values = _mm256_set1_epi32(values);
                    for half in 0..2 {
                        let signed = _mm256_sign_epi8(values, columns[half]);
                        let pairs = _mm256_maddubs_epi16(sizes[half], signed);
                        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        sums[row][half] = _mm256_add_epi32(sums[row][half], fours);
                    }
                }
            }
        }
        sums
    }
}
