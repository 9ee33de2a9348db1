//! Cuts a stream of samples into utterances for recognition.
//!
//! ```text
//! samples -> frames of 16 ms -> VoiceActivity -> open at the first voiced frame, padding included
//!                                             -> close after a pause, the shorter the longer the utterance
//!                                             -> at the longest length allowed, cut at the quietest moment
//! ```
//!
//! The segmenter keeps no audio: the caller does, from [`Segmenter::keep_from`] on, and [`Segmenter::push`] stops taking samples at
//! a segment's end, so that the segment can be recognised before more audio arrives. Every decision is taken
//! at a frame boundary, so that the chunks in which samples arrive make no difference.

mod config;

pub use config::SegmenterConfig;

use self::config::{FRAMES_PER_SECOND, Rules};
use crate::voice_activity::{FRAME_SAMPLES, FrameActivity, LEVEL_MARGIN, VoiceActivity};

/// Frames remembered for the cut at the quietest moment: 8 s, a power of two.
const HISTORY_FRAMES: usize = 512;
/// The level at a cut is summed over this many frames on each side, so that a cut falls into a pause and not into one stop consonant.
const QUIET_REACH: u64 = 2;

/// An utterance, `[start_sample, end_sample)` of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First sample.
    pub start_sample: u64,
    /// One past the last sample.
    pub end_sample: u64,
    /// How many of them lie in voiced frames. A recording that is taken whole counts the first two seconds of them.
    pub voiced_samples: u64,
}

/// What one call to [`Segmenter::push`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Pushed {
    /// Samples taken; the rest is pushed again, after the segment has been dealt with.
    pub accepted: usize,
    /// The segment that ended, if one did. Where there is none, all samples were taken.
    pub segment: Option<Segment>,
}

/// The utterance under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// First sample, padding included.
    pub start_sample: u64,
    /// First sample of the first voiced frame.
    pub voiced_start: u64,
    /// One past the last sample of the last voiced frame.
    pub voiced_end: u64,
    /// How many samples lie in voiced frames.
    pub voiced_samples: u64,
    /// Whether it holds enough speech to be kept.
    pub kept: bool,
    /// Wherever it ends, it holds the samples before this one that came until now: an utterance that reaches the limit is
    /// cut behind it.
    pub least_end: u64,
}

/// Samples in, utterances out. About 18 KB of state, nothing allocated.
pub struct Segmenter {
    rules: Rules,
    activity: VoiceActivity,
    /// The frame being filled: `[0, filled)` is there.
    partial: [f32; FRAME_SAMPLES],
    filled: usize,
    /// Complete frames seen; the samples before them make `frames * FRAME_SAMPLES`.
    frames: u64,
    /// No later segment begins before this frame.
    earliest_start: u64,
    open: Option<OpenSegment>,
    history: History,
    /// Set once [`Self::finish`] has begun: the number of samples in the recording.
    recording_end: Option<u64>,
}

/// A segment that has begun. Frame numbers count from the start of the recording.
#[derive(Clone, Copy)]
struct OpenSegment {
    start: u64,
    /// The first voiced frame.
    voiced_start: u64,
    /// One past the last voiced frame.
    voiced_end: u64,
    /// How many are voiced.
    voiced: u64,
    run: u64,
    longest_run: u64,
    /// The longest run so far when the level last fell. Speech falls after every syllable. Noise that begins also stands out
    /// from what was before, and the network may take it for a voice, but it stays.
    confirmed_run: u64,
    /// Loudest smoothed level since the level last fell.
    peak: f32,
}

impl OpenSegment {
    const fn new(start: u64, voiced_start: u64) -> Self {
        Self {
            start,
            voiced_start,
            voiced_end: start,
            voiced: 0,
            run: 0,
            longest_run: 0,
            confirmed_run: 0,
            peak: 0.0,
        }
    }

    fn push(&mut self, frame: u64, activity: FrameActivity) {
        self.run = if activity.voiced { self.run + 1 } else { 0 };
        self.longest_run = self.longest_run.max(self.run);
        if activity.voiced {
            self.voiced_end = frame + 1;
            self.voiced += 1;
        }
        self.peak = self.peak.max(activity.smoothed_level);
        if activity.smoothed_level * LEVEL_MARGIN < self.peak {
            self.peak = activity.smoothed_level;
            self.confirmed_run = self.longest_run;
        }
    }
}

impl Segmenter {
    /// A segmenter at sample 0 of a recording.
    ///
    /// Values that make no sense are moved to the nearest that does: a limit below 1 s, a padding longer than
    /// half the limit, a search for a cut beyond half the limit.
    pub fn new(config: SegmenterConfig) -> Self {
        Self {
            rules: Rules::new(&config),
            activity: VoiceActivity::new(),
            partial: [0.0; FRAME_SAMPLES],
            filled: 0,
            frames: 0,
            earliest_start: 0,
            open: None,
            history: History::new(),
            recording_end: None,
        }
    }

    /// Takes 16 kHz mono samples up to the end of a segment, or all of them.
    pub fn push(&mut self, samples: &[f32]) -> Pushed {
        if self.recording_end.is_some() {
            self.reset();
        }
        let mut rest = samples;
        while !rest.is_empty() {
            let (taken, later) = rest.split_at(rest.len().min(FRAME_SAMPLES - self.filled));
            self.partial[self.filled..self.filled + taken.len()].copy_from_slice(taken);
            self.filled += taken.len();
            rest = later;
            if self.filled == FRAME_SAMPLES {
                let segment = self.frame_complete();
                self.filled = 0;
                if segment.is_some() {
                    return Pushed { accepted: samples.len() - rest.len(), segment };
                }
            }
        }
        Pushed { accepted: samples.len(), segment: None }
    }

    /// Ends the recording. Call it until it returns `None`; the next push then begins another recording, at sample 0.
    pub fn finish(&mut self) -> Option<Segment> {
        let end_sample = self.recording_end.unwrap_or(self.position());
        self.recording_end = Some(end_sample);
        let mut segment = None;
        if self.filled > 0 {
            // The zeros that fill up the last frame are no part of the recording, see the clipping below.
            self.partial[self.filled..].fill(0.0);
            self.filled = 0;
            segment = self.frame_complete();
        }
        if segment.is_none()
            && let Some(open) = self.open.take()
        {
            let tail = self.rules.padding_after.min(self.frames - open.voiced_end);
            segment = self.close(open, tail);
        }
        if segment.is_none() {
            self.reset();
        }
        segment.map(|segment| Segment { end_sample: segment.end_sample.min(end_sample), ..segment })
    }

    /// Forgets everything: the next sample is sample 0 of another recording.
    pub fn reset(&mut self) {
        self.activity.reset();
        self.filled = 0;
        self.frames = 0;
        self.earliest_start = 0;
        self.open = None;
        self.recording_end = None;
    }

    /// Samples taken so far.
    pub fn position(&self) -> u64 {
        self.frames * FRAME_SAMPLES as u64 + self.filled as u64
    }

    /// The first sample that a later segment may contain: the caller may drop what lies before, once it is done with the segments
    /// that it was given. It never moves back. A caller that, after each push, drops what lies before this sample and before the
    /// segment returned, and then adds what was accepted, holds at most [`Self::buffer_samples`].
    pub fn keep_from(&self) -> u64 {
        let frame = match &self.open {
            Some(open) => open.start,
            None => self.start_for(self.frames),
        };
        frame * FRAME_SAMPLES as u64
    }

    /// The most samples that a caller has to keep: the longest segment and one frame.
    pub fn buffer_samples(&self) -> usize {
        (self.rules.max_utterance as usize + 1) * FRAME_SAMPLES
    }

    /// Whether an utterance with enough speech to be kept is under way.
    pub fn in_speech(&self) -> bool {
        self.running().is_some_and(|running| running.kept)
    }

    /// Seconds since the last voiced frame of the utterance under way; `None` outside one.
    pub fn trailing_silence(&self) -> Option<f32> {
        self.open.map(|open| (self.frames - open.voiced_end) as f32 / FRAMES_PER_SECOND)
    }

    /// The utterance under way, after the last complete frame.
    pub fn running(&self) -> Option<Running> {
        let sample = |frame: u64| frame * FRAME_SAMPLES as u64;
        self.open.map(|open| Running {
            start_sample: sample(open.start),
            voiced_start: sample(open.voiced_start),
            voiced_end: sample(open.voiced_end),
            voiced_samples: sample(open.voiced),
            kept: open.confirmed_run >= self.rules.minimum_speech,
            least_end: sample(open.start + self.rules.max_utterance - self.rules.cut_search),
        })
    }

    fn frame_complete(&mut self) -> Option<Segment> {
        let activity = self.activity.push(&self.partial);
        let frame = self.frames;
        self.frames += 1;
        self.history.push(frame, activity);
        let mut open = match self.open.take() {
            Some(open) => open,
            None if activity.voiced => OpenSegment::new(self.start_for(frame), frame),
            None => return None,
        };
        open.push(frame, activity);
        let length = self.frames - open.start;
        let silence = self.frames - open.voiced_end;
        if silence >= self.rules.silence_that_ends(length) {
            // The pause is shared with the segment that may follow at once, and each gets at least half of it.
            let shared = (silence / 2).max(silence.saturating_sub(self.rules.padding_before));
            return self.close(open, self.rules.padding_after.min(shared));
        }
        if length > self.rules.max_utterance {
            return self.cut(open);
        }
        self.open = Some(open);
        None
    }

    /// Where a segment begins whose first voiced frame is `frame`.
    fn start_for(&self, frame: u64) -> u64 {
        frame.saturating_sub(self.rules.padding_before).max(self.earliest_start)
    }

    /// Ends a segment `tail` frames after its last voiced one; `None` where it holds too little speech.
    fn close(&mut self, open: OpenSegment, tail: u64) -> Option<Segment> {
        let end = (open.voiced_end + tail).min(open.start + self.rules.max_utterance);
        self.emit(open, end)
    }

    /// Cuts a segment that has become too long at its quietest late moment; what follows opens the next one.
    fn cut(&mut self, open: OpenSegment) -> Option<Segment> {
        let end = self.history.quietest(self.frames - self.rules.cut_search, self.frames - QUIET_REACH);
        let segment = self.emit(open, end);
        self.earliest_start = end;
        let mut next: Option<OpenSegment> = None;
        for frame in end..self.frames {
            let activity = self.history.get(frame);
            if activity.voiced || next.is_some() {
                next.get_or_insert(OpenSegment::new(self.start_for(frame), frame)).push(frame, activity);
            }
        }
        self.open = next;
        segment
    }

    fn emit(&mut self, open: OpenSegment, end: u64) -> Option<Segment> {
        if open.confirmed_run < self.rules.minimum_speech {
            return None;
        }
        self.earliest_start = end;
        Some(Segment {
            start_sample: open.start * FRAME_SAMPLES as u64,
            end_sample: end * FRAME_SAMPLES as u64,
            voiced_samples: open.voiced * FRAME_SAMPLES as u64,
        })
    }
}

/// The latest frames.
struct History {
    frames: [FrameActivity; HISTORY_FRAMES],
}

impl History {
    const fn new() -> Self {
        Self {
            frames: [FrameActivity { score: 0.0, level: 0.0, smoothed_level: 0.0, voiced: false };
                HISTORY_FRAMES],
        }
    }

    fn push(&mut self, frame: u64, activity: FrameActivity) {
        self.frames[(frame % HISTORY_FRAMES as u64) as usize] = activity;
    }

    fn get(&self, frame: u64) -> FrameActivity {
        self.frames[(frame % HISTORY_FRAMES as u64) as usize]
    }

    /// The boundary in `first..=last` with the least power on both sides; the latest of equals.
    fn quietest(&self, first: u64, last: u64) -> u64 {
        let mut best = (last, f32::INFINITY);
        for boundary in (first..=last).rev() {
            let around = boundary.saturating_sub(QUIET_REACH)..boundary + QUIET_REACH;
            let level = around.map(|frame| self.get(frame).level).sum();
            if level < best.1 {
                best = (boundary, level);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests;
