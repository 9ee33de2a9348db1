//! What layers add to shared matrices, against plain loops and against the model that shares nothing.

use super::parity::{Tolerance, check_packed, packed_with};
use super::sanm::float;
use crate::project::{Input, Rounding, result_rows};
use crate::residual::Need;
use kinglet_kernels::{Kernels, Rows};
use kinglet_model_format::pack::{Groups, PackOptions, Sharing};
use kinglet_model_format::{
    ActivationBits, FloatMatrix, Floats, Int8Matrix, Linear, LowRank, Matrix, Model, round_up,
};
use std::vec;
use std::vec::Vec;

const SIZE: usize = 23;
const RANK: usize = 5;

/// An int8 matrix whose values are known, in the order of the format.
struct Small {
    outputs: usize,
    inputs: usize,
    values: Vec<i8>,
    scales: Vec<f32>,
    floats: Vec<f32>,
}

impl Small {
    fn new(outputs: usize, inputs: usize, seed: i32) -> Self {
        let (rows, blocks) = (round_up(outputs, 16), round_up(inputs, 16) / 4);
        let mut values = vec![0; rows * blocks * 4];
        let mut floats = vec![0.0; inputs * rows];
        for (output, input) in (0..outputs).flat_map(|output| (0..inputs).map(move |input| (output, input))) {
            let value = ((output as i32 * 31 + input as i32 * 17 + seed) * 7919 % 255 - 127) as i8;
            values[((output / 16 * blocks + input / 4) * 16 + output % 16) * 4 + input % 4] = value;
            floats[input * rows + output] = f32::from(value) * 0.01;
        }
        Self { outputs, inputs, values, scales: vec![0.01; rows], floats }
    }

    fn int8(&self) -> Matrix<'_> {
        Matrix::Int8(Int8Matrix::new(self.outputs, self.inputs, &self.values, &self.scales).expect("fits"))
    }

    fn float(&self) -> Matrix<'_> {
        Matrix::Float(FloatMatrix::new(self.outputs, self.inputs, &self.floats).expect("fits"))
    }

    fn times(&self, x: &[f32]) -> Vec<f32> {
        let rows = round_up(self.outputs, 16);
        let value = |output: usize| (0..self.inputs).map(|i| self.floats[i * rows + output] * x[i]).sum();
        (0..self.outputs).map(value).collect()
    }
}

#[test]
fn factors_and_diagonal_are_added() {
    let (weight, left, right) =
        (Small::new(SIZE, SIZE, 1), Small::new(SIZE, RANK, 2), Small::new(RANK, SIZE, 3));
    let diagonal: Vec<f32> = (0..SIZE).map(|index| index as f32 * 0.3 - 2.0).collect();
    let bias = vec![0.5; SIZE];
    let rows = 7;
    let x: Vec<f32> = (0..rows * SIZE).map(|index| (index as f32 * 0.41).sin()).collect();
    let want: Vec<f32> = x
        .chunks_exact(SIZE)
        .flat_map(|x| {
            let added = left.times(&right.times(x));
            let terms = weight.times(x).into_iter().zip(added).zip(x.iter().zip(&diagonal));
            terms.map(|((own, added), (x, d))| own + added + x * d + 0.5).collect::<Vec<f32>>()
        })
        .collect();
    let size = want.iter().map(|value| value * value).sum::<f32>().sqrt();
    for (bits, tolerance) in [(ActivationBits::Eight, 1e-2), (ActivationBits::Sixteen, 5e-3)] {
        for (left, right) in [(left.int8(), right.int8()), (left.float(), right.float())] {
            let linear = Linear {
                weight: weight.int8(),
                bias: Some(Floats::Single(&bias)),
                residual: Some(LowRank { left, right }),
                diagonal: Some(&diagonal),
            };
            let mut first: Option<Vec<f32>> = None;
            for kernels in Kernels::available() {
                let copies = result_rows(bits);
                let need = Need::of(rows, copies, RANK, SIZE);
                let mut split = vec![0.0; (rows * copies * SIZE).max(need.floats)];
                let mut quantized = vec![0; Kernels::quantized_bytes(rows * copies, SIZE) + need.bytes];
                let mut scales = vec![0.0; rows * copies + need.scales];
                let mut rounding = Rounding {
                    split: &mut split,
                    rows: &mut quantized,
                    scales: &mut scales,
                    bias: &mut [],
                    room: &mut [],
                };
                let source = Rows { values: &x, stride: SIZE };
                let input = Input::new(kernels, bits, source, rows, SIZE, &mut rounding).expect("room");
                let mut out = vec![0.0; rows * copies * SIZE];
                for _ in 0..2 {
                    input.times(&linear, &mut out).expect("the second product finds the room of the first");
                }
                let error = out.iter().zip(&want).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
                assert!(error < tolerance * size, "{bits:?}: {error} of {size}");
                assert_eq!(first.get_or_insert(out.clone())[..rows * SIZE], out[..rows * SIZE]);
            }
        }
    }
}

#[test]
fn too_little_room_is_an_error() {
    let (weight, left, right) = (Small::new(16, 16, 1), Small::new(16, 4, 2), Small::new(4, 16, 3));
    let residual = Some(LowRank { left: left.int8(), right: right.int8() });
    let linear = Linear { residual, ..Linear::new(weight.int8(), None) };
    let (mut quantized, mut scales) = ([0; 16], [0.0; 1]);
    let mut rounding =
        Rounding { split: &mut [], rows: &mut quantized, scales: &mut scales, bias: &mut [], room: &mut [] };
    let source = Rows { values: &[1.0; 16], stride: 16 };
    let input =
        Input::new(Kernels::detect(), ActivationBits::Eight, source, 1, 16, &mut rounding).expect("room");
    assert!(input.times(&linear, &mut [0.0; 16]).is_err());
}

fn shared(residual_rank: usize, diagonal: bool) -> PackOptions {
    let groups = Groups { encoder: Some(2), decoder: Some(2) };
    PackOptions { sharing: Sharing { groups, residual_rank, diagonal }, ..PackOptions::default() }
}

#[test]
fn layers_that_share_and_add_back_all_they_lost_agree_with_pytorch() {
    // Full rank: what the mean took away comes back, rounded to int8 twice more. Between random layers that is as large
    // as the layers themselves, hence tolerances twice those of the model that shares nothing.
    for diagonal in [false, true] {
        let file = packed_with("tiny", &shared(64, diagonal));
        check_packed(
            "tiny",
            &file,
            "expected_int8_weights",
            &Tolerance { frontend: 0.02, encoder: 0.05, logits: 0.1 },
        );
    }
}

#[test]
fn in_floats_nothing_is_lost() {
    for diagonal in [false, true] {
        let file = packed_with("tiny", &PackOptions { sharing: shared(64, diagonal).sharing, ..float() });
        // Of the decoder, keys and values are int8 all the same.
        let tolerance = Tolerance { frontend: 1e-4, encoder: 1e-4, logits: 0.02 };
        check_packed("tiny", &file, "expected_float", &tolerance);
    }
}

#[test]
fn without_residuals_they_do_not() {
    let file = packed_with("tiny", &shared(0, false));
    let model = Model::parse(file.bytes()).expect("a model");
    let ids: Vec<_> = model
        .layers()
        .iter()
        .filter(|layer| layer.kind == kinglet_model_format::LayerKind::EncoderBlock)
        .map(|layer| layer.slot(kinglet_model_format::Role::Query, kinglet_model_format::Part::Weight))
        .collect();
    assert!(ids.len() == 2 && ids[0] == ids[1]);
    let tolerance = Tolerance { frontend: 0.02, encoder: 0.3, logits: 0.3 };
    assert!(
        std::panic::catch_unwind(|| check_packed("tiny", &file, "expected_int8_weights", &tolerance))
            .is_err()
    );
}
