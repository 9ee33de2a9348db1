//! What a reader says of files whose config and layers do not agree about memories.
#![cfg(feature = "pack")]

use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_model_format::{Model, SectionKind};
use std::path::Path;

/// The packed fixture with `bytes` at a place of section `kind`, its checksums mended; and what the reader says of it.
fn said_of(name: &str, kind: SectionKind, at: usize, bytes: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
    let checkpoint = Checkpoint::open(&folder).expect("the fixture is a checkpoint");
    let packed = pack(&checkpoint, &mut |_, _| ()).expect("the fixture packs").bytes;
    let mut storage = vec![0; packed.len() + 64];
    let start = storage.as_ptr().align_offset(64);
    let file = &mut storage[start..start + packed.len()];
    file.copy_from_slice(&packed);
    let section = Model::parse(file).expect("whole").sections()[kind as usize];
    let (first, length) = (section.offset, section.bytes.len());
    file[first + at..first + at + bytes.len()].copy_from_slice(bytes);
    let sum = crc32fast::hash(&file[first..first + length]);
    let entry = 64 + kind as usize * 32;
    file[entry + 4..entry + 8].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&file[16..64 + SectionKind::ALL.len() * 32]);
    file[12..16].copy_from_slice(&sum.to_le_bytes());
    Model::parse(file).map_or_else(|error| error.to_string(), |_| "whole".into())
}

const ENCODER: usize = 32;
const DECODER: usize = 80;
/// Place of the memory's words in a stack, and of the chunk's.
const MEMORY: usize = 40;
const CHUNK: usize = 44;

fn config(name: &str, at: usize, words: [u16; 2]) -> String {
    said_of(name, SectionKind::Config, at, &words.map(u16::to_le_bytes).concat())
}

#[test]
fn words_out_of_range_are_named() {
    let range = |name: &str| format!("model is damaged: section `config`, `{name}` is out of range");
    for stack in [ENCODER, DECODER] {
        assert_eq!(config("sanm", stack + MEMORY, [129, 0]), range("memory kernel"));
        assert_eq!(config("sanm", stack + MEMORY, [5, 5]), range("memory look_ahead"));
        assert_eq!(config("sanm", stack + MEMORY, [0, 1]), range("memory look_ahead"));
        assert_eq!(config("sanm", stack + CHUNK, [0, 1]), range("chunk left"));
        assert_eq!(config("sanm", stack + CHUNK, [1 << 14, 1]), range("chunk frames"));
    }
    assert_eq!(config("sanm", DECODER + MEMORY, [5, 1]), range("memory look_ahead"));
    assert_eq!(config("sanm", DECODER + CHUNK, [4, 1]), range("chunk frames"));
    assert_eq!(config("sanm", ENCODER + CHUNK, [4, 1]), "whole");
    assert_eq!(
        said_of("sanm", SectionKind::Config, DECODER + 24, &3u32.to_le_bytes()),
        "model is damaged: section `config`, `positions` has an unknown code"
    );
}

#[test]
fn layers_must_have_the_memories_of_the_config_and_no_others() {
    let damaged = |rule: &str| format!("model is damaged: section `layers`, {rule}");
    assert_eq!(config("tiny", ENCODER + MEMORY, [5, 2]), damaged("layer 3 has no `memory`"));
    let misfit = damaged("layer 1, `memory`: the tensor's kind or shape does not fit");
    assert_eq!(config("sanm", ENCODER + MEMORY, [4, 1]), misfit);
    let unknown = damaged("layer 1 names a tensor for a role that it does not have");
    assert_eq!(config("sanm", ENCODER + MEMORY, [0, 0]), unknown);
}

#[test]
fn a_decoder_block_must_be_of_the_form_that_it_says() {
    // Where the parameters of the layers begin, by walking them.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/sanm");
    let packed =
        pack(&Checkpoint::open(&folder).expect("a checkpoint"), &mut |_, _| ()).expect("packs").bytes;
    let mut storage = vec![0; packed.len() + 64];
    let start = storage.as_ptr().align_offset(64);
    storage[start..start + packed.len()].copy_from_slice(&packed);
    let model = Model::parse(&storage[start..start + packed.len()]).expect("whole");
    let mut at = 8;
    let mut forms = Vec::new();
    for layer in model.layers().iter() {
        if layer.kind == kinglet_model_format::LayerKind::DecoderBlock {
            forms.push(at + 16);
        }
        at += 32 + 8 * layer.slots().count();
    }
    let form =
        |block: usize, code: u32| said_of("sanm", SectionKind::Layers, forms[block], &code.to_le_bytes());
    let damaged = |rule: &str| format!("model is damaged: section `layers`, {rule}");
    // As it is: feed-forward first and no self-attention; the third block also without cross-attention.
    assert_eq!(form(0, 3), "whole");
    assert_eq!(form(2, 7), "whole");
    assert_eq!(form(0, 2), "whole", "the order is free");
    assert_eq!(form(0, 16), damaged("`decoder block form` has an unknown code"));
    assert_eq!(form(0, 1), damaged("layer 5 has no `query`"));
    assert_eq!(form(2, 3), damaged("layer 7 has no `cross-attention query`"));
    assert_eq!(form(0, 7), damaged("layer 5 names a tensor for a role that it does not have"));
    assert_eq!(form(0, 11), damaged("layer 5 names a tensor for a role that it does not have"));
}
