//! A stream of samples in, utterances out.

use crate::error::Error;
use crate::region::{ALIGNMENT, Region, bytes_of};
use crate::segmenter::{Segment, Segmenter, SegmenterConfig};
use crate::sizes::Limits;
use crate::transcriber::{Stage, Transcriber, transcriber_memory};
use crate::transcript::Transcript;
use crate::{FRAME_SAMPLES, SAMPLE_RATE};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;

/// Audio is moved to the front of its buffer only when this many samples can be dropped at once.
const SLACK_SAMPLES: usize = SAMPLE_RATE as usize;

/// An utterance of the stream, recognised.
#[derive(Debug, Clone, Copy)]
pub struct Utterance<'a> {
    /// First sample of the utterance, counted from the beginning of the stream.
    pub start_sample: u64,
    /// One past the last sample.
    pub end_sample: u64,
    /// What was said; its times count from `start_sample`.
    pub transcript: Transcript<'a>,
}

/// Cuts a stream into utterances and recognises each: push samples, poll utterances, finish.
///
/// The chunks in which samples arrive make no difference.
pub struct Recognizer<'m, 'r> {
    transcriber: Transcriber<'m, 'r>,
    segmenter: Segmenter,
    audio: AudioBuffer<'r>,
    pending: Option<Segment>,
    finishing: bool,
}

/// Bytes that a [`Recognizer`] needs.
///
/// # Errors
/// When a limit is out of range, or this version cannot run the model.
pub fn memory_required(model: &Model<'_>, limits: &Limits) -> Result<usize, Error> {
    let transcriber = transcriber_memory(model, limits)?;
    Ok(transcriber.saturating_add(bytes_of::<i16>(audio_samples(limits))).saturating_add(ALIGNMENT))
}

fn audio_samples(limits: &Limits) -> usize {
    (limits.utterance_seconds * SAMPLE_RATE as f32) as usize + FRAME_SAMPLES + SLACK_SAMPLES
}

/// A sample as it is kept. NaN becomes silence, what is too loud is clipped.
pub fn quantize_sample(sample: f32) -> i16 {
    libm::rintf(sample * 32768.0) as i16
}

impl<'m, 'r> Recognizer<'m, 'r> {
    /// Lays out `region`, which must have [`memory_required`] bytes. Utterances are never longer than
    /// `limits.utterance_seconds`, whatever `segmenter` says.
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
        let needed = memory_required(&model, &limits)?;
        if region.len() < needed {
            return Err(Error::RegionTooSmall { needed, given: region.len() });
        }
        let mut region = Region::new(region);
        let samples = region.take::<i16>(audio_samples(&limits))?;
        let rest = region.take_bytes(transcriber_memory(&model, &limits)?)?;
        let max_utterance = segmenter.max_utterance.min(limits.utterance_seconds);
        Ok(Self {
            transcriber: Transcriber::new(model, kernels, limits, rest)?,
            segmenter: Segmenter::new(SegmenterConfig { max_utterance, ..segmenter }),
            audio: AudioBuffer { samples, first: 0, length: 0 },
            pending: None,
            finishing: false,
        })
    }

    /// Takes 16 kHz mono samples in `[-1, 1]` and returns how many: fewer than given when an utterance is
    /// complete, which [`poll`](Self::poll) must recognise before the rest is pushed.
    pub fn push(&mut self, samples: &[f32]) -> usize {
        let mut accepted = 0;
        for chunk in samples.chunks(FRAME_SAMPLES) {
            if self.pending.is_some() || self.finishing {
                break;
            }
            let pushed = self.segmenter.push(chunk);
            self.audio
                .keep_from(pushed.segment.map_or(self.segmenter.keep_from(), |segment| segment.start_sample));
            self.audio.append(chunk.get(..pushed.accepted).unwrap_or(chunk));
            self.pending = pushed.segment;
            accepted += pushed.accepted;
        }
        accepted
    }

    /// Ends the stream: [`poll`](Self::poll) until it returns nothing, then another stream may begin.
    pub fn finish(&mut self) {
        self.finishing = true;
    }

    /// Recognises the utterance that is complete, if one is.
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
        if self.pending.is_none() && self.finishing {
            self.pending = self.segmenter.finish();
            if self.pending.is_none() {
                self.audio.clear();
                self.finishing = false;
            }
        }
        let Some(Segment { start_sample, end_sample }) = self.pending.take() else {
            return Ok(None);
        };
        let samples = self.audio.get(start_sample, end_sample);
        let transcript = self.transcriber.transcribe_observed(samples, observer)?;
        Ok(Some(Utterance { start_sample, end_sample, transcript }))
    }

    /// The stream's segmentation: whether somebody speaks, and since when not.
    pub fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }
}

/// The last seconds of the stream.
struct AudioBuffer<'r> {
    samples: &'r mut [i16],
    /// Place of `samples[0]` in the stream.
    first: u64,
    length: usize,
}

impl AudioBuffer<'_> {
    /// Drops what lies before `sample`, once that is worth moving the rest.
    fn keep_from(&mut self, sample: u64) {
        let dropped =
            usize::try_from(sample.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.length);
        if dropped >= SLACK_SAMPLES {
            self.samples.copy_within(dropped..self.length, 0);
            self.first += dropped as u64;
            self.length -= dropped;
        }
    }

    fn append(&mut self, samples: &[f32]) {
        let free = self.samples.get_mut(self.length..).unwrap_or(&mut []);
        for (place, &sample) in free.iter_mut().zip(samples) {
            *place = quantize_sample(sample);
        }
        self.length = self.samples.len().min(self.length + samples.len());
    }

    fn get(&self, start: u64, end: u64) -> &[i16] {
        let index = |sample: u64| usize::try_from(sample.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.samples.get(index(start)..index(end).min(self.length)).unwrap_or(&[])
    }

    fn clear(&mut self) {
        self.first = 0;
        self.length = 0;
    }
}
