//! Encoders that merge frames: what follows from there being fewer, and what is refused.

use super::parity::{Aligned, packed};
use super::variant::pack_variant;
use crate::{
    Event, Limits, PartialConfig, Recognizer, SegmenterConfig, Transcriber, list_buffers, memory_required,
    quantize_sample, transcriber_memory,
};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::PackOptions;
use std::string::ToString;
use std::vec::Vec;
use std::{format, vec};

/// Samples of a frame of `tiny-merged`: its convolutions', and what its encoder makes of 2 x 3 of these.
const FRAME: usize = 64 * 3 * 2;
const MERGED_FRAME: usize = 6 * FRAME;
const MERGE: &str = "\"merge\": [\n   1,\n   2,\n   3\n  ]";

/// `tiny-merged` with something else in the place of its merging.
fn variant(merge: &str) -> Aligned {
    pack_variant("tiny-merged", &[(MERGE, merge)], &[], &PackOptions::default()).expect("it packs")
}

/// What passes for a voice: a buzz whose loudness comes and goes.
fn buzz(samples: usize) -> impl Iterator<Item = f32> {
    (0..samples).map(|i| {
        let time = i as f32 / 16_000.0;
        let buzz: f32 = (1..20).map(|k| libm::sinf(754.0 * time * k as f32) / k as f32).sum();
        0.3 * buzz * (0.55 + 0.45 * libm::sinf(18.8 * time))
    })
}

/// Seconds at which the words of so many samples begin and end.
fn times(file: &Aligned, samples: usize) -> Vec<(f32, f32)> {
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 2.0, ..Limits::default() };
    let mut region = vec![0; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region).expect("ready");
    let samples: Vec<i16> = buzz(samples).map(quantize_sample).collect();
    let transcript = transcriber.transcribe(&samples).expect("a transcript");
    transcript.words().map(|word| (word.start_seconds, word.end_seconds)).collect()
}

#[test]
fn times_count_merged_frames_and_end_with_the_utterance() {
    let mut last = 0.0f32;
    // The convolutions make 27 frames, of which merging leaves 5: the last of 3.
    for samples in [11_200, 11_201, 32_000] {
        let end = samples as f32 / 16_000.0;
        let whole = |seconds: f32| (seconds * 16_000.0 / MERGED_FRAME as f32).fract() == 0.0;
        let words = times(&packed("tiny-merged"), samples);
        assert!(!words.is_empty());
        for (start, stop) in words {
            assert!(whole(start) && (whole(stop) || stop == end), "{start} to {stop} of {end}");
            assert!(start < stop && stop <= end);
            last = last.max(stop / end);
        }
    }
    assert!(last > 0.5, "times reach no further than {last} of the utterance");
}

#[test]
fn what_lies_behind_is_smaller_and_what_lies_before_is_not() {
    let bytes = |file: &Aligned, name: &str, phase: &str| {
        let (model, mut sum) = (Model::parse(file.bytes()).expect("a model"), 0);
        let limits = Limits { utterance_seconds: 60.0, ..Limits::default() };
        list_buffers(&model, &limits, &mut |buffer| {
            sum += buffer.bytes * u64::from(buffer.name == name && buffer.phase == phase);
        })
        .expect("a list");
        sum
    };
    let (merged, whole) = (packed("tiny-merged"), variant("\"inner_norm\": false"));
    // The convolutions make 2,498 frames, merging leaves 417, in whole vectors: 2,512 and 432. A token of the decoder's attention
    // has a byte for each, a block's cross-attention a scale of the values for each head.
    let saved = |name| bytes(&whole, name, "decoder") - bytes(&merged, name, "decoder");
    assert_eq!(saved("attention"), 400 * (2512 - 432));
    assert_eq!(saved("value_scales"), 3 * 2 * 4 * (2512 - 432));
    assert_eq!(bytes(&merged, "key_bytes", "encoder"), bytes(&whole, "key_bytes", "encoder"));
    let needed = |file: &Aligned| {
        let model = Model::parse(file.bytes()).expect("a model");
        memory_required(&model, &Limits::default()).expect("a size")
    };
    assert!(needed(&merged) < needed(&whole));
}

#[test]
fn merging_by_one_is_no_merging() {
    let (ones, none) = (variant("\"merge\": [1, 1, 1]"), variant("\"inner_norm\": false"));
    assert_eq!(ones.bytes(), none.bytes());
    assert_eq!(Model::parse(none.bytes()).expect("a model").merged_frames(), 1);
    assert_eq!(Model::parse(packed("tiny-merged").bytes()).expect("a model").merged_frames(), 6);
}

#[test]
fn an_utterance_that_is_heard_while_it_is_spoken_keeps_its_words() {
    let file = packed("tiny-merged");
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 6.0, ..Limits::default() };
    let mut region = vec![0; memory_required(&model, &limits).expect("a size")];
    let kernels = Kernels::detect();
    let recognizer = Recognizer::new(model, kernels, limits, SegmenterConfig::default(), &mut region);
    let mut recognizer =
        recognizer.expect("ready").keeping_doubtful().with_partials(PartialConfig::default());
    let samples: Vec<f32> = buzz(5 * 16_000).chain((0..16_000).map(|_| 0.0)).collect();
    let (mut rest, mut stable, mut partials, mut finals) = (&samples[..], std::string::String::new(), 0, 0);
    while !rest.is_empty() || finals == 0 {
        let taken = recognizer.push(rest);
        rest = &rest[taken..];
        if rest.is_empty() {
            recognizer.finish();
        }
        while let Some(event) = recognizer.poll_event().expect("an event") {
            match event {
                Event::Partial(partial) => {
                    assert!(partial.text.starts_with(&stable), "{} begins with {stable}", partial.text);
                    stable = partial.stable().to_string();
                    partials += 1;
                }
                Event::Final(utterance) => {
                    let text = utterance.transcript.text();
                    assert!(text.starts_with(&stable), "{text} begins with {stable}");
                    stable.clear();
                    finals += 1;
                }
            }
        }
        assert!(!rest.is_empty() || finals > 0, "no utterance");
    }
    assert!(partials > 2, "{partials}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |words: &[(&str, &str)]| {
        let packed = pack_variant("tiny-merged", words, &[], &PackOptions::default());
        packed.err().expect("it must be refused").to_string()
    };
    for (merge, message) in [
        ("[1, 2]", "lists 2 blocks of 3"),
        ("[]", "lists 0 blocks of 3"),
        ("[1, 0, 1]", "has 0, which is not 1 to 16 frames"),
        ("[1, 17, 1]", "has 17, which is not 1 to 16 frames"),
        ("[16, 5, 1]", "makes one frame of 80, at most 64 are allowed"),
        ("[1, 2, 1], \"chunk\": {\"frames\": 8}", "cannot be had together with `chunk`"),
    ] {
        let text = refused(&[(MERGE, &format!("\"merge\": {merge}"))]);
        assert!(text.contains(&format!("encoder: `merge` {message}")), "{merge}: {text}");
    }
    let decoder = [("\"activation\": \"swiglu\"", "\"activation\": \"swiglu\", \"merge\": [1, 1, 1]")];
    assert!(refused(&decoder).contains("decoder: `merge` is for the encoder"));
}
