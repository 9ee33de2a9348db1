//! `kinglet bench kernels`: the matrix products alone.

use std::io::{self, Write};
use std::time::Instant;

use clap::Args;
use half::f16;
use kinglet_kernels::{Kernels, QuantizedRows};
use kinglet_model_format::{Int4Matrix, Int8Matrix, MatrixShapeError};

use crate::failure::Failure;
use crate::machine;

/// Outputs and inputs of the matrix: of the order of those in a model, and the shape that `benchmarks/` counts.
const SIZE: usize = 512;
/// Rows: an utterance, and one step of the decoder.
const ROWS: [usize; 2] = [128, 1];
/// Rounds, of which the median counts.
const ROUNDS: usize = 15;
/// How long one round lasts at least, in nanoseconds.
const ROUND: u128 = 2_000_000;

/// Time the matrix products of every instruction set of this machine
#[derive(Debug, Args)]
pub struct BenchKernels {}

/// What the weights are stored as.
#[derive(Debug, Clone, Copy)]
enum Weights<'a> {
    Int8(Int8Matrix<'a>),
    Int4(Int4Matrix<'a>),
}

impl BenchKernels {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "machine          {}", machine::describe())?;
        writeln!(
            out,
            "products         rows x {SIZE} outputs x {SIZE} inputs, one thread, median of {ROUNDS} rounds\n"
        )?;
        writeln!(
            out,
            "{:<12} {:<16} {:>5} {:>12} {:>9} {:>10}",
            "instructions", "weights", "rows", "ns", "MAC/ns", "of int8"
        )?;
        self.table(&mut out).map_err(|cause| match cause {
            TableError::Write(cause) => cause.into(),
            TableError::Kernel(cause) => Failure::other("kernels", cause),
            TableError::Shape(cause) => Failure::other("kernels", cause),
        })
    }

    fn table(&self, out: &mut impl Write) -> Result<(), TableError> {
        let bytes: Vec<i8> = noise(SIZE * SIZE).collect();
        let packed: Vec<u8> = noise(SIZE * SIZE / 2).map(|value| value as u8).collect();
        let (scales, half_scales) = (vec![0.01; SIZE], vec![f16::from_f32(0.01); SIZE * SIZE / 32]);
        let int4 = |group: usize| {
            let scales = half_scales.get(..SIZE * (SIZE / group)).unwrap_or(&[]);
            Int4Matrix::new(SIZE, SIZE, group, &packed, scales).map(Weights::Int4)
        };
        let kinds = [
            ("int8", Weights::Int8(Int8Matrix::new(SIZE, SIZE, &bytes, &scales)?)),
            ("int4", int4(SIZE)?),
            ("int4, groups 32", int4(32)?),
        ];
        for kernels in Kernels::available() {
            for rows in ROWS {
                let source: Vec<f32> = noise(rows * SIZE).map(f32::from).collect();
                let mut values = vec![0; Kernels::quantized_bytes(rows, SIZE)];
                let mut row_scales = vec![0.0; rows];
                let quantized =
                    kernels.quantize_rows(&source, SIZE, rows, SIZE, &mut values, &mut row_scales)?;
                let mut int8 = f64::NAN;
                for (name, weights) in &kinds {
                    let nanoseconds = median(kernels, &quantized, weights)?;
                    if matches!(weights, Weights::Int8(_)) {
                        int8 = nanoseconds;
                    }
                    let speed = (rows * SIZE * SIZE) as f64 / nanoseconds;
                    writeln!(
                        out,
                        "{:<12} {name:<16} {rows:>5} {nanoseconds:>12.0} {speed:>9.1} {:>8.2} x",
                        kernels.instruction_set().name(),
                        nanoseconds / int8
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// What can go wrong between two lines of the table.
#[derive(Debug, thiserror::Error)]
enum TableError {
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error(transparent)]
    Kernel(#[from] kinglet_kernels::KernelError),
    #[error(transparent)]
    Shape(#[from] MatrixShapeError),
}

/// Noise, as zeros might be faster than a real model.
fn noise(count: usize) -> impl Iterator<Item = i8> {
    let mut state = 0x9e37_79b9_u32;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as i8
    })
}

/// Nanoseconds that one product takes, in the median of the rounds. The first round only warms up.
fn median(
    kernels: Kernels,
    rows: &QuantizedRows<'_>,
    weights: &Weights<'_>,
) -> Result<f64, kinglet_kernels::KernelError> {
    let mut out = vec![0.0; rows.rows() * SIZE];
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..=ROUNDS {
        let (start, mut products) = (Instant::now(), 0_u32);
        while start.elapsed().as_nanos() < ROUND {
            // Looking at the clock after every product would cost more than a small one.
            for _ in 0..if rows.rows() == 1 { 64 } else { 1 } {
                match weights {
                    Weights::Int8(weights) => kernels.matmul(rows, weights, None, &mut out, SIZE)?,
                    Weights::Int4(weights) => kernels.matmul_int4(rows, weights, None, &mut out, SIZE)?,
                }
                products += 1;
            }
        }
        if round > 0 {
            rounds.push(start.elapsed().as_nanos() as f64 / f64::from(products));
        }
    }
    std::hint::black_box(&out);
    rounds.sort_by(f64::total_cmp);
    Ok(rounds.get(ROUNDS / 2).copied().unwrap_or(f64::NAN))
}
