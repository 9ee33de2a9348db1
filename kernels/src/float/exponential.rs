//! exp and what is made of it, lane by lane.

use super::lanes::{LANES, Lanes};

/// `1.5 * 2^23`: adding it to a float below `2^22` rounds that to an integer, which then stands in the last bits.
pub(super) const ROUND: f32 = 12_582_912.0;
/// [`ROUND`] plus the bias of the exponent, for [`Lanes::bits_to_exponent`].
pub(super) const ROUND_BIASED: f32 = ROUND + 127.0;

/// `2^f` for `f` in -0.5..=0.5, relative error 2.8e-6 and `2^0 = 1`: enough for attention, whose operands are int8.
#[inline(always)]
pub(super) fn exp2_fraction<L: Lanes>(lanes: L, f: L::F) -> L::F {
    let square = lanes.mul(f, f);
    let low = lanes.fma(lanes.splat(0.693_124_2), f, lanes.splat(1.0));
    let high = lanes.fma(lanes.splat(0.055_906_426), f, lanes.splat(0.240_240_99));
    let high = lanes.fma(lanes.splat(0.009_582_853), square, high);
    lanes.fma(high, square, low)
}

/// `e^x` for `x` in -87.3..=88.3, relative error below 1.5e-7; beyond, the value at the nearer end. NaN gives NaN.
#[inline(always)]
pub(super) fn exp_clamped<L: Lanes>(lanes: L, x: L::F) -> L::F {
    exp_upper_bounded(lanes, lanes.min(lanes.splat(88.3), x))
}

/// [`exp_clamped`] for `x` of at most 88.3, with one instruction less.
#[inline(always)]
pub(super) fn exp_upper_bounded<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let x = lanes.max(lanes.splat(-87.3), x);
    // x = n ln 2 + r, with ln 2 as the sum of two floats.
    let shifted = lanes.fma(x, lanes.splat(core::f32::consts::LOG2_E), lanes.splat(ROUND_BIASED));
    let n = lanes.sub(shifted, lanes.splat(ROUND_BIASED));
    let r = lanes.fnma(n, lanes.splat(core::f32::consts::LN_2), x);
    let r = lanes.fnma(n, lanes.splat(-1.904_654_3e-9), r);
    // e^r = 1 + r + r^2 q(r)
    let square = lanes.mul(r, r);
    let low = lanes.fma(lanes.splat(0.166_665_2), r, lanes.splat(0.499_999_93));
    let high = lanes.fma(lanes.splat(0.008_368_717), r, lanes.splat(0.041_668_39));
    let high = lanes.fma(lanes.splat(0.001_381_459_8), square, high);
    let q = lanes.fma(high, square, low);
    let power = lanes.add(lanes.fma(q, square, r), lanes.splat(1.0));
    lanes.mul(power, lanes.bits_to_exponent(shifted))
}

/// `e^x`: 0 below -87.3, infinity above 88.3.
#[inline(always)]
pub(super) fn exp<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let inside = exp_clamped(lanes, x);
    let upper = lanes.where_less(lanes.splat(88.3), x, lanes.splat(f32::INFINITY), inside);
    lanes.where_less(x, lanes.splat(-87.3), lanes.splat(0.0), upper)
}

/// `tanh(x)`, absolute error below 3e-7.
#[inline(always)]
pub(super) fn tanh<L: Lanes>(lanes: L, x: L::F) -> L::F {
    // From 9.1 on, tanh is 1 to the last bit.
    let x = lanes.min(lanes.splat(9.1), lanes.max(lanes.splat(-9.1), x));
    let power = exp_upper_bounded(lanes, lanes.add(x, x));
    let one = lanes.splat(1.0);
    lanes.div(lanes.sub(power, one), lanes.add(power, one))
}

/// `x / (1 + e^-x)`, relative error below 4e-7 above -87; 0 to within 1e-36 below.
#[inline(always)]
pub(super) fn silu<L: Lanes>(lanes: L, x: L::F) -> L::F {
    // Clamped so that minus infinity gives nearly 0 and not NaN.
    let x = lanes.max(lanes.splat(-88.0), x);
    let power = exp_clamped(lanes, lanes.sub(lanes.splat(0.0), x));
    lanes.div(x, lanes.add(power, lanes.splat(1.0)))
}

/// Beyond this, `x erfc(|x| / sqrt 2) / 2` is below 5.3e-7.
const GELU_BOUND: f32 = 5.2;
/// `erf(x / sqrt 2) / (2 x)` as a polynomial in `2 x^2 / GELU_BOUND^2 - 1`; minimax for the error times `x^2`, over
/// `0..=GELU_BOUND`: below 1.5e-7.
const GELU: [f32; 14] = [
    0.135_949_98,
    -0.067_743_62,
    0.050_025_616,
    -0.039_931_986,
    0.031_973_917,
    -0.024_698_842,
    0.018_038_768,
    -0.012_619_65,
    0.008_365_106,
    -0.004_542_336,
    0.002_005_169_6,
    -0.001_468_750_8,
    0.001_188_689_9,
    -0.000_388_243_7,
];

/// What multiply-adds of [`gelu`] add: the even coefficients, and two more.
const GELU_ADDENDS: usize = GELU.len() / 2 + 2;
/// They as vectors. An addend becomes the sum: what lies in memory is loaded there, four registers an instruction, where a constant
/// in a register would first be copied, one at a time.
static GELU_TABLE: [[f32; LANES]; GELU_ADDENDS] = {
    let mut table = [[0.5; LANES]; GELU_ADDENDS];
    table[GELU_ADDENDS - 2] = [-1.0; LANES];
    let mut pair = 0;
    while pair < GELU.len() / 2 {
        table[pair] = [GELU[2 * pair]; LANES];
        pair += 1;
    }
    table
};

/// `x (1 + erf(x / sqrt 2)) / 2`, error below `1e-6 max(1, |x|)`.
#[inline(always)]
pub(super) fn gelu<L: Lanes>(lanes: L, x: L::F) -> L::F {
    let addends = lanes.in_memory(&GELU_TABLE);
    let x = lanes.max(lanes.splat(-GELU_BOUND), x);
    let bounded = lanes.min(lanes.splat(GELU_BOUND), x);
    let scale = lanes.splat(2.0 / (GELU_BOUND * GELU_BOUND));
    let w = lanes.fma(lanes.mul(bounded, bounded), scale, lanes.load(&addends[GELU_ADDENDS - 2]));
    let square = lanes.mul(w, w);
    let mut pair = GELU.len() / 2 - 1;
    let mut sum = lanes.fma(lanes.splat(GELU[2 * pair + 1]), w, lanes.load(&addends[pair]));
    while pair > 0 {
        pair -= 1;
        let low = lanes.fma(lanes.splat(GELU[2 * pair + 1]), w, lanes.load(&addends[pair]));
        sum = lanes.fma(sum, square, low);
    }
    lanes.mul(x, lanes.fma(bounded, sum, lanes.load(&addends[GELU_ADDENDS - 1])))
}
