//! `kinglet listen` as somebody sees it: in tmux, a terminal of 80 columns.
#![cfg(all(feature = "embed-model", feature = "microphone", target_os = "linux"))]

mod common;

use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use common::microphone::{Format, Microphone, usual_speed};
use common::{Folder, recording, slow};
use kinglet_model_format::{Model, SectionKind};

const COLUMNS: usize = 80;
const PLAIN: Format = Format { rate: 16_000, channels: 1, samples: "s16" };

/// A terminal of its own, closed in the end.
struct Terminal {
    name: String,
}

impl Terminal {
    /// Runs a command in a new terminal.
    fn open(name: &str, command: &str) -> Option<Self> {
        let terminal = Self { name: format!("kinglet-test-{}-{name}", std::process::id()) };
        let size = ["-x", &COLUMNS.to_string(), "-y", "12"].map(String::from);
        let opened = Command::new("tmux")
            .args(["-u", "-L", &terminal.name, "-f", "/dev/null", "new-session", "-d"])
            .args(size)
            .arg(format!("{command}; sleep 60"))
            .env("LC_ALL", "C.UTF-8")
            .status();
        if opened.is_ok_and(|status| status.success()) {
            return Some(terminal);
        }
        println!("skipped: tmux is missing");
        None
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let tmux = Command::new("tmux").args(["-u", "-L", &self.name]).args(arguments).output();
        tmux.expect("tmux runs")
    }

    /// The lines on the screen; with `joined`, a line that was too long for the screen is one.
    fn lines(&self, joined: bool) -> Vec<String> {
        let output = self.tmux(if joined { &["capture-pane", "-p", "-J"] } else { &["capture-pane", "-p"] });
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| line.trim_end().to_string()).filter(|line| !line.is_empty()).collect()
    }

    /// Looks until an utterance is complete: every different last line before that, and then the whole screen.
    fn watch(&self) -> (Vec<String>, Vec<String>) {
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..1200 {
            let lines = self.lines(false);
            if lines.iter().any(|line| line.starts_with('[')) {
                // Whatever else would come has come.
                thread::sleep(Duration::from_millis(300));
                return (seen, self.lines(true));
            }
            let running: Vec<String> = lines.into_iter().filter(|line| !line.contains("listening")).collect();
            assert!(running.len() <= 1, "running words take one line: {running:?}");
            if let Some(line) = running.first().filter(|line| seen.last() != Some(line)) {
                seen.push(line.clone());
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("nothing came: {seen:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn command(microphone: &Microphone, arguments: &str) -> String {
    format!(
        "env -u KINGLET_MODEL ALSA_CONFIG_PATH={} TERM=screen {} listen --device pipe --capture {} {arguments}",
        microphone.configuration,
        env!("CARGO_BIN_EXE_kinglet"),
        PLAIN.argument()
    )
}

#[test]
fn words_run_in_one_line_and_leave_nothing_behind() {
    if slow() {
        return println!("skipped: under emulation");
    }
    let Some(microphone) = Microphone::new() else { return };
    let Some(terminal) = Terminal::open("words", &command(&microphone, "")) else { return };
    let speaker = microphone.speak(&recording("amiable.wav"), PLAIN, usual_speed());
    let (seen, screen) = terminal.watch();
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen.iter().any(|line| line.starts_with("Had he married")), "{seen:?}");
    // Of a line that is longer than the screen the end is shown.
    assert!(seen.iter().any(|line| line.starts_with("... ") && line.len() > COLUMNS / 2), "{seen:?}");
    let text = screen.join("\n");
    // A machine that is busy with other things falls behind and says so.
    let text = text.split("\nkinglet: warning: cannot keep up").next().unwrap_or_default();
    assert_eq!(text.matches("Had he married").count(), 1, "running words were left behind: {text}");
    assert!(text.ends_with("made amiable himself."), "{text}");
    terminal.tmux(&["send-keys", "C-c"]);
    speaker.stop();
}

/// Where the bytes of a token lie in section `vocabulary`, those included that tokens before it have too.
fn places(section: &[u8], count: usize, token: usize) -> Vec<usize> {
    let lengths = 4 + 4 * count.div_ceil(64);
    let shares = section[3] >> 7 == 1;
    let own = lengths + count + if shares { count.div_ceil(2) } else { 0 };
    let shared = |token: usize| {
        if shares { usize::from(section[lengths + count + token / 2] >> (token % 2 * 4) & 0xf) } else { 0 }
    };
    let length = |token: usize| usize::from(section[lengths + token]);
    let begin = |token: usize| own + (0..token).map(|token| length(token) - shared(token)).sum::<usize>();
    let owner = |place: usize| {
        (0..=token).rev().find(|&token| shared(token) <= place).expect("the first shares none")
    };
    (0..length(token))
        .map(|place| (place, owner(place)))
        .map(|(place, owner)| begin(owner) + place - shared(owner))
        .collect()
}

/// The model with other letters in three of its words, as many bytes as before; its checksums are mended.
fn with_other_letters() -> Vec<u8> {
    let mut bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/en.kgl")).expect("bundled");
    let aligned = kinglet::model_file::ModelFile::embedded();
    let model = Model::parse(&aligned).expect("the built-in model is sound");
    let (index, section) = model
        .sections()
        .iter()
        .enumerate()
        .find(|(_, section)| section.kind == SectionKind::Vocabulary)
        .expect("there is one");
    let range = section.offset..section.offset + section.bytes.len();
    let vocabulary = model.vocabulary();
    for (old, new) in
        [(" respect", " \u{65e5}\u{672c}x"), (" more", " m\u{f6}e"), (" might", " \u{3bc}\u{3af}x")]
    {
        assert_eq!(old.len(), new.len());
        let is_old = |token: &u32| vocabulary.piece(*token).into_iter().eq(old.bytes());
        let token = (0..vocabulary.len() as u32).find(is_old).expect("a word of the vocabulary");
        for (place, byte) in
            places(section.bytes, vocabulary.len(), token as usize).into_iter().zip(new.bytes())
        {
            bytes[section.offset + place] = byte;
        }
    }
    let sum = crc32fast::hash(&bytes[range]);
    bytes[64 + index * 32 + 4..64 + index * 32 + 8].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&bytes[16..64 + SectionKind::ALL.len() * 32]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn letters_of_more_than_one_byte_or_column_fit_too() {
    if slow() {
        return println!("skipped: under emulation");
    }
    let Some(microphone) = Microphone::new() else { return };
    let folder = Folder::new();
    let model = folder.write("other.kgl", &with_other_letters());
    let Some(terminal) = Terminal::open("letters", &command(&microphone, &format!("--model {model}"))) else {
        return;
    };
    let speaker = microphone.speak(&recording("amiable.wav"), PLAIN, usual_speed());
    let (seen, screen) = terminal.watch();
    assert!(
        seen.iter().any(|line| line.contains("m\u{f6}e") || line.contains("\u{3bc}\u{3af}x")),
        "{seen:?}"
    );
    let text = screen.join("\n");
    assert!(text.contains("\u{65e5}\u{672c}xable") && text.contains("m\u{f6}e"), "{text}");
    assert_eq!(text.matches("Had he married").count(), 1, "running words were left behind: {text}");
    terminal.tmux(&["send-keys", "C-c"]);
    speaker.stop();
}
