//! The encoder, in place over `[frames, width]` states.
//!
//! Each block first fills keys and values of all frames, then takes [`ROWS`] frames at a time through attention, memory
//! and feed-forward: what is wide exists only for those. A stream does the same with the frames of one chunk, behind the
//! keys and values that its cache kept of those before it.

use crate::angles::Angle;
use crate::error::Error;
use crate::frontend::activate;
use crate::memory;
use crate::merge::merge_frames;
use crate::project::{Input, Rounding, part, part_mut, prefix, prefix_mut, result_rows};
use crate::region::{Region, buffers};
use crate::residual::Need;
use crate::sinusoids;
use crate::sizes::{ROWS, Sizes, encoder_is_float, frame_capacity};
use core::ops::Range;
use kinglet_kernels::{
    AttentionShape, FrameCache, FrameCacheMut, Kernels, Rows, frame_cache_bytes, frame_cache_scales,
    frame_scratch_bytes,
};
use kinglet_model_format::{
    ActivationBits, ChunkConfig, EncoderBlock, FeedForward, Model, Norm, StackConfig,
};

/// Query rows that attention takes at once.
const QUERIES: usize = 16;

buffers! {
    /// Working memory of the encoder.
    EncoderBuffers(sizes: Sizes) phase "encoder" {
        /// `[caches][frames, attention width]`, each with room for the rows of a product at sixteen bits; where they are kept as
        /// int8, `[ROWS, attention width]`.
        keys: [f32; sizes.encoder_float_keys()],
        /// The same; all frames where there is a memory.
        values: [f32; sizes.encoder_float_values()],
        /// `[caches]` of the keys of a [`FrameCache`], where they are kept as int8.
        key_bytes: [i8; sizes.encoder_bytes()],
        /// `[caches]` of its values.
        value_bytes: [i8; sizes.encoder_bytes()],
        /// `[caches]` of its scales.
        frame_scales: [f32; frame_cache_scales(sizes.encoder_heads, sizes.encoder_capacity()), sizes.encoder_caches],
        /// Sinusoidal positions, `[inputs / 2]`, where the encoder has them.
        sinusoids: [Angle; sizes.encoder_sinusoids],
        /// Scores of one head for 16 queries, and those queries.
        scores: [f32; sizes.encoder_scores()],
        /// Probabilities of one head for 16 queries, where they are int8.
        probabilities: [i8; if sizes.encoder_is_float { 0 } else { frame_scratch_bytes(sizes.frames) }],
        /// [`Sizes::taps`].
        taps: [f32; usize::from(sizes.encoder_memory), sizes.taps],
        /// `[ROWS, width]`.
        normed: [f32; ROWS, sizes.encoder_rows, sizes.encoder_state().max(sizes.encoder_attention)],
        /// `[ROWS, attention width]`.
        queries: [f32; ROWS, sizes.encoder_rows, sizes.encoder_width.max(sizes.encoder_attention)],
        /// `[ROWS, feed-forward width]`.
        middle: [f32; ROWS, sizes.encoder_rows, sizes.encoder_feed_forward],
        /// `[ROWS, feed-forward width]`, where there is a gate or a norm before `down`.
        gate: [f32; usize::from(sizes.encoder_gate), ROWS, sizes.encoder_rows, sizes.encoder_feed_forward],
        /// `[2 ROWS, inputs]`, where a block splits rows; and room for residuals.
        split: [f32; Sizes::split(ROWS, sizes.encoder_rows, sizes.encoder_inputs()).max(Need::encoder(sizes, ROWS).floats)],
        /// `[ROWS or 2 ROWS, inputs]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(ROWS * sizes.encoder_rows, sizes.encoder_inputs()) + Need::encoder(sizes, ROWS).bytes],
        /// `[ROWS or 2 ROWS]`; and room for residuals.
        row_scales: [f32; ROWS * sizes.encoder_rows + Need::encoder(sizes, ROWS).scales],
        /// [`Sizes::biases`].
        bias: [f32; sizes.biases],
        /// [`Sizes::room`].
        room: [i8; sizes.room(ROWS * sizes.encoder_rows, sizes.encoder_inputs())],
    }
}

/// The frames that a pass takes through a block, and what they see.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Frames of the utterance before the first of the pass.
    pub(crate) position: usize,
    /// Frames before it whose keys and values are in the cache.
    pub(crate) history: usize,
    /// Frames of the pass.
    pub(crate) frames: usize,
    pub(crate) chunk: Option<ChunkConfig>,
    /// The cache of the block.
    pub(crate) cache: usize,
}

impl Window {
    /// Rows of the cache that frame `row` of the pass attends to, and where the frames that see the same end.
    fn visible(&self, row: usize) -> (Range<usize>, usize) {
        let end = self.history + self.frames;
        let Some(ChunkConfig { frames, left }) = self.chunk else { return (0..end, self.frames) };
        let index = (self.position + row) / frames;
        // The cache begins this many frames into the utterance.
        let start = self.position.saturating_sub(self.history);
        let first = (index.saturating_sub(left) * frames).saturating_sub(start);
        let behind = (index + 1) * frames;
        (first..behind.saturating_sub(start).min(end), behind.saturating_sub(self.position).min(self.frames))
    }
}

/// Cosines and sines of rotary positions, `[positions, rotary width / 2]`.
#[derive(Clone, Copy)]
pub(crate) struct RotaryTables<'a> {
    pub(crate) cosines: &'a [f32],
    pub(crate) sines: &'a [f32],
    /// Positions from one row to the next: as many as there are frames in one that was merged, which keeps where it was.
    pub(crate) step: usize,
}

impl<'a> RotaryTables<'a> {
    /// Tables of rows that follow each other.
    pub(crate) const fn new(cosines: &'a [f32], sines: &'a [f32]) -> Self {
        Self { cosines, sines, step: 1 }
    }

    /// Turns the heads of a row to its position.
    pub(crate) fn turn(
        &self,
        kernels: Kernels,
        config: &StackConfig,
        row_index: usize,
        row: &mut [f32],
    ) -> Result<(), Error> {
        let half = config.rotary_width / 2;
        if half > 0 {
            let first = row_index * self.step * half;
            let (cosines, sines) = (part(self.cosines, first, half)?, part(self.sines, first, half)?);
            kernels.rotary(row, config.head_width, cosines, sines)?;
        }
        Ok(())
    }
}

/// Runs all blocks over a whole utterance, and the norm behind them; returns how many frames that leaves, fewer where blocks merge
/// them. `states` holds `[frames, inputs]` before and `[frames left, width]` afterwards, and has room for `[frames]` of the wider of
/// them. `phase` is the memory of [`EncoderBuffers`] and what happens to lie behind it.
pub(crate) fn run(
    kernels: Kernels,
    model: &Model<'_>,
    rotary: RotaryTables<'_>,
    frames: usize,
    states: &mut [f32],
    sizes: &Sizes,
    phase: &mut [u8],
) -> Result<usize, Error> {
    let config = model.config().encoder;
    let is_float = encoder_is_float(model);
    let mut region = Region::new(phase);
    let buffers = &mut EncoderBuffers::carve_from(&mut region, sizes)?;
    let kept = region.rest().unwrap_or(&mut []);
    let mut encoder = Encoder { kernels, config, rotary, capacity: frames, is_float, buffers, kept };
    encoder.start();
    encoder.add_positions(prefix_mut(states, frames * model.encoder_inputs())?);
    let mut window = Window { position: 0, history: 0, frames, chunk: config.chunk, cache: 0 };
    for block in model.encoder_blocks() {
        window.frames = merge_frames(states, window.frames, block.inputs, block.merge)?;
        encoder.capacity = window.frames;
        encoder.rotary.step *= block.merge;
        encoder.block(&block, window, states)?;
    }
    encoder.final_norm(&model.encoder_norm(), prefix_mut(states, window.frames * config.width)?)?;
    Ok(window.frames)
}

pub(crate) struct Encoder<'a, 'b> {
    pub(crate) kernels: Kernels,
    pub(crate) config: StackConfig,
    /// Positions from the first frame of a pass on.
    pub(crate) rotary: RotaryTables<'a>,
    /// Frames of a cache.
    pub(crate) capacity: usize,
    /// Whether keys and values are floats in attention, and not int8.
    pub(crate) is_float: bool,
    pub(crate) buffers: &'a mut EncoderBuffers<'b>,
    /// Where it holds `[frames, attention width]`: room for the queries of a whole pass, which then are made of the same rounded rows
    /// as the keys.
    pub(crate) kept: &'a mut [f32],
}

impl Encoder<'_, '_> {
    /// Goes to the beginning of an utterance.
    pub(crate) fn start(&mut self) {
        sinusoids::start(self.config.rotary_base, self.buffers.sinusoids);
    }

    /// Adds the positions of the next frames, where they are added to the input.
    pub(crate) fn add_positions(&mut self, frames: &mut [f32]) {
        sinusoids::add(self.buffers.sinusoids, self.config.width, frames);
    }

    /// Takes the frames of a window through a block.
    pub(crate) fn block(
        &mut self,
        block: &EncoderBlock<'_>,
        window: Window,
        states: &mut [f32],
    ) -> Result<(), Error> {
        self.keys_and_values(block, window, states)?;
        let blocks = window.frames.div_ceil(ROWS);
        for index in 0..blocks {
            // Where frames become wider, those that are not read yet lie before those that are written.
            let index = if block.inputs < self.config.width { blocks - 1 - index } else { index };
            let first = index * ROWS;
            let count = ROWS.min(window.frames - first);
            self.attention(block, window, states, first, count)?;
            self.feed_forward(block, states, first, count)?;
        }
        Ok(())
    }

    /// Whether the queries of a block are kept.
    fn keeps_queries(&self, block: &EncoderBlock<'_>, window: Window) -> bool {
        let queries = window.frames.saturating_mul(self.config.attention_width());
        block.bits == ActivationBits::Eight && self.kept.len() >= queries
    }

    /// Keys and values of all frames of a window, and the queries where these are kept.
    fn keys_and_values(
        &mut self,
        block: &EncoderBlock<'_>,
        window: Window,
        states: &[f32],
    ) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let (width, inner) = (block.inputs, config.attention_width());
        let (key_start, value_start) = (self.key_start(window.cache), self.value_start(window.cache));
        let (is_float, capacity) = (self.is_float, frame_capacity(self.capacity));
        let keeps_queries = self.keeps_queries(block, window);
        let EncoderBuffers {
            keys,
            values,
            key_bytes,
            value_bytes,
            frame_scales,
            normed,
            split,
            rows,
            row_scales,
            bias,
            room,
            ..
        } = &mut *self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        for first in (0..window.frames).step_by(ROWS) {
            let count = ROWS.min(window.frames - first);
            let states = part(states, first * width, count * width)?;
            norm_rows(kernels, &block.attention_norm, &config, states, count, normed)?;
            let input = Input::new(
                kernels,
                block.bits,
                Rows { values: normed, stride: width },
                count,
                width,
                &mut rounding,
            )?;
            let frame = window.history + first;
            let room = count * result_rows(block.bits) * inner;
            let keys = part_mut(keys, key_start.map_or(0, |start| start + frame * inner), room)?;
            input.times(&block.attention.key, keys)?;
            let values = part_mut(values, value_start.map_or(0, |start| start + frame * inner), room)?;
            input.times(&block.attention.value, values)?;
            for (i, row) in keys.chunks_exact_mut(inner).take(count).enumerate() {
                self.rotary.turn(kernels, &config, first + i, row)?;
            }
            if keeps_queries {
                let queries = part_mut(self.kept, first * inner, count * inner)?;
                make_queries(&input, self.rotary, &config, block, first, queries)?;
            }
            if !is_float {
                let cache = cache_mut(key_bytes, value_bytes, frame_scales, &config, capacity, window.cache)?;
                let (keys, values) = (Rows { values: keys, stride: inner }, Rows { values, stride: inner });
                kernels.keep_frames(&attention_shape(&config), keys, values, count, frame, cache)?;
            }
        }
        Ok(())
    }

    /// Where the floats of a cache begin.
    fn cache_start(&self, cache: usize) -> usize {
        cache * (self.capacity + ROWS) * self.config.attention_width()
    }

    /// Where the keys of a cache begin, where they are kept as floats.
    fn key_start(&self, cache: usize) -> Option<usize> {
        self.is_float.then(|| self.cache_start(cache))
    }

    /// The same of the values, which a memory needs as floats too.
    fn value_start(&self, cache: usize) -> Option<usize> {
        (self.is_float || self.config.memory.is_some()).then(|| self.cache_start(cache))
    }

    fn attention(
        &mut self,
        block: &EncoderBlock<'_>,
        window: Window,
        states: &mut [f32],
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let (inputs, width, inner) = (block.inputs, config.width, config.attention_width());
        let cached = (window.history + window.frames) * inner;
        let start = self.cache_start(window.cache);
        let (is_float, capacity) = (self.is_float, frame_capacity(self.capacity));
        let keeps_queries = self.keeps_queries(block, window);
        let EncoderBuffers {
            keys,
            values,
            key_bytes,
            value_bytes,
            frame_scales,
            scores,
            probabilities,
            taps,
            normed,
            queries,
            split,
            rows,
            row_scales,
            bias,
            room,
            ..
        } = &mut *self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        let made = if keeps_queries {
            part(self.kept, first * inner, count * inner)?
        } else {
            let source = part(states, first * inputs, count * inputs)?;
            norm_rows(kernels, &block.attention_norm, &config, source, count, normed)?;
            let source = Rows { values: normed, stride: inputs };
            let input = Input::new(kernels, block.bits, source, count, inputs, &mut rounding)?;
            make_queries(&input, self.rotary, &config, block, first, queries)?;
            prefix(queries, count * inner)?
        };
        let shape = attention_shape(&config);
        let mut row = 0;
        while row < count {
            let (seen, end) = window.visible(first + row);
            let step = QUERIES.min(count - row).min(end.saturating_sub(first + row)).max(1);
            let query = Rows { values: part(made, row * inner, step * inner)?, stride: inner };
            let out = part_mut(normed, row * inner, step * inner)?;
            if is_float {
                let keys = Rows { values: part(keys, start, cached)?, stride: inner };
                let values = Rows { values: part(values, start, cached)?, stride: inner };
                kernels.attend(&shape, query, step, keys, values, seen, scores, out, inner)?;
            } else {
                let CacheParts { keys, values, scales } = cache_parts(&config, capacity, window.cache);
                let cache = FrameCache {
                    keys: part(key_bytes, keys.start, keys.len())?,
                    values: part(value_bytes, values.start, values.len())?,
                    scales: part(frame_scales, scales.start, scales.len())?,
                    capacity,
                };
                kernels.attend_frames(&shape, query, step, cache, seen, scores, probabilities, out, inner)?;
            }
            row += step;
        }
        let input = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: inner },
            count,
            inner,
            &mut rounding,
        )?;
        input.times(&block.attention.output, queries)?;
        if let Some(memory) = &block.memory {
            let values = Rows { values: part(values, start, cached)?, stride: inner };
            let memory = memory::convolution(memory, taps)?;
            let mut row = 0;
            while row < count {
                let (seen, end) = window.visible(first + row);
                let step = (count - row).min(end.saturating_sub(first + row)).max(1);
                let frames = window.history + first + row;
                let out = part_mut(queries, row * width, step * width)?;
                kernels.convolve_time(&memory, values, seen.end, frames..frames + step, out, width)?;
                row += step;
            }
        }
        let states = part_mut(states, first * width, count * width)?;
        if inputs == width {
            kernels.add(states, queries)?;
        } else {
            states.copy_from_slice(prefix(queries, count * width)?);
        }
        Ok(())
    }

    fn feed_forward(
        &mut self,
        block: &EncoderBlock<'_>,
        states: &mut [f32],
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let EncoderBuffers { normed, middle, gate, split, rows, row_scales, bias, room, .. } =
            &mut *self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        let states = part_mut(states, first * config.width, count * config.width)?;
        norm_rows(kernels, &block.feed_forward_norm, &config, states, count, normed)?;
        let network = &block.feed_forward;
        feed_forward(kernels, &config, block.bits, network, count, normed, middle, gate, &mut rounding)?;
        kernels.add(states, normed)?;
        Ok(())
    }

    /// Forgets the first `dropped` of the `cached` frames of a cache: a multiple of [`KEPT_STEP`](crate::sizes::KEPT_STEP).
    pub(crate) fn drop_frames(&mut self, cache: usize, cached: usize, dropped: usize) -> Result<(), Error> {
        let (config, inner) = (self.config, self.config.attention_width());
        let capacity = frame_capacity(self.capacity);
        let starts = [self.key_start(cache), self.value_start(cache)];
        let EncoderBuffers { keys, values, key_bytes, value_bytes, frame_scales, .. } = &mut *self.buffers;
        for (frames, start) in [&mut **keys, &mut **values].into_iter().zip(starts) {
            if let Some(start) = start {
                part_mut(frames, start, cached * inner)?.copy_within(dropped * inner.., 0);
            }
        }
        if !self.is_float {
            let mut cache = cache_mut(key_bytes, value_bytes, frame_scales, &config, capacity, cache)?;
            cache.drop_frames(&attention_shape(&config), dropped)?;
        }
        Ok(())
    }

    pub(crate) fn final_norm(&mut self, norm: &Norm<'_>, states: &mut [f32]) -> Result<(), Error> {
        let width = self.config.width;
        for rows in states.chunks_mut(ROWS * width) {
            let count = rows.len() / width;
            let normed = &mut self.buffers.normed;
            norm_rows(self.kernels, norm, &self.config, rows, count, normed)?;
            rows.copy_from_slice(prefix(normed, rows.len())?);
        }
        Ok(())
    }
}

/// The queries of the frames from `first` on, turned to their positions. `out` has room for the product.
fn make_queries(
    input: &Input<'_>,
    rotary: RotaryTables<'_>,
    config: &StackConfig,
    block: &EncoderBlock<'_>,
    first: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let inner = config.attention_width();
    input.times(&block.attention.query, out)?;
    for (i, row) in prefix_mut(out, input.rows * inner)?.chunks_exact_mut(inner).enumerate() {
        rotary.turn(input.kernels, config, first + i, row)?;
    }
    Ok(())
}

/// Where the parts of an int8 cache are.
struct CacheParts {
    keys: Range<usize>,
    values: Range<usize>,
    scales: Range<usize>,
}

fn cache_parts(config: &StackConfig, capacity: usize, cache: usize) -> CacheParts {
    let bytes = frame_cache_bytes(config.heads, config.head_width, capacity);
    let scales = frame_cache_scales(config.heads, capacity);
    let part = |length: usize| cache * length..(cache + 1) * length;
    CacheParts { keys: part(bytes), values: part(bytes), scales: part(scales) }
}

fn cache_mut<'a>(
    keys: &'a mut [i8],
    values: &'a mut [i8],
    scales: &'a mut [f32],
    config: &StackConfig,
    capacity: usize,
    cache: usize,
) -> Result<FrameCacheMut<'a>, Error> {
    let parts = cache_parts(config, capacity, cache);
    Ok(FrameCacheMut {
        keys: part_mut(keys, parts.keys.start, parts.keys.len())?,
        values: part_mut(values, parts.values.start, parts.values.len())?,
        scales: part_mut(scales, parts.scales.start, parts.scales.len())?,
        capacity,
    })
}

/// The shape of a stack's attention, with the usual scale.
pub(crate) fn attention_shape(config: &StackConfig) -> AttentionShape {
    let scale = 1.0 / libm::sqrtf(config.head_width as f32);
    AttentionShape { heads: config.heads, head_width: config.head_width, scale }
}

/// Norms `[count, values of the norm]` into `out`.
pub(crate) fn norm_rows(
    kernels: Kernels,
    norm: &Norm<'_>,
    config: &StackConfig,
    rows: &[f32],
    count: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let width = norm.weight.len();
    kernels.layer_norm(rows, width, count, norm.weight, norm.bias, config.norm_epsilon, out, width)?;
    Ok(())
}

/// `rows [count, width]` through a feed-forward network, in place.
#[expect(clippy::too_many_arguments, reason = "a network and the buffers of whichever stack it belongs to")]
pub(crate) fn feed_forward(
    kernels: Kernels,
    config: &StackConfig,
    bits: ActivationBits,
    network: &FeedForward<'_>,
    count: usize,
    states: &mut [f32],
    middle: &mut [f32],
    gate: &mut [f32],
    rounding: &mut Rounding<'_>,
) -> Result<(), Error> {
    let (width, inner) = (config.width, network.middle);
    let source = Rows { values: states, stride: width };
    let input = Input::new(kernels, bits, source, count, width, rounding)?;
    input.times(&network.up, middle)?;
    if let Some(gate_weights) = &network.gate {
        input.times(gate_weights, gate)?;
        kernels.silu_mul(gate, prefix_mut(middle, count * inner)?)?;
    } else {
        activate(kernels, config.activation, prefix_mut(middle, count * inner)?);
    }
    let mut middle = &*middle;
    if let Some(norm) = &network.inner_norm {
        norm_rows(kernels, norm, config, middle, count, gate)?;
        middle = gate;
    }
    let source = Rows { values: middle, stride: inner };
    let input = Input::new(kernels, network.down_bits, source, count, inner, rounding)?;
    input.times(&network.down, states)
}
