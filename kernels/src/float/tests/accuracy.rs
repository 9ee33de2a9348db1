//! Functions of one value against libm in f64.

use std::vec::Vec;

use super::{awkward, every};
use crate::{InstructionSet, Kernels, Scored};

/// A dense sweep of `-limit..=limit`.
fn sweep(limit: f32) -> Vec<f32> {
    let steps = 20_000;
    (0..=2 * steps).map(|step| (step - steps) as f32 / steps as f32 * limit).collect()
}

/// The fastest kernels; the others give the same bits.
fn fastest() -> Kernels {
    Kernels::detect()
}

/// The largest of `error(x, result)` over a sweep.
fn worst(limit: f32, apply: impl Fn(&mut [f32]), error: impl Fn(f64, f64) -> f64) -> f64 {
    let inputs = sweep(limit);
    let mut results = inputs.clone();
    apply(&mut results);
    let errors = inputs.iter().zip(&results).map(|(x, y)| error(f64::from(*x), f64::from(*y)));
    errors.fold(0.0, |worst, error| if error <= worst { worst } else { error })
}

fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x / core::f64::consts::SQRT_2)
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    let error = worst(87.2, |x| fastest().exp(x), |x, y| (y / libm::exp(x) - 1.0).abs());
    assert!(error < 1.5e-7, "{error:e}");
}

#[test]
fn tanh_is_within_3e_7() {
    for limit in [0.01, 1.0, 12.0, 1e6] {
        let error = worst(limit, |x| fastest().tanh(x), |x, y| (y - libm::tanh(x)).abs());
        assert!(error < 3e-7, "{limit}: {error:e}");
    }
}

#[test]
fn gelu_is_within_1e_6() {
    for limit in [0.01, 1.0, 6.0, 100.0] {
        let error = worst(limit, |x| fastest().gelu(x), |x, y| (y - gelu(x)).abs() / x.abs().max(1.0));
        assert!(error < 1e-6, "{limit}: {error:e}");
    }
}

#[test]
fn silu_is_within_4e_7_relative() {
    let silu = |x: &mut [f32]| {
        let gate = x.to_vec();
        x.fill(1.0);
        assert_eq!(fastest().silu_mul(&gate, x), Ok(()));
    };
    let relative =
        |x: f64, y: f64| (y - x / (1.0 + libm::exp(-x))).abs() / (x.abs() / (1.0 + libm::exp(-x)) + 1e-40);
    let error = worst(80.0, silu, relative);
    assert!(error < 4e-7, "{error:e}");
}

#[test]
fn extremes_have_their_documented_results() {
    for kernels in every() {
        let apply = |function: fn(Kernels, &mut [f32]), value: f32| {
            let mut values = [value; 17];
            function(kernels, &mut values);
            assert!(values.iter().all(|x| x.to_bits() == values[0].to_bits()), "tail differs");
            values[0]
        };
        assert_eq!(apply(Kernels::exp, f32::NEG_INFINITY), 0.0);
        assert_eq!(apply(Kernels::exp, -100.0), 0.0);
        assert_eq!(apply(Kernels::exp, 0.0), 1.0);
        assert_eq!(apply(Kernels::exp, 1e-40), 1.0);
        assert_eq!(apply(Kernels::exp, f32::INFINITY), f32::INFINITY);
        assert!(apply(Kernels::exp, f32::NAN).is_nan());
        assert_eq!(apply(Kernels::tanh, f32::INFINITY), 1.0);
        assert_eq!(apply(Kernels::tanh, f32::NEG_INFINITY), -1.0);
        assert!(apply(Kernels::tanh, f32::NAN).is_nan());
        assert_eq!(apply(Kernels::gelu, f32::INFINITY), f32::INFINITY);
        assert!(apply(Kernels::gelu, f32::NEG_INFINITY).abs() < 1e-6);
        assert!(apply(Kernels::gelu, f32::NAN).is_nan());
        assert_eq!(apply(Kernels::relu, -3.0), 0.0);
        assert_eq!(apply(Kernels::relu, 3.0), 3.0);
        assert!(apply(Kernels::relu, f32::NAN).is_nan());
        let mut out = [1.0; 3];
        assert_eq!(kernels.silu_mul(&[f32::NEG_INFINITY, -1e30, f32::INFINITY], &mut out), Ok(()));
        assert!(out[0].abs() < 1e-36 && out[1].abs() < 1e-36 && out[2] == f32::INFINITY, "{out:?}");
        for mut value in awkward() {
            kernels.exp(core::slice::from_mut(&mut value));
        }
    }
}

#[test]
fn softmax_sums_to_one() {
    for count in [1, 2, 15, 16, 17, 100, 417] {
        let logits: Vec<f32> = (0..count).map(|i| (i * 7919 % 101) as f32 * 0.3 - 9.0).collect();
        let mut result = logits.clone();
        fastest().softmax(&mut result);
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(x - largest))).sum();
        for (logit, probability) in logits.iter().zip(&result) {
            let expected = libm::exp(f64::from(logit - largest)) / sum;
            assert!((f64::from(*probability) / expected - 1.0).abs() < 1e-6, "{count}");
        }
    }
    fastest().softmax(&mut []);
}

#[test]
fn peak_is_the_first_largest() {
    for kernels in every() {
        for count in [1, 15, 16, 17, 1024, 1025, 5000] {
            let mut logits: Vec<f32> = (0..count).map(|i| (i * 7919 % 1009) as f32 * 0.01 - 4.0).collect();
            let place = count * 2 / 3;
            logits[place] = 9.5;
            logits[count - 1] = 9.5;
            let peak = kernels.peak(&logits).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((peak.index, peak.logit), (place, 9.5), "{count}");
            let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(*x))).sum();
            assert!((f64::from(peak.log_sum_exp) - libm::log(sum)).abs() < 1e-5, "{count}");
        }
        let peak =
            kernels.peak(&[1.0, f32::NAN, 2.0, f32::NAN]).map(|peak| (peak.index, peak.logit.is_nan()));
        assert_eq!(peak, Ok((1, true)));
        assert!(kernels.peak(&[]).is_err());
        assert!(kernels.peak(&[f32::NEG_INFINITY; 40]).is_ok());
        assert_eq!(kernels.peak(&[0.0, f32::INFINITY, 1.0]).map(|peak| peak.index), Ok(1));
    }
}

#[test]
fn top_k_is_a_sorted_prefix() {
    let mut random = super::Random(3);
    for kernels in every() {
        for count in [0, 1, 5, 16, 17, 1000] {
            for most in [1, 3, 16] {
                let logits: Vec<f32> = (0..count).map(|_| (random.float() * 20.0).round()).collect();
                let mut best = std::vec![Scored::default(); most];
                let found = kernels.top_k(&logits, &mut best).unwrap_or_else(|error| panic!("{error}"));
                let mut expected: Vec<Scored> =
                    logits.iter().enumerate().map(|(index, &logit)| Scored { index, logit }).collect();
                expected.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.index.cmp(&b.index)));
                // Rounding gives zeros of both signs, which are equal here.
                expected.iter_mut().for_each(|scored| scored.logit += 0.0);
                expected.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.index.cmp(&b.index)));
                assert_eq!(&best[..found], &expected[..most.min(count)]);
            }
        }
        let mut best = [Scored::default(); 4];
        assert_eq!(kernels.top_k(&[f32::NAN, 1.0, f32::NEG_INFINITY], &mut best), Ok(1));
        assert!(kernels.top_k(&[1.0], &mut [Scored::default(); 17]).is_err());
    }
    assert!(Kernels::new(InstructionSet::Scalar).is_some());
}
