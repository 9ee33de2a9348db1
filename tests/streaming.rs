//! Samples may arrive in chunks of any size: the text is the same.
#![cfg(feature = "embed-model")]

mod common;

use common::{recording, slow};
use kinglet::audio::{AudioReader, Input};
use kinglet::model_file::ModelFile;
use kinglet::utterances::Utterances;
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Cutter, Limits, Recognizer, Segment, SegmenterConfig, Transcriber, memory_required};

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
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    for chunk in [160, 333, 4_096, 50_001] {
        assert_eq!(hear(&samples, chunk), whole, "chunks of {chunk}");
    }
}

fn cut(samples: &[f32], max_seconds: f32, chunk: usize) -> Vec<Segment> {
    let mut cutter = Cutter::recording(max_seconds, vec![0; Cutter::<Vec<i16>>::room(max_seconds)]);
    let mut segments = Vec::new();
    for piece in samples.chunks(chunk) {
        let mut rest = piece;
        while !rest.is_empty() {
            rest = &rest[cutter.push(rest)..];
            if let Some(segment) = cutter.poll() {
                assert_eq!(cutter.samples(segment).len() as u64, segment.end_sample - segment.start_sample);
                segments.push(segment);
            }
        }
    }
    cutter.finish();
    while let Some(segment) = cutter.poll() {
        segments.push(segment);
    }
    assert_eq!(cutter.position(), 0, "another recording may begin");
    segments
}

#[test]
fn a_recording_that_fits_into_one_utterance_is_not_cut() {
    let mut samples = recording("selfish.flac");
    let length = samples.len() as u64;
    let whole = [(0, length)];
    let seconds = samples.len() as f32 / 16_000.0;
    for chunk in [77, 512, samples.len()] {
        let cut_whole = cut(&samples, seconds + 1.0, chunk);
        let places: Vec<_> =
            cut_whole.iter().map(|segment| (segment.start_sample, segment.end_sample)).collect();
        assert_eq!(places, whole, "chunks of {chunk}");
        assert!((16_000..length).contains(&cut_whole[0].voiced_samples), "{cut_whole:?}");
        assert_eq!(cut(&vec![0.0; 40_000], 3.0, chunk), [], "silence, chunks of {chunk}");
    }
    // Longer than an utterance: cut where speech begins and ends, whatever the chunks.
    samples.extend([0.0; 48_000]);
    samples.extend(recording("selfish.flac"));
    let two = cut(&samples, seconds + 1.0, samples.len());
    assert_eq!(two.len(), 2, "{two:?}");
    assert!(two[0].end_sample < length + 48_000 && two[1].start_sample > length, "{two:?}");
    for chunk in [77, 512] {
        assert_eq!(cut(&samples, seconds + 1.0, chunk), two, "chunks of {chunk}");
    }
}

#[test]
fn a_board_hears_what_the_command_hears() {
    let file = ModelFile::embedded();
    let model = Model::parse(&file).expect("the built-in model is sound");
    let limits = Limits::default();
    let path = std::path::PathBuf::from("tests/data/speech/selfish.flac");
    let reader = AudioReader::open(&Input::File { relative: path.clone(), path }).expect("bundled");
    let mut utterances = Utterances::new(reader, limits.utterance_seconds);
    let utterance = utterances.next_utterance().expect("sound").expect("speech");
    let mut region = vec![0; memory_required(&model, &limits).expect("the limits are the defaults")];
    let kernels = Kernels::detect();
    let mut transcriber = Transcriber::new(model, kernels, limits, &mut region).expect("enough memory");
    let command = transcriber.transcribe(utterance.samples).expect("short enough").tokens().to_vec();

    let mut recognizer =
        Recognizer::for_recordings(model, kernels, limits, &mut region).expect("enough memory");
    let samples = recording("selfish.flac");
    assert_eq!(recognizer.push(&samples), samples.len());
    recognizer.finish();
    let board = recognizer.poll().expect("within the limits").expect("speech");
    assert_eq!(board.transcript.tokens(), command);
}
