//! The tokens of whole recordings, each taken as one utterance however long its pauses:
//! `cargo run --release --example tokens -- MODEL FILE...`.
//!
//! One line of JSON a recording, so that another recogniser's tokens for the same audio can be compared.

use kinglet::audio::{AudioReader, find_inputs};
use kinglet::model_file::{Loading, ModelFile};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, Transcriber, quantize_sample, transcriber_memory};

/// The longest recording, in seconds.
const LONGEST: f32 = 60.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("name a model, then recordings")?;
    let file = ModelFile::open(path.as_ref(), Loading::Map)?;
    let (model, limits) = (Model::parse(&file)?, Limits { utterance_seconds: LONGEST, ..Limits::default() });
    let mut region = vec![0; transcriber_memory(&model, &limits)?];
    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region)?;
    for path in arguments {
        for input in find_inputs(path.as_ref())? {
            let mut recording = AudioReader::open(&input)?;
            let mut samples = Vec::new();
            while let Some(chunk) = recording.next_chunk()? {
                samples.extend(chunk.iter().copied().map(quantize_sample));
            }
            let transcript = transcriber.transcribe(&samples)?;
            println!("{{\"file\": {path:?}, \"tokens\": {:?}}}", transcript.tokens());
        }
    }
    Ok(())
}
