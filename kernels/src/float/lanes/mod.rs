//! A vector of exactly 16 f32 lanes on every instruction set.
//!
//! [`Lanes`] has only operations that IEEE 754 defines to the last bit, so that a function written once over
//! it gives the same bits everywhere; reductions follow one tree. The type that implements it is a token: a
//! value of it proves that the instructions exist, which is why its methods are safe.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_split;
mod scalar;

use crate::{InstructionSet, Kernels};

/// Lanes in a vector.
pub(crate) const LANES: usize = 16;

/// Bytes of four values of each lane.
pub(crate) const QUADS: usize = 4 * LANES;

/// Blocks one after the other.
// Assembly reads it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Run {
    /// The first.
    pub(crate) first: usize,
    /// How many.
    pub(crate) blocks: usize,
}

/// The instructions of one vector type.
pub(crate) trait Lanes: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Four consecutive f32, kept where [`Self::fma_quad`] finds them at no cost.
    type Quad: Copy;
    /// Sixteen i16.
    type Words: Copy;
    /// Sixteen i32.
    type Sums: Copy;

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F;
    /// Lane `i` is `values[i]`.
    fn load(self, values: &[f32; LANES]) -> Self::F;
    /// The inverse of [`Self::load`].
    fn store(self, vector: Self::F, values: &mut [f32; LANES]);
    /// The nearest integers, ties to even. Every lane lies in -128..=127 before.
    fn to_bytes(self, vector: Self::F) -> [i8; LANES];
    /// Lanes `2 i` and `2 i + 1` are `values[i]`.
    fn load_twice(self, values: &[f32; LANES / 2]) -> Self::F;
    /// Exchanges lanes `2 i` and `2 i + 1`.
    fn swap_pairs(self, vector: Self::F) -> Self::F;

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `|a|`.
    fn abs(self, a: Self::F) -> Self::F;
    /// The larger. NaN where `value` is NaN; where `bound` is NaN the result is one of the two. Zeros of
    /// either sign count as equal.
    fn max(self, bound: Self::F, value: Self::F) -> Self::F;
    /// The smaller, with the cases of [`Self::max`].
    fn min(self, bound: Self::F, value: Self::F) -> Self::F;
    /// `then` where `a < b`, else `otherwise`, which NaN selects too.
    fn where_less(self, a: Self::F, b: Self::F, then: Self::F, otherwise: Self::F) -> Self::F;
    /// Whether `a > b` in some lane.
    fn any_greater(self, a: Self::F, b: Self::F) -> bool;
    /// The bits of each lane, shifted left by 23: the last eight bits become the exponent.
    fn bits_to_exponent(self, a: Self::F) -> Self::F;

    /// The sum, as a tree: lanes 8 apart, then 4, 2, 1.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane, with the cases of [`Self::max`].
    fn largest(self, a: Self::F) -> f32;

    /// Four scalars.
    fn quad(self, values: &[f32; 4]) -> Self::Quad;
    /// `a * quad[LANE] + c`, rounded once.
    fn fma_quad<const LANE: i32>(self, a: Self::F, quad: Self::Quad, c: Self::F) -> Self::F;
    /// `a * quad[LANE]`.
    fn mul_quad<const LANE: i32>(self, a: Self::F, quad: Self::Quad) -> Self::F;

    /// `value` in every lane.
    fn splat_words(self, value: i16) -> Self::Words;
    /// Lane `i` is `values[i]`.
    fn load_words(self, values: &[i16; LANES]) -> Self::Words;
    /// The nearest integers, ties to even. Every lane lies in -32767..=32767 before.
    fn to_words(self, vector: Self::F) -> [i16; LANES];
    /// Zeros.
    fn no_sums(self) -> Self::Sums;
    /// `sums + bytes * words`, exactly where it fits.
    fn multiply_bytes(self, bytes: &[i8; LANES], words: Self::Words, sums: Self::Sums) -> Self::Sums;
    /// The nearest floats.
    fn sums_to_floats(self, sums: Self::Sums) -> Self::F;
    /// The sum of all lanes.
    fn total(self, sums: Self::Sums) -> i64;

    /// `2^floor(x)` and the significand of `2^floor(x) (1 + x - floor(x))`, halved, and their product: with `u = x -
    /// floor(x)` they are `2^floor(x)`, `(1 + u) / 2` and `2^floor(x) (1 + u)`. `x + 127` is what is given, below 255; where
    /// it is below 0 or NaN, the first and the last are 0.
    fn power_parts(self, biased: Self::F) -> (Self::F, Self::F, Self::F);
    /// The nearest integers, ties to even, of the same lane of the four vectors side by side: `[16][4]`. Every lane lies
    /// in -128..=127 before.
    fn to_quads(self, vectors: [Self::F; 4]) -> [i8; QUADS];
    /// Whether one of them is not 0.
    #[inline(always)]
    fn any_byte(self, quads: &[i8; QUADS]) -> bool {
        quads.iter().fold(0, |any, byte| any | byte) != 0
    }
    /// `sums[r][lane]` is the sum over `k` of `rows[r][k] * columns[lane][k]`, exactly where it fits: `rows` is `[blocks][4 rows][4]`,
    /// `columns` `[blocks][16 lanes][4]`, and `k` is in the blocks of `runs`. No row holds -128.
    ///
    /// # Safety
    /// For each of the blocks, 16 bytes can be read at `rows` and 64 at `columns`; no run is empty.
    unsafe fn multiply_quads(self, rows: *const i8, columns: *const i8, runs: &[Run]) -> [Self::Sums; 4];

    /// Makes [`Self::weigh_split`] of the words that are the first half of each block; false where there is no such thing.
    /// `dot_products` says whether the processor has them.
    #[inline(always)]
    fn split_words(self, _dot_products: bool, _blocks: &mut [[f32; LANES]]) -> bool {
        false
    }

    /// The sums of the words of `blocks` times four rows of int8, `stride` apart, exactly.
    ///
    /// # Safety
    /// [`Self::split_words`] returned true for them; each row has 16 values for each block.
    #[inline(always)]
    unsafe fn weigh_split(self, _blocks: &[[f32; LANES]], _rows: *const i8, _stride: usize) -> [i64; 4] {
        [0; 4]
    }

    /// The pointer, which the compiler then no longer sees as a multiple of a stride away from others: it keeps
    /// each in a register of its own where it would add again and again.
    #[inline(always)]
    fn opaque(self, pointer: *const f32) -> *const f32 {
        pointer
    }

    /// The table, of which the compiler then no longer knows what is in it: it loads where it would make constants and keep them.
    #[inline(always)]
    fn in_memory<T>(self, table: &'static T) -> &'static T {
        table
    }

    /// Lane `i` of vector `d` is `rows[i][d]`.
    ///
    /// # Safety
    /// Four floats can be read at each of `rows`.
    #[inline(always)]
    unsafe fn columns(self, rows: &[*const f32; LANES]) -> [Self::F; 4] {
        let mut columns = [[0.0; LANES]; 4];
        for (lane, row) in rows.iter().enumerate() {
            for (dim, column) in columns.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                column[lane] = unsafe { *row.add(dim) };
            }
        }
        [self.load(&columns[0]), self.load(&columns[1]), self.load(&columns[2]), self.load(&columns[3])]
    }

    /// `rows[i][d]` is lane `i` of vector `d`: the inverse of [`Self::columns`].
    #[inline(always)]
    fn rows(self, columns: [Self::F; 4]) -> [[f32; 4]; LANES] {
        let mut stored = [[0.0; LANES]; 4];
        for (column, stored) in columns.into_iter().zip(&mut stored) {
            self.store(column, stored);
        }
        core::array::from_fn(|lane| stored.map(|column| column[lane]))
    }

    /// The first lanes from `values`, `fill` in the others.
    #[inline(always)]
    fn load_part(self, values: &[f32], fill: f32) -> Self::F {
        let mut block = [fill; LANES];
        for (lane, value) in block.iter_mut().zip(values) {
            *lane = *value;
        }
        self.load(&block)
    }

    /// The first lanes to `values`.
    #[inline(always)]
    fn store_part(self, vector: Self::F, values: &mut [f32]) {
        let mut block = [0.0; LANES];
        self.store(vector, &mut block);
        for (value, lane) in values.iter_mut().zip(block) {
            *value = lane;
        }
    }
}

/// A function over [`Lanes`] with its arguments: what [`Kernels::run`] instantiates for each instruction set.
/// `run` and all that it calls must be `#[inline(always)]`, so that it is compiled with the instructions.
pub(crate) trait Operation {
    /// Its result.
    type Output;
    /// Carries it out. The registers hold `TILE` sums of 16 lanes beside `TILE` quads and one operand, and `DIMS`
    /// sums (4, or an even number above) beside the quads of `DIMS` scalars and one operand.
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) -> Self::Output;
}

/// Without an operating system a program has to be small: where it is compiled for NEON, no operation is compiled for scalar kernels too,
/// which would give the same bits.
#[cfg(target_arch = "aarch64")]
const ALWAYS_NEON: bool = cfg!(all(target_feature = "neon", not(any(test, feature = "std"))));

impl Kernels {
    /// [`Self::run`] for an operation with [`Lanes::multiply_quads`], which has instructions that other sets lack.
    #[inline]
    pub(crate) fn run_products<O: Operation>(self, operation: O) -> O::Output {
        match self.instruction_set() {
            #[cfg(target_arch = "aarch64")]
            InstructionSet::I8mm | InstructionSet::Dotprod => {
                // SAFETY: `Kernels` proves the instructions.
                unsafe { neon::run_dotprod(operation) }
            }
            _ => self.run(operation),
        }
    }

    /// Whether the processor multiplies int8 four at a time, which [`Self::run`] alone does not use.
    pub(crate) fn has_dot_products(self) -> bool {
        matches!(self.instruction_set(), InstructionSet::I8mm | InstructionSet::Dotprod)
    }

    /// Carries out `operation` with the vectors of this instruction set.
    #[inline]
    pub(crate) fn run<O: Operation>(self, operation: O) -> O::Output {
        match self.instruction_set() {
            #[cfg(target_arch = "aarch64")]
            set if ALWAYS_NEON || set != InstructionSet::Scalar => {
                // SAFETY: `Kernels` proves the instructions, or the program is compiled for them.
                unsafe { neon::run(operation) }
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => {
                // SAFETY: `Kernels` proves the instructions.
                unsafe { avx512::run(operation) }
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                // SAFETY: `Kernels` proves the instructions.
                unsafe { avx2::run(operation) }
            }
            _ => scalar::run(operation),
        }
    }
}
