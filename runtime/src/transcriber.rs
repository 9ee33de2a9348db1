//! One utterance at a time: samples in, words out.
//!
//! ```text
//! region: | tables | result | shared: states ........... or decoder and search | phase: frontend or encoder or cross |
//! ```
//!
//! The three phases of an utterance take turns in the same memory. The decoder begins when the cross-attention
//! caches are full; from then on the encoder's states are not needed and their memory is the decoder's.

use crate::alignment;
use crate::cross_cache::{self, CrossBuffers};
use crate::ctc::{self, CtcBuffers, Hypotheses, HypothesisBuffers};
use crate::decoder::{Decoder, DecoderBuffers};
use crate::encoder::{self, EncoderBuffers, RotaryTables};
use crate::error::Error;
use crate::filter_bank::{self, FilterBankBuffers};
use crate::frontend::{self, FrontendBuffers};
use crate::region::{ALIGNMENT, Buffer, Region, addressable, buffers, bytes_of};
use crate::rotary;
use crate::running_words::RunningBuffers;
use crate::search::{Found, Prefix, Search, SearchBuffers};
use crate::sizes::{Decoding, Limits, Sizes, max_tokens};
use crate::transcript::{self, Times, Transcript, TranscriptBuffers, begins_word};
use crate::{SAMPLE_RATE, project::prefix_mut};
use kinglet_kernels::Kernels;
use kinglet_model_format::{FrontendKind, Model, Vocabulary};

buffers! {
    /// Angles of rotary positions, `[positions, rotary width / 2]`.
    TableBuffers(sizes: Sizes) phase "tables" {
        encoder_cosines: [f32; sizes.frames, sizes.encoder_rotary / 2],
        encoder_sines: [f32; sizes.frames, sizes.encoder_rotary / 2],
        decoder_cosines: [f32; sizes.tokens, sizes.decoder_rotary / 2],
        decoder_sines: [f32; sizes.tokens, sizes.decoder_rotary / 2],
    }
}

/// A part of the work on an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Convolutions over the waveform.
    Frontend,
    /// The encoder.
    Encoder,
    /// The CTC head and the search over its frames, where they were asked for.
    Ctc,
    /// Keys and values of cross-attention.
    CrossAttention,
    /// The decoder and the search, token by token.
    Decoder,
    /// Times of words.
    Alignment,
    /// Nothing is left to do.
    Done,
}

/// Recognises one utterance after the other in memory that it was given once.
pub struct Transcriber<'m, 'r> {
    model: Model<'m>,
    kernels: Kernels,
    sizes: Sizes,
    decoding: Decoding,
    tables: TableBuffers<'r>,
    result: TranscriptBuffers<'r>,
    hypotheses: Hypotheses<'r>,
    filter_bank: FilterBankBuffers<'r>,
    shared: &'r mut [u8],
    phase: &'r mut [u8],
}

/// Bytes that a [`Transcriber`] needs.
///
/// # Errors
/// When a limit is out of range, or this version cannot run the model.
pub fn transcriber_memory(model: &Model<'_>, limits: &Limits) -> Result<usize, Error> {
    let sizes = Sizes::of(model, limits)?;
    // The region itself may begin anywhere.
    let slack = ALIGNMENT as u64;
    let parts = [
        TableBuffers::bytes(&sizes),
        TranscriptBuffers::bytes(&sizes),
        HypothesisBuffers::bytes(&sizes),
        FilterBankBuffers::bytes(&sizes.filter_bank),
        shared_bytes(&sizes),
    ];
    let total = parts.into_iter().fold(phase_bytes(&sizes), u64::saturating_add).saturating_add(slack);
    addressable(total)
}

/// Calls `each` with every buffer: what `transcriber_memory` adds up, phase by phase, and the hypothesis that a
/// [`Recognizer`](crate::Recognizer) keeps besides.
///
/// # Errors
/// As [`transcriber_memory`].
pub fn list_buffers(model: &Model<'_>, limits: &Limits, each: &mut dyn FnMut(Buffer)) -> Result<(), Error> {
    let sizes = Sizes::of(model, limits)?;
    RunningBuffers::list(&sizes, each);
    TableBuffers::list(&sizes, each);
    TranscriptBuffers::list(&sizes, each);
    HypothesisBuffers::list(&sizes, each);
    FilterBankBuffers::list(&sizes.filter_bank, each);
    FrontendBuffers::list(&sizes, each);
    EncoderBuffers::list(&sizes, each);
    CtcBuffers::list(&sizes, each);
    CrossBuffers::list(&sizes, each);
    DecoderBuffers::list(&sizes, each);
    SearchBuffers::list(&sizes, each);
    Ok(())
}

/// The encoder's states, and later decoder and search.
fn shared_bytes(sizes: &Sizes) -> u64 {
    let states = bytes_of::<f32>(sizes.encoder_states());
    states.max(DecoderBuffers::bytes(sizes).saturating_add(SearchBuffers::bytes(sizes)))
}

fn phase_bytes(sizes: &Sizes) -> u64 {
    let before = FrontendBuffers::bytes(sizes).max(EncoderBuffers::bytes(sizes));
    before.max(CtcBuffers::bytes(sizes)).max(CrossBuffers::bytes(sizes))
}

impl<'m, 'r> Transcriber<'m, 'r> {
    /// Lays out `region`, which must have [`transcriber_memory`] bytes. Nothing is allocated, now or later.
    ///
    /// # Errors
    /// When the region is too small, a limit is out of range, or this version cannot run the model.
    pub fn new(
        model: Model<'m>,
        kernels: Kernels,
        limits: Limits,
        region: &'r mut [u8],
    ) -> Result<Self, Error> {
        let needed = transcriber_memory(&model, &limits)?;
        if region.len() < needed {
            return Err(Error::RegionTooSmall { needed, given: region.len() });
        }
        let sizes = Sizes::of(&model, &limits)?;
        let mut region = Region::new(region);
        let tables = TableBuffers::carve(region.take_bytes(TableBuffers::bytes(&sizes))?, &sizes)?;
        let result = TranscriptBuffers::carve(region.take_bytes(TranscriptBuffers::bytes(&sizes))?, &sizes)?;
        let hypotheses =
            HypothesisBuffers::carve(region.take_bytes(HypothesisBuffers::bytes(&sizes))?, &sizes)?;
        let hypotheses = Hypotheses::new(hypotheses, &sizes);
        let bank_bytes = FilterBankBuffers::bytes(&sizes.filter_bank);
        let mut filter_bank = FilterBankBuffers::carve(region.take_bytes(bank_bytes)?, &sizes.filter_bank)?;
        if let Some(bank) = model.filter_bank() {
            filter_bank.fill_tables(&bank);
        }
        let shared = region.take_bytes(shared_bytes(&sizes))?;
        let phase = region.take_bytes(phase_bytes(&sizes))?;
        let (encoder, decoder) = (model.config().encoder, model.config().decoder);
        rotary::fill(encoder.rotary_base, encoder.rotary_width, tables.encoder_cosines, tables.encoder_sines);
        rotary::fill(decoder.rotary_base, decoder.rotary_width, tables.decoder_cosines, tables.decoder_sines);
        let decoding = limits.decoding;
        Ok(Self { model, kernels, sizes, decoding, tables, result, hypotheses, filter_bank, shared, phase })
    }

    /// Longest utterance, in samples.
    pub fn max_samples(&self) -> usize {
        self.sizes.samples
    }

    /// Most tokens of an utterance of so many samples.
    pub(crate) fn max_tokens(&self, samples: usize) -> usize {
        max_tokens(self.model.config().tokens.max_per_second, samples).min(self.sizes.tokens)
    }

    /// Whether a transcript can be made to begin with given words: frames of a CTC head are not.
    pub(crate) fn keeps_words(&self) -> bool {
        self.decoding == Decoding::Attention
    }

    /// The model's vocabulary.
    pub(crate) fn vocabulary(&self) -> Vocabulary<'m> {
        self.model.vocabulary()
    }

    /// Recognises an utterance: 16 kHz mono. No samples give no words.
    ///
    /// # Errors
    /// When the utterance is longer than the limit.
    pub fn transcribe(&mut self, samples: &[i16]) -> Result<Transcript<'_>, Error> {
        self.transcribe_observed(samples, &mut |_| ())
    }

    /// [`transcribe`](Self::transcribe), telling `observer` when each stage begins.
    ///
    /// # Errors
    /// As [`transcribe`](Self::transcribe).
    pub fn transcribe_observed(
        &mut self,
        samples: &[i16],
        observer: &mut dyn FnMut(Stage),
    ) -> Result<Transcript<'_>, Error> {
        self.transcribe_after(samples, &[], observer)
    }

    /// [`transcribe_observed`](Self::transcribe_observed), with a transcript that begins with `words`: the tokens of whole words,
    /// fewer than [`max_tokens`](Self::max_tokens); none, unless it [`keeps_words`](Self::keeps_words). Where there are no samples
    /// there are no words either.
    pub(crate) fn transcribe_after(
        &mut self,
        samples: &[i16],
        words: &[u32],
        observer: &mut dyn FnMut(Stage),
    ) -> Result<Transcript<'_>, Error> {
        let limit = self.sizes.samples;
        if samples.len() > limit {
            return Err(Error::UtteranceTooLong { samples: samples.len(), limit });
        }
        if samples.is_empty() {
            return Ok(Transcript::empty());
        }
        let frames = self.encode(samples, observer)?;
        let (count, nothing) = match self.decoding {
            Decoding::Attention => self.decode(samples.len(), frames, words, observer)?,
            _ => (self.decode_ctc(samples.len(), frames, observer)?, 0.0),
        };
        observer(Stage::Done);
        let seconds = |samples: usize| samples as f32 / SAMPLE_RATE as f32;
        let times = Times { frame: seconds(frame_samples(&self.model)), end: seconds(samples.len()) };
        Ok(transcript::compose(&self.model.vocabulary(), &mut self.result, count, times, nothing))
    }

    /// Frontend and encoder; the states are in `shared` afterwards. Returns the frames of the encoder's output.
    fn encode(&mut self, samples: &[i16], observer: &mut dyn FnMut(Stage)) -> Result<usize, Error> {
        let (kernels, model, sizes) = (self.kernels, &self.model, &self.sizes);
        let states = Region::new(self.shared).take::<f32>(sizes.encoder_states())?;
        observer(Stage::Frontend);
        let mut phase = Region::new(self.phase);
        let buffers = FrontendBuffers::carve_from(&mut phase, sizes)?;
        let frames = match model.filter_bank() {
            Some(bank) => filter_bank::run(&bank, &mut self.filter_bank, samples, states)?,
            None => frontend::run(kernels, model, samples, buffers, phase.rest()?, states)?,
        };
        observer(Stage::Encoder);
        let rotary = RotaryTables::new(self.tables.encoder_cosines, self.tables.encoder_sines);
        encoder::run(kernels, model, rotary, frames, states, sizes, self.phase)
    }

    /// Decoder, search and alignment; tokens, scores and spans are in `result` afterwards. How many tokens, and the probability of
    /// none.
    fn decode(
        &mut self,
        samples: usize,
        frames: usize,
        words: &[u32],
        observer: &mut dyn FnMut(Stage),
    ) -> Result<(usize, f32), Error> {
        let (kernels, sizes, config) = (self.kernels, &self.sizes, self.model.config());
        let memory = DecoderMemory { tables: &self.tables, shared: self.shared, phase: self.phase };
        let (mut decoder, buffers) = memory.open(kernels, self.model, frames, sizes, observer)?;
        let search = Search {
            kernels,
            buffers,
            beam: sizes.beam,
            capacity: sizes.tokens,
            begin: config.tokens.begin,
            end: config.tokens.end,
        };
        let allowed = max_tokens(config.tokens.max_per_second, samples);
        let vocabulary = self.model.vocabulary();
        let prefix = Prefix { tokens: words, begins_word: &|token| begins_word(&vocabulary, token) };
        let found = search.run(&mut decoder, allowed, &prefix)?;
        observer(Stage::Alignment);
        let (attention, sums) = decoder.into_attention();
        let count = store_result(&found, attention, sums, frames, sizes.frame_capacity, &mut self.result)?;
        Ok((count, libm::expf(found.nothing_score)))
    }

    /// The CTC head, its search and, where asked for, the decoder's choice; as [`decode`](Self::decode) otherwise.
    fn decode_ctc(
        &mut self,
        samples: usize,
        frames: usize,
        observer: &mut dyn FnMut(Stage),
    ) -> Result<usize, Error> {
        let (kernels, sizes, config) = (self.kernels, &self.sizes, self.model.config());
        let head = self.model.ctc().ok_or(Error::NoCtcHead)?;
        observer(Stage::Ctc);
        let buffers = CtcBuffers::carve(self.phase, sizes)?;
        let states = Region::new(self.shared).take::<f32>(sizes.encoder_states())?;
        let allowed = max_tokens(config.tokens.max_per_second, samples).min(sizes.tokens);
        ctc::search(kernels, &head, frames, states, allowed, buffers, &mut self.hypotheses)?;
        let best = match self.decoding {
            Decoding::Rescore { ctc_weight } => {
                let memory = DecoderMemory { tables: &self.tables, shared: self.shared, phase: self.phase };
                let (mut decoder, buffers) = memory.open(kernels, self.model, frames, sizes, observer)?;
                let hypotheses = &mut self.hypotheses;
                ctc::rescore(kernels, &mut decoder, &config.tokens, ctc_weight, hypotheses, buffers)?
            }
            _ => 0,
        };
        let tokens = self.hypotheses.tokens(best);
        let count = tokens.len();
        prefix_mut(self.result.tokens, count)?.copy_from_slice(tokens);
        prefix_mut(self.result.spans, count)?.copy_from_slice(self.hypotheses.spans(best));
        prefix_mut(self.result.scores, count)?.copy_from_slice(self.hypotheses.scores(best));
        Ok(count)
    }
}

/// The memory in which a decoder works once the encoder's states are in `shared`.
struct DecoderMemory<'t, 'r> {
    tables: &'t TableBuffers<'r>,
    shared: &'t mut [u8],
    phase: &'t mut [u8],
}

impl<'t> DecoderMemory<'t, '_> {
    /// Fills the cross-attention caches; the states are gone then.
    fn open<'m>(
        self,
        kernels: Kernels,
        model: Model<'m>,
        frames: usize,
        sizes: &Sizes,
        observer: &mut dyn FnMut(Stage),
    ) -> Result<(Decoder<'m, 't>, SearchBuffers<'t>), Error> {
        observer(Stage::CrossAttention);
        let mut cross = CrossBuffers::carve(self.phase, sizes)?;
        let states = Region::new(self.shared).take::<f32>(sizes.encoder_states())?;
        cross_cache::fill(kernels, &model, frames, sizes, states, &mut cross)?;
        observer(Stage::Decoder);
        let mut region = Region::new(self.shared);
        let buffers = DecoderBuffers::carve(region.take_bytes(DecoderBuffers::bytes(sizes))?, sizes)?;
        let search_buffers = SearchBuffers::carve(region.take_bytes(SearchBuffers::bytes(sizes))?, sizes)?;
        let rotary = RotaryTables::new(self.tables.decoder_cosines, self.tables.decoder_sines);
        Ok((Decoder::new(kernels, model, rotary, frames, sizes, cross, buffers), search_buffers))
    }
}

/// Copies tokens and scores out of the search and aligns them.
fn store_result(
    found: &Found<'_>,
    attention: &mut [u8],
    sums: &mut [f32],
    frames: usize,
    capacity: usize,
    result: &mut TranscriptBuffers<'_>,
) -> Result<usize, Error> {
    let count = found.path.len().saturating_sub(1);
    let column = |index: usize| found.path.get(index).map_or(0, |&column| usize::from(column));
    for index in 0..count {
        let own = column(index + 1);
        if let (Some(token), Some(score)) = (result.tokens.get_mut(index), result.scores.get_mut(index)) {
            *token = found.column_tokens.get(own).copied().unwrap_or(0);
            *score = found.column_scores.get(own).copied().unwrap_or(0.0);
        }
    }
    let spans = prefix_mut(result.spans, count)?;
    alignment::align(attention, capacity, frames, &column, sums, spans);
    Ok(count)
}

/// Samples from one frame of the encoder's output to the next.
fn frame_samples(model: &Model<'_>) -> usize {
    let samples = match model.config().frontend.kind {
        FrontendKind::FilterBank(bank) => bank.row_samples(),
        FrontendKind::Waveform => {
            model.convolutions().fold(1, |samples: usize, layer| samples.saturating_mul(layer.stride))
        }
    };
    samples.saturating_mul(model.merged_frames())
}
