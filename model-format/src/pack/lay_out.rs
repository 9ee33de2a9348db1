//! From rows of f32 to the bytes in which a kernel reads them.

use crate::matrix::{INPUT_BLOCK, INPUT_PAD, OUTPUT_BLOCK, round_up};
use crate::tensor::TensorKind;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// What was done with one tensor.
#[derive(Debug, Clone)]
pub struct TensorReport {
    /// Name in the checkpoint.
    pub name: String,
    /// How it is stored.
    pub kind: TensorKind,
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// Bytes in the file.
    pub bytes: usize,
    /// Root of the mean squared error over the root of the mean square, zero where nothing was rounded.
    pub relative_error: f32,
}

/// A tensor, ready to be written.
pub(crate) struct StoredTensor {
    pub(crate) report: TensorReport,
    pub(crate) group_inputs: usize,
    pub(crate) values: Vec<u8>,
    pub(crate) scales: Vec<u8>,
}

pub(crate) fn store_vector(name: &str, values: &[f32]) -> StoredTensor {
    stored(name, TensorKind::Vector, (values.len(), 1), float_bytes(values), Vec::new(), 0.0)
}

/// `rows` is `[outputs][inputs]`.
pub(crate) fn store_float(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let padded = round_up(outputs, OUTPUT_BLOCK);
    let mut values = vec![0.0; padded * inputs];
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        for (input, &value) in row.iter().enumerate() {
            values[input * padded + output] = value;
        }
    }
    stored(name, TensorKind::Float, (outputs, inputs), float_bytes(&values), Vec::new(), 0.0)
}

/// Symmetric int8 with one scale an output: the step of the row's grid where it has one, so that weights which
/// were trained or published in at most 8 bits are kept to the last bit, else its largest value over 127.
/// `rows` is `[outputs][inputs]`.
pub(crate) fn store_int8(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let padded_outputs = round_up(outputs, OUTPUT_BLOCK);
    let blocks = round_up(inputs, INPUT_PAD) / INPUT_BLOCK;
    let mut values = vec![0u8; padded_outputs * blocks * INPUT_BLOCK];
    let mut scales = vec![0.0f32; padded_outputs];
    let (mut error, mut power) = (0.0f64, 0.0f64);
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        let scale = grid_step(row).unwrap_or_else(|| best_step(row));
        scales[output] = scale;
        for (input, &value) in row.iter().enumerate() {
            let quantized =
                if scale > 0.0 { (value / scale).round_ties_even().clamp(-128.0, 127.0) } else { 0.0 };
            let block_row = output / OUTPUT_BLOCK * blocks + input / INPUT_BLOCK;
            let place =
                (block_row * OUTPUT_BLOCK + output % OUTPUT_BLOCK) * INPUT_BLOCK + input % INPUT_BLOCK;
            values[place] = quantized as i8 as u8;
            error += f64::from(quantized * scale - value).powi(2);
            power += f64::from(value).powi(2);
        }
    }
    let relative_error = if power > 0.0 { (error / power).sqrt() as f32 } else { 0.0 };
    let kind = TensorKind::Int8;
    stored(name, kind, (outputs, inputs), values, float_bytes(&scales), relative_error)
}

fn largest(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The step with the least squared error: a little clipping of the largest values often pays.
fn best_step(row: &[f32]) -> f32 {
    let most = largest(row) / 127.0;
    let mut best = (f64::INFINITY, most);
    for percent in (60..=100).rev() {
        let step = most * percent as f32 / 100.0;
        let error = squared_error(row, step);
        if error < best.0 {
            best = (error, step);
        }
    }
    best.1
}

fn squared_error(row: &[f32], step: f32) -> f64 {
    if step == 0.0 {
        return 0.0;
    }
    row.iter()
        .map(|&value| f64::from((value / step).round_ties_even().clamp(-128.0, 127.0) * step - value).powi(2))
        .sum()
}

/// The step of which all values of a row are multiples, -128 to 127 times it.
fn grid_step(row: &[f32]) -> Option<f32> {
    let mut magnitudes: Vec<f32> = row.iter().map(|value| value.abs()).collect();
    magnitudes.push(0.0);
    magnitudes.sort_by(f32::total_cmp);
    let largest = *magnitudes.last()?;
    // Rounding noise between equal values is far below the smallest step that 128 multiples allow.
    let least = largest / 512.0;
    let gaps = magnitudes.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > least);
    let gap = gaps.fold(f32::INFINITY, f32::min);
    let count = (largest / gap).round();
    if !(1.0..=128.0).contains(&count) {
        return None;
    }
    let step = largest / count;
    let on_grid = |value: &f32| {
        let multiple = value / step;
        (multiple - multiple.round()).abs() < 1e-3 && multiple.round() <= 127.0
    };
    row.iter().all(on_grid).then_some(step)
}

fn stored(
    name: &str,
    kind: TensorKind,
    shape: (usize, usize),
    values: Vec<u8>,
    scales: Vec<u8>,
    relative_error: f32,
) -> StoredTensor {
    let bytes = values.len() + scales.len();
    let report = TensorReport { name: name.into(), kind, shape, bytes, relative_error };
    StoredTensor { report, group_inputs: 0, values, scales }
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_of_up_to_127_steps_is_found() {
        let row: Vec<f32> = [-127i8, -3, 0, 1, 5, 90].iter().map(|&q| f32::from(q) * 0.0123).collect();
        let step = grid_step(&row).unwrap_or(0.0);
        assert!((step - 0.0123).abs() < 1e-7, "{step}");
        assert_eq!(store_int8("w", &row, 1, row.len()).report.relative_error, 0.0);
    }

    #[test]
    fn other_rows_have_none() {
        assert_eq!(grid_step(&[0.1, 0.237, -0.555, 0.9001]), None);
        assert_eq!(grid_step(&[0.0; 4]), None);
        let fine: Vec<f32> = (0..256).map(|i| i as f32 * 0.01).collect();
        assert_eq!(grid_step(&fine), None);
    }
}
