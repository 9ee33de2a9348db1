//! Block-sparse products: every instruction set against the scalar kernel, and that against the dense one.

use kinglet_model_format::{
    BlockColumns, BlockIndex, BlockShape, Int4Scales, SparseInt4Matrix, SparseInt8Matrix,
};

use super::int4::random_multipliers;
use super::*;
use crate::{dequantize_sparse_int4_row, dequantize_sparse_row};

/// A matrix `[outputs][inputs]` of which whole blocks are zero, in the form that a file has.
struct SparseCase {
    shape: BlockShape,
    rows: usize,
    inputs: usize,
    outputs: usize,
    group: usize,
    source: Vec<f32>,
    counts: Vec<u16>,
    byte_columns: Vec<u8>,
    word_columns: Vec<u16>,
    int8: Vec<i8>,
    int4: Vec<u8>,
    scales: Vec<f32>,
    multipliers: Vec<u8>,
    bias: Option<Vec<f32>>,
}

impl SparseCase {
    /// About `percent` of the blocks are stored; a row of blocks may be empty, and one may be full.
    fn random(
        seed: u64,
        shape: BlockShape,
        rows: usize,
        inputs: usize,
        outputs: usize,
        percent: u64,
    ) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (padded_outputs, padded) = (round_up(outputs, OUTPUT_BLOCK), round_up(inputs, INPUT_PAD));
        let group = [padded, 16, 32, 48, 4096][seed as usize % 5];
        let columns = inputs.div_ceil(shape.inputs());
        let (mut counts, mut stored) = (Vec::new(), Vec::new());
        for row in 0..outputs.div_ceil(shape.outputs()) {
            let percent = if row == 2 { 100 - percent } else { percent };
            let before = stored.len();
            stored.extend((0..columns as u16).filter(|_| noise.next() % 100 < percent));
            counts.push((stored.len() - before) as u16);
        }
        let words = columns > BlockIndex::BYTE_COLUMNS;
        let weights = stored.len() * shape.weights();
        let mut floats =
            |count: usize, factor: f32| -> Vec<f32> { (0..count).map(|_| noise.float() * factor).collect() };
        let source = floats(rows * inputs, 3.0);
        let scales = floats(padded_outputs, 0.01);
        let bias = seed.is_multiple_of(2).then(|| floats(outputs, 1.0));
        let multipliers = padded_outputs / 2 * padded.div_ceil(group);
        Self {
            shape,
            rows,
            inputs,
            outputs,
            group,
            source,
            counts,
            byte_columns: if words { Vec::new() } else { stored.iter().map(|&c| c as u8).collect() },
            word_columns: if words { stored } else { Vec::new() },
            int8: (0..weights).map(|_| noise.next() as i8).collect(),
            int4: (0..weights / 2).map(|_| noise.next() as u8).collect(),
            scales,
            multipliers: (0..multipliers).map(|_| random_multipliers(&mut noise)).collect(),
            bias,
        }
    }

    fn index(&self) -> BlockIndex<'_> {
        let words = self.inputs.div_ceil(self.shape.inputs()) > BlockIndex::BYTE_COLUMNS;
        let columns = if words {
            BlockColumns::Words(&self.word_columns)
        } else {
            BlockColumns::Bytes(&self.byte_columns)
        };
        BlockIndex::new(self.shape, self.outputs, self.inputs, &self.counts, columns).unwrap()
    }

    fn int8(&self) -> SparseInt8Matrix<'_> {
        SparseInt8Matrix::new(self.outputs, self.inputs, self.index(), &self.int8, &self.scales).unwrap()
    }

    fn int4(&self) -> SparseInt4Matrix<'_> {
        let Self { group, scales, multipliers, .. } = self;
        let scales = Int4Scales { group_inputs: *group, scales, multipliers };
        SparseInt4Matrix::new(self.outputs, self.inputs, self.index(), &self.int4, scales).unwrap()
    }

    /// Calls `multiply` with the rows, the bias, room for the result and the distance between its rows.
    fn run(
        &self,
        kernels: Kernels,
        multiply: impl Fn(&QuantizedRows<'_>, Option<&[f32]>, &mut [f32], usize) -> Result<(), KernelError>,
    ) -> Vec<f32> {
        let mut values = vec![99; Kernels::quantized_bytes(self.rows, self.inputs)];
        let mut row_scales = vec![0.0; self.rows];
        let rows = kernels
            .quantize_rows(&self.source, self.inputs, self.rows, self.inputs, &mut values, &mut row_scales)
            .unwrap();
        let stride = self.outputs + self.rows % 3;
        let mut out = vec![UNTOUCHED; self.rows * stride + 20];
        multiply(&rows, self.bias.as_deref(), &mut out, stride).unwrap();
        out
    }

    fn run_int8(&self, kernels: Kernels) -> Vec<f32> {
        self.run(kernels, |rows, bias, out, stride| {
            kernels.matmul_sparse_int8(rows, &self.int8(), bias, out, stride)
        })
    }

    fn run_int4(&self, kernels: Kernels) -> Vec<f32> {
        let bytes = Kernels::int4_room(self.rows, self.inputs);
        self.run(kernels, |rows, bias, out, stride| {
            kernels.matmul_sparse_int4(rows, &self.int4(), bias, &mut vec![77; bytes], out, stride)
        })
    }

    fn check(&self, kernels: Kernels) {
        let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
        let Self { shape, rows, inputs, outputs, group, .. } = self;
        let what = format!("{shape}: {rows} rows, {inputs} inputs, {outputs} outputs, groups of {group}");
        assert_eq!(bits(&self.run_int8(kernels)), bits(&self.run_int8(scalar)), "int8 {what}");
        assert_eq!(bits(&self.run_int4(kernels)), bits(&self.run_int4(scalar)), "int4 {what}");
    }
}

macro_rules! sparse_tests {
    ($($module:ident $set:ident),+) => { $(
        mod $module {
            use super::*;

            #[test]
            fn shapes_and_densities() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                let mut seed = 0;
                for shape in BlockShape::ALL {
                    for rows in (1..=13).chain([24, 27]) {
                        for outputs in [1, 4, 7, 15, 16, 17, 31, 48, 70] {
                            for inputs in [1, 15, 16, 17, 33, 64, 100, 130] {
                                seed += 1;
                                let percent = [0, 10, 25, 50, 90, 100, 3][seed as usize % 7];
                                SparseCase::random(seed, shape, rows, inputs, outputs, percent).check(kernels);
                            }
                        }
                    }
                }
            }

            #[test]
            fn wide_matrices() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                // At the edge between one and two bytes a column, and where 16 inputs need that too.
                for (shape, inputs) in BlockShape::ALL.into_iter().flat_map(|s| [(s, 1024), (s, 1040), (s, 4100)]) {
                    for (rows, percent) in [(1, 8), (4, 50), (5, 97), (33, 21), (49, 60)] {
                        SparseCase::random(inputs as u64 + percent, shape, rows, inputs, 33, percent).check(kernels);
                    }
                }
            }

            #[test]
            fn extreme_values_do_not_overflow() {
                let Some(kernels) = kernels(InstructionSet::$set) else { return };
                for shape in BlockShape::ALL {
                    for (weight, byte) in [(-128, 0x88), (127, 0x77), (-127, 0x87), (-128, 0x78)] {
                        for value in [-1.0, 1.0] {
                            for seed in 0..4 {
                                let mut case = SparseCase::random(seed, shape, 5, 700, 17, 100);
                                case.int8.fill(weight);
                                case.int4.fill(byte);
                                case.multipliers.fill(0xff);
                                case.source.fill(value);
                                case.check(kernels);
                            }
                        }
                    }
                }
            }
        }
    )+ };
}

sparse_tests!(i8mm I8mm, dotprod Dotprod, neon Neon, avx512vnni Avx512Vnni, avx2 Avx2);

/// A dense matrix of int8 with the same weights and scales gives the same bits.
#[test]
fn scalar_equals_dense() {
    let scalar = Kernels::new(InstructionSet::Scalar).unwrap();
    // Under an interpreter only every kind of scales, once.
    let seeds = if cfg!(miri) { 5 } else { 40 };
    for shape in BlockShape::ALL {
        for (seed, percent) in (0..seeds).flat_map(|seed| [(seed, 30), (seed, 0), (seed, 100)]) {
            let (rows, inputs, outputs) = (3, 17 + seed as usize * 3, 18);
            let case = SparseCase::random(seed, shape, rows, inputs, outputs, percent);
            let (int8, int4) = (case.int8(), case.int4());
            let dense = |weight: &dyn Fn(usize, usize) -> i8| {
                let weights =
                    (0..outputs * inputs).map(|index| weight(index / inputs, index % inputs)).collect();
                let dense = Case {
                    rows,
                    inputs,
                    outputs,
                    source_stride: inputs,
                    out_stride: outputs,
                    source: case.source.clone(),
                    weights,
                    scales: case.scales[..outputs].to_vec(),
                    bias: case.bias.clone(),
                };
                let (_, _, out) = dense.run(scalar);
                bits(&out)
            };
            assert_eq!(bits(&case.run_int8(scalar)), dense(&|o, i| int8.value(o, i)), "{shape} int8");
            assert_eq!(bits(&case.run_int4(scalar)), dense(&|o, i| int4.weight(o, i)), "{shape} int4");
        }
    }
}

#[test]
fn rows_of_blocks_are_read_as_floats() {
    for shape in BlockShape::ALL {
        for (seed, (outputs, inputs)) in [(1, 1), (18, 70), (33, 37), (20, 1100)].into_iter().enumerate() {
            let case = SparseCase::random(seed as u64 + 7, shape, 1, inputs, outputs, 40);
            let (int8, int4) = (case.int8(), case.int4());
            for output in 0..outputs {
                let (mut first, mut second) = (vec![9.0; inputs], vec![9.0; inputs]);
                dequantize_sparse_row(&int8, output, &mut first).unwrap();
                dequantize_sparse_int4_row(&int4, output, &mut second).unwrap();
                for input in 0..inputs {
                    let want = f32::from(int8.value(output, input)) * int8.scales()[output];
                    assert_eq!(first[input], want, "{shape} {output} {input}");
                    let want = f32::from(int4.weight(output, input)) * case.scales[output];
                    assert_eq!(second[input], want, "{shape} {output} {input}");
                }
            }
            let mut row = vec![0.0; inputs];
            assert!(dequantize_sparse_row(&int8, outputs, &mut row).is_err());
            assert!(dequantize_sparse_row(&int8, 0, &mut row[1..]).is_err());
            assert!(dequantize_sparse_int4_row(&int4, outputs, &mut row).is_err());
        }
    }
}

#[test]
fn room_is_asked_for_where_weights_are_unpacked() {
    for kernels in Kernels::available() {
        let case = SparseCase::random(3, BlockShape::Outputs16Inputs4, 5, 40, 20, 50);
        let (mut values, mut scales) = (vec![0; Kernels::quantized_bytes(5, 40)], vec![0.0; 5]);
        let mut out = vec![0.0; 100];
        for rows in [3, 4, 5] {
            let rows = kernels.quantize_rows(&case.source, 40, rows, 40, &mut values, &mut scales).unwrap();
            let needed = Kernels::int4_room(rows.rows(), 40);
            let mut room = vec![0; needed];
            assert_eq!(
                kernels.matmul_sparse_int4(&rows, &case.int4(), None, &mut room, &mut out, 20),
                Ok(())
            );
            if let Some(short) = room.get_mut(1..) {
                let error = KernelError::TooShort { name: "room", needed, given: needed - 1 };
                let result = kernels.matmul_sparse_int4(&rows, &case.int4(), None, short, &mut out, 20);
                assert_eq!(result, Err(error));
            }
        }
    }
}
