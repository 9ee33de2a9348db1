//! The incremental decoder: one token a step for each hypothesis, over cached keys and values.
//!
//! Cross-attention's keys and values are computed once an utterance. Both caches are int8 with a scale for each
//! head and frame, frames side by side; those of a model whose matrices are floats hold floats. A memory keeps its last
//! tokens in a ring.

use crate::alignment;
use crate::cross_cache::{CrossBuffers, CrossCache};
use crate::encoder::{RotaryTables, attention_shape, feed_forward, norm_rows};
use crate::error::Error;
use crate::memory::{self, Ring};
use crate::project::{Input, Rounding, part, part_mut, prefix, prefix_mut};
use crate::region::buffers;
use crate::residual::Need;
use crate::sizes::Sizes;
use kinglet_kernels::{
    Cache, CacheMut, Kernels, Rows, TimeConvolution, dequantize_int3_row, dequantize_int4_row,
    dequantize_row, dequantize_sparse_int4_row, dequantize_sparse_row,
};
use kinglet_model_format::{
    ActivationBits, Attention, CrossAttention, DecoderBlock, Matrix, Memory, Model, OutputHead, Sequence,
    StackConfig,
};

buffers! {
    /// Working memory of the decoder.
    DecoderBuffers(sizes: Sizes) phase "decoder" {
        /// `[layers with self-attention, attention width, columns]`.
        keys: [i8; sizes.attention_layers, sizes.decoder_attention, sizes.column_capacity],
        /// `[layers with self-attention, attention width, columns]`.
        values: [i8; sizes.attention_layers, sizes.decoder_attention, sizes.column_capacity],
        /// `[layers with self-attention, heads, columns]`.
        key_scales: [f32; sizes.attention_layers, sizes.decoder_heads, sizes.column_capacity],
        /// `[layers with self-attention, heads, columns]`.
        value_scales: [f32; sizes.attention_layers, sizes.decoder_heads, sizes.column_capacity],
        /// `[layers with a memory][kernel, beam, width]`: the last tokens of all hypotheses.
        memories: [f32; sizes.memory_layers, sizes.memory_ring()],
        /// `[kernel, width]`: those of one hypothesis.
        remembered: [f32; usize::from(sizes.memory_layers > 0), sizes.memory_kernel, sizes.decoder_width],
        /// [`Sizes::taps`].
        taps: [f32; usize::from(sizes.memory_layers > 0), sizes.taps],
        /// `[columns, frames]`: how much the token behind each column attended to each frame.
        attention: [u8; sizes.column_capacity, sizes.frame_capacity],
        /// `[beam, frames]`: the sums of those over heads and layers while they are made.
        attention_sums: [f32; sizes.beam, sizes.frame_capacity],
        /// `[heads, frames or columns]`.
        probabilities: [f32; sizes.decoder_heads, sizes.frame_capacity.max(sizes.column_capacity)],
        /// `[frames or columns]`.
        scratch: [f32; sizes.frame_capacity.max(sizes.column_capacity)],
        /// `[beam, width]`.
        states: [f32; sizes.beam, sizes.decoder_width],
        /// `[beam, width]`.
        normed: [f32; sizes.beam, sizes.decoder_rows, sizes.decoder_width.max(sizes.decoder_attention)],
        /// `[beam, attention width]`.
        queries: [f32; sizes.beam, sizes.decoder_rows, sizes.decoder_width.max(sizes.decoder_attention)],
        /// `[beam, attention width]`.
        projected: [f32; sizes.beam, sizes.decoder_rows, sizes.decoder_attention],
        /// `[beam, feed-forward width]`.
        middle: [f32; sizes.beam, sizes.decoder_rows, sizes.decoder_feed_forward],
        /// `[beam, feed-forward width]`, where there is a gate or a norm before `down`.
        gate: [f32; usize::from(sizes.decoder_gate), sizes.beam, sizes.decoder_rows, sizes.decoder_feed_forward],
        /// `[2 beam, inputs]`, where a block splits rows; and room for residuals.
        split: [f32; Sizes::split(sizes.beam, sizes.decoder_rows, sizes.decoder_inputs()).max(Need::decoder(sizes, sizes.beam).floats)],
        /// `[beam or 2 beam, inputs]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(sizes.beam * sizes.decoder_rows, sizes.decoder_inputs()) + Need::decoder(sizes, sizes.beam).bytes],
        /// `[beam or 2 beam]`; and room for residuals.
        row_scales: [f32; sizes.beam * sizes.decoder_rows + Need::decoder(sizes, sizes.beam).scales],
        /// [`Sizes::biases`].
        bias: [f32; sizes.biases],
        /// A panel of an int4 matrix as int8.
        room: [i8; sizes.room(sizes.beam * sizes.decoder_rows, sizes.decoder_inputs())],
        /// `[beam, vocabulary]`.
        logits: [f32; sizes.beam, sizes.decoder_rows, sizes.vocabulary],
    }
}

/// What one step decodes: `count` hypotheses, each with an input token and the columns before it.
pub(crate) struct StepInput<'a> {
    pub(crate) step: usize,
    pub(crate) beam: usize,
    pub(crate) count: usize,
    /// `[count]`: the input tokens.
    pub(crate) tokens: &'a [u32],
    /// `[count, path_stride]`: the columns of each hypothesis, the input token's included.
    pub(crate) paths: &'a [u16],
    pub(crate) path_stride: usize,
}

/// The decoder with the caches of one utterance.
pub(crate) struct Decoder<'m, 'b> {
    kernels: Kernels,
    model: Model<'m>,
    config: StackConfig,
    output: OutputHead<'m>,
    rotary: RotaryTables<'b>,
    frames: usize,
    frame_capacity: usize,
    column_capacity: usize,
    cross_is_float: bool,
    memory_ring: usize,
    cross: CrossBuffers<'b>,
    buffers: DecoderBuffers<'b>,
}

/// Which caches the next block uses: each kind is counted by itself, as a block need not have all.
#[derive(Default)]
struct Caches {
    attentions: usize,
    crosses: usize,
    memories: usize,
}

impl Caches {
    fn next_attention(&mut self) -> usize {
        self.attentions += 1;
        self.attentions - 1
    }

    fn next_cross(&mut self) -> usize {
        self.crosses += 1;
        self.crosses - 1
    }

    /// The ring of the next memory among all of them, `length` values each.
    fn next_memory<'a>(&mut self, memories: &'a mut [f32], length: usize) -> Result<&'a mut [f32], Error> {
        self.memories += 1;
        part_mut(memories, (self.memories - 1) * length, length)
    }
}

/// Adds the memory of `rows [count, width]`, one row a hypothesis, to the states.
fn remember(
    kernels: Kernels,
    memory: &TimeConvolution<'_>,
    ring: &mut [f32],
    input: &StepInput<'_>,
    rows: &[f32],
    gathered: &mut [f32],
    states: &mut [f32],
) -> Result<(), Error> {
    let width = memory.weights.outputs();
    let mut ring = Ring { frames: ring, beam: input.beam };
    let hypotheses = rows.chunks_exact(width).zip(states.chunks_exact_mut(width)).take(input.count);
    for (slot, (row, out)) in hypotheses.enumerate() {
        let path = input.paths.get(slot * input.path_stride..).unwrap_or(&[]);
        ring.add(kernels, memory, (input.step, slot, path), row, gathered, out)?;
    }
    Ok(())
}

impl<'m, 'b> Decoder<'m, 'b> {
    /// A decoder whose cross-attention caches hold `frames` frames.
    pub(crate) fn new(
        kernels: Kernels,
        model: Model<'m>,
        rotary: RotaryTables<'b>,
        frames: usize,
        sizes: &Sizes,
        cross: CrossBuffers<'b>,
        buffers: DecoderBuffers<'b>,
    ) -> Self {
        let config = model.config().decoder;
        let output = model.output();
        let (frame_capacity, column_capacity) = (sizes.frame_capacity, sizes.column_capacity);
        Self {
            kernels,
            model,
            config,
            output,
            rotary,
            frames,
            frame_capacity,
            column_capacity,
            cross_is_float: sizes.cross_is_float,
            memory_ring: sizes.memory_ring(),
            cross,
            buffers,
        }
    }

    /// Log-odds of every token behind hypothesis `index`, `[vocabulary]`.
    pub(crate) fn logits(&self, index: usize) -> Result<&[f32], Error> {
        let vocabulary = self.output.vocabulary.weight.outputs();
        part(self.buffers.logits, index * vocabulary, vocabulary)
    }

    /// Makes tokens impossible behind the first hypothesis.
    pub(crate) fn forbid(&mut self, forbidden: &dyn Fn(u32) -> bool) -> Result<(), Error> {
        let vocabulary = self.output.vocabulary.weight.outputs();
        for (token, logit) in prefix_mut(self.buffers.logits, vocabulary)?.iter_mut().enumerate() {
            if forbidden(token as u32) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// The attention rows of all columns, to be used up by the alignment.
    pub(crate) fn into_attention(self) -> (&'b mut [u8], &'b mut [f32]) {
        (self.buffers.attention, self.buffers.attention_sums)
    }

    /// Runs all hypotheses through one step; their logits are there afterwards.
    pub(crate) fn step(&mut self, input: &StepInput<'_>) -> Result<(), Error> {
        self.step_observed(input, &mut |_| ())
    }

    /// [`step`](Self::step), showing `observer` the states behind each block.
    pub(crate) fn step_observed(
        &mut self,
        input: &StepInput<'_>,
        observer: &mut dyn FnMut(&[f32]),
    ) -> Result<(), Error> {
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let width = config.width;
        self.embed(input)?;
        self.buffers.attention_sums.fill(0.0);
        let model = self.model;
        let mut caches = Caches::default();
        for block in model.decoder_blocks() {
            if block.feed_forward_first {
                self.feed_forward(&block, count)?;
            }
            if let Some(sequence) = &block.sequence {
                self.sequence(&mut caches, &block, sequence, input)?;
            } else if block.feed_forward_first {
                let DecoderBuffers { states, normed, .. } = &mut self.buffers;
                prefix_mut(states, count * width)?.copy_from_slice(prefix(normed, count * width)?);
            }
            if let Some(cross) = &block.cross {
                self.cross_attention(&mut caches, block.bits, cross, input)?;
            }
            if !block.feed_forward_first {
                self.feed_forward(&block, count)?;
                let DecoderBuffers { states, normed, .. } = &mut self.buffers;
                kernels.add(prefix_mut(states, count * width)?, normed)?;
            }
            observer(prefix(self.buffers.states, count * width)?);
        }
        self.store_attention(input);
        let DecoderBuffers { states, normed, split, rows, row_scales, bias, room, logits, .. } =
            &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        norm_rows(kernels, &self.output.norm, &config, states, count, normed)?;
        let (source, bits) = (Rows { values: normed, stride: width }, self.output.bits);
        Input::new(kernels, bits, source, count, width, &mut rounding)?.times(&self.output.vocabulary, logits)
    }

    fn embed(&mut self, input: &StepInput<'_>) -> Result<(), Error> {
        for (row, &token) in self.buffers.states.chunks_exact_mut(self.config.width).zip(input.tokens) {
            match self.output.embedding {
                Matrix::Int8(embedding) => dequantize_row(&embedding, token as usize, row)?,
                Matrix::Int4(embedding) => dequantize_int4_row(&embedding, token as usize, row)?,
                Matrix::Int3(embedding) => dequantize_int3_row(&embedding, token as usize, row)?,
                Matrix::SparseInt8(embedding) => dequantize_sparse_row(&embedding, token as usize, row)?,
                Matrix::SparseInt4(embedding) => {
                    dequantize_sparse_int4_row(&embedding, token as usize, row)?;
                }
                Matrix::Float(embedding) => {
                    let column = embedding.values().iter().skip(token as usize);
                    let values = column.step_by(embedding.padded_outputs());
                    row.iter_mut().zip(values).for_each(|(out, value)| *out = *value);
                }
            }
        }
        Ok(())
    }

    /// The feed-forward network of the states, into `normed`.
    fn feed_forward(&mut self, block: &DecoderBlock<'_>, count: usize) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let DecoderBuffers { states, normed, middle, gate, split, rows, row_scales, bias, room, .. } =
            &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        norm_rows(kernels, &block.feed_forward_norm, &config, states, count, normed)?;
        let network = &block.feed_forward;
        feed_forward(kernels, &config, block.bits, network, count, normed, middle, gate, &mut rounding)
    }

    /// Adds self-attention and memory to the states. Their input is the states, or what the feed-forward network left in
    /// `normed`.
    fn sequence(
        &mut self,
        caches: &mut Caches,
        block: &DecoderBlock<'_>,
        sequence: &Sequence<'_>,
        input: &StepInput<'_>,
    ) -> Result<(), Error> {
        let values = input.count * self.config.width;
        let DecoderBuffers { states, normed, queries, .. } = &mut self.buffers;
        let source = if block.feed_forward_first {
            let copy = prefix_mut(queries, values)?;
            copy.copy_from_slice(prefix(normed, values)?);
            &*copy
        } else {
            prefix(states, values)?
        };
        norm_rows(self.kernels, &sequence.norm, &self.config, source, input.count, normed)?;
        if let Some(attention) = &sequence.attention {
            self.self_attention(caches, block.bits, attention, sequence.memory.as_ref(), input)?;
        } else if let Some(memory) = &sequence.memory {
            let DecoderBuffers { states, normed, memories, remembered, taps, .. } = &mut self.buffers;
            let memories = caches.next_memory(memories, self.memory_ring)?;
            let memory = memory::convolution(memory, taps)?;
            remember(self.kernels, &memory, memories, input, normed, remembered, states)?;
        }
        Ok(())
    }

    /// Attention over the tokens so far and the memory of its values, of what is in `normed`.
    fn self_attention(
        &mut self,
        caches: &mut Caches,
        bits: ActivationBits,
        attention: &Attention<'_>,
        memory: Option<&Memory<'_>>,
        input: &StepInput<'_>,
    ) -> Result<(), Error> {
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let (width, inner, capacity) = (config.width, config.attention_width(), self.column_capacity);
        let shape = attention_shape(&config);
        let layer = caches.next_attention();
        let DecoderBuffers {
            keys,
            values,
            key_scales,
            value_scales,
            states,
            normed,
            queries,
            projected,
            probabilities,
            scratch,
            memories,
            remembered,
            taps,
            split,
            rows,
            row_scales,
            bias,
            room,
            ..
        } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        let states = prefix_mut(states, count * width)?;
        let quantized =
            Input::new(kernels, bits, Rows { values: normed, stride: width }, count, width, &mut rounding)?;
        let keys = part_mut(keys, layer * inner * capacity, inner * capacity)?;
        let values = part_mut(values, layer * inner * capacity, inner * capacity)?;
        let scale_count = config.heads * capacity;
        let key_scales = part_mut(key_scales, layer * scale_count, scale_count)?;
        let value_scales = part_mut(value_scales, layer * scale_count, scale_count)?;
        let first_column = input.step * input.beam;
        quantized.times(&attention.key, projected)?;
        for row in prefix_mut(projected, count * inner)?.chunks_exact_mut(inner) {
            self.rotary.turn(kernels, &config, input.step, row)?;
        }
        let stride = inner;
        let (heads, head_width) = (config.heads, config.head_width);
        let cache = CacheMut { values: keys, scales: key_scales, capacity };
        kernels.cache_write(
            Rows { values: projected, stride },
            count,
            heads,
            head_width,
            first_column,
            cache,
        )?;
        quantized.times(&attention.value, projected)?;
        if let Some(memory) = memory {
            let memories = caches.next_memory(memories, self.memory_ring)?;
            let memory = memory::convolution(memory, taps)?;
            remember(kernels, &memory, memories, input, projected, remembered, states)?;
        }
        let cache = CacheMut { values, scales: value_scales, capacity };
        kernels.cache_write(
            Rows { values: projected, stride },
            count,
            heads,
            head_width,
            first_column,
            cache,
        )?;
        quantized.times(&attention.query, queries)?;
        let keys = Cache { values: keys, scales: key_scales, capacity };
        let values = Cache { values, scales: value_scales, capacity };
        for (index, query) in prefix_mut(queries, count * inner)?.chunks_exact_mut(inner).enumerate() {
            self.rotary.turn(kernels, &config, input.step, query)?;
            let out = part_mut(normed, index * inner, inner)?;
            let frames = input.step + 1;
            if input.beam == 1 {
                kernels.attend_cached(&shape, query, keys, values, frames, probabilities, scratch, out)?;
            } else {
                let path = part(input.paths, index * input.path_stride, frames)?;
                kernels.attend_cached_gather(
                    &shape,
                    query,
                    keys,
                    values,
                    path,
                    probabilities,
                    scratch,
                    out,
                )?;
            }
        }
        let quantized =
            Input::new(kernels, bits, Rows { values: normed, stride: inner }, count, inner, &mut rounding)?;
        quantized.times(&attention.output, queries)?;
        kernels.add(states, queries)?;
        Ok(())
    }

    fn cross_attention(
        &mut self,
        caches: &mut Caches,
        bits: ActivationBits,
        CrossAttention { norm, attention }: &CrossAttention<'_>,
        input: &StepInput<'_>,
    ) -> Result<(), Error> {
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let (width, inner, capacity) = (config.width, config.attention_width(), self.frame_capacity);
        let shape = attention_shape(&config);
        let layer = caches.next_cross();
        let cache = CrossCache::of(&self.cross, layer, &config, capacity, self.cross_is_float)?;
        let DecoderBuffers {
            states,
            normed,
            queries,
            probabilities,
            scratch,
            attention_sums,
            split,
            rows,
            row_scales,
            bias,
            room,
            ..
        } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        let states = prefix_mut(states, count * width)?;
        norm_rows(kernels, norm, &config, states, count, normed)?;
        let quantized =
            Input::new(kernels, bits, Rows { values: normed, stride: width }, count, width, &mut rounding)?;
        quantized.times(&attention.query, queries)?;
        let queries_of = prefix(queries, count * inner)?.chunks_exact(inner);
        for (index, (query, sums)) in queries_of.zip(attention_sums.chunks_exact_mut(capacity)).enumerate() {
            let out = part_mut(normed, index * inner, inner)?;
            cache.attend(kernels, &shape, query, self.frames, probabilities, scratch, out)?;
            let sums = prefix_mut(sums, self.frames)?;
            for head in probabilities.chunks_exact(capacity).take(config.heads) {
                kernels.add(sums, head)?;
            }
        }
        let quantized =
            Input::new(kernels, bits, Rows { values: normed, stride: inner }, count, inner, &mut rounding)?;
        quantized.times(&attention.output, queries)?;
        kernels.add(states, queries)?;
        Ok(())
    }

    /// Keeps what each hypothesis attended to in its column.
    fn store_attention(&mut self, input: &StepInput<'_>) {
        let DecoderBuffers { attention, attention_sums, .. } = &mut self.buffers;
        let first = input.step * input.beam;
        let rows = attention.chunks_exact_mut(self.frame_capacity).skip(first);
        let sums = attention_sums.chunks_exact(self.frame_capacity).take(input.count);
        for (row, sums) in rows.zip(sums) {
            alignment::store_row(sums.get(..self.frames).unwrap_or(sums), row);
        }
    }
}
