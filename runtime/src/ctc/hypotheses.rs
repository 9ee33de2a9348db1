//! What a CTC search keeps: prefixes of the transcript, each with the probability of all alignments that spell it.

use crate::region::buffers;
use crate::sizes::{MAX_BEAM, Sizes};

buffers! {
    /// The prefixes of this frame and of the next; empty where no CTC head is asked for.
    HypothesisBuffers(sizes: Sizes) phase "result" {
        /// `[2][ctc beam][tokens]`.
        tokens: [u32; 2, sizes.ctc_beam, sizes.tokens],
        /// `[2][ctc beam][tokens]`: first and last frame of each token.
        spans: [[u32; 2]; 2, sizes.ctc_beam, sizes.tokens],
        /// `[2][ctc beam][tokens]`: log probability of each token.
        scores: [f32; 2, sizes.ctc_beam, sizes.tokens],
    }
}

/// A prefix without its tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    pub(super) length: usize,
    /// Log probability of its alignments that end with no token.
    pub(super) blank: f32,
    /// Log probability of its alignments that end with its last token.
    pub(super) token: f32,
}

impl Prefix {
    pub(super) const EMPTY: Self = Self { length: 0, blank: 0.0, token: f32::NEG_INFINITY };

    /// Log probability of all its alignments.
    pub(super) fn total(&self) -> f32 {
        log_add(self.blank, self.token)
    }
}

/// A prefix of the next frame: one of this frame, with a token behind it or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub(super) parent: usize,
    pub(super) added: Option<u32>,
    pub(super) blank: f32,
    pub(super) token: f32,
}

impl Choice {
    pub(super) fn total(&self) -> f32 {
        log_add(self.blank, self.token)
    }
}

/// The prefixes, best first.
pub(crate) struct Hypotheses<'b> {
    buffers: HypothesisBuffers<'b>,
    /// Prefixes that there is room for.
    room: usize,
    /// Tokens that each has room for.
    stride: usize,
    max_tokens: usize,
    prefixes: [Prefix; MAX_BEAM],
    count: usize,
    /// Which half of the buffers holds them: 0 or 1.
    half: usize,
}

impl<'b> Hypotheses<'b> {
    pub(crate) fn new(buffers: HypothesisBuffers<'b>, sizes: &Sizes) -> Self {
        let (room, stride) = (sizes.ctc_beam.min(MAX_BEAM), sizes.tokens);
        let prefixes = [Prefix::EMPTY; MAX_BEAM];
        Self { buffers, room, stride, max_tokens: stride, prefixes, count: 0, half: 0 }
    }

    /// Prefixes that there is room for.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Tokens that each has room for.
    pub(super) fn capacity(&self) -> usize {
        self.stride
    }

    /// Starts again with the prefix of no tokens. None will have more than `max_tokens`.
    pub(super) fn clear(&mut self, max_tokens: usize) {
        self.max_tokens = max_tokens.min(self.stride);
        self.prefixes = [Prefix::EMPTY; MAX_BEAM];
        (self.count, self.half) = (self.room.min(1), 0);
    }

    /// Number of prefixes.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn prefix(&self, index: usize) -> Prefix {
        self.prefixes.get(index).copied().unwrap_or(Prefix::EMPTY)
    }

    /// The tokens of prefix `index`.
    pub(crate) fn tokens(&self, index: usize) -> &[u32] {
        let start = self.start(self.half, index);
        self.buffers.tokens.get(start..start + self.prefix(index).length).unwrap_or(&[])
    }

    /// First and last frame of each token of prefix `index`.
    pub(crate) fn spans(&self, index: usize) -> &[[u32; 2]] {
        let start = self.start(self.half, index);
        self.buffers.spans.get(start..start + self.prefix(index).length).unwrap_or(&[])
    }

    /// Log probability of each token of prefix `index`.
    pub(crate) fn scores(&self, index: usize) -> &[f32] {
        let start = self.start(self.half, index);
        self.buffers.scores.get(start..start + self.prefix(index).length).unwrap_or(&[])
    }

    /// The scores, to be replaced.
    pub(super) fn scores_mut(&mut self, index: usize) -> &mut [f32] {
        let start = self.start(self.half, index);
        let length = self.prefix(index).length;
        self.buffers.scores.get_mut(start..start + length).unwrap_or_default()
    }

    /// Whether prefix `longer` is prefix `shorter` and one token more.
    pub(super) fn follows(&self, longer: usize, shorter: usize) -> bool {
        let longer = self.tokens(longer).split_last();
        longer.is_some_and(|(_, head)| head == self.tokens(shorter))
    }

    /// Whether prefix `index` may not grow any more.
    pub(super) fn is_full(&self, index: usize) -> bool {
        self.prefix(index).length >= self.max_tokens
    }

    /// Sets the probabilities of a prefix that stays in its place.
    pub(super) fn set(&mut self, index: usize, blank: f32, token: f32) {
        if let Some(prefix) = self.prefixes.get_mut(index) {
            (prefix.blank, prefix.token) = (blank, token);
        }
    }

    /// Adds a token that sounds at `frame` to a prefix that is not full.
    pub(super) fn push(&mut self, index: usize, token: u32, frame: u32, score: f32) {
        if !self.is_full(index) {
            self.push_in(self.half, index, token, frame, score);
        }
    }

    fn push_in(&mut self, half: usize, index: usize, token: u32, frame: u32, score: f32) {
        let end = self.start(half, index) + self.prefix(index).length;
        let HypothesisBuffers { tokens, spans, scores } = &mut self.buffers;
        if let (Some(token_place), Some(span), Some(score_place), Some(prefix)) =
            (tokens.get_mut(end), spans.get_mut(end), scores.get_mut(end), self.prefixes.get_mut(index))
        {
            (*token_place, *span, *score_place) = (token, [frame, frame], score);
            prefix.length += 1;
        }
    }

    /// The last token of a prefix still sounds at `frame`, with log probability `score`.
    pub(super) fn prolong(&mut self, index: usize, frame: u32, score: f32) {
        let length = self.prefix(index).length;
        let Some(last) = (self.start(self.half, index) + length).checked_sub(1) else { return };
        if length > 0
            && let (Some(span), Some(best)) =
                (self.buffers.spans.get_mut(last), self.buffers.scores.get_mut(last))
        {
            span[1] = frame;
            *best = best.max(score);
        }
    }

    /// Makes `choices`, best first, the prefixes; `score` is the log probability of a token at `frame`.
    pub(super) fn replace(&mut self, choices: &[Choice], frame: u32, score: impl Fn(u32) -> f32) {
        let (old, new) = (self.half, 1 - self.half);
        let before = self.prefixes;
        let count = choices.len().min(self.room);
        for (index, choice) in choices.iter().take(count).enumerate() {
            let length = before.get(choice.parent).map_or(0, |prefix| prefix.length);
            let (from, to) = (self.start(old, choice.parent), self.start(new, index));
            copy(self.buffers.tokens, from, to, length);
            copy(self.buffers.spans, from, to, length);
            copy(self.buffers.scores, from, to, length);
            if let Some(prefix) = self.prefixes.get_mut(index) {
                *prefix = Prefix { length, blank: choice.blank, token: choice.token };
            }
            if let Some(token) = choice.added {
                self.push_in(new, index, token, frame, score(token));
            }
        }
        (self.half, self.count) = (new, count);
    }

    fn start(&self, half: usize, index: usize) -> usize {
        (half * self.room + index) * self.stride
    }
}

fn copy<T: Copy>(values: &mut [T], from: usize, to: usize, length: usize) {
    if from.max(to) + length <= values.len() {
        values.copy_within(from..from + length, to);
    }
}

/// `ln(e^a + e^b)`.
pub(super) fn log_add(a: f32, b: f32) -> f32 {
    let (larger, smaller) = if a >= b { (a, b) } else { (b, a) };
    if smaller == f32::NEG_INFINITY { larger } else { larger + libm::log1pf(libm::expf(smaller - larger)) }
}
