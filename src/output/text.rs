//! Plain text.

use std::io::{self, Write};

use super::{Detail, Segment, TranscriptWriter};

pub(super) struct TextWriter {
    detail: Detail,
    recordings: usize,
}

impl TextWriter {
    pub(super) fn new(detail: Detail) -> Self {
        Self { detail, recordings: 0 }
    }
}

impl TranscriptWriter for TextWriter {
    fn begin(&mut self, file: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.detail.names {
            // As `head` and `tail` do for several files.
            writeln!(out, "{}==> {file} <==", if self.recordings > 0 { "\n" } else { "" })?;
        }
        self.recordings += 1;
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, out: &mut dyn Write) -> io::Result<()> {
        if !self.detail.words {
            return writeln!(out, "{}", segment.text);
        }
        for word in &segment.words {
            writeln!(out, "{:9.2} {:9.2}  {:4.2}  {}", word.start, word.end, word.confidence, word.word)?;
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
    fn a_line_for_each_segment() {
        let segments = [segment(0.0, "One two."), segment(3.0, "Three.")];
        assert_eq!(write(Format::Text.writer(Detail::default()), &segments), "One two.\nThree.\n");
    }

    #[test]
    fn names_and_words_where_asked_for() {
        let detail = Detail { words: true, names: true };
        assert_eq!(
            write(Format::Text.writer(detail), &[segment(1.0, "One two.")]),
            "==> a \"b\".wav <==\n     1.00      1.40  0.90  One\n     1.50      1.90  0.90  two.\n"
        );
    }
}
