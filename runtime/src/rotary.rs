//! Angles of rotary positions: `angle(position, pair) = position * base^(-2 pair / rotary width)`.

use crate::angles::{Angle, next, still};

/// Angle from one position to the next.
fn rate(base: f32, rotary_width: usize, pair: usize) -> f64 {
    libm::pow(f64::from(base), -2.0 * pair as f64 / rotary_width as f64)
}

/// Fills `[positions][rotary_width / 2]` tables of cosines and sines, from position zero on.
pub(crate) fn fill(base: f32, rotary_width: usize, cosines: &mut [f32], sines: &mut [f32]) {
    for pair in 0..rotary_width / 2 {
        let mut angle = still(rate(base, rotary_width, pair));
        fill_pair(&mut angle, pair, rotary_width / 2, cosines, sines);
    }
}

/// Sets the angles `[rotary_width / 2]` to position zero, for [`fill_on`].
pub(crate) fn start(base: f32, rotary_width: usize, angles: &mut [Angle]) {
    crate::angles::start(angles, |pair| rate(base, rotary_width, pair));
}

/// [`fill`] from wherever the angles stand; they stand behind the table afterwards.
pub(crate) fn fill_on(angles: &mut [Angle], cosines: &mut [f32], sines: &mut [f32]) {
    let half = angles.len();
    for (pair, angle) in angles.iter_mut().enumerate() {
        fill_pair(angle, pair, half, cosines, sines);
    }
}

fn fill_pair(angle: &mut Angle, pair: usize, half: usize, cosines: &mut [f32], sines: &mut [f32]) {
    for (row, other) in cosines.chunks_exact_mut(half).zip(sines.chunks_exact_mut(half)) {
        if let (Some(first), Some(second)) = (row.get_mut(pair), other.get_mut(pair)) {
            let [cosine, sine, ..] = *angle;
            *first = cosine as f32;
            *second = sine as f32;
        }
        *angle = next(*angle);
    }
}
