//! Frames encoded as they arrive give the states of all frames at once, bit for bit.

use super::memory::{WITH_MEMORY, kernels_of};
use super::parity::{Aligned, Expected, packed, packed_with};
use super::sanm::{float, memory};
use super::streams::noise;
use super::variant::pack_variant;
use crate::encoder::{self, EncoderBuffers, RotaryTables};
use crate::sizes::{Limits, Sizes};
use crate::{
    EncoderStream, Error, FeatureStream, encoder_stream_memory, feature_stream_memory,
    list_encoder_stream_buffers, rotary,
};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::PackOptions;
use std::vec;
use std::vec::Vec;

fn at_once(kernels: Kernels, model: &Model<'_>, features: &[f32]) -> Vec<f32> {
    let limits = Limits { utterance_seconds: 5.0, ..Limits::default() };
    let sizes = Sizes::of(model, &limits).expect("sizes");
    let (config, inputs) = (model.config().encoder, model.encoder_inputs());
    let frames = features.len() / inputs;
    let mut states = vec![0.0; frames * inputs.max(config.width)];
    states[..features.len()].copy_from_slice(features);
    let half = config.rotary_width / 2;
    let (mut cosines, mut sines) = (vec![0.0; frames * half], vec![0.0; frames * half]);
    rotary::fill(config.rotary_base, config.rotary_width, &mut cosines, &mut sines);
    let tables = RotaryTables::new(&cosines, &sines);
    let mut room = memory(EncoderBuffers::bytes(&sizes));
    encoder::run(kernels, model, tables, frames, &mut states, &sizes, room.bytes_mut()).expect("states");
    states.truncate(frames * config.width);
    states
}

fn check(file: &Aligned, features: &[f32]) {
    let model = Model::parse(file.bytes()).expect("a model");
    let inputs = model.encoder_inputs();
    for kernels in Kernels::available() {
        let want = at_once(kernels, &model, features);
        let mut region = vec![0xA5; encoder_stream_memory(&model).expect("a size")];
        let mut stream = EncoderStream::new(model, kernels, &mut region).expect("a stream");
        // One stream encodes one utterance after the other, whatever the pieces.
        for piece in [1, 4, 7, 1000] {
            let mut states = Vec::new();
            for frames in features.chunks(piece * inputs) {
                stream.push(frames, &mut |more| states.extend_from_slice(more)).expect("whole frames");
            }
            stream.finish(&mut |more| states.extend_from_slice(more)).expect("the rest");
            assert!(states == want, "{}, pieces of {piece} frames", kernels.instruction_set());
        }
    }
}

#[test]
fn sinusoids_and_a_memory_that_looks_back() {
    let features = Expected::open("sanm-chunk").floats("features");
    check(&packed_with("sanm-chunk", &float()), &features);
    check(&packed("sanm-chunk"), &features);
}

#[test]
fn a_memory_that_is_longer_than_all_chunks_that_are_attended_to() {
    let features = Expected::open("sanm-chunk").floats("features");
    let words = [("\"frames\": 6,\n   \"left\": 2", "\"frames\": 2, \"left\": 0")];
    check(&pack_variant("sanm-chunk", &words, &[], &PackOptions::default()).expect("it packs"), &features);
}

#[test]
fn rotary_positions_and_a_memory_that_looks_ahead() {
    let (mut words, mut state) = (WITH_MEMORY.to_vec(), 1u32);
    words.push((
        "\"positions\": \"rotary\"",
        "\"chunk\": {\"frames\": 5, \"left\": 3}, \"positions\": \"rotary\"",
    ));
    let kernels = kernels_of(|layer, channel, tap| ((layer + channel * 3 + tap * 5) as f32).sin());
    let file = pack_variant("tiny", &words, &kernels, &PackOptions::default()).expect("it packs");
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let features: Vec<f32> = (0..73 * 32).map(|_| random()).collect();
    check(&file, &features);
}

#[test]
fn samples_become_states_while_they_arrive() {
    let file = packed("sanm-chunk");
    let model = Model::parse(file.bytes()).expect("a model");
    let samples = noise(30_000, 9000);
    let (mut features, mut states) = (Vec::new(), Vec::new());
    let mut room = vec![0xA5; feature_stream_memory(&model).expect("a size")];
    let mut rows = FeatureStream::new(&model, &mut room).expect("a filter bank");
    rows.push(&samples, &mut |row| features.extend_from_slice(row)).expect("rows");
    rows.finish(&mut |row| features.extend_from_slice(row)).expect("the last rows");
    let mut region = vec![0xA5; encoder_stream_memory(&model).expect("a size")];
    let mut stream = EncoderStream::new(model, Kernels::detect(), &mut region).expect("a stream");
    let mut chunks_before_the_end = 0;
    let mut encode = |row: &[f32]| {
        let mut keep = |more: &[f32]| {
            chunks_before_the_end += 1;
            states.extend_from_slice(more);
        };
        stream.push(row, &mut keep).expect("a whole frame");
    };
    for piece in samples.chunks(320) {
        rows.push(piece, &mut encode).expect("rows");
    }
    rows.finish(&mut encode).expect("the last rows");
    stream.finish(&mut |more| states.extend_from_slice(more)).expect("the rest");
    assert!(chunks_before_the_end > 5, "{chunks_before_the_end}");
    assert!(states == at_once(Kernels::detect(), &model, &features));
}

#[test]
fn a_stream_says_what_it_cannot_do() {
    let file = packed("sanm");
    let model = Model::parse(file.bytes()).expect("a model");
    assert_eq!(encoder_stream_memory(&model), Err(Error::NoChunks));
    let file = packed("sanm-chunk");
    let model = Model::parse(file.bytes()).expect("a model");
    let needed = encoder_stream_memory(&model).expect("a size");
    let mut listed = 0;
    list_encoder_stream_buffers(&model, &mut |buffer| listed += buffer.bytes).expect("a list");
    assert_eq!(needed as u64, listed + 64);
    let mut region = vec![0; needed - 1];
    let error = EncoderStream::new(model, Kernels::detect(), &mut region).err();
    assert_eq!(error, Some(Error::RegionTooSmall { needed, given: needed - 1 }));
    region.resize(needed, 0);
    let mut stream = EncoderStream::new(model, Kernels::detect(), &mut region).expect("a stream");
    let error = stream.push(&[0.0; 21], &mut |_| ()).err();
    assert_eq!(error, Some(Error::PartialFrame { values: 21, inputs: 20 }));
}
