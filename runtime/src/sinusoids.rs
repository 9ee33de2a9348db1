//! Sinusoidal positions: `x = sqrt(width) x + [sin(t rate(i)), cos(t rate(i))]` with
//! `rate(i) = base^(-i / (inputs / 2 - 1))` and `t` counted from 1.

use crate::angles::{self, Angle};
use kinglet_model_format::{Positions, StackConfig};

/// Angles that a stack with `inputs` values a frame needs; none without sinusoidal positions.
pub(crate) fn count(config: &StackConfig, inputs: usize) -> usize {
    if config.positions == Positions::Sinusoidal { inputs / 2 } else { 0 }
}

/// Sets the angles to before the first frame.
pub(crate) fn start(base: f32, angles: &mut [Angle]) {
    let last = angles.len().saturating_sub(1).max(1) as f64;
    angles::start(angles, |index| libm::pow(f64::from(base), -(index as f64) / last));
}

/// Scales the frames `[count, inputs]` and adds their positions; the angles stand at the last of them afterwards.
/// Changes nothing where there are no angles.
pub(crate) fn add(angles: &mut [Angle], width: usize, frames: &mut [f32]) {
    let half = angles.len();
    if half == 0 {
        return;
    }
    let scale = libm::sqrtf(width as f32);
    for frame in frames.chunks_exact_mut(2 * half) {
        let (sines, cosines) = frame.split_at_mut(half);
        for ((angle, sine), cosine) in angles.iter_mut().zip(sines).zip(cosines) {
            *angle = angles::next(*angle);
            *sine = *sine * scale + angle[1] as f32;
            *cosine = *cosine * scale + angle[0] as f32;
        }
    }
}
