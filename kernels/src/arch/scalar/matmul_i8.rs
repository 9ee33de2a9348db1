//! Dense int8 matrix product.

use kinglet_model_format::{INPUT_BLOCK, OUTPUT_BLOCK};

use crate::matmul::Matmul;

/// Rows in the order [`RowOrder::Rows`](crate::quantize::RowOrder::Rows), weights in 16 x 4 blocks.
pub(crate) fn matmul_i8_block16x4(matmul: Matmul<'_>) {
    let Matmul { rows, weights, bias, out, out_stride } = matmul;
    let outputs = weights.outputs();
    let inputs = weights.padded_inputs();
    for (block_row, block_weights) in weights.values().chunks_exact(OUTPUT_BLOCK * inputs).enumerate() {
        let first = block_row * OUTPUT_BLOCK;
        let last = outputs.min(first + OUTPUT_BLOCK);
        for (row, row_values) in rows.values().chunks_exact(inputs).enumerate() {
            let mut sums = [0_i32; OUTPUT_BLOCK];
            let blocks = block_weights.chunks_exact(OUTPUT_BLOCK * INPUT_BLOCK);
            for (block, row_values) in blocks.zip(row_values.chunks_exact(INPUT_BLOCK)) {
                for (sum, block) in sums.iter_mut().zip(block.chunks_exact(INPUT_BLOCK)) {
                    for (&weight, &value) in block.iter().zip(row_values) {
                        *sum = sum.wrapping_add(i32::from(weight) * i32::from(value));
                    }
                }
            }
            let row_scale = rows.scales()[row];
            let out = &mut out[row * out_stride..][first..last];
            for (lane, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let bias = bias.map_or(0.0, |bias| bias[first + lane]);
                *out = libm::fmaf(sum as f32, row_scale * weights.scales()[first + lane], bias);
            }
        }
    }
}
