//! What the end-to-end tests share: the program, folders that clean up after themselves, and audio made on the spot.
#![allow(dead_code, reason = "each test file is a program of its own and uses a part of this")]

#[cfg(unix)]
pub mod microphone;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use kinglet::audio::{AudioReader, find_inputs};

/// The program, under the emulator that runs the tests if there is one.
pub fn kinglet() -> Command {
    let program = env!("CARGO_BIN_EXE_kinglet");
    let runner = std::env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").ok();
    let mut command = match runner.filter(|_| cfg!(target_arch = "aarch64")) {
        Some(runner) => {
            let mut words = runner.split_whitespace();
            let mut command = Command::new(words.next().expect("a runner has a name"));
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.env_remove("KINGLET_MODEL").current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Runs the program with `arguments` and checks its exit status.
pub fn run(arguments: &[&str], status: i32) -> (String, String) {
    let output = kinglet().args(arguments).output().expect("the program starts");
    check(output, arguments, status)
}

/// Does what Ctrl-C does.
pub fn interrupt(process: u32) {
    let status = Command::new("kill").args(["-INT", &process.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

pub fn check(output: Output, arguments: &[&str], status: i32) -> (String, String) {
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(status), "kinglet {arguments:?}\n{out}\n{err}");
    assert!(!err.contains("panicked"), "kinglet {arguments:?}\n{err}");
    (out, err)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the program writes UTF-8")
}

/// A folder that is removed in the end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("kinglet-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("temporary names are UTF-8").into()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(Path::new(&path).parent().expect("it has a folder")).expect("created");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("listed");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("listed").file_name().to_string_lossy().into()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A bundled recording at 16 kHz.
pub fn recording(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/speech").join(name);
    let inputs = find_inputs(&path).expect("the recording is bundled");
    let mut reader = AudioReader::open(&inputs[0]).expect("it can be read");
    let mut samples = Vec::new();
    while let Some(chunk) = reader.next_chunk().expect("it is sound") {
        samples.extend_from_slice(chunk);
    }
    samples
}

/// `samples` at a rate that is `factor` times theirs, on straight lines between them.
pub fn stretch(samples: &[f32], factor: usize) -> Vec<f32> {
    let next = |index: usize| samples.get(index + 1).copied().unwrap_or(0.0);
    (0..samples.len() * factor)
        .map(|index| {
            let (at, part) = (index / factor, (index % factor) as f32 / factor as f32);
            samples[at] * (1.0 - part) + next(at) * part
        })
        .collect()
}

/// A WAV file of 16-bit samples, the same in every channel.
pub fn wav(rate: u32, channels: u16, samples: &[f32]) -> Vec<u8> {
    let values = samples.iter().map(|sample| ((sample * 32767.0) as i16).to_le_bytes());
    let data = values.flat_map(|value| std::iter::repeat_n(value, channels.into())).flatten().collect();
    riff(1, rate, channels, 16, data)
}

/// A WAV file of 32-bit floats, one channel, whatever they are.
pub fn float_wav(rate: u32, samples: &[f32]) -> Vec<u8> {
    riff(3, rate, 1, 32, samples.iter().flat_map(|sample| sample.to_le_bytes()).collect())
}

/// A WAV file of unsigned 8-bit samples, one channel.
pub fn byte_wav(rate: u32, data: Vec<u8>) -> Vec<u8> {
    riff(1, rate, 1, 8, data)
}

fn riff(code: u16, rate: u32, channels: u16, bits: u16, data: Vec<u8>) -> Vec<u8> {
    let frame = channels * bits / 8;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    for short in [code, channels] {
        file.extend(short.to_le_bytes());
    }
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(frame)).to_le_bytes());
    for short in [frame, bits] {
        file.extend(short.to_le_bytes());
    }
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Whether everything takes many times longer than on a processor, and heavy tests are better left out: under emulation, and
/// where `KINGLET_SLOW` is set.
pub fn slow() -> bool {
    let emulated = cfg!(target_arch = "aarch64")
        && std::env::var_os("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER").is_some();
    emulated || std::env::var_os("KINGLET_SLOW").is_some()
}
