//! Was it said? A decoder writes words also where nobody speaks: "You" for a knock, a phrase again and again for a siren.
//!
//! Two probabilities tell such words from speech better than either alone: that of the tokens, and that of the end of the text as the
//! very first token, which is the decoder's own opinion that nothing was said. Of what is written where nobody speaks, the second is
//! above 1.7e-4 in nineteen of twenty cases (median 1.6e-3); of sentences, accented, quiet and noisy ones included, it is below 1.2e-4
//! in nineteen of twenty (median 3e-6). What the thresholds leave of noise and cost of speech is in `docs/live.md`.

use crate::SAMPLE_RATE;

/// Voiced samples a word. What a model says where nobody speaks is a word for many seconds, with a confidence below a half;
/// people who read or order speak at one a second and more, also those whom it hardly understands.
pub(crate) const SLOWEST_WORD: u64 = 2 * SAMPLE_RATE as u64;

/// Below this confidence a transcript has to hold a word for each [`SLOWEST_WORD`] to be believed.
const HARDLY_BELIEVED: f32 = 0.5;
/// Words are doubted where nothing at all is more probable than this share of their squared confidence. One utterance of speech in 200
/// is, of accented speakers in loud noise, and what is written of it is wrong.
const NOTHING: f32 = 1.0 / 160.0;
/// The same for a single token behind which no sentence ends. It is what a model writes for silence and knocks ("You"), sometimes with
/// full confidence, and hardly ever what it writes for a word that was said, which has a full stop.
const NOTHING_BUT_A_TOKEN: f32 = 1.0e-6;
/// The same for a text that repeats itself: each repetition adds to its confidence.
const NOTHING_REPEATED: f32 = 1.0 / 8000.0;
/// A text of at least so many words repeats itself where half of them or fewer are different: people do say "no no no no".
const REPEATED_WORDS: usize = 6;

/// What is known of a transcript.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// The text.
    pub(crate) text: &'a str,
    /// Tokens in it.
    pub(crate) tokens: usize,
    /// Words in it.
    pub(crate) words: usize,
    /// Geometric mean of the tokens' probabilities, 0 to 1.
    pub(crate) confidence: f32,
    /// Probability of no token at all, 0 to 1; 0 where it is not known.
    pub(crate) nothing: f32,
    /// Samples of the utterance that passed for a voice.
    pub(crate) voiced_samples: u64,
}

impl Evidence<'_> {
    /// Whether the words look made up: none of them is written with letters or digits, they are hardly believed and far too few for
    /// so much voice, or that nothing was said is nearly as probable.
    pub(crate) fn is_doubtful(&self) -> bool {
        let unwritten = !self.text.chars().any(char::is_alphanumeric);
        let too_few =
            self.confidence < HARDLY_BELIEVED && self.words as u64 * SLOWEST_WORD < self.voiced_samples;
        unwritten || too_few || self.nothing > self.bound() * self.confidence * self.confidence
    }

    /// The share of the squared confidence that nothing at all may be as probable as.
    fn bound(&self) -> f32 {
        if self.tokens == 1 && self.text.ends_with(char::is_alphanumeric) {
            NOTHING_BUT_A_TOKEN
        } else if repeats_itself(self.text) {
            NOTHING_REPEATED
        } else {
            NOTHING
        }
    }
}

/// Whether at most half of the words are different, punctuation and case aside. What is not ASCII counts as letters: telling letters from
/// signs there takes 1.3 KB of a board's memory, and signs that come again and again are repetition too.
fn repeats_itself(text: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'\'' || !byte.is_ascii();
    let words = || text.as_bytes().split(|byte| !is_letter(byte)).filter(|word| !word.is_empty());
    let (mut count, mut different) = (0, 0);
    for word in words() {
        different += usize::from(!words().take(count).any(|other| other.eq_ignore_ascii_case(word)));
        count += 1;
    }
    count >= REPEATED_WORDS && 2 * different <= count
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = SAMPLE_RATE as u64;

    fn doubtful(text: &str, confidence: f32, nothing: f32, voiced_samples: u64) -> bool {
        let words = text.split(' ').count();
        // A full stop is a token.
        let tokens = words + usize::from(!text.ends_with(char::is_alphanumeric));
        Evidence { text, tokens, words, confidence, nothing, voiced_samples }.is_doubtful()
    }

    #[test]
    fn what_is_hardly_believed_and_far_too_short_is_doubtful() {
        assert!(doubtful("You", 0.4, 0.0, 3 * SECOND));
        assert!(!doubtful("You", 0.6, 0.0, 3 * SECOND), "believed");
        assert!(!doubtful("You", 0.4, 0.0, SECOND), "as long as a word");
        assert!(!doubtful("a mocha please", 0.3, 0.0, 5 * SECOND), "slow but spoken");
    }

    #[test]
    fn what_is_not_written_is_doubtful() {
        assert!(doubtful("♪ ♪", 0.9, 0.0, SECOND));
        assert!(doubtful("", 0.0, 0.0, 0));
        assert!(!doubtful("7", 0.9, 0.0, SECOND));
    }

    #[test]
    fn words_are_doubtful_where_nothing_is_nearly_as_probable() {
        // A siren, and an accented speaker in noise who is understood.
        assert!(doubtful("I'm gonna be, I'm gonna be", 0.25, 2e-3, SECOND));
        assert!(!doubtful("Try your new shoes.", 0.61, 2.5e-4, SECOND));
        // A knock, and a word.
        assert!(doubtful("You", 0.65, 5e-4, SECOND / 4));
        assert!(doubtful("You", 0.97, 4e-6, SECOND / 4));
        assert!(!doubtful("Sugar.", 0.65, 5e-4, SECOND / 4));
        assert!(!doubtful("Sugar.", 0.65, 0.0, SECOND / 4), "not asked");
    }

    #[test]
    fn repetition_makes_confident_and_is_doubtful() {
        let song = "♪ Bring, bring, bring ♪ ♪ Bring, bring, bring ♪";
        assert!(doubtful(song, 0.79, 2.6e-4, 2 * SECOND));
        assert!(!doubtful(song, 0.79, 1e-6, 2 * SECOND), "somebody sings");
        assert!(!doubtful("No, no, no, no.", 0.79, 2.6e-4, 2 * SECOND));
        assert!(repeats_itself("the world is the World, is THE world."));
        assert!(!repeats_itself("If I feel that way, I feel that way, you see."));
        assert!(!repeats_itself("") && !repeats_itself("No? No! No..."));
    }
}
