//! Block-sparse matrix products. They take rows in any order: where an instruction set has no kernel of its own for a
//! shape of blocks, these serve.

use kinglet_model_format::{BlockShape, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix};

use super::matmul_i4::{add_group, spread};
use crate::QuantizedRows;
use crate::matmul::Matmul;

/// Outputs of the largest block.
const MOST_OUTPUTS: usize = 16;

/// int8 weights: the int32 sums of a row of blocks over all its blocks, then scales and bias.
pub(crate) fn matmul_sparse_i8<'a>(matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    let Matmul { rows, weights, bias, out, out_stride } = matmul;
    let (index, outputs) = (weights.index(), weights.outputs());
    let shape = index.shape();
    for block_row in index.rows() {
        let first = block_row.first_output;
        let last = outputs.min(first + shape.outputs());
        for row in 0..rows.rows() {
            let mut sums = [0_i32; MOST_OUTPUTS];
            for block in 0..block_row.columns.len() {
                let start = (block_row.first_block + block) * shape.weights();
                let values = &weights.values()[start..start + shape.weights()];
                let weight = |output: usize, input: usize| values[output * shape.inputs() + input];
                add_block(shape, rows, row, block_row.columns.get(block), weight, &mut sums);
            }
            let out = &mut out[row * out_stride..][first..last];
            for (lane, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let scale = rows.scales()[row] * weights.scales()[first + lane];
                *out = libm::fmaf(sum as f32, scale, bias.map_or(0.0, |bias| bias[first + lane]));
            }
        }
    }
}

/// int4 weights: the sums of each group of inputs by themselves, as for dense int4 weights.
pub(crate) fn matmul_sparse_i4<'a>(matmul: Matmul<'a, SparseInt4Matrix<'a>>) {
    let Matmul { rows, weights, bias, out, out_stride } = matmul;
    let (index, outputs, scales) = (weights.index(), weights.outputs(), weights.scales());
    let shape = index.shape();
    let bytes = shape.weights() / 2;
    let multipliers = scales.multipliers.as_chunks().0;
    for block_row in index.rows() {
        let first = block_row.first_output;
        let last = outputs.min(first + shape.outputs());
        for row in 0..rows.rows() {
            let mut totals = [0_i32; MOST_OUTPUTS];
            let mut block = 0;
            for group in 0..weights.groups() {
                let end = (group + 1) * scales.group_inputs;
                let mut sums = [0_i32; MOST_OUTPUTS];
                while block < block_row.columns.len() && block_row.columns.get(block) * shape.inputs() < end {
                    let start = (block_row.first_block + block) * bytes;
                    let values = &weights.values()[start..start + bytes];
                    let weight = |output: usize, input: usize| {
                        let (place, high) = shape.int4_place(output, input);
                        // Shifting the wanted half to the top and back extends its sign.
                        if high { values[place] as i8 >> 4 } else { (values[place] << 4) as i8 >> 4 }
                    };
                    add_block(shape, rows, row, block_row.columns.get(block), weight, &mut sums);
                    block += 1;
                }
                let mut multipliers = spread(&multipliers[first / OUTPUT_BLOCK * weights.groups() + group]);
                multipliers.rotate_left(first % OUTPUT_BLOCK);
                add_group(&mut totals, sums, multipliers);
            }
            let out = &mut out[row * out_stride..][first..last];
            for (lane, (out, total)) in out.iter_mut().zip(totals).enumerate() {
                let scale = rows.scales()[row] * scales.scales[first + lane];
                *out = libm::fmaf(total as f32, scale, bias.map_or(0.0, |bias| bias[first + lane]));
            }
        }
    }
}

/// Adds the products of one block with one row.
fn add_block(
    shape: BlockShape,
    rows: &QuantizedRows<'_>,
    row: usize,
    column: usize,
    weight: impl Fn(usize, usize) -> i8,
    sums: &mut [i32; MOST_OUTPUTS],
) {
    for input in 0..shape.inputs() {
        let value = i32::from(rows.value(row, column * shape.inputs() + input));
        for (output, sum) in sums.iter_mut().enumerate().take(shape.outputs()) {
            *sum = sum.wrapping_add(i32::from(weight(output, input)) * value);
        }
    }
}
