//! Dense int4 matrix product.

use kinglet_model_format::{INPUT_BLOCK, Int4Matrix, OUTPUT_BLOCK};

use crate::matmul::Matmul;

/// Rows in the order [`RowOrder::Rows`](crate::quantize::RowOrder::Rows), weights in pairs of 16 x 4 blocks.
pub(crate) fn matmul_i4_block16x4<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    let Matmul { rows, weights, bias, out, out_stride } = matmul;
    let (outputs, inputs, scales) = (weights.outputs(), weights.padded_inputs(), weights.scales());
    let group = scales.group_inputs;
    let panels = weights.values().chunks_exact(OUTPUT_BLOCK * inputs / 2);
    let panels = panels.zip(scales.multipliers.chunks_exact(OUTPUT_BLOCK / 2 * weights.groups()));
    for (index, (panel, multipliers)) in panels.enumerate() {
        let first = index * OUTPUT_BLOCK;
        let last = outputs.min(first + OUTPUT_BLOCK);
        for (row, row_values) in rows.values().chunks_exact(inputs).enumerate() {
            let mut totals = [0_i32; OUTPUT_BLOCK];
            let groups = panel.chunks(OUTPUT_BLOCK * group / 2).zip(row_values.chunks(group));
            for ((weights, values), group) in groups.zip(multipliers.as_chunks().0) {
                add_group(&mut totals, sums(weights, values), spread(group));
            }
            let row_scale = rows.scales()[row];
            let out = &mut out[row * out_stride..][first..last];
            for (lane, (out, total)) in out.iter_mut().zip(totals).enumerate() {
                let bias = bias.map_or(0.0, |bias| bias[first + lane]);
                *out = libm::fmaf(total as f32, row_scale * scales.scales[first + lane].to_f32(), bias);
            }
        }
    }
}

/// The multipliers of a group, one for each of 16 outputs.
pub(super) fn spread(group: &[u8; OUTPUT_BLOCK / 2]) -> [i32; OUTPUT_BLOCK] {
    core::array::from_fn(|lane| {
        let byte = group[lane % 8];
        i32::from(if lane < 8 { byte & 0xf } else { byte >> 4 })
    })
}

/// Adds the sums of a group, each times its multiplier, to the totals.
pub(super) fn add_group(
    totals: &mut [i32; OUTPUT_BLOCK],
    sums: [i32; OUTPUT_BLOCK],
    multipliers: [i32; OUTPUT_BLOCK],
) {
    for ((total, sum), multiplier) in totals.iter_mut().zip(sums).zip(multipliers) {
        // The sum of a group is far from overflow; where that of all groups wraps, so does that of int8 weights.
        *total = total.wrapping_add(sum.wrapping_mul(multiplier));
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
                *sum += i32::from(low) * i32::from(first) + i32::from(high) * i32::from(second);
            }
        }
    }
    sums
}
