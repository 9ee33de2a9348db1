//! Layer by layer against PyTorch, on tiny random models whose expected values `training/reference.py fixtures` recorded.
//!
//! Weights are rounded to int8 on both sides; the runtime also rounds activations, to 8 bits in one model and to 16 in
//! the other, and keeps keys and values of the decoder as int8: that is what the tolerances allow for. Whether every instruction set gives the same bits is another test's question.

use crate::cross_cache::{self, CrossBuffers};
use crate::decoder::{Decoder, DecoderBuffers, StepInput};
use crate::encoder::{self, EncoderBuffers, RotaryTables};
use crate::frontend::{self, FrontendBuffers};
use crate::sizes::{Limits, Sizes};
use crate::{quantize_sample, rotary};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::{Checkpoint, Overrides, PackOptions, pack_with};
use safetensors::SafeTensors;
use std::path::PathBuf;
use std::vec::Vec;
use std::{format, vec};

/// Bytes on a 64-byte boundary.
pub(crate) struct Aligned {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut storage = vec![0; bytes.len() + 64];
        let start = storage.as_ptr().align_offset(64);
        storage[start..start + bytes.len()].copy_from_slice(bytes);
        Self { storage, start, length: bytes.len() }
    }

    /// The same, to write to.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

pub(crate) fn packed(name: &str) -> Aligned {
    packed_with(name, &PackOptions::default())
}

pub(crate) fn packed_with(name: &str, options: &PackOptions) -> Aligned {
    let checkpoint = Checkpoint::open(&fixture(name)).expect("the fixture is a checkpoint");
    Aligned::new(&pack_with(&checkpoint, options, &mut |_, _| ()).expect("the fixture packs").bytes)
}

pub(super) struct Expected {
    bytes: Vec<u8>,
}

impl Expected {
    pub(super) fn open(name: &str) -> Self {
        Self { bytes: std::fs::read(fixture(name).join("expected.safetensors")).expect("expected values") }
    }

    pub(super) fn words(&self, name: &str) -> Vec<[u8; 4]> {
        let view = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let tensor = view.tensor(name).expect(name);
        tensor.data().chunks_exact(4).map(|word| word.try_into().expect("four bytes")).collect()
    }

    pub(super) fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).into_iter().map(f32::from_le_bytes).collect()
    }
}

/// Root of the mean squared difference over the root of the mean square.
pub(super) fn relative_error(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let difference: f64 = got.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let power: f64 = expected.iter().map(|value| f64::from(*value).powi(2)).sum();
    (difference / power).sqrt() as f32
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    let error = relative_error(got, expected);
    assert!(error < tolerance, "{what}: relative error {error}, allowed {tolerance}");
}

/// Relative errors allowed.
pub(super) struct Tolerance {
    pub(super) frontend: f32,
    pub(super) encoder: f32,
    pub(super) logits: f32,
}

fn check(name: &str, tolerance: &Tolerance) {
    // The recorded values have the first convolution in floats.
    let first = "[[matrix]]\nname = \"frontend.conv.0\"\nweights = \"float\"";
    let overrides = Overrides::parse(first).expect("options");
    let file = packed_with(name, &PackOptions { overrides, ..PackOptions::default() });
    check_packed(name, &file, "expected_int8_weights", tolerance);
}

/// Runs `file`, however it was packed, against what PyTorch says of the checkpoint `name`.
/// `values` names the set: of the weights as floats, or rounded to int8.
pub(super) fn check_packed(name: &str, file: &Aligned, values: &str, tolerance: &Tolerance) {
    let model = Model::parse(file.bytes()).expect("the packed fixture parses");
    let expected = Expected::open(name);
    let samples: Vec<i16> = expected.floats("audio").into_iter().map(quantize_sample).collect();
    let sizes = Sizes::of(&model, &Limits { utterance_seconds: 2.0, ..Limits::default() }).expect("sizes");
    let tokens: Vec<u32> = expected.words("tokens").into_iter().map(u32::from_le_bytes).collect();
    for kernels in Kernels::available() {
        check_kernels(
            kernels,
            &model,
            &sizes,
            &samples,
            &|part| expected.floats(&format!("{values}.{part}")),
            &tokens,
            tolerance,
        );
    }
}

fn check_kernels(
    kernels: Kernels,
    model: &Model<'_>,
    sizes: &Sizes,
    samples: &[i16],
    expected: &dyn Fn(&str) -> Vec<f32>,
    tokens: &[u32],
    tolerance: &Tolerance,
) {
    let mut states = vec![0.0; sizes.frames * sizes.encoder_width];
    let mut memory = Aligned::new(&vec![0; FrontendBuffers::bytes(sizes) as usize]);
    let region = &mut memory.storage[memory.start..];
    let frames = [0, 1000, 1 << 20].map(|spare| {
        let buffers = FrontendBuffers::carve(region, sizes).expect("frontend buffers");
        let (before, mut spare) = (states.clone(), vec![f32::NAN; spare]);
        let frames =
            frontend::run(kernels, model, samples, buffers, &mut spare, &mut states).expect("frontend");
        assert!(spare.is_empty() || states == before, "what is kept changes no bit");
        frames
    })[0];
    let values = frames * sizes.encoder_width;
    let last = model.config().frontend.convolutions - 1;
    let want = expected(&format!("frontend.conv.{last}"));
    assert_close("frontend", &states[..values], &want, tolerance.frontend);

    // From here on each part gets the expected input, so that an error shows where it arises.
    states[..values].copy_from_slice(&want);
    let (mut cosines, mut sines) = (vec![0.0; 512 * 16], vec![0.0; 512 * 16]);
    let config = model.config().encoder;
    rotary::fill(config.rotary_base, config.rotary_width, &mut cosines, &mut sines);
    let tables = RotaryTables::new(&cosines, &sines);
    let [(mut states, frames), kept] = [0, 1 << 20].map(|spare| {
        let mut states = states.clone();
        let mut memory = Aligned::new(&vec![0; EncoderBuffers::bytes(sizes) as usize + spare]);
        let region = &mut memory.storage[memory.start..];
        let frames =
            encoder::run(kernels, model, tables, frames, &mut states, sizes, region).expect("encoder");
        (states, frames)
    });
    assert_eq!((&states, frames), (&kept.0, kept.1), "with all queries kept");
    let values = frames * sizes.encoder_width;
    let want = expected("encoder.norm");
    assert_close("encoder", &states[..values], &want, tolerance.encoder);

    states[..values].copy_from_slice(&want);
    let mut cross_memory = Aligned::new(&vec![0; CrossBuffers::bytes(sizes) as usize]);
    let mut cross =
        CrossBuffers::carve(&mut cross_memory.storage[cross_memory.start..], sizes).expect("cross buffers");
    cross_cache::fill(kernels, model, frames, sizes, &states, &mut cross).expect("cross-attention caches");
    let mut memory = Aligned::new(&vec![0; DecoderBuffers::bytes(sizes) as usize]);
    let buffers = DecoderBuffers::carve(&mut memory.storage[memory.start..], sizes).expect("decoder buffers");
    let mut decoder = Decoder::new(kernels, *model, tables, frames, sizes, cross, buffers);
    let want = expected("logits");
    for (step, (token, want)) in tokens.iter().zip(want.chunks_exact(sizes.vocabulary)).enumerate() {
        let paths: Vec<u16> = (0..=step as u16).collect();
        let (tokens, path_stride) = (&[*token][..], paths.len());
        let input = StepInput { step, beam: 1, count: 1, tokens, paths: &paths, path_stride };
        decoder.step(&input).expect("a step");
        assert_close("logits", decoder.logits(0).expect("logits"), want, tolerance.logits);
    }
}

#[test]
fn pytorch_in_the_arithmetic_of_the_runtime_gives_the_same_bits() {
    // Nothing but zero is less.
    let least = f32::MIN_POSITIVE;
    let same = Tolerance { frontend: least, encoder: least, logits: least };
    for name in ["tiny", "tiny-odd", "tiny-memory", "tiny-merged"] {
        check_packed(name, &packed(name), "expected_exact", &same);
    }
}

#[test]
fn a_tiny_model_agrees_with_pytorch() {
    check("tiny", &Tolerance { frontend: 0.02, encoder: 0.03, logits: 0.04 });
}

#[test]
fn so_does_one_with_memories() {
    check("tiny-memory", &Tolerance { frontend: 0.02, encoder: 0.03, logits: 0.04 });
}

#[test]
fn so_does_one_that_merges_frames() {
    check("tiny-merged", &Tolerance { frontend: 0.02, encoder: 0.03, logits: 0.04 });
}

#[test]
fn so_does_one_whose_sizes_fill_no_vector_at_sixteen_bits() {
    check("tiny-odd", &Tolerance { frontend: 2e-4, encoder: 2e-4, logits: 0.02 });
}
