//! Keys and values of cross-attention, computed once an utterance.

use crate::error::Error;
use crate::project::{Input, Rounding, part, part_mut};
use crate::region::buffers;
use crate::residual::Need;
use crate::sizes::Sizes;
use kinglet_kernels::{AttentionShape, Cache, CacheMut, Kernels, Rows};
use kinglet_model_format::{ActivationBits, CrossAttention, Model, StackConfig};

/// Frames that are written to a cache together.
const CACHE_FRAMES: usize = 16;

buffers! {
    /// Keys and values of cross-attention, all layers.
    CrossBuffers(sizes: Sizes) phase "decoder" {
        /// `[layers with it, attention width, frames]`.
        keys: [i8; sizes.cross_bytes(), sizes.decoder_attention, sizes.frame_capacity],
        /// `[layers with it, attention width, frames]`.
        values: [i8; sizes.cross_bytes(), sizes.decoder_attention, sizes.frame_capacity],
        /// `[layers with it, heads, frames]`.
        key_scales: [f32; sizes.cross_bytes(), sizes.decoder_heads, sizes.frame_capacity],
        /// `[layers with it, heads, frames]`.
        value_scales: [f32; sizes.cross_bytes(), sizes.decoder_heads, sizes.frame_capacity],
        /// `[layers with it, frames, attention width]`, where the matrices are floats.
        float_keys: [f32; sizes.cross_floats(), sizes.decoder_attention, sizes.frame_capacity],
        /// The same.
        float_values: [f32; sizes.cross_floats(), sizes.decoder_attention, sizes.frame_capacity],
        /// `[CACHE_FRAMES, attention width]`.
        projected: [f32; CACHE_FRAMES, sizes.decoder_attention],
        /// Room for residuals.
        spare: [f32; Need::decoder(sizes, CACHE_FRAMES).floats],
        /// `[CACHE_FRAMES, width]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(CACHE_FRAMES, sizes.encoder_width) + Need::decoder(sizes, CACHE_FRAMES).bytes],
        /// `[CACHE_FRAMES]`; and room for residuals.
        row_scales: [f32; CACHE_FRAMES + Need::decoder(sizes, CACHE_FRAMES).scales],
        /// [`Sizes::biases`].
        bias: [f32; sizes.biases],
        /// A panel of an int4 matrix as int8.
        room: [i8; sizes.room(CACHE_FRAMES, sizes.encoder_width)],
    }
}

/// Fills the cross-attention caches from the encoder's output `[frames, width]`.
pub(crate) fn fill(
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
    for first in (0..frames).step_by(CACHE_FRAMES) {
        let count = CACHE_FRAMES.min(frames - first);
        let source = Rows { values: part(states, first * width, count * width)?, stride: width };
        let CrossBuffers { projected, spare, rows, row_scales, bias, room, .. } = cross;
        // What comes of it is kept as int8: sixteen bits here would be lost there.
        let mut rounding = Rounding { split: spare, rows, scales: row_scales, bias, room };
        let input = Input::new(kernels, ActivationBits::Eight, source, count, width, &mut rounding)?;
        let attentions = model.decoder_blocks().filter_map(|block| block.cross);
        for (layer, CrossAttention { attention, .. }) in attentions.enumerate() {
            for (linear, cache, scales, floats) in [
                (&attention.key, &mut *cross.keys, &mut *cross.key_scales, &mut *cross.float_keys),
                (&attention.value, &mut *cross.values, &mut *cross.value_scales, &mut *cross.float_values),
            ] {
                if sizes.cross_is_float {
                    let place = (layer * capacity + first) * inner;
                    input.times(linear, part_mut(floats, place, count * inner)?)?;
                    continue;
                }
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

/// What a query attends to: `capacity` frames, of which the first are filled.
pub(crate) enum CrossCache<'a> {
    /// `[attention width, capacity]`, a scale for each head and frame.
    Int8 { keys: Cache<'a>, values: Cache<'a> },
    /// `[capacity, attention width]`: for models whose matrices are floats, which are there to be compared and not to be
    /// fast.
    Float { keys: &'a [f32], values: &'a [f32], capacity: usize },
}

impl<'a> CrossCache<'a> {
    /// The cache of the `layer`-th block that has cross-attention.
    pub(crate) fn of(
        buffers: &'a CrossBuffers<'_>,
        layer: usize,
        config: &StackConfig,
        capacity: usize,
        is_float: bool,
    ) -> Result<Self, Error> {
        let (length, scales) = (config.attention_width() * capacity, config.heads * capacity);
        if is_float {
            let keys = part(buffers.float_keys, layer * length, length)?;
            let values = part(buffers.float_values, layer * length, length)?;
            return Ok(Self::Float { keys, values, capacity });
        }
        let cache = |values: &'a [i8], value_scales: &'a [f32]| -> Result<Cache<'a>, Error> {
            let values = part(values, layer * length, length)?;
            Ok(Cache { values, scales: part(value_scales, layer * scales, scales)?, capacity })
        };
        let keys = cache(buffers.keys, buffers.key_scales)?;
        Ok(Self::Int8 { keys, values: cache(buffers.values, buffers.value_scales)? })
    }

    /// Attends with one query to `frames` frames; `probabilities` has a row of `capacity` for each head afterwards.
    #[expect(clippy::too_many_arguments, reason = "one attention with its working memory")]
    pub(crate) fn attend(
        &self,
        kernels: Kernels,
        shape: &AttentionShape,
        query: &[f32],
        frames: usize,
        probabilities: &mut [f32],
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        match *self {
            Self::Int8 { keys, values } => {
                kernels.attend_cached(shape, query, keys, values, frames, probabilities, scratch, out)?;
                Ok(())
            }
            Self::Float { keys, values, capacity } => {
                for head in 0..shape.heads {
                    let first = head * shape.head_width;
                    let query = part(query, first, shape.head_width)?;
                    let width = shape.heads * shape.head_width;
                    let probabilities = part_mut(probabilities, head * capacity, frames)?;
                    let rows = |all: &'a [f32]| {
                        all.chunks_exact(width).filter_map(move |row| row.get(first..first + query.len()))
                    };
                    for (score, key) in probabilities.iter_mut().zip(rows(keys)) {
                        *score = shape.scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f32>();
                    }
                    softmax(probabilities);
                    let out = part_mut(out, first, shape.head_width)?;
                    out.fill(0.0);
                    for (probability, value) in probabilities.iter().zip(rows(values)) {
                        for (out, value) in out.iter_mut().zip(value) {
                            *out += probability * value;
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = libm::expf(*score - largest);
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}
