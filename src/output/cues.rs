//! Segments cut into subtitles that can be read in time.

use super::{Segment, Word};

/// Two lines of 42 characters, the usual limit of broadcasters.
const MAX_CHARACTERS: usize = 84;
const LINE_CHARACTERS: usize = 42;
/// Longest time that a subtitle stays, as far as it can be cut between words.
const MAX_SECONDS: f64 = 7.0;
/// From this length on, the end of a sentence ends a subtitle.
const SENTENCE_CHARACTERS: usize = 30;

/// One subtitle, times in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cue {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) text: String,
}

/// The subtitles of a segment; one for each word where `each_word` is set.
pub(super) fn cues(segment: &Segment, each_word: bool) -> Vec<Cue> {
    if segment.words.is_empty() {
        let (start, end) = (segment.start, segment.end);
        return vec![Cue { start, end, text: two_lines(&segment.text) }];
    }
    let mut cues: Vec<Cue> = Vec::new();
    for word in &segment.words {
        match cues.last_mut() {
            Some(cue) if !each_word && belongs(cue, word) => {
                cue.text.push(' ');
                cue.text.push_str(&word.word);
                cue.end = word.end;
            }
            _ => cues.push(Cue { start: word.start, end: word.end, text: word.word.clone() }),
        }
    }
    for cue in &mut cues {
        cue.text = two_lines(&cue.text);
    }
    cues
}

fn belongs(cue: &Cue, word: &Word) -> bool {
    let length = cue.text.chars().count();
    let sentence_over = cue.text.ends_with(['.', '?', '!']) && length >= SENTENCE_CHARACTERS;
    !sentence_over
        && length + 1 + word.word.chars().count() <= MAX_CHARACTERS
        && word.end - cue.start <= MAX_SECONDS
}

/// Breaks a text that is too long for one line at the space nearest to its middle.
fn two_lines(text: &str) -> String {
    if text.chars().count() <= LINE_CHARACTERS {
        return text.into();
    }
    let middle = text.len() / 2;
    match text.match_indices(' ').map(|(at, _)| at).min_by_key(|at| at.abs_diff(middle)) {
        Some(at) => {
            let (first, second) = text.split_at(at);
            format!("{first}\n{}", second.trim_start())
        }
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples::segment;

    #[test]
    fn long_segments_are_cut_and_no_word_is_lost() {
        let text = ["considerable"; 40].join(" ");
        let segment = segment(0.0, &text);
        let cues = cues(&segment, false);
        assert!(cues.len() >= 6);
        for cue in &cues {
            assert!(cue.text.chars().count() <= MAX_CHARACTERS);
            assert!(cue.text.lines().all(|line| line.len() <= LINE_CHARACTERS + 12));
            assert!(cue.end - cue.start <= MAX_SECONDS);
        }
        let joined: Vec<String> = cues.iter().map(|cue| cue.text.replace('\n', " ")).collect();
        assert_eq!(joined.join(" "), text);
        assert!(cues.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }

    #[test]
    fn a_sentence_ends_a_cue_unless_it_is_very_short() {
        let segment = segment(0.0, "Yes. He was not an ill disposed man. Unless");
        let texts: Vec<String> = cues(&segment, false).into_iter().map(|cue| cue.text).collect();
        assert_eq!(texts, ["Yes. He was not an ill disposed man.", "Unless"]);
    }

    #[test]
    fn words_alone_where_asked_for_and_whole_text_without_words() {
        let mut segment = segment(2.0, "One two.");
        assert_eq!(cues(&segment, true).len(), 2);
        segment.words.clear();
        assert_eq!(cues(&segment, true), [Cue { start: 2.0, end: 2.9, text: "One two.".into() }]);
    }
}
