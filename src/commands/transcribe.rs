//! `kinglet transcribe`: recordings become text.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kinglet::audio::{AudioError, Input, find_inputs};
use kinglet::output::{Detail, Format, Segment, TranscriptWriter};
use kinglet::transcription::{Sink, transcribe};
use kinglet_runtime::{Decoding, Limits};

use super::model::ModelOptions;
use super::progress::Progress;
use crate::failure::Failure;
use crate::partial_file::PartialFile;

/// Turn recordings into text
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kinglet transcribe talk.mp3\n  kinglet transcribe --format srt --output subtitles/ films/\n  \
sox -t alsa default -t wav - trim 0 5 | kinglet transcribe -\n  kinglet transcribe --format json *.flac | jq .text"
)]
pub struct Transcribe {
    /// WAV, FLAC, MP3 or Ogg Vorbis files, folders that hold such files, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// What to write; JSON is one object a recording, with all times and confidences
    #[arg(short, long, value_enum, default_value_t = FormatName::Text)]
    format: FormatName,
    /// Write one file for each recording into this folder, instead of standard output
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// A line of text, or a subtitle, for each word, with its times
    #[arg(short, long)]
    words: bool,
    /// Hypotheses that the search follows; 1 is fastest and the default but for `ctc-beam` and `rescore`, where it is 8
    #[arg(short, long, value_parser = clap::value_parser!(u8).range(1..=8))]
    beam: Option<u8>,
    /// How text is found; all but `attention` need a model with a CTC head, which `kinglet inspect` shows
    #[arg(long, value_enum, default_value_t = DecodingName::Attention)]
    decoding: DecodingName,
    /// With `--decoding rescore`: how much the CTC head's log probability counts beside the decoder's
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.5, value_parser = ctc_weight, allow_hyphen_values = true)]
    ctc_weight: f32,
    /// Threads that recognise, some 8 MB of memory each; 0 is one for each processor
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(..=256))]
    threads: u16,
    /// Also write what the recogniser takes for noise and not for speech, which is left out otherwise; JSON marks it as `doubtful`
    #[arg(long)]
    keep_doubtful: bool,
    #[command(flatten)]
    model: ModelOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    Text,
    Json,
    Srt,
    Vtt,
}

/// Names of ways to find text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DecodingName {
    /// The decoder writes it token by token
    Attention,
    /// The most probable token of each frame
    CtcGreedy,
    /// Prefix beam search over the frames
    CtcBeam,
    /// The decoder chooses among the hypotheses of that search
    Rescore,
}

/// A weight from 0 to 100, as the recogniser takes it.
fn ctc_weight(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|weight| (0.0..=100.0).contains(weight))
        .ok_or("give a number from 0 to 100".into())
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Text => Self::Text,
            FormatName::Json => Self::Json,
            FormatName::Srt => Self::Srt,
            FormatName::Vtt => Self::Vtt,
        }
    }
}

impl Transcribe {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<(), Failure> {
        let mut at_fault = false;
        let mut inputs = Vec::new();
        for argument in &self.inputs {
            match find_inputs(argument) {
                Ok(found) => inputs.extend(found),
                Err(cause) => {
                    at_fault = true;
                    log::error!("{}: {cause}", argument.display());
                }
            }
        }
        let format = Format::from(self.format);
        let outputs = match &self.output {
            Some(folder) => Some(name_outputs(&mut inputs, folder, format, &mut at_fault)),
            None if inputs.len() > 1 && matches!(format, Format::Srt | Format::Vtt) => {
                return Err(Failure::input(
                    "standard output",
                    "subtitles of several recordings would run into each other; give `--output FOLDER`",
                ));
            }
            None => None,
        };
        if inputs.is_empty() {
            return Err(Failure::reported());
        }
        let file = self.model.open()?;
        let model = self.model.parse(&file)?;
        let detail = Detail { words: self.words, names: inputs.len() > 1 && outputs.is_none() };
        let mut sink = Writer {
            inputs: &inputs,
            writer: format.writer(detail),
            target: match outputs {
                Some(paths) => Target::Files { paths, content: Vec::new() },
                None => Target::Stdout(BufWriter::new(io::stdout())),
            },
            progress: Progress::new(inputs.len(), quiet),
            current: 0,
            at_fault,
        };
        let limits = self.limits();
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads.into(),
        };
        transcribe(&inputs, model, limits, threads, self.keep_doubtful, &mut sink)?;
        sink.progress.finish();
        if sink.at_fault { Err(Failure::reported()) } else { Ok(()) }
    }
}

impl Transcribe {
    fn limits(&self) -> Limits {
        let (decoding, usual_beam) = match self.decoding {
            DecodingName::Attention => (Decoding::Attention, 1),
            DecodingName::CtcGreedy => (Decoding::CtcGreedy, 1),
            DecodingName::CtcBeam => (Decoding::CtcBeam, 8),
            DecodingName::Rescore => (Decoding::Rescore { ctc_weight: self.ctc_weight }, 8),
        };
        let beam = self.beam.unwrap_or(usual_beam).into();
        Limits { beam, decoding, ..Limits::default() }
    }
}

/// Where each transcript goes: the recording's place below its folder, with another extension. An input whose transcript
/// would overwrite another's is told and left out.
fn name_outputs(
    inputs: &mut Vec<Input>,
    folder: &std::path::Path,
    format: Format,
    at_fault: &mut bool,
) -> Vec<PathBuf> {
    let mut taken: HashMap<PathBuf, String> = HashMap::new();
    let mut paths = Vec::new();
    inputs.retain(|input| {
        let relative = match input {
            Input::Stdin => PathBuf::from("stdin"),
            Input::File { relative, .. } => relative.clone(),
        };
        let path = folder.join(relative.with_extension(format.extension()));
        if let Some(other) = taken.get(&path) {
            *at_fault = true;
            log::error!(
                "{input}: would be written to {}, as {other} is; rename one of them or run them one by one",
                path.display()
            );
            return false;
        }
        taken.insert(path.clone(), input.to_string());
        paths.push(path);
        true
    });
    paths
}

struct Writer<'i> {
    inputs: &'i [Input],
    writer: Box<dyn TranscriptWriter>,
    target: Target,
    progress: Progress,
    /// The recording that was begun last.
    current: usize,
    at_fault: bool,
}

enum Target {
    Stdout(BufWriter<io::Stdout>),
    /// The transcript is put together in memory, a few kilobytes an hour of speech, and written when it is whole.
    Files {
        paths: Vec<PathBuf>,
        content: Vec<u8>,
    },
}

impl Target {
    fn stream(&mut self) -> &mut dyn Write {
        match self {
            Self::Stdout(stdout) => stdout,
            Self::Files { content, .. } => content,
        }
    }
}

impl Writer<'_> {
    /// Lets `write` write, and shows it at once.
    fn show(
        &mut self,
        write: impl FnOnce(&mut dyn TranscriptWriter, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let Self { writer, target, progress, .. } = self;
        let result = progress.suspend(|| {
            write(writer.as_mut(), target.stream())?;
            target.stream().flush()
        });
        Ok(result?)
    }

    fn name(&self, index: usize) -> String {
        self.inputs.get(index).map(Input::to_string).unwrap_or_default()
    }
}

impl Sink for Writer<'_> {
    type Stop = Failure;

    fn begin(&mut self, index: usize, promised_seconds: Option<f64>) -> Result<(), Failure> {
        self.current = index;
        let name = self.name(index);
        log::info!("{name}: transcribing");
        self.progress.begin(&name, promised_seconds);
        self.show(|writer, out| writer.begin(&name, out))
    }

    fn segment(&mut self, segment: Segment) -> Result<(), Failure> {
        self.progress.reach(segment.end);
        self.show(|writer, out| writer.segment(&segment, out))
    }

    fn end(&mut self, seconds: f64, damage: Option<String>) -> Result<(), Failure> {
        self.show(|writer, out| writer.end(seconds, out))?;
        if let Target::Files { paths, content } = &mut self.target
            && let Some(path) = paths.get(self.current)
        {
            let written = path
                .parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| PartialFile::create(path))
                .and_then(|mut file| {
                    file.write_all(content)?;
                    file.finish()
                });
            written.map_err(|cause| {
                Failure::other(path.display(), format!("cannot be written: {cause}; choose another folder"))
            })?;
            content.clear();
        }
        if let Some(cause) = damage {
            self.at_fault = true;
            let name = self.name(self.current);
            self.progress.suspend(|| log::warn!("{name}: {cause}; what could be decoded was transcribed"));
        }
        self.progress.next();
        Ok(())
    }

    fn fail(&mut self, index: usize, error: AudioError) -> Result<(), Failure> {
        self.at_fault = true;
        let name = self.name(index);
        self.progress.suspend(|| log::error!("{name}: {error}"));
        self.progress.next();
        Ok(())
    }
}
