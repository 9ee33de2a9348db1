//! The attention decoder's word on the hypotheses of a CTC search (two-pass decoding: Sainath et al. 2019, arXiv
//! 1908.10992; with CTC first: WeNet, arXiv 2102.01547).

use super::hypotheses::Hypotheses;
use crate::decoder::{Decoder, StepInput};
use crate::error::Error;
use crate::search::{SearchBuffers, log_probability};
use kinglet_kernels::Kernels;
use kinglet_model_format::Tokens;

/// Scores each hypothesis by the decoder, its end included, adds `ctc_weight` times the log probability that CTC gives it
/// and returns the best one's index. The decoder's scores replace those of its tokens.
///
/// One hypothesis after the other goes through the decoder as a path of its own: `[step]` is the column of each step.
pub(crate) fn rescore(
    kernels: Kernels,
    decoder: &mut Decoder<'_, '_>,
    special: &Tokens,
    ctc_weight: f32,
    hypotheses: &mut Hypotheses<'_>,
    buffers: SearchBuffers<'_>,
) -> Result<usize, Error> {
    let (paths, capacity) = (buffers.paths, hypotheses.capacity());
    for (column, place) in paths.iter_mut().enumerate() {
        *place = column as u16;
    }
    let mut best: Option<(usize, f32)> = None;
    for index in 0..hypotheses.len() {
        let mut score = ctc_weight * hypotheses.prefix(index).total();
        let mut input = special.begin;
        // The last step's token is the end; a transcript that fills the room has no step for it.
        for step in 0..=hypotheses.tokens(index).len().min(capacity.saturating_sub(1)) {
            let tokens = [input];
            decoder.step(&StepInput {
                step,
                beam: 1,
                count: 1,
                tokens: &tokens,
                paths,
                path_stride: paths.len(),
            })?;
            let next = hypotheses.tokens(index).get(step).copied();
            let logits = decoder.logits(0)?;
            let logit =
                logits.get(next.unwrap_or(special.end) as usize).copied().unwrap_or(f32::NEG_INFINITY);
            let token_score = log_probability(logit, kernels.peak(logits)?.log_sum_exp);
            score += token_score;
            if let (Some(token), Some(place)) = (next, hypotheses.scores_mut(index).get_mut(step)) {
                (*place, input) = (token_score, token);
            }
        }
        if best.is_none_or(|(_, other)| score > other) {
            best = Some((index, score));
        }
    }
    Ok(best.map_or(0, |(index, _)| index))
}
