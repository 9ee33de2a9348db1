//! Keys and values of one layer's cross-attention.

use crate::decoder::CrossBuffers;
use crate::error::Error;
use crate::project::{part, part_mut};
use kinglet_kernels::{AttentionShape, Cache, Kernels};
use kinglet_model_format::StackConfig;

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
