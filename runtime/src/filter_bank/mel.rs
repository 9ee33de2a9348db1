//! From a power spectrum to the log energies of mel bands.

use super::spectrum::{POINTS, SAMPLES};
use crate::project::{part, prefix_mut};
use crate::{Error, SAMPLE_RATE};
use kinglet_model_format::FilterBank;

/// Least energy whose logarithm is taken, as Kaldi's.
const LEAST_ENERGY: f32 = f32::EPSILON;

/// Where bands are: between two neighbouring corners one band falls while the next rises.
#[derive(Clone, Copy)]
pub(crate) struct Bands<'a> {
    /// `[bands + 2]`: the first place in the spectrum that is not below each corner.
    pub(crate) corners: &'a [u16],
    /// `[POINTS]`: weight in the band that rises at each place.
    pub(crate) rising: &'a [f32],
    /// `[POINTS]`: weight in the band that falls there.
    pub(crate) falling: &'a [f32],
}

fn mel(hertz: f64) -> f64 {
    1127.0 * libm::log(1.0 + hertz / 700.0)
}

/// Fills the tables of [`Bands`].
pub(crate) fn fill(bank: &FilterBank<'_>, corners: &mut [u16], rising: &mut [f32], falling: &mut [f32]) {
    let (low, high) = (mel(f64::from(bank.low_hz)), mel(f64::from(bank.high_hz)));
    let step = (high - low) / (bank.config.mels + 1) as f64;
    let mut corners = corners.iter_mut().enumerate().peekable();
    for (place, (rising, falling)) in rising.iter_mut().zip(falling).enumerate() {
        // In steps above the lowest corner.
        let height = (mel(place as f64 * f64::from(SAMPLE_RATE) / SAMPLES as f64) - low) / step;
        let share = height - libm::floor(height);
        (*rising, *falling) = (share as f32, (1.0 - share) as f32);
        while let Some((_, first)) = corners.next_if(|(corner, _)| *corner as f64 <= height) {
            *first = place as u16;
        }
    }
    for (_, first) in corners {
        *first = POINTS as u16;
    }
}

impl Bands<'_> {
    /// Logarithms of the energies of all bands, `[bands]`.
    pub(crate) fn log_energies(&self, power: &[f32; POINTS], out: &mut [f32]) -> Result<(), Error> {
        let mut last_rise = 0.0;
        for (index, corners) in self.corners.windows(2).enumerate() {
            let (first, end) = (usize::from(corners[0]), usize::from(corners[1]));
            let count = end.saturating_sub(first);
            let power = part(power, first, count)?;
            let rising = part(self.rising, first, count)?;
            let falling = part(self.falling, first, count)?;
            let (mut rise, mut fall) = (0.0, 0.0);
            for ((power, rising), falling) in power.iter().zip(rising).zip(falling) {
                rise += power * rising;
                fall += power * falling;
            }
            if let Some(energy) = index.checked_sub(1).and_then(|band| out.get_mut(band)) {
                *energy = last_rise + fall;
            }
            last_rise = rise;
        }
        logarithms(prefix_mut(out, self.corners.len().saturating_sub(2))?);
        Ok(())
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
