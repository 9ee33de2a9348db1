//! SAN-M encoders and FSMN decoders, layer by layer against FunASR's own modules, on tiny random models whose expected
//! values `training/funasr_fixtures.py` recorded.
//!
//! Packed as floats, what is left is the order of sums. As int8 both weights and activations are rounded (FunASR's values
//! are those of the float weights), and the cross-attention cache is int8: each layer's error has those before it in it.

use super::parity::{Aligned, Expected, fixture, packed_with, relative_error};
use crate::Limits;
use crate::cross_cache::{self, CrossBuffers};
use crate::decoder::{Decoder, DecoderBuffers, StepInput};
use crate::encoder::{Encoder, EncoderBuffers, RotaryTables, Window};
use crate::search::{Prefix, Search, SearchBuffers};
use crate::sizes::{Sizes, encoder_is_float};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::{PackOptions, Weights};
use std::string::String;
use std::vec::Vec;
use std::{format, println, vec};

const FIXTURES: [&str; 3] = ["sanm", "sanm-odd", "sanm-chunk"];
/// The tokens that the fixtures' recording stops at.
const MOST_TOKENS: usize = 24;
const NO_PREFIX: Prefix<'_> = Prefix { tokens: &[], begins_word: &|_| true };
const NO_TABLES: RotaryTables<'_> = RotaryTables::new(&[], &[]);

pub(super) fn float() -> PackOptions {
    PackOptions { weights: Weights::Float, embedding: Weights::Float, ..PackOptions::default() }
}

/// Memory for a set of buffers.
pub(super) fn memory(bytes: u64) -> Aligned {
    Aligned::new(&vec![0xA5; bytes as usize])
}

fn limits(beam: usize) -> Limits {
    Limits { utterance_seconds: 5.0, beam, ..Limits::default() }
}

/// Relative errors of every layer, by name.
struct Errors(Vec<(String, f32)>);

impl Errors {
    fn add(&mut self, name: String, got: &[f32], expected: &[f32]) {
        self.0.push((name, relative_error(got, expected)));
    }

    fn worst(&self, part: &str) -> f32 {
        let errors = self.0.iter().filter(|(name, _)| name.starts_with(part));
        errors.fold(0.0, |worst, (_, error)| worst.max(*error))
    }
}

/// The states of the encoder behind each block and behind its norm, from the recorded features.
fn encode(
    kernels: Kernels,
    model: &Model<'_>,
    sizes: &Sizes,
    expected: &Expected,
    errors: &mut Errors,
) -> Vec<f32> {
    let features = expected.floats("features");
    let (config, inputs) = (model.config().encoder, model.encoder_inputs());
    let frames = features.len() / inputs;
    let mut states = vec![0.0; frames * inputs.max(config.width)];
    states[..features.len()].copy_from_slice(&features);
    let mut room = memory(EncoderBuffers::bytes(sizes));
    let mut buffers = EncoderBuffers::carve(room.bytes_mut(), sizes).expect("encoder buffers");
    let mut encoder = Encoder {
        kernels,
        config,
        rotary: NO_TABLES,
        capacity: frames,
        is_float: encoder_is_float(model),
        buffers: &mut buffers,
        kept: &mut [],
    };
    encoder.start();
    encoder.add_positions(&mut states[..features.len()]);
    let window = Window { position: 0, history: 0, frames, chunk: config.chunk, cache: 0 };
    let values = frames * config.width;
    for (index, block) in model.encoder_blocks().enumerate() {
        encoder.block(&block, window, &mut states).expect("a block");
        let name = format!("encoder.layers.{index}");
        let want = expected.floats(&name);
        errors.add(name, &states[..values], &want);
    }
    encoder.final_norm(&model.encoder_norm(), &mut states[..values]).expect("a norm");
    errors.add("encoder.norm".into(), &states[..values], &expected.floats("encoder.norm"));
    states.truncate(values);
    states
}

/// Runs `then` with a decoder that listens to `states`.
fn with_decoder<T>(
    kernels: Kernels,
    model: &Model<'_>,
    sizes: &Sizes,
    states: &[f32],
    then: impl FnOnce(&mut Decoder<'_, '_>) -> T,
) -> T {
    let frames = states.len() / model.config().encoder.width;
    let mut room = memory(CrossBuffers::bytes(sizes));
    let mut cross = CrossBuffers::carve(room.bytes_mut(), sizes).expect("cross buffers");
    cross_cache::fill(kernels, model, frames, sizes, states, &mut cross).expect("cross-attention caches");
    let mut room = memory(DecoderBuffers::bytes(sizes));
    let buffers = DecoderBuffers::carve(room.bytes_mut(), sizes).expect("decoder buffers");
    then(&mut Decoder::new(kernels, *model, NO_TABLES, frames, sizes, cross, buffers))
}

/// The decoder's states behind each block for the recorded tokens, and its logits. It is given FunASR's encoder states,
/// so that an error shows where it arises.
fn decode(kernels: Kernels, model: &Model<'_>, sizes: &Sizes, expected: &Expected, errors: &mut Errors) {
    let tokens: Vec<u32> = expected.words("tokens").into_iter().map(u32::from_le_bytes).collect();
    let mut layers = vec![Vec::new(); model.config().decoder.layers];
    let mut logits = Vec::new();
    with_decoder(kernels, model, sizes, &expected.floats("encoder.norm"), |decoder| {
        for (step, token) in tokens.iter().enumerate() {
            let paths: Vec<u16> = (0..=step as u16).collect();
            let (tokens, path_stride) = (&[*token][..], paths.len());
            let input = StepInput { step, beam: 1, count: 1, tokens, paths: &paths, path_stride };
            let mut index = 0;
            let mut observe = |states: &[f32]| {
                layers[index].extend_from_slice(states);
                index += 1;
            };
            decoder.step_observed(&input, &mut observe).expect("a step");
            logits.extend_from_slice(decoder.logits(0).expect("logits"));
        }
    });
    for (index, states) in layers.iter().enumerate() {
        let name = format!("decoder.layers.{index}");
        let want = expected.floats(&name);
        errors.add(name, states, &want);
    }
    errors.add("logits".into(), &logits, &expected.floats("logits"));
}

/// The tokens that the search finds.
fn search(kernels: Kernels, model: &Model<'_>, beam: usize, states: &[f32]) -> Vec<u32> {
    let sizes = Sizes::of(model, &limits(beam)).expect("sizes");
    let mut room = memory(SearchBuffers::bytes(&sizes));
    let buffers = SearchBuffers::carve(room.bytes_mut(), &sizes).expect("search buffers");
    let tokens = model.config().tokens;
    with_decoder(kernels, model, &sizes, states, |decoder| {
        let (begin, end) = (tokens.begin, tokens.end);
        let search = Search { kernels, buffers, beam, capacity: sizes.tokens, begin, end };
        let found = search.run(decoder, MOST_TOKENS, &NO_PREFIX).expect("a result");
        found.path.iter().skip(1).map(|&column| found.column_tokens[usize::from(column)]).collect()
    })
}

fn errors(name: &str, options: &PackOptions, kernels: Kernels) -> Errors {
    let file = packed_with(name, options);
    let model = Model::parse(file.bytes()).expect("the packed fixture parses");
    let expected = Expected::open(name);
    let sizes = Sizes::of(&model, &limits(1)).expect("sizes");
    let mut errors = Errors(Vec::new());
    encode(kernels, &model, &sizes, &expected, &mut errors);
    decode(kernels, &model, &sizes, &expected, &mut errors);
    errors
}

#[test]
fn packed_as_floats_every_layer_agrees_with_funasr() {
    for name in FIXTURES {
        for kernels in Kernels::available() {
            let errors = errors(name, &float(), kernels);
            for (layer, error) in &errors.0 {
                println!("{name}, {}, float, {layer}: relative error {error:.1e}", kernels.instruction_set());
                assert!(*error <= 1e-4, "{name}, {layer}: {error}");
            }
        }
    }
}

#[test]
fn packed_as_int8_they_differ_by_the_rounding() {
    for name in FIXTURES {
        let errors = errors(name, &PackOptions::default(), Kernels::detect());
        for (layer, error) in &errors.0 {
            println!("{name}, int8, {layer}: relative error {error:.1e}");
        }
        let (encoder, decoder) =
            (errors.worst("encoder"), errors.worst("decoder").max(errors.worst("logits")));
        assert!(encoder < 0.05 && decoder < 0.05, "{name}: encoder {encoder}, decoder {decoder}");
    }
}

#[test]
fn greedy_search_finds_the_tokens_that_funasr_finds() {
    for name in FIXTURES {
        let file = packed_with(name, &float());
        let model = Model::parse(file.bytes()).expect("the packed fixture parses");
        let expected = Expected::open(name);
        let mut want: Vec<u32> = expected.words("greedy").into_iter().map(u32::from_le_bytes).collect();
        assert_eq!(want.pop(), Some(model.config().tokens.end), "the fixture ends");
        for kernels in Kernels::available() {
            let sizes = Sizes::of(&model, &limits(1)).expect("sizes");
            let states = encode(kernels, &model, &sizes, &expected, &mut Errors(Vec::new()));
            assert_eq!(search(kernels, &model, 1, &states), want, "{name}, {}", kernels.instruction_set());
        }
    }
}

/// A hypothesis must find its own past however often hypotheses change places: what a beam finds scores as much when it
/// alone is decoded.
#[test]
fn hypotheses_of_a_beam_do_not_mix_their_memories() {
    for name in FIXTURES {
        let file = packed_with(name, &float());
        let model = Model::parse(file.bytes()).expect("the packed fixture parses");
        let states = Expected::open(name).floats("encoder.norm");
        let sizes = Sizes::of(&model, &limits(4)).expect("sizes");
        let kernels = Kernels::detect();
        let mut room = memory(SearchBuffers::bytes(&sizes));
        let buffers = SearchBuffers::carve(room.bytes_mut(), &sizes).expect("search buffers");
        let (begin, end) = (model.config().tokens.begin, model.config().tokens.end);
        let (tokens, scores) = with_decoder(kernels, &model, &sizes, &states, |decoder| {
            let search = Search { kernels, buffers, beam: 4, capacity: sizes.tokens, begin, end };
            let found = search.run(decoder, MOST_TOKENS, &NO_PREFIX).expect("a result");
            let column = |&column: &u16| usize::from(column);
            let tokens: Vec<u32> = found.path.iter().map(column).map(|at| found.column_tokens[at]).collect();
            let scores: Vec<f32> = found.path.iter().map(column).map(|at| found.column_scores[at]).collect();
            (tokens, scores)
        });
        let sizes = Sizes::of(&model, &limits(1)).expect("sizes");
        with_decoder(kernels, &model, &sizes, &states, |decoder| {
            for (step, pair) in tokens.windows(2).enumerate() {
                let paths: Vec<u16> = (0..=step as u16).collect();
                let path_stride = paths.len();
                let input =
                    StepInput { step, beam: 1, count: 1, tokens: &pair[..1], paths: &paths, path_stride };
                decoder.step(&input).expect("a step");
                let logits = decoder.logits(0).expect("logits");
                let score = logits[pair[1] as usize] - kernels.peak(logits).expect("a peak").log_sum_exp;
                assert!((score - scores[step + 1]).abs() < 1e-4, "{name}, step {step}: {score}");
            }
        });
    }
}

#[test]
fn the_fixtures_hold_what_they_are_for() {
    let model = |name: &str| std::fs::read_to_string(fixture(name).join("config.json")).expect("a config");
    assert!(
        model("sanm").contains("\"cross_attention\": false") && model("sanm-chunk").contains("\"chunk\"")
    );
}
