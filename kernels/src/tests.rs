//! Every instruction set against scalar, bit for bit. One that does not exist here says so.

use std::format;
use std::io::Write;
use std::vec;
use std::vec::Vec;

use kinglet_model_format::{INPUT_BLOCK, INPUT_PAD, Int8Matrix, OUTPUT_BLOCK, round_up};
use proptest::prelude::*;

use crate::{InstructionSet, KernelError, Kernels, QuantizedRows};

#[cfg(all(unix, not(miri)))]
mod guard_pages;
mod int3;
mod trellis;
mod int4;
mod sparse;

/// A product's operands, plain.
#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    source_stride: usize,
    out_stride: usize,
    source: Vec<f32>,
    /// `[outputs][inputs]`.
    weights: Vec<i8>,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
}

/// What stands where nothing may be written.
const UNTOUCHED: f32 = -12345.5;

/// A small generator: the same values on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn float(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }
}

impl Case {
    fn random(seed: u64, rows: usize, inputs: usize, outputs: usize) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let source_stride = if noise.next().is_multiple_of(2) { inputs + 3 } else { inputs.div_ceil(2) };
        let out_stride = outputs + (noise.next() % 3) as usize;
        let source = (0..rows * source_stride + inputs).map(|_| noise.float() * 3.0).collect();
        let weights = (0..outputs * inputs).map(|_| noise.next() as i8).collect();
        let scales = (0..outputs).map(|_| noise.float() * 0.01).collect();
        let bias = noise.next().is_multiple_of(2).then(|| (0..outputs).map(|_| noise.float()).collect());
        Self { rows, inputs, outputs, source_stride, out_stride, source, weights, scales, bias }
    }

    /// All weights and all row values as large as they get.
    fn extreme(weight: i8, value: f32) -> Self {
        let (rows, inputs, outputs) = (5, 64, 17);
        let mut case = Self::random(1, rows, inputs, outputs);
        case.weights.fill(weight);
        case.source.fill(value);
        case
    }

    fn packed_weights(&self) -> (Vec<i8>, Vec<f32>) {
        let (outputs, inputs) = (round_up(self.outputs, OUTPUT_BLOCK), round_up(self.inputs, INPUT_PAD));
        let mut values = vec![0; outputs * inputs];
        for output in 0..self.outputs {
            for input in 0..self.inputs {
                let block = output / OUTPUT_BLOCK * (inputs / INPUT_BLOCK) + input / INPUT_BLOCK;
                let place =
                    (block * OUTPUT_BLOCK + output % OUTPUT_BLOCK) * INPUT_BLOCK + input % INPUT_BLOCK;
                values[place] = self.weights[output * self.inputs + input];
            }
        }
        let mut scales = self.scales.clone();
        scales.resize(outputs, 0.0);
        (values, scales)
    }

    /// Quantized values row by row, row scales, and the whole of the result's storage.
    fn run(&self, kernels: Kernels) -> (Vec<i8>, Vec<f32>, Vec<f32>) {
        let mut values = vec![99; Kernels::quantized_bytes(self.rows, self.inputs)];
        let mut row_scales = vec![0.0; self.rows];
        let rows = kernels
            .quantize_rows(
                &self.source,
                self.source_stride,
                self.rows,
                self.inputs,
                &mut values,
                &mut row_scales,
            )
            .unwrap();
        let plain = plain_values(&rows);
        let (values, scales) = self.packed_weights();
        let weights = Int8Matrix::new(self.outputs, self.inputs, &values, &scales).unwrap();
        let mut out = vec![UNTOUCHED; self.rows * self.out_stride + 20];
        kernels.matmul(&rows, &weights, self.bias.as_deref(), &mut out, self.out_stride).unwrap();
        (plain, row_scales, out)
    }

    fn check(&self, kernels: Kernels) -> Result<(), TestCaseError> {
        let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
        let (values, row_scales, out) = self.run(kernels);
        let (expected_values, expected_scales, expected_out) = self.run(scalar);
        let shape = format!("{} rows, {} inputs, {} outputs", self.rows, self.inputs, self.outputs);
        prop_assert_eq!(values, expected_values, "values, {}", shape);
        prop_assert_eq!(bits(&row_scales), bits(&expected_scales), "row scales, {}", shape);
        prop_assert_eq!(bits(&out), bits(&expected_out), "results, {}", shape);
        Ok(())
    }
}

fn plain_values(rows: &QuantizedRows<'_>) -> Vec<i8> {
    (0..rows.rows()).flat_map(|row| (0..rows.inputs()).map(move |input| rows.value(row, input))).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The kernels, or nothing and a line that says so.
fn kernels(set: InstructionSet) -> Option<Kernels> {
    let kernels = Kernels::new(set);
    if kernels.is_none() {
        // Not `eprintln!`, which the test harness hides in a test that passes.
        let _ = writeln!(std::io::stderr(), "skipped: no {set}");
    }
    kernels
}

macro_rules! instruction_set_tests {
    ($($module:ident $set:ident),+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn every_small_shape() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let mut seed = 0;
                for rows in 1..=9 {
                    for outputs in (1..=40).step_by(if rows % 2 == 1 { 3 } else { 13 }) {
                        for inputs in [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 70] {
                            seed += 1;
                            Case::random(seed, rows, inputs, outputs).check(kernels).unwrap();
                        }
                    }
                }
            }

            #[test]
            fn many_rows() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for rows in 10..=30 {
                    Case::random(rows as u64, rows, 40, 33).check(kernels).unwrap();
                }
            }

            #[test]
            fn extreme_values_do_not_overflow() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for weight in [-128, -127, 127] {
                    for value in [-1.0, 1.0] {
                        let case = Case::extreme(weight, value);
                        case.check(kernels).unwrap();
                        let (values, ..) = case.run(kernels);
                        assert!(values.iter().all(|&quantized| quantized == if value < 0.0 { -127 } else { 127 }));
                    }
                }
            }

            #[test]
            fn strange_floats_have_one_meaning() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let signalling_nan = f32::from_bits(0x7f80_0001);
                let strange = [
                    f32::NAN, -f32::NAN, signalling_nan, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN,
                    1e-36, 1e-35, 1e-34, f32::MIN_POSITIVE, 1e-45, -1e-45, 0.0, -0.0, 0.5, 1.0, 2.5, 126.5, -127.0,
                ];
                for (seed, &value) in strange.iter().enumerate() {
                    for inputs in [1, 16, 19, 40, 130] {
                        let mut case = Case::random(seed as u64, 3, inputs, 5);
                        let place = case.source_stride + inputs - 1;
                        case.source[place] = value;
                        case.check(kernels).unwrap();
                        case.source.fill(value);
                        case.check(kernels).unwrap();
                    }
                }
            }

            #[test]
            fn halves_round_to_even() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let source = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, 125.5];
                let mut values = [0; 16];
                let mut scales = [0.0];
                let rows = kernels.quantize_rows(&source, 9, 1, 9, &mut values, &mut scales).unwrap();
                assert_eq!(plain_values(&rows), [127, 0, 2, 2, 0, -2, -2, 126, 126]);
                assert_eq!(scales, [1.0]);
            }

            #[test]
            fn random_shapes() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
                proptest!(config, |(seed: u64, rows in 1_usize..40, inputs in 1_usize..200, outputs in 1_usize..80)| {
                    Case::random(seed, rows, inputs, outputs).check(kernels)?;
                });
            }
        }
    )+ };
}

instruction_set_tests!(i8mm I8mm, dotprod Dotprod, neon Neon, avx512vnni Avx512Vnni, avx2 Avx2, scalar Scalar);

/// The scalar kernels against the definition itself.
#[test]
fn scalar_is_the_definition() {
    let kernels = Kernels::new(InstructionSet::Scalar).unwrap();
    for seed in 0..if cfg!(miri) { 4 } else { 20 } {
        let case = Case::random(seed, 3, 21, 18);
        let (values, row_scales, out) = case.run(kernels);
        let mut expected = vec![UNTOUCHED; out.len()];
        for row in 0..case.rows {
            let source = &case.source[row * case.source_stride..][..case.inputs];
            let maximum = source.iter().fold(0.0_f32, |maximum, value| maximum.max(value.abs()));
            assert_eq!(row_scales[row], maximum / 127.0);
            for output in 0..case.outputs {
                let mut sum = 0_i32;
                for input in 0..case.inputs {
                    let value = (source[input] * (127.0 / maximum)).round_ties_even() as i8;
                    assert_eq!(values[row * case.inputs + input], value);
                    sum += i32::from(value) * i32::from(case.weights[output * case.inputs + input]);
                }
                let bias = case.bias.as_ref().map_or(0.0, |bias| bias[output]);
                expected[row * case.out_stride + output] =
                    (sum as f32).mul_add(row_scales[row] * case.scales[output], bias);
            }
        }
        assert_eq!(bits(&out), bits(&expected));
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for kernels in Kernels::available() {
        let source = [1.0; 40];
        let (mut values, mut scales) = ([0; 64], [0.0; 2]);
        let too_short = |name, needed, given| Err(KernelError::TooShort { name, needed, given });
        let result = kernels.quantize_rows(&source, 21, 2, 20, &mut values, &mut scales).map(|_| ());
        assert_eq!(result, too_short("source", 41, 40));
        let result = kernels.quantize_rows(&source, 20, 2, 20, &mut values[..63], &mut scales).map(|_| ());
        assert_eq!(result, too_short("values", 64, 63));
        let result = kernels.quantize_rows(&source, 20, 2, 20, &mut values, &mut scales[..1]).map(|_| ());
        assert_eq!(result, too_short("scales", 2, 1));
        let result = kernels.quantize_rows(&source, usize::MAX, 3, 20, &mut values, &mut scales).map(|_| ());
        assert_eq!(result, Err(KernelError::TooLarge));

        let rows = kernels.quantize_rows(&source, 20, 2, 20, &mut values, &mut scales).unwrap();
        let (weight_values, weight_scales) = ([1; 16 * 32], [1.0; 16]);
        let weights = Int8Matrix::new(10, 20, &weight_values, &weight_scales).unwrap();
        let wider = Int8Matrix::new(10, 21, &weight_values, &weight_scales).unwrap();
        let mut out = [0.0; 20];
        assert_eq!(
            kernels.matmul(&rows, &wider, None, &mut out, 10),
            Err(KernelError::Inputs { expected: 21, given: 20 })
        );
        assert_eq!(kernels.matmul(&rows, &weights, None, &mut out, 11), too_short("out", 21, 20));
        assert_eq!(
            kernels.matmul(&rows, &weights, None, &mut out, 9),
            Err(KernelError::Stride { outputs: 10, stride: 9 })
        );
        assert_eq!(kernels.matmul(&rows, &weights, Some(&[0.0; 9]), &mut out, 10), too_short("bias", 10, 9));
        assert_eq!(kernels.matmul(&rows, &weights, None, &mut out, 10), Ok(()));
    }
}

#[test]
fn rows_of_another_order_are_refused() {
    for (first, second) in
        [(InstructionSet::Avx512Vnni, InstructionSet::Avx2), (InstructionSet::Neon, InstructionSet::Scalar)]
    {
        let (Some(first), Some(second)) = (kernels(first), kernels(second)) else { continue };
        let (mut values, mut scales) = ([0; 16], [0.0]);
        let rows = first.quantize_rows(&[1.0; 16], 16, 1, 16, &mut values, &mut scales).unwrap();
        let (weight_values, weight_scales) = ([1; 16 * 16], [1.0; 16]);
        let weights = Int8Matrix::new(16, 16, &weight_values, &weight_scales).unwrap();
        assert_eq!(second.matmul(&rows, &weights, None, &mut [0.0; 16], 16), Err(KernelError::RowOrder));
    }
}

#[test]
fn no_rows_are_no_work() {
    for kernels in Kernels::available() {
        let rows = kernels.quantize_rows(&[], 4, 0, 4, &mut [], &mut []).unwrap();
        let (weight_values, weight_scales) = ([1; 16 * 16], [1.0; 16]);
        let weights = Int8Matrix::new(3, 4, &weight_values, &weight_scales).unwrap();
        assert_eq!(kernels.matmul(&rows, &weights, None, &mut [], 3), Ok(()));
    }
}

#[test]
fn names_are_read_back() {
    for set in InstructionSet::ALL {
        assert_eq!(set.name().parse(), Ok(set));
    }
    assert!("sse".parse::<InstructionSet>().is_err());
}
