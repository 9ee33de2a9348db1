//! Int4 and int3 weights give what their products with their multipliers give as int8 weights.

use crate::project::{Input, Rounding, result_rows};
use kinglet_kernels::{Kernels, Rows, dequantize_int3_row, dequantize_int4_row, dequantize_row};
use kinglet_model_format::{
    ActivationBits, Floats, Int3Coding, Int3Matrix, Int4Matrix, Int4Scales, Int8Matrix, Linear, Matrix,
    ShortScale,
};
use std::vec;
use std::vec::Vec;

const OUTPUTS: usize = 20;
const INPUTS: usize = 24;
const PADDED: usize = 32;
const GROUP: usize = 16;

/// The weights of outputs and inputs as int8, in the order of the file.
fn expanded(weight: impl Fn(usize, usize) -> i8) -> Vec<i8> {
    let mut values = Vec::new();
    for panel in 0..2 {
        for block in 0..PADDED / 4 {
            values.extend((0..64).map(|index| weight(16 * panel + index / 4, 4 * block + index % 4)));
        }
    }
    values
}

#[test]
fn int4_is_int8_with_few_bits() {
    let packed: Vec<u8> = (0..32 * PADDED / 2).map(|index| (index * 89 % 251) as u8).collect();
    with_scales(|scales| {
        let int4 = Int4Matrix::new(OUTPUTS, INPUTS, &packed, scales).expect("lengths fit");
        check(Matrix::Int4(int4), &expanded(|output, input| int4.weight(output, input)), |output, row| {
            dequantize_int4_row(&int4, output, row).expect("room")
        });
    });
}

#[test]
fn int3_is_int8_with_fewer() {
    let packed: Vec<u8> = (0..32 * PADDED * 3 / 8).map(|index| (index * 89 % 251) as u8).collect();
    for coding in [Int3Coding::Odd, Int3Coding::Trellis] {
        with_scales(|scales| {
            let int3 = Int3Matrix::new(OUTPUTS, INPUTS, coding, &packed, scales).expect("lengths fit");
            check(
                Matrix::Int3(int3),
                &expanded(|output, input| int3.weight(output, input)),
                |output, row| dequantize_int3_row(&int3, output, row).expect("room"),
            );
        });
    }
}

fn with_scales(check: impl FnOnce(Int4Scales<'_>)) {
    let multipliers: Vec<u8> = (0..32).map(|index| index % 15 + 1 + 16 * (index % 7 + 9)).collect();
    let short_scales: Vec<ShortScale> =
        (0..32).map(|output| ShortScale::new(0.01 + 0.003 * output as f32)).collect();
    check(Int4Scales { group_inputs: GROUP, scales: &short_scales, multipliers: &multipliers });
}

/// `weight`, whose scales are those of [`with_scales`], against `values` as int8.
fn check(weight: Matrix<'_>, values: &[i8], dequantize: impl Fn(usize, &mut [f32])) {
    let scales: Vec<f32> =
        (0..32).map(|output| ShortScale::new(0.01 + 0.003 * output as f32).to_f32()).collect();
    let int8 = Int8Matrix::new(OUTPUTS, INPUTS, values, &scales).expect("lengths fit");
    let bias = [0.25; OUTPUTS];
    for rows in [1, 2, 3, 7] {
        let source: Vec<f32> = (0..rows * INPUTS).map(|index| (index as f32 * 0.37).sin()).collect();
        for kernels in Kernels::available() {
            for bits in [ActivationBits::Eight, ActivationBits::Sixteen] {
                let mut split = vec![0.0; 2 * rows * INPUTS];
                let mut quantized = vec![0; Kernels::quantized_bytes(2 * rows, INPUTS)];
                let mut scales = vec![0.0; 2 * rows];
                let mut room = vec![0; Kernels::int3_room(2 * rows, INPUTS)];
                let mut rounding = Rounding {
                    split: &mut split,
                    rows: &mut quantized,
                    scales: &mut scales,
                    bias: &mut [],
                    room: &mut room,
                };
                let source = Rows { values: &source, stride: INPUTS };
                let input = Input::new(kernels, bits, source, rows, INPUTS, &mut rounding).expect("room");
                let [first, second] = [weight, Matrix::Int8(int8)].map(|weight| {
                    let mut out = vec![0.0; result_rows(bits) * rows * OUTPUTS];
                    input.times(&Linear::new(weight, Some(Floats::Single(&bias))), &mut out).expect("room");
                    out.truncate(rows * OUTPUTS);
                    out
                });
                assert_eq!(first, second, "{bits:?}, {}", kernels.instruction_set());
                assert!(first.iter().any(|&value| value != 0.25));
            }
        }
    }
    for output in 0..OUTPUTS {
        let (mut first, mut second) = ([0.0; INPUTS], [1.0; INPUTS]);
        dequantize(output, &mut first);
        dequantize_row(&int8, output, &mut second).expect("room");
        assert_eq!(first, second);
    }
}
