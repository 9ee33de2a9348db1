//! Dense int4 matrix product.

use kinglet_model_format::{INPUT_BLOCK, Int4Matrix, OUTPUT_BLOCK};

use crate::matmul::Matmul;

/// Rows in the order [`RowOrder::Rows`](crate::quantize::RowOrder::Rows), weights in pairs of 16 x 4 blocks.
pub(crate) fn matmul_i4_block16x4<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    let Matmul { rows, weights, bias, out, out_stride } = matmul;
    let (outputs, inputs, group) = (weights.outputs(), weights.padded_inputs(), weights.group_inputs());
    let panels = weights.values().chunks_exact(OUTPUT_BLOCK * inputs / 2);
    let panels = panels.zip(weights.scales().chunks_exact(OUTPUT_BLOCK * weights.groups()));
    for (index, (panel, scales)) in panels.enumerate() {
        let first = index * OUTPUT_BLOCK;
        let last = outputs.min(first + OUTPUT_BLOCK);
        for (row, row_values) in rows.values().chunks_exact(inputs).enumerate() {
            let mut totals = [0.0_f32; OUTPUT_BLOCK];
            let groups = panel.chunks(OUTPUT_BLOCK * group / 2).zip(row_values.chunks(group));
            for ((weights, values), scales) in groups.zip(scales.chunks_exact(OUTPUT_BLOCK)) {
                for ((total, sum), scale) in totals.iter_mut().zip(sums(weights, values)).zip(scales) {
                    // Other kernels sum 16 times each product: what wraps there shall wrap here.
                    *total = libm::fmaf((sum << 4 >> 4) as f32, scale.to_f32(), *total);
                }
            }
            let out = &mut out[row * out_stride..][first..last];
            for (lane, (out, total)) in out.iter_mut().zip(totals).enumerate() {
                *out = libm::fmaf(total, rows.scales()[row], bias.map_or(0.0, |bias| bias[first + lane]));
            }
        }
    }
}

/// The products of one group, summed.
fn sums(weights: &[u8], values: &[i8]) -> [i32; OUTPUT_BLOCK] {
    let mut sums = [0_i32; OUTPUT_BLOCK];
    let pairs = weights.chunks_exact(OUTPUT_BLOCK * INPUT_BLOCK);
    for (pair, values) in pairs.zip(values.chunks_exact(2 * INPUT_BLOCK)) {
        let (first, second) = values.split_at(INPUT_BLOCK);
        for (sum, bytes) in sums.iter_mut().zip(pair.chunks_exact(INPUT_BLOCK)) {
            for ((&byte, &first), &second) in bytes.iter().zip(first).zip(second) {
                // Shifting the wanted half to the top and back extends its sign.
                let (low, high) = ((byte << 4) as i8 >> 4, byte as i8 >> 4);
                let products = i32::from(low) * i32::from(first) + i32::from(high) * i32::from(second);
                *sum = sum.wrapping_add(products);
            }
        }
    }
    sums
}
