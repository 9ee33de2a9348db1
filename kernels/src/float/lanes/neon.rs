//! Sixteen lanes as four NEON vectors.

use core::arch::aarch64::*;
use core::arch::asm;

use super::{LANES, Lanes, Operation, QUADS, Run, neon_split};

/// Exists only where NEON does, and with `DOT` also `SDOT`: [`run`] and [`run_dotprod`] make it.
#[derive(Clone, Copy)]
pub(super) struct Neon<const DOT: bool>(());

/// Four vectors of four lanes, in order.
type Vectors = [float32x4_t; 4];

/// # Safety
/// NEON exists.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<O: Operation>(operation: O) -> O::Output {
    // Five sums of four registers, five quads and one operand of four registers: 29 of 32. Six sums: 30.
    operation.run::<Neon<false>, 5, 6>(Neon(()))
}

/// [`run`] for what multiplies int8 by int8.
///
/// # Safety
/// NEON and the dot products exist.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dotprod<O: Operation>(operation: O) -> O::Output {
    operation.run::<Neon<true>, 5, 6>(Neon(()))
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

impl<const DOT: bool> Lanes for Neon<DOT> {
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
    fn mul_quad<const LANE: i32>(self, a: Vectors, quad: float32x4_t) -> Vectors {
        neon!([
            vmulq_laneq_f32::<LANE>(a[0], quad),
            vmulq_laneq_f32::<LANE>(a[1], quad),
            vmulq_laneq_f32::<LANE>(a[2], quad),
            vmulq_laneq_f32::<LANE>(a[3], quad),
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
    fn power_parts(self, biased: Vectors) -> (Vectors, Vectors, Vectors) {
        let bits = each!(vcvtq_n_u32_f32_23(biased));
        let whole = [neon!(vdupq_n_u32(0xff80_0000)); 4];
        let part = [neon!(vdupq_n_u32(0x007f_ffff)); 4];
        let half = [neon!(vdupq_n_u32(0x3f00_0000)); 4];
        let power = each!(vandq_u32(bits, whole));
        let part = each!(vandq_u32(bits, part));
        let part = each!(vorrq_u32(part, half));
        (
            each!(vreinterpretq_f32_u32(power)),
            each!(vreinterpretq_f32_u32(part)),
            each!(vreinterpretq_f32_u32(bits)),
        )
    }

    #[inline(always)]
    fn to_quads(self, vectors: [Vectors; 4]) -> [i8; QUADS] {
        let [mut quads, second, third, fourth] = vectors.map(|vector| each!(vcvtnq_s32_f32(vector)));
        quads = neon!([
            vsliq_n_s32::<8>(quads[0], second[0]),
            vsliq_n_s32::<8>(quads[1], second[1]),
            vsliq_n_s32::<8>(quads[2], second[2]),
            vsliq_n_s32::<8>(quads[3], second[3]),
        ]);
        quads = neon!([
            vsliq_n_s32::<16>(quads[0], third[0]),
            vsliq_n_s32::<16>(quads[1], third[1]),
            vsliq_n_s32::<16>(quads[2], third[2]),
            vsliq_n_s32::<16>(quads[3], third[3]),
        ]);
        quads = neon!([
            vsliq_n_s32::<24>(quads[0], fourth[0]),
            vsliq_n_s32::<24>(quads[1], fourth[1]),
            vsliq_n_s32::<24>(quads[2], fourth[2]),
            vsliq_n_s32::<24>(quads[3], fourth[3]),
        ]);
        let mut bytes = [0; QUADS];
        for group in 0..4 {
            neon!(vst1q_s8(bytes.as_mut_ptr().add(16 * group), vreinterpretq_s8_s32(quads[group])));
        }
        bytes
    }

    #[inline(always)]
    fn any_byte(self, quads: &[i8; QUADS]) -> bool {
        let start = quads.as_ptr();
        neon! {
            let (first, second) = (vld1q_s8(start), vld1q_s8(start.add(16)));
            let (third, fourth) = (vld1q_s8(start.add(32)), vld1q_s8(start.add(48)));
            let any = vorrq_s8(vorrq_s8(first, second), vorrq_s8(third, fourth));
            vmaxvq_u32(vreinterpretq_u32_s8(any)) != 0
        }
    }

    #[inline(always)]
    unsafe fn multiply_quads(self, rows: *const i8, columns: *const i8, runs: &[Run]) -> [[int32x4_t; 4]; 4] {
        // SAFETY: the caller's promise; with `DOT` the dot products exist.
        unsafe { if DOT { quads_dotprod(rows, columns, runs) } else { quads_neon(rows, columns, runs) } }
    }

    #[inline(always)]
    fn split_words(self, dot_products: bool, blocks: &mut [[f32; LANES]]) -> bool {
        dot_products && neon!(neon_split::split_words(blocks))
    }

    #[inline(always)]
    unsafe fn weigh_split(self, blocks: &[[f32; LANES]], rows: *const i8, stride: usize) -> [i64; 4] {
        // SAFETY: the caller's promise, by which there are dot products.
        unsafe { neon_split::weigh_split(blocks, rows, stride) }
    }

    #[inline(always)]
    fn opaque(self, mut pointer: *const f32) -> *const f32 {
        // SAFETY: no instruction is executed.
        unsafe {
            asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    }

    #[inline(always)]
    fn in_memory<T>(self, table: &'static T) -> &'static T {
        let mut pointer = core::ptr::from_ref(table);
        // SAFETY: no instruction is executed. Not `pure`: what is read through the pointer stays in the loop.
        unsafe {
            asm!("/* {0} */", inout(reg) pointer, options(nomem, nostack, preserves_flags));
            &*pointer
        }
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

    #[inline(always)]
    fn rows(self, columns: [Vectors; 4]) -> [[f32; 4]; LANES] {
        let mut rows = [[0.0; 4]; LANES];
        for group in 0..4 {
            let [first, second, third, fourth] = columns.map(|column| column[group]);
            neon! {
                let (low, high) = (vzip1q_f32(first, third), vzip2q_f32(first, third));
                let (low_odd, high_odd) = (vzip1q_f32(second, fourth), vzip2q_f32(second, fourth));
                let start = rows.as_mut_ptr().add(4 * group).cast();
                vst1q_f32(start, vzip1q_f32(low, low_odd));
                vst1q_f32(start.add(4), vzip2q_f32(low, low_odd));
                vst1q_f32(start.add(8), vzip1q_f32(high, high_odd));
                vst1q_f32(start.add(12), vzip2q_f32(high, high_odd));
            }
        }
        rows
    }
}

/// Numbers with 23 bits behind the point, rounded down; 0 for what is negative or NaN.
///
/// # Safety
/// NEON exists.
#[inline(always)]
unsafe fn vcvtq_n_u32_f32_23(vector: float32x4_t) -> uint32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vcvtq_n_u32_f32::<23>(vector) }
}

/// Clears sums.
macro_rules! zeros {
    ($($sum:ident)+) => {
        concat!($("movi {", stringify!($sum), ":v}.4s, #0\n",)+)
    };
}

/// Adds what stands side by side in two sums each, into the first.
macro_rules! join {
    ($($sum:ident $other:ident),+) => {
        concat!($(
            "addp {", stringify!($sum), ":v}.4s, {", stringify!($sum), ":v}.4s, {", stringify!($other), ":v}.4s\n",
        )+)
    };
}

/// Goes on with the next run: its first row and column and its blocks; to 5 behind the last. Back to 4 where one is done.
macro_rules! next_run {
    () => {
        concat!("4:\n", "cmp {run}, {end}\n", "b.eq 5f\n", take_run!())
    };
}

/// The first row and column of a run and its blocks.
macro_rules! take_run {
    () => {
        concat!(
            "ldp {column}, {blocks}, [{run}], #16\n",
            "add {row}, {rows}, {column}, lsl #4\n",
            "add {column}, {columns}, {column}, lsl #6\n",
        )
    };
}

/// Products of four values of 4 rows with four of 16 columns, which are in v0 to v3.
macro_rules! dot {
    ($x:literal) => {
        concat!(
            dot!(@ a0 "v0" $x 0), dot!(@ b0 "v1" $x 0), dot!(@ c0 "v2" $x 0), dot!(@ d0 "v3" $x 0),
            dot!(@ a1 "v0" $x 1), dot!(@ b1 "v1" $x 1), dot!(@ c1 "v2" $x 1), dot!(@ d1 "v3" $x 1),
            dot!(@ a2 "v0" $x 2), dot!(@ b2 "v1" $x 2), dot!(@ c2 "v2" $x 2), dot!(@ d2 "v3" $x 2),
            dot!(@ a3 "v0" $x 3), dot!(@ b3 "v1" $x 3), dot!(@ c3 "v2" $x 3), dot!(@ d3 "v3" $x 3),
        )
    };
    (@ $sum:ident $columns:literal $x:literal $lane:literal) => {
        concat!("sdot {", stringify!($sum), ":v}.4s, ", $columns, ".16b, {", $x, ":v}.4b[", $lane, "]\n")
    };
}

/// [`Lanes::multiply_quads`] with `SDOT`.
///
/// # Safety
/// As there, and the dot products exist.
#[inline(always)]
unsafe fn quads_dotprod(rows: *const i8, columns: *const i8, runs: &[Run]) -> [[int32x4_t; 4]; 4] {
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    // SAFETY: 16 bytes of the rows and 64 of the columns are read for each block of the runs, of which none is empty.
    unsafe {
        asm!(
            zeros!(a0 b0 c0 d0 a1 b1 c1 d1 a2 b2 c2 d2 a3 b3 c3 d3),
            next_run!(),
            "tbz {blocks}, #0, 2f",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{column}], #64",
            "ldr {x:q}, [{row}], #16",
            "subs {blocks}, {blocks}, #1",
            dot!("x"),
            "b.eq 4b",
            "2:",
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{column}], #64",
            "ldp {x:q}, {y:q}, [{row}], #32",
            "subs {blocks}, {blocks}, #2",
            dot!("x"),
            "ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [{column}], #64",
            dot!("y"),
            "b.ne 2b",
            "b 4b",
            "5:",
            rows = in(reg) rows,
            columns = in(reg) columns,
            run = inout(reg) runs.as_ptr_range().start => _,
            end = in(reg) runs.as_ptr_range().end,
            row = out(reg) _, column = out(reg) _, blocks = out(reg) _,
            x = out(vreg) _, y = out(vreg) _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
            a0 = out(vreg) a0, b0 = out(vreg) b0, c0 = out(vreg) c0, d0 = out(vreg) d0,
            a1 = out(vreg) a1, b1 = out(vreg) b1, c1 = out(vreg) c1, d1 = out(vreg) d1,
            a2 = out(vreg) a2, b2 = out(vreg) b2, c2 = out(vreg) c2, d2 = out(vreg) d2,
            a3 = out(vreg) a3, b3 = out(vreg) b3, c3 = out(vreg) c3, d3 = out(vreg) d3,
            options(nostack, readonly),
        );
    }
    [[a0, b0, c0, d0], [a1, b1, c1, d1], [a2, b2, c2, d2], [a3, b3, c3, d3]]
}

/// Products of 8 columns with one row: the first block, then the second on top where there is one.
macro_rules! long {
    (one $add:literal $x:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(long!(@ $x), long!(+ $add $a $b $c $d))
    };
    ($x:literal $y:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            long!(@ $x),
            "smlal {p:v}.8h, {w2:v}.8b, ", $y, ".8b\n", "smlal2 {q:v}.8h, {w2:v}.16b, ", $y, ".16b\n",
            "smlal {r:v}.8h, {w3:v}.8b, ", $y, ".8b\n", "smlal2 {s:v}.8h, {w3:v}.16b, ", $y, ".16b\n",
            long!(+ "sadalp" $a $b $c $d)
        )
    };
    (@ $x:literal) => {
        concat!(
            "smull {p:v}.8h, {w0:v}.8b, ", $x, ".8b\n", "smull2 {q:v}.8h, {w0:v}.16b, ", $x, ".16b\n",
            "smull {r:v}.8h, {w1:v}.8b, ", $x, ".8b\n", "smull2 {s:v}.8h, {w1:v}.16b, ", $x, ".16b\n",
        )
    };
    (+ $add:literal $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            $add, " {", stringify!($a), ":v}.4s, {p:v}.8h\n", $add, " {", stringify!($b), ":v}.4s, {q:v}.8h\n",
            $add, " {", stringify!($c), ":v}.4s, {r:v}.8h\n", $add, " {", stringify!($d), ":v}.4s, {s:v}.8h\n",
        )
    };
}

/// Products of one block, whose sums `$add` makes or adds; whether it was the last is in the flags.
macro_rules! block_alone {
    ($add:literal) => {
        concat!(
            "ldp {w0:q}, {w1:q}, [{column}], #64\n",
            "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{row}], #16\n",
            "subs {blocks}, {blocks}, #1\n",
            long!(one $add "v0": a0 b0 c0 d0),
            long!(one $add "v1": a1 b1 c1 d1),
            long!(one $add "v2": a2 b2 c2 d2),
            long!(one $add "v3": a3 b3 c3 d3),
        )
    };
}

/// [`Lanes::multiply_quads`] without `SDOT`: two products share an int16 sum, as rows hold at most 127 in magnitude.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn quads_neon(rows: *const i8, columns: *const i8, runs: &[Run]) -> [[int32x4_t; 4]; 4] {
    let mut sums = [[neon!(vdupq_n_s32(0)); 4]; 4];
    for half in 0..2 {
        let (a0, c0, a1, c1, a2, c2, a3, c3);
        // SAFETY: 16 bytes of the rows and 32 of each 64 of the columns are read for each block of the runs, of which none is empty.
        unsafe {
            asm!(
                // A block alone at the beginning of the first run makes the sums; otherwise they begin at zero.
                "cmp {run}, {end}",
                "b.eq 6f",
                "ldr {blocks}, [{run}, #8]",
                "tbz {blocks}, #0, 6f",
                take_run!(),
                block_alone!("saddlp"),
                "b.ne 2f",
                "b 4f",
                "6:",
                zeros!(a0 b0 c0 d0 a1 b1 c1 d1 a2 b2 c2 d2 a3 b3 c3 d3),
                next_run!(),
                "tbz {blocks}, #0, 2f",
                block_alone!("sadalp"),
                "b.eq 4b",
                "2:",
                "ldp {w0:q}, {w1:q}, [{column}], #128",
                "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{row}], #16",
                "ldp {w2:q}, {w3:q}, [{column}, #-64]",
                "ld4r {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{row}], #16",
                "subs {blocks}, {blocks}, #2",
                long!("v0" "v4": a0 b0 c0 d0),
                long!("v1" "v5": a1 b1 c1 d1),
                long!("v2" "v6": a2 b2 c2 d2),
                long!("v3" "v7": a3 b3 c3 d3),
                "b.ne 2b",
                "b 4b",
                "5:",
                join!(a0 b0, c0 d0, a1 b1, c1 d1, a2 b2, c2 d2, a3 b3, c3 d3),
                rows = in(reg) rows,
                columns = in(reg) columns.add(32 * half),
                run = inout(reg) runs.as_ptr_range().start => _,
                end = in(reg) runs.as_ptr_range().end,
                row = out(reg) _, column = out(reg) _, blocks = out(reg) _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _,
                out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                w0 = out(vreg) _, w1 = out(vreg) _, w2 = out(vreg) _, w3 = out(vreg) _,
                p = out(vreg) _, q = out(vreg) _, r = out(vreg) _, s = out(vreg) _,
                a0 = out(vreg) a0, b0 = out(vreg) _, c0 = out(vreg) c0, d0 = out(vreg) _,
                a1 = out(vreg) a1, b1 = out(vreg) _, c1 = out(vreg) c1, d1 = out(vreg) _,
                a2 = out(vreg) a2, b2 = out(vreg) _, c2 = out(vreg) c2, d2 = out(vreg) _,
                a3 = out(vreg) a3, b3 = out(vreg) _, c3 = out(vreg) c3, d3 = out(vreg) _,
                options(nostack, readonly),
            );
        }
        for (sums, [low, high]) in sums.iter_mut().zip([[a0, c0], [a1, c1], [a2, c2], [a3, c3]]) {
            sums[2 * half] = low;
            sums[2 * half + 1] = high;
        }
    }
    sums
}
