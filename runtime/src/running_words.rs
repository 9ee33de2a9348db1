//! What is known of the words of an utterance that is still being spoken.
//!
//! ```text
//! | stable words: two hypotheses agreed | tentative words, kept | tentative words, just heard |
//!                                       ^ stable                ^ boundary: later words were heard anew
//! ```
//!
//! Words become stable where two successive hypotheses have the same tokens ("local agreement", Liu et al. 2020); from then
//! on every search of the utterance begins with them, so that no hypothesis and no final text takes them back.

use crate::region::buffers;
use crate::sizes::Sizes;
use crate::transcript::{Transcript, begins_word};
use kinglet_model_format::Vocabulary;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

buffers! {
    /// What is known of the utterance under way.
    RunningBuffers(sizes: Sizes) phase "running" {
        /// Its tokens.
        tokens: [u32; sizes.tokens],
        /// Its text, words with one space between them.
        text: [u8; sizes.tokens, sizes.piece.max(1), 3],
        /// Its words.
        words: [Word; sizes.tokens],
    }
}

/// Samples before a word that are heard with it, at most.
const MOST_SILENCE: usize = 4_000;

/// A word of the hypothesis.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Word {
    /// One past its last byte.
    text_end: u32,
    /// One past its last token.
    token_end: u32,
    /// Its first and its last sample, counted from the beginning of the utterance.
    samples: [u32; 2],
}

/// Where the next hypothesis begins to hear anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// Words before it are kept as they are.
    pub(crate) words: usize,
    /// Its place in the utterance.
    pub(crate) sample: usize,
}

/// What stable words must leave room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StableLimits {
    /// They end before this sample of the utterance.
    pub(crate) sample: usize,
    /// They are fewer tokens.
    pub(crate) tokens: usize,
}

/// The words of the running utterance.
pub(crate) struct RunningWords<'r> {
    buffers: RunningBuffers<'r>,
    words: usize,
    /// Words that are never taken back.
    stable: usize,
}

impl<'r> RunningWords<'r> {
    pub(crate) fn new(buffers: RunningBuffers<'r>) -> Self {
        Self { buffers, words: 0, stable: 0 }
    }

    /// Forgets everything: another utterance begins.
    pub(crate) fn clear(&mut self) {
        (self.words, self.stable) = (0, 0);
    }

    /// All words.
    pub(crate) fn text(&self) -> &str {
        let text = self.buffers.text.get(..self.text_end(self.words));
        text.and_then(|text| str::from_utf8(text).ok()).unwrap_or("")
    }

    /// Bytes of the text that are stable.
    pub(crate) fn stable_bytes(&self) -> usize {
        self.text_end(self.stable)
    }

    /// Tokens of the stable words behind a boundary: a search from there begins with them.
    pub(crate) fn stable_tokens(&self, boundary: Boundary) -> &[u32] {
        self.buffers.tokens.get(self.token_end(boundary.words)..self.token_end(self.stable)).unwrap_or(&[])
    }

    /// Replaces the words behind `boundary` by those of `heard`, which was heard from there on. What both agree on, the last word
    /// excepted, becomes stable within `limits`.
    pub(crate) fn update(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        boundary: Boundary,
        heard: &Transcript<'_>,
        limits: StableLimits,
    ) {
        let kept = self.token_end(boundary.words);
        // Behind other words, one without a space before it would not stay a word.
        let joins = heard.tokens().first().is_some_and(|&token| begins_word(vocabulary, token));
        // Words that were kept were heard once only: nothing behind them can be promised.
        let counts = boundary.words == 0 || joins && boundary.words <= self.stable;
        let agreed = if counts { self.agreed(boundary, heard) } else { 0 };
        self.words = boundary.words;
        for ((bytes, tokens), word) in heard.places().zip(heard.words()) {
            let samples = [word.start_seconds, word.end_seconds]
                .map(|seconds| boundary.sample + (seconds * crate::SAMPLE_RATE as f32) as usize);
            if !self.push(heard.text().get(bytes).unwrap_or(""), kept + tokens.end, samples) {
                break;
            }
        }
        let tokens = self.token_end(self.words).saturating_sub(kept);
        let source = heard.tokens().get(..tokens).unwrap_or(&[]);
        if let Some(target) = self.buffers.tokens.get_mut(kept..kept + source.len()) {
            target.copy_from_slice(source);
        }
        let may_stay = |word: &Word| {
            (word.samples[1] as usize) < limits.sample && (word.token_end as usize) < limits.tokens
        };
        let limit = agreed.min(self.words);
        while self.stable < limit && self.buffers.words.get(self.stable).is_some_and(may_stay) {
            self.stable += 1;
        }
    }

    /// Where the next hypothesis may begin: between `earliest` and `latest`, in the longest pause between words; before the word
    /// under way at `latest`, where there is none.
    pub(crate) fn boundary(&self, earliest: usize, latest: usize) -> Boundary {
        let mut best = (Boundary::default(), None);
        let mut end = 0;
        let spans =
            self.buffers.words.iter().take(self.words).map(|word| word.samples.map(|sample| sample as usize));
        for (words, [start, stop]) in spans.chain([[usize::MAX; 2]]).enumerate() {
            let pause = start.saturating_sub(end);
            let sample = (start - (pause / 2).min(MOST_SILENCE)).min(latest);
            if sample >= end.max(earliest) && best.1.is_none_or(|longest| pause > longest) {
                best = (Boundary { words, sample }, Some(pause));
            } else if best.1.is_none() && start <= latest {
                best.0 = Boundary { words, sample: start };
            }
            end = stop;
        }
        best.0
    }

    /// Words up to the last that both have, and behind which more was heard.
    fn agreed(&self, boundary: Boundary, heard: &Transcript<'_>) -> usize {
        let kept = self.token_end(boundary.words);
        let before = self.buffers.tokens.get(kept..).unwrap_or(&[]);
        let same = before.iter().zip(heard.tokens()).take_while(|(one, other)| one == other).count();
        let words = self.buffers.words.iter().take(self.words).skip(boundary.words);
        let ends = words.map(|word| (word.token_end as usize).saturating_sub(kept));
        let both =
            heard.places().zip(ends).take_while(|((_, tokens), end)| tokens.end == *end && *end <= same);
        boundary.words + both.count().min(heard.places().count().saturating_sub(1))
    }

    fn push(&mut self, text: &str, token_end: usize, samples: [usize; 2]) -> bool {
        let mut end = self.text_end(self.words);
        let space = if end > 0 { " " } else { "" };
        for part in [space, text] {
            let Some(target) = self.buffers.text.get_mut(end..end + part.len()) else { return false };
            target.copy_from_slice(part.as_bytes());
            end += part.len();
        }
        let fits = token_end <= self.buffers.tokens.len();
        let Some(place) = self.buffers.words.get_mut(self.words).filter(|_| fits) else { return false };
        let samples = samples.map(|sample| sample as u32);
        *place = Word { text_end: end as u32, token_end: token_end as u32, samples };
        self.words += 1;
        true
    }

    fn text_end(&self, words: usize) -> usize {
        self.end(words, |word| word.text_end)
    }

    fn token_end(&self, words: usize) -> usize {
        self.end(words, |word| word.token_end)
    }

    /// What lies before word number `words`.
    fn end(&self, words: usize, of: impl Fn(&Word) -> u32) -> usize {
        words.checked_sub(1).and_then(|last| self.buffers.words.get(last)).map_or(0, of) as usize
    }
}
