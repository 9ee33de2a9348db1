//! When the running utterance is recognised, and how much of it.
//!
//! An encoder whose every frame depends on every other one must begin anew for each hypothesis: frames that were encoded with
//! another future, or in pieces, are of no use to a decoder that was not trained on such (word error 14 to 59 % instead of 4 %,
//! docs/live.md). So a hypothesis costs as much as the audio that it hears, and hearing everything each time would cost the square
//! of the utterance. Here all hypotheses together are at all times worth at most [`PartialConfig::work`] times the utterance. One
//! hears the utterance from its beginning where that is within the bound, as for the first ones it is; else its end, from a pause
//! between words on that the one before has found, and keeps the words before it.

use crate::SAMPLE_RATE;
use crate::running_words::Boundary;
use crate::segmenter::Running;

/// Voice that the first hypothesis hears at least: less gives no words.
const FIRST_VOICE: u64 = seconds(0.4);
/// What a hypothesis hears again of the one before, at least, and at most.
const OVERLAP: (u64, u64) = (seconds(1.0), seconds(1.6));
/// What a hypothesis costs besides its audio, as audio: its first and last token.
const OVERHEAD: u64 = seconds(0.1);
/// Audio that costs twice its length, since each frame attends to all: counted on a Cortex-A53, where attention is the smallest
/// share (benchmarks/count_live.py). Where blocks merge frames it is less, so this is too much rather than too little.
const TWICE: u64 = seconds(60.0);
/// Silence before the first voice that is heard, at most.
const LEAD: u64 = seconds(0.25);
/// Audio behind the last voice that is heard, at most.
const SILENCE: u64 = seconds(0.5);

const fn seconds(value: f32) -> u64 {
    (value * SAMPLE_RATE as f32) as u64
}

/// What recognising so many samples costs, in samples of a short utterance.
const fn cost(samples: u64) -> u64 {
    samples + samples * samples / TWICE + OVERHEAD
}

/// How often the running utterance is recognised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartialConfig {
    /// Seconds from one hypothesis to the next, at least.
    pub interval: f32,
    /// Work on hypotheses at most, as a multiple of the work on the utterance itself.
    pub work: f32,
}

impl Default for PartialConfig {
    fn default() -> Self {
        Self { interval: 0.5, work: 1.45 }
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
    /// What its hypotheses cost.
    spent: u64,
    /// One past the last sample that the latest one heard.
    heard: u64,
    /// Where the next one may begin, if hearing the whole utterance costs too much.
    boundary: Boundary,
}

impl Schedule {
    pub(crate) fn new(config: PartialConfig) -> Self {
        Self { config, utterance: None, spent: 0, heard: 0, boundary: Boundary::default() }
    }

    /// Whether a hypothesis is due at `now`, the end of a frame.
    pub(crate) fn due(&self, running: Running, now: u64) -> Option<Due> {
        let start = running.start_sample;
        let lead = (running.voiced_start - start).saturating_sub(LEAD) as usize;
        let beginning = Boundary { words: 0, sample: lead };
        let (spent, heard, boundary) = match self.utterance {
            Some(utterance) if utterance == start => (self.spent, self.heard, self.boundary),
            _ => (0, start, beginning),
        };
        let end = now.min(running.voiced_end + SILENCE);
        let interval = (self.config.interval * SAMPLE_RATE as f32) as u64;
        let voiced = running.voiced_end.saturating_sub(running.voiced_start);
        if !running.kept || voiced < FIRST_VOICE || running.voiced_end <= heard || end < heard + interval {
            return None;
        }
        let allowed = (self.config.work * cost(end - start) as f32) as u64;
        let within_bound =
            |begin: &Boundary| spent + cost(end.saturating_sub(start + begin.sample as u64)) <= allowed;
        let boundary = [beginning, boundary].into_iter().find(within_bound)?;
        Some(Due { utterance: running, boundary, end })
    }

    /// The hypothesis `due` is there; `boundary` says where, from a first to a last sample of the utterance, the next may begin.
    pub(crate) fn done(&mut self, due: Due, boundary: impl FnOnce(usize, usize) -> Boundary) {
        let start = due.utterance.start_sample;
        if self.utterance != Some(start) {
            *self = Self { utterance: Some(start), ..Self::new(self.config) };
        }
        self.spent += cost(due.end.saturating_sub(start + due.boundary.sample as u64));
        self.heard = due.end;
        let length = due.end - start;
        let place = |overlap: u64| length.saturating_sub(overlap) as usize;
        self.boundary = boundary(place(OVERLAP.1), place(OVERLAP.0));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FRAME_SAMPLES;
    use std::vec::Vec;

    /// The hypotheses of an utterance of so many samples of which all is voice, were there no words in any: `(begin, end)` each.
    fn hypotheses(config: PartialConfig, length: u64) -> (Vec<(u64, u64)>, Schedule) {
        let mut schedule = Schedule::new(config);
        let mut heard = Vec::new();
        for now in (0..=length).step_by(FRAME_SAMPLES) {
            let utterance = Running {
                start_sample: 0,
                voiced_start: 0,
                voiced_end: now,
                voiced_samples: now,
                kept: true,
                least_end: 0,
            };
            if let Some(due) = schedule.due(utterance, now) {
                heard.push((due.boundary.sample as u64, due.end));
                schedule.done(due, |earliest, latest| Boundary {
                    words: 1,
                    sample: usize::midpoint(earliest, latest),
                });
            }
        }
        (heard, schedule)
    }

    #[test]
    fn the_work_is_bounded_at_every_moment() {
        for work in [0.5, 1.0, 1.45, 3.0] {
            let (heard, _) = hypotheses(PartialConfig { interval: 0.1, work }, seconds(60.0));
            let mut spent = 0;
            for &(begin, end) in &heard {
                spent += cost(end - begin);
                assert!(spent as f32 <= work * cost(end) as f32, "{work}: {heard:?}");
            }
            let longest = heard.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or(u64::MAX);
            assert!(work < 1.45 || longest <= seconds(4.0), "{work}: {longest} samples without a hypothesis");
        }
    }

    #[test]
    fn the_whole_utterance_is_heard_where_that_is_within_the_bound() {
        let latest_begin = |work| {
            let (heard, _) = hypotheses(PartialConfig { interval: 0.5, work }, seconds(20.0));
            heard.iter().map(|&(begin, _)| begin).max()
        };
        assert_eq!(latest_begin(100.0), Some(0));
        assert!(latest_begin(1.45) > Some(seconds(15.0)));
    }

    #[test]
    fn nothing_is_heard_before_there_is_voice_nor_too_often() {
        let (heard, schedule) = hypotheses(PartialConfig { interval: 2.0, work: 100.0 }, seconds(9.0));
        assert!(heard[0].1 >= FIRST_VOICE);
        assert!(heard.windows(2).all(|pair| pair[1].1 - pair[0].1 >= seconds(2.0)), "{heard:?}");
        assert!(schedule.is_about(0) && !schedule.is_about(1));
        let dropped = Running {
            start_sample: 0,
            voiced_start: 0,
            voiced_end: seconds(20.0),
            voiced_samples: seconds(20.0),
            kept: false,
            least_end: 0,
        };
        assert_eq!(schedule.due(dropped, seconds(20.0)), None);
        let silent = Running { voiced_end: heard.last().expect("several").1, kept: true, ..dropped };
        assert_eq!(schedule.due(silent, seconds(20.0)), None, "nothing new was said");
    }
}
