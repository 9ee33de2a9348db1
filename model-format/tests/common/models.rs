//! Small valid models of every kind: each tensor kind, shape of blocks, form of layer and frontend is in one of them.

use kinglet_model_format::BlockShape;
use kinglet_model_format::pack::{
    Checkpoint, Groups, PackError, PackOptions, Sharing, Sparse, Weights, pack_with,
};
use safetensors::{Dtype, tensor::TensorView};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const INT4: Weights = Weights::Int4 { group_inputs: Some(32) };

/// Folder of a checkpoint among the test data.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// What `pack` makes. Packing takes long under an interpreter: where the environment names a folder in `KINGLET_PACKED`, what
/// was packed before is read from it.
fn kept(name: &str, pack: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let Some(folder) = std::env::var_os("KINGLET_PACKED") else { return pack() };
    let path = Path::new(&folder).join(name).with_extension("kgl");
    if let Ok(bytes) = std::fs::read(&path) {
        return bytes;
    }
    let bytes = pack();
    std::fs::write(&path, &bytes).expect("the folder can be written");
    bytes
}

/// A checkpoint among the test data, packed whole in int8.
pub fn packed(name: &str) -> Vec<u8> {
    kept(name, || packed_with(name, &PackOptions::default()))
}

/// The same, its weights in floats.
pub fn packed_as_floats(name: &str) -> Vec<u8> {
    let options = PackOptions { weights: Weights::Float, ..PackOptions::default() };
    kept(&format!("{name}-float"), || packed_with(name, &options))
}

/// The same, packed otherwise.
fn packed_with(name: &str, options: &PackOptions) -> Vec<u8> {
    let checkpoint = Checkpoint::open(&fixture(name)).expect("the fixture is a checkpoint");
    pack_with(&checkpoint, options, &mut |_, _| ()).expect("the fixture packs").bytes
}

/// Every model, by name.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let int4 = PackOptions {
        weights: INT4,
        embedding: Weights::Int4 { group_inputs: None },
        ..PackOptions::default()
    };
    let int3 = PackOptions {
        weights: Weights::Trellis { group_inputs: Some(32) },
        embedding: Weights::Int3 { group_inputs: None },
        ..PackOptions::default()
    };
    let blocks = |block, weights| {
        let sparse = Some(Sparse { block, sparsity: Some(0.5) });
        ("tiny-odd", PackOptions { weights, sparse, ..PackOptions::default() })
    };
    let sharing =
        Sharing { groups: Groups { encoder: Some(2), decoder: Some(2) }, residual_rank: 4, diagonal: true };
    let variants = [
        ("tiny-odd-int4", ("tiny-odd", int4)),
        ("tiny-odd-int3", ("tiny-odd", int3)),
        ("tiny-odd-16x4", blocks(BlockShape::Outputs16Inputs4, Weights::Int8)),
        ("tiny-odd-4x16-int4", blocks(BlockShape::Outputs4Inputs16, INT4)),
        ("tiny-odd-4x4", blocks(BlockShape::Outputs4Inputs4, Weights::Int8)),
        ("tiny-shared", ("tiny", PackOptions { sharing, ..PackOptions::default() })),
    ];
    let plain = ["tiny", "tiny-odd", "sanm", "sanm-chunk", "shared"].map(|name| (name, packed(name)));
    let variants =
        variants.map(|(name, (fixture, options))| (name, kept(name, || packed_with(fixture, &options))));
    plain.into_iter().chain(variants).chain([("memory", memory()), ("kaldi", kaldi())]).collect()
}

/// The smallest model with memories in encoder and decoder, chunks, matrices in blocks and in four bits, and layers
/// that share and add to what they share.
pub fn memory() -> Vec<u8> {
    let frontend = r#""kind": "waveform", "sample_rate": 16000, "convolutions": [
        {"channels": 4, "kernel": 320, "stride": 320, "activation": "tanh", "norm": "group"},
        {"channels": 12, "kernel": 2, "stride": 2, "activation": "gelu"}]"#;
    let encoder = r#""layers": 2, "activation": "relu", "positions": "sinusoidal", "inner_norm": true,
        "memory": {"kernel": 5, "look_ahead": 2}, "chunk": {"frames": 4, "left": 1}"#;
    let decoder = r#""layers": 2, "activation": "relu", "positions": "none", "memory": {"kernel": 3},
        "feed_forward_first": true, "inner_norm": true, "blocks": [
        {"self_attention": false, "memory": true, "cross_attention": true},
        {"self_attention": true, "memory": true, "cross_attention": true}]"#;
    let options = PackOptions {
        weights: INT4,
        sparse: Some(Sparse { block: BlockShape::Outputs4Inputs4, sparsity: Some(0.5) }),
        sharing: Sharing {
            groups: Groups { encoder: Some(2), decoder: None },
            residual_rank: 2,
            diagonal: true,
        },
        ..PackOptions::default()
    };
    kept("memory", || random(&config(frontend, encoder, decoder, ""), &options).expect("it packs"))
}

/// What is said of a model whose decoder never attends to the encoder.
pub fn deaf() -> PackError {
    let frontend = r#""kind": "waveform", "sample_rate": 16000, "convolutions": [
        {"channels": 12, "kernel": 640, "stride": 640, "activation": "gelu"}]"#;
    let encoder = r#""layers": 1, "activation": "relu", "positions": "none""#;
    let decoder = r#""layers": 1, "activation": "relu", "positions": "none", "blocks": [
        {"self_attention": true, "memory": false, "cross_attention": false}]"#;
    random(&config(frontend, encoder, decoder, ""), &PackOptions::default()).expect_err("it is deaf")
}

/// The smallest model with a filter bank, merged frames and a CTC head.
pub fn kaldi() -> Vec<u8> {
    let frontend = r#""kind": "filter_bank", "sample_rate": 16000, "filter_bank": {"mels": 5, "frame_length": 400,
        "frame_shift": 160, "stacked": 3, "stride": 2, "window": "hamming", "pre_emphasis": 0.97, "low_hz": 20, "high_hz": 8000}"#;
    let encoder =
        r#""layers": 1, "activation": "swiglu", "positions": "rotary", "rotary_width": 4, "merge": [2]"#;
    let decoder = r#""layers": 1, "activation": "gelu", "positions": "none""#;
    let ctc = r#""ctc": {"blank": 0, "activation_bits": 16},"#;
    let options = PackOptions { embedding: INT4, ..PackOptions::default() };
    kept("kaldi", || random(&config(frontend, encoder, decoder, ctc), &options).expect("it packs"))
}

fn config(frontend: &str, encoder: &str, decoder: &str, ctc: &str) -> String {
    let stack = r#""width": 12, "heads": 2, "head_width": 6, "feed_forward": 20, "norm_epsilon": 1e-5"#;
    format!(
        r#"{{"format": "kinglet-checkpoint-1", "name": "random", "language": "en", "frontend": {{{frontend}}},
        "encoder": {{{stack}, {encoder}}}, "decoder": {{{stack}, {decoder}}}, {ctc}
        "output": {{"vocabulary": 9, "tied": true}}, "tokens": {{"begin": 1, "end": 2, "max_per_second": 20.0}},
        "licence": "MIT OR Apache-2.0", "provenance": "Random weights."}}"#
    )
}

/// Packs a checkpoint of random weights that is whatever `config` asks for: what is missing is added until nothing is.
fn random(config: &str, options: &PackOptions) -> Result<Vec<u8>, PackError> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("kinglet-random-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    std::fs::write(folder.join("config.json"), config).expect("written");
    std::fs::write(folder.join("vocabulary.txt"), "\n\n\n2061\n62\n2063\n64\ne29d\n20e29d\n")
        .expect("written");
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let result = loop {
        let views = tensors.iter().map(|(name, (shape, data))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), data).expect("a tensor"))
        });
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).expect("written");
        let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        match pack_with(&checkpoint, options, &mut |_, _| ()) {
            Ok(packed) => break Ok(packed.bytes),
            Err(PackError::TensorMissing { name, expected }) => {
                let count = expected.iter().product::<usize>();
                let data = (0..count).flat_map(|_| noise().to_le_bytes()).collect();
                assert!(tensors.insert(name, (expected, data)).is_none(), "asked for twice");
            }
            Err(error) => break Err(error),
        }
    };
    std::fs::remove_dir_all(&folder).expect("removed");
    result
}
