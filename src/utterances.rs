//! A recording, cut into utterances.

use kinglet_runtime::{Cutter, SAMPLE_RATE};

use crate::audio::{AudioError, AudioReader};

/// Reads a recording and hands out its utterances one by one, keeping no more audio than the longest of them.
///
/// It cuts as [`kinglet_runtime::Recognizer::for_recordings`] does, without recognising, so that several threads can take
/// the utterances of one recording.
pub struct Utterances {
    reader: AudioReader,
    cutter: Cutter<Vec<i16>>,
    /// The chunk that was read last, from `taken` on still to be cut.
    chunk: Vec<f32>,
    taken: usize,
    read_samples: u64,
    ended: bool,
}

/// One utterance, 16 kHz mono.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutUtterance<'a> {
    /// Its first sample, counted from the beginning of the recording.
    pub start_sample: u64,
    /// Its samples.
    pub samples: &'a [i16],
    /// How many of them lie in voiced frames: see [`kinglet_runtime::Segment`].
    pub voiced_samples: u64,
}

impl Utterances {
    /// Cuts what `reader` reads into utterances of at most `max_seconds`.
    pub fn new(reader: AudioReader, max_seconds: f32) -> Self {
        let buffer = vec![0; Cutter::<Vec<i16>>::room(max_seconds)];
        let cutter = Cutter::recording(max_seconds, buffer);
        Self { reader, cutter, chunk: Vec::new(), taken: 0, read_samples: 0, ended: false }
    }

    /// The next utterance; `None` at the end.
    ///
    /// # Errors
    /// When the recording turns out to hold no audio that can be decoded.
    pub fn next_utterance(&mut self) -> Result<Option<CutUtterance<'_>>, AudioError> {
        let segment = loop {
            if let Some(segment) = self.cutter.poll() {
                break Some(segment);
            }
            if self.ended {
                break None;
            }
            if self.taken == self.chunk.len() && !self.read()? {
                self.cutter.finish();
                self.ended = true;
            }
            self.taken += self.cutter.push(self.chunk.get(self.taken..).unwrap_or_default());
        };
        Ok(segment.map(|segment| CutUtterance {
            start_sample: segment.start_sample,
            samples: self.cutter.samples(segment),
            voiced_samples: segment.voiced_samples,
        }))
    }

    /// Seconds read so far; at the end, the length of the recording.
    pub fn seconds(&self) -> f64 {
        self.read_samples as f64 / f64::from(SAMPLE_RATE)
    }

    /// The recording itself.
    pub fn reader(&self) -> &AudioReader {
        &self.reader
    }

    /// Reads the next chunk; `false` at the end of the recording.
    fn read(&mut self) -> Result<bool, AudioError> {
        let Some(chunk) = self.reader.next_chunk()? else { return Ok(false) };
        self.chunk.clear();
        self.chunk.extend_from_slice(chunk);
        self.taken = 0;
        self.read_samples += self.chunk.len() as u64;
        Ok(true)
    }
}
