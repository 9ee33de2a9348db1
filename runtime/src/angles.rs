//! Angles that grow with the position: `angle(position, i) = position * rate(i)`, one position after the other.

/// Cosine and sine of an angle, and of what is added to it from one position to the next.
pub(crate) type Angle = [f64; 4];

/// Sets the angles to position zero.
pub(crate) fn start(angles: &mut [Angle], rate: impl Fn(usize) -> f64) {
    for (index, angle) in angles.iter_mut().enumerate() {
        *angle = still(rate(index));
    }
}

/// An angle of zero that grows by `rate`.
pub(crate) fn still(rate: f64) -> Angle {
    [1.0, 0.0, libm::cos(rate), libm::sin(rate)]
}

/// The same angle one position on. Adding one step at a time is exact to far below f32 over any length that is allowed.
pub(crate) fn next([cosine, sine, step_cosine, step_sine]: Angle) -> Angle {
    let turned = cosine * step_cosine - sine * step_sine;
    [turned, sine * step_cosine + cosine * step_sine, step_cosine, step_sine]
}
