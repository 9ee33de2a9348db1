//! Int3 products: on every instruction set what the same weights give as int4.

use kinglet_model_format::{Int3Coding, Int3Matrix, Int4Scales, OUTPUT_BLOCK};

use super::int4::Int4Case;
use super::*;
use crate::{dequantize_int3_row, dequantize_int4_row};

/// A case of int4 whose values int3 can hold, and these as it holds them.
pub(super) struct Int3Case {
    pub(super) int4: Int4Case,
    pub(super) coding: Int3Coding,
    pub(super) packed: Vec<u8>,
}

impl Int3Case {
    fn random(seed: u64, rows: usize, inputs: usize, outputs: usize, group: usize) -> Self {
        Self::odd(Int4Case::random(seed, rows, inputs, outputs, group))
    }

    /// Of the values of `int4` the odd ones.
    fn odd(mut int4: Int4Case) -> Self {
        int4.values.iter_mut().for_each(|pair| *pair |= 0x11);
        // Bit by bit, as the format says it: of both halves of a byte the upper three bits, and where the lowest was one of the fourth vector.
        let packed = int4.values.chunks_exact(64).flat_map(|pair| {
            (0..48).map(|place| {
                let fourth = pair[48 + place % 16];
                let bit = [3, 2, 1][place / 16];
                let spare = (fourth >> bit & 1) | (fourth >> (4 + bit) & 1) << 4;
                pair[place] - 0x11 + spare
            })
        });
        let packed = packed.collect();
        Self { int4, coding: Int3Coding::Odd, packed }
    }

    pub(super) fn weights(&self) -> Int3Matrix<'_> {
        let Int4Case { group, scales, multipliers, outputs, inputs, .. } = &self.int4;
        let scales = Int4Scales { group_inputs: *group, scales, multipliers };
        Int3Matrix::new(*outputs, *inputs, self.coding, &self.packed, scales).unwrap()
    }

    fn run(&self, kernels: Kernels) -> Vec<f32> {
        let Int4Case { rows, inputs, source, bias, .. } = &self.int4;
        let mut values = vec![99; Kernels::quantized_bytes(*rows, *inputs)];
        let mut row_scales = vec![0.0; *rows];
        let quantized =
            kernels.quantize_rows(source, *inputs, *rows, *inputs, &mut values, &mut row_scales).unwrap();
        let stride = self.int4.out_stride();
        let mut out = vec![UNTOUCHED; rows * stride + 20];
        let mut room = vec![77; Kernels::int3_room(*rows, *inputs)];
        let weights = self.weights();
        kernels.matmul_int3(&quantized, &weights, bias.as_deref(), &mut room, &mut out, stride).unwrap();
        out
    }

    pub(super) fn check(&self, kernels: Kernels) {
        let Int4Case { rows, inputs, outputs, group, .. } = &self.int4;
        let expected = bits(&self.int4.run(kernels));
        assert_eq!(
            bits(&self.run(kernels)),
            expected,
            "{rows} rows, {inputs} inputs, {outputs} outputs, groups of {group}"
        );
    }
}

/// Many shapes of product of what `random` makes of a seed, rows, inputs, outputs and a group.
pub(super) fn check_products(random: impl Fn(u64, usize, usize, usize, usize) -> Int3Case) {
    for kernels in Kernels::available() {
        let mut seed = 0;
        for rows in [1, 2, 3, 4, 5, 9, 17, 24] {
            for outputs in [1, 15, 16, 17, 33, 48, 130, 288] {
                for inputs in [1, 16, 17, 48, 100, 272, 1152] {
                    seed += 1;
                    let group = [0, 16, 32, 48, 4096][seed as usize % 5];
                    random(seed, rows, inputs, outputs, group).check(kernels);
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_int4() {
    check_products(Int3Case::random);
}

#[test]
fn extreme_values_do_not_overflow() {
    for kernels in Kernels::available() {
        for byte in [0x88, 0x77] {
            for (rows, value) in [(1, -1.0), (1, 1.0), (9, -1.0), (9, 1.0)] {
                let mut int4 = Int4Case::random(7, rows, 700, 17, 32);
                int4.values.fill(byte);
                int4.multipliers.fill(0xff);
                int4.source.fill(value);
                Int3Case::odd(int4).check(kernels);
            }
        }
    }
}

/// Rows of what `random` makes, as floats.
pub(super) fn check_rows(random: impl Fn(u64, usize, usize, usize, usize) -> Int3Case) {
    for (seed, group) in [(1, 0), (2, 16), (3, 32), (4, 48)] {
        let case = random(seed, 1, 70, 18, group);
        let (int3, int4) = (case.weights(), case.int4.weights());
        let (mut found, mut expected) = (vec![0.0; 70], vec![0.0; 70]);
        for output in 0..18 {
            dequantize_int3_row(&int3, output, &mut found).unwrap();
            dequantize_int4_row(&int4, output, &mut expected).unwrap();
            assert_eq!(bits(&found), bits(&expected), "output {output}");
        }
        assert!(dequantize_int3_row(&int3, 18, &mut found).is_err());
        assert!(dequantize_int3_row(&int3, 0, &mut found[..69]).is_err());
    }
}

#[test]
fn rows_are_those_of_int4() {
    check_rows(Int3Case::random);
}

/// Bytes written by hand: which bits of which byte are whose.
#[test]
fn a_weight_is_an_odd_number_times_its_multiplier() {
    let mut case = Int3Case::random(1, 1, 16, OUTPUT_BLOCK, 16);
    // All halves 0: -8 + 8 = 0, and the lowest bit makes it 1.
    case.packed.fill(0);
    case.int4.multipliers.fill(0x11);
    // Input 5 of output 2 lies in the high half of byte 9 of the first vector: 0b111 with the one is -1.
    case.packed[9] |= 0xe0;
    // Input 0 of output 12: byte 0 of the fourth vector, its bits 3, 2 and 1 in the lowest of bytes 0 of the others: 0b0111, 7.
    case.packed[16] |= 0x01;
    case.packed[32] |= 0x01;
    // Input 7 of output 15: byte 15, high half: 0b1001, -7.
    case.packed[15] |= 0x10;
    let weights = case.weights();
    let found: Vec<_> = (0..16)
        .flat_map(|output| (0..16).map(move |input| (output, input, weights.weight(output, input))))
        .filter(|&(_, _, weight)| weight != 1)
        .collect();
    assert_eq!(found, [(2, 5, -1), (12, 0, 7), (15, 7, -7)]);
}

#[test]
fn room_is_asked_for() {
    for kernels in Kernels::available() {
        let case = Int3Case::random(3, 5, 40, 20, 32);
        let (mut values, mut scales) = (vec![0; Kernels::quantized_bytes(5, 40)], vec![0.0; 5]);
        let mut out = vec![0.0; 100];
        for rows in [1, 5] {
            let needed = Kernels::int3_room(rows, 40);
            let rows =
                kernels.quantize_rows(&case.int4.source, 40, rows, 40, &mut values, &mut scales).unwrap();
            let mut room = vec![0; needed];
            assert_eq!(kernels.matmul_int3(&rows, &case.weights(), None, &mut room, &mut out, 20), Ok(()));
            let error = KernelError::TooShort { name: "room", needed, given: needed - 1 };
            assert_eq!(
                kernels.matmul_int3(&rows, &case.weights(), None, &mut room[1..], &mut out, 20),
                Err(error)
            );
        }
    }
}
