//! Files that change under the program, and a program that is killed: what it has read stays, what it leaves is whole.
#![cfg(all(unix, feature = "embed-model"))]

mod common;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use common::{Folder, kinglet, recording, run, slow, wav};

/// `kinglet transcribe` in the middle of a stream: the first recording was said, the second is still to come.
struct Running {
    child: Child,
    input: ChildStdin,
    printed: String,
}

impl Running {
    /// With the model in `model`. Recordings are cut at pauses only when they are long, hence the silence.
    fn start(model: &str, options: &[&str], audio: &[u8]) -> Self {
        let mut child = kinglet()
            .args(["transcribe", "-", "--model", model])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(audio).expect("it reads");
        input.flush().expect("it reads");
        let mut running = Self { child, input, printed: String::new() };
        while !running.printed.contains("selfish") {
            let mut bytes = [0; 256];
            let count = running.child.stdout.as_mut().expect("piped").read(&mut bytes).expect("it writes");
            assert!(count > 0, "it ended: {}", running.printed);
            running.printed.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        running
    }

    /// Everything that is said once the rest of the audio is there.
    fn finish(mut self, audio: &[u8]) -> String {
        self.input.write_all(audio).expect("it reads");
        drop(self.input);
        let output = self.child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        self.printed + &String::from_utf8_lossy(&output.stdout)
    }
}

/// A recording of two sentences with a minute of silence between them, and where to stop in it: long after the first.
fn two_sentences() -> (Vec<u8>, usize) {
    let speech = recording("selfish.flac");
    let pause = vec![0.0; 60 * 16_000];
    let samples = [&speech[..], &pause, &speech, &pause].concat();
    (wav(16_000, 1, &samples), 44 + 2 * (speech.len() + pause.len()))
}

#[test]
fn a_model_replaced_by_renaming_is_used_to_the_end() {
    let folder = Folder::new();
    let (audio, middle) = two_sentences();
    let model = folder.path("model.kgl");
    std::fs::copy("models/en.kgl", &model).expect("copied");
    let running = Running::start(&model, &[], &audio[..middle]);
    std::fs::rename(folder.write("new.kgl", b"no model at all"), &model).expect("renamed");
    let out = running.finish(&audio[middle..]);
    assert_eq!(out.matches("selfish").count(), 2, "{out}");
}

#[test]
fn a_model_that_was_read_may_shrink() {
    let folder = Folder::new();
    let (audio, middle) = two_sentences();
    let model = folder.path("model.kgl");
    std::fs::copy("models/en.kgl", &model).expect("copied");
    let running = Running::start(&model, &["--no-mmap"], &audio[..middle]);
    OpenOptions::new().write(true).open(&model).and_then(|file| file.set_len(100)).expect("cut");
    let out = running.finish(&audio[middle..]);
    assert_eq!(out.matches("selfish").count(), 2, "{out}");
}

#[cfg(all(feature = "microphone", target_os = "linux"))]
#[test]
fn a_model_replaced_while_listening_is_used_to_the_end() {
    use common::microphone::{Format, Microphone, usual_speed};
    use std::io::{BufRead, BufReader};

    let Some(microphone) = Microphone::new() else { return };
    let model = microphone.folder.path("model.kgl");
    for (option, shrinks) in [(None, false), (Some("--no-mmap"), true)] {
        std::fs::copy("models/en.kgl", &model).expect("copied");
        let format = Format { rate: 16_000, channels: 1, samples: "s16" };
        let mut child = kinglet()
            .args(["listen", "--device", "pipe", "--format", "json", "--capture", &format.argument()])
            .args(["--partial-interval", "0", "--model", &model])
            .args(option)
            .env("ALSA_CONFIG_PATH", &microphone.configuration)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        // The device opens once somebody holds the other end of its pipe.
        let silence = microphone.speak(&[], format, usual_speed());
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let opened = lines.next().expect("it tells of the device").expect("text");
        assert!(opened.contains(r#""state":"opened""#), "{opened}");
        // Not a word has been said yet.
        if shrinks {
            OpenOptions::new().write(true).open(&model).and_then(|file| file.set_len(100)).expect("cut");
        } else {
            let new = microphone.folder.write("new.kgl", b"no model at all");
            std::fs::rename(new, &model).expect("renamed");
        }
        let speaker = microphone.speak(&recording("selfish.flac"), format, usual_speed());
        silence.stop();
        let said =
            lines.by_ref().map(|line| line.expect("text")).find(|line| line.contains(r#""event":"final""#));
        assert!(said.as_ref().is_some_and(|said| said.contains("selfish")), "{option:?}: {said:?}");
        common::interrupt(child.id());
        assert!(child.wait().expect("it ends").success());
        speaker.stop();
    }
}

/// Files in `folder` that have their names.
fn finished(folder: &str) -> usize {
    let names = std::fs::read_dir(folder).into_iter().flatten();
    names
        .filter(|entry| {
            entry.as_ref().is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        })
        .count()
}

#[test]
fn a_killed_program_leaves_whole_files_only() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    let folder = Folder::new();
    let sound = std::fs::read("tests/data/speech/selfish.flac").expect("bundled");
    for number in 0..12 {
        folder.write(&format!("in/{number}.flac"), &sound);
    }
    let input = folder.path("in");
    run(
        &["transcribe", "-o", &folder.path("whole"), "--format", "json", "tests/data/speech/selfish.flac"],
        0,
    );
    let expected = std::fs::read(folder.path("whole/selfish.json")).expect("written");
    let expected = String::from_utf8(expected).expect("text").replace("tests/data/speech/selfish", "");
    let mut killed_in_the_midst = 0;
    for attempt in 0..8_u64 {
        let output = folder.path(&format!("out-{attempt}"));
        let mut child = kinglet()
            .args(["transcribe", "--quiet", "--format", "json", "-o", &output, &input])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        // Some time behind the first file.
        while child.try_wait().expect("it runs").is_none() && finished(&output) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(7 * attempt));
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        for entry in std::fs::read_dir(&output).expect("it is there") {
            let path = entry.expect("listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Where files cannot be without a name, it says what they are.
            if name.starts_with('.') && name.ends_with(".partial") {
                continue;
            }
            let number = name.trim_end_matches(".json");
            let text = std::fs::read_to_string(&path).expect("text");
            assert_eq!(text.replace(&format!("{input}/{number}"), ""), expected, "{name}");
        }
        killed_in_the_midst += usize::from(finished(&output) < 12);
    }
    assert!(killed_in_the_midst > 0, "it was always too late");
}

/// What the process is writing into `folder` at this moment: nothing, or a file as its system calls it.
#[cfg(target_os = "linux")]
fn being_written(process: u32, folder: &str) -> Option<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let mut files = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    files.find(|file| file.starts_with(folder)).map(|file| file.to_string_lossy().into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn of_a_killed_program_nothing_half_written_is_left() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    let folder = Folder::new();
    let kernel = folder.write("kernel", b"any");
    let output = folder.path("out");
    for attempt in 0..20 {
        let mut child = kinglet()
            .args(["--quiet", "flash", "--board", "virt", "--kernel", &kernel, "--model", "models/en.kgl"])
            .args(["--audio", "tests/data/speech/selfish.flac", "--out", &output])
            .spawn()
            .expect("it starts");
        let written = loop {
            if let Some(written) = being_written(child.id(), &output) {
                break written;
            }
            assert!(child.try_wait().expect("it runs").is_none(), "too fast to be seen");
        };
        // It is flushed to the disk as a whole, so that some of these come before its end.
        std::thread::sleep(Duration::from_millis(attempt));
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        let hidden = |name: &String| name.starts_with('.');
        let left: Vec<String> = std::fs::read_dir(&output)
            .expect("it is there")
            .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
            .filter(hidden)
            .collect();
        if written.ends_with(".partial") {
            return eprintln!("skipped: the temporary folder's filesystem has no files without a name");
        }
        assert!(left.is_empty(), "{left:?}");
    }
    let whole = 64 << 20;
    let images = std::fs::metadata(folder.path("out/flash.img")).map(|image| image.len());
    assert!(images.is_err() || images.is_ok_and(|bytes| bytes == whole), "what has its name is whole");
}
