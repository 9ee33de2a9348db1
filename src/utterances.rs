//! A recording, cut into utterances.

use kinglet_runtime::{FRAME_SAMPLES, SAMPLE_RATE, Segment, Segmenter, SegmenterConfig, quantize_sample};

use crate::audio::{AudioError, AudioReader};

/// Audio is moved to the front of its buffer only when this many samples can be dropped at once.
const SLACK_SAMPLES: u64 = SAMPLE_RATE as u64;

/// Reads a recording and hands out its utterances one by one, keeping no more audio than the longest of them.
///
/// A recording that fits into one utterance is not cut: where there is speech in it, it is one utterance from its first
/// sample to its last. A longer one is cut as [`kinglet_runtime::Recognizer`] cuts a stream, without recognising it, so
/// that several threads can take the utterances of one recording.
pub struct Utterances {
    reader: AudioReader,
    segmenter: Segmenter,
    max_samples: u64,
    kept: Vec<i16>,
    /// Place of `kept[0]` in the recording.
    first: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// Nothing is cut yet: the recording may be short.
    Opening,
    Reading,
    /// The recording has ended; the segmenter may still hold utterances.
    Finishing,
    Ended,
}

/// One utterance, 16 kHz mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutUtterance<'a> {
    /// Its first sample, counted from the beginning of the recording.
    pub start_sample: u64,
    /// Its samples.
    pub samples: &'a [i16],
}

impl Utterances {
    /// Cuts what `reader` reads into utterances of at most `max_seconds`.
    pub fn new(reader: AudioReader, max_seconds: f32) -> Self {
        Self {
            reader,
            segmenter: Segmenter::new(SegmenterConfig::for_utterances(max_seconds)),
            max_samples: (max_seconds * SAMPLE_RATE as f32) as u64,
            // Room for the longest utterance at once: growing step by step would leave as much again behind.
            kept: Vec::with_capacity((max_seconds * SAMPLE_RATE as f32) as usize + 2 * SAMPLE_RATE as usize),
            first: 0,
            state: State::Opening,
        }
    }

    /// The next utterance; `None` at the end.
    ///
    /// # Errors
    /// When the recording turns out to hold no audio that can be decoded.
    pub fn next_utterance(&mut self) -> Result<Option<CutUtterance<'_>>, AudioError> {
        let segment = loop {
            match self.state {
                State::Ended => break None,
                State::Opening => {
                    if let Some(segment) = self.open()? {
                        break Some(segment);
                    }
                }
                State::Finishing => {
                    let segment = self.segmenter.finish();
                    if segment.is_none() {
                        self.state = State::Ended;
                    }
                    break segment;
                }
                State::Reading => {
                    if let Some(segment) = self.advance()? {
                        break Some(segment);
                    }
                }
            }
        };
        Ok(segment.map(|Segment { start_sample, end_sample }| {
            let index = |sample: u64| sample.saturating_sub(self.first) as usize;
            let range = index(start_sample)..index(end_sample).min(self.kept.len());
            CutUtterance { start_sample, samples: self.kept.get(range).unwrap_or_default() }
        }))
    }

    /// Seconds read so far; at the end, the length of the recording.
    pub fn seconds(&self) -> f64 {
        self.read_samples() as f64 / f64::from(SAMPLE_RATE)
    }

    /// The recording itself.
    pub fn reader(&self) -> &AudioReader {
        &self.reader
    }

    fn read_samples(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// Reads as much as fits into one utterance. A recording that ends before is one, or holds no speech.
    fn open(&mut self) -> Result<Option<Segment>, AudioError> {
        while self.read_samples() <= self.max_samples {
            if !self.read()? {
                self.state = State::Ended;
                let end_sample = self.read_samples();
                let speaks = self.speaks();
                return Ok(speaks.then_some(Segment { start_sample: 0, end_sample }));
            }
        }
        self.state = State::Reading;
        Ok(None)
    }

    /// Whether the segmenter finds an utterance in what was read.
    fn speaks(&mut self) -> bool {
        while self.segmenter.position() < self.read_samples() {
            if self.show().is_some() {
                return true;
            }
        }
        self.segmenter.finish().is_some()
    }

    /// Shows the segmenter some more audio; returns the segment that this completes.
    fn advance(&mut self) -> Result<Option<Segment>, AudioError> {
        self.drop_before(self.segmenter.keep_from().min(self.segmenter.position()));
        if self.segmenter.position() == self.read_samples() && !self.read()? {
            self.state = State::Finishing;
        }
        Ok(self.show())
    }

    /// Shows the segmenter one frame of what it has not seen.
    fn show(&mut self) -> Option<Segment> {
        let seen = (self.segmenter.position() - self.first) as usize;
        let mut frame = [0.0; FRAME_SAMPLES];
        let unseen = self.kept.get(seen..).unwrap_or_default();
        let length = unseen.len().min(FRAME_SAMPLES);
        for (value, &sample) in frame.iter_mut().zip(unseen) {
            *value = f32::from(sample) / 32768.0;
        }
        self.segmenter.push(frame.get(..length).unwrap_or_default()).segment
    }

    /// Reads the next chunk; `false` at the end of the recording.
    fn read(&mut self) -> Result<bool, AudioError> {
        let Some(chunk) = self.reader.next_chunk()? else { return Ok(false) };
        self.kept.extend(chunk.iter().map(|&sample| quantize_sample(sample)));
        Ok(true)
    }

    fn drop_before(&mut self, sample: u64) {
        let dropped = sample.saturating_sub(self.first).min(self.kept.len() as u64);
        if dropped >= SLACK_SAMPLES {
            self.kept.drain(..dropped as usize);
            self.first += dropped;
        }
    }
}
