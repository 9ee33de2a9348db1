//! What a program does with a model from a stranger, shared with the fuzz targets.
#![allow(dead_code, reason = "each user takes a part of this")]

use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{
    Decoding, EncoderStream, Limits, Transcriber, encoder_stream_memory, transcriber_memory,
};

/// What became of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is not a model, or none that this version runs.
    Refused,
    /// It asks for more memory than the caller has.
    TooLarge,
    /// It gave a transcript, perhaps without words.
    Ran,
}

/// Parses `bytes` and runs what is accepted over `audio` in at most `memory` bytes; `region` is room that is used again.
///
/// # Panics
/// Where a promise is broken.
pub fn run(bytes: &[u8], audio: &[i16], memory: usize, region: &mut Vec<u8>) -> Outcome {
    let Ok(model) = Model::parse(bytes) else { return Outcome::Refused };
    let decoding =
        if model.ctc().is_some() { Decoding::Rescore { ctc_weight: 0.5 } } else { Decoding::Attention };
    let limits = Limits { utterance_seconds: 1.0, beam: 2, decoding };
    let needed = match transcriber_memory(&model, &limits) {
        Ok(needed) if needed <= memory => needed,
        Ok(_) => return Outcome::TooLarge,
        Err(_) => return Outcome::Refused,
    };
    fill(region, needed);
    let Ok(mut transcriber) = Transcriber::new(model, Kernels::detect(), limits, region) else {
        return Outcome::Refused;
    };
    let Ok(transcript) = transcriber.transcribe(audio) else { return Outcome::Refused };
    assert!((0.0..=1.0).contains(&transcript.confidence()), "{}", transcript.confidence());
    for word in transcript.words() {
        assert!(word.start_seconds.is_finite() && word.end_seconds.is_finite());
        assert!((0.0..=1.0).contains(&word.confidence));
    }
    stream(model, memory, region);
    Outcome::Ran
}

/// Pushes a few frames through the encoder of a model with chunks.
fn stream(model: Model<'_>, memory: usize, region: &mut Vec<u8>) {
    let Ok(needed) = encoder_stream_memory(&model) else { return };
    if needed > memory {
        return;
    }
    fill(region, needed);
    let Ok(mut stream) = EncoderStream::new(model, Kernels::detect(), region) else { return };
    let frames: Vec<f32> = (0..17 * model.encoder_inputs()).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut values = 0;
    for piece in frames.chunks(5 * model.encoder_inputs()) {
        stream.push(piece, &mut |states| values += states.len()).expect("whole frames");
    }
    stream.finish(&mut |states| values += states.len()).expect("the rest");
    assert_eq!(values, 17 * model.config().encoder.width);
}

/// Nothing may depend on what memory holds at first.
fn fill(region: &mut Vec<u8>, needed: usize) {
    region.clear();
    region.resize(needed, 0xAA);
}

/// A chirp: something in every band.
pub fn chirp(samples: u32) -> Vec<i16> {
    (0..i64::from(samples)).map(|i| ((i * i / 64 % 20_000) - 10_000) as i16).collect()
}
