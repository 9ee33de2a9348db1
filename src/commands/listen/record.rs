//! What is kept of a session: a transcript, and the audio of each utterance.

use std::fs::{File, create_dir_all};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kinglet::output::{Detail, Format, Segment, TranscriptWriter};
use kinglet_runtime::SAMPLE_RATE;

use crate::failure::Failure;
use crate::partial_file::PartialFile;

/// Files that grow with each utterance.
pub(super) struct Record {
    transcript: Option<Transcript>,
    folder: Option<PathBuf>,
}

struct Transcript {
    path: PathBuf,
    file: File,
    writer: Box<dyn TranscriptWriter>,
}

impl Record {
    pub(super) fn create(output: Option<PathBuf>, folder: Option<PathBuf>) -> Result<Self, Failure> {
        let transcript = output.map(Transcript::create).transpose()?;
        if let Some(folder) = &folder {
            create_dir_all(folder).map_err(|cause| unwritable(folder, &cause))?;
        }
        Ok(Self { transcript, folder })
    }

    /// Adds an utterance.
    pub(super) fn write(&mut self, said: &Segment, samples: &[i16]) -> Result<(), Failure> {
        if let Some(transcript) = &mut self.transcript {
            transcript.add(|writer, out| writer.segment(said, out))?;
        }
        if let Some(folder) = &self.folder {
            let path = folder.join(format!("{:010.3}.wav", said.start));
            let written = PartialFile::create(&path).and_then(|mut file| {
                file.write_all(&wav(samples))?;
                file.finish()
            });
            written.map_err(|cause| unwritable(&path, &cause))?;
        }
        Ok(())
    }
}

impl Transcript {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("srt") => Format::Srt,
            Some("vtt") => Format::Vtt,
            _ => Format::Text,
        };
        let file = File::create(&path).map_err(|cause| unwritable(&path, &cause))?;
        let mut transcript = Self { path, file, writer: format.writer(Detail::default()) };
        transcript.add(|writer, out| writer.begin("", out))?;
        Ok(transcript)
    }

    /// Whole lines and whole subtitles only: the file can be read, and the power can fail, at any moment.
    fn add(
        &mut self,
        write: impl FnOnce(&mut dyn TranscriptWriter, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut addition = Vec::new();
        write(self.writer.as_mut(), &mut addition)
            .and_then(|()| self.file.write_all(&addition))
            .and_then(|()| self.file.sync_data())
            .map_err(|cause| unwritable(&self.path, &cause))
    }
}

fn unwritable(path: &Path, cause: &io::Error) -> Failure {
    Failure::other(path.display(), format!("cannot be written: {cause}; choose another place"))
}

/// A WAV file, 16 kHz, mono, 16 bits.
fn wav(samples: &[i16]) -> Vec<u8> {
    let bytes = (samples.len() * 2) as u32;
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + bytes).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16u32.to_le_bytes());
    file.extend_from_slice(&1u16.to_le_bytes());
    file.extend_from_slice(&1u16.to_le_bytes());
    file.extend_from_slice(&SAMPLE_RATE.to_le_bytes());
    file.extend_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&16u16.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}
