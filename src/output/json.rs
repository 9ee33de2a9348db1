//! One JSON object a recording, on one line.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use super::{Segment, TranscriptWriter};

#[derive(Default, Serialize)]
pub(super) struct JsonWriter {
    file: String,
    #[serde(serialize_with = "milli")]
    seconds: f64,
    text: String,
    segments: Vec<Segment>,
}

/// Three decimals: milliseconds of a time, and more than enough of a probability.
pub fn milli<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1000.0).round() / 1000.0)
}

impl TranscriptWriter for JsonWriter {
    fn begin(&mut self, file: &str, _out: &mut dyn Write) -> io::Result<()> {
        *self = Self { file: file.into(), ..Self::default() };
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, _out: &mut dyn Write) -> io::Result<()> {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(&segment.text);
        self.segments.push(segment.clone());
        Ok(())
    }

    fn end(&mut self, seconds: f64, out: &mut dyn Write) -> io::Result<()> {
        self.seconds = seconds;
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

#[cfg(test)]
mod tests {
    use crate::output::samples::{segment, write};
    use crate::output::{Detail, Format};

    #[test]
    fn everything_is_there_and_rounded() {
        let line = write(
            Format::Json.writer(Detail::default()),
            &[segment(1.0, "One \"two\"."), segment(9.0, "Three.")],
        );
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["file"], "a \"b\".wav");
        assert_eq!(value["seconds"], 12.5);
        assert_eq!(value["text"], "One \"two\". Three.");
        assert_eq!(value["segments"][0]["confidence"], 0.877);
        assert_eq!(value["segments"][0]["tokens"], serde_json::json!([7, 8]));
        assert_eq!(
            value["segments"][0]["words"][1],
            serde_json::json!({"word": "\"two\".", "start": 1.5, "end": 1.9, "confidence": 0.9})
        );
    }

    #[test]
    fn silence_is_an_object_without_segments() {
        let line = write(Format::Json.writer(Detail::default()), &[]);
        assert_eq!(line, "{\"file\":\"a \\\"b\\\".wav\",\"seconds\":12.5,\"text\":\"\",\"segments\":[]}\n");
    }
}
