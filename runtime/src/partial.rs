//! When the running utterance is recognised, and how much of it.
//!
//! An encoder whose every frame depends on every other one must begin anew for each hypothesis, so hypotheses cost as much as
//! the audio that they hear, and hearing everything each time would cost the square of the utterance. Here the audio heard for
//! hypotheses is at all times at most [`PartialConfig::work`] times the utterance: at first each hears the whole utterance; later
//! ones hear its end, from a pause between words on that the one before has found, and keep the words before it.

use crate::SAMPLE_RATE;
use crate::running_words::{Boundary, RunningWords};
use crate::segmenter::Running;

/// Voice that the first hypothesis hears at least: less gives no words.
const FIRST_VOICE: u64 = seconds(0.4);
/// What a hypothesis hears again of the one before, at least, and at most.
const OVERLAP: (u64, u64) = (seconds(1.0), seconds(1.6));
/// What a hypothesis costs besides its audio, as audio: its first and last token.
const OVERHEAD: u64 = seconds(0.1);
/// Audio behind the last voice that is heard, at most.
const SILENCE: u64 = seconds(0.5);

const fn seconds(value: f32) -> u64 {
    (value * SAMPLE_RATE as f32) as u64
}

/// How often the running utterance is recognised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartialConfig {
    /// Seconds from one hypothesis to the next, at least.
    pub interval: f32,
    /// Audio heard for hypotheses, as a multiple of the utterance, at most.
    pub work: f32,
}

impl Default for PartialConfig {
    fn default() -> Self {
        Self { interval: 0.5, work: 1.4 }
    }
}

/// What a hypothesis is to hear, in samples of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) utterance: Running,
    pub(crate) boundary: Boundary,
    pub(crate) end: u64,
}

/// The schedule of one utterance after the other. It knows samples only, no clock: the same stream gives the same hypotheses.
pub(crate) struct Schedule {
    config: PartialConfig,
    /// First sample of the utterance that the rest is about.
    utterance: Option<u64>,
    /// Samples heard for its hypotheses.
    spent: u64,
    /// One past the last sample that the latest one heard.
    heard: u64,
    /// Where the next one may begin.
    boundary: Boundary,
}

impl Schedule {
    pub(crate) fn new(config: PartialConfig) -> Self {
        Self { config, utterance: None, spent: 0, heard: 0, boundary: Boundary::default() }
    }

    /// Whether a hypothesis is due at `now`, the end of a frame.
    pub(crate) fn due(&self, running: Running, now: u64) -> Option<Due> {
        let start = running.start_sample;
        let fresh = self.utterance != Some(start);
        let (spent, heard, boundary) =
            if fresh { (0, start, Boundary::default()) } else { (self.spent, self.heard, self.boundary) };
        let end = now.min(running.voiced_end + SILENCE);
        let interval = (self.config.interval * SAMPLE_RATE as f32) as u64;
        let voiced = running.voiced_end.saturating_sub(running.voiced_start);
        if !running.kept || voiced < FIRST_VOICE || running.voiced_end <= heard || end < heard + interval {
            return None;
        }
        let allowed = (self.config.work * (end - start) as f32) as u64;
        let cost = end.saturating_sub(start + boundary.sample as u64) + OVERHEAD;
        (spent + cost <= allowed).then_some(Due { utterance: running, boundary, end })
    }

    /// The hypothesis `due` is there.
    pub(crate) fn done(&mut self, due: Due, hypothesis: &RunningWords<'_>) {
        let start = due.utterance.start_sample;
        if self.utterance != Some(start) {
            *self = Self { utterance: Some(start), ..Self::new(self.config) };
        }
        self.spent += due.end.saturating_sub(start + due.boundary.sample as u64) + OVERHEAD;
        self.heard = due.end;
        let length = due.end - start;
        let place = |overlap: u64| length.saturating_sub(overlap) as usize;
        self.boundary = hypothesis.boundary(place(OVERLAP.1), place(OVERLAP.0));
    }

    /// Whether the hypothesis is about the utterance that begins at `start`.
    pub(crate) fn is_about(&self, start: u64) -> bool {
        self.utterance == Some(start)
    }

    /// The utterance has ended.
    pub(crate) fn end(&mut self) {
        self.utterance = None;
    }
}
