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

/// Symmetric int8, the largest value of each output decides its scale. `rows` is `[outputs][inputs]`.
pub(crate) fn store_int8(name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
    let padded_outputs = round_up(outputs, OUTPUT_BLOCK);
    let blocks = round_up(inputs, INPUT_PAD) / INPUT_BLOCK;
    let mut values = vec![0u8; padded_outputs * blocks * INPUT_BLOCK];
    let mut scales = vec![0.0f32; padded_outputs];
    let (mut error, mut power) = (0.0f64, 0.0f64);
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        scales[output] = scale;
        for (input, &value) in row.iter().enumerate() {
            let quantized =
                if scale > 0.0 { (value / scale).round_ties_even().clamp(-127.0, 127.0) } else { 0.0 };
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
