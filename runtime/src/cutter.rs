//! Audio in, the audio of whole utterances out: what lies between a source of samples and recognition.
//!
//! ```text
//! samples -> buffer of the last seconds -> Segmenter, frame by frame -> Segment -> its samples in the buffer
//! ```
//!
//! One home for a rule that both the file reader and a board without an operating system follow: a recording that fits
//! into one utterance is not cut. Where there is speech in it, it is one utterance from its first sample to its last,
//! because cutting the quiet ends changes what is recognised in one clip of ten.

use crate::doubt::SLOWEST_WORD;
use crate::segmenter::{Segment, Segmenter, SegmenterConfig};
use crate::{FRAME_SAMPLES, SAMPLE_RATE};

/// Audio is moved to the front of its buffer only when this many samples can be dropped at once.
const SLACK_SAMPLES: usize = SAMPLE_RATE as usize;

/// A short recording is listened to until so much of it is voiced: that somebody speaks is certain earlier, and a single word is
/// too few for so much ([`Transcript::is_doubtful`](crate::Transcript::is_doubtful)).
const ENOUGH_VOICED: u64 = SLOWEST_WORD + SAMPLE_RATE as u64 / 10;

/// Cuts samples into utterances and keeps their audio. `B` is the buffer, [`Cutter::room`] samples long.
pub struct Cutter<B> {
    segmenter: Segmenter,
    samples: B,
    /// Place of `samples[0]` in the stream.
    first: u64,
    /// Samples that are kept.
    length: usize,
    /// A recording of at most this many samples is not cut.
    whole: Option<usize>,
    state: State,
    pending: Option<Segment>,
    finishing: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// The recording may be short: nothing is shown to the segmenter yet.
    Opening,
    Cutting,
    /// The recording was short and has been dealt with.
    Ended,
}

impl<B: AsRef<[i16]> + AsMut<[i16]>> Cutter<B> {
    /// Samples that the buffer of a cutter must hold for utterances of `max_seconds`.
    pub fn room(max_seconds: f32) -> usize {
        (max_seconds * SAMPLE_RATE as f32) as usize + FRAME_SAMPLES + SLACK_SAMPLES
    }

    /// Cuts a stream: utterances begin and end where speech does.
    pub fn stream(config: SegmenterConfig, buffer: B) -> Self {
        Self::new(config, None, buffer)
    }

    /// Cuts a recording: one that lasts at most `max_seconds` is one utterance, or none where nobody speaks.
    pub fn recording(max_seconds: f32, buffer: B) -> Self {
        let whole = (max_seconds * SAMPLE_RATE as f32) as usize;
        Self::new(SegmenterConfig::for_utterances(max_seconds), Some(whole), buffer)
    }

    fn new(config: SegmenterConfig, whole: Option<usize>, samples: B) -> Self {
        let segmenter = Segmenter::new(config);
        let state = State::first(whole);
        Self { segmenter, samples, first: 0, length: 0, whole, state, pending: None, finishing: false }
    }

    /// Takes 16 kHz mono samples in `[-1, 1]` and returns how many: fewer than given when an utterance is
    /// complete, which [`poll`](Self::poll) must fetch before the rest is pushed.
    pub fn push(&mut self, samples: &[f32]) -> usize {
        let mut accepted = 0;
        for chunk in samples.chunks(FRAME_SAMPLES) {
            if self.finishing || self.advance() {
                return accepted;
            }
            self.append(chunk);
            accepted += chunk.len();
        }
        self.advance();
        accepted
    }

    /// Ends the stream: [`poll`](Self::poll) until it returns nothing, then another stream may begin.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// The utterance that is complete, if one is. Its [`samples`](Self::samples) stay until the next push or poll.
    pub fn poll(&mut self) -> Option<Segment> {
        if !self.advance() && self.finishing {
            self.pending = self.close();
            if self.pending.is_none() {
                self.reset();
            }
        }
        self.pending.take()
    }

    /// The audio of a segment that [`poll`](Self::poll) has just returned.
    pub fn samples(&self, segment: Segment) -> &[i16] {
        let index = |sample: u64| usize::try_from(sample.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let range = index(segment.start_sample)..index(segment.end_sample).min(self.length);
        self.samples.as_ref().get(range).unwrap_or(&[])
    }

    /// Whether somebody speaks, and since when not. Behind the stream while a recording may still be short.
    pub fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Samples taken since the stream began.
    pub fn position(&self) -> u64 {
        self.first + self.length as u64
    }

    /// Shows the segmenter what it has not seen, up to the end of an utterance; says whether one waits to be fetched.
    fn advance(&mut self) -> bool {
        match (self.state, self.whole) {
            (State::Ended, _) => return false,
            (State::Opening, Some(whole)) if self.length <= whole => return false,
            _ => self.state = State::Cutting,
        }
        self.show_all();
        self.pending.is_some()
    }

    fn show_all(&mut self) {
        while self.pending.is_none() && self.segmenter.position() < self.position() {
            self.show_frame();
        }
    }

    fn show_frame(&mut self) {
        self.drop_before(self.segmenter.keep_from().min(self.segmenter.position()));
        let seen = self.segmenter.position().saturating_sub(self.first) as usize;
        let unseen = self.samples.as_ref().get(seen..self.length).unwrap_or(&[]);
        let mut frame = [0.0; FRAME_SAMPLES];
        for (value, &sample) in frame.iter_mut().zip(unseen) {
            *value = f32::from(sample) / 32768.0;
        }
        let shown = frame.get(..unseen.len().min(FRAME_SAMPLES)).unwrap_or(&[]);
        self.pending = self.segmenter.push(shown).segment;
    }

    /// Voiced samples of a short recording, as far as it had to be listened to; `None` where nobody speaks.
    fn voiced_samples(&mut self) -> Option<u64> {
        while self.segmenter.position() < self.position() {
            self.show_frame();
            if let Some(segment) = self.pending.take() {
                return Some(segment.voiced_samples);
            }
            let running = self.segmenter.running().filter(|running| running.kept);
            if let Some(running) = running.filter(|running| running.voiced_samples >= ENOUGH_VOICED) {
                return Some(running.voiced_samples);
            }
        }
        self.segmenter.finish().map(|segment| segment.voiced_samples)
    }

    /// What is left at the end of the stream.
    fn close(&mut self) -> Option<Segment> {
        match self.state {
            State::Ended => None,
            State::Cutting => self.segmenter.finish(),
            State::Opening => {
                self.state = State::Ended;
                let voiced_samples = self.voiced_samples()?;
                Some(Segment { start_sample: 0, end_sample: self.position(), voiced_samples })
            }
        }
    }

    fn reset(&mut self) {
        // It begins anew with the next push once it has nothing more to say.
        while self.segmenter.finish().is_some() {}
        (self.first, self.length, self.finishing) = (0, 0, false);
        self.state = State::first(self.whole);
    }

    /// Drops what lies before `sample`, once that is worth moving the rest.
    fn drop_before(&mut self, sample: u64) {
        let dropped =
            usize::try_from(sample.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.length);
        if dropped >= SLACK_SAMPLES && self.state == State::Cutting {
            self.samples.as_mut().copy_within(dropped..self.length, 0);
            self.first += dropped as u64;
            self.length -= dropped;
        }
    }

    fn append(&mut self, samples: &[f32]) {
        let free = self.samples.as_mut().get_mut(self.length..).unwrap_or(&mut []);
        let taken = free.len().min(samples.len());
        for (place, &sample) in free.iter_mut().zip(samples) {
            *place = quantize_sample(sample);
        }
        self.length += taken;
    }
}

impl State {
    fn first(whole: Option<usize>) -> Self {
        if whole.is_some() { Self::Opening } else { Self::Cutting }
    }
}

/// A sample as it is kept. NaN becomes silence, what is too loud is clipped.
pub fn quantize_sample(sample: f32) -> i16 {
    libm::rintf(sample * 32768.0) as i16
}
