//! Whole utterances through the tiny models: every length, every instruction set, every beam.

use super::parity::{packed, packed_with};
use crate::{Limits, Transcriber, transcriber_memory};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::{PackOptions, Weights};
use std::vec;
use std::vec::Vec;

pub(super) fn noise(count: usize, amplitude: i32) -> Vec<i16> {
    let mut state = 1u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (((state >> 16) as i32 - 32768) * amplitude / 32768) as i16
        })
        .collect()
}

fn tokens(model: Model<'_>, kernels: Kernels, beam: usize, samples: &[i16]) -> Vec<u32> {
    let limits = Limits { utterance_seconds: 2.0, beam, ..Limits::default() };
    let mut region = vec![0xa5; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber = Transcriber::new(model, kernels, limits, &mut region).expect("a transcriber");
    let transcript = transcriber.transcribe(samples).expect("a transcript");
    let words = transcript.words().count();
    assert!(words <= transcript.tokens().len());
    for word in transcript.words() {
        assert!(word.start_seconds <= word.end_seconds && (0.0..=1.0).contains(&word.confidence), "{word:?}");
    }
    transcript.tokens().to_vec()
}

/// The tokens of two seconds of noise.
pub(super) fn tokens_of(model: Model<'_>, kernels: Kernels) -> Vec<u32> {
    tokens(model, kernels, 1, &noise(32_000, 8000))
}

#[test]
fn every_instruction_set_gives_the_same_tokens() {
    let int4 = PackOptions {
        weights: Weights::Int4 { group_inputs: Some(32) },
        embedding: Weights::Int4 { group_inputs: None },
        ..PackOptions::default()
    };
    let plain = PackOptions::default;
    for (name, options) in [
        ("tiny", plain()),
        ("tiny-odd", plain()),
        ("tiny-odd", int4.clone()),
        ("tiny-merged", plain()),
        ("shared", plain()),
        ("shared", int4),
    ] {
        let file = packed_with(name, &options);
        let model = Model::parse(file.bytes()).expect("a model");
        let scalar = Kernels::new(kinglet_kernels::InstructionSet::Scalar).expect("scalar");
        for beam in [1, 3] {
            for count in [1, 100, 895, 896, 1600, 20_000, 32_000] {
                let samples = noise(count, 8000);
                let want = tokens(model, scalar, beam, &samples);
                for kernels in Kernels::available() {
                    let set = kernels.instruction_set();
                    assert_eq!(tokens(model, kernels, beam, &samples), want, "{name} {set:?} {beam} {count}");
                }
            }
        }
    }
}

#[test]
fn an_utterance_does_not_depend_on_the_one_before() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 2.0, beam: 2, ..Limits::default() };
    let mut region = vec![0; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region).expect("ready");
    let (first, second) = (noise(17_000, 3000), noise(9_000, 30_000));
    let alone = transcriber.transcribe(&second).expect("a transcript").tokens().to_vec();
    transcriber.transcribe(&first).expect("a transcript");
    assert_eq!(transcriber.transcribe(&second).expect("a transcript").tokens(), alone);
}

#[test]
fn extreme_samples_give_a_transcript_and_too_many_an_error() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    for sample in [0, i16::MIN, i16::MAX] {
        tokens(model, Kernels::detect(), 1, &vec![sample; 16_000]);
    }
    let limits = Limits { utterance_seconds: 1.0, beam: 1, ..Limits::default() };
    let mut region = vec![0; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region).expect("ready");
    assert!(transcriber.transcribe(&[0; 16_001]).is_err());
    assert_eq!(transcriber.transcribe(&[]).expect("no words").text(), "");
}
