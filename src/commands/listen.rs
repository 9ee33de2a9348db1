//! `kinglet listen`: a microphone becomes text while somebody speaks.

mod events;
mod line;
mod record;
mod screen;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kinglet::microphone::{CaptureFormat, DeviceError, Microphone, Received, Selection};
use kinglet::output::Segment;
use kinglet::transcription::segment;
use kinglet_kernels::Kernels;
use kinglet_runtime::{
    Event as Heard, Limits, PartialConfig, Recognizer, SAMPLE_RATE, SegmenterConfig, memory_required,
};

use self::events::{DeviceState, Event, Level, Pace};
use self::record::Record;
use self::screen::Screen;
use super::devices::Devices;
use super::model::ModelOptions;
use crate::failure::Failure;
use crate::interrupt;

/// How long to wait where the ring is empty.
const IDLE: Duration = Duration::from_millis(10);
/// How long to wait before a device that has gone away is looked for again.
const RETRY: Duration = Duration::from_secs(1);
/// With more samples than this waiting, what is complete is recognised first and partial results are left out.
const TOO_LATE: usize = SAMPLE_RATE as usize;
/// With more than this much of the ring waiting, the recogniser does not keep up.
const TOO_FULL: f32 = 0.5;

/// Turn a microphone into text while somebody speaks; Ctrl-C ends
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet listen\n  kinglet listen --device plughw:CARD=1,DEV=0 --output notes.srt\n  \
kinglet listen --format json | jq -r 'select(.event == \"final\") | .text'"
)]
pub struct Listen {
    /// The device to record from, as `kinglet devices` names it; the system's default where none is given
    #[arg(short, long, value_name = "NAME")]
    device: Option<String>,
    /// List the devices, as `kinglet devices` does
    #[arg(long)]
    list_devices: bool,
    /// Ask the device for RATE[:CHANNELS[:FORMAT]] instead of choosing, as in 48000:2:s16
    #[arg(long, value_name = "FORMAT")]
    capture: Option<CaptureFormat>,
    /// What to print; JSON is one object a line for each event
    #[arg(short, long, value_enum, default_value_t = FormatName::Text)]
    format: FormatName,
    /// Also write what was said to this file: subtitles where it is called .srt or .vtt, else text
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save the audio of each utterance into this folder, as WAV
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// A pause of this many seconds ends an utterance
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds::<100, 10_000>)]
    endpoint_silence: f32,
    /// No utterance is longer than this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds::<2_000, 30_000>)]
    max_utterance: f32,
    /// Recognise the running utterance at most every so many seconds; 0 waits for its end
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds::<0, 30_000>)]
    partial_interval: f32,
    /// Hypotheses that the search follows; 1 is fastest
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    beam: u8,
    /// Also write what the recogniser takes for noise and not for speech, which is left out otherwise; JSON marks it as `doubtful`
    #[arg(long)]
    keep_doubtful: bool,
    #[command(flatten)]
    model: ModelOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Text,
    Json,
}

/// Seconds between two numbers of milliseconds.
fn seconds<const LEAST: u32, const MOST: u32>(text: &str) -> Result<f32, String> {
    let range = LEAST as f32 / 1000.0..=MOST as f32 / 1000.0;
    text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| {
        format!("`{text}` is not a number of seconds from {} to {}", range.start(), range.end())
    })
}

impl Listen {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        if self.list_devices {
            return Devices {}.run();
        }
        let file = self.model.open()?;
        let model = self.model.parse(&file)?;
        let limits =
            Limits { utterance_seconds: self.max_utterance, beam: self.beam.into(), ..Limits::default() };
        let rules = SegmenterConfig {
            endpoint_silence: self.endpoint_silence,
            ..SegmenterConfig::for_utterances(self.max_utterance)
        };
        let mut region = vec![0; memory_required(&model, &limits)?];
        let mut recognizer = Recognizer::new(model, Kernels::detect(), limits, rules, &mut region)?;
        if self.keep_doubtful {
            recognizer = recognizer.keeping_doubtful();
        }
        let screen = Screen::new(self.format == FormatName::Json);
        if self.partial_interval > 0.0 && screen.shows_partials() {
            let interval = self.partial_interval;
            recognizer = recognizer.with_partials(PartialConfig { interval, ..PartialConfig::default() });
        }
        let selection = Selection { device: self.device, format: self.capture.unwrap_or_default() };
        let mut session = Session {
            recognizer,
            screen,
            record: Record::create(self.output, self.save)?,
            level: Level::default(),
            origin: 0.0,
            behind: false,
            pace: Pace::default(),
            promised: false,
            samples: Vec::new(),
            begun: Instant::now(),
        };
        interrupt::end_orderly();
        let microphone = Microphone::open(&selection).map_err(Failure::device)?;
        session.opened(&microphone)?;
        session.follow(microphone, &selection)
    }
}

/// Everything between the microphone and what is written.
struct Session<'m, 'r> {
    recognizer: Recognizer<'m, 'r>,
    screen: Screen,
    record: Record,
    level: Level,
    /// Seconds from the beginning to the first sample of the recogniser's stream.
    origin: f64,
    /// Whether it was said that recognition does not keep up.
    behind: bool,
    pace: Pace,
    /// Whether words of the running utterance were shown.
    promised: bool,
    samples: Vec<f32>,
    begun: Instant,
}

impl Session<'_, '_> {
    /// Listens until the command is asked to end, taking up again a device that has gone away.
    fn follow(&mut self, microphone: Microphone, selection: &Selection) -> Result<(), Failure> {
        let mut microphone = Some(microphone);
        while !interrupt::requested() {
            let Some(open) = &mut microphone else {
                microphone = self.reopen(selection)?;
                continue;
            };
            match open.read(&mut self.samples) {
                Ok(received) => {
                    self.watch(received, open.rate())?;
                    if received.frames == 0 {
                        thread::sleep(IDLE);
                    }
                    self.recognise()?;
                }
                Err(cause) => {
                    self.lost(open.name(), &cause)?;
                    microphone = None;
                }
            }
        }
        if let Some(open) = &mut microphone {
            // What has already been recorded is still heard.
            let received = open.read(&mut self.samples);
            log::debug!("at the end: {received:?}");
        }
        self.recognise()?;
        self.finish()
    }

    fn opened(&mut self, microphone: &Microphone) -> Result<(), Failure> {
        self.origin = self.begun.elapsed().as_secs_f64();
        let name = microphone.name().to_string();
        self.tell(&Event::Device { state: DeviceState::Opened, name, cause: None })
    }

    /// A device has gone away: what was said before is an utterance.
    fn lost(&mut self, name: &str, cause: &DeviceError) -> Result<(), Failure> {
        self.recognise()?;
        self.finish()?;
        let (name, cause) = (name.to_string(), Some(cause.to_string()));
        self.tell(&Event::Device { state: DeviceState::Lost, name, cause })
    }

    fn reopen(&mut self, selection: &Selection) -> Result<Option<Microphone>, Failure> {
        let next = Instant::now() + RETRY;
        while Instant::now() < next && !interrupt::requested() {
            thread::sleep(IDLE);
        }
        match Microphone::open(selection) {
            Ok(microphone) => {
                self.opened(&microphone)?;
                Ok(Some(microphone))
            }
            Err(cause) => {
                log::debug!("still waiting: {cause}");
                Ok(None)
            }
        }
    }

    /// Says what was lost, and where recognition falls behind.
    fn watch(&mut self, received: Received, rate: u32) -> Result<(), Failure> {
        if received.lost_frames > 0 || received.overruns > 0 {
            let lost_seconds = received.lost_frames as f64 / f64::from(rate);
            self.tell(&Event::Overrun { lost_seconds, device_overruns: received.overruns })?;
        }
        let Some(speed) = self.pace.speed() else { return Ok(()) };
        if received.fill > TOO_FULL && !self.behind {
            let waiting_seconds = received.frames as f64 / f64::from(rate);
            self.tell(&Event::Behind { speed, waiting_seconds })?;
        }
        self.behind = received.fill > TOO_FULL || self.behind && received.fill > TOO_FULL / 4.0;
        Ok(())
    }

    /// Recognises what was read.
    fn recognise(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let samples = std::mem::take(&mut self.samples);
        if let Some(event) = self.level.push(&samples) {
            self.tell(&event)?;
        }
        let mut rest = samples.as_slice();
        while !rest.is_empty() {
            let accepted = self.recognizer.push(rest);
            rest = rest.get(accepted..).unwrap_or_default();
            while self.poll(rest.len() <= TOO_LATE)? {}
        }
        self.pace.add(to_seconds(samples.len() as u64), begun.elapsed().as_secs_f64());
        self.samples = samples;
        self.samples.clear();
        Ok(())
    }

    /// Ends the running utterance.
    fn finish(&mut self) -> Result<(), Failure> {
        self.recognizer.finish();
        while self.poll(false)? {}
        Ok(())
    }

    /// Recognises an utterance, if one is complete, or the running one, if that is due and wanted.
    fn poll(&mut self, partials: bool) -> Result<bool, Failure> {
        let heard =
            if partials { self.recognizer.poll_event()? } else { self.recognizer.poll()?.map(Heard::Final) };
        let event = match heard {
            None => return Ok(false),
            Some(Heard::Partial(partial)) if partial.text.is_empty() && !self.promised => return Ok(true),
            Some(Heard::Partial(partial)) => {
                self.promised = true;
                Event::Partial {
                    start: self.origin + to_seconds(partial.start_sample),
                    end: self.origin + to_seconds(partial.end_sample),
                    stable: partial.stable().into(),
                    tentative: partial.tentative().into(),
                }
            }
            Some(Heard::Final(utterance)) => {
                let promised = std::mem::take(&mut self.promised);
                let (start, samples) = (utterance.start_sample, utterance.samples);
                match segment(start, samples.len(), &utterance.transcript, utterance.doubtful) {
                    Some(said) => {
                        let said = moved(said, self.origin);
                        self.record.write(&said, samples)?;
                        Event::Final(said)
                    }
                    None if promised => Event::Partial {
                        start: self.origin + to_seconds(start),
                        end: self.origin + to_seconds(utterance.end_sample),
                        stable: String::new(),
                        tentative: String::new(),
                    },
                    None => return Ok(true),
                }
            }
        };
        self.tell(&event)?;
        Ok(true)
    }

    fn tell(&mut self, event: &Event) -> Result<(), Failure> {
        Ok(self.screen.show(event)?)
    }
}

/// What was said, in times that begin `offset` seconds earlier.
fn moved(mut said: Segment, offset: f64) -> Segment {
    said.start += offset;
    said.end += offset;
    for word in &mut said.words {
        word.start += offset;
        word.end += offset;
    }
    said
}

/// Seconds in so many samples at 16 kHz.
fn to_seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}
