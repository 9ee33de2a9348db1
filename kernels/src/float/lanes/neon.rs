//! Sixteen lanes as four NEON vectors.

use core::arch::aarch64::*;

use super::{LANES, Lanes, Operation};

/// Exists only where NEON does: [`run`] makes it.
#[derive(Clone, Copy)]
pub(super) struct Neon(());

/// Four vectors of four lanes, in order.
type Vectors = [float32x4_t; 4];

/// # Safety
/// NEON exists.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    // Five sums of four registers, five quads and one operand of four registers: 29 of 32. Six sums: 30.
    operation.run::<Neon, 5, 6>(Neon(()))
}

macro_rules! neon {
    ($($code:tt)*) => {{
        // SAFETY: a `Neon` exists only where NEON does; pointers come from array references of the length read.
        unsafe { $($code)* }
    }};
}

/// One instruction on each of the four vectors.
macro_rules! each {
    ($function:ident($($operand:expr),*)) => {
        neon!([
            $function($($operand[0]),*),
            $function($($operand[1]),*),
            $function($($operand[2]),*),
            $function($($operand[3]),*),
        ])
    };
}

impl Lanes for Neon {
    type F = Vectors;
    type Quad = float32x4_t;
    type Words = [int16x8_t; 2];
    type Sums = [int32x4_t; 4];

    #[inline(always)]
    fn splat(self, value: f32) -> Vectors {
        [neon!(vdupq_n_f32(value)); 4]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Vectors {
        let start = values.as_ptr();
        neon!([vld1q_f32(start), vld1q_f32(start.add(4)), vld1q_f32(start.add(8)), vld1q_f32(start.add(12)),])
    }

    #[inline(always)]
    fn store(self, vector: Vectors, values: &mut [f32; LANES]) {
        let start = values.as_mut_ptr();
        neon! {
            vst1q_f32(start, vector[0]);
            vst1q_f32(start.add(4), vector[1]);
            vst1q_f32(start.add(8), vector[2]);
            vst1q_f32(start.add(12), vector[3]);
        }
    }

    #[inline(always)]
    fn to_bytes(self, vector: Vectors) -> [i8; LANES] {
        let integers = each!(vcvtnq_s32_f32(vector));
        let mut bytes = [0; LANES];
        neon! {
            let low = vmovn_high_s32(vmovn_s32(integers[0]), integers[1]);
            let high = vmovn_high_s32(vmovn_s32(integers[2]), integers[3]);
            vst1q_s8(bytes.as_mut_ptr(), vmovn_high_s16(vmovn_s16(low), high));
        }
        bytes
    }

    #[inline(always)]
    fn load_twice(self, values: &[f32; LANES / 2]) -> Vectors {
        neon! {
            let (low, high) = (vld1q_f32(values.as_ptr()), vld1q_f32(values.as_ptr().add(4)));
            [vzip1q_f32(low, low), vzip2q_f32(low, low), vzip1q_f32(high, high), vzip2q_f32(high, high)]
        }
    }

    #[inline(always)]
    fn swap_pairs(self, vector: Vectors) -> Vectors {
        each!(vrev64q_f32(vector))
    }

    #[inline(always)]
    fn add(self, a: Vectors, b: Vectors) -> Vectors {
        each!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Vectors, b: Vectors) -> Vectors {
        each!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Vectors, b: Vectors) -> Vectors {
        each!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: Vectors, b: Vectors) -> Vectors {
        each!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Vectors, b: Vectors, c: Vectors) -> Vectors {
        each!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn fnma(self, a: Vectors, b: Vectors, c: Vectors) -> Vectors {
        each!(vfmsq_f32(c, a, b))
    }

    #[inline(always)]
    fn abs(self, a: Vectors) -> Vectors {
        each!(vabsq_f32(a))
    }

    #[inline(always)]
    fn max(self, bound: Vectors, value: Vectors) -> Vectors {
        each!(vmaxq_f32(bound, value))
    }

    #[inline(always)]
    fn min(self, bound: Vectors, value: Vectors) -> Vectors {
        each!(vminq_f32(bound, value))
    }

    #[inline(always)]
    fn where_less(self, a: Vectors, b: Vectors, then: Vectors, otherwise: Vectors) -> Vectors {
        let less = each!(vcltq_f32(a, b));
        each!(vbslq_f32(less, then, otherwise))
    }

    #[inline(always)]
    fn any_greater(self, a: Vectors, b: Vectors) -> bool {
        let greater = each!(vcgtq_f32(a, b));
        neon! {
            let any = vorrq_u32(vorrq_u32(greater[0], greater[1]), vorrq_u32(greater[2], greater[3]));
            vmaxvq_u32(any) != 0
        }
    }

    #[inline(always)]
    fn bits_to_exponent(self, a: Vectors) -> Vectors {
        let bits = each!(vreinterpretq_u32_f32(a));
        neon!([
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(bits[0])),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(bits[1])),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(bits[2])),
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(bits[3])),
        ])
    }

    #[inline(always)]
    fn sum(self, a: Vectors) -> f32 {
        neon! {
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(vpadd_f32(two, two))
        }
    }

    #[inline(always)]
    fn largest(self, a: Vectors) -> f32 {
        neon!(vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[2]), vmaxq_f32(a[1], a[3]))))
    }

    #[inline(always)]
    fn quad(self, values: &[f32; 4]) -> float32x4_t {
        neon!(vld1q_f32(values.as_ptr()))
    }

    #[inline(always)]
    fn fma_quad<const LANE: i32>(self, a: Vectors, quad: float32x4_t, c: Vectors) -> Vectors {
        neon!([
            vfmaq_laneq_f32::<LANE>(c[0], a[0], quad),
            vfmaq_laneq_f32::<LANE>(c[1], a[1], quad),
            vfmaq_laneq_f32::<LANE>(c[2], a[2], quad),
            vfmaq_laneq_f32::<LANE>(c[3], a[3], quad),
        ])
    }

    #[inline(always)]
    fn splat_words(self, value: i16) -> [int16x8_t; 2] {
        [neon!(vdupq_n_s16(value)); 2]
    }

    #[inline(always)]
    fn load_words(self, values: &[i16; LANES]) -> [int16x8_t; 2] {
        neon!([vld1q_s16(values.as_ptr()), vld1q_s16(values.as_ptr().add(8))])
    }

    #[inline(always)]
    fn to_words(self, vector: Vectors) -> [i16; LANES] {
        let integers = each!(vcvtnq_s32_f32(vector));
        let mut words = [0; LANES];
        neon! {
            vst1q_s16(words.as_mut_ptr(), vmovn_high_s32(vmovn_s32(integers[0]), integers[1]));
            vst1q_s16(words.as_mut_ptr().add(8), vmovn_high_s32(vmovn_s32(integers[2]), integers[3]));
        }
        words
    }

    #[inline(always)]
    fn no_sums(self) -> [int32x4_t; 4] {
        [neon!(vdupq_n_s32(0)); 4]
    }

    #[inline(always)]
    fn multiply_bytes(
        self,
        bytes: &[i8; LANES],
        words: [int16x8_t; 2],
        sums: [int32x4_t; 4],
    ) -> [int32x4_t; 4] {
        neon! {
            let bytes = vld1q_s8(bytes.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(words[0])),
                vmlal_high_s16(sums[1], low, words[0]),
                vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(words[1])),
                vmlal_high_s16(sums[3], high, words[1]),
            ]
        }
    }

    #[inline(always)]
    fn sums_to_floats(self, sums: [int32x4_t; 4]) -> Vectors {
        each!(vcvtq_f32_s32(sums))
    }

    #[inline(always)]
    fn total(self, sums: [int32x4_t; 4]) -> i64 {
        neon! {
            let pairs = vpadalq_s32(vpaddlq_s32(sums[0]), sums[1]);
            vaddvq_s64(vpadalq_s32(vpadalq_s32(pairs, sums[2]), sums[3]))
        }
    }

    #[inline(always)]
    fn opaque(self, mut pointer: *const f32) -> *const f32 {
        // SAFETY: no instruction is executed.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    }

    #[inline(always)]
    unsafe fn columns(self, rows: &[*const f32; LANES]) -> [Vectors; 4] {
        let mut columns = [self.splat(0.0); 4];
        for group in 0..4 {
            neon! {
                let [first, second, third, fourth] =
                    [rows[4 * group], rows[4 * group + 1], rows[4 * group + 2], rows[4 * group + 3]];
                let (first, second) = (vld1q_f32(first), vld1q_f32(second));
                let (third, fourth) = (vld1q_f32(third), vld1q_f32(fourth));
                let (low, high) = (vzip1q_f32(first, third), vzip2q_f32(first, third));
                let (low_odd, high_odd) = (vzip1q_f32(second, fourth), vzip2q_f32(second, fourth));
                columns[0][group] = vzip1q_f32(low, low_odd);
                columns[1][group] = vzip2q_f32(low, low_odd);
                columns[2][group] = vzip1q_f32(high, high_odd);
                columns[3][group] = vzip2q_f32(high, high_odd);
            }
        }
        columns
    }
}
