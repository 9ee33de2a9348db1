//! Fixtures with something changed: other words in the config, more tensors.

use super::parity::{Aligned, fixture};
use kinglet_model_format::pack::{Checkpoint, PackError, PackOptions, pack_with};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::string::String;
use std::sync::atomic::{AtomicU32, Ordering};
use std::vec::Vec;
use std::{format, fs};

/// A tensor that a fixture lacks: name, shape, values.
pub(super) type Extra = (String, Vec<usize>, Vec<f32>);

/// Packs a fixture with each pair of `words` replaced in its config, in order and each once, and with `extras` added.
pub(super) fn pack_variant(
    name: &str,
    words: &[(&str, &str)],
    extras: &[Extra],
    options: &PackOptions,
) -> Result<Aligned, PackError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("kinglet-variant-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let mut config = fs::read_to_string(fixture(name).join("config.json")).expect("a config");
    for (from, to) in words {
        assert!(config.contains(from), "{name} has no {from}");
        config = config.replacen(from, to, 1);
    }
    fs::write(folder.join("config.json"), config).expect("written");
    fs::copy(fixture(name).join("vocabulary.txt"), folder.join("vocabulary.txt")).expect("copied");
    let tensors = fs::read(fixture(name).join("model.safetensors")).expect("tensors");
    let tensors = SafeTensors::deserialize(&tensors).expect("tensors");
    let bytes: Vec<Vec<u8>> = extras
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut all: Vec<(String, TensorView<'_>)> = tensors.tensors();
    for ((name, shape, _), bytes) in extras.iter().zip(&bytes) {
        all.push((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor")));
    }
    safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).expect("written");
    let packed =
        Checkpoint::open(&folder).and_then(|checkpoint| pack_with(&checkpoint, options, &mut |_, _| ()));
    fs::remove_dir_all(&folder).expect("removed");
    packed.map(|packed| Aligned::new(&packed.bytes))
}
