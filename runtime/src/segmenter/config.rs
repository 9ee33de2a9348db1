//! The rules by which segments begin and end: in seconds for people, in frames for the segmenter.

use super::{HISTORY_FRAMES, QUIET_REACH};
use crate::voice_activity::FRAME_SAMPLES;

pub(super) const FRAMES_PER_SECOND: f32 = crate::SAMPLE_RATE as f32 / FRAME_SAMPLES as f32;

/// When a segment begins and ends; all in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmenterConfig {
    /// Audio kept before the first voiced frame: weak first consonants score low.
    pub padding_before: f32,
    /// Audio kept after the last voiced frame.
    pub padding_after: f32,
    /// A pause this long ends an utterance.
    pub endpoint_silence: f32,
    /// From this length on `long_silence` is enough.
    pub long_utterance: f32,
    /// The pause that ends a long utterance.
    pub long_silence: f32,
    /// From this length on `very_long_silence` is enough.
    pub very_long_utterance: f32,
    /// The pause that ends a very long utterance.
    pub very_long_silence: f32,
    /// No segment is longer than this.
    pub max_utterance: f32,
    /// An utterance that reaches the limit is cut at the quietest moment of its last seconds: this many, at most 8.
    pub cut_search: f32,
    /// A segment without an uninterrupted voiced stretch of this length, after which the level falls, is dropped: it is a click or
    /// a noise that began, not a word.
    pub minimum_speech: f32,
}

impl SegmenterConfig {
    /// The usual rules for a recogniser that takes at most `max_utterance` seconds at once.
    pub const fn for_utterances(max_utterance: f32) -> Self {
        Self {
            padding_before: 0.5,
            padding_after: 0.5,
            endpoint_silence: 1.0,
            long_utterance: max_utterance * (2.0 / 3.0),
            long_silence: 0.5,
            very_long_utterance: max_utterance * (5.0 / 6.0),
            very_long_silence: 0.25,
            max_utterance,
            cut_search: 5.0,
            minimum_speech: 0.15,
        }
    }
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self::for_utterances(30.0)
    }
}

/// [`SegmenterConfig`] in frames, checked.
pub(super) struct Rules {
    pub(super) padding_before: u64,
    pub(super) padding_after: u64,
    /// `(length from which it holds, pause that ends the utterance)`, the longest length first.
    pauses: [(u64, u64); 3],
    pub(super) max_utterance: u64,
    pub(super) cut_search: u64,
    pub(super) minimum_speech: u64,
}

impl Rules {
    pub(super) fn new(config: &SegmenterConfig) -> Self {
        // A conversion from float to integer saturates and takes NaN for 0.
        let frames = |seconds: f32| (seconds * FRAMES_PER_SECOND + 0.5) as u32 as u64;
        let max_utterance = ((config.max_utterance * FRAMES_PER_SECOND) as u32 as u64).max(63);
        let half = max_utterance / 2;
        Self {
            padding_before: frames(config.padding_before).min(half),
            padding_after: frames(config.padding_after).min(half),
            pauses: [
                (frames(config.very_long_utterance), frames(config.very_long_silence).max(1)),
                (frames(config.long_utterance), frames(config.long_silence).max(1)),
                (0, frames(config.endpoint_silence).max(1)),
            ],
            max_utterance,
            cut_search: frames(config.cut_search)
                .clamp(2 * QUIET_REACH, half.min(HISTORY_FRAMES as u64 - QUIET_REACH)),
            minimum_speech: frames(config.minimum_speech).max(1),
        }
    }

    pub(super) fn silence_that_ends(&self, length: u64) -> u64 {
        let [very_long, long, usual] = self.pauses;
        let rule = [very_long, long].into_iter().find(|&(from, _)| length >= from).unwrap_or(usual);
        rule.1
    }
}
