//! A stream of samples in, utterances out.

use crate::cutter::Cutter;
use crate::error::Error;
use crate::partial::{Due, PartialConfig, Schedule};
use crate::region::{ALIGNMENT, Region, addressable, bytes_of};
use crate::running_words::{Boundary, RunningBuffers, RunningWords, StableLimits};
use crate::segmenter::{Segment, Segmenter, SegmenterConfig};
use crate::sizes::{Limits, Sizes};
use crate::transcriber::{Stage, Transcriber, transcriber_memory};
use crate::transcript::Transcript;
use crate::{FRAME_SAMPLES, SAMPLE_RATE};

/// Words so near the end are not promised: their times are not exact, and an utterance that is too long is cut.
const CUT_MARGIN: usize = SAMPLE_RATE as usize / 4;
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;

/// An utterance of the stream, recognised.
#[derive(Debug, Clone, Copy)]
pub struct Utterance<'a> {
    /// First sample of the utterance, counted from the beginning of the stream.
    pub start_sample: u64,
    /// One past the last sample.
    pub end_sample: u64,
    /// The samples themselves, 16 kHz mono.
    pub samples: &'a [i16],
    /// What was said; its times count from `start_sample`.
    pub transcript: Transcript<'a>,
    /// Whether the words look made up. They are left out then, unless the recogniser [keeps](Recognizer::keeping_doubtful) them.
    pub doubtful: bool,
}

/// The words so far of the utterance that is being spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partial<'a> {
    /// First sample of the utterance, counted from the beginning of the stream.
    pub start_sample: u64,
    /// One past the last sample that was heard.
    pub end_sample: u64,
    /// All words.
    pub text: &'a str,
    stable_bytes: usize,
}

impl<'a> Partial<'a> {
    /// The words that are never taken back: everything that is said of this utterance later begins with them.
    pub fn stable(&self) -> &'a str {
        self.text.get(..self.stable_bytes).unwrap_or("")
    }

    /// The words behind them, which may still change.
    pub fn tentative(&self) -> &'a str {
        self.text.get(self.stable_bytes..).unwrap_or("").trim_start()
    }
}

/// What is known after some samples.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// What has been said so far.
    Partial(Partial<'a>),
    /// An utterance is complete.
    Final(Utterance<'a>),
}

/// Cuts a stream into utterances and recognises each: push samples, poll utterances, finish. With
/// [`with_partials`](Self::with_partials) also the words of an utterance that is not yet complete.
///
/// The chunks in which samples arrive make no difference.
pub struct Recognizer<'m, 'r> {
    transcriber: Transcriber<'m, 'r>,
    cutter: Cutter<&'r mut [i16]>,
    hypothesis: RunningWords<'r>,
    schedule: Option<Schedule>,
    keep_doubtful: bool,
    /// A hypothesis that waits to be polled.
    due: Option<Due>,
}

/// Bytes that a [`Recognizer`] needs.
///
/// # Errors
/// When a limit is out of range, or this version cannot run the model.
pub fn memory_required(model: &Model<'_>, limits: &Limits) -> Result<usize, Error> {
    let parts = [
        transcriber_memory(model, limits)? as u64,
        bytes_of::<i16>(audio_samples(limits)),
        RunningBuffers::bytes(&Sizes::of(model, limits)?),
    ];
    addressable(parts.into_iter().fold(ALIGNMENT as u64, u64::saturating_add))
}

fn audio_samples(limits: &Limits) -> u64 {
    Cutter::<&mut [i16]>::room(limits.utterance_seconds) as u64
}

impl<'m, 'r> Recognizer<'m, 'r> {
    /// A recogniser of a stream. Lays out `region`, which must have [`memory_required`] bytes. Utterances are never
    /// longer than `limits.utterance_seconds`, whatever `segmenter` says.
    ///
    /// # Errors
    /// When the region is too small, a limit is out of range, or this version cannot run the model.
    pub fn new(
        model: Model<'m>,
        kernels: Kernels,
        limits: Limits,
        segmenter: SegmenterConfig,
        region: &'r mut [u8],
    ) -> Result<Self, Error> {
        let max_utterance = segmenter.max_utterance.min(limits.utterance_seconds);
        let segmenter = SegmenterConfig { max_utterance, ..segmenter };
        Self::with(model, kernels, limits, region, |audio| Cutter::stream(segmenter, audio))
    }

    /// A recogniser of recordings: one that lasts at most `limits.utterance_seconds` is one utterance, or none where
    /// nobody speaks; a longer one is cut. Otherwise as [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn for_recordings(
        model: Model<'m>,
        kernels: Kernels,
        limits: Limits,
        region: &'r mut [u8],
    ) -> Result<Self, Error> {
        Self::with(model, kernels, limits, region, |audio| Cutter::recording(limits.utterance_seconds, audio))
    }

    fn with(
        model: Model<'m>,
        kernels: Kernels,
        limits: Limits,
        region: &'r mut [u8],
        cutter: impl FnOnce(&'r mut [i16]) -> Cutter<&'r mut [i16]>,
    ) -> Result<Self, Error> {
        let needed = memory_required(&model, &limits)?;
        if region.len() < needed {
            return Err(Error::RegionTooSmall { needed, given: region.len() });
        }
        let mut region = Region::new(region);
        let samples = region.take::<i16>(audio_samples(&limits))?;
        let sizes = Sizes::of(&model, &limits)?;
        let hypothesis = region.take_bytes(RunningBuffers::bytes(&sizes))?;
        let hypothesis = RunningWords::new(RunningBuffers::carve(hypothesis, &sizes)?);
        let rest = region.take_bytes(transcriber_memory(&model, &limits)? as u64)?;
        let transcriber = Transcriber::new(model, kernels, limits, rest)?;
        Ok(Self {
            transcriber,
            cutter: cutter(samples),
            hypothesis,
            schedule: None,
            keep_doubtful: false,
            due: None,
        })
    }

    /// Also recognises the utterance under way, from time to time; [`poll_event`](Self::poll_event) tells of it. Recordings that are
    /// taken whole have no utterance under way.
    pub fn with_partials(mut self, config: PartialConfig) -> Self {
        self.schedule = Some(Schedule::new(config));
        self
    }

    /// Also gives words that look made up: [`Transcript::is_doubtful`]. They are left out otherwise.
    pub fn keeping_doubtful(mut self) -> Self {
        self.keep_doubtful = true;
        self
    }

    /// Takes 16 kHz mono samples in `[-1, 1]` and returns how many: fewer than given when an utterance is
    /// complete or a partial result is due, which must be polled before the rest is pushed.
    pub fn push(&mut self, samples: &[f32]) -> usize {
        if self.schedule.is_none() {
            return self.cutter.push(samples);
        }
        let mut accepted = 0;
        while self.due.is_none() && accepted < samples.len() {
            // To the end of a frame and no further, so that chunks of any size give the same partial results.
            let frame = FRAME_SAMPLES - (self.cutter.position() % FRAME_SAMPLES as u64) as usize;
            let rest = samples.get(accepted..).unwrap_or(&[]);
            let piece = rest.get(..frame).unwrap_or(rest);
            let taken = self.cutter.push(piece);
            accepted += taken;
            if taken < piece.len() {
                break;
            }
            let now = self.cutter.position();
            if now == self.cutter.segmenter().position() && now.is_multiple_of(FRAME_SAMPLES as u64) {
                let running = self.cutter.segmenter().running();
                self.due =
                    running.zip(self.schedule.as_ref()).and_then(|(running, rules)| rules.due(running, now));
            }
        }
        accepted
    }

    /// Ends the stream: poll until nothing is returned, then another stream may begin.
    pub fn finish(&mut self) {
        self.due = None;
        self.cutter.finish();
    }

    /// Recognises the utterance that is complete, if one is. A partial result that is due is passed over.
    ///
    /// # Errors
    /// None that input can cause; see [`Error`].
    pub fn poll(&mut self) -> Result<Option<Utterance<'_>>, Error> {
        self.poll_observed(&mut |_| ())
    }

    /// [`poll`](Self::poll), telling `observer` when each stage begins.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_observed(&mut self, observer: &mut dyn FnMut(Stage)) -> Result<Option<Utterance<'_>>, Error> {
        self.due = None;
        let Some(segment) = self.cutter.poll() else {
            return Ok(None);
        };
        let samples = self.cutter.samples(segment);
        let Segment { start_sample, end_sample, voiced_samples } = segment;
        let promised = match &mut self.schedule {
            Some(schedule) if schedule.is_about(start_sample) => {
                schedule.end();
                self.hypothesis.stable_tokens(Boundary::default())
            }
            _ => &[],
        };
        let transcript = self.transcriber.transcribe_after(samples, promised, observer)?;
        // What was promised stays.
        let doubtful = promised.is_empty() && transcript.is_doubtful(voiced_samples);
        let transcript = if doubtful && !self.keep_doubtful { Transcript::empty() } else { transcript };
        Ok(Some(Utterance { start_sample, end_sample, samples, transcript, doubtful }))
    }

    /// Recognises what is due: an utterance that is complete, or the one under way.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        let Some(due) = self.due.take() else {
            return Ok(self.poll()?.map(Event::Final));
        };
        self.recognise_running(due)?;
        Ok(Some(Event::Partial(Partial {
            start_sample: due.utterance.start_sample,
            end_sample: due.end,
            text: self.hypothesis.text(),
            stable_bytes: self.hypothesis.stable_bytes(),
        })))
    }

    fn recognise_running(&mut self, due: Due) -> Result<(), Error> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        let start = due.utterance.start_sample;
        if !schedule.is_about(start) {
            self.hypothesis.clear();
        }
        let heard = Segment {
            start_sample: start + due.boundary.sample as u64,
            end_sample: due.end,
            voiced_samples: due.utterance.voiced_samples,
        };
        let samples = self.cutter.samples(heard);
        // Wherever the utterance ends, it holds at least this.
        let least = (due.utterance.voiced_end.min(due.utterance.least_end) - start) as usize;
        let vocabulary = self.transcriber.vocabulary();
        let may_keep = self.transcriber.keeps_words();
        let tokens = if may_keep { self.transcriber.max_tokens(least) } else { 0 };
        let known = self.hypothesis.stable_tokens(due.boundary);
        let transcript = self.transcriber.transcribe_after(samples, known, &mut |_| ())?;
        // Where no word is kept, these may be the first: none is shown, nor promised by and by, that would be left out in the end.
        let first = known.is_empty() && due.boundary.words == 0;
        let voiced_samples = heard.voiced_samples.min(heard.end_sample - heard.start_sample);
        let doubtful = first && !self.keep_doubtful && transcript.is_doubtful(voiced_samples);
        let transcript = if doubtful { Transcript::empty() } else { transcript };
        let limits = StableLimits { sample: least.saturating_sub(CUT_MARGIN), tokens };
        self.hypothesis.update(&vocabulary, due.boundary, &transcript, limits);
        schedule.done(due, |earliest, latest| self.hypothesis.boundary(earliest, latest));
        Ok(())
    }

    /// The stream's segmentation: whether somebody speaks, and since when not.
    pub fn segmenter(&self) -> &Segmenter {
        self.cutter.segmenter()
    }
}
