//! Recordings through a small model of FunASR's, from samples to tokens: FunASR's own tokens were recorded by
//! `training/funasr_fixtures.py`, its frontend's, encoder's and decoder's work in one.

mod common;

use common::{Folder, recording, run};
use kinglet::model_file::{Loading, ModelFile};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, Transcriber, quantize_sample, transcriber_memory};
use safetensors::SafeTensors;

#[test]
fn recordings_give_the_tokens_that_funasr_finds() {
    let folder = Folder::new();
    let path = folder.path("sanm.kgl");
    run(&["pack", "tests/data/sanm", "-o", &path, "--weights", "float", "--embedding", "float"], 0);
    let file = ModelFile::open(path.as_ref(), Loading::Read).expect("it was packed");
    let model = Model::parse(&file).expect("a model");
    let limits = Limits { utterance_seconds: 15.0, ..Limits::default() };
    let mut region = vec![0; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber =
        Transcriber::new(model, Kernels::detect(), limits, &mut region).expect("a transcriber");
    let expected = std::fs::read("tests/data/sanm/expected.safetensors").expect("expected values");
    let expected = SafeTensors::deserialize(&expected).expect("a safetensors file");
    for name in ["amiable.wav", "consider.flac"] {
        let tensor = expected.tensor(&format!("speech.{name}")).expect("recorded tokens");
        let words = tensor.data().chunks_exact(4).map(|word| word.try_into().expect("four bytes"));
        let want: Vec<u32> = words.map(u32::from_le_bytes).collect();
        assert_eq!(want.len(), 24, "the record stops there, no end token is among them");
        let samples: Vec<i16> = recording(name).into_iter().map(quantize_sample).collect();
        let transcript = transcriber.transcribe(&samples).expect("tokens");
        assert_eq!(transcript.tokens().get(..want.len()), Some(&want[..]), "{name}");
    }
}
