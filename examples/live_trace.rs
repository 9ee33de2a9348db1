//! Everything that a listener is told about a recording, one JSON object a line, with what it cost: `benchmarks/live.py` reads it.
//!
//! ```text
//! cargo run --release --example live_trace -- [--model MODEL] [--file] [--interval SECONDS] [--work TIMES] RECORDING...
//! ```
//!
//! Samples are pushed in pieces of 20 ms, as a microphone gives them, but as fast as they are taken. `--model` takes another model
//! than the built-in one; `--file` recognises each recording as `kinglet transcribe` does instead; `--interval 0` leaves partial
//! results out; `--work` is `PartialConfig::work`.

use std::io::{self, Write};

use kinglet::audio::{AudioReader, find_inputs};
use kinglet::model_file::{Loading, ModelFile};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{
    Event, Limits, PartialConfig, Recognizer, SAMPLE_RATE, SegmenterConfig, memory_required,
};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::{Value, json};

const PIECE: usize = 320;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut partials = PartialConfig::default();
    let mut file = false;
    let mut model_file = ModelFile::embedded();
    let mut recordings = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--file" => file = true,
            "--interval" => partials.interval = arguments.next().unwrap_or_default().parse()?,
            "--work" => partials.work = arguments.next().unwrap_or_default().parse()?,
            "--model" => {
                let path = arguments.next().unwrap_or_default();
                model_file = ModelFile::open(path.as_ref(), Loading::Map)?;
            }
            _ => recordings.push(argument),
        }
    }
    let (model, limits) = (Model::parse(&model_file)?, Limits::default());
    let mut region = vec![0; memory_required(&model, &limits)?];
    let rules = SegmenterConfig::default();
    for recording in recordings {
        let kernels = Kernels::detect();
        let recognizer = match file {
            true => Recognizer::for_recordings(model, kernels, limits, &mut region)?,
            false => Recognizer::new(model, kernels, limits, rules, &mut region)?,
        };
        let recognizer = match partials.interval > 0.0 && !file {
            true => recognizer.with_partials(partials),
            false => recognizer,
        };
        println!("{}", json!({ "event": "recording", "file": recording }));
        let mut reader = AudioReader::open(&find_inputs(recording.as_ref())?[0])?;
        let mut trace = Trace { recognizer, taken: 0, cpu: cpu_seconds() };
        while let Some(samples) = reader.next_chunk()? {
            for piece in samples.chunks(PIECE) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let accepted = trace.recognizer.push(rest);
                    trace.taken += accepted;
                    rest = &rest[accepted..];
                    trace.poll()?;
                }
            }
        }
        trace.recognizer.finish();
        trace.poll()?;
        trace.tell(json!({ "event": "end" }))?;
    }
    Ok(())
}

struct Trace<'m, 'r> {
    recognizer: Recognizer<'m, 'r>,
    taken: usize,
    /// CPU seconds when the last line was written.
    cpu: f64,
}

impl Trace<'_, '_> {
    fn poll(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let waited = cpu_seconds() - self.cpu;
            let seconds = |samples: u64| samples as f64 / f64::from(SAMPLE_RATE);
            let event = match self.recognizer.poll_event()? {
                None => return Ok(()),
                Some(Event::Partial(partial)) => json!({
                    "event": "partial", "stable": partial.stable(), "tentative": partial.tentative(),
                    "start": seconds(partial.start_sample), "end": seconds(partial.end_sample),
                    "waiting_cpu": waited,
                }),
                Some(Event::Final(utterance)) => json!({
                    "event": "final", "text": utterance.transcript.text(), "tokens": utterance.transcript.tokens(),
                    "start": seconds(utterance.start_sample), "end": seconds(utterance.end_sample),
                    "waiting_cpu": waited,
                }),
            };
            self.tell(event)?;
        }
    }

    /// Adds the audio time and the CPU time since the last line, of which `waiting_cpu` went by before there was anything to
    /// recognise.
    fn tell(&mut self, mut event: Value) -> io::Result<()> {
        let now = cpu_seconds();
        event["at"] = json!(self.taken as f64 / f64::from(SAMPLE_RATE));
        event["cpu"] = json!(now - self.cpu);
        writeln!(io::stdout(), "{event}")?;
        self.cpu = cpu_seconds();
        Ok(())
    }
}

fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process knows itself");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
