//! Every size that follows from a model and the caller's limits.

use crate::SAMPLE_RATE;
use crate::error::Error;
use crate::filter_bank;
use crate::project::result_rows;
use crate::region;
use crate::residual::largest_rank;
use crate::sinusoids;
use kinglet_kernels::{Kernels, attend_scratch, frame_cache_bytes, frame_scratch};
use kinglet_model_format::{
    Activation, ActivationBits, ChunkConfig, Convolution, FilterBankConfig, FrontendKind, LayerKind, Matrix,
    Model, TensorKind,
};

/// Rows that go through a matrix together, so that a weight that is read once serves them all.
pub(crate) const ROWS: usize = 104;
/// Frames that one step of the frontend makes: as many as let a convolution in front of one of stride 2, the largest of matrices as a rule, go by in
/// one pass of [`ROWS`] (101 rows), and the one in front of that, of stride 3, in three.
pub(crate) const FRONTEND_FRAMES: usize = 50;
/// Frames that a stream drops from its caches at a time.
pub(crate) const KEPT_STEP: usize = 4;
/// Most hypotheses of a beam.
pub(crate) const MAX_BEAM: usize = 8;
/// Tokens allowed for an utterance of no length: a short word and the end.
const LEAST_TOKENS: usize = 8;

/// How text is found in what the encoder makes of the audio.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Decoding {
    /// The decoder writes it token by token.
    #[default]
    Attention,
    /// The most probable token of each frame, by the CTC head: fastest.
    CtcGreedy,
    /// Prefix beam search over the frames, by the CTC head, with `Limits::beam` hypotheses.
    CtcBeam,
    /// The decoder chooses among the hypotheses of that search.
    Rescore {
        /// Times that the CTC head's log probability counts beside the decoder's; 0.5 is usual. At least 0.
        ctc_weight: f32,
    },
}

/// What the caller asks memory for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Longest utterance in seconds, 1 to 60. Memory grows with it.
    pub utterance_seconds: f32,
    /// Hypotheses that the search follows, 1 (greedy) to 8.
    pub beam: usize,
    /// How text is found. All but the default need a model with a CTC head.
    pub decoding: Decoding,
}

impl Default for Limits {
    fn default() -> Self {
        Self { utterance_seconds: 30.0, beam: 1, decoding: Decoding::Attention }
    }
}

/// Sizes. Each fits the machine's addresses; what their products need is said by [`buffers!`](crate::region).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Samples of the longest utterance.
    pub(crate) samples: usize,
    /// Encoder frames of the longest utterance: those that come in.
    pub(crate) frames: usize,
    /// Those that go out, fewer where blocks merge them, rounded up to whole vectors: the capacity of the cross-attention cache.
    pub(crate) frame_capacity: usize,
    /// Tokens of the longest transcript.
    pub(crate) tokens: usize,
    pub(crate) beam: usize,
    /// Capacity of the self-attention cache: a column for each token of each hypothesis.
    pub(crate) column_capacity: usize,
    /// Values a frame of the encoder's input.
    pub(crate) encoder_source: usize,
    /// Sizes of the frontend, where it is a filter bank.
    pub(crate) filter_bank: Option<FilterBankConfig>,
    pub(crate) encoder_width: usize,
    /// Blocks whose keys and values are kept at the same time.
    pub(crate) encoder_caches: usize,
    pub(crate) encoder_sinusoids: usize,
    /// Frames of a chunk, zero without chunks.
    pub(crate) chunk_frames: usize,
    pub(crate) encoder_attention: usize,
    pub(crate) encoder_feed_forward: usize,
    pub(crate) encoder_heads: usize,
    pub(crate) encoder_head: usize,
    /// Whether keys and values are floats in its attention, and not int8.
    pub(crate) encoder_is_float: bool,
    /// Whether it has memories, which take the values as floats.
    pub(crate) encoder_memory: bool,
    /// Rows that stand for one row of the encoder's matrix inputs, at most: 1 or 2.
    pub(crate) encoder_rows: usize,
    /// Largest rank of what an encoder block adds to a shared matrix; zero where none does.
    pub(crate) encoder_rank: usize,
    pub(crate) encoder_gate: bool,
    pub(crate) encoder_rotary: usize,
    /// Decoder blocks with self-attention.
    pub(crate) attention_layers: usize,
    /// Decoder blocks with cross-attention.
    pub(crate) cross_layers: usize,
    /// Whether its keys and values are kept as floats.
    pub(crate) cross_is_float: bool,
    /// Decoder blocks with a memory.
    pub(crate) memory_layers: usize,
    /// Tokens that such a memory sees.
    pub(crate) memory_kernel: usize,
    pub(crate) decoder_width: usize,
    pub(crate) decoder_heads: usize,
    pub(crate) decoder_attention: usize,
    pub(crate) decoder_feed_forward: usize,
    /// Rows that stand for one row of the decoder's matrix inputs, at most: 1 or 2.
    pub(crate) decoder_rows: usize,
    /// Largest rank of what a decoder block adds to a shared matrix; zero where none does.
    pub(crate) decoder_rank: usize,
    pub(crate) decoder_gate: bool,
    pub(crate) decoder_rotary: usize,
    pub(crate) vocabulary: usize,
    /// Samples that one step of the frontend reads.
    pub(crate) step_samples: usize,
    /// Values of the largest intermediate result of a frontend step, at even and odd positions of the chain.
    pub(crate) convolution_even: u64,
    pub(crate) convolution_odd: u64,
    /// Longest row that a frontend convolution quantizes.
    pub(crate) convolution_inputs: usize,
    /// Longest row that a frontend convolution splits in two; zero when none does.
    pub(crate) convolution_split: usize,
    /// Rows that stand for one row of a convolution's inputs, at most: 1 or 2.
    pub(crate) convolution_rows: usize,
    /// Whether a matrix is int4, or int3.
    pub(crate) has_int4: bool,
    /// Whether one is int3, of either coding.
    pub(crate) has_int3: bool,
    /// Values of the longest bias in f16.
    pub(crate) biases: usize,
    /// Values of the largest memory in f16, `[kernel, stride]`.
    pub(crate) taps: usize,
    /// Longest piece of the vocabulary, in bytes.
    pub(crate) piece: usize,
    /// Hypotheses of the search over CTC frames; zero where the CTC head is not asked for.
    pub(crate) ctc_beam: usize,
    /// Rows that stand for one row of the CTC head's input: 1 or 2, or zero likewise.
    pub(crate) ctc_rows: usize,
}

impl Sizes {
    pub(crate) fn of(model: &Model<'_>, limits: &Limits) -> Result<Self, Error> {
        let config = model.config();
        check_supported(model)?;
        if !(1.0..=60.0).contains(&limits.utterance_seconds) {
            return Err(Error::Limit { name: "utterance_seconds", least: 1, most: 60 });
        }
        if !(1..=MAX_BEAM).contains(&limits.beam) {
            return Err(Error::Limit { name: "beam", least: 1, most: MAX_BEAM as u32 });
        }
        let samples = (limits.utterance_seconds * SAMPLE_RATE as f32) as usize;
        let frames = encoder_frames(model, samples);
        if frames == 0 {
            return Err(Error::Unsupported("a frontend that sees more than the longest utterance"));
        }
        let tokens = max_tokens(config.tokens.max_per_second, samples);
        let mut sizes = Self {
            samples,
            frames,
            frame_capacity: frames.div_ceil(model.merged_frames()).next_multiple_of(16),
            tokens,
            beam: limits.beam,
            column_capacity: (tokens * limits.beam).next_multiple_of(16),
            encoder_source: model.encoder_inputs(),
            filter_bank: model.filter_bank().map(|bank| bank.config),
            encoder_width: config.encoder.width,
            encoder_caches: 1,
            chunk_frames: config.encoder.chunk.map_or(0, |chunk| chunk.frames),
            encoder_sinusoids: sinusoids::count(&config.encoder, model.encoder_inputs()),
            encoder_attention: config.encoder.attention_width(),
            encoder_feed_forward: config.encoder.feed_forward,
            encoder_heads: config.encoder.heads,
            encoder_head: config.encoder.head_width,
            encoder_is_float: encoder_is_float(model),
            encoder_memory: config.encoder.memory.is_some(),
            encoder_rows: block_rows(
                model.encoder_blocks().map(|block| (block.bits, block.feed_forward.down_bits)),
            ),
            encoder_rank: largest_rank(model, LayerKind::EncoderBlock),
            encoder_gate: config.encoder.activation == Activation::SwiGlu
                || model.encoder_blocks().any(|block| block.feed_forward.inner_norm.is_some()),
            encoder_rotary: config.encoder.rotary_width,
            attention_layers: model.decoder_blocks().filter_map(|block| block.sequence?.attention).count(),
            cross_layers: model.decoder_blocks().filter_map(|block| block.cross).count(),
            cross_is_float: model
                .decoder_blocks()
                .filter_map(|block| block.cross)
                .any(|cross| matches!(cross.attention.key.weight, Matrix::Float(_))),
            memory_layers: model.decoder_blocks().filter_map(|block| block.sequence?.memory).count(),
            memory_kernel: config.decoder.memory.map_or(0, |memory| memory.kernel),
            decoder_width: config.decoder.width,
            decoder_heads: config.decoder.heads,
            decoder_attention: config.decoder.attention_width(),
            decoder_feed_forward: config.decoder.feed_forward,
            decoder_rows: decoder_rows(model),
            decoder_rank: largest_rank(model, LayerKind::DecoderBlock),
            decoder_gate: config.decoder.activation == Activation::SwiGlu
                || model.decoder_blocks().any(|block| block.feed_forward.inner_norm.is_some()),
            decoder_rotary: config.decoder.rotary_width,
            vocabulary: config.vocabulary,
            step_samples: 0,
            convolution_even: 0,
            convolution_odd: 0,
            convolution_inputs: 0,
            convolution_split: 0,
            convolution_rows: 1,
            has_int4: false,
            has_int3: false,
            biases: 0,
            taps: 0,
            piece: model.vocabulary().longest(),
            ctc_beam: 0,
            ctc_rows: 0,
        };
        sizes.add_tensors(model);
        sizes.add_ctc(model, limits)?;
        sizes.add_frontend(model);
        Ok(sizes)
    }

    /// What tensors of some kinds need. One pass over the table, whose records are checked whenever they are read.
    fn add_tensors(&mut self, model: &Model<'_>) {
        for tensor in model.tensors().iter() {
            self.has_int4 |= tensor.kind.has_groups();
            self.has_int3 |= tensor.kind.int3_coding().is_some();
            let values = || tensor.floats().map_or(0, |floats| floats.len());
            match tensor.kind {
                TensorKind::HalfVector => self.biases = self.biases.max(values()),
                TensorKind::HalfFloat => self.taps = self.taps.max(values()),
                _ => {}
            }
        }
    }

    /// Those of an encoder that runs chunk by chunk: `frames` is what one cache holds.
    pub(crate) fn of_stream(model: &Model<'_>) -> Result<Self, Error> {
        let config = model.config().encoder;
        let ChunkConfig { frames, left } = config.chunk.ok_or(Error::NoChunks)?;
        let look_back = config.memory.map_or(0, |memory| memory.look_back());
        let kept = (left * frames).max(look_back);
        let sizes = Self::of(model, &Limits::default())?;
        Ok(Self { frames: kept + KEPT_STEP - 1 + frames, encoder_caches: config.layers, ..sizes })
    }

    /// Values of the encoder's states: `[frames, inputs or width]`.
    pub(crate) fn encoder_states(&self) -> u64 {
        region::count([self.frames as u64, self.encoder_state() as u64])
    }

    /// Keys of the encoder as floats: of all frames, or only of those that are about to become int8.
    pub(crate) fn encoder_float_keys(&self) -> usize {
        if self.encoder_is_float { self.encoder_floats() } else { self.encoder_pass() }
    }

    /// Values, likewise; a memory needs them all.
    pub(crate) fn encoder_float_values(&self) -> usize {
        let all = self.encoder_is_float || self.encoder_memory;
        if all { self.encoder_floats() } else { self.encoder_pass() }
    }

    fn encoder_floats(&self) -> usize {
        (self.frames + ROWS).saturating_mul(self.encoder_attention).saturating_mul(self.encoder_caches)
    }

    fn encoder_pass(&self) -> usize {
        (ROWS * self.encoder_rows).saturating_mul(self.encoder_attention)
    }

    /// Frames that a cache of the encoder holds as int8; none where they are floats.
    pub(crate) fn encoder_capacity(&self) -> usize {
        if self.encoder_is_float { 0 } else { frame_capacity(self.frames) }
    }

    /// Bytes of the keys, or the values, that the encoder keeps as int8.
    pub(crate) fn encoder_bytes(&self) -> usize {
        let capacity = self.encoder_capacity();
        frame_cache_bytes(self.encoder_heads, self.encoder_head, capacity).saturating_mul(self.encoder_caches)
    }

    /// Floats that attention works with.
    pub(crate) fn encoder_scores(&self) -> usize {
        if self.encoder_is_float {
            attend_scratch(self.frames, self.encoder_head)
        } else {
            frame_scratch(self.frames)
        }
    }

    /// Values a frame that the encoder's states need: what comes in or what goes out, whichever is more.
    pub(crate) fn encoder_state(&self) -> usize {
        self.encoder_source.max(self.encoder_width)
    }

    /// Longest row that the encoder quantizes.
    pub(crate) fn encoder_inputs(&self) -> usize {
        self.encoder_state().max(self.encoder_attention).max(self.encoder_feed_forward)
    }

    /// Values that splitting `rows` rows of `inputs` takes, where a layer splits rows at all.
    pub(crate) const fn split(rows: usize, copies: usize, inputs: usize) -> usize {
        if copies > 1 { rows * copies * inputs } else { 0 }
    }

    /// Bytes in which weights of fewer than eight bits, where there are such, are unpacked for `rows` rows of at most `inputs`.
    pub(crate) const fn room(&self, rows: usize, inputs: usize) -> usize {
        if self.has_int3 {
            Kernels::int3_room(rows, inputs)
        } else if self.has_int4 {
            Kernels::int4_room(rows, inputs)
        } else {
            0
        }
    }

    /// Layers whose cross-attention is kept as int8.
    pub(crate) fn cross_bytes(&self) -> usize {
        if self.cross_is_float { 0 } else { self.cross_layers }
    }

    /// Layers whose cross-attention is kept as floats.
    pub(crate) fn cross_floats(&self) -> usize {
        if self.cross_is_float { self.cross_layers } else { 0 }
    }

    /// Values of the ring of one memory.
    pub(crate) fn memory_ring(&self) -> usize {
        self.memory_kernel * self.beam * self.decoder_width
    }

    /// Longest row that the decoder quantizes, the encoder's output among them.
    pub(crate) fn decoder_inputs(&self) -> usize {
        let own = self.decoder_width.max(self.decoder_attention).max(self.decoder_feed_forward);
        own.max(self.encoder_width)
    }

    fn add_ctc(&mut self, model: &Model<'_>, limits: &Limits) -> Result<(), Error> {
        self.ctc_beam = match limits.decoding {
            Decoding::Attention => return Ok(()),
            Decoding::CtcGreedy => 1,
            Decoding::CtcBeam => limits.beam,
            Decoding::Rescore { ctc_weight } if (0.0..=100.0).contains(&ctc_weight) => limits.beam,
            Decoding::Rescore { .. } => {
                return Err(Error::Limit { name: "ctc_weight", least: 0, most: 100 });
            }
        };
        self.ctc_rows = result_rows(model.ctc().ok_or(Error::NoCtcHead)?.bits);
        Ok(())
    }

    /// Walks the frontend backwards: what a step of the last convolution needs from each one before it.
    fn add_frontend(&mut self, model: &Model<'_>) {
        let count = model.config().frontend.convolutions;
        let mut frames = FRONTEND_FRAMES;
        for index in (0..count).rev() {
            let Some(convolution) = model.convolutions().nth(index) else { break };
            // The last rows of a product at sixteen bits need room for as many again.
            let values = region::count([(frames + ROWS) as u64, convolution.outputs as u64]);
            let largest = if index % 2 == 0 { &mut self.convolution_even } else { &mut self.convolution_odd };
            *largest = values.max(*largest);
            let inputs = convolution.linear.weight.inputs();
            self.convolution_inputs = self.convolution_inputs.max(inputs);
            if result_rows(convolution.bits) > 1 {
                self.convolution_rows = 2;
                self.convolution_split = self.convolution_split.max(inputs);
            }
            frames = input_frames(&convolution, frames);
        }
        self.step_samples = frames;
    }
}

/// Whether an encoder attends in floats: one whose matrices are floats, or whose activations have sixteen bits.
pub(crate) fn encoder_is_float(model: &Model<'_>) -> bool {
    model.encoder_blocks().any(|block| {
        block.bits == ActivationBits::Sixteen || matches!(block.attention.key.weight, Matrix::Float(_))
    })
}

/// Columns of an int8 cache for `frames` frames.
pub(crate) fn frame_capacity(frames: usize) -> usize {
    frames.next_multiple_of(16)
}

/// Encoder frames of `samples` samples; none where the frontend sees more than there are.
fn encoder_frames(model: &Model<'_>, samples: usize) -> usize {
    match model.config().frontend.kind {
        FrontendKind::FilterBank(bank) => filter_bank::rows(&bank, samples),
        FrontendKind::Waveform => {
            model.convolutions().fold(samples, |frames, convolution| output_frames(&convolution, frames))
        }
    }
}

/// Frames that a convolution makes of `frames` frames.
pub(crate) fn output_frames(convolution: &Convolution<'_>, frames: usize) -> usize {
    if frames < convolution.kernel { 0 } else { (frames - convolution.kernel) / convolution.stride + 1 }
}

/// Frames that a convolution needs to make `frames` frames, at least one.
pub(crate) fn input_frames(convolution: &Convolution<'_>, frames: usize) -> usize {
    frames.saturating_sub(1).saturating_mul(convolution.stride).saturating_add(convolution.kernel)
}

/// Tokens allowed for an utterance of `samples` samples.
pub(crate) fn max_tokens(per_second: f32, samples: usize) -> usize {
    let seconds = samples as f32 / SAMPLE_RATE as f32;
    (libm::ceilf(seconds * per_second) as usize).max(LEAST_TOKENS)
}

fn decoder_rows(model: &Model<'_>) -> usize {
    let blocks = block_rows(model.decoder_blocks().map(|block| (block.bits, block.feed_forward.down_bits)));
    blocks.max(result_rows(model.output().bits))
}

fn block_rows(bits: impl Iterator<Item = (ActivationBits, ActivationBits)>) -> usize {
    bits.map(|(own, down)| result_rows(own).max(result_rows(down))).max().unwrap_or(1)
}

fn check_supported(model: &Model<'_>) -> Result<(), Error> {
    let config = model.config();
    if config.frontend.sample_rate != SAMPLE_RATE {
        return Err(Error::Unsupported("another sample rate than 16 kHz"));
    }
    Ok(())
}
