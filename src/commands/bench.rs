//! `kinglet bench`: how fast, and how much memory.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use kinglet::audio::{AudioReader, Input, find_inputs};
use kinglet::transcription::segment;
use kinglet::utterances::Utterances;
use kinglet_kernels::Kernels;
use kinglet_runtime::{Limits, Stage, Transcriber, transcriber_memory};

use super::bench_kernels::BenchKernels;
use super::model::ModelOptions;
use crate::failure::Failure;
use crate::machine::{self, cpu_time, peak_memory};

/// What is measured when no file is named.
const BUNDLED: &str = "tests/data/speech/amiable.wav";

/// Measure speed and memory on this machine
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "One thread recognises; the times of the stages are medians over the runs. CPU seconds are what the processor spent, \
so another program that runs at the same time does not count.\n\nExample:\n  kinglet bench --runs 10 talk.wav"
)]
pub struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    /// Recordings or folders; without any, tests/data/speech/amiable.wav of the source tree
    #[arg(value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// How often each recording is transcribed
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Hypotheses that the search follows
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    beam: u8,
    #[command(flatten)]
    model: ModelOptions,
}

/// What is measured by itself.
#[derive(Debug, Subcommand)]
enum Part {
    Kernels(BenchKernels),
}

/// Stages in the order of the table; the first is everything before the recogniser.
const STAGES: [&str; 6] =
    ["decode, segment", "frontend", "encoder", "cross-attention", "decoder", "alignment"];

/// One pass over one recording.
#[derive(Default, Clone)]
struct Run {
    audio_seconds: f64,
    wall: Duration,
    cpu: Duration,
    stages: [Duration; STAGES.len()],
    words: usize,
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        if let Some(Part::Kernels(kernels)) = self.part {
            return kernels.run();
        }
        let mut inputs = Vec::new();
        for argument in &self.inputs {
            inputs.extend(find_inputs(argument).map_err(|cause| Failure::input(argument.display(), cause))?);
        }
        if inputs.is_empty() {
            inputs = find_inputs(BUNDLED.as_ref()).map_err(|cause| {
                Failure::input(BUNDLED, format!("{cause}, or name a recording to measure"))
            })?;
        }
        if inputs.contains(&Input::Stdin) {
            return Err(Failure::input("-", "can be read only once; name a file"));
        }
        let opening = Instant::now();
        let file = self.model.open()?;
        let model = self.model.parse(&file)?;
        let opened = opening.elapsed();
        let limits = Limits { beam: self.beam.into(), ..Limits::default() };
        let kernels = Kernels::detect();
        let memory = transcriber_memory(&model, &limits)?;
        let mut region = vec![0; memory];
        let mut transcriber = Transcriber::new(model, kernels, limits, &mut region)?;
        let mut runs = vec![Run::default(); usize::from(self.runs)];
        for run in &mut runs {
            for input in &inputs {
                measure(input, &mut transcriber, limits, run)?;
            }
        }
        let mut out = io::stdout().lock();
        writeln!(out, "machine          {}", machine::describe())?;
        writeln!(out, "instructions     {}, one thread", kernels.instruction_set())?;
        writeln!(
            out,
            "model            {} ({}, {} bytes), beam {}, ready in {:.1} ms",
            model.texts().name,
            self.model.name(),
            file.len(),
            self.beam,
            milliseconds(opened)
        )?;
        report(&runs, inputs.len(), &mut out)?;
        let peak = peak_memory()
            .map_or_else(|| "unknown here".into(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6));
        writeln!(
            out,
            "peak RSS         {peak}, of which the recogniser's region is at most {:.1} MB and the model file {:.1} MB",
            memory as f64 / 1e6,
            file.len() as f64 / 1e6
        )?;
        Ok(())
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Adds one pass over `input` to `run`.
fn measure(
    input: &Input,
    transcriber: &mut Transcriber<'_, '_>,
    limits: Limits,
    run: &mut Run,
) -> Result<(), Failure> {
    let (wall, cpu) = (Instant::now(), cpu_time());
    let at_fault = |cause| Failure::input(input, cause);
    let mut utterances =
        Utterances::new(AudioReader::open(input).map_err(at_fault)?, limits.utterance_seconds);
    let mut stage = 0;
    let mut since = wall;
    while let Some(utterance) = utterances.next_utterance().map_err(at_fault)? {
        let transcript = transcriber.transcribe_observed(utterance.samples, &mut |entered| {
            let now = Instant::now();
            if let Some(total) = run.stages.get_mut(stage) {
                *total += now - since;
            }
            since = now;
            stage = match entered {
                Stage::Frontend => 1,
                Stage::Encoder => 2,
                // The command measures decoding by attention, which has no such stage.
                Stage::Ctc | Stage::CrossAttention => 3,
                Stage::Decoder => 4,
                Stage::Alignment => 5,
                Stage::Done => 0,
            };
        })?;
        run.words += segment(utterance.start_sample, utterance.samples.len(), &transcript, false)
            .map_or(0, |segment| segment.words.len());
    }
    run.stages[0] += since.elapsed();
    run.audio_seconds += utterances.seconds();
    run.wall += wall.elapsed();
    run.cpu += cpu_time().saturating_sub(cpu);
    Ok(())
}

fn report(runs: &[Run], recordings: usize, out: &mut impl Write) -> io::Result<()> {
    let seconds = runs.first().map_or(0.0, |run| run.audio_seconds);
    let words = runs.first().map_or(0, |run| run.words);
    writeln!(
        out,
        "audio            {recordings} recordings, {seconds:.2} s, {words} words, {} runs",
        runs.len()
    )?;
    let seconds = seconds.max(1e-9);
    let spread = |of: &dyn Fn(&Run) -> Duration| {
        let mut all: Vec<f64> = runs.iter().map(|run| of(run).as_secs_f64()).collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or_default() / seconds;
        (at(0), at(all.len() / 2), at(all.len().saturating_sub(1)))
    };
    writeln!(out, "\n{:<26} {:>9} {:>9} {:>9}", "", "best", "median", "worst")?;
    for (name, of) in [
        ("real-time factor", &(|run: &Run| run.wall) as &dyn Fn(&Run) -> Duration),
        ("CPU seconds/audio second", &|run: &Run| run.cpu),
    ] {
        let (best, median, worst) = spread(of);
        writeln!(out, "{name:<26} {best:>9.4} {median:>9.4} {worst:>9.4}")?;
    }
    writeln!(out, "\n{:<26} {:>9} {:>9}", "stage", "ms/s", "share")?;
    let medians: Vec<f64> = (0..STAGES.len())
        .map(|stage| spread(&|run: &Run| run.stages.get(stage).copied().unwrap_or_default()).1 * 1e3)
        .collect();
    let total: f64 = medians.iter().sum::<f64>().max(1e-9);
    for (name, median) in STAGES.iter().zip(medians) {
        writeln!(out, "{name:<26} {median:>9.3} {:>7.1} %", 100.0 * median / total)?;
    }
    writeln!(out)
}
