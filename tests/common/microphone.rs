//! Microphones for tests, made of ALSA's own plugins: a named pipe that is spoken into, and a device that fails.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::{Folder, slow};

/// `O_NONBLOCK` of Linux on x86-64 and AArch64.
pub const NONBLOCK: i32 = 0o4000;
/// Silence behind a recording, long enough for the utterance to end.
const PAUSE: usize = 40_000;

/// How much faster than somebody speaks the recogniser surely follows. Under emulation it does not at all, so that
/// the ring must hold what comes meanwhile.
pub fn usual_speed() -> f64 {
    if slow() { 0.7 } else { 4.0 }
}

/// A format in which a device records.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    pub rate: usize,
    pub channels: usize,
    pub samples: &'static str,
}

impl Format {
    /// As `--capture` takes it.
    pub fn argument(self) -> String {
        format!("{}:{}:{}", self.rate, self.channels, self.samples)
    }

    /// `samples` at 16 kHz, as a device of this format would give them.
    fn bytes(self, samples: &[f32]) -> Vec<u8> {
        let at = |index: usize| samples.get(index).copied().unwrap_or(0.0);
        let resampled = (0..samples.len() * self.rate / 16_000).map(|index| {
            let place = index as f64 * 16_000.0 / self.rate as f64;
            let (whole, part) = (place as usize, place.fract() as f32);
            at(whole) * (1.0 - part) + at(whole + 1) * part
        });
        let sample = |sample: f32| -> Vec<u8> {
            match self.samples {
                "s16" => ((sample * 32_767.0) as i16).to_le_bytes().into(),
                "s32" => ((f64::from(sample) * 2_147_483_647.0) as i32).to_le_bytes().into(),
                _ => sample.to_le_bytes().into(),
            }
        };
        resampled.flat_map(|value| sample(value).repeat(self.channels)).collect()
    }
}

/// A microphone called `pipe`, and the configuration of ALSA in which it is.
pub struct Microphone {
    pub folder: Folder,
    pub configuration: String,
    pipe: String,
}

impl Microphone {
    /// Nothing where the system has no named pipes.
    pub fn new() -> Option<Self> {
        let folder = Folder::new();
        let pipe = folder.path("pipe");
        if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
            println!("skipped: mkfifo is missing");
            return None;
        }
        let configuration = folder.write("asoundrc", device("pipe", &file_device(&pipe)).as_bytes());
        Some(Self { folder, configuration, pipe })
    }

    /// Speaks into it so many times faster than usual among people, and then gives silence until it is told to stop.
    pub fn speak(&self, samples: &[f32], format: Format, speed: f64) -> Speaker {
        let pipe = self.pipe.clone();
        let mut all = vec![0.0; 16_000];
        all.extend_from_slice(samples);
        all.extend([0.0; PAUSE]);
        let (speech, silence) = (format.bytes(&all), format.bytes(&[0.0; 800]));
        let (stop, pieces) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, spoken) = (Arc::clone(&stop), Arc::clone(&pieces));
        let thread = thread::spawn(move || {
            // A device is opened more than once before it records. With a reader of our own the pipe never breaks in between, and
            // without blocking nothing waits for a program that has ended.
            let pipe = OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(pipe);
            let mut pipe = pipe.expect("the pipe opens");
            for mut piece in speech.chunks(silence.len()).chain(std::iter::repeat(silence.as_slice())) {
                while !piece.is_empty() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    match pipe.write(piece) {
                        Ok(written) => piece = &piece[written..],
                        Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                            thread::sleep(Duration::from_millis(2));
                        }
                        Err(cause) => panic!("the pipe cannot be written to: {cause}"),
                    }
                }
                spoken.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_secs_f64(0.05 / speed));
            }
        });
        Speaker { stop, pieces, thread }
    }
}

/// Somebody who speaks into a microphone.
pub struct Speaker {
    stop: Arc<AtomicBool>,
    /// Of 50 ms.
    pieces: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Speaker {
    /// Seconds of audio that went into the pipe.
    pub fn seconds(&self) -> f64 {
        self.pieces.load(Ordering::Relaxed) as f64 * 0.05
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
    }
}

/// A device that reads this file.
pub fn file_device(input: &str) -> String {
    format!("type file\n slave.pcm {{ type null }}\n file /dev/null\n infile \"{input}\"\n format raw")
}

/// The definition of a device, which `kinglet devices` lists.
pub fn device(name: &str, definition: &str) -> String {
    format!("pcm.{name} {{\n {definition}\n hint {{ show on\n description {name} }}\n}}\n")
}

/// The ALSA plugin `faulty`, compiled into `folder`, and the line that makes its type known; nothing where that cannot be done.
pub fn faulty_type(folder: &Folder) -> Option<String> {
    let library = folder.path("faulty.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alsa/faulty.c");
    let arguments =
        ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-DPIC", source, "-lasound", "-o", &library];
    if slow() || !Command::new("cc").args(arguments).status().is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler for this machine's ALSA");
        return None;
    }
    Some(format!("pcm_type.faulty {{ lib \"{library}\" }}\n"))
}
