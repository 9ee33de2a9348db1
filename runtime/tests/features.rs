//! A model whose frontend is a filter bank, whole.

use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_runtime::{Error, FeatureStream, Limits, Transcriber, feature_stream_memory, transcriber_memory};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::{Path, PathBuf};

/// Bytes on a 64-byte boundary.
struct Aligned {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut storage = vec![0; bytes.len() + 64];
        let start = storage.as_ptr().align_offset(64);
        storage[start..start + bytes.len()].copy_from_slice(bytes);
        Self { storage, start, length: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

const SIZES: &str = r#""mels": 8, "frame_length": 400, "frame_shift": 160, "stacked": 4, "stride": 3"#;
const CHOICES: &str = r#""window": "hamming", "pre_emphasis": 0.97, "low_hz": 20, "high_hz": 8000"#;

/// The tiny model with a filter bank in place of its convolutions.
fn with_filter_bank(name: &str, sizes: &str, choices: &str) -> Result<Vec<u8>, String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("features-{name}"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::copy(fixture("tiny").join("vocabulary.txt"), folder.join("vocabulary.txt")).expect("copied");
    let config = std::fs::read_to_string(fixture("tiny").join("config.json")).expect("a config");
    let (start, end) =
        (config.find("\"frontend\"").expect("there"), config.find("\"encoder\"").expect("there"));
    let frontend = format!(
        r#""frontend": {{"kind": "filter_bank", "sample_rate": 16000, "filter_bank": {{{sizes}, {choices}}}}}, "#
    );
    let config = format!("{}{frontend}{}", &config[..start], &config[end..]);
    std::fs::write(folder.join("config.json"), config).expect("written");
    let bytes = std::fs::read(fixture("tiny").join("model.safetensors")).expect("tensors");
    let all = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut tensors: Vec<(String, TensorView<'_>)> =
        all.tensors().into_iter().filter(|(name, _)| !name.starts_with("frontend.")).collect();
    let [shift, scale] = [10.0f32, 0.2].map(|value| value.to_le_bytes().repeat(32));
    for (name, values) in [("frontend.shift", &shift), ("frontend.scale", &scale)] {
        let view = TensorView::new(Dtype::F32, vec![32], values).expect("a tensor");
        tensors.push((name.to_string(), view));
    }
    safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).expect("written");
    let checkpoint = Checkpoint::open(&folder).map_err(|error| error.to_string())?;
    pack(&checkpoint, &mut |_, _| ()).map(|packed| packed.bytes).map_err(|error| error.to_string())
}

#[test]
fn every_instruction_set_hears_the_same() {
    let file = Aligned::new(&with_filter_bank("run", SIZES, CHOICES).expect("packs"));
    let model = Model::parse(file.bytes()).expect("a model");
    let samples: Vec<i16> = (0..20_000).map(|t: i32| ((t * t / 91) % 9_000 - 4_500) as i16).collect();
    let limits = Limits { utterance_seconds: 2.0, beam: 2, ..Limits::default() };
    let mut first: Option<Vec<u32>> = None;
    for kernels in Kernels::available() {
        let mut region = vec![0xa5; transcriber_memory(&model, &limits).expect("a size")];
        let mut transcriber = Transcriber::new(model, kernels, limits, &mut region).expect("a transcriber");
        for count in [20_000, 300, 1] {
            let transcript = transcriber.transcribe(&samples[..count]).expect("a transcript");
            if count == 20_000 {
                assert_eq!(first.get_or_insert(transcript.tokens().to_vec()), transcript.tokens());
            }
        }
    }
}

#[test]
fn a_stream_of_features_begins_anew_after_each_utterance() {
    let file = Aligned::new(&with_filter_bank("stream", SIZES, CHOICES).expect("packs"));
    let model = Model::parse(file.bytes()).expect("a model");
    let needed = feature_stream_memory(&model).expect("a size");
    assert!(FeatureStream::new(&model, &mut vec![0; needed - 1]).is_err());
    let mut region = vec![0; needed];
    let mut stream = FeatureStream::new(&model, &mut region).expect("a stream");
    let samples: Vec<i16> = (0..5_000).map(|t: i32| ((t * t / 91) % 9_000 - 4_500) as i16).collect();
    let mut utterance = |pieces: &[&[i16]]| {
        let mut rows = Vec::new();
        for piece in pieces {
            stream.push(piece, &mut |row| rows.push(row.to_vec())).expect("a piece");
        }
        stream.finish(&mut |row| rows.push(row.to_vec())).expect("the end");
        rows
    };
    let want = utterance(&[&samples]);
    // 29 frames, three to a row.
    assert_eq!((want.len(), want[0].len()), (10, 32));
    assert_eq!(utterance(&[&samples[..1]]).len(), 1);
    assert_eq!(utterance(&[&samples[..7], &samples[7..2_000], &[], &samples[2_000..]]), want);
    assert_eq!(utterance(&[]).len(), 1);
}

#[test]
fn other_frontends_have_no_features() {
    let checkpoint = Checkpoint::open(&fixture("tiny")).expect("the fixture is a checkpoint");
    let file = Aligned::new(&pack(&checkpoint, &mut |_, _| ()).expect("the fixture packs").bytes);
    let model = Model::parse(file.bytes()).expect("a model");
    assert_eq!(feature_stream_memory(&model), Err(Error::NoFilterBank));
}

#[test]
fn filter_banks_that_make_no_sense_are_told() {
    for (field, value, words) in [
        ("\"mels\": 8", "\"mels\": 3", "`frontend.shift` is"),
        ("\"stacked\": 4", "\"stacked\": 0", "`frontend.shift` is"),
        ("\"frame_length\": 400", "\"frame_length\": 513", "`frame_length` is out of range"),
        ("\"frame_length\": 400", "\"frame_length\": 256", "`frame_length` is out of range"),
        ("\"frame_shift\": 160", "\"frame_shift\": 401", "`frame_shift` is out of range"),
        ("\"frame_shift\": 160", "\"frame_shift\": 0", "`frame_shift` is out of range"),
        ("\"stride\": 3", "\"stride\": 17", "`stride` is out of range"),
        ("hamming", "kaiser", "window `kaiser` is unknown"),
        ("0.97", "1.5", "`pre_emphasis` is out of range"),
        ("\"high_hz\": 8000", "\"high_hz\": 8001", "`high_hz` is out of range"),
        ("\"low_hz\": 20", "\"low_hz\": 8000", "`high_hz` is out of range"),
    ] {
        let change = |text: &str| text.replace(field, value);
        let error = with_filter_bank("bad", &change(SIZES), &change(CHOICES)).expect_err(value);
        assert!(error.contains(words), "{value}: {error}");
    }
}
