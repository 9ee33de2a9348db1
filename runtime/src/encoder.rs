//! The encoder, in place over `[frames, width]` states.
//!
//! Each block first fills keys and values of all frames, then takes [`ROWS`] frames at a time through attention
//! and feed-forward: what is wide exists only for those.

use crate::error::Error;
use crate::frontend::activate;
use crate::project::{Input, Rounding, part, part_mut, prefix, prefix_mut, result_rows};
use crate::region::buffers;
use crate::residual::Need;
use crate::sizes::{ROWS, Sizes};
use kinglet_kernels::{AttentionShape, Kernels, Rows, attend_scratch};
use kinglet_model_format::{ActivationBits, EncoderBlock, FeedForward, Model, Norm, StackConfig};

/// Query rows that attention takes at once.
const QUERIES: usize = 16;

buffers! {
    /// Working memory of the encoder.
    EncoderBuffers(sizes: Sizes) phase "encoder" {
        /// `[frames, attention width]`, and room for the rows of a product at sixteen bits.
        keys: [f32; (sizes.frames + ROWS) * sizes.encoder_attention],
        /// `[frames, attention width]`, and room for the rows of a product at sixteen bits.
        values: [f32; (sizes.frames + ROWS) * sizes.encoder_attention],
        /// Scores of one head for 16 queries, and those queries.
        scores: [f32; attend_scratch(sizes.frames, sizes.encoder_head)],
        /// `[ROWS, width]`.
        normed: [f32; ROWS * sizes.encoder_rows * sizes.encoder_width.max(sizes.encoder_attention)],
        /// `[ROWS, attention width]`.
        queries: [f32; ROWS * sizes.encoder_rows * sizes.encoder_width.max(sizes.encoder_attention)],
        /// `[ROWS, feed-forward width]`.
        middle: [f32; ROWS * sizes.encoder_rows * sizes.encoder_feed_forward],
        /// `[ROWS, feed-forward width]`, where there is a gate.
        gate: [f32; if sizes.encoder_gate { ROWS * sizes.encoder_rows * sizes.encoder_feed_forward } else { 0 }],
        /// `[2 ROWS, inputs]`, where a block splits rows; and room for residuals.
        split: [f32; Sizes::split(ROWS, sizes.encoder_rows, sizes.encoder_inputs()).max(Need::encoder(sizes, ROWS).floats)],
        /// `[ROWS or 2 ROWS, inputs]` quantized; and room for residuals.
        rows: [i8; Kernels::quantized_bytes(ROWS * sizes.encoder_rows, sizes.encoder_inputs()) + Need::encoder(sizes, ROWS).bytes],
        /// `[ROWS or 2 ROWS]`; and room for residuals.
        row_scales: [f32; ROWS * sizes.encoder_rows + Need::encoder(sizes, ROWS).scales],
    }
}

/// Cosines and sines of rotary positions, `[positions, rotary width / 2]`.
#[derive(Clone, Copy)]
pub(crate) struct RotaryTables<'a> {
    pub(crate) cosines: &'a [f32],
    pub(crate) sines: &'a [f32],
}

impl RotaryTables<'_> {
    /// Turns the heads of one row to its position.
    pub(crate) fn turn(
        &self,
        kernels: Kernels,
        config: &StackConfig,
        position: usize,
        row: &mut [f32],
    ) -> Result<(), Error> {
        let half = config.rotary_width / 2;
        if half > 0 {
            let cosines = part(self.cosines, position * half, half)?;
            let sines = part(self.sines, position * half, half)?;
            kernels.rotary(row, config.head_width, cosines, sines)?;
        }
        Ok(())
    }
}

/// Runs all blocks and the norm behind them.
pub(crate) fn run(
    kernels: Kernels,
    model: &Model<'_>,
    rotary: RotaryTables<'_>,
    frames: usize,
    states: &mut [f32],
    buffers: EncoderBuffers<'_>,
) -> Result<(), Error> {
    let config = model.config().encoder;
    let states = prefix_mut(states, frames * config.width)?;
    let mut encoder = Encoder { kernels, config, rotary, frames, buffers };
    for block in model.encoder_blocks() {
        encoder.keys_and_values(&block, states)?;
        for first in (0..frames).step_by(ROWS) {
            let count = ROWS.min(frames - first);
            encoder.attention(&block, states, first, count)?;
            encoder.feed_forward(&block, states, first, count)?;
        }
    }
    encoder.final_norm(&model.encoder_norm(), states)
}

struct Encoder<'a, 'b> {
    kernels: Kernels,
    config: StackConfig,
    rotary: RotaryTables<'a>,
    frames: usize,
    buffers: EncoderBuffers<'b>,
}

impl Encoder<'_, '_> {
    fn keys_and_values(&mut self, block: &EncoderBlock<'_>, states: &[f32]) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let (width, inner) = (config.width, config.attention_width());
        let EncoderBuffers { keys, values, normed, split, rows, row_scales, .. } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        for first in (0..self.frames).step_by(ROWS) {
            let count = ROWS.min(self.frames - first);
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
            let room = count * result_rows(block.bits) * inner;
            let keys = part_mut(keys, first * inner, room)?;
            input.times(&block.attention.key, keys)?;
            input.times(&block.attention.value, part_mut(values, first * inner, room)?)?;
            for (i, row) in keys.chunks_exact_mut(inner).take(count).enumerate() {
                self.rotary.turn(kernels, &config, first + i, row)?;
            }
        }
        Ok(())
    }

    fn attention(
        &mut self,
        block: &EncoderBlock<'_>,
        states: &mut [f32],
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let (kernels, config) = (self.kernels, self.config);
        let (width, inner) = (config.width, config.attention_width());
        let EncoderBuffers { keys, values, scores, normed, queries, split, rows, row_scales, .. } =
            &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        let states = part_mut(states, first * width, count * width)?;
        norm_rows(kernels, &block.attention_norm, &config, states, count, normed)?;
        let input = Input::new(
            kernels,
            block.bits,
            Rows { values: normed, stride: width },
            count,
            width,
            &mut rounding,
        )?;
        input.times(&block.attention.query, queries)?;
        for (i, row) in prefix_mut(queries, count * inner)?.chunks_exact_mut(inner).enumerate() {
            self.rotary.turn(kernels, &config, first + i, row)?;
        }
        let shape = attention_shape(&config);
        let keys = Rows { values: keys, stride: inner };
        let values = Rows { values, stride: inner };
        for start in (0..count).step_by(QUERIES) {
            let step = QUERIES.min(count - start);
            let query = Rows { values: part(queries, start * inner, step * inner)?, stride: inner };
            let out = part_mut(normed, start * inner, step * inner)?;
            kernels.attend(&shape, query, step, keys, values, 0..self.frames, scores, out, inner)?;
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
        kernels.add(states, queries)?;
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
        let EncoderBuffers { normed, middle, gate, split, rows, row_scales, .. } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales };
        let states = part_mut(states, first * config.width, count * config.width)?;
        norm_rows(kernels, &block.feed_forward_norm, &config, states, count, normed)?;
        let network = &block.feed_forward;
        feed_forward(kernels, &config, block.bits, network, count, normed, middle, gate, &mut rounding)?;
        kernels.add(states, normed)?;
        Ok(())
    }

    fn final_norm(&mut self, norm: &Norm<'_>, states: &mut [f32]) -> Result<(), Error> {
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

/// The shape of a stack's attention, with the usual scale.
pub(crate) fn attention_shape(config: &StackConfig) -> AttentionShape {
    let scale = 1.0 / libm::sqrtf(config.head_width as f32);
    AttentionShape { heads: config.heads, head_width: config.head_width, scale }
}

/// Norms `[count, width]` into `out`.
pub(crate) fn norm_rows(
    kernels: Kernels,
    norm: &Norm<'_>,
    config: &StackConfig,
    rows: &[f32],
    count: usize,
    out: &mut [f32],
) -> Result<(), Error> {
    let width = config.width;
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
    let (width, inner) = (config.width, config.feed_forward);
    let source = Rows { values: states, stride: width };
    let input = Input::new(kernels, bits, source, count, width, rounding)?;
    input.times(&network.up, middle)?;
    if let Some(gate_weights) = &network.gate {
        input.times(gate_weights, gate)?;
        kernels.silu_mul(gate, prefix_mut(middle, count * inner)?)?;
    } else {
        activate(kernels, config.activation, prefix_mut(middle, count * inner)?);
    }
    let source = Rows { values: middle, stride: inner };
    let input = Input::new(kernels, network.down_bits, source, count, inner, rounding)?;
    input.times(&network.down, states)
}
