//! Float attention against f64.

use std::vec;
use std::vec::Vec;

use super::{Random, same_bits};
use crate::{AttentionShape, Kernels, Rows, attend_scratch};

/// `softmax(scale * query . key) value` of one query and head.
pub(super) fn naive(
    query: &[f64],
    keys: &[Vec<f64>],
    values: &[Vec<f64>],
    scale: f64,
) -> (Vec<f64>, Vec<f64>) {
    let scores: Vec<f64> =
        keys.iter().map(|key| scale * key.iter().zip(query).map(|(k, q)| k * q).sum::<f64>()).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
    let probabilities: Vec<f64> = scores.iter().map(|score| (score - largest).exp() / sum).collect();
    let mut out = vec![0.0; query.len()];
    for (probability, value) in probabilities.iter().zip(values) {
        for (out, value) in out.iter_mut().zip(value) {
            *out += probability * value;
        }
    }
    (out, probabilities)
}

pub(super) fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn attend_matches_f64() {
    let mut random = Random(8);
    let shapes = [
        (1, 1, 1, 1, 0..1),
        (2, 36, 16, 23, 0..23),
        (3, 5, 7, 50, 13..50),
        (1, 64, 3, 12, 0..12),
        (2, 256, 16, 9, 1..8),
        (8, 36, 16, 61, 0..61),
        (1, 18, 15, 30, 0..29),
    ];
    for (heads, head_width, queries, rows, frames) in shapes {
        let width = heads * head_width;
        let stride = width + 3;
        let shape = AttentionShape { heads, head_width, scale: 1.0 / (head_width as f32).sqrt() };
        let query: Vec<f32> = random.floats(queries * stride).iter().map(|x| x * 4.0).collect();
        let (keys, values) = (random.floats(rows * stride), random.floats(rows * stride));
        let attend = |kernels: Kernels| {
            let mut out = vec![7.0; queries * (width + 1)];
            let mut scratch = vec![f32::NAN; attend_scratch(frames.len(), head_width)];
            let rows_of = |values| Rows { values, stride };
            let result = kernels.attend(
                &shape,
                rows_of(&query),
                queries,
                rows_of(&keys),
                rows_of(&values),
                frames.clone(),
                &mut scratch,
                &mut out,
                width + 1,
            );
            assert_eq!(result, Ok(()));
            out
        };
        same_bits("attend", attend);
        let out = attend(Kernels::detect());
        for row in 0..queries {
            assert_eq!(out[row * (width + 1) + width], 7.0, "written beyond the row");
            for head in 0..heads {
                let part = |values: &[f32], row: usize| {
                    doubles(&values[row * stride + head * head_width..][..head_width])
                };
                let keys: Vec<_> = frames.clone().map(|frame| part(&keys, frame)).collect();
                let values: Vec<_> = frames.clone().map(|frame| part(&values, frame)).collect();
                let (expected, _) = naive(&part(&query, row), &keys, &values, f64::from(shape.scale));
                let given = &out[row * (width + 1) + head * head_width..][..head_width];
                for (given, expected) in given.iter().zip(expected) {
                    // Values are below 1 in size, so that this is also the relative error of the probabilities.
                    assert!(
                        (f64::from(*given) - expected).abs() < 1e-5,
                        "{heads} {head_width} {given} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn attend_survives_any_values() {
    let shape = AttentionShape { heads: 1, head_width: 8, scale: 1.0 };
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1e20, 1e-40] {
        for place in [0, 5, 8 * 9] {
            same_bits("attend", |kernels| {
                let mut keys = vec![0.25; 8 * 10];
                keys[place] = special;
                let query: Vec<f32> = (0..16 * 8).map(|i| i as f32 - 60.0).collect();
                let mut out = vec![0.0; 16 * 8];
                let rows = |values| Rows { values, stride: 8 };
                let mut scratch = vec![0.0; attend_scratch(10, 8)];
                let result = kernels.attend(
                    &shape,
                    rows(&query),
                    16,
                    rows(&keys),
                    rows(&keys),
                    0..10,
                    &mut scratch,
                    &mut out,
                    8,
                );
                assert_eq!(result, Ok(()));
                out
            });
        }
    }
}

#[test]
fn attend_refuses_what_does_not_fit() {
    let kernels = Kernels::detect();
    let good = AttentionShape { heads: 2, head_width: 4, scale: 1.0 };
    let attend = |shape: AttentionShape, queries, length: usize, frames, scratch: usize, out: usize| {
        let data = vec![0.5; length];
        let rows = || Rows { values: &data, stride: 8 };
        kernels
            .attend(
                &shape,
                rows(),
                queries,
                rows(),
                rows(),
                frames,
                &mut vec![0.0; scratch],
                &mut vec![0.0; out],
                8,
            )
            .is_ok()
    };
    assert!(attend(good, 2, 80, 0..10, attend_scratch(10, 4), 16));
    assert!(!attend(good, 0, 80, 0..10, attend_scratch(10, 4), 16));
    assert!(!attend(good, 17, 800, 0..10, attend_scratch(10, 4), 800));
    assert!(!attend(good, 2, 79, 0..10, attend_scratch(10, 4), 16));
    assert!(!attend(good, 2, 80, 10..10, attend_scratch(10, 4), 16));
    assert!(!attend(good, 2, 80, 0..10, attend_scratch(10, 4) - 1, 16));
    assert!(!attend(good, 2, 80, 0..10, attend_scratch(10, 4), 15));
    assert!(!attend(AttentionShape { heads: 0, ..good }, 2, 80, 0..10, 1000, 16));
    assert!(!attend(AttentionShape { head_width: 257, ..good }, 2, 80000, 0..10, 100_000, 16000));
    assert!(!attend(AttentionShape { heads: usize::MAX, ..good }, 2, 80, 0..10, 1000, 16));
}
