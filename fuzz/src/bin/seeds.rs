//! Writes the seeds of every target into `corpus/TARGET`: small valid files, and the shapes of known attacks on them.

use kinglet_fuzz::{fixture, mend, packed};
use kinglet_model_format::{Model, SectionKind};
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for name in ["tiny", "tiny-odd", "sanm", "sanm-chunk", "shared"] {
        let file = packed(name);
        for target in ["parse", "run"] {
            write(&corpus, target, &format!("{name}.kgl"), &file)?;
            for (attack, bytes) in attacks(&file) {
                write(&corpus, target, &format!("{name}-{attack}.kgl"), &bytes)?;
            }
        }
        write(
            &corpus,
            "pack",
            &format!("{name}.safetensors"),
            &fs::read(fixture(name).join("model.safetensors"))?,
        )?;
    }
    for folder in ["audio", "speech"] {
        for entry in fs::read_dir(fixture(folder))? {
            let path = entry?.path();
            let bytes = fs::read(&path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What decoders do with a whole recording they do with its beginning.
            write(&corpus, "audio", &name, &bytes[..bytes.len().min(16 << 10)])?;
        }
    }
    for (name, value) in [("silence", 0.0f32), ("loud", 1.0), ("huge", 3e38), ("nan", f32::NAN)] {
        let record: Vec<u8> = [&5_000u16.to_le_bytes()[..], &value.to_le_bytes()].concat();
        write(&corpus, "recognizer", name, &record.repeat(12))?;
    }
    Ok(())
}

fn write(corpus: &Path, target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder: PathBuf = corpus.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// What loaders have fallen for: each a change to a valid file, its checksums mended.
fn attacks(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let places = places(file);
    let [config, tensors, layers, vocabulary, _, data] = places;
    let mut attacks = Vec::new();
    let mut change = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = file.to_vec();
        if let Some(place) = changed.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            mend(&mut changed);
            attacks.push((name.into(), changed));
        }
    };
    let most = u32::MAX.to_le_bytes();
    change("many-tensors", tensors, &most);
    change("many-layers", layers, &most);
    change("many-slots", layers + 8 + 4, &most);
    change("many-tokens", vocabulary, &most);
    change("small-vocabulary", config + 128, &1u32.to_le_bytes());
    change("begin-beyond-vocabulary", config + 132, &most);
    change("wide-encoder", config + 32 + 4, &most);
    change("memory-longer-than-the-utterance", config + 32 + 40, &[0xFF, 0xFF, 0, 0]);
    change("memory-sees-ahead-of-its-kernel", config + 32 + 40, &[3, 0, 0xFF, 0xFF]);
    change("decoder-sees-ahead", config + 80 + 40, &[5, 0, 4, 0]);
    change("chunks-of-all-memory", config + 32 + 44, &[0xFF, 0xFF, 0xFF, 0xFF]);
    change("chunks-of-no-frames", config + 32 + 44, &[0, 0, 2, 0]);
    change("no-heads", config + 32 + 8, &[0; 4]);
    change("shape-overflows", tensors + 8 + 4, &[0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0]);
    change("tensor-at-the-end-of-memory", tensors + 8 + 16, &u64::MAX.to_le_bytes());
    change("tensor-longer-than-memory", tensors + 8 + 24, &u64::MAX.to_le_bytes());
    change("tensor-beyond-data", layers + 8 + 32 + 4, &most);
    change("strings-reversed", vocabulary + 8, &most);
    change("section-reversed", 64 + 8, &(data as u64).to_le_bytes());
    change("section-overlaps", 64 + 32 + 8, &(config as u64).to_le_bytes());
    change("section-longer-than-memory", 64 + 5 * 32 + 16, &u64::MAX.to_le_bytes());
    change("weights-not-a-number", data, &f32::NAN.to_le_bytes());
    for (kind, place) in SectionKind::ALL.into_iter().zip(places) {
        let mut cut = file[..place].to_vec();
        mend(&mut cut);
        attacks.push((format!("cut-before-{kind}"), cut));
    }
    attacks
}

/// Where the sections of a valid file begin.
fn places(file: &[u8]) -> [usize; 6] {
    let aligned = kinglet_fuzz::Aligned::new(file);
    let model = Model::parse(aligned.bytes()).expect("the fixture packs");
    SectionKind::ALL.map(|kind| model.sections()[kind as usize].offset)
}
