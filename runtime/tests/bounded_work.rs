//! Work is bounded by the shapes of a model and the length of the audio, whatever its weights say: on the worst settings that
//! the format accepts a recogniser takes no more tokens and no more processor time than they allow.

#[path = "common/mod.rs"]
mod common;
#[path = "../../model-format/tests/common/mod.rs"]
mod files;

use common::chirp;
use files::{Victim, mend, models};
use kinglet_kernels::Kernels;
use kinglet_model_format::{LayerKind, Model, SectionKind};
use kinglet_runtime::{Decoding, Limits, SAMPLE_RATE, Transcriber, transcriber_memory};

const SECONDS: f32 = 4.0;
const BEAM: usize = 8;
/// The most tokens a second that the format allows, and where in section `config` a model states its own.
const MOST_TOKENS: f32 = 100.0;
const MAX_PER_SECOND: usize = 140;
/// Processor time for each multiply-add: a scalar one of a debug build takes a few nanoseconds.
const NANOSECONDS: u64 = 10;
/// Processor time for everything that does not grow: tables, the filter bank's windows.
const FIXED_NANOSECONDS: u64 = 100_000_000;

/// Nanoseconds that this thread has run; none where the system does not say.
fn processor_time() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

/// Weights of the layers of some kinds. A matrix in blocks counts as if it were whole.
fn weights(model: &Model<'_>, kinds: &[LayerKind]) -> u64 {
    let layers = model.layers();
    let slots = layers.iter().filter(|layer| kinds.contains(&layer.kind)).flat_map(|layer| layer.slots());
    slots
        .filter_map(|slot| model.tensors().get(slot.tensor))
        .map(|tensor| tensor.outputs as u64 * tensor.inputs as u64)
        .sum()
}

/// The bound: multiply-adds of an utterance of `SECONDS`, with `tokens` tokens.
fn most_work(model: &Model<'_>, tokens: u64) -> u64 {
    let config = model.config();
    let samples = (SECONDS * SAMPLE_RATE as f32) as u64;
    let mut frames = samples;
    let mut frontend = 0;
    let layers: Vec<_> = model.layers().iter().filter(|layer| layer.kind == LayerKind::Convolution).collect();
    for (convolution, layer) in model.convolutions().zip(layers) {
        frames /= convolution.stride as u64;
        let kernel =
            layer.slots().next().and_then(|slot| model.tensors().get(slot.tensor)).expect("a kernel");
        frontend += frames * kernel.outputs as u64 * kernel.inputs as u64;
    }
    if let Some(bank) = model.filter_bank() {
        // The transform of 512 samples, and the bands.
        frontend += samples / bank.config.frame_shift as u64 * 512 * (10 + 128);
        frames = samples / bank.config.row_samples() as u64 + 1;
    }
    let encoder = weights(model, &[LayerKind::EncoderBlock, LayerKind::EncoderNorm, LayerKind::Ctc]);
    let attention = (config.encoder.layers * config.encoder.attention_width()) as u64 * 2 * frames * frames;
    let beam = BEAM as u64;
    let decoder = weights(model, &[LayerKind::DecoderBlock, LayerKind::Output]);
    let width = (config.decoder.layers * config.decoder.attention_width()) as u64;
    let cached = width * 2 * (frames + tokens);
    // A row may stand twice in a product, once for each half of its sixteen bits; the search looks through the vocabulary.
    let step = 2 * decoder + cached + config.vocabulary as u64 * (config.decoder.width as u64 + beam);
    frontend * 2
        + frames * 2 * (encoder + weights(model, &[LayerKind::DecoderBlock]))
        + attention
        + tokens * beam * step
}

#[test]
fn work_is_bounded_by_shapes_and_audio() {
    let samples = chirp((SECONDS * SAMPLE_RATE as f32) as u32);
    let mut longest = 0;
    for (name, mut file) in models::all() {
        let (config, _) = Victim::new(&file).sections()[SectionKind::Config as usize];
        file[config + MAX_PER_SECOND..][..4].copy_from_slice(&MOST_TOKENS.to_le_bytes());
        mend(&mut file);
        let file = Victim::new(&file);
        let model = Model::parse(file.bytes()).expect(name);
        let limits = Limits { utterance_seconds: SECONDS, beam: BEAM, decoding: Decoding::Attention };
        let mut region = vec![0; transcriber_memory(&model, &limits).expect(name)];
        let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region).expect(name);
        let most_tokens = (MOST_TOKENS * SECONDS) as u64 + 8;
        let bound = most_work(&model, most_tokens) * NANOSECONDS + FIXED_NANOSECONDS;
        let before = processor_time();
        let tokens = transcriber.transcribe(&samples).expect(name).tokens().len();
        let taken = processor_time().zip(before).map(|(after, before)| after - before);
        println!("{name}: {tokens} tokens of {most_tokens}, {taken:?} ns of {bound}");
        assert!(tokens as u64 <= most_tokens, "{name}");
        assert!(taken.is_none_or(|taken| taken <= bound), "{name}: {taken:?} ns of {bound}");
        longest = longest.max(tokens);
    }
    assert!(longest > 100, "no model came near the bound: {longest} tokens");
}
