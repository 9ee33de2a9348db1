//! The same bits on every instruction set; norms, positions and products also against f64.

use std::vec;
use std::vec::Vec;

use kinglet_model_format::Int8Matrix;

use super::{Random, awkward, every, same_bits};
use crate::{AttentionShape, KernelError, Kernels, Rows, attend_scratch, dequantize_row};

const LENGTHS: [usize; 9] = [1, 3, 15, 16, 17, 31, 33, 100, 288];

#[test]
fn functions_of_one_value() {
    type Function = fn(Kernels, &mut [f32]);
    let functions: [(&str, Function); 5] = [
        ("exp", Kernels::exp),
        ("gelu", Kernels::gelu),
        ("relu", Kernels::relu),
        ("tanh", Kernels::tanh),
        ("silu", |kernels, x| {
            let gate = x.to_vec();
            x.fill(0.75);
            assert_eq!(kernels.silu_mul(&gate, x), Ok(()));
        }),
    ];
    let mut values = awkward();
    values.extend((0..4000).map(|i| (i - 2000) as f32 * 0.013));
    for (name, function) in functions {
        same_bits(name, |kernels| {
            let mut result = values.clone();
            function(kernels, &mut result);
            result
        });
    }
}

#[test]
fn add_of_every_length() {
    let mut random = Random(1);
    for length in LENGTHS {
        let (left, right) = (random.floats(length), random.floats(length));
        same_bits("add", |kernels| {
            let mut result = left.clone();
            assert_eq!(kernels.add(&mut result, &right), Ok(()));
            result
        });
    }
    let short = KernelError::TooShort { name: "other", needed: 2, given: 1 };
    assert_eq!(Kernels::detect().add(&mut [0.0; 2], &[1.0]), Err(short));
}

#[test]
fn softmax_and_peak() {
    let mut random = Random(2);
    for length in LENGTHS {
        let mut values: Vec<f32> = random.floats(length).iter().map(|x| x * 30.0).collect();
        for special in [0.0, f32::NEG_INFINITY, 1e30, f32::NAN] {
            values[length / 2] = special;
            same_bits("softmax", |kernels| {
                let mut result = values.clone();
                kernels.softmax(&mut result);
                result
            });
            same_bits("peak", |kernels| match kernels.peak(&values) {
                Ok(peak) => vec![peak.index as f32, peak.logit, peak.log_sum_exp],
                Err(_) => vec![],
            });
        }
    }
}

#[test]
fn layer_norm_matches_f64() {
    let mut random = Random(4);
    for width in LENGTHS {
        let (rows, stride) = (3, width + 5);
        let values: Vec<f32> = random.floats(rows * stride).iter().map(|x| x * 3.0 + 1.0).collect();
        let (weight, bias) = (random.floats(width), random.floats(width));
        for bias in [None, Some(bias.as_slice())] {
            let normalize = |kernels: Kernels| {
                let mut out = vec![7.0; rows * (width + 1)];
                let result =
                    kernels.layer_norm(&values, stride, rows, &weight, bias, 1e-5, &mut out, width + 1);
                assert_eq!(result, Ok(()));
                out
            };
            same_bits("layer_norm", normalize);
            let out = normalize(Kernels::detect());
            for row in 0..rows {
                let source = &values[row * stride..][..width];
                let mean = source.iter().map(|x| f64::from(*x)).sum::<f64>() / width as f64;
                let variance =
                    source.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width as f64;
                for i in 0..width {
                    let normal = (f64::from(source[i]) - mean) / (variance + 1e-5).sqrt();
                    let expected =
                        normal * f64::from(weight[i]) + bias.map_or(0.0, |bias| f64::from(bias[i]));
                    let given = f64::from(out[row * (width + 1) + i]);
                    // With one value the difference is all rounding, magnified by 1 / sqrt(epsilon).
                    assert!((given - expected).abs() < 1e-4, "{width}: {given} {expected}");
                }
                assert_eq!(out[row * (width + 1) + width], 7.0, "written beyond the row");
            }
        }
    }
    assert!(Kernels::detect().layer_norm(&[1.0], 1, 1, &[], None, 1e-5, &mut [0.0], 1).is_err());
}

#[test]
fn rotary_turns_pairs() {
    let mut random = Random(5);
    for (head_width, rotary_width) in [(36, 32), (64, 64), (5, 4), (20, 18), (7, 0), (256, 256)] {
        let row = random.floats(3 * head_width);
        let angles: Vec<f64> = (0..rotary_width / 2).map(|i| 0.3 + f64::from(i as u32) * 0.7).collect();
        let cosines: Vec<f32> = angles.iter().map(|angle| angle.cos() as f32).collect();
        let sines: Vec<f32> = angles.iter().map(|angle| angle.sin() as f32).collect();
        let turn = |kernels: Kernels| {
            let mut result = row.clone();
            assert_eq!(kernels.rotary(&mut result, head_width, &cosines, &sines), Ok(()));
            result
        };
        same_bits("rotary", turn);
        let result = turn(Kernels::detect());
        for head in 0..3 {
            for i in 0..head_width {
                let at = head * head_width + i;
                let pair = if i % 2 == 0 { row.get(at + 1) } else { row.get(at - 1) };
                let pair = f64::from(pair.copied().unwrap_or(0.0));
                let expected = if i >= rotary_width {
                    f64::from(row[at])
                } else {
                    let sign = if i % 2 == 0 { -1.0 } else { 1.0 };
                    f64::from(row[at]) * angles[i / 2].cos() + sign * pair * angles[i / 2].sin()
                };
                assert!((f64::from(result[at]) - expected).abs() < 1e-6, "{head_width} {i}");
            }
        }
    }
    let kernels = Kernels::detect();
    assert!(kernels.rotary(&mut [0.0; 7], 4, &[1.0], &[0.0]).is_err());
    assert!(kernels.rotary(&mut [0.0; 8], 4, &[1.0; 3], &[0.0; 3]).is_err());
    assert!(kernels.rotary(&mut [0.0; 8], 4, &[1.0; 2], &[0.0; 1]).is_err());
    assert!(kernels.rotary(&mut [], 0, &[], &[]).is_err());
}

#[test]
fn matmul_of_overlapping_rows() {
    let mut random = Random(6);
    let shapes =
        [(1, 1, 1, 1), (7, 127, 33, 64), (13, 16, 16, 16), (61, 5, 48, 3), (25, 130, 20, 0), (0, 4, 4, 4)];
    for (rows, inputs, outputs, stride) in shapes {
        let padded = usize::next_multiple_of(outputs, 16);
        let source = random.floats(rows.max(1) * stride + inputs);
        let weights = random.floats(inputs * padded);
        let bias = random.floats(outputs);
        for bias in [None, Some(bias.as_slice())] {
            let multiply = |kernels: Kernels| {
                let mut out = vec![7.0; rows * (outputs + 3) + 1];
                let source = Rows { values: &source, stride };
                let result =
                    kernels.matmul_f32(source, rows, inputs, outputs, &weights, bias, &mut out, outputs + 3);
                assert_eq!(result, Ok(()));
                out
            };
            same_bits("matmul_f32", multiply);
            let out = multiply(Kernels::detect());
            for row in 0..rows {
                for output in 0..outputs {
                    let terms = (0..inputs).map(|k| {
                        f64::from(source[row * stride + k]) * f64::from(weights[k * padded + output])
                    });
                    let expected = terms.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[output]));
                    assert!((f64::from(out[row * (outputs + 3) + output]) - expected).abs() < 1e-5);
                }
                assert_eq!(out[row * (outputs + 3) + outputs], 7.0, "written beyond the row");
            }
        }
    }
    let source = Rows { values: &[0.0; 10], stride: 4 };
    let mut out = [0.0; 40];
    for kernels in every() {
        assert!(kernels.matmul_f32(source, 3, 4, 2, &[0.0; 64], None, &mut out, 2).is_err());
        assert!(kernels.matmul_f32(source, 2, 4, 2, &[0.0; 63], None, &mut out, 2).is_err());
        assert!(kernels.matmul_f32(source, 2, 4, 2, &[0.0; 64], Some(&[0.0]), &mut out, 2).is_err());
        assert!(kernels.matmul_f32(source, 2, 4, 2, &[0.0; 64], None, &mut out, 1).is_err());
    }
}

#[test]
fn dequantized_rows() {
    let (outputs, inputs) = (37, 21);
    let values: Vec<i8> = (0..48 * 32).map(|i| (i * 89 % 255) as u8 as i8).collect();
    let scales: Vec<f32> = (0..48).map(|i| 0.01 + i as f32).collect();
    let matrix = Int8Matrix::new(outputs, inputs, &values, &scales).unwrap_or_else(|error| panic!("{error}"));
    for output in 0..outputs {
        let mut row = vec![7.0; inputs + 1];
        assert_eq!(dequantize_row(&matrix, output, &mut row), Ok(()));
        for (input, value) in row.iter().take(inputs).enumerate() {
            assert_eq!(*value, f32::from(matrix.value(output, input)) * scales[output]);
        }
        assert_eq!(row[inputs], 7.0);
    }
    assert!(dequantize_row(&matrix, outputs, &mut [0.0; 21]).is_err());
    assert!(dequantize_row(&matrix, 0, &mut [0.0; 20]).is_err());
}

/// The scalar kernels themselves must not depend on the machine either: one number stands for many results.
#[test]
fn results_are_the_same_on_every_architecture() {
    let values: Vec<f32> = Random(12).floats(999).iter().map(|x| x * 12.0).collect();
    for kernels in every() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |values: &[f32]| {
            for value in values {
                hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
            }
        };
        let functions = [Kernels::exp, Kernels::gelu, Kernels::tanh, Kernels::softmax];
        for function in functions {
            let mut values = values.clone();
            function(kernels, &mut values);
            add(&values);
        }
        let mut out = vec![0.0; 333];
        assert_eq!(kernels.layer_norm(&values, 333, 1, &values[333..666], None, 1e-5, &mut out, 333), Ok(()));
        add(&out);
        let shape = AttentionShape { heads: 3, head_width: 11, scale: 0.01 };
        let mut scratch = vec![0.0; attend_scratch(30, 11)];
        let rows = Rows { values: &values, stride: 33 };
        assert_eq!(kernels.attend(&shape, rows, 9, rows, rows, 0..30, &mut scratch, &mut out, 33), Ok(()));
        add(&out);
        let peak = kernels.peak(&values).map_or(f32::NAN, |peak| peak.log_sum_exp);
        add(&[peak]);
        assert_eq!(hash, 0xc161_31e0_fafe_82f2, "{hash:#x}");
    }
}

#[test]
fn split_rows_add_up_and_the_rest_is_what_int8_loses() {
    let mut random = Random(9);
    for inputs in [1, 15, 16, 17, 288] {
        let source: Vec<f32> = random.floats(3 * inputs);
        same_bits("split_rows", |kernels| {
            let mut out = vec![f32::NAN; 6 * inputs];
            let rows = Rows { values: &source, stride: inputs };
            assert_eq!(kernels.split_rows(rows, 3, inputs, &mut out), Ok(()));
            for (split, row) in out.chunks_exact(2 * inputs).zip(source.chunks_exact(inputs)) {
                let (whole, rest) = split.split_at(inputs);
                assert_eq!(whole, row);
                let largest = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                assert!(rest.iter().all(|x| x.abs() <= largest / 253.0), "{rest:?}");
                let mut bytes = vec![0; Kernels::quantized_bytes(1, inputs)];
                let mut scales = [0.0];
                let quantized = kernels.quantize_rows(row, inputs, 1, inputs, &mut bytes, &mut scales);
                let Ok(quantized) = quantized else { panic!("{quantized:?}") };
                for (i, (x, rest)) in row.iter().zip(rest).enumerate() {
                    let rounded = f32::from(quantized.value(0, i)) * quantized.scales()[0];
                    assert!((x - rounded - rest).abs() <= largest * 1e-6, "{x} {rounded} {rest}");
                }
            }
            out
        });
    }
    let mut out = [1.0; 6];
    let rows = Rows { values: &[1.0, f32::INFINITY, f32::NAN], stride: 3 };
    assert_eq!(Kernels::detect().split_rows(rows, 1, 3, &mut out), Ok(()));
    assert_eq!(out[3..], [0.0; 3]);
}

#[test]
fn joined_rows_are_sums_of_pairs() {
    let mut random = Random(10);
    for outputs in [1, 15, 16, 17, 288] {
        for rows in [1, 2, 5] {
            let (products, bias) = (random.floats(2 * rows * outputs + 1), random.floats(outputs));
            for bias in [None, Some(bias.as_slice())] {
                same_bits("join_rows", |kernels| {
                    let mut values = products.clone();
                    assert_eq!(kernels.join_rows(&mut values, rows, outputs, bias), Ok(()));
                    for row in 0..rows {
                        for output in 0..outputs {
                            let place = 2 * row * outputs + output;
                            let sum = products[place] + products[place + outputs];
                            let sum = bias.map_or(sum, |bias| sum + bias[output]);
                            assert_eq!(values[row * outputs + output], sum, "{rows} {outputs}");
                        }
                    }
                    assert_eq!(values.last(), products.last(), "written beyond the rows");
                    values.truncate(rows * outputs);
                    values
                });
            }
        }
    }
    let kernels = Kernels::detect();
    assert!(kernels.join_rows(&mut [0.0; 11], 2, 3, None).is_err());
    assert!(kernels.join_rows(&mut [0.0; 12], 2, 3, Some(&[0.0; 2])).is_err());
    assert!(kernels.join_rows(&mut [0.0; 12], 2, 0, None).is_err());
    assert!(kernels.join_rows(&mut [], 0, 3, None).is_ok());
}
