//! From rows of f32 to the bytes in which a kernel reads them.

use crate::matrix::{INPUT_BLOCK, INPUT_PAD, OUTPUT_BLOCK, round_up};
use crate::sparse::BlockShape;
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

/// Weights rounded to integers, `[outputs][inputs]`, and their scales.
pub(super) struct Quantized<S> {
    pub(super) values: Vec<i8>,
    /// int8: `[outputs]`; int4: `[outputs][groups]`.
    pub(super) scales: Vec<S>,
    /// Root of the mean squared error over the root of the mean square.
    pub(super) relative_error: f32,
}

/// Symmetric int8 with one scale an output: the step of the row's grid where it has one, so that weights which
/// were trained or published in at most 8 bits are kept to the last bit, else its largest value over 127.
/// `rows` is `[outputs][inputs]`.
pub(super) fn quantize_int8(rows: &[f32], inputs: usize) -> Quantized<f32> {
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
    Quantized { values, scales, relative_error: error.value() }
}

/// Symmetric int4 with one f16 scale for each output and `group_inputs` inputs: the step with the least squared error,
/// which is none for weights that were trained on a grid. `rows` is `[outputs][inputs]`.
pub(super) fn quantize_int4(rows: &[f32], inputs: usize, group_inputs: usize) -> Quantized<half::f16> {
    let mut values = Vec::with_capacity(rows.len());
    let mut scales = Vec::new();
    let mut error = RelativeError::default();
    for row in rows.chunks_exact(inputs) {
        for group in row.chunks(group_inputs) {
            let scale = best_int4_step(group);
            scales.push(scale);
            let scale = scale.to_f32();
            for &value in group {
                let quantized = int4(value, scale);
                values.push(quantized as i8);
                error.add(quantized * scale, value);
            }
        }
    }
    Quantized { values, scales, relative_error: error.value() }
}

/// Inputs that share a scale: rounded up to a multiple of 16, or all the inputs, padded.
pub(super) fn group_of(inputs: usize, group_inputs: Option<usize>) -> usize {
    round_up(group_inputs.unwrap_or(inputs).max(1), INPUT_PAD)
}

/// Scales `[outputs][groups]` as kernels read them, `[outputs padded / 16][groups][16]`.
pub(super) fn lay_out_scales(scales: &[half::f16], groups: usize) -> Vec<u8> {
    let mut laid_out = vec![half::f16::ZERO; round_up(scales.len() / groups, OUTPUT_BLOCK) * groups];
    for (output, scales) in scales.chunks_exact(groups).enumerate() {
        for (group, &scale) in scales.iter().enumerate() {
            let place = (output / OUTPUT_BLOCK * groups + group) * OUTPUT_BLOCK + output % OUTPUT_BLOCK;
            laid_out[place] = scale;
        }
    }
    laid_out.iter().flat_map(|scale| scale.to_le_bytes()).collect()
}

#[derive(Default)]
struct RelativeError {
    error: f64,
    power: f64,
}

impl RelativeError {
    fn add(&mut self, stored: f32, value: f32) {
        self.error += f64::from(stored - value).powi(2);
        self.power += f64::from(value).powi(2);
    }

    fn value(&self) -> f32 {
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

/// [`quantize_int4`] in dense blocks; a group is all the inputs where it is `None`.
pub(crate) fn store_int4(
    name: &str,
    rows: &[f32],
    outputs: usize,
    inputs: usize,
    group_inputs: Option<usize>,
) -> StoredTensor {
    let group_inputs = group_of(inputs, group_inputs);
    let quantized = quantize_int4(rows, inputs, group_inputs);
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
    let scales = lay_out_scales(&quantized.scales, inputs.div_ceil(group_inputs));
    let (kind, shape, error) = (TensorKind::Int4, (outputs, inputs), quantized.relative_error);
    StoredTensor { group_inputs, ..stored(name, kind, shape, values, scales, error) }
}

/// A value as a multiple of `step`, -8 to 7.
fn int4(value: f32, step: f32) -> f32 {
    if step > 0.0 { (value / step).round_ties_even().clamp(-8.0, 7.0) } else { 0.0 }
}

/// The step, as it is stored, with the least squared error: the largest value is one to eight steps, or is clipped.
fn best_int4_step(row: &[f32]) -> half::f16 {
    let most = largest(row);
    let steps = (1..=8u8).map(f32::from).chain((0..24).map(|more| 7.0 + 0.25 * more as f32));
    let mut best = (f32::INFINITY, half::f16::ZERO);
    for count in steps {
        // An infinite scale would be refused by the reader: clip instead.
        let stored = half::f16::from_f32((most / count).min(half::f16::MAX.to_f32()));
        let step = stored.to_f32();
        let error: f32 = row.iter().map(|&value| (int4(value, step) * step - value).powi(2)).sum();
        if error < best.0 {
            best = (error, stored);
        }
    }
    best.1
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

    /// The tensor as floats again.
    fn int4_values(tensor: &StoredTensor) -> Vec<f32> {
        use zerocopy::FromBytes;
        let scales: Vec<half::f16> =
            tensor.scales.chunks_exact(2).map(|bytes| half::f16::read_from_bytes(bytes).unwrap()).collect();
        let (outputs, inputs) = tensor.report.shape;
        let matrix =
            crate::Int4Matrix::new(outputs, inputs, tensor.group_inputs, &tensor.values, &scales).unwrap();
        let value = |output, input| f32::from(matrix.value(output, input)) * matrix.scale(output, input);
        (0..outputs).flat_map(|output| (0..inputs).map(move |input| value(output, input))).collect()
    }

    #[test]
    fn int4_keeps_a_grid() {
        let grid = |index: usize, least: i32, count: i32| (index as i32 * 5 % count + least) as f32 * 0.125;
        for (least, count) in [(-8, 16), (-7, 15), (-3, 7), (-1, 3)] {
            let (outputs, inputs) = (19, 37);
            let rows: Vec<f32> = (0..outputs * inputs).map(|index| grid(index, least, count)).collect();
            for group in [None, Some(32), Some(16)] {
                let tensor = store_int4("w", &rows, outputs, inputs, group);
                assert_eq!(tensor.report.relative_error, 0.0);
                assert_eq!(int4_values(&tensor), rows);
            }
        }
    }

    #[test]
    fn few_values_on_a_grid_are_kept_too() {
        for quantized in [[0i8, 3, -5, 0], [0, 0, 0, 7], [-128, 0, 0, 99], [45, 60, -75, 120]] {
            let row = quantized.map(|value| f32::from(value) * 0.0123);
            assert_eq!(store_int8("w", &row, 1, row.len()).report.relative_error, 0.0, "{quantized:?}");
        }
    }

    /// Weights as training leaves them, pruned in blocks, with any half-precision steps, the largest value of a group often
    /// not used.
    #[test]
    fn int4_keeps_any_grid_of_half_precision_steps() {
        let mut state = 1u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let (outputs, inputs) = (33, 100);
        for group in [None, Some(32), Some(16)] {
            let length = group.unwrap_or(inputs);
            let mut rows = Vec::new();
            for _ in 0..outputs {
                let mut row = vec![0.0; inputs];
                for values in row.chunks_mut(length) {
                    let step = half::f16::from_f32(0.002 + random(10_000) as f32 * 1.7e-6).to_f32();
                    let reach = 1 + random(7) as i32;
                    let least = if reach == 7 { -8 } else { -reach };
                    for block in values.chunks_mut(4) {
                        if random(2) == 0 {
                            let count = (reach - least + 1) as u32;
                            block.fill_with(|| (random(count) as i32 + least) as f32 * step);
                        }
                    }
                }
                rows.extend(row);
            }
            let tensor = store_int4("w", &rows, outputs, inputs, group);
            assert_eq!((int4_values(&tensor), tensor.report.relative_error), (rows, 0.0), "{group:?}");
        }
    }

    #[test]
    fn a_scale_a_group_costs_less_than_one_an_output() {
        let rows: Vec<f32> =
            (0..17 * 100).map(|index| (index as f32 * 0.7).sin() * (index % 100) as f32).collect();
        let error = |group| store_int4("w", &rows, 17, 100, group).report.relative_error;
        assert!(error(Some(32)) < error(None), "{} {}", error(Some(32)), error(None));
        assert!(error(None) < 0.12, "{}", error(None));
        assert_eq!(store_int4("w", &[0.0; 40], 2, 20, None).report.relative_error, 0.0);
        let huge = store_int4("w", &[3e38, -3e38], 1, 2, None);
        assert!(int4_values(&huge).iter().all(|value| value.is_finite()));
    }

    #[test]
    fn other_rows_have_none() {
        assert_eq!(grid_step(&[0.1, 0.237, -0.555, 0.9001]), None);
        assert_eq!(grid_step(&[0.0; 4]), None);
        let fine: Vec<f32> = (0..256).map(|i| i as f32 * 0.01).collect();
        assert_eq!(grid_step(&fine), None);
    }
}
