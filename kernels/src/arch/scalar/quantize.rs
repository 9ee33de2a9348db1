//! Row quantization.

use crate::quantize::Quantization;

/// Rows whose largest magnitude is below this become zeros: `127 / max` must stay finite, and the scale normal.
pub(crate) const SMALLEST_MAXIMUM: f32 = 1e-35;

/// The two factors of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RowScale {
    /// Integer to float: `max / 127`.
    pub(crate) scale: f32,
    /// Float to integer: `127 / max`.
    pub(crate) inverse: f32,
}

impl RowScale {
    /// For the largest magnitude of a row, which is finite.
    pub(crate) fn for_maximum(maximum: f32) -> Self {
        if maximum < SMALLEST_MAXIMUM {
            Self { scale: 0.0, inverse: 0.0 }
        } else {
            Self { scale: maximum / 127.0, inverse: 127.0 / maximum }
        }
    }
}

/// NaN to 0, infinities to the largest finite value.
pub(crate) fn finite(value: f32) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(f32::MIN, f32::MAX) }
}

/// `value`, which may be anything, as an integer from -127 to 127.
fn quantize_value(value: f32, scale: RowScale) -> i8 {
    libm::rintf(finite(value) * scale.inverse) as i8
}

/// The factors of a row that may hold anything.
pub(crate) fn row_scale(row: &[f32]) -> RowScale {
    RowScale::for_maximum(row.iter().fold(0.0, |maximum: f32, &value| maximum.max(finite(value).abs())))
}

/// Every row, in the order [`RowOrder::Rows`](crate::quantize::RowOrder::Rows).
pub(crate) fn quantize_rows(quantization: Quantization<'_>) {
    let Quantization { source, source_stride, inputs, padded_inputs, values, scales } = quantization;
    for (row, row_scale_out) in scales.iter_mut().enumerate() {
        let start = row * source_stride;
        let source = &source[start..start + inputs];
        let target = &mut values[row * padded_inputs..(row + 1) * padded_inputs];
        let scale = row_scale(source);
        let (target, padding) = target.split_at_mut(inputs);
        for (target, &value) in target.iter_mut().zip(source) {
            *target = quantize_value(value, scale);
        }
        padding.fill(0);
        *row_scale_out = scale.scale;
    }
}
