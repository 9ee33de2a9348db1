//! Angles of rotary positions: `angle(position, pair) = position * base^(-2 pair / rotary width)`.

/// Fills `[positions][rotary_width / 2]` tables of cosines and sines.
pub(crate) fn fill(base: f32, rotary_width: usize, cosines: &mut [f32], sines: &mut [f32]) {
    let half = rotary_width / 2;
    if half == 0 {
        return;
    }
    for pair in 0..half {
        let exponent = -2.0 * pair as f64 / rotary_width as f64;
        let step = libm::pow(f64::from(base), exponent);
        let (step_cosine, step_sine) = (libm::cos(step), libm::sin(step));
        // Adding one step's angle at a time is exact to far below f32 over any length that is allowed.
        let (mut cosine, mut sine) = (1.0f64, 0.0f64);
        for (row, other) in cosines.chunks_exact_mut(half).zip(sines.chunks_exact_mut(half)) {
            if let (Some(first), Some(second)) = (row.get_mut(pair), other.get_mut(pair)) {
                *first = cosine as f32;
                *second = sine as f32;
            }
            let turned = cosine * step_cosine - sine * step_sine;
            sine = sine * step_cosine + cosine * step_sine;
            cosine = turned;
        }
    }
}
