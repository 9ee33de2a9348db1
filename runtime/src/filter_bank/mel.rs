//! From a power spectrum to the log energies of mel bands.

use super::spectrum::{Lanes, POINTS, SAMPLES, SPECTRUM, WIDTH};
use crate::SAMPLE_RATE;
use kinglet_model_format::FilterBank;

/// Least energy whose logarithm is taken, as Kaldi's.
const LEAST_ENERGY: f32 = f32::EPSILON;

/// The triangles of all bands. Most are few places long, so each is padded with weights of zero to whole [`Lanes`].
#[derive(Clone, Copy)]
pub(crate) struct Bands<'a> {
    /// `[bands]`: the first place of each band, and how many lanes it takes.
    places: &'a [[u16; 2]],
    /// Weights, band by band.
    weights: &'a [Lanes],
}

/// Weights of `bands` bands, at most: each place belongs to two.
pub(crate) const fn weights(bands: usize) -> usize {
    bands * WIDTH + 2 * POINTS
}

fn mel(hertz: f64) -> f64 {
    1127.0 * libm::log(1.0 + hertz / 700.0)
}

/// Fills the tables of [`Bands`]: `places` `[bands]`, `weights` as many as [`weights`](weights()) says.
pub(crate) fn fill(bank: &FilterBank<'_>, places: &mut [[u16; 2]], weights: &mut [f32]) {
    let (low, high) = (mel(f64::from(bank.low_hz)), mel(f64::from(bank.high_hz)));
    let step = (high - low) / (bank.config.mels + 1) as f64;
    // In steps above the lowest corner.
    let height = |place: usize| (mel(place as f64 * f64::from(SAMPLE_RATE) / SAMPLES as f64) - low) / step;
    weights.fill(0.0);
    let (mut first, mut used) = (0, 0);
    for (band, entry) in places.iter_mut().enumerate() {
        let corner = band as f64;
        while first < POINTS && height(first) <= corner {
            first += 1;
        }
        let mut end = first;
        while end < POINTS && height(end) < corner + 2.0 {
            let above = height(end) - corner;
            if let Some(weight) = weights.get_mut(used + end - first) {
                *weight = above.min(2.0 - above) as f32;
            }
            end += 1;
        }
        let lanes = (end - first).div_ceil(WIDTH);
        *entry = [first as u16, lanes as u16];
        used += lanes * WIDTH;
    }
}

impl<'a> Bands<'a> {
    /// Takes tables that [`fill`] filled.
    pub(crate) fn new(places: &'a [[u16; 2]], weights: &'a [f32]) -> Self {
        Self { places, weights: Lanes::of(weights) }
    }

    /// Logarithms of the energies of all bands, `[bands]`.
    pub(crate) fn log_energies(&self, power: &[f32; SPECTRUM], out: &mut [f32]) {
        let mut weights = self.weights;
        for (energy, &[first, lanes]) in out.iter_mut().zip(self.places) {
            let mut place = usize::from(first);
            let mut sum = Lanes::all(0.0);
            for _ in 0..lanes {
                let Some((&weight, rest)) = weights.split_first() else { break };
                let Some(power) = power.get(place..place + WIDTH).and_then(|power| power.first_chunk())
                else {
                    break;
                };
                sum = sum + Lanes(*power) * weight;
                weights = rest;
                place += WIDTH;
            }
            *energy = sum.sum();
        }
        logarithms(out);
    }
}

/// Natural logarithms of what is not below [`LEAST_ENERGY`], relative error below 3e-7. A loop of single operations,
/// so that the compiler makes vectors of it and every target gives the same bits; libm's would take half as long as
/// everything else here.
fn logarithms(values: &mut [f32]) {
    const MANTISSA: u32 = 0x007f_ffff;
    // The bits of the square root of one half: numbers are split into that to twice that, and a power of two.
    const ROOT: u32 = 0x3f35_04f3;
    for value in values {
        let bits = value.max(LEAST_ENERGY).to_bits().wrapping_sub(ROOT);
        let exponent = ((bits as i32) >> 23) as f32;
        let mantissa = f32::from_bits((bits & MANTISSA) + ROOT);
        // ln m = 2 artanh((m - 1) / (m + 1)), whose argument is at most 0.172.
        let s = (mantissa - 1.0) / (mantissa + 1.0);
        let square = s * s;
        let series = 1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0)));
        let fraction = 2.0 * s + 2.0 * s * square * series;
        // ln 2 in two parts, so that the product with the exponent is exact.
        *value = exponent * 0.693_359_4 + (exponent * -2.121_944_4e-4 + fraction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn logarithms_agree_with_the_standard_library() {
        let mut values: Vec<f32> = (0..200_000).map(|i| 1e-7 * (i as f32 * 3.5e-4).exp()).collect();
        values.extend([1.0, 2.0, 0.5, f32::MAX, 1.000_000_1, 0.999_999_9]);
        let want: Vec<f64> = values.iter().map(|&value| f64::from(value.max(LEAST_ENERGY)).ln()).collect();
        logarithms(&mut values);
        for (got, want) in values.iter().zip(want) {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 3e-7 * want.abs().max(1.0), "{got} {want}");
        }
        let mut odd = [0.0, -1.0, f32::NAN, f32::INFINITY];
        logarithms(&mut odd);
        assert!(odd[..3].iter().all(|&value| (value - LEAST_ENERGY.ln()).abs() < 1e-5), "{odd:?}");
        assert!(odd[3].is_finite());
    }
}
