//! Int4 products: every instruction set against the scalar kernel, and that against the definition.

use half::f16;
use kinglet_model_format::Int4Matrix;

use super::*;
use crate::dequantize_int4_row;

struct Int4Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    group: usize,
    source: Vec<f32>,
    values: Vec<u8>,
    scales: Vec<f16>,
    bias: Option<Vec<f32>>,
}

impl Int4Case {
    fn random(seed: u64, rows: usize, inputs: usize, outputs: usize, group: usize) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (padded_outputs, padded) = (round_up(outputs, OUTPUT_BLOCK), round_up(inputs, INPUT_PAD));
        let group = if group == 0 { padded } else { group };
        let source = (0..rows * inputs).map(|_| noise.float() * 3.0).collect();
        let values = (0..padded_outputs * padded / 2).map(|_| noise.next() as u8).collect();
        let scales =
            (0..padded_outputs * padded.div_ceil(group)).map(|_| f16::from_f32(noise.float() * 0.01));
        let scales = scales.collect();
        let bias = noise.next().is_multiple_of(2).then(|| (0..outputs).map(|_| noise.float()).collect());
        Self { rows, inputs, outputs, group, source, values, scales, bias }
    }

    fn weights(&self) -> Int4Matrix<'_> {
        Int4Matrix::new(self.outputs, self.inputs, self.group, &self.values, &self.scales).unwrap()
    }

    fn run(&self, kernels: Kernels) -> Vec<f32> {
        let mut values = vec![99; Kernels::quantized_bytes(self.rows, self.inputs)];
        let mut row_scales = vec![0.0; self.rows];
        let rows = kernels
            .quantize_rows(&self.source, self.inputs, self.rows, self.inputs, &mut values, &mut row_scales)
            .unwrap();
        let stride = self.outputs + self.rows % 3;
        let mut out = vec![UNTOUCHED; self.rows * stride + 20];
        kernels.matmul_int4(&rows, &self.weights(), self.bias.as_deref(), &mut out, stride).unwrap();
        out
    }

    fn check(&self, kernels: Kernels) {
        let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
        let Self { rows, inputs, outputs, group, .. } = self;
        assert_eq!(
            bits(&self.run(kernels)),
            bits(&self.run(scalar)),
            "{rows} rows, {inputs} inputs, {outputs} outputs, groups of {group}"
        );
    }
}

macro_rules! int4_tests {
    ($($module:ident $set:ident),+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn shapes_and_groups() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let mut seed = 0;
                for rows in (1..=17).chain([24, 27]) {
                    for outputs in [1, 8, 15, 16, 17, 31, 33, 48, 70] {
                        for inputs in [1, 7, 16, 17, 33, 48, 64, 100, 130, 272] {
                            seed += 1;
                            let group = [0, 16, 32, 48, 4096][seed as usize % 5];
                            Int4Case::random(seed, rows, inputs, outputs, group).check(kernels);
                        }
                    }
                }
            }

            #[test]
            fn extreme_values_do_not_overflow() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for byte in [0x88, 0x77, 0x87, 0x78] {
                    for value in [-1.0, 1.0] {
                        for group in [0, 32, 128, 144] {
                            let mut case = Int4Case::random(7, 5, 700, 17, group);
                            case.values.fill(byte);
                            case.source.fill(value);
                            case.check(kernels);
                        }
                    }
                }
            }

            #[test]
            fn sums_wrap_alike() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let mut case = Int4Case::random(8, 2, 300_000, 1, 0);
                case.values.fill(0x88);
                case.source.fill(-1.0);
                case.check(kernels);
            }
        }
    )+ };
}

int4_tests!(i8mm I8mm, dotprod Dotprod, neon Neon, avx512vnni Avx512Vnni, avx2 Avx2);

#[test]
fn scalar_is_the_definition() {
    let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
    for (seed, group) in [(1, 0), (2, 16), (3, 32), (4, 48)] {
        let case = Int4Case::random(seed, 3, 70, 18, group);
        let (mut values, mut row_scales) = (vec![0; Kernels::quantized_bytes(3, 70)], vec![0.0; 3]);
        let rows = scalar.quantize_rows(&case.source, 70, 3, 70, &mut values, &mut row_scales).unwrap();
        let (out, weights) = (case.run(scalar), case.weights());
        let mut embedding = vec![0.0; 70];
        for output in 0..18 {
            dequantize_int4_row(&weights, output, &mut embedding).unwrap();
            for (input, value) in embedding.iter().enumerate() {
                let expected = f32::from(weights.value(output, input)) * weights.scale(output, input);
                assert_eq!(value.to_bits(), expected.to_bits());
            }
            for row in 0..3 {
                let mut total = 0.0_f32;
                for first in (0..70).step_by(case.group) {
                    let inputs = first..70.min(first + case.group);
                    let sum: i32 = inputs
                        .map(|input| {
                            i32::from(rows.value(row, input)) * i32::from(weights.value(output, input))
                        })
                        .sum();
                    total = (sum as f32).mul_add(weights.scale(output, first), total);
                }
                let bias = case.bias.as_ref().map_or(0.0, |bias| bias[output]);
                let expected = total.mul_add(rows.scales()[row], bias);
                assert_eq!(out[row * 18 + output].to_bits(), expected.to_bits());
            }
        }
        assert!(dequantize_int4_row(&weights, 18, &mut embedding).is_err());
        assert!(dequantize_int4_row(&weights, 0, &mut embedding[..69]).is_err());
    }
}
