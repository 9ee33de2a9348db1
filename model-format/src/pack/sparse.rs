//! Matrices in blocks, of which those of zeros are left out.

use super::error::PackError;
use super::lay_out::{StoredTensor, float_bytes, quantize_int8, store_float, store_steps, stored};
use super::options::Weights;
use super::steps::{Grid, Steps, quantize_steps};
use super::trellis::store_trellis;
use crate::matrix::{OUTPUT_BLOCK, round_up};
use crate::sparse::{BlockIndex, BlockShape};
use crate::tensor::TensorKind;
use std::vec;
use std::vec::Vec;

/// Sets the part `sparsity` of the blocks to zero, those with the smallest sum of squares. `rows` is `[outputs][inputs]`.
pub(super) fn prune(
    rows: &[f32],
    outputs: usize,
    inputs: usize,
    shape: BlockShape,
    sparsity: f32,
) -> Vec<f32> {
    let (block_rows, columns) = (outputs.div_ceil(shape.outputs()), inputs.div_ceil(shape.inputs()));
    let block_of = |output: usize, input: usize| output / shape.outputs() * columns + input / shape.inputs();
    let mut power: Vec<(f32, usize)> = (0..block_rows * columns).map(|block| (0.0, block)).collect();
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        for (input, value) in row.iter().enumerate() {
            power[block_of(output, input)].0 += value * value;
        }
    }
    power.sort_by(|a, b| a.0.total_cmp(&b.0));
    let removed = (f64::from(sparsity.clamp(0.0, 1.0)) * power.len() as f64).round() as usize;
    let mut kept = vec![true; power.len()];
    for &(_, block) in power.iter().take(removed) {
        kept[block] = false;
    }
    let mut pruned = rows.to_vec();
    for (output, row) in pruned.chunks_exact_mut(inputs).enumerate() {
        for (input, value) in row.iter_mut().enumerate() {
            if !kept[block_of(output, input)] {
                *value = 0.0;
            }
        }
    }
    pruned
}

/// Quantizes as for a dense matrix, and stores the blocks that hold a weight. `rows` is `[outputs][inputs]`.
///
/// # Errors
/// When int4 weights do not lie on the grid that training chose.
pub(super) fn store_sparse(
    name: &str,
    rows: &[f32],
    outputs: usize,
    inputs: usize,
    shape: BlockShape,
    weights: Weights,
    grid: Option<&Grid>,
) -> Result<StoredTensor, PackError> {
    let (kind, quantized, scales, group_inputs, error) = match weights {
        // None of these has blocks: they are kept whole.
        Weights::Int3 { group_inputs } => {
            return store_steps(name, rows, outputs, inputs, Steps::Int3, group_inputs, grid);
        }
        Weights::Trellis { group_inputs } => {
            return store_trellis(name, rows, outputs, inputs, group_inputs, grid);
        }
        Weights::Float => return Ok(store_float(name, rows, outputs, inputs)),
        Weights::Int8 => {
            let quantized = quantize_int8(rows, inputs);
            let mut scales = quantized.scales;
            scales.resize(round_up(outputs, OUTPUT_BLOCK), 0.0);
            (TensorKind::SparseInt8, quantized.values, float_bytes(&scales), 0, quantized.relative_error)
        }
        Weights::Int4 { group_inputs } => {
            let quantized = quantize_steps(name, rows, inputs, Steps::Int4, group_inputs, grid)?;
            let (kind, group) = (TensorKind::SparseInt4, quantized.group_inputs);
            let scales = quantized.scale_bytes(kind);
            (kind, quantized.values, scales, group, quantized.relative_error)
        }
    };
    let columns = inputs.div_ceil(shape.inputs());
    let block_rows = outputs.div_ceil(shape.outputs());
    let value = |output: usize, input: usize| {
        if output < outputs && input < inputs { quantized[output * inputs + input] } else { 0 }
    };
    let (mut counts, mut stored_columns, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..block_rows {
        let before = stored_columns.len();
        for column in 0..columns {
            let (first_output, first_input) = (row * shape.outputs(), column * shape.inputs());
            let block: Vec<i8> = (0..shape.outputs())
                .flat_map(|output| (0..shape.inputs()).map(move |input| (output, input)))
                .map(|(output, input)| value(first_output + output, first_input + input))
                .collect();
            if block.iter().any(|&value| value != 0) {
                stored_columns.push(column as u16);
                put_block(&mut values, &block, shape, kind);
            }
        }
        counts.push((stored_columns.len() - before) as u16);
    }
    let density = stored_columns.len() as f32 / (columns * block_rows) as f32;
    let mut index: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
    if columns <= BlockIndex::BYTE_COLUMNS {
        index.extend(stored_columns.iter().map(|&column| column as u8));
    } else {
        index.extend(stored_columns.iter().flat_map(|column| column.to_le_bytes()));
    }
    let mut tensor = stored(name, kind, (outputs, inputs), values, scales, error);
    tensor.report.bytes += index.len();
    (tensor.report.block, tensor.report.density) = (Some(shape), density);
    Ok(StoredTensor { group_inputs, index, ..tensor })
}

fn put_block(values: &mut Vec<u8>, block: &[i8], shape: BlockShape, kind: TensorKind) {
    if kind == TensorKind::SparseInt8 {
        values.extend(block.iter().map(|&value| value as u8));
        return;
    }
    let mut bytes = vec![0u8; shape.weights() / 2];
    for (index, &value) in block.iter().enumerate() {
        let (place, high) = shape.int4_place(index / shape.inputs(), index % shape.inputs());
        bytes[place] |= (value as u8 & 0xf) << if high { 4 } else { 0 };
    }
    values.extend(bytes);
}

impl StoredTensor {
    /// Reports the error against `rows` of a tensor that was made from `pruned`.
    pub(super) fn compared_with(mut self, rows: &[f32], pruned: &[f32]) -> Self {
        let power =
            |values: &mut dyn Iterator<Item = f32>| -> f64 { values.map(|v| f64::from(v).powi(2)).sum() };
        let all = power(&mut rows.iter().copied());
        let removed = power(&mut rows.iter().zip(pruned).map(|(a, b)| a - b));
        // What was removed and what was rounded are different weights: their squares add up.
        let rounded = f64::from(self.report.relative_error).powi(2) * power(&mut pruned.iter().copied());
        self.report.relative_error = if all > 0.0 { ((removed + rounded) / all).sqrt() as f32 } else { 0.0 };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Int4Scales;
    use crate::sparse::{BlockColumns, SparseInt4Matrix, SparseInt8Matrix};
    use zerocopy::FromBytes;

    fn rows(outputs: usize, inputs: usize) -> Vec<f32> {
        (0..outputs * inputs)
            .map(|i| ((i * 37 % 15) as f32 - 7.0) * if i % 3 == 0 { 0.0 } else { 0.25 })
            .collect()
    }

    /// The tensor as floats again.
    fn floats(tensor: &StoredTensor) -> Vec<f32> {
        let (outputs, inputs) = tensor.report.shape;
        let shape = tensor.report.block.expect("a sparse matrix");
        let block_rows = outputs.div_ceil(shape.outputs());
        let words: Vec<u16> =
            tensor.index.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        let columns = BlockColumns::Bytes(&tensor.index[2 * block_rows..]);
        let index = BlockIndex::new(shape, outputs, inputs, &words[..block_rows], columns).expect("an index");
        let at = |index: usize| (index / inputs, index % inputs);
        if tensor.report.kind == TensorKind::SparseInt8 {
            let scales: Vec<f32> =
                tensor.scales.chunks_exact(4).map(|b| f32::read_from_bytes(b).expect("four bytes")).collect();
            let values: Vec<i8> = tensor.values.iter().map(|&byte| byte as i8).collect();
            let matrix = SparseInt8Matrix::new(outputs, inputs, index, &values, &scales).expect("a matrix");
            return (0..outputs * inputs)
                .map(|index| f32::from(matrix.value(at(index).0, at(index).1)) * scales[at(index).0])
                .collect();
        }
        let (scales, multipliers) = tensor.scales.split_at(4 * round_up(outputs, OUTPUT_BLOCK));
        let scales: Vec<f32> =
            scales.chunks_exact(4).map(|b| f32::read_from_bytes(b).expect("four bytes")).collect();
        let of_groups = Int4Scales { group_inputs: tensor.group_inputs, scales: &scales, multipliers };
        let matrix =
            SparseInt4Matrix::new(outputs, inputs, index, &tensor.values, of_groups).expect("a matrix");
        (0..outputs * inputs)
            .map(|index| f32::from(matrix.weight(at(index).0, at(index).1)) * scales[at(index).0])
            .collect()
    }

    #[test]
    fn values_on_a_grid_are_kept_in_every_shape() {
        for (outputs, inputs) in [(1, 1), (17, 37), (32, 64), (19, 100)] {
            let rows = rows(outputs, inputs);
            for shape in BlockShape::ALL {
                for weights in [
                    Weights::Int8,
                    Weights::Int4 { group_inputs: None },
                    Weights::Int4 { group_inputs: Some(32) },
                ] {
                    let tensor =
                        store_sparse("w", &rows, outputs, inputs, shape, weights, None).expect("it packs");
                    assert_eq!(floats(&tensor), rows, "{shape} {weights:?} {outputs} {inputs}");
                    assert_eq!(tensor.report.relative_error, 0.0);
                }
            }
        }
    }

    #[test]
    fn the_smallest_blocks_are_pruned() {
        let (outputs, inputs) = (32, 64);
        let rows = rows(outputs, inputs);
        for shape in BlockShape::ALL {
            let pruned = prune(&rows, outputs, inputs, shape, 0.5);
            let tensor = store_sparse("w", &pruned, outputs, inputs, shape, Weights::Int8, None);
            let tensor = tensor.expect("it packs");
            assert!((tensor.report.density - 0.5).abs() < 0.02, "{shape} {}", tensor.report.density);
            assert_eq!(floats(&tensor), pruned);
            let error = tensor.compared_with(&rows, &pruned).report.relative_error;
            assert!(error > 0.1 && error < 0.71, "{shape}: {error}, less than a random half would cost");
            assert_eq!(prune(&rows, outputs, inputs, shape, 0.0), rows);
            assert!(prune(&rows, outputs, inputs, shape, 1.0).iter().all(|&value| value == 0.0));
        }
    }
}
