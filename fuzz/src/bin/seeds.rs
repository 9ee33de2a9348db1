//! Writes the seeds of every target into `corpus/TARGET`: small valid files, and the shapes of known attacks on them.

use kinglet_fuzz::files::attacks::attacks;
use kinglet_fuzz::files::models::{self, fixture};
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, file) in models::all() {
        for target in ["parse", "run"] {
            write(&corpus, target, &format!("{name}.kgl"), &file)?;
            for attack in attacks(&file) {
                write(&corpus, target, &format!("{name}-{}.kgl", attack.name), &attack.bytes)?;
            }
        }
    }
    for name in ["tiny", "tiny-odd", "sanm"] {
        let tensors = fs::read(fixture(name).join("model.safetensors"))?;
        write(&corpus, "pack", &format!("{name}.safetensors"), &tensors)?;
    }
    for folder in ["audio", "speech", "damaged"] {
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
