//! The power spectrum of 512 real samples.
//!
//! Two samples are one complex number, so a transform of 256 does. It is radix 4 by Stockham's scheme: no bit reversal,
//! and neighbours are treated alike, four at a time, so that the compiler makes vectors of [`Lanes`] on every target;
//! as nothing but single multiplications and additions is in them, every target gives the same bits.

use crate::error::Error;
use core::ops::{Add, Mul, Sub};
use kinglet_kernels::KernelError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Samples of a frame, zeros behind it included.
pub(crate) const SAMPLES: usize = 512;
/// Complex values of the transform.
pub(crate) const POINTS: usize = SAMPLES / 2;
/// Half of them: the place that is its own partner in the spectrum of real samples.
const HALF: usize = POINTS / 2;
/// Values that are treated together.
pub(crate) const WIDTH: usize = 4;
/// Length of a power spectrum, with zeros behind it to fill lanes.
pub(crate) const SPECTRUM: usize = POINTS + WIDTH;
/// Lanes of a transform.
const WHOLE: usize = POINTS / WIDTH;
/// Lanes of a quarter of it: what one butterfly's arms are apart.
const QUARTER: usize = WHOLE / 4;
/// Lanes of a table: three rotations of each quarter of the first pass, and one for each pair of the last step.
const TABLE_LANES: usize = 3 * QUARTER + HALF / WIDTH;
/// Values of a table.
pub(crate) const TABLE: usize = TABLE_LANES * WIDTH;

/// Neighbours.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub(crate) struct Lanes(pub(crate) [f32; WIDTH]);

macro_rules! lane_wise {
    ($($trait:ident $method:ident $operator:tt),*) => { $(
        impl $trait for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let (a, b) = (self.0, other.0);
                Self([a[0] $operator b[0], a[1] $operator b[1], a[2] $operator b[2], a[3] $operator b[3]])
            }
        }
    )* };
}
lane_wise!(Add add +, Sub sub -, Mul mul *);

impl Lanes {
    /// Values by fours; what does not fill lanes is left out.
    pub(crate) fn of(values: &[f32]) -> &[Self] {
        let (whole, _) = values.as_chunks::<WIDTH>();
        <[Self]>::ref_from_bytes(whole.as_bytes()).unwrap_or(&[])
    }

    #[inline(always)]
    pub(crate) fn all(value: f32) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    fn reversed(self) -> Self {
        let [a, b, c, d] = self.0;
        Self([d, c, b, a])
    }

    #[inline(always)]
    pub(crate) fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + b) + (c + d)
    }

    /// Four neighbours from `first` on.
    #[inline(always)]
    fn load(values: &[f32; POINTS], first: usize) -> Self {
        Self([values[first], values[first + 1], values[first + 2], values[first + 3]])
    }
}

/// A complex number in each lane.
#[derive(Clone, Copy)]
struct Pair {
    re: Lanes,
    im: Lanes,
}

impl Add for Pair {
    type Output = Self;

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Pair {
    type Output = Self;

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Pair {
    #[inline(always)]
    fn turned(self, by: Self) -> Self {
        Self { re: self.re * by.re - self.im * by.im, im: self.re * by.im + self.im * by.re }
    }

    #[inline(always)]
    fn power(self) -> Lanes {
        self.re * self.re + self.im * self.im
    }
}

/// The numbers of a transform, real parts apart from imaginary ones.
pub(crate) struct Complex<'a> {
    pub(crate) re: &'a mut [Lanes; WHOLE],
    pub(crate) im: &'a mut [Lanes; WHOLE],
}

impl<'a> Complex<'a> {
    /// Takes the first half of `values`, `[2 POINTS]`, as real parts, the rest as imaginary ones.
    pub(crate) fn new(values: &'a mut [f32]) -> Result<Self, Error> {
        let given = values.len();
        let short = Error::Kernel(KernelError::TooShort { name: "spectrum", needed: 2 * POINTS, given });
        let lanes = <[Lanes]>::mut_from_bytes(values.as_mut_bytes()).map_err(|_| short)?;
        let (re, im) = lanes.split_first_chunk_mut::<WHOLE>().ok_or(short)?;
        Ok(Self { re, im: im.first_chunk_mut().ok_or(short)? })
    }

    #[inline(always)]
    fn get(&self, lanes: usize) -> Pair {
        Pair { re: self.re[lanes], im: self.im[lanes] }
    }

    #[inline(always)]
    fn set(&mut self, lanes: usize, pair: Pair) {
        (self.re[lanes], self.im[lanes]) = (pair.re, pair.im);
    }
}

/// Rotations by fractions of a turn.
#[derive(Clone, Copy)]
pub(crate) struct Rotations<'a> {
    cosines: &'a [Lanes; TABLE_LANES],
    sines: &'a [Lanes; TABLE_LANES],
}

impl<'a> Rotations<'a> {
    /// Takes tables that [`fill`] filled.
    pub(crate) fn new(cosines: &'a [f32], sines: &'a [f32]) -> Result<Self, Error> {
        let table = |values: &'a [f32]| {
            let given = values.len();
            let lanes =
                <[Lanes]>::ref_from_bytes(values.as_bytes()).ok().and_then(|lanes| lanes.first_chunk());
            lanes.ok_or(Error::Kernel(KernelError::TooShort { name: "rotations", needed: TABLE, given }))
        };
        Ok(Self { cosines: table(cosines)?, sines: table(sines)? })
    }

    #[inline(always)]
    fn get(&self, lanes: usize) -> Pair {
        Pair { re: self.cosines[lanes], im: self.sines[lanes] }
    }

    /// The first one of lanes, in each.
    #[inline(always)]
    fn first(&self, lanes: usize) -> Pair {
        let (cosines, sines) = (self.cosines[lanes].0, self.sines[lanes].0);
        Pair { re: Lanes::all(cosines[0]), im: Lanes::all(sines[0]) }
    }
}

/// Fills both tables, `[TABLE]`.
pub(crate) fn fill(cosines: &mut [f32], sines: &mut [f32]) {
    let quarter = POINTS / 4;
    let passes = (1..=3).flat_map(|power| (0..quarter).map(move |p| (power * p) as f64 / POINTS as f64));
    let pairs = (1..=HALF).map(|k| k as f64 / SAMPLES as f64);
    for ((turns, cosine), sine) in passes.chain(pairs).zip(cosines).zip(sines) {
        let angle = -core::f64::consts::TAU * turns;
        (*cosine, *sine) = (libm::cos(angle) as f32, libm::sin(angle) as f32);
    }
}

/// `|X[k]|^2` for `k` below 256 of the transform of the samples in `data`, those at even places as real parts. Both
/// `data` and `spare` are used up.
pub(crate) fn power(
    rotations: Rotations<'_>,
    mut data: Complex<'_>,
    mut spare: Complex<'_>,
    power: &mut [f32; SPECTRUM],
) {
    first_pass(rotations, &data, &mut spare);
    pass::<1>(rotations, &spare, &mut data);
    pass::<4>(rotations, &data, &mut spare);
    pass::<16>(rotations, &spare, &mut data);
    let (Some(re), Some(im)) = (flat(data.re), flat(data.im)) else { return };
    power[POINTS..].fill(0.0);
    power[0] = (re[0] + im[0]) * (re[0] + im[0]);
    for run in 0..HALF / WIDTH {
        pairs(rotations.get(3 * QUARTER + run), re, im, power, WIDTH * run + 1);
    }
}

fn flat(lanes: &[Lanes; WHOLE]) -> Option<&[f32; POINTS]> {
    <[f32]>::ref_from_bytes(lanes.as_bytes()).ok()?.first_chunk()
}

/// Power at `first` and its neighbours and as far from the other end: what is at `k` and at `256 - k` of the spectrum
/// of real samples comes of the same two values. The last, 128, is its own partner.
#[inline(always)]
fn pairs(rotation: Pair, re: &[f32; POINTS], im: &[f32; POINTS], power: &mut [f32; SPECTRUM], first: usize) {
    let last = POINTS - first - (WIDTH - 1);
    let half = Lanes::all(0.5);
    let (low_re, low_im) = (Lanes::load(re, first), Lanes::load(im, first));
    let (high_re, high_im) = (Lanes::load(re, last).reversed(), Lanes::load(im, last).reversed());
    let even = Pair { re: half * (low_re + high_re), im: half * (low_im - high_im) };
    let odd = Pair { re: half * (low_im + high_im), im: half * (high_re - low_re) }.turned(rotation);
    power[first..first + WIDTH].copy_from_slice(&(even + odd).power().0);
    power[last..last + WIDTH].copy_from_slice(&(even - odd).power().reversed().0);
}

/// Four values a quarter apart, to four values, all but the first rotated.
#[inline(always)]
fn butterfly(from: &Complex<'_>, first: usize, by: Option<[Pair; 3]>) -> [Pair; 4] {
    let a = from.get(first);
    let b = from.get(first + QUARTER);
    let c = from.get(first + 2 * QUARTER);
    let d = from.get(first + 3 * QUARTER);
    let (sum, rest, odd, odd_rest) = (a + c, a - c, b + d, b - d);
    // A quarter turn against the clock.
    let (up, down) = (
        Pair { re: rest.re + odd_rest.im, im: rest.im - odd_rest.re },
        Pair { re: rest.re - odd_rest.im, im: rest.im + odd_rest.re },
    );
    match by {
        Some(by) => [sum + odd, up.turned(by[0]), (sum - odd).turned(by[1]), down.turned(by[2])],
        None => [sum + odd, up, sum - odd, down],
    }
}

/// The first pass, whose results are neighbours: lanes become rows.
fn first_pass(rotations: Rotations<'_>, from: &Complex<'_>, to: &mut Complex<'_>) {
    for p in 0..QUARTER {
        let by = [rotations.get(p), rotations.get(QUARTER + p), rotations.get(2 * QUARTER + p)];
        let [a, b, c, d] = butterfly(from, p, Some(by));
        for lane in 0..WIDTH {
            let row = |part: fn(&Pair) -> Lanes| {
                Lanes([part(&a).0[lane], part(&b).0[lane], part(&c).0[lane], part(&d).0[lane]])
            };
            to.set(WIDTH * p + lane, Pair { re: row(|pair| pair.re), im: row(|pair| pair.im) });
        }
    }
}

/// A later pass, whose butterflies come in runs of `RUN` lanes with the same rotations.
fn pass<const RUN: usize>(rotations: Rotations<'_>, from: &Complex<'_>, to: &mut Complex<'_>) {
    for p in 0..QUARTER / RUN {
        let first = RUN * p;
        let by =
            [rotations.first(first), rotations.first(QUARTER + first), rotations.first(2 * QUARTER + first)];
        for q in 0..RUN {
            // The only rotations of the last pass are by nothing.
            let results = butterfly(from, first + q, (RUN < QUARTER).then_some(by));
            to.set(4 * first + q, results[0]);
            to.set(4 * first + RUN + q, results[1]);
            to.set(4 * first + 2 * RUN + q, results[2]);
            to.set(4 * first + 3 * RUN + q, results[3]);
        }
    }
}

/// The first values as an array.
pub(crate) fn array_mut<const N: usize>(values: &mut [f32]) -> Result<&mut [f32; N], Error> {
    let given = values.len();
    values.first_chunk_mut().ok_or(Error::Kernel(KernelError::TooShort {
        name: "spectrum",
        needed: N,
        given,
    }))
}
