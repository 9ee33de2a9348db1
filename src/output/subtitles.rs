//! SubRip and WebVTT.

use std::io::{self, Write};

use super::cues::cues;
use super::{Detail, Segment, TranscriptWriter};

pub(super) struct SubtitleWriter {
    /// Before the first cue.
    header: &'static str,
    /// Between seconds and milliseconds.
    point: char,
    /// Whether cues are numbered, and text is taken as it is rather than as markup.
    numbered: bool,
    each_word: bool,
    count: usize,
}

impl SubtitleWriter {
    pub(super) fn srt(detail: Detail) -> Self {
        Self { header: "", point: ',', numbered: true, each_word: detail.words, count: 0 }
    }

    pub(super) fn vtt(detail: Detail) -> Self {
        Self { header: "WEBVTT\n\n", point: '.', numbered: false, each_word: detail.words, count: 0 }
    }

    fn time(&self, seconds: f64) -> String {
        let total = (seconds.max(0.0) * 1000.0).round() as u64;
        let (hours, minutes) = (total / 3_600_000, total / 60_000 % 60);
        format!("{hours:02}:{minutes:02}:{:02}{}{:03}", total / 1000 % 60, self.point, total % 1000)
    }
}

impl TranscriptWriter for SubtitleWriter {
    fn begin(&mut self, _file: &str, out: &mut dyn Write) -> io::Result<()> {
        self.count = 0;
        out.write_all(self.header.as_bytes())
    }

    fn segment(&mut self, segment: &Segment, out: &mut dyn Write) -> io::Result<()> {
        for cue in cues(segment, self.each_word) {
            self.count += 1;
            if self.numbered {
                writeln!(out, "{}", self.count)?;
            }
            let text = if self.numbered {
                cue.text
            } else {
                cue.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
            };
            writeln!(out, "{} --> {}\n{text}\n", self.time(cue.start), self.time(cue.end))?;
        }
        Ok(())
    }

    fn end(&mut self, _seconds: f64, _out: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::output::samples::{segment, write};
    use crate::output::{Detail, Format};

    #[test]
    fn srt_numbers_its_cues() {
        let segments = [segment(1.0, "One & two."), segment(3725.5, "Three.")];
        assert_eq!(
            write(Format::Srt.writer(Detail::default()), &segments),
            "1\n00:00:01,000 --> 00:00:02,400\nOne & two.\n\n2\n01:02:05,500 --> 01:02:05,900\nThree.\n\n"
        );
    }

    #[test]
    fn vtt_has_a_header_and_escapes_markup() {
        let vtt = write(Format::Vtt.writer(Detail::default()), &[segment(1.0, "One & <two>.")]);
        assert_eq!(vtt, "WEBVTT\n\n00:00:01.000 --> 00:00:02.400\nOne &amp; &lt;two&gt;.\n\n");
    }

    #[test]
    fn silence_leaves_the_header_alone() {
        assert_eq!(write(Format::Vtt.writer(Detail::default()), &[]), "WEBVTT\n\n");
        assert_eq!(write(Format::Srt.writer(Detail::default()), &[]), "");
    }
}
