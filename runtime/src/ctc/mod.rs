//! Tokens read off the encoder's frames, where the model has a head for it (connectionist temporal classification,
//! Graves et al. 2006).
//!
//! ```text
//! states [frames, width] -> log probabilities, a few frames at a time -> greedy | prefix beam search -> hypotheses
//!                                                                                                         |
//!                                        the attention decoder scores each (`rescore`) <------------------+
//! ```

mod greedy;
mod hypotheses;
mod prefix_beam;
mod rescore;

pub(crate) use hypotheses::{Hypotheses, HypothesisBuffers};
pub(crate) use rescore::rescore;

use crate::error::Error;
use crate::project::{Input, Rounding, part, prefix_mut};
use crate::region::buffers;
use crate::search::log_probability;
use crate::sizes::Sizes;
use kinglet_kernels::{Kernels, Rows, Scored};
use kinglet_model_format::CtcHead;

/// Frames that go through the matrix together: as many rows as the kernels keep in registers.
const FRAMES: usize = 4;
/// Tokens by which a frame may lengthen a prefix: all others are too unlikely to matter.
const EXTENSIONS: usize = 16;

buffers! {
    /// Working memory of the CTC head; empty where it is not asked for.
    CtcBuffers(sizes: Sizes) phase "ctc" {
        /// `[FRAMES, vocabulary]`.
        logits: [f32; FRAMES, sizes.ctc_rows, sizes.vocabulary],
        /// `[2 FRAMES, width]`, where the head splits rows.
        split: [f32; Sizes::split(FRAMES, sizes.ctc_rows, sizes.encoder_width)],
        /// `[FRAMES or 2 FRAMES, width]` quantized.
        rows: [i8; Kernels::quantized_bytes(FRAMES * sizes.ctc_rows, sizes.encoder_width)],
        /// `[FRAMES or 2 FRAMES]`.
        row_scales: [f32; FRAMES, sizes.ctc_rows],
        /// [`Sizes::biases`].
        bias: [f32; sizes.biases],
        /// A panel of an int4 matrix as int8.
        room: [i8; sizes.room(FRAMES * sizes.ctc_rows, sizes.encoder_width)],
    }
}

/// The log probabilities of one frame.
pub(crate) struct FrameScores<'a> {
    frame: u32,
    blank: u32,
    logits: &'a [f32],
    log_sum_exp: f32,
}

impl FrameScores<'_> {
    /// Log probability of a token; one outside the vocabulary has none.
    fn of(&self, token: u32) -> f32 {
        let logit = self.logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        log_probability(logit, self.log_sum_exp)
    }

    /// Log probability of no token.
    fn of_blank(&self) -> f32 {
        self.of(self.blank)
    }
}

/// Fills `hypotheses` from the encoder's output `[frames, width]`, best first, each with at most `max_tokens` tokens.
/// With room for one hypothesis it is the most probable token of each frame, else prefix beam search.
pub(crate) fn search(
    kernels: Kernels,
    head: &CtcHead<'_>,
    frames: usize,
    states: &[f32],
    max_tokens: usize,
    buffers: CtcBuffers<'_>,
    hypotheses: &mut Hypotheses<'_>,
) -> Result<(), Error> {
    let (width, vocabulary) = (head.output.weight.inputs(), head.output.weight.outputs());
    let CtcBuffers { logits, split, rows, row_scales, bias, room } = buffers;
    let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
    hypotheses.clear(max_tokens);
    for first in (0..frames).step_by(FRAMES) {
        let count = FRAMES.min(frames - first);
        let source = Rows { values: part(states, first * width, count * width)?, stride: width };
        Input::new(kernels, head.bits, source, count, width, &mut rounding)?.times(&head.output, logits)?;
        for index in 0..count {
            let logits = part(logits, index * vocabulary, vocabulary)?;
            let peak = kernels.peak(logits)?;
            let frame = (first + index) as u32;
            let scores = FrameScores { frame, blank: head.blank, logits, log_sum_exp: peak.log_sum_exp };
            if hypotheses.room() == 1 {
                greedy::step(&scores, peak.index as u32, hypotheses);
            } else {
                let mut top = [Scored::default(); EXTENSIONS];
                let found = kernels.top_k(logits, prefix_mut(&mut top, vocabulary.min(EXTENSIONS))?)?;
                let top = top.map(|scored| scored.index as u32);
                prefix_beam::step(&scores, top.get(..found).unwrap_or(&[]), hypotheses);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
