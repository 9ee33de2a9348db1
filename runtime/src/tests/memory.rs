//! Memories in the blocks of a model that has none: beside self-attention in encoder and decoder.

use super::parity::{Aligned, packed};
use super::sanm::float;
use super::streams::noise;
use super::variant::{Extra, pack_variant};
use crate::{Limits, Transcriber, transcriber_memory};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::PackOptions;
use std::string::ToString;
use std::vec::Vec;
use std::{format, vec};

const WIDTH: usize = 32;
const LAYERS: usize = 2;
/// Both stacks of `tiny` with a memory.
pub(super) const WITH_MEMORY: [(&str, &str); 2] = [
    (
        "\"activation\": \"gelu\",\n  \"positions\"",
        "\"activation\": \"gelu\", \"memory\": {\"kernel\": 5, \"look_ahead\": 2},\n  \"positions\"",
    ),
    ("\"activation\": \"swiglu\"", "\"activation\": \"swiglu\", \"memory\": {\"kernel\": 4}"),
];

/// Kernels for [`WITH_MEMORY`], each tap `value(layer, channel, tap)`.
pub(super) fn kernels_of(value: impl Fn(usize, usize, usize) -> f32) -> Vec<Extra> {
    let encoder = stack_kernels("encoder", "attention", 5, &value);
    encoder.into_iter().chain(stack_kernels("decoder", "self_attention", 4, &value)).collect()
}

fn stack_kernels(
    stack: &str,
    attention: &str,
    taps: usize,
    value: impl Fn(usize, usize, usize) -> f32,
) -> Vec<Extra> {
    let kernel = |layer| (0..WIDTH * taps).map(|i| value(layer, i / taps, i % taps)).collect();
    let name = |layer| format!("{stack}.layers.{layer}.{attention}.memory.weight");
    (0..LAYERS).map(|layer| (name(layer), vec![WIDTH, taps], kernel(layer))).collect()
}

fn tokens(file: &Aligned, beam: usize) -> Vec<u32> {
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 2.0, beam, ..Limits::default() };
    let mut region = vec![0xA5; transcriber_memory(&model, &limits).expect("a size")];
    let mut transcriber =
        Transcriber::new(model, Kernels::detect(), limits, &mut region).expect("a transcriber");
    transcriber.transcribe(&noise(30_000, 9000)).expect("a transcript").tokens().to_vec()
}

#[test]
fn a_memory_that_begins_at_zero_changes_nothing() {
    let with = pack_variant("tiny", &WITH_MEMORY, &kernels_of(|_, _, _| 0.0), &PackOptions::default());
    let (with, without) = (with.expect("it packs"), packed("tiny"));
    for beam in [1, 3] {
        assert_eq!(tokens(&with, beam), tokens(&without, beam));
    }
    let other = pack_variant("tiny", &WITH_MEMORY, &kernels_of(|_, c, k| (c + k) as f32 * 0.02), &float());
    assert_ne!(tokens(&other.expect("it packs"), 1), tokens(&without, 1));
}

/// Every rule about memories and chunks, by the message that names it.
#[test]
fn what_cannot_be_is_refused_by_name() {
    let kernels = || kernels_of(|_, _, _| 0.0);
    let refused = |words: &[(&str, &str)], extras: &[Extra]| -> std::string::String {
        let packed = pack_variant("tiny", words, extras, &PackOptions::default());
        packed.err().expect("it must be refused").to_string()
    };
    let encoder = |memory: &'static str| [("\"activation\": \"gelu\",\n  \"positions\"", memory)];
    let cases: [(&str, &str); 6] = [
        (
            r#""activation": "gelu", "memory": {"kernel": 129}, "positions""#,
            "`memory kernel` is out of range",
        ),
        (
            r#""activation": "gelu", "memory": {"kernel": 5, "look_ahead": 5}, "positions""#,
            "`memory look_ahead` is out of range",
        ),
        (
            r#""activation": "gelu", "chunk": {"frames": 0, "left": 1}, "positions""#,
            "`chunk left` is out of range",
        ),
        (
            r#""activation": "gelu", "chunk": {"frames": 4096, "left": 4}, "positions""#,
            "`chunk frames` is out of range",
        ),
        (r#""activation": "gelu", "feed_forward_first": true, "positions""#, "are for the decoder"),
        (r#""activation": "gelu", "memory": {"kernel": 7}, "positions""#, "memory.weight"),
    ];
    for (words, message) in cases {
        let taps = if words.contains("129") { 129 } else { 5 };
        let extras = stack_kernels("encoder", "attention", taps, |_, _, _| 0.0);
        let text = refused(&encoder(words), if words.contains("memory") { &extras } else { &[] });
        assert!(text.contains(message), "{words}: {text}");
    }
    let decoder = |words: &'static str| [("\"activation\": \"swiglu\"", words)];
    let ahead = r#""activation": "swiglu", "memory": {"kernel": 4, "look_ahead": 1}"#;
    assert!(refused(&decoder(ahead), &kernels()[LAYERS..]).contains("`memory look_ahead` is out of range"));
    let chunk = r#""activation": "swiglu", "chunk": {"frames": 4}"#;
    assert!(refused(&decoder(chunk), &[]).contains("`chunk frames` is out of range"));
    let blocks = r#""activation": "swiglu", "blocks": [{"self_attention": true, "memory": false, "cross_attention": true}]"#;
    assert!(refused(&decoder(blocks), &[]).contains("lists 1 blocks of 2"));
    let widths = [("\"feed_forward\": 48", "\"feed_forward\": [48]")];
    assert!(refused(&widths, &[]).contains("encoder: `feed_forward` lists 1 blocks of 2"));
    let wider = [("\"feed_forward\": 48", "\"feed_forward\": [48, 64]")];
    assert!(refused(&wider, &[]).contains("encoder.layers.1.feed_forward.up"));
    let missing = refused(&WITH_MEMORY, &kernels()[1..]);
    assert!(missing.contains("tensor `encoder.layers.0.attention.memory.weight` is missing"), "{missing}");
}
