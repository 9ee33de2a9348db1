//! Compressed or not: files become mono samples at 16 kHz.

use std::fs::File;
use std::io::{ErrorKind, Stdin};
use std::path::Path;

use kinglet_runtime::SAMPLE_RATE;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::FORMAT_ID_MP3;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;

use super::{AudioError, Input, Resampler};

/// A recording being read: ask for chunks until there are none.
///
/// Memory is bounded by the largest packet of the format, not by the length of the recording.
pub struct AudioReader {
    format: Box<dyn FormatReader>,
    decoder: Box<dyn AudioDecoder>,
    track_id: u32,
    resampler: Option<(u32, Resampler)>,
    /// One packet, channels interleaved, at the rate of the file.
    interleaved: Vec<f32>,
    /// The mean of its channels.
    mono: Vec<f32>,
    /// The chunk handed out, at 16 kHz.
    chunk: Vec<f32>,
    promised_frames: Option<u64>,
    rate: Option<u32>,
    decoded_frames: u64,
    broken_packets: u64,
    broken_samples: u64,
    early_end: Option<String>,
    finished: bool,
}

impl AudioReader {
    /// Opens `input` and reads as much of it as says what it is.
    pub fn open(input: &Input) -> Result<Self, AudioError> {
        let source: Box<dyn MediaSource> = match input {
            Input::Stdin => Box::new(ReadOnlySource::<Stdin>::new(std::io::stdin())),
            Input::File { path, .. } => Box::new(open_file(path)?),
        };
        // Somebody who writes into a pipe does not know the length when the header is written.
        let header_knows_length = source.is_seekable();
        let stream = MediaSourceStream::new(source, Default::default());
        // The name decides nothing: the first bytes do.
        let format = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(unreadable)?;
        let (track, decoder) = open_track(format.as_ref())?;
        let (track_id, rate) = (track.id, sample_rate(track));
        // The length of an MP3 is a guess from its size, unless its encoder left a header with the padding in it.
        let guessed = format.format_info().format == FORMAT_ID_MP3 && track.delay.is_none();
        let promised_frames = track.num_frames.filter(|_| header_knows_length && !guessed);
        if let Some(rate) = rate {
            Resampler::new(rate)?;
        }
        Ok(Self {
            format,
            decoder,
            track_id,
            resampler: None,
            interleaved: Vec::new(),
            mono: Vec::new(),
            chunk: Vec::new(),
            promised_frames,
            rate,
            decoded_frames: 0,
            broken_packets: 0,
            broken_samples: 0,
            early_end: None,
            finished: false,
        })
    }

    /// The next samples, 16 kHz mono in [-1, 1], never none; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<&[f32]>, AudioError> {
        self.chunk.clear();
        while self.chunk.is_empty() && !self.finished {
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id != self.track_id => {}
                Ok(Some(packet)) => match self.decoder.decode(&packet) {
                    Ok(decoded) => {
                        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
                        decoded.copy_to_vec_interleaved(&mut self.interleaved);
                        self.mix(rate, channels)?;
                    }
                    Err(Error::ResetRequired) => self.decoder.reset(),
                    // The packet is lost, the next one may be sound.
                    Err(_) => self.broken_packets += 1,
                },
                Ok(None) => self.finish(),
                // An Ogg file may hold several recordings one after another.
                Err(Error::ResetRequired) => match open_track(self.format.as_ref()) {
                    Ok((track, decoder)) => {
                        self.track_id = track.id;
                        self.decoder = decoder;
                        self.promised_frames = None;
                    }
                    Err(cause) => self.end_early(cause.to_string()),
                },
                Err(Error::IoError(cause)) if cause.kind() == ErrorKind::UnexpectedEof => {
                    self.end_early("the file is cut short".into());
                }
                Err(cause) => self.end_early(cause.to_string()),
            }
        }
        if self.finished
            && self.decoded_frames == 0
            && let Some(cause) = self.damage()
        {
            return Err(AudioError::Damaged(cause));
        }
        Ok(if self.chunk.is_empty() { None } else { Some(&self.chunk) })
    }

    /// How long the header says that the recording is, in samples at 16 kHz.
    pub fn promised_samples(&self) -> Option<u64> {
        Some(self.promised_frames? * u64::from(SAMPLE_RATE) / u64::from(self.rate?))
    }

    /// What was wrong with the part read so far, in words; `None` if nothing was.
    pub fn damage(&self) -> Option<String> {
        let mut causes = Vec::new();
        if let Some(cause) = &self.early_end {
            causes.push(cause.clone());
        }
        if let (true, Some(promised), Some(rate)) = (self.finished, self.promised_frames, self.rate)
            && self.decoded_frames < promised
        {
            let seconds = |frames: u64| frames as f64 / f64::from(rate);
            causes.push(format!(
                "{:.2} s could be decoded of {:.2} s promised by its header",
                seconds(self.decoded_frames),
                seconds(promised)
            ));
        }
        if self.broken_packets > 0 {
            causes.push(format!("{} damaged packets were left out", self.broken_packets));
        }
        if self.broken_samples > 0 {
            causes.push(format!("{} samples are not numbers and were read as silence", self.broken_samples));
        }
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// Takes the packet in `interleaved` into `chunk`.
    fn mix(&mut self, rate: u32, channels: usize) -> Result<(), AudioError> {
        let channels = channels.max(1);
        for sample in &mut self.interleaved {
            let finite = sample.is_finite();
            self.broken_samples += u64::from(!finite);
            *sample = if finite { sample.clamp(-1.0, 1.0) } else { 0.0 };
        }
        if channels == 1 {
            core::mem::swap(&mut self.mono, &mut self.interleaved);
        } else {
            let scale = 1.0 / channels as f32;
            self.mono.clear();
            let frames = self.interleaved.chunks_exact(channels);
            self.mono.extend(frames.map(|frame| frame.iter().sum::<f32>() * scale));
        }
        self.decoded_frames += self.mono.len() as u64;
        if self.resampler.as_ref().is_none_or(|(current, _)| *current != rate) {
            let next = Resampler::new(rate)?;
            if let Some((_, mut previous)) = self.resampler.replace((rate, next)) {
                previous.finish(&mut self.chunk);
            }
        }
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.push(&self.mono, &mut self.chunk);
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.finished = true;
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.finish(&mut self.chunk);
        }
    }

    fn end_early(&mut self, cause: String) {
        self.early_end = Some(cause);
        self.finish();
    }
}

fn open_file(path: &Path) -> Result<File, AudioError> {
    let file = File::open(path).map_err(AudioError::Open)?;
    let metadata = file.metadata().map_err(AudioError::Open)?;
    if metadata.is_file() && metadata.len() == 0 { Err(AudioError::Empty) } else { Ok(file) }
}

fn sample_rate(track: &Track) -> Option<u32> {
    match &track.codec_params {
        Some(CodecParameters::Audio(parameters)) => parameters.sample_rate,
        _ => None,
    }
}

fn open_track(format: &dyn FormatReader) -> Result<(&Track, Box<dyn AudioDecoder>), AudioError> {
    let Some(track) = format.default_track(TrackType::Audio) else {
        return Err(AudioError::UnsupportedCodec("no audio track with a known codec"));
    };
    let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
        return Err(AudioError::UnsupportedCodec("the codec is not named"));
    };
    let decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(unreadable)?;
    Ok((track, decoder))
}

/// What a failure means before a single sample was decoded.
fn unreadable(error: Error) -> AudioError {
    match error {
        Error::Unsupported("core (probe): no suitable format reader found") => AudioError::Unrecognised,
        Error::Unsupported("core (codec): unsupported audio codec") => {
            AudioError::UnsupportedCodec("its codec is not supported")
        }
        Error::Unsupported(cause) => AudioError::UnsupportedCodec(cause),
        Error::IoError(cause) if cause.kind() == ErrorKind::UnexpectedEof => AudioError::Unrecognised,
        Error::IoError(cause) => AudioError::Open(cause),
        other => AudioError::Damaged(other.to_string()),
    }
}
