//! Transcripts as text, JSON lines, SubRip and WebVTT.

mod cues;
mod json;
mod subtitles;
mod text;

pub use json::milli;

use std::io::{self, Write};

use serde::Serialize;

/// One word of a segment. Times are seconds from the beginning of the recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// The word with its punctuation, without spaces around it.
    pub word: String,
    /// When it begins.
    #[serde(serialize_with = "json::milli")]
    pub start: f64,
    /// When it ends.
    #[serde(serialize_with = "json::milli")]
    pub end: f64,
    /// Probability in [0, 1].
    #[serde(serialize_with = "json::milli")]
    pub confidence: f64,
}

/// One stretch of speech between pauses. Times are seconds from the beginning of the recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Segment {
    /// When it begins.
    #[serde(serialize_with = "json::milli")]
    pub start: f64,
    /// When it ends.
    #[serde(serialize_with = "json::milli")]
    pub end: f64,
    /// What was said.
    pub text: String,
    /// Probability in [0, 1].
    #[serde(serialize_with = "json::milli")]
    pub confidence: f64,
    /// The model's tokens behind the text.
    pub tokens: Vec<u32>,
    /// The words of the text.
    pub words: Vec<Word>,
    /// Whether the words look made up, where they were asked for all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub doubtful: bool,
}

/// What a transcript is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain text, a line for each segment.
    Text,
    /// One JSON object a recording, on one line.
    Json,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
}

/// How much of a transcript plain text and subtitles show. JSON always holds everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Detail {
    /// A line, or a subtitle, for each word, with its times.
    pub words: bool,
    /// A line with the recording's name before plain text.
    pub names: bool,
}

impl Format {
    /// Extension of a file in this format.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Text => "txt",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
        }
    }

    /// A writer of one recording after another.
    pub fn writer(self, detail: Detail) -> Box<dyn TranscriptWriter> {
        match self {
            Self::Text => Box::new(text::TextWriter::new(detail)),
            Self::Json => Box::new(json::JsonWriter::default()),
            Self::Srt => Box::new(subtitles::SubtitleWriter::srt(detail)),
            Self::Vtt => Box::new(subtitles::SubtitleWriter::vtt(detail)),
        }
    }
}

/// Writes recordings: `begin`, then any number of segments in order of time, then `end`.
pub trait TranscriptWriter {
    /// A recording begins; `file` is what the user calls it.
    fn begin(&mut self, file: &str, out: &mut dyn Write) -> io::Result<()>;
    /// A segment of it.
    fn segment(&mut self, segment: &Segment, out: &mut dyn Write) -> io::Result<()>;
    /// It ends after `seconds`.
    fn end(&mut self, seconds: f64, out: &mut dyn Write) -> io::Result<()>;
}

#[cfg(test)]
pub(crate) mod samples {
    use super::{Segment, Word};

    /// A segment whose words last 0.4 s each, with 0.1 s between them.
    pub(crate) fn segment(start: f64, text: &str) -> Segment {
        let words: Vec<Word> = text
            .split(' ')
            .enumerate()
            .map(|(index, word)| Word {
                word: word.into(),
                start: start + index as f64 * 0.5,
                end: start + index as f64 * 0.5 + 0.4,
                confidence: 0.9,
            })
            .collect();
        let end = words.last().map_or(start, |word| word.end);
        Segment {
            start,
            end,
            text: text.into(),
            confidence: 0.87654,
            tokens: vec![7, 8],
            words,
            doubtful: false,
        }
    }

    /// Everything that `writer` makes of one recording.
    pub(crate) fn write(mut writer: Box<dyn super::TranscriptWriter>, segments: &[Segment]) -> String {
        let mut out = Vec::new();
        writer.begin("a \"b\".wav", &mut out).expect("a vector takes everything");
        for segment in segments {
            writer.segment(segment, &mut out).expect("a vector takes everything");
        }
        writer.end(12.5, &mut out).expect("a vector takes everything");
        String::from_utf8(out).expect("writers write UTF-8")
    }
}
