//! Speech from any source of samples, here a bundled recording in pieces of 20 ms: `cargo run --release --example stream`.

use kinglet::audio::{AudioReader, find_inputs};
use kinglet::model_file::{Loading, ModelFile};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Event, Limits, PartialConfig, Recognizer, SegmenterConfig, memory_required};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = ModelFile::open("models/en.kgl".as_ref(), Loading::Map)?;
    let (model, limits) = (Model::parse(&file)?, Limits::default());
    let mut region = vec![0; memory_required(&model, &limits)?];
    let rules = SegmenterConfig::default();
    let mut recognizer = Recognizer::new(model, Kernels::detect(), limits, rules, &mut region)?
        .with_partials(PartialConfig::default());
    let inputs = find_inputs("tests/data/speech/amiable.wav".as_ref())?;
    let mut recording = AudioReader::open(&inputs[0])?;
    while let Some(samples) = recording.next_chunk()? {
        for mut piece in samples.chunks(320) {
            while !piece.is_empty() {
                piece = &piece[recognizer.push(piece)..];
                show_all(&mut recognizer)?;
            }
        }
    }
    recognizer.finish();
    Ok(show_all(&mut recognizer)?)
}

fn show_all(recognizer: &mut Recognizer<'_, '_>) -> Result<(), kinglet_runtime::Error> {
    while let Some(event) = recognizer.poll_event()? {
        match event {
            Event::Partial(partial) => println!("{} ({})", partial.stable(), partial.tentative()),
            Event::Final(utterance) => println!("{}", utterance.transcript.text()),
        }
    }
    Ok(())
}
