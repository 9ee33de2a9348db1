//! The power spectrum of 512 real samples.
//!
//! Two samples are one complex number, so a transform of 256 does; it is radix 4 by Stockham's scheme, which needs no
//! bit reversal and whose inner loops run over neighbours: the compiler makes vectors of them on every target, and as
//! nothing but single multiplications and additions is in them, every target gives the same bits. microfft's transform
//! of 512, which is not vectorised, takes 17,400 instructions on a Cortex-A53; this one a fifth of that.

use crate::error::Error;
use kinglet_kernels::KernelError;

/// Samples of a frame, zeros behind it included.
pub(crate) const SAMPLES: usize = 512;
/// Complex values of the transform.
pub(crate) const POINTS: usize = SAMPLES / 2;
/// A quarter of them: what one butterfly's arms are apart.
const QUARTER: usize = POINTS / 4;
/// Half of them: the place that is its own partner in the spectrum of real samples.
const HALF: usize = POINTS / 2;
/// Values of the tables: three rotations of each quarter of the first pass, and one for each pair of the last step.
pub(crate) const TABLE: usize = 3 * QUARTER + HALF - 1;

/// Complex numbers, real parts apart from imaginary ones.
pub(crate) struct Complex<'a> {
    pub(crate) re: &'a mut [f32; POINTS],
    pub(crate) im: &'a mut [f32; POINTS],
}

/// Rotations by fractions of a turn.
#[derive(Clone, Copy)]
pub(crate) struct Rotations<'a> {
    cosines: &'a [f32; TABLE],
    sines: &'a [f32; TABLE],
}

impl<'a> Rotations<'a> {
    /// Takes tables that [`fill`] filled.
    pub(crate) fn new(cosines: &'a [f32], sines: &'a [f32]) -> Result<Self, Error> {
        Ok(Self { cosines: array(cosines)?, sines: array(sines)? })
    }
}

/// Fills both tables, `[TABLE]`.
pub(crate) fn fill(cosines: &mut [f32], sines: &mut [f32]) {
    let passes = (1..=3).flat_map(|power| (0..QUARTER).map(move |p| (power * p) as f64 / POINTS as f64));
    let pairs = (1..HALF).map(|k| k as f64 / SAMPLES as f64);
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
    power: &mut [f32; POINTS],
) {
    first_pass(rotations, &data, &mut spare);
    pass::<4>(rotations, &spare, &mut data);
    pass::<16>(rotations, &data, &mut spare);
    pass::<64>(rotations, &spare, &mut data);
    let (re, im) = (data.re, data.im);
    let square = |re: f32, im: f32| re * re + im * im;
    power[0] = square(re[0] + im[0], 0.0);
    power[HALF] = square(re[HALF], im[HALF]);
    // What is at `k` and at `256 - k` of the spectrum of real samples comes of the same two values.
    let low = re[1..HALF].iter().zip(&im[1..HALF]);
    let high = re[HALF + 1..].iter().zip(&im[HALF + 1..]).rev();
    let rotation = rotations.cosines[3 * QUARTER..].iter().zip(&rotations.sines[3 * QUARTER..]);
    let (low_power, high_power) = power[1..].split_at_mut(HALF);
    let out = low_power.iter_mut().zip(high_power.iter_mut().rev());
    for (((low, high), (&cosine, &sine)), (low_power, high_power)) in low.zip(high).zip(rotation).zip(out) {
        let (even_re, even_im) = (0.5 * (low.0 + high.0), 0.5 * (low.1 - high.1));
        let (odd_re, odd_im) = (0.5 * (low.1 + high.1), 0.5 * (high.0 - low.0));
        let turned_re = odd_re * cosine - odd_im * sine;
        let turned_im = odd_re * sine + odd_im * cosine;
        *low_power = square(even_re + turned_re, even_im + turned_im);
        *high_power = square(even_re - turned_re, even_im - turned_im);
    }
}

/// One butterfly: four values a quarter apart and three rotations, to four neighbours.
#[inline(always)]
fn butterfly(re: [f32; 4], im: [f32; 4], cosines: [f32; 3], sines: [f32; 3]) -> ([f32; 4], [f32; 4]) {
    let (sum_re, sum_im) = (re[0] + re[2], im[0] + im[2]);
    let (rest_re, rest_im) = (re[0] - re[2], im[0] - im[2]);
    let (odd_re, odd_im) = (re[1] + re[3], im[1] + im[3]);
    // The difference of the odd ones, a quarter turn on.
    let (turned_re, turned_im) = (im[3] - im[1], re[1] - re[3]);
    let turn =
        |re: f32, im: f32, k: usize| (re * cosines[k] - im * sines[k], re * sines[k] + im * cosines[k]);
    let first = turn(rest_re - turned_re, rest_im - turned_im, 0);
    let second = turn(sum_re - odd_re, sum_im - odd_im, 1);
    let third = turn(rest_re + turned_re, rest_im + turned_im, 2);
    ([sum_re + odd_re, first.0, second.0, third.0], [sum_im + odd_im, first.1, second.1, third.1])
}

/// The quarters of both parts.
fn quarters<'a>(data: &'a Complex<'_>) -> [[&'a [f32; QUARTER]; 4]; 2] {
    let split = |values: &'a [f32; POINTS]| {
        let (quarters, _) = values.as_chunks::<QUARTER>();
        [0, 1, 2, 3].map(|k| &quarters[k])
    };
    [split(data.re), split(data.im)]
}

fn first_pass(rotations: Rotations<'_>, from: &Complex<'_>, to: &mut Complex<'_>) {
    let [re, im] = quarters(from);
    let (re_out, _) = to.re.as_chunks_mut::<4>();
    let (im_out, _) = to.im.as_chunks_mut::<4>();
    for (p, (re_out, im_out)) in re_out.iter_mut().zip(im_out).enumerate().take(QUARTER) {
        let cosines = [0, 1, 2].map(|k| rotations.cosines[k * QUARTER + p]);
        let sines = [0, 1, 2].map(|k| rotations.sines[k * QUARTER + p]);
        (*re_out, *im_out) = butterfly(re.map(|part| part[p]), im.map(|part| part[p]), cosines, sines);
    }
}

/// A later pass, whose butterflies come in runs of `RUN` with the same rotations.
fn pass<const RUN: usize>(rotations: Rotations<'_>, from: &Complex<'_>, to: &mut Complex<'_>) {
    let [re, im] = quarters(from);
    let (re_out, _) = to.re.as_chunks_mut::<RUN>();
    let (im_out, _) = to.im.as_chunks_mut::<RUN>();
    let (re_out, _) = re_out.as_chunks_mut::<4>();
    let (im_out, _) = im_out.as_chunks_mut::<4>();
    for (p, (re_out, im_out)) in re_out.iter_mut().zip(im_out).enumerate() {
        // The rotations of the first pass, every `RUN`-th of them.
        let cosines = [0, 1, 2].map(|k| rotations.cosines[k * QUARTER + p * RUN]);
        let sines = [0, 1, 2].map(|k| rotations.sines[k * QUARTER + p * RUN]);
        let run = p * RUN;
        let re = re.map(|part| &part[run..run + RUN]);
        let im = im.map(|part| &part[run..run + RUN]);
        for q in 0..RUN {
            let (re, im) = butterfly(re.map(|part| part[q]), im.map(|part| part[q]), cosines, sines);
            for k in 0..4 {
                (re_out[k][q], im_out[k][q]) = (re[k], im[k]);
            }
        }
    }
}

/// The first `N` values as an array.
fn array<const N: usize>(values: &[f32]) -> Result<&[f32; N], Error> {
    let given = values.len();
    values.first_chunk().ok_or(Error::Kernel(KernelError::TooShort { name: "table", needed: N, given }))
}

/// [`array`], to write to.
pub(crate) fn array_mut<const N: usize>(values: &mut [f32]) -> Result<&mut [f32; N], Error> {
    let given = values.len();
    values.first_chunk_mut().ok_or(Error::Kernel(KernelError::TooShort {
        name: "spectrum",
        needed: N,
        given,
    }))
}
