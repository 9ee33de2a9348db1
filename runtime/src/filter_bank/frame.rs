//! One frame of samples: its mean taken off, emphasised, windowed. Loops over neighbours, for the compiler to make
//! vectors of.

use super::spectrum::{POINTS, SAMPLES};
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

/// Writes a frame to `out`, zeros behind it.
pub(crate) fn prepare(samples: &[i16], window: &[f32], pre_emphasis: f32, out: &mut [f32; SAMPLES]) {
    let sum: i32 = samples.iter().map(|&sample| i32::from(sample)).sum();
    let mean = sum as f32 / samples.len().max(1) as f32;
    // x[t] - m - p (x[t - 1] - m), and the same with m in one place.
    let offset = mean * (1.0 - pre_emphasis);
    let emphasised = |before: i16, sample: i16, factor: f32| {
        (f32::from(sample) - pre_emphasis * f32::from(before) - offset) * factor
    };
    let (frame, behind) = out.split_at_mut(samples.len().min(SAMPLES));
    behind.fill(0.0);
    if let (Some(out), Some(&first), Some(&factor)) = (frame.first_mut(), samples.first(), window.first()) {
        *out = emphasised(first, first, factor);
    }
    let later = samples.iter().zip(samples.iter().skip(1)).zip(window.iter().skip(1));
    for (out, ((&before, &sample), &factor)) in frame.iter_mut().skip(1).zip(later) {
        *out = emphasised(before, sample, factor);
    }
}

/// Takes pairs of neighbours as complex numbers: real parts to the first half of `parts`, imaginary ones to the second.
pub(crate) fn pair_up(samples: &[f32], parts: &mut [f32]) {
    let (pairs, _) = samples.as_chunks::<2>();
    let (re, im) = parts.split_at_mut(POINTS.min(parts.len()));
    for ((&[even, odd], re), im) in pairs.iter().zip(re).zip(im) {
        (*re, *im) = (even, odd);
    }
}
