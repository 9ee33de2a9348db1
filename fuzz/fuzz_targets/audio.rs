//! Any bytes as an audio file: an error, or finite samples.
#![no_main]

use kinglet::audio::{AudioReader, Input};
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;

fuzz_target!(|data: &[u8]| {
    let path = file();
    std::fs::write(&path, data).expect("the temporary folder can be written");
    let Ok(mut reader) = AudioReader::open(&Input::File { relative: path.clone(), path }) else { return };
    while let Ok(Some(samples)) = reader.next_chunk() {
        assert!(samples.iter().all(|sample| sample.is_finite()));
    }
});

fn file() -> PathBuf {
    std::env::temp_dir().join(format!("kinglet-fuzz-{}.wav", std::process::id()))
}
