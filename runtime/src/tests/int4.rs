//! Int4 weights give what the same weights in int8 give: with powers of two as scales no rounding differs.

use crate::project::{Input, Rounding, result_rows};
use half::f16;
use kinglet_kernels::{Kernels, Rows, dequantize_int4_row, dequantize_row};
use kinglet_model_format::{ActivationBits, Int4Matrix, Int8Matrix, Linear, Matrix};
use std::vec;
use std::vec::Vec;

const OUTPUTS: usize = 20;
const INPUTS: usize = 24;
const PADDED: usize = 32;

/// Packed int4 values and the same as int8, both in the order of the file.
fn weights() -> (Vec<u8>, Vec<i8>) {
    let packed: Vec<u8> = (0..32 * PADDED / 2).map(|index| (index * 89 % 251) as u8).collect();
    let mut values = Vec::new();
    for pair in packed.chunks_exact(64) {
        values.extend(pair.iter().map(|byte| (byte << 4) as i8 >> 4));
        values.extend(pair.iter().map(|&byte| byte as i8 >> 4));
    }
    (packed, values)
}

#[test]
fn int4_is_int8_with_small_weights() {
    let (packed, values) = weights();
    let scale = |lane: usize| 0.5_f32.powi(lane as i32 % 6);
    let float_scales: Vec<f32> = (0..32).map(scale).collect();
    let half_scales: Vec<f16> = float_scales.iter().map(|&scale| f16::from_f32(scale)).collect();
    let int4 = Int4Matrix::new(OUTPUTS, INPUTS, PADDED, &packed, &half_scales).expect("lengths fit");
    let int8 = Int8Matrix::new(OUTPUTS, INPUTS, &values, &float_scales).expect("lengths fit");
    let bias = [0.25; OUTPUTS];
    let rows = 3;
    let source: Vec<f32> = (0..rows * INPUTS).map(|index| (index as f32 * 0.37).sin()).collect();
    for kernels in Kernels::available() {
        for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
            let mut split = vec![0.0; 2 * rows * INPUTS];
            let mut quantized = vec![0; Kernels::quantized_bytes(2 * rows, INPUTS)];
            let mut scales = vec![0.0; 2 * rows];
            let mut rounding = Rounding { split: &mut split, rows: &mut quantized, scales: &mut scales };
            let source = Rows { values: &source, stride: INPUTS };
            let input = Input::new(kernels, bits, source, rows, INPUTS, &mut rounding).expect("room");
            let [first, second] = [Matrix::Int4(int4), Matrix::Int8(int8)].map(|weight| {
                let mut out = vec![0.0; result_rows(bits) * rows * OUTPUTS];
                input.times(&Linear::new(weight, Some(&bias)), &mut out).expect("room");
                out.truncate(rows * OUTPUTS);
                out
            });
            assert_eq!(first, second, "{bits:?}, {}", kernels.instruction_set());
            assert!(first.iter().any(|&value| value != 0.25));
        }
    }
    for output in 0..OUTPUTS {
        let (mut first, mut second) = ([0.0; INPUTS], [1.0; INPUTS]);
        dequantize_int4_row(&int4, output, &mut first).expect("room");
        dequantize_row(&int8, output, &mut second).expect("room");
        assert_eq!(first, second);
    }
}
