//! Samples may arrive in chunks of any size: the text is the same.
#![cfg(feature = "embed-model")]

mod common;

use common::{emulated, recording};
use kinglet::model_file::ModelFile;
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, Recognizer, SegmenterConfig, memory_required};

type Heard = Vec<(u64, u64, Vec<u32>, String)>;

fn hear(samples: &[f32], chunk: usize) -> Heard {
    let file = ModelFile::embedded();
    let model = Model::parse(&file).expect("the built-in model is sound");
    let limits = Limits::default();
    let mut region = vec![0; memory_required(&model, &limits).expect("the limits are the defaults")];
    let mut recognizer =
        Recognizer::new(model, Kernels::detect(), limits, SegmenterConfig::default(), &mut region)
            .expect("the region is as large as asked for");
    let mut heard = Heard::new();
    let mut poll = |recognizer: &mut Recognizer<'_, '_>| {
        while let Some(utterance) = recognizer.poll().expect("utterances are within the limit") {
            let transcript = utterance.transcript;
            let (tokens, text) = (transcript.tokens().to_vec(), transcript.text().to_string());
            heard.push((utterance.start_sample, utterance.end_sample, tokens, text));
        }
    };
    for piece in samples.chunks(chunk) {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = &rest[recognizer.push(rest)..];
            poll(&mut recognizer);
        }
    }
    recognizer.finish();
    poll(&mut recognizer);
    heard
}

#[test]
fn the_size_of_the_chunks_changes_nothing() {
    let mut samples = recording("selfish.flac");
    samples.extend([0.0; 32_000]);
    samples.extend(recording("selfish.flac"));
    let whole = hear(&samples, samples.len());
    assert_eq!(whole.len(), 2);
    assert!(whole.iter().all(|(.., text)| text.contains("selfish")), "{whole:?}");
    if emulated() {
        return eprintln!("skipped: under emulation");
    }
    for chunk in [160, 333, 4_096, 50_001] {
        assert_eq!(hear(&samples, chunk), whole, "chunks of {chunk}");
    }
}
