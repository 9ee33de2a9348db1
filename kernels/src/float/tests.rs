//! Accuracy against f64, and equal bits on every instruction set.

extern crate std;

mod accuracy;
mod attention;
mod cache;
mod frames;
mod identity;
mod time_convolution;

use std::io::Write;
use std::vec::Vec;

use crate::{InstructionSet, Kernels};

/// Kernels of every instruction set that exists here; says which are missing.
fn every() -> Vec<Kernels> {
    let mut found = Vec::new();
    for set in InstructionSet::ALL {
        match Kernels::new(set) {
            Some(kernels) => found.push(kernels),
            None => {
                // Not `eprintln!`, which the test harness hides in a test that passes.
                let _ = writeln!(std::io::stderr(), "skipped: no {set}");
            }
        }
    }
    assert!(found.iter().any(|kernels| kernels.instruction_set() == InstructionSet::Scalar));
    found
}

/// Repeatable floats in -1..1.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn float(&mut self) -> f32 {
        f64::from(self.bits()) as f32 / 2_147_483_648.0 - 1.0
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }
}

/// Bits, with every NaN alike: the sign and payload of a NaN depend on the architecture.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// Runs `operation` with the kernels of every instruction set and compares the bits of what it returns with
/// those of the scalar kernels.
#[track_caller]
fn same_bits(name: &str, operation: impl Fn(Kernels) -> Vec<f32>) {
    let scalar = Kernels::new(InstructionSet::Scalar).map(&operation).unwrap_or_default();
    let expected = bits(&scalar);
    assert!(!expected.is_empty(), "{name}: nothing to compare");
    for kernels in every() {
        let result = bits(&operation(kernels));
        let set = kernels.instruction_set();
        let difference = expected.iter().zip(&result).position(|(left, right)| left != right);
        assert_eq!(expected.len(), result.len(), "{name}, {set}");
        assert_eq!(difference, None, "{name}, {set}: first difference");
    }
}

/// Values in which an implementation may go wrong.
fn awkward() -> Vec<f32> {
    let mut values = std::vec![
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1e-30,
        -1e-30,
        1e-40,
        -1e-40,
        1e-45,
        5.2,
        -5.2,
        9.1,
        -9.1,
        87.3,
        -87.3,
        88.3,
        -88.3,
        88.8,
        -104.0,
        1e10,
        -1e10,
        3.4e38,
        -3.4e38,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7f80_0001),
    ];
    let mut random = Random(7);
    for _ in 0..2000 {
        values.push(f32::from_bits(random.bits()));
    }
    values
}
