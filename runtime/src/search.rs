//! Greedy and beam search: one algorithm, greedy being a beam of one.
//!
//! A hypothesis is a path through columns. Column `step * beam + slot` holds what the decoder knows of one input
//! token: its key-value cache, and the row of attention with which the token after it was chosen.

use crate::decoder::{Decoder, StepInput};
use crate::error::Error;
use crate::project::{part, part_mut};
use crate::region::buffers;
use crate::repetition;
use crate::sizes::{MAX_BEAM, Sizes};
use kinglet_kernels::{Kernels, Scored};

buffers! {
    /// Working memory of the search.
    SearchBuffers(sizes: Sizes) phase "decoder" {
        /// `[beam][tokens]`: the columns of each hypothesis.
        paths: [u16; sizes.beam, sizes.tokens],
        /// The paths of the step after.
        next_paths: [u16; sizes.beam, sizes.tokens],
        /// `[tokens]`: the columns of the best finished hypothesis.
        best_path: [u16; sizes.tokens],
        /// The input token of each column.
        column_tokens: [u32; sizes.column_capacity],
        /// The log probability of each column's input token.
        column_scores: [f32; sizes.column_capacity],
    }
}

/// A hypothesis that is still growing; its path has as many columns as steps were taken.
#[derive(Clone, Copy, Default)]
struct Hypothesis {
    score: f32,
}

/// A way to continue a hypothesis.
#[derive(Clone, Copy)]
struct Candidate {
    parent: usize,
    token: u32,
    /// Log probability of the token.
    token_score: f32,
    /// Log probability of the whole hypothesis.
    score: f32,
}

/// The best finished hypothesis so far: `columns` entries of `best_path`, the first of which is the begin token.
#[derive(Clone, Copy)]
struct Finished {
    columns: usize,
    score: f32,
}

/// The result: the path's columns; column `i + 1` holds token `i`, column `i` the attention that chose it.
pub(crate) struct Found<'a> {
    pub(crate) path: &'a [u16],
    pub(crate) column_tokens: &'a [u32],
    pub(crate) column_scores: &'a [f32],
    /// Log probability of no token at all.
    pub(crate) nothing_score: f32,
}

/// What every hypothesis must begin with.
pub(crate) struct Prefix<'a> {
    /// Its tokens: whole words, and none of them the end.
    pub(crate) tokens: &'a [u32],
    /// Whether a token begins a word. Behind the prefix only such a token may follow, so that its last word stays as it is.
    pub(crate) begins_word: &'a dyn Fn(u32) -> bool,
}

pub(crate) struct Search<'b> {
    pub(crate) kernels: Kernels,
    pub(crate) buffers: SearchBuffers<'b>,
    pub(crate) beam: usize,
    pub(crate) capacity: usize,
    pub(crate) begin: u32,
    pub(crate) end: u32,
}

impl<'b> Search<'b> {
    /// Runs the decoder until `beam` hypotheses ended or `max_tokens` tokens are there.
    pub(crate) fn run(
        mut self,
        decoder: &mut Decoder<'_, '_>,
        max_tokens: usize,
        prefix: &Prefix<'_>,
    ) -> Result<Found<'b>, Error> {
        let max_tokens = max_tokens.min(self.capacity);
        let mut active = [Hypothesis::default(); MAX_BEAM];
        let mut count = 1;
        let mut best: Option<Finished> = None;
        let mut ended = 0;
        let mut nothing_score = f32::NEG_INFINITY;
        self.enter(0, 0, self.begin, 0.0);
        self.set_path(0, 0);
        for step in 0..max_tokens {
            let input = StepInput {
                step,
                beam: self.beam,
                count,
                tokens: part(self.buffers.column_tokens, step * self.beam, count)?,
                paths: self.buffers.paths,
                path_stride: self.capacity,
            };
            decoder.step(&input)?;
            if step == 0 {
                nothing_score = self.score(decoder, self.end)?;
            }
            if step > 0 && step == prefix.tokens.len() {
                let may_follow = |token| token == self.end || (prefix.begins_word)(token);
                decoder.forbid(&|token| !may_follow(token))?;
            }
            let (candidates, found) = match prefix.tokens.get(step) {
                Some(&token) => self.given(decoder, &active, token)?,
                None => self.candidates(decoder, &active, count)?,
            };
            let last_step = step + 1 == max_tokens;
            let mut next = [Hypothesis::default(); MAX_BEAM];
            let mut next_count = 0;
            for candidate in candidates.iter().take(found) {
                if next_count == self.beam || ended == self.beam {
                    break;
                }
                if candidate.token == self.end || last_step {
                    ended += 1;
                    self.finish(&mut best, candidate, step + 1);
                } else if let Some(surplus) = self.surplus(candidate, step + 1)
                    && step >= prefix.tokens.len()
                {
                    ended += 1;
                    self.finish(
                        &mut best,
                        candidate,
                        (step + 2).saturating_sub(surplus).max(1 + prefix.tokens.len()),
                    );
                } else {
                    self.extend(candidate, step, next_count);
                    if let Some(slot) = next.get_mut(next_count) {
                        *slot = Hypothesis { score: candidate.score };
                    }
                    next_count += 1;
                }
            }
            if ended >= self.beam || next_count == 0 {
                break;
            }
            core::mem::swap(&mut self.buffers.paths, &mut self.buffers.next_paths);
            (active, count) = (next, next_count);
        }
        let columns = best.map_or(1, |finished| finished.columns);
        let SearchBuffers { best_path, column_tokens, column_scores, .. } = self.buffers;
        let path = best_path.get(..columns).unwrap_or(&[]);
        Ok(Found { path, column_tokens, column_scores, nothing_score })
    }

    /// Log probability that the first hypothesis goes on with a token.
    fn score(&self, decoder: &Decoder<'_, '_>, token: u32) -> Result<f32, Error> {
        let logits = decoder.logits(0)?;
        let peak = self.kernels.peak(logits)?;
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Ok(log_probability(logit, peak.log_sum_exp))
    }

    /// The one continuation with a token of the prefix, until whose end there is one hypothesis.
    fn given(
        &self,
        decoder: &Decoder<'_, '_>,
        active: &[Hypothesis; MAX_BEAM],
        token: u32,
    ) -> Result<([Candidate; 2 * MAX_BEAM], usize), Error> {
        let token_score = self.score(decoder, token)?;
        let score = active.first().map_or(0.0, |hypothesis| hypothesis.score) + token_score;
        Ok(([Candidate { parent: 0, token, token_score, score }; 2 * MAX_BEAM], 1))
    }

    /// The best continuations of all hypotheses, best first: twice the beam, as some may be the end.
    fn candidates(
        &self,
        decoder: &Decoder<'_, '_>,
        active: &[Hypothesis; MAX_BEAM],
        count: usize,
    ) -> Result<([Candidate; 2 * MAX_BEAM], usize), Error> {
        let most = 2 * self.beam;
        let none = Candidate { parent: 0, token: self.end, token_score: 0.0, score: f32::NEG_INFINITY };
        let mut best = [none; 2 * MAX_BEAM];
        let mut found = 0;
        for (parent, hypothesis) in active.iter().enumerate().take(count) {
            let logits = decoder.logits(parent)?;
            let peak = self.kernels.peak(logits)?;
            let mut top = [Scored::default(); 2 * MAX_BEAM];
            let top = part_mut(&mut top, 0, most.min(logits.len()))?;
            let given = self.kernels.top_k(logits, top)?;
            for scored in top.iter().take(given) {
                let token_score = log_probability(scored.logit, peak.log_sum_exp);
                let score = hypothesis.score + token_score;
                let candidate = Candidate { parent, token: scored.index as u32, token_score, score };
                let place = best.iter().take(found).position(|other| other.score < score).unwrap_or(found);
                if place < most {
                    best[place..most].rotate_right(1);
                    best[place] = candidate;
                    found = (found + 1).min(most);
                }
            }
        }
        Ok((best, found))
    }

    /// Keeps a hypothesis that ended, cut to `columns`, if its score for each token is the best.
    fn finish(&mut self, best: &mut Option<Finished>, candidate: &Candidate, columns: usize) {
        let score = candidate.score / columns as f32;
        if best.is_some_and(|best| best.score >= score) {
            return;
        }
        let start = candidate.parent * self.capacity;
        // A repetition may have been cut before the candidate's own token, never behind its parent's path.
        let path = self.buffers.paths.get(start..start + columns).unwrap_or(&[]);
        if let Some(target) = self.buffers.best_path.get_mut(..path.len()) {
            target.copy_from_slice(path);
            *best = Some(Finished { columns: path.len(), score });
        }
    }

    /// Gives a continuation its column and its path.
    fn extend(&mut self, candidate: &Candidate, step: usize, slot: usize) {
        let column = (step + 1) * self.beam + slot;
        self.enter(step + 1, slot, candidate.token, candidate.token_score);
        let (from, to) = (candidate.parent * self.capacity, slot * self.capacity);
        let Some(path) = self.buffers.paths.get(from..from + step + 1) else { return };
        if let Some(target) = self.buffers.next_paths.get_mut(to..to + step + 1) {
            target.copy_from_slice(path);
        }
        if let Some(last) = self.buffers.next_paths.get_mut(to + step + 1) {
            *last = column as u16;
        }
    }

    fn enter(&mut self, step: usize, slot: usize, token: u32, score: f32) {
        let column = step * self.beam + slot;
        if let Some(place) = self.buffers.column_tokens.get_mut(column) {
            *place = token;
        }
        if let Some(place) = self.buffers.column_scores.get_mut(column) {
            *place = score;
        }
    }

    fn set_path(&mut self, index: usize, column: u16) {
        if let Some(place) = self.buffers.paths.get_mut(index) {
            *place = column;
        }
    }

    /// Tokens to take away from a path of `columns` columns and the candidate behind it, if they repeat themselves.
    fn surplus(&self, candidate: &Candidate, columns: usize) -> Option<usize> {
        let start = candidate.parent * self.capacity;
        let path = self.buffers.paths.get(start..start + columns)?;
        // The begin token is no word: it does not count.
        repetition::surplus(columns, |from_end| match from_end {
            0 => candidate.token,
            _ => path
                .get(columns.saturating_sub(from_end))
                .and_then(|&column| self.buffers.column_tokens.get(usize::from(column)))
                .copied()
                .unwrap_or(self.begin),
        })
    }
}

/// `logit - log_sum_exp`, never above zero, which rounding could reach. Weights without measure overflow to infinite
/// logits, of which nothing can be said: their probability is zero.
pub(crate) fn log_probability(logit: f32, log_sum_exp: f32) -> f32 {
    let difference = logit - log_sum_exp;
    if difference.is_nan() { f32::NEG_INFINITY } else { difference.min(0.0) }
}

#[cfg(test)]
mod tests {
    use super::log_probability;

    #[test]
    fn a_probability_is_never_above_one_nor_undefined() {
        assert_eq!(log_probability(3.0, 4.5), -1.5);
        assert_eq!(log_probability(4.5, 4.499_999), 0.0);
        assert_eq!(log_probability(f32::INFINITY, f32::INFINITY), f32::NEG_INFINITY);
        assert_eq!(log_probability(f32::MAX, f32::NAN), f32::NEG_INFINITY);
    }
}
