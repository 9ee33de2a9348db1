//! From tokens to text, words, times and confidences.

use core::ops::Range;

use crate::doubt::Evidence;
use crate::region::buffers;
use crate::sizes::Sizes;
use kinglet_model_format::Vocabulary;

buffers! {
    /// The result of an utterance.
    TranscriptBuffers(sizes: Sizes) phase "result" {
        /// The tokens, special ones left out.
        tokens: [u32; sizes.tokens],
        /// Log probability of each token.
        scores: [f32; sizes.tokens],
        /// First and last frame of each token.
        spans: [[u32; 2]; sizes.tokens],
        /// The text. A byte that is not UTF-8 becomes a replacement character of three.
        text: [u8; sizes.tokens, sizes.piece.max(1), 3],
        /// First byte and one past the last byte of each word; first token and one past the last token.
        words: [[u32; 4]; sizes.tokens],
    }
}

/// A word of a transcript.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Word<'a> {
    /// The word, with its punctuation.
    pub text: &'a str,
    /// Seconds from the beginning of the utterance.
    pub start_seconds: f32,
    /// Seconds from the beginning of the utterance.
    pub end_seconds: f32,
    /// Geometric mean of the probabilities of its tokens, 0 to 1.
    pub confidence: f32,
}

/// What was said in an utterance. Borrowed from the recogniser until the next one.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    text: &'a str,
    tokens: &'a [u32],
    scores: &'a [f32],
    spans: &'a [[u32; 2]],
    words: &'a [[u32; 4]],
    times: Times,
    nothing: f32,
}

/// Where frames lie in time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    /// From one frame to the next.
    pub(crate) frame: f32,
    /// Of the utterance: the last frame, where several are merged, may stand for fewer.
    pub(crate) end: f32,
}

impl<'a> Transcript<'a> {
    /// The text, without spaces around it; empty when nothing was said.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The tokens, special ones left out.
    pub fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// The words, in order.
    pub fn words(&self) -> impl Iterator<Item = Word<'a>> + use<'a> {
        let transcript = *self;
        self.words.iter().map(move |&[begin, end, first, last]| {
            let tokens = first as usize..last as usize;
            let spans = transcript.spans.get(tokens.clone()).unwrap_or(&[]);
            let start = spans.first().map_or(0, |span| span[0]);
            let stop = spans.last().map_or(0, |span| span[1] + 1);
            Word {
                text: transcript.text.get(begin as usize..end as usize).unwrap_or(""),
                start_seconds: start as f32 * transcript.times.frame,
                end_seconds: (stop as f32 * transcript.times.frame).min(transcript.times.end),
                confidence: confidence(transcript.scores.get(tokens).unwrap_or(&[])),
            }
        })
    }

    /// The words: bytes of the text and tokens of each.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'a> {
        self.words.iter().map(|word| {
            let [begin, end, first, last] = word.map(|place| place as usize);
            (begin..end, first..last)
        })
    }

    /// Geometric mean of the probabilities of all tokens, 0 to 1; 0 when there is none.
    pub fn confidence(&self) -> f32 {
        confidence(self.scores)
    }

    /// Probability, by the decoder, that there are no words at all, 0 to 1; 0 where it was not asked: with a CTC head alone.
    pub fn nothing(&self) -> f32 {
        self.nothing
    }

    /// Whether the words look made up, in an utterance of so many samples of what passed for a voice; true where there are none.
    pub fn is_doubtful(&self, voiced_samples: u64) -> bool {
        let (tokens, words, confidence) = (self.tokens.len(), self.words.len(), self.confidence());
        let (text, nothing) = (self.text, self.nothing);
        Evidence { text, tokens, words, confidence, nothing, voiced_samples }.is_doubtful()
    }

    /// No words at all.
    pub(crate) fn empty() -> Self {
        Self {
            text: "",
            tokens: &[],
            scores: &[],
            spans: &[],
            words: &[],
            times: Times::default(),
            nothing: 0.0,
        }
    }
}

fn confidence(scores: &[f32]) -> f32 {
    if scores.is_empty() {
        return 0.0;
    }
    libm::expf(scores.iter().sum::<f32>() / scores.len() as f32)
}

/// Puts a transcript together from the first `count` tokens of `buffers`, whose scores and spans are there.
pub(crate) fn compose<'a>(
    vocabulary: &Vocabulary<'_>,
    buffers: &'a mut TranscriptBuffers<'_>,
    count: usize,
    times: Times,
    nothing: f32,
) -> Transcript<'a> {
    let tokens = buffers.tokens.get(..count).unwrap_or(&[]);
    let (text_end, word_count) = write_words(vocabulary, tokens, buffers.text, buffers.words);
    let text = buffers.text.get(..text_end).and_then(|text| str::from_utf8(text).ok()).unwrap_or("");
    Transcript {
        text,
        tokens,
        scores: buffers.scores.get(..count).unwrap_or(&[]),
        spans: buffers.spans.get(..count).unwrap_or(&[]),
        words: buffers.words.get(..word_count).unwrap_or(&[]),
        times,
        nothing,
    }
}

/// Whether a word begins with this token, wherever it stands.
pub(crate) fn begins_word(vocabulary: &Vocabulary<'_>, token: u32) -> bool {
    vocabulary.piece(token).into_iter().next() == Some(b' ')
}

/// Writes the words with one space between them; returns the bytes of text and the number of words.
fn write_words(
    vocabulary: &Vocabulary<'_>,
    tokens: &[u32],
    text: &mut [u8],
    words: &mut [[u32; 4]],
) -> (usize, usize) {
    let mut writer = TextWriter { text, end: 0 };
    let mut word_count = 0;
    let mut index = 0;
    while index < tokens.len() {
        // A word runs to the next token that begins with a space.
        let next = tokens
            .iter()
            .enumerate()
            .skip(index + 1)
            .find(|(_, token)| begins_word(vocabulary, **token))
            .map_or(tokens.len(), |(next, _)| next);
        let before = writer.end;
        if before > 0 {
            writer.push(b" ");
        }
        let begin = writer.end;
        let word = tokens.get(index..next).unwrap_or(&[]);
        writer.write_lossy(word.iter().flat_map(|&token| vocabulary.piece(token)));
        if writer.end == begin {
            writer.end = before;
        } else if let Some(place) = words.get_mut(word_count) {
            *place = [begin as u32, writer.end as u32, index as u32, next as u32];
            word_count += 1;
        }
        index = next;
    }
    (writer.end, word_count)
}

struct TextWriter<'a> {
    text: &'a mut [u8],
    end: usize,
}

impl TextWriter<'_> {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(target) = self.text.get_mut(self.end..self.end + bytes.len()) {
            target.copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    /// Writes a word's bytes without the spaces around them; what is not UTF-8 becomes U+FFFD.
    fn write_lossy(&mut self, bytes: impl Iterator<Item = u8>) {
        let begin = self.end;
        let mut pending = [0u8; 4];
        let mut length = 0;
        for byte in bytes.skip_while(|byte| *byte == b' ') {
            if let Some(place) = pending.get_mut(length) {
                *place = byte;
                length += 1;
            }
            loop {
                match str::from_utf8(pending.get(..length).unwrap_or(&[])) {
                    Ok(character) => {
                        self.push(character.as_bytes());
                        length = 0;
                        break;
                    }
                    // An unfinished character waits for its next byte.
                    Err(error) if error.error_len().is_none() => break,
                    Err(_) => self.push("\u{fffd}".as_bytes()),
                }
                // The byte that broke a character may begin another.
                length = usize::from(length > 1);
                pending[0] = byte;
            }
        }
        if length > 0 {
            self.push("\u{fffd}".as_bytes());
        }
        while self.end > begin && self.text.get(self.end - 1) == Some(&b' ') {
            self.end -= 1;
        }
    }
}
