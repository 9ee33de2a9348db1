//! From rows of f32 to the bytes in which a kernel reads them.

use super::error::PackError;
use super::steps::{Grid, Steps, quantize_steps};
use crate::matrix::{INPUT_BLOCK, INPUT_PAD, Int3Block, OUTPUT_BLOCK, WideBlock, round_up};
use crate::sparse::BlockShape;
use crate::tensor::TensorKind;
use half::f16;
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
    /// Shape of the blocks of a sparse matrix.
    pub block: Option<BlockShape>,
    /// Stored blocks over all blocks; 1 where all weights are stored.
    pub density: f32,
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
    /// Of a sparse matrix.
    pub(crate) index: Vec<u8>,
}

pub(crate) fn store_vector(name: &str, values: &[f32]) -> StoredTensor {
    stored(name, TensorKind::Vector, (values.len(), 1), float_bytes(values), Vec::new(), 0.0)
}

/// [`store_vector`], in f16 where that keeps all values to the bit.
pub(super) fn store_bias(name: &str, values: &[f32]) -> StoredTensor {
    let (kind, bytes) = fewest_bytes(values, TensorKind::HalfVector, TensorKind::Vector);
    stored(name, kind, (values.len(), 1), bytes, Vec::new(), 0.0)
}

/// `rows` is `[outputs][inputs]`.
pub(crate) fn store_float(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let values = float_bytes(&columns(rows, outputs, inputs));
    stored(name, TensorKind::Float, (outputs, inputs), values, Vec::new(), 0.0)
}

/// [`store_float`], in f16 where that keeps all values to the bit.
pub(super) fn store_taps(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let values = columns(rows, outputs, inputs);
    let (kind, bytes) = fewest_bytes(&values, TensorKind::HalfFloat, TensorKind::Float);
    stored(name, kind, (outputs, inputs), bytes, Vec::new(), 0.0)
}

/// `[outputs][inputs]` as `[inputs][padded outputs]`.
fn columns(rows: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let padded = round_up(outputs, OUTPUT_BLOCK);
    let mut values = vec![0.0; padded * inputs];
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        for (input, &value) in row.iter().enumerate() {
            values[input * padded + output] = value;
        }
    }
    values
}

/// Weights rounded to int8, `[outputs][inputs]`, and their scales.
pub(super) struct QuantizedInt8 {
    pub(super) values: Vec<i8>,
    /// `[outputs]`.
    pub(super) scales: Vec<f32>,
    /// Root of the mean squared error over the root of the mean square.
    pub(super) relative_error: f32,
}

/// Symmetric int8 with one scale an output: the step of the row's grid where it has one, so that weights which
/// were trained or published in at most 8 bits are kept to the last bit, else its largest value over 127.
/// `rows` is `[outputs][inputs]`.
pub(super) fn quantize_int8(rows: &[f32], inputs: usize) -> QuantizedInt8 {
    let mut values = Vec::with_capacity(rows.len());
    let mut scales = Vec::new();
    let mut error = RelativeError::default();
    for row in rows.chunks_exact(inputs) {
        let scale = grid_step(row).unwrap_or_else(|| best_step(row));
        scales.push(scale);
        for &value in row {
            let quantized =
                if scale > 0.0 { (value / scale).round_ties_even().clamp(-128.0, 127.0) } else { 0.0 };
            values.push(quantized as i8);
            error.add(quantized * scale, value);
        }
    }
    QuantizedInt8 { values, scales, relative_error: error.value() }
}

#[derive(Default)]
pub(super) struct RelativeError {
    error: f64,
    power: f64,
}

impl RelativeError {
    pub(super) fn add(&mut self, stored: f32, value: f32) {
        self.error += f64::from(stored - value).powi(2);
        self.power += f64::from(value).powi(2);
    }

    pub(super) fn value(&self) -> f32 {
        if self.power > 0.0 { (self.error / self.power).sqrt() as f32 } else { 0.0 }
    }
}

/// [`quantize_int8`] in dense blocks.
pub(crate) fn store_int8(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let quantized = quantize_int8(rows, inputs);
    let padded_outputs = round_up(outputs, OUTPUT_BLOCK);
    let blocks = round_up(inputs, INPUT_PAD) / INPUT_BLOCK;
    let mut values = vec![0u8; padded_outputs * blocks * INPUT_BLOCK];
    for (output, row) in quantized.values.chunks_exact(inputs).enumerate() {
        for (input, &value) in row.iter().enumerate() {
            let block_row = output / OUTPUT_BLOCK * blocks + input / INPUT_BLOCK;
            let place =
                (block_row * OUTPUT_BLOCK + output % OUTPUT_BLOCK) * INPUT_BLOCK + input % INPUT_BLOCK;
            values[place] = value as u8;
        }
    }
    let mut scales = quantized.scales;
    scales.resize(padded_outputs, 0.0);
    let (kind, error) = (TensorKind::Int8, quantized.relative_error);
    stored(name, kind, (outputs, inputs), values, float_bytes(&scales), error)
}

/// [`quantize_steps`] in dense blocks; a group is all the inputs where it is `None`.
///
/// # Errors
/// As there.
pub(super) fn store_steps(
    name: &str,
    rows: &[f32],
    outputs: usize,
    inputs: usize,
    steps: Steps,
    group_inputs: Option<usize>,
    grid: Option<&Grid>,
) -> Result<StoredTensor, PackError> {
    let quantized = quantize_steps(name, rows, inputs, steps, group_inputs, grid)?;
    let padded_inputs = round_up(inputs, INPUT_PAD);
    let pairs = padded_inputs / (2 * INPUT_BLOCK);
    let mut values = vec![0u8; round_up(outputs, OUTPUT_BLOCK) * padded_inputs / 2];
    for (output, row) in quantized.values.chunks_exact(inputs).enumerate() {
        for (input, &value) in row.iter().enumerate() {
            let pair = output / OUTPUT_BLOCK * pairs + input / (2 * INPUT_BLOCK);
            let place = (pair * OUTPUT_BLOCK + output % OUTPUT_BLOCK) * INPUT_BLOCK + input % INPUT_BLOCK;
            values[place] |= (value as u8 & 0xf) << (input / INPUT_BLOCK % 2 * 4);
        }
    }
    let (kind, values) = match steps {
        Steps::Int4 => (TensorKind::Int4, values),
        Steps::Int3 => (TensorKind::Int3, narrow_pairs(&values)),
    };
    let (shape, error) = ((outputs, inputs), quantized.relative_error);
    let tensor = stored(name, kind, shape, values, quantized.scale_bytes(kind), error);
    Ok(StoredTensor { group_inputs: quantized.group_inputs, ..tensor })
}

/// The inverse of [`widen_odd`](crate::widen_odd): the fourth vector of each pair of blocks goes where the lowest bits of the others were.
fn narrow_pairs(wide: &[u8]) -> Vec<u8> {
    let pairs = wide.as_chunks::<{ size_of::<WideBlock>() }>().0.iter();
    let narrow = |pair: &[u8; size_of::<WideBlock>()]| -> Int3Block {
        core::array::from_fn(|place| {
            let (vector, byte) = (place / 16, place % 16);
            let bit = 3 - vector;
            pair[place] & 0xee | (pair[48 + byte] >> bit & 0x11)
        })
    };
    pairs.flat_map(narrow).collect()
}

pub(super) fn largest(row: &[f32]) -> f32 {
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
    // The smallest gap is one step in a row that is full; where pruning left few values it may be any number of steps.
    let counts = (1u8..=128).map(|steps| (largest / gap * f32::from(steps)).round());
    counts.take_while(|count| (1.0..=128.0).contains(count)).find_map(|count| {
        let step = largest / count;
        let on_grid = |value: &f32| {
            let multiple = value / step;
            (multiple - multiple.round()).abs() < 1e-3 && multiple.round() <= 127.0
        };
        row.iter().all(on_grid).then_some(step)
    })
}

pub(super) fn stored(
    name: &str,
    kind: TensorKind,
    shape: (usize, usize),
    values: Vec<u8>,
    scales: Vec<u8>,
    relative_error: f32,
) -> StoredTensor {
    let bytes = values.len() + scales.len();
    let name = name.into();
    let report = TensorReport { name, kind, shape, block: None, density: 1.0, bytes, relative_error };
    StoredTensor { report, group_inputs: 0, values, scales, index: Vec::new() }
}

/// All values in f16, where each is one, else in f32; and the kind that says so.
fn fewest_bytes(values: &[f32], half: TensorKind, single: TensorKind) -> (TensorKind, Vec<u8>) {
    let exact = |value: &f32| {
        let half = f16::from_f32(*value);
        (half.is_finite() && half.to_f32().to_bits() == value.to_bits()).then(|| half.to_le_bytes())
    };
    match values.iter().map(exact).collect::<Option<Vec<_>>>() {
        Some(halves) => (half, halves.concat()),
        None => (single, float_bytes(values)),
    }
}

pub(super) fn float_bytes(values: &[f32]) -> Vec<u8> {
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
    fn few_values_on_a_grid_are_kept_too() {
        for quantized in [[0i8, 3, -5, 0], [0, 0, 0, 7], [-128, 0, 0, 99], [45, 60, -75, 120]] {
            let row = quantized.map(|value| f32::from(value) * 0.0123);
            assert_eq!(store_int8("w", &row, 1, row.len()).report.relative_error, 0.0, "{quantized:?}");
        }
    }

    #[test]
    fn other_rows_have_none() {
        assert_eq!(grid_step(&[0.1, 0.237, -0.555, 0.9001]), None);
        assert_eq!(grid_step(&[0.0; 4]), None);
        let fine: Vec<f32> = (0..256).map(|i| i as f32 * 0.01).collect();
        assert_eq!(grid_step(&fine), None);
    }
}
