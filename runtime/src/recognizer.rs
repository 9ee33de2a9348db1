//! A stream of samples in, utterances out.

use crate::cutter::Cutter;
use crate::error::Error;
use crate::region::{ALIGNMENT, Region, bytes_of};
use crate::segmenter::{Segment, Segmenter, SegmenterConfig};
use crate::sizes::Limits;
use crate::transcriber::{Stage, Transcriber, transcriber_memory};
use crate::transcript::Transcript;
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
}

/// Cuts a stream into utterances and recognises each: push samples, poll utterances, finish.
///
/// The chunks in which samples arrive make no difference.
pub struct Recognizer<'m, 'r> {
    transcriber: Transcriber<'m, 'r>,
    cutter: Cutter<&'r mut [i16]>,
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
    Cutter::<&mut [i16]>::room(limits.utterance_seconds)
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
        let rest = region.take_bytes(transcriber_memory(&model, &limits)?)?;
        let transcriber = Transcriber::new(model, kernels, limits, rest)?;
        Ok(Self { transcriber, cutter: cutter(samples) })
    }

    /// Takes 16 kHz mono samples in `[-1, 1]` and returns how many: fewer than given when an utterance is
    /// complete, which [`poll`](Self::poll) must recognise before the rest is pushed.
    pub fn push(&mut self, samples: &[f32]) -> usize {
        self.cutter.push(samples)
    }

    /// Ends the stream: [`poll`](Self::poll) until it returns nothing, then another stream may begin.
    pub fn finish(&mut self) {
        self.cutter.finish();
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
        let Some(segment) = self.cutter.poll() else {
            return Ok(None);
        };
        let samples = self.cutter.samples(segment);
        let Segment { start_sample, end_sample } = segment;
        let transcript = self.transcriber.transcribe_observed(samples, observer)?;
        Ok(Some(Utterance { start_sample, end_sample, samples, transcript }))
    }

    /// The stream's segmentation: whether somebody speaks, and since when not.
    pub fn segmenter(&self) -> &Segmenter {
        self.cutter.segmenter()
    }
}
