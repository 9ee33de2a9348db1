//! One frame of samples: its mean taken off, emphasised, windowed.

use super::spectrum::POINTS;
use kinglet_model_format::{FilterBank, Window};

/// Fills `window`, `[frame length]`.
pub(crate) fn fill_window(bank: &FilterBank<'_>, window: &mut [f32]) {
    let last = window.len().saturating_sub(1).max(1) as f64;
    for (index, value) in window.iter_mut().enumerate() {
        let cosine = libm::cos(core::f64::consts::TAU * index as f64 / last);
        *value = match bank.window {
            Window::Hamming => 0.54 - 0.46 * cosine,
            Window::Povey => libm::pow(0.5 - 0.5 * cosine, 0.85),
            Window::Hann => 0.5 - 0.5 * cosine,
        } as f32;
    }
}

/// Writes a frame as complex numbers, samples at even places as real parts, and zeros behind it.
pub(crate) fn prepare(
    samples: &[i16],
    window: &[f32],
    pre_emphasis: f32,
    re: &mut [f32; POINTS],
    im: &mut [f32; POINTS],
) {
    let sum: i32 = samples.iter().map(|&sample| i32::from(sample)).sum();
    let mean = sum as f32 / samples.len().max(1) as f32;
    // x[t] - m - p (x[t - 1] - m), and the same with m in one place.
    let offset = mean * (1.0 - pre_emphasis);
    let emphasised = |before: i16, sample: i16, factor: f32| {
        (f32::from(sample) - pre_emphasis * f32::from(before) - offset) * factor
    };
    let first = samples.first().copied().unwrap_or(0);
    let mut values = core::iter::once((first, first))
        .chain(samples.windows(2).map(|pair| (pair[0], pair[1])))
        .zip(window)
        .map(|((before, sample), &factor)| emphasised(before, sample, factor));
    for (re, im) in re.iter_mut().zip(im) {
        *re = values.next().unwrap_or(0.0);
        *im = values.next().unwrap_or(0.0);
    }
}
