//! Partial results of the library: the same whatever the chunks, never taken back, and bounded in what they cost.
#![cfg(feature = "embed-model")]

mod common;

use common::{recording, slow};
use kinglet::model_file::ModelFile;
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Event, Limits, PartialConfig, Recognizer, SegmenterConfig, memory_required};

/// Something that was heard, after so many samples of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    start: u64,
    end: u64,
    stable: String,
    text: String,
    is_final: bool,
}

fn hear(samples: &[f32], chunk: usize, beam: usize, partials: Option<PartialConfig>) -> Vec<Heard> {
    let file = ModelFile::embedded();
    let model = Model::parse(&file).expect("the built-in model is sound");
    let limits = Limits { beam, ..Limits::default() };
    let mut region = vec![0; memory_required(&model, &limits).expect("the limits are sound")];
    let mut recognizer =
        Recognizer::new(model, Kernels::detect(), limits, SegmenterConfig::default(), &mut region)
            .expect("the region is as large as asked for");
    if let Some(config) = partials {
        recognizer = recognizer.with_partials(config);
    }
    let mut heard = Vec::new();
    let mut poll = |recognizer: &mut Recognizer<'_, '_>| {
        while let Some(event) = recognizer.poll_event().expect("utterances are within the limit") {
            heard.push(match event {
                Event::Partial(partial) => Heard {
                    start: partial.start_sample,
                    end: partial.end_sample,
                    stable: partial.stable().into(),
                    text: partial.text.into(),
                    is_final: false,
                },
                Event::Final(utterance) => Heard {
                    start: utterance.start_sample,
                    end: utterance.end_sample,
                    stable: utterance.transcript.text().into(),
                    text: utterance.transcript.text().into(),
                    is_final: true,
                },
            });
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

/// Two utterances, the second of which is longer than what a partial result hears at once.
fn two_utterances() -> Vec<f32> {
    let mut samples = vec![0.0; 16_000];
    samples.extend(recording("selfish.flac"));
    samples.extend([0.0; 32_000]);
    samples.extend(recording("amiable.wav"));
    samples
}

/// Words are stable from one result to the next, and the text of the utterance begins with them.
fn check_stable(heard: &[Heard]) -> usize {
    let mut stable = String::new();
    let mut longest = 0;
    for result in heard {
        assert!(result.text.starts_with(&result.stable), "{result:?}");
        assert!(result.text.starts_with(&stable), "`{stable}` was taken back: {result:?}");
        let rest = &result.text[stable.len()..];
        assert!(stable.is_empty() || rest.is_empty() || rest.starts_with(' '), "`{stable}`: {result:?}");
        assert!(result.stable.len() >= stable.len(), "`{stable}` is stable no more: {result:?}");
        if result.is_final {
            stable.clear();
        } else {
            stable.clone_from(&result.stable);
            longest = longest.max(stable.len());
        }
    }
    longest
}

#[test]
fn the_size_of_the_chunks_changes_no_partial_result() {
    let samples = two_utterances();
    let whole = hear(&samples, samples.len(), 1, Some(PartialConfig::default()));
    let finals = whole.iter().filter(|heard| heard.is_final).count();
    assert_eq!(finals, 2, "{whole:?}");
    assert!(whole.len() >= 6, "at least two partial results each: {whole:?}");
    check_stable(&whole);
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    for chunk in [77, 256, 320, 16_001] {
        assert_eq!(hear(&samples, chunk, 1, Some(PartialConfig::default())), whole, "chunks of {chunk}");
    }
}

#[test]
fn stable_words_stay_whatever_is_heard_later() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    let samples = two_utterances();
    // Far more hypotheses than usual, so that words do become stable early, and wrong ones among them.
    let often = PartialConfig { interval: 0.2, work: 100.0 };
    for beam in [1, 4] {
        let heard = hear(&samples, samples.len(), beam, Some(often));
        assert!(heard.len() > 50, "{}", heard.len());
        assert!(check_stable(&heard) > 100, "beam {beam}: hardly anything became stable: {heard:?}");
    }
}

#[test]
fn what_partial_results_hear_is_bounded() {
    let samples = two_utterances();
    let heard = hear(&samples, samples.len(), 1, Some(PartialConfig { interval: 1.0, work: 1.0 }));
    let mut before: Option<&Heard> = None;
    for result in &heard {
        if let Some(before) = before.filter(|before| before.start == result.start && !result.is_final) {
            assert!(result.end - before.end >= 16_000, "more than one a second: {heard:?}");
        }
        before = Some(result);
    }
    let without = hear(&samples, samples.len(), 1, None);
    assert!(without.iter().all(|heard| heard.is_final));
    let spans = |heard: &[Heard]| {
        heard.iter().filter(|heard| heard.is_final).map(|heard| (heard.start, heard.end)).collect::<Vec<_>>()
    };
    assert_eq!(spans(&without), spans(&heard), "partial results move no utterance");
}
