//! Any bytes as the tensors of a checkpoint whose config is right: an error, or a model that the reader accepts.
#![no_main]

use kinglet_fuzz::files::Victim;
use kinglet_fuzz::files::models::fixture;
use kinglet_model_format::Model;
use kinglet_model_format::pack::{Checkpoint, pack};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::OnceLock;

fuzz_target!(|data: &[u8]| {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("kinglet-fuzz-pack-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        for name in ["config.json", "vocabulary.txt"] {
            std::fs::copy(fixture("tiny-odd").join(name), folder.join(name)).expect("the fixture is there");
        }
        folder
    });
    std::fs::write(folder.join("model.safetensors"), data).expect("the temporary folder can be written");
    let Ok(checkpoint) = Checkpoint::open(folder) else { return };
    if let Ok(packed) = pack(&checkpoint, &mut |_, _| ()) {
        assert!(Model::parse(Victim::new(&packed.bytes).bytes()).is_ok());
    }
});
