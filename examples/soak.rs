//! A day of listening in minutes: memory must not grow, times must not drift, and the same words must always be heard the same.
//!
//! ```text
//! cargo run --release --example soak -- [--hours 24] [RECORDING...]        (see --help)
//! ```

use std::time::Instant;

use kinglet::audio::{AudioReader, find_inputs};
use kinglet::model_file::ModelFile;
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{
    Event, Limits, PartialConfig, Recognizer, SAMPLE_RATE, SegmenterConfig, memory_required,
};

const HELP: &str = "\
soak [--hours HOURS] [RECORDING...]

Pushes 24 hours of audio, as fast as it is taken, through one recogniser with partial results. Each minute is a second of silence, one of
the recordings (the bundled ones, if none is named), and a mixture of digital silence, white noise, mains hum and clicks. In even hours the
stream ends and begins anew every minute, and every tenth minute the recogniser is made anew in the same memory; an odd hour is one stream.

Fails (exit status 1) where anonymous memory (all but the mapped model) after the first minute grows by more than 1 MiB, where an utterance lies beside its place in
the stream, or where, at the beginning of a stream, a recording gives other samples or other words than the first time.
Prints one line of a Markdown table an hour. CPU time is about 0.5 % of the audio's on a recent x86-64.";

const SECOND: usize = SAMPLE_RATE as usize;
const MINUTE: usize = 60 * SECOND;
const PIECE: usize = 320;
/// Growth of memory that is an accident of pages and not a leak.
const TOLERATED_KIB: u64 = 1024;
/// Audio that may be kept before and behind a recording, and what its own quiet ends may take away.
const NEAR: u64 = SECOND as u64;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut hours = 24.0_f64;
    let mut names = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            "--hours" => hours = arguments.next().unwrap_or_default().parse()?,
            _ => names.push(argument),
        }
    }
    if names.is_empty() {
        names = ["amiable.wav", "consider.flac", "selfish.flac"]
            .map(|name| format!("tests/data/speech/{name}"))
            .into();
    }
    let recordings = names.iter().map(|name| read(name)).collect::<Result<Vec<_>, _>>()?;
    let file = ModelFile::embedded();
    let (model, limits) = (Model::parse(&file)?, Limits::default());
    // Other than zero, so that all of it is resident from the beginning.
    let mut region = vec![1; memory_required(&model, &limits)?];
    let mut soak = Soak {
        noise: Noise(1),
        samples: Vec::with_capacity(MINUTE),
        first: vec![None; recordings.len()],
        counts: Counts::default(),
    };
    let begun = Instant::now();
    let minutes = (hours * 60.0) as usize;
    let mut settled = None;
    println!(
        "| audio, h | anonymous memory, KiB | utterances | words | partial results | wall time, s |\n|---:|---:|---:|---:|---:|---:|"
    );
    let mut minute = 0;
    while minute < minutes {
        let mut recognizer =
            Recognizer::new(model, Kernels::detect(), limits, SegmenterConfig::default(), &mut region)?
                .with_partials(PartialConfig::default());
        let even = (minute / 60) % 2 == 0;
        for _ in 0..if even { 10 } else { 60 } {
            let which = minute % recordings.len();
            let place = if even { 0 } else { (minute % 60) * MINUTE };
            soak.minute(&mut recognizer, which, &recordings[which], place as u64)?;
            minute += 1;
            if even || minute % 60 == 0 {
                recognizer.finish();
                soak.poll(&mut recognizer, which, place as u64, recordings[which].len())?;
            }
            let resident = anonymous_kib();
            let before = *settled.get_or_insert(resident);
            if resident > before + TOLERATED_KIB {
                return Err(format!("memory grew from {before} to {resident} KiB in {minute} minutes").into());
            }
            if minute % 60 == 0 || minute == minutes {
                let Counts { utterances, words, partials } = soak.counts;
                let (hours, wall) = (minute as f64 / 60.0, begun.elapsed().as_secs());
                println!("| {hours} | {resident} | {utterances} | {words} | {partials} | {wall} |");
            }
            if minute == minutes {
                break;
            }
        }
    }
    Ok(())
}

fn read(name: &str) -> Result<Vec<f32>, Failure> {
    let mut reader = AudioReader::open(&find_inputs(name.as_ref())?[0])?;
    let mut samples = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        samples.extend_from_slice(chunk);
    }
    samples.truncate(20 * SECOND);
    Ok(samples)
}

#[derive(Default, Clone, Copy)]
struct Counts {
    utterances: usize,
    words: usize,
    partials: usize,
}

/// What a recording gave the first time: its first and last sample, and its tokens.
type Known = (u64, u64, Vec<u32>);

struct Soak {
    noise: Noise,
    /// A minute of audio: allocated once, so that no memory grows but what is looked for.
    samples: Vec<f32>,
    first: Vec<Option<Known>>,
    counts: Counts,
}

impl Soak {
    /// One minute of audio, `place` samples after the beginning of the stream.
    fn minute(
        &mut self,
        recognizer: &mut Recognizer<'_, '_>,
        which: usize,
        recording: &[f32],
        place: u64,
    ) -> Result<(), Failure> {
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        samples.resize(SECOND, 0.0);
        samples.extend_from_slice(recording);
        // Long enough for the utterance to end.
        samples.extend([0.0; 2 * SECOND]);
        let noise_end = MINUTE - 2 * SECOND;
        while samples.len() < noise_end {
            let length = SECOND + self.noise.next() as usize % (8 * SECOND);
            let kind = self.noise.next() % 4;
            for index in 0..length.min(noise_end - samples.len()) {
                samples.push(self.noise.sample(kind, index));
            }
        }
        // Long enough that no utterance of the noise reaches into the next recording.
        samples.resize(MINUTE, 0.0);
        for piece in samples.chunks(PIECE) {
            let mut rest = piece;
            while !rest.is_empty() {
                rest = &rest[recognizer.push(rest)..];
                self.poll(recognizer, which, place, recording.len())?;
            }
        }
        self.samples = samples;
        Ok(())
    }

    fn poll(
        &mut self,
        recognizer: &mut Recognizer<'_, '_>,
        which: usize,
        place: u64,
        length: usize,
    ) -> Result<(), Failure> {
        while let Some(event) = recognizer.poll_event()? {
            let Event::Final(utterance) = event else {
                self.counts.partials += 1;
                continue;
            };
            self.counts.utterances += 1;
            self.counts.words += utterance.transcript.words().count();
            let (start, end) = (utterance.start_sample, utterance.end_sample);
            let speech = place + SECOND as u64..place + (SECOND + length) as u64;
            if end < speech.start || start > speech.end {
                // Something in the noise: it is counted, and its words are.
                continue;
            }
            if start + NEAR < speech.start || end > speech.end + NEAR {
                return Err(format!("an utterance at {start} to {end} instead of {speech:?}").into());
            }
            if place == 0 {
                let now = (start, end, utterance.transcript.tokens().to_vec());
                let known = self.first[which].get_or_insert_with(|| now.clone());
                if *known != now {
                    return Err(format!("recording {which} gave {known:?} and now gives {now:?}").into());
                }
            }
        }
        Ok(())
    }
}

/// The same noise in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn sample(&mut self, kind: u64, index: usize) -> f32 {
        let white = self.next() as f32 / (1_u64 << 30) as f32 - 1.0;
        let time = index as f32 / SAMPLE_RATE as f32;
        match kind {
            0 => 0.0,
            1 => 0.03 * white,
            2 => (1..8_u8)
                .map(f32::from)
                .map(|k| 0.02 * (std::f32::consts::TAU * 50.0 * k * time).sin() / k)
                .sum(),
            _ if index.is_multiple_of(SECOND / 2) => 0.5,
            _ => 0.001 * white,
        }
    }
}

/// Memory of the process's own. Pages of the model file come and go as the system likes.
fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}
