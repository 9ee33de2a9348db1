//! The incremental decoder: one token a step for each hypothesis, over cached keys and values.
//!
//! Cross-attention's keys and values are computed once an utterance. Both caches are int8 with a scale for each
//! head and frame, frames side by side.

use crate::alignment;
use crate::encoder::{RotaryTables, attention_shape, feed_forward, norm_rows};
use crate::error::Error;
use crate::project::{Input, Rounding, part, part_mut, prefix, prefix_mut};
use crate::region::buffers;
use crate::residual::Need;
use crate::sizes::Sizes;
use kinglet_kernels::{Cache, CacheMut, Kernels, Rows, dequantize_int4_row, dequantize_row};
use kinglet_model_format::{
    ActivationBits, CrossAttention, DecoderBlock, Matrix, Model, OutputHead, Sequence, StackConfig,
};

/// Frames that are written to a cache together.
const CACHE_FRAMES: usize = 16;

buffers! {
    /// Keys and values of cross-attention, all layers.
    CrossBuffers(sizes: Sizes) phase "decoder" {
        /// `[layers, attention width, frames]`.
        keys: [i8; sizes.decoder_layers * sizes.decoder_attention * sizes.frame_capacity],
        /// `[layers, attention width, frames]`.
        values: [i8; sizes.decoder_layers * sizes.decoder_attention * sizes.frame_capacity],
        /// `[layers, heads, frames]`.
        key_scales: [f32; sizes.decoder_layers * sizes.decoder_heads * sizes.frame_capacity],
        /// `[layers, heads, frames]`.
        value_scales: [f32; sizes.decoder_layers * sizes.decoder_heads * sizes.frame_capacity],
        /// `[CACHE_FRAMES, attention width]`.
        projected: [f32; CACHE_FRAMES * sizes.decoder_attention],
        /// Room for residuals.
        spare: [f32; Need::decoder(sizes, CACHE_FRAMES).floats],
        /// `[CACHE_FRAMES, width]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(CACHE_FRAMES, sizes.encoder_width) + Need::decoder(sizes, CACHE_FRAMES).bytes],
        /// `[CACHE_FRAMES]`; and room for residuals.
        row_scales: [f32; CACHE_FRAMES + Need::decoder(sizes, CACHE_FRAMES).scales],
    }
}

buffers! {
    /// Working memory of the decoder.
    DecoderBuffers(sizes: Sizes) phase "decoder" {
        /// `[layers, attention width, columns]`.
        keys: [i8; sizes.decoder_layers * sizes.decoder_attention * sizes.column_capacity],
        /// `[layers, attention width, columns]`.
        values: [i8; sizes.decoder_layers * sizes.decoder_attention * sizes.column_capacity],
        /// `[layers, heads, columns]`.
        key_scales: [f32; sizes.decoder_layers * sizes.decoder_heads * sizes.column_capacity],
        /// `[layers, heads, columns]`.
        value_scales: [f32; sizes.decoder_layers * sizes.decoder_heads * sizes.column_capacity],
        /// `[columns, frames]`: how much the token behind each column attended to each frame.
        attention: [u8; sizes.column_capacity * sizes.frame_capacity],
        /// `[beam, frames]`: the sums of those over heads and layers while they are made.
        attention_sums: [f32; sizes.beam * sizes.frame_capacity],
        /// `[heads, frames or columns]`.
        probabilities: [f32; sizes.decoder_heads * sizes.frame_capacity.max(sizes.column_capacity)],
        /// `[frames or columns]`.
        scratch: [f32; sizes.frame_capacity.max(sizes.column_capacity)],
        /// `[beam, width]`.
        states: [f32; sizes.beam * sizes.decoder_width],
        /// `[beam, width]`.
        normed: [f32; sizes.beam * sizes.decoder_rows * sizes.decoder_width.max(sizes.decoder_attention)],
        /// `[beam, attention width]`.
        queries: [f32; sizes.beam * sizes.decoder_rows * sizes.decoder_width.max(sizes.decoder_attention)],
        /// `[beam, attention width]`.
        projected: [f32; sizes.beam * sizes.decoder_rows * sizes.decoder_attention],
        /// `[beam, feed-forward width]`.
        middle: [f32; sizes.beam * sizes.decoder_rows * sizes.decoder_feed_forward],
        /// `[beam, feed-forward width]`, where there is a gate.
        gate: [f32; if sizes.decoder_gate { sizes.beam * sizes.decoder_rows * sizes.decoder_feed_forward } else { 0 }],
        /// `[2 beam, inputs]`, where a block splits rows; and room for residuals.
        split: [f32; Sizes::split(sizes.beam, sizes.decoder_rows, sizes.decoder_inputs()).max(Need::decoder(sizes, sizes.beam).floats)],
        /// `[beam or 2 beam, inputs]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(sizes.beam * sizes.decoder_rows, sizes.decoder_inputs()) + Need::decoder(sizes, sizes.beam).bytes],
        /// `[beam or 2 beam]`; and room for residuals.
        row_scales: [f32; sizes.beam * sizes.decoder_rows + Need::decoder(sizes, sizes.beam).scales],
        /// `[beam, vocabulary]`.
        logits: [f32; sizes.beam * sizes.decoder_rows * sizes.vocabulary],
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
    cross: CrossBuffers<'b>,
    buffers: DecoderBuffers<'b>,
}

/// Fills the cross-attention caches from the encoder's output `[frames, width]`.
pub(crate) fn fill_cross(
    kernels: Kernels,
    model: &Model<'_>,
    frames: usize,
    sizes: &Sizes,
    states: &[f32],
    cross: &mut CrossBuffers<'_>,
) -> Result<(), Error> {
    let (width, config) = (model.config().encoder.width, model.config().decoder);
    let inner = config.attention_width();
    let capacity = sizes.frame_capacity;
    let CrossBuffers { keys, values, key_scales, value_scales, projected, spare, rows, row_scales } = cross;
    for first in (0..frames).step_by(CACHE_FRAMES) {
        let count = CACHE_FRAMES.min(frames - first);
        let source = Rows { values: part(states, first * width, count * width)?, stride: width };
        // What comes of it is kept as int8: sixteen bits here would be lost there.
        let mut rounding = Rounding { split: spare, rows, scales: row_scales };
        let input = Input::new(kernels, ActivationBits::Eight, source, count, width, &mut rounding)?;
        for (layer, block) in model.decoder_blocks().enumerate() {
            let Some(CrossAttention { attention, .. }) = &block.cross else { continue };
            for (linear, cache, scales) in [
                (&attention.key, &mut *keys, &mut *key_scales),
                (&attention.value, &mut *values, &mut *value_scales),
            ] {
                input.times(linear, projected)?;
                let cache = part_mut(cache, layer * inner * capacity, inner * capacity)?;
                let scales = part_mut(scales, layer * config.heads * capacity, config.heads * capacity)?;
                let cache = CacheMut { values: cache, scales, capacity };
                let projected = Rows { values: projected, stride: inner };
                kernels.cache_write(projected, count, config.heads, config.head_width, first, cache)?;
            }
        }
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
            cross,
            buffers,
        }
    }

    /// Log-odds of every token behind hypothesis `index`, `[vocabulary]`.
    pub(crate) fn logits(&self, index: usize) -> Result<&[f32], Error> {
        let vocabulary = self.output.vocabulary.weight.outputs();
        part(self.buffers.logits, index * vocabulary, vocabulary)
    }

    /// The attention rows of all columns, to be used up by the alignment.
    pub(crate) fn into_attention(self) -> (&'b mut [u8], &'b mut [f32]) {
        (self.buffers.attention, self.buffers.attention_sums)
    }

    /// Runs all hypotheses through one step; their logits are there afterwards.
    pub(crate) fn step(&mut self, input: &StepInput<'_>) -> Result<(), Error> {
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let width = config.width;
        self.embed(input)?;
        self.buffers.attention_sums.fill(0.0);
        let model = self.model;
        for (layer, block) in model.decoder_blocks().enumerate() {
            self.self_attention(layer, &block, input)?;
            self.cross_attention(layer, &block, input)?;
            let DecoderBuffers { states, normed, middle, gate, split, rows, row_scales, .. } =
                &mut self.buffers;
            let mut rounding = Rounding { split, rows, scales: row_scales };
            let states = prefix_mut(states, count * width)?;
            norm_rows(kernels, &block.feed_forward_norm, &config, states, count, normed)?;
            let network = &block.feed_forward;
            feed_forward(kernels, &config, block.bits, network, count, normed, middle, gate, &mut rounding)?;
            kernels.add(states, normed)?;
        }
        self.store_attention(input);
        let DecoderBuffers { states, normed, split, rows, row_scales, logits, .. } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        norm_rows(kernels, &self.output.norm, &config, states, count, normed)?;
        let (source, bits) = (Rows { values: normed, stride: width }, self.output.bits);
        Input::new(kernels, bits, source, count, width, &mut rounding)?.times(&self.output.vocabulary, logits)
    }

    fn embed(&mut self, input: &StepInput<'_>) -> Result<(), Error> {
        for (row, &token) in self.buffers.states.chunks_exact_mut(self.config.width).zip(input.tokens) {
            match self.output.embedding {
                Matrix::Int8(embedding) => dequantize_row(&embedding, token as usize, row)?,
                Matrix::Int4(embedding) => dequantize_int4_row(&embedding, token as usize, row)?,
                _ => return Err(Error::Unsupported("an embedding that is neither int8 nor int4")),
            }
        }
        Ok(())
    }

    fn self_attention(
        &mut self,
        layer: usize,
        block: &DecoderBlock<'_>,
        input: &StepInput<'_>,
    ) -> Result<(), Error> {
        let Some(Sequence { norm, attention: Some(attention), .. }) = &block.sequence else { return Ok(()) };
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let (width, inner, capacity) = (config.width, config.attention_width(), self.column_capacity);
        let shape = attention_shape(&config);
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
            split,
            rows,
            row_scales,
            ..
        } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        let states = prefix_mut(states, count * width)?;
        norm_rows(kernels, norm, &config, states, count, normed)?;
        let quantized = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: width },
            count,
            width,
            &mut rounding,
        )?;
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
        let quantized = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: inner },
            count,
            inner,
            &mut rounding,
        )?;
        quantized.times(&attention.output, queries)?;
        kernels.add(states, queries)?;
        Ok(())
    }

    fn cross_attention(
        &mut self,
        layer: usize,
        block: &DecoderBlock<'_>,
        input: &StepInput<'_>,
    ) -> Result<(), Error> {
        let Some(CrossAttention { norm, attention }) = &block.cross else { return Ok(()) };
        let (kernels, config, count) = (self.kernels, self.config, input.count);
        let (width, inner, capacity) = (config.width, config.attention_width(), self.frame_capacity);
        let shape = attention_shape(&config);
        let (length, scale_count) = (inner * capacity, config.heads * capacity);
        let keys = Cache {
            values: part(self.cross.keys, layer * length, length)?,
            scales: part(self.cross.key_scales, layer * scale_count, scale_count)?,
            capacity,
        };
        let values = Cache {
            values: part(self.cross.values, layer * length, length)?,
            scales: part(self.cross.value_scales, layer * scale_count, scale_count)?,
            capacity,
        };
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
            ..
        } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        let states = prefix_mut(states, count * width)?;
        norm_rows(kernels, norm, &config, states, count, normed)?;
        let quantized = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: width },
            count,
            width,
            &mut rounding,
        )?;
        quantized.times(&attention.query, queries)?;
        let queries_of = prefix(queries, count * inner)?.chunks_exact(inner);
        for (index, (query, sums)) in queries_of.zip(attention_sums.chunks_exact_mut(capacity)).enumerate() {
            let out = part_mut(normed, index * inner, inner)?;
            kernels.attend_cached(&shape, query, keys, values, self.frames, probabilities, scratch, out)?;
            let sums = prefix_mut(sums, self.frames)?;
            for head in probabilities.chunks_exact(capacity).take(config.heads) {
                kernels.add(sums, head)?;
            }
        }
        let quantized = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: inner },
            count,
            inner,
            &mut rounding,
        )?;
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
