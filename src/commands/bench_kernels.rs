//! `kinglet bench kernels`: the matrix products and the convolution of a memory, alone.

mod pairs;
mod weights;

use std::io::{self, Write};

use clap::Args;
use kinglet_kernels::{InstructionSet, Kernels, Rows, TimeConvolution, time_ring};
use kinglet_model_format::{BlockShape, FloatMatrix, Int3Coding, MOST_GROUP_INPUTS, MatrixShapeError};

use crate::failure::Failure;
use crate::machine;
use pairs::{Pairs, median};
use weights::{Kind, Noise, Store, Weights};

/// Rows: an utterance, and one step of the decoder.
const ROWS: [usize; 2] = [128, 1];
/// Per cent of the blocks that are left out.
const SPARSITIES: [usize; 4] = [0, 50, 75, 90];
/// Taps of the convolution, those of FunASR's SAN-M models.
const TAPS: usize = 11;

/// Time the matrix products of every instruction set of this machine
///
/// Each kind of weights is multiplied in turn with dense int8 weights of the same shape by the same instructions. The
/// speed-up is the median of the ratios of such pairs, between their first and third quartile: what else the machine does then
/// slows both. Sparse weights leave out whole blocks; MAC/ns counts those too.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kinglet bench kernels --instructions avx512vnni --outputs 288 --inputs 1152"
)]
pub struct BenchKernels {
    /// Outputs of the matrices, a multiple of 16
    #[arg(long, value_name = "N", default_value = "512", value_parser = multiple_of_16)]
    outputs: usize,
    /// Inputs of the matrices, a multiple of 16
    #[arg(long, value_name = "N", default_value = "512", value_parser = multiple_of_16)]
    inputs: usize,
    /// Pairs that are timed, each long enough for the clock
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only these instructions: i8mm, dotprod, neon, avx512vnni, avx2 or scalar; by default all but scalar
    #[arg(long, value_name = "SET", value_parser = available)]
    instructions: Vec<Kernels>,
}

fn multiple_of_16(text: &str) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "not a number".to_string())?;
    let valid = (16..=8192).contains(&number) && number.is_multiple_of(16);
    if valid { Ok(number) } else { Err("it must be a multiple of 16 up to 8192".into()) }
}

fn available(text: &str) -> Result<Kernels, String> {
    let set: InstructionSet = text.parse().map_err(|error| format!("{error}"))?;
    Kernels::new(set).ok_or_else(|| "this processor does not have these instructions".into())
}

impl BenchKernels {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let Self { outputs, inputs, rounds, .. } = self;
        let mut out = io::stdout().lock();
        writeln!(out, "machine          {}", machine::describe())?;
        writeln!(out, "products         rows x {outputs} outputs x {inputs} inputs, one thread")?;
        writeln!(out, "speed-up         over dense int8, median and quartiles of {rounds} pairs\n")?;
        self.tables(&mut out).map_err(|cause| match cause {
            TableError::Write(cause) => cause.into(),
            TableError::Kernel(cause) => Failure::other("kernels", cause),
            TableError::Shape(cause) => Failure::other("kernels", cause),
        })
    }

    fn tables(&self, out: &mut impl Write) -> Result<(), TableError> {
        let mut sets = self.instructions.clone();
        if sets.is_empty() {
            let all: Vec<Kernels> = Kernels::available().collect();
            let count = all.len().saturating_sub(1).max(1);
            sets.extend(all.into_iter().take(count));
        }
        writeln!(
            out,
            "{:<12} {:<16} {:>6} {:>5} {:>10} {:>8} {:>9}  quartiles",
            "instructions", "weights", "sparse", "rows", "ns", "MAC/ns", "speed-up"
        )?;
        for &kernels in &sets {
            for rows in ROWS {
                self.products(out, kernels, rows)?;
            }
        }
        writeln!(
            out,
            "\n{:<12} {:<16} {:>6} {:>10} {:>8}",
            "instructions", "convolution", "frames", "ns", "MAC/ns"
        )?;
        for &kernels in &sets {
            self.convolution(out, kernels)?;
        }
        Ok(())
    }

    /// One line for each kind of weights.
    fn products(&self, out: &mut impl Write, kernels: Kernels, rows: usize) -> Result<(), TableError> {
        let store = Store::new(self.outputs, self.inputs);
        let source: Vec<f32> = Noise::default().take(rows * self.inputs).map(f32::from).collect();
        let mut values = vec![0; Kernels::quantized_bytes(rows, self.inputs)];
        let mut scales = vec![0.0; rows];
        let rows =
            kernels.quantize_rows(&source, self.inputs, rows, self.inputs, &mut values, &mut scales)?;
        let dense = store.dense(Kind::Int8)?;
        let pairs = Pairs { kernels, rows: &rows, rounds: self.rounds.into(), dense: &dense };
        let mut line = |name: &str, sparsity: Option<usize>, weights: &Weights<'_>| {
            let timing = pairs.time(weights)?;
            let speed = (rows.rows() * self.outputs * self.inputs) as f64 / timing.nanoseconds;
            let sparsity = sparsity.map(|percent| format!("{percent} %")).unwrap_or_default();
            let [low, middle, high] = timing.speed_up;
            writeln!(
                out,
                "{:<12} {name:<16} {sparsity:>6} {:>5} {:>10.0} {speed:>8.1} {middle:>7.2} x  {low:.2} to {high:.2}",
                kernels.instruction_set().name(),
                rows.rows(),
                timing.nanoseconds,
            )?;
            Ok::<(), TableError>(())
        };
        line("int8", None, &dense)?;
        let whole = Kind::Int4 { group: self.inputs.min(MOST_GROUP_INPUTS) };
        line("int4", None, &store.dense(whole)?)?;
        line("int4, groups 32", None, &store.dense(Kind::Int4 { group: 32 })?)?;
        for (name, coding) in [("int3, groups 32", Int3Coding::Odd), ("trellis, groups", Int3Coding::Trellis)]
        {
            line(name, None, &store.dense(Kind::Int3 { coding, group: 32 })?)?;
        }
        for (name, kind) in [("int8", Kind::Int8), ("int4", whole)] {
            for shape in BlockShape::ALL {
                for percent in SPARSITIES {
                    let index = store.index(shape, percent);
                    line(&format!("{name} {shape}"), Some(percent), &store.sparse(kind, &index)?)?;
                }
            }
        }
        Ok(())
    }

    /// A whole utterance and one step of the memory of a layer as wide as the matrices' inputs.
    fn convolution(&self, out: &mut impl Write, kernels: Kernels) -> Result<(), TableError> {
        let (channels, frames) = (self.inputs, ROWS[0]);
        let floats =
            |count: usize| Noise::default().take(count).map(|x| f32::from(x) / 128.0).collect::<Vec<_>>();
        let (weights, source) = (floats(TAPS * channels), floats(frames * channels));
        let weights = FloatMatrix::new(channels, TAPS, &weights)?;
        let causal = TimeConvolution { weights, left: TAPS - 1, add_input: true, add_to_out: false };
        let mut result = vec![0.0; frames * channels];
        let whole = median(self.rounds.into(), || {
            let rows = Rows { values: &source, stride: channels };
            kernels.convolve_time(&causal, rows, frames, 0..frames, &mut result, channels)
        })?;
        let (mut ring, mut count) = (vec![0.0; time_ring(TAPS, channels)], 0);
        let step = median(self.rounds.into(), || {
            count += 1;
            kernels.convolve_time_step(&causal, &mut ring, count, &source, &mut result)
        })?;
        for (frames, nanoseconds) in [(frames, whole), (1, step)] {
            let speed = (frames * channels * TAPS) as f64 / nanoseconds;
            writeln!(
                out,
                "{:<12} {:<16} {frames:>6} {nanoseconds:>10.0} {speed:>8.1}",
                kernels.instruction_set().name(),
                format!("{TAPS} x {channels}"),
            )?;
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
