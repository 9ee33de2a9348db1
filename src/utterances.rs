//! A recording, cut into utterances.

use kinglet_runtime::{SAMPLE_RATE, Segment, Segmenter, SegmenterConfig, quantize_sample};

use crate::audio::{AudioError, AudioReader};

/// Audio is moved to the front of its buffer only when this many samples can be dropped at once.
const SLACK_SAMPLES: u64 = SAMPLE_RATE as u64;

/// Reads a recording and hands out its utterances one by one, keeping no more audio than the longest of them.
///
/// This is what [`kinglet_runtime::Recognizer`] does for one stream, without the recognition: so several threads can take the
/// utterances of one recording.
pub struct Utterances {
    reader: AudioReader,
    segmenter: Segmenter,
    chunk: Vec<f32>,
    /// Samples of `chunk` that the segmenter has taken.
    taken: usize,
    kept: Vec<i16>,
    /// Place of `kept[0]` in the recording.
    first: u64,
    /// Samples read so far.
    samples: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
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
            chunk: Vec::new(),
            taken: 0,
            kept: Vec::new(),
            first: 0,
            samples: 0,
            state: State::Reading,
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
        self.samples as f64 / f64::from(SAMPLE_RATE)
    }

    /// The recording itself.
    pub fn reader(&self) -> &AudioReader {
        &self.reader
    }

    /// Shows the segmenter some more audio; returns the segment that this completes.
    fn advance(&mut self) -> Result<Option<Segment>, AudioError> {
        if self.taken == self.chunk.len() {
            self.chunk.clear();
            self.taken = 0;
            match self.reader.next_chunk()? {
                Some(chunk) => self.chunk.extend_from_slice(chunk),
                None => self.state = State::Finishing,
            }
            self.samples += self.chunk.len() as u64;
        }
        self.drop_before(self.segmenter.keep_from());
        let rest = self.chunk.get(self.taken..).unwrap_or_default();
        let pushed = self.segmenter.push(rest);
        self.kept.extend(rest.iter().take(pushed.accepted).map(|&sample| quantize_sample(sample)));
        self.taken += pushed.accepted;
        Ok(pushed.segment)
    }

    fn drop_before(&mut self, sample: u64) {
        let dropped = sample.saturating_sub(self.first).min(self.kept.len() as u64);
        if dropped >= SLACK_SAMPLES {
            self.kept.drain(..dropped as usize);
            self.first += dropped;
        }
    }
}
