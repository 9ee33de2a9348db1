//! Int4 products: every instruction set against the scalar kernel, and that against the int8 product of the same weights.

use kinglet_model_format::{Int4Matrix, Int4Scales, MOST_GROUP_INPUTS, ShortScale};

use super::*;
use crate::dequantize_int4_row;

pub(super) struct Int4Case {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) group: usize,
    pub(super) source: Vec<f32>,
    pub(super) values: Vec<u8>,
    pub(super) scales: Vec<ShortScale>,
    pub(super) multipliers: Vec<u8>,
    pub(super) bias: Option<Vec<f32>>,
}

/// Two multipliers, each 1 to 15.
pub(super) fn random_multipliers(noise: &mut Noise) -> u8 {
    let pair = noise.next();
    (pair % 15 + 1 + 16 * (pair / 15 % 15 + 1)) as u8
}

impl Int4Case {
    /// A `group` of zero is all inputs.
    pub(super) fn random(seed: u64, rows: usize, inputs: usize, outputs: usize, group: usize) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (padded_outputs, padded) = (round_up(outputs, OUTPUT_BLOCK), round_up(inputs, INPUT_PAD));
        let group = if group == 0 { padded } else { group };
        let source = (0..rows * inputs).map(|_| noise.float() * 3.0).collect();
        let values = (0..padded_outputs * padded / 2).map(|_| noise.next() as u8).collect();
        let scales = (0..padded_outputs).map(|_| ShortScale::new(noise.float() * 0.01)).collect();
        let multipliers = padded_outputs / 2 * padded.div_ceil(group);
        let multipliers = (0..multipliers).map(|_| random_multipliers(&mut noise)).collect();
        let bias = noise.next().is_multiple_of(2).then(|| (0..outputs).map(|_| noise.float()).collect());
        Self { rows, inputs, outputs, group, source, values, scales, multipliers, bias }
    }

    pub(super) fn weights(&self) -> Int4Matrix<'_> {
        let Self { group, scales, multipliers, .. } = self;
        let scales = Int4Scales { group_inputs: *group, scales, multipliers };
        Int4Matrix::new(self.outputs, self.inputs, &self.values, scales).unwrap()
    }

    pub(super) fn run(&self, kernels: Kernels) -> Vec<f32> {
        let mut values = vec![99; Kernels::quantized_bytes(self.rows, self.inputs)];
        let mut row_scales = vec![0.0; self.rows];
        let rows = kernels
            .quantize_rows(&self.source, self.inputs, self.rows, self.inputs, &mut values, &mut row_scales)
            .unwrap();
        let stride = self.out_stride();
        let mut out = vec![UNTOUCHED; self.rows * stride + 20];
        let mut room = vec![77; Kernels::int4_room(self.rows, self.inputs)];
        let (weights, bias) = (self.weights(), self.bias.as_deref());
        kernels.matmul_int4(&rows, &weights, bias, &mut room, &mut out, stride).unwrap();
        out
    }

    pub(super) fn out_stride(&self) -> usize {
        self.outputs + self.rows % 3
    }

    /// The same weights as int8.
    fn expanded(&self) -> Case {
        let weights = self.weights();
        let weight = |output| (0..self.inputs).map(move |input| weights.weight(output, input));
        Case {
            rows: self.rows,
            inputs: self.inputs,
            outputs: self.outputs,
            source_stride: self.inputs,
            out_stride: self.out_stride(),
            source: self.source.clone(),
            weights: (0..self.outputs).flat_map(weight).collect(),
            scales: self.scales[..self.outputs].iter().map(|scale| scale.to_f32()).collect(),
            bias: self.bias.clone(),
        }
    }

    fn check(&self, kernels: Kernels) {
        let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
        let Self { rows, inputs, outputs, group, .. } = self;
        let what = format!("{rows} rows, {inputs} inputs, {outputs} outputs, groups of {group}");
        let result = bits(&self.run(kernels));
        assert_eq!(result, bits(&self.run(scalar)), "scalar, {what}");
        let (_, _, expected) = self.expanded().run(kernels);
        assert_eq!(result, bits(&expected), "int8, {what}");
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
                        for group in [0, 16, 32, 48, 128, 144] {
                            let mut case = Int4Case::random(7, 9, 700, 17, group);
                            case.values.fill(byte);
                            case.multipliers.fill(0xff);
                            case.source.fill(value);
                            case.check(kernels);
                        }
                    }
                }
            }

            #[test]
            fn wide_matrices() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for inputs in [8160, 8192, 8224, 20_000] {
                    for (value, byte) in [(1.0, 0x77), (-1.0, 0x88)] {
                        let mut case = Int4Case::random(inputs as u64, 1, inputs, 17, 32);
                        case.values.fill(byte);
                        case.multipliers.fill(0xff);
                        case.source.fill(value);
                        case.check(kernels);
                    }
                }
            }

            #[test]
            fn the_largest_group_does_not_overflow() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let mut case = Int4Case::random(9, 2, MOST_GROUP_INPUTS, 1, MOST_GROUP_INPUTS);
                case.values.fill(0x88);
                case.multipliers.fill(0x11);
                for value in [-1.0, 1.0] {
                    case.source.fill(value);
                    case.check(kernels);
                }
            }

            #[test]
            fn sums_wrap_as_those_of_int8() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for rows in [1, 5] {
                    let mut case = Int4Case::random(8, rows, 300_000, 1, MOST_GROUP_INPUTS);
                    case.values.fill(0x88);
                    case.multipliers.fill(0xff);
                    case.source.fill(-1.0);
                    case.check(kernels);
                }
            }
        }
    )+ };
}

int4_tests!(i8mm I8mm, dotprod Dotprod, neon Neon, avx512vnni Avx512Vnni, avx2 Avx2, scalar Scalar);

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
                let expected = f32::from(weights.weight(output, input)) * case.scales[output].to_f32();
                assert_eq!(value.to_bits(), expected.to_bits());
            }
            for row in 0..3 {
                let sum: i32 = (0..70)
                    .map(|input| i32::from(rows.value(row, input)) * i32::from(weights.weight(output, input)))
                    .sum();
                let bias = case.bias.as_ref().map_or(0.0, |bias| bias[output]);
                let expected = (sum as f32).mul_add(rows.scales()[row] * case.scales[output].to_f32(), bias);
                assert_eq!(out[row * 18 + output].to_bits(), expected.to_bits());
            }
        }
        assert!(dequantize_int4_row(&weights, 18, &mut embedding).is_err());
        assert!(dequantize_int4_row(&weights, 0, &mut embedding[..69]).is_err());
    }
}

/// Bytes and multipliers written by hand: which half of which byte is whose.
#[test]
fn a_weight_is_its_value_times_the_multiplier_of_its_output_and_group() {
    let mut case = Int4Case::random(1, 1, 32, 16, 16);
    case.values.fill(0);
    case.multipliers.fill(0x11);
    // Input 5 of output 9 lies in the high half of the first pair of blocks, input 18 in the low half of the third.
    case.values[9 * 4 + 1] = 0x70;
    case.values[2 * 64 + 9 * 4 + 2] = 0x0d;
    case.multipliers[1] = 0xf1;
    case.multipliers[8 + 1] = 0x41;
    let weights = case.weights();
    let found: Vec<_> = (0..16)
        .flat_map(|output| (0..32).map(move |input| (output, input, weights.weight(output, input))))
        .filter(|&(_, _, weight)| weight != 0)
        .collect();
    assert_eq!(found, [(9, 5, 7 * 15), (9, 18, -3 * 4)]);
}

#[test]
fn room_is_asked_for_where_weights_are_unpacked() {
    for kernels in Kernels::available() {
        let case = Int4Case::random(3, 5, 40, 20, 32);
        let (mut values, mut scales) = (vec![0; Kernels::quantized_bytes(5, 40)], vec![0.0; 5]);
        let (weights, mut out) = (case.weights(), vec![0.0; 100]);
        for rows in [3, 4, 5] {
            let needed = Kernels::int4_room(rows, 40);
            assert!(needed == 0 || rows > 3);
            let rows = kernels.quantize_rows(&case.source, 40, rows, 40, &mut values, &mut scales).unwrap();
            let mut room = vec![0; needed];
            assert_eq!(kernels.matmul_int4(&rows, &weights, None, &mut room, &mut out, 20), Ok(()));
            if needed > 0 {
                let given = needed - 1;
                let error = KernelError::TooShort { name: "room", needed, given };
                let result = kernels.matmul_int4(&rows, &weights, None, &mut room[1..], &mut out, 20);
                assert_eq!(result, Err(error));
            }
        }
    }
}
