//! Sixteen lanes in plain Rust: the reference.

use super::{LANES, Lanes, Operation, QUADS, Run};

/// Always there.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

pub(super) fn run<O: Operation>(operation: O) -> O::Output {
    operation.run::<Scalar, 4, 4>(Scalar)
}

fn map2(a: [f32; LANES], b: [f32; LANES], function: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut result = a;
    for (lane, value) in result.iter_mut().zip(b) {
        *lane = function(*lane, value);
    }
    result
}

/// Joins lanes 8 apart, then 4, 2, 1.
fn reduce(mut a: [f32; LANES], function: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            a[lane] = function(a[lane], a[lane + half]);
        }
    }
    a[0]
}

fn larger(bound: f32, value: f32) -> f32 {
    if bound > value { bound } else { value }
}

impl Lanes for Scalar {
    type F = [f32; LANES];
    type Quad = [f32; 4];
    type Words = [i16; LANES];
    type Sums = [i32; LANES];

    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    fn load(self, values: &[f32; LANES]) -> Self::F {
        *values
    }

    fn store(self, vector: Self::F, values: &mut [f32; LANES]) {
        *values = vector;
    }

    fn to_bytes(self, vector: Self::F) -> [i8; LANES] {
        vector.map(|value| libm::rintf(value) as i8)
    }

    fn load_twice(self, values: &[f32; LANES / 2]) -> Self::F {
        core::array::from_fn(|lane| values[lane / 2])
    }

    fn swap_pairs(self, vector: Self::F) -> Self::F {
        core::array::from_fn(|lane| vector[lane ^ 1])
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a + b)
    }

    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a - b)
    }

    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a * b)
    }

    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        map2(a, b, |a, b| a / b)
    }

    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        core::array::from_fn(|lane| libm::fmaf(a[lane], b[lane], c[lane]))
    }

    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        core::array::from_fn(|lane| libm::fmaf(-a[lane], b[lane], c[lane]))
    }

    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    fn max(self, bound: Self::F, value: Self::F) -> Self::F {
        map2(bound, value, larger)
    }

    fn min(self, bound: Self::F, value: Self::F) -> Self::F {
        map2(bound, value, |bound, value| if bound < value { bound } else { value })
    }

    fn where_less(self, a: Self::F, b: Self::F, then: Self::F, otherwise: Self::F) -> Self::F {
        core::array::from_fn(|lane| if a[lane] < b[lane] { then[lane] } else { otherwise[lane] })
    }

    fn any_greater(self, a: Self::F, b: Self::F) -> bool {
        a.iter().zip(b).any(|(a, b)| *a > b)
    }

    fn bits_to_exponent(self, a: Self::F) -> Self::F {
        a.map(|value| f32::from_bits(value.to_bits() << 23))
    }

    fn sum(self, a: Self::F) -> f32 {
        reduce(a, |a, b| a + b)
    }

    fn largest(self, a: Self::F) -> f32 {
        reduce(a, larger)
    }

    fn quad(self, values: &[f32; 4]) -> Self::Quad {
        *values
    }

    fn fma_quad<const LANE: i32>(self, a: Self::F, quad: Self::Quad, c: Self::F) -> Self::F {
        self.fma(a, [quad[LANE as usize]; LANES], c)
    }

    fn mul_quad<const LANE: i32>(self, a: Self::F, quad: Self::Quad) -> Self::F {
        self.mul(a, [quad[LANE as usize]; LANES])
    }

    fn splat_words(self, value: i16) -> Self::Words {
        [value; LANES]
    }

    fn load_words(self, values: &[i16; LANES]) -> Self::Words {
        *values
    }

    fn to_words(self, vector: Self::F) -> [i16; LANES] {
        vector.map(|value| libm::rintf(value) as i16)
    }

    fn no_sums(self) -> Self::Sums {
        [0; LANES]
    }

    fn multiply_bytes(self, bytes: &[i8; LANES], words: Self::Words, sums: Self::Sums) -> Self::Sums {
        core::array::from_fn(|lane| sums[lane].wrapping_add(i32::from(bytes[lane]) * i32::from(words[lane])))
    }

    fn sums_to_floats(self, sums: Self::Sums) -> Self::F {
        sums.map(|sum| sum as f32)
    }

    fn total(self, sums: Self::Sums) -> i64 {
        sums.into_iter().map(i64::from).sum()
    }

    fn power_parts(self, biased: Self::F) -> (Self::F, Self::F, Self::F) {
        // The conversion goes towards 0 and takes what is negative, and NaN, to 0.
        let bits = biased.map(|x| (x * 8_388_608.0) as u32);
        (
            bits.map(|bits| f32::from_bits(bits & 0xff80_0000)),
            bits.map(|bits| f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000)),
            bits.map(f32::from_bits),
        )
    }

    fn to_quads(self, vectors: [Self::F; 4]) -> [i8; QUADS] {
        let bytes = vectors.map(|vector| self.to_bytes(vector));
        core::array::from_fn(|index| bytes[index % 4][index / 4])
    }

    unsafe fn multiply_quads(self, rows: *const i8, columns: *const i8, runs: &[Run]) -> [Self::Sums; 4] {
        let (rows, columns) = (rows.cast::<[[i8; 4]; 4]>(), columns.cast::<[[i8; 4]; LANES]>());
        let mut sums = [[0_i32; LANES]; 4];
        for block in runs.iter().flat_map(|run| run.first..run.first + run.blocks) {
            // SAFETY: the caller's promise.
            let (rows, columns) = unsafe { (&*rows.add(block), &*columns.add(block)) };
            for (row, sums) in rows.iter().zip(&mut sums) {
                for (column, sum) in columns.iter().zip(sums) {
                    for (value, other) in row.iter().zip(column) {
                        *sum = sum.wrapping_add(i32::from(*value) * i32::from(*other));
                    }
                }
            }
        }
        sums
    }
}
