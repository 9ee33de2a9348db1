//! `kinglet listen` through ALSA: a named pipe stands for the microphone, written to several times faster than somebody speaks.
#![cfg(all(feature = "embed-model", feature = "microphone", target_os = "linux"))]

mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Folder, kinglet, recording};
use serde_json::Value;

const SPEED: usize = 4;

/// `samples` at 16 kHz, as a device would give them at `rate`.
fn at_rate(samples: &[f32], rate: usize) -> Vec<f32> {
    let count = samples.len() * rate / 16_000;
    let at = |index: usize| samples.get(index).copied().unwrap_or(0.0);
    (0..count)
        .map(|index| {
            let place = index as f64 * 16_000.0 / rate as f64;
            let (whole, part) = (place as usize, place.fract() as f32);
            at(whole) * (1.0 - part) + at(whole + 1) * part
        })
        .collect()
}

fn bytes(sample: f32, format: &str) -> Vec<u8> {
    match format {
        "s16" => ((sample * 32_767.0) as i16).to_le_bytes().into(),
        "s32" => ((f64::from(sample) * 2_147_483_647.0) as i32).to_le_bytes().into(),
        _ => sample.to_le_bytes().into(),
    }
}

/// An ALSA configuration whose only capture device reads `input`.
fn configuration(folder: &Folder, input: &str) -> String {
    let text = format!(
        "pcm.nothing {{ type null }}\npcm.pipe {{\n type file\n slave.pcm nothing\n file /dev/null\n infile \"{input}\"\n \
         format raw\n hint {{ show on\n description pipe }}\n}}\n"
    );
    folder.write("asoundrc", text.as_bytes())
}

/// Speaks into a device of this rate, channels and format, then ends the program as Ctrl-C does: the events, and the folder.
fn listen(rate: usize, channels: usize, format: &'static str, arguments: &[&str]) -> Option<Vec<Value>> {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        println!("skipped: mkfifo is missing");
        return None;
    }
    let capture = format!("{rate}:{channels}:{format}");
    let mut child = kinglet()
        .args(["listen", "--device", "pipe", "--format", "json", "--capture", &capture])
        .args(arguments)
        .env("ALSA_CONFIG_PATH", configuration(&folder, &pipe))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut samples = vec![0.0; 16_000];
    samples.extend(recording("amiable.wav"));
    samples.extend([0.0; 40_000]);
    let speech = at_rate(&samples, rate);
    let writer = thread::spawn(move || {
        let mut pipe = OpenOptions::new().write(true).open(pipe).expect("the pipe opens");
        let silence = vec![0.0; rate / 20];
        let pieces = speech.chunks(rate / 20).chain(std::iter::repeat(silence.as_slice()));
        for piece in pieces {
            let piece: Vec<u8> =
                piece.iter().flat_map(|&sample| bytes(sample, format).repeat(channels)).collect();
            // It fails once the program has ended.
            if pipe.write_all(&piece).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(50) / SPEED as u32);
        }
    });
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a JSON object on each line");
        if event["event"] == "final" {
            let id = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
        }
        events.push(event);
    }
    assert!(child.wait().expect("it ends").success());
    writer.join().expect("it ends");
    Some(events)
}

#[test]
fn what_is_said_comes_out_whatever_the_device_gives() {
    for (rate, channels, format) in [(48_000, 2, "s16"), (44_100, 1, "s32"), (8_000, 1, "float")] {
        let Some(events) = listen(rate, channels, format, &[]) else { return };
        let finals: Vec<&Value> = events.iter().filter(|event| event["event"] == "final").collect();
        assert_eq!(finals.len(), 1, "{rate} Hz {format}: {finals:?}");
        let text = finals[0]["text"].as_str().expect("a text");
        assert!(text.starts_with("Had he married a more amiable woman,"), "{rate} Hz {format}: {text}");
        assert!(text.ends_with("amiable himself."), "{rate} Hz {format}: {text}");
        let start = finals[0]["start"].as_f64().expect("a time");
        assert!((0.5..3.0).contains(&start), "{start}");
        assert_eq!(events[0]["event"], "device");
        assert_eq!(events[0]["state"], "opened");
        assert!(events.iter().any(|event| event["event"] == "level"));
        assert!(!events.iter().any(|event| event["event"] == "overrun"), "{events:?}");
    }
}

#[test]
fn transcript_and_audio_are_kept() {
    let kept = Folder::new();
    let (subtitles, audio) = (kept.path("said.srt"), kept.path("audio"));
    if listen(16_000, 1, "s16", &["--output", &subtitles, "--save", &audio]).is_none() {
        return;
    }
    let text = std::fs::read_to_string(&subtitles).expect("it is there");
    assert!(text.starts_with("1\n00:00:0") && text.ends_with("\n\n"), "{text}");
    let saved: Vec<_> = std::fs::read_dir(&audio).expect("it is there").collect();
    assert_eq!(saved.len(), 1);
    let (out, _) = common::run(&["transcribe", &audio], 0);
    assert!(out.starts_with("Had he married a more amiable woman,"), "{out}");
}

#[test]
fn devices_that_cannot_be_used_end_with_status_3_and_a_next_step() {
    let folder = Folder::new();
    let configuration = configuration(&folder, "/dev/zero");
    for (arguments, told) in
        [(["--device", "gone"], "`kinglet devices`"), (["--capture", "5:1:s16"], "try `plug")]
    {
        let device = if arguments[0] == "--capture" { &["--device", "pipe"][..] } else { &[] };
        let output = kinglet()
            .arg("listen")
            .args(device)
            .args(arguments)
            .env("ALSA_CONFIG_PATH", &configuration)
            .output()
            .expect("the program starts");
        let (_, err) = common::check(output, &arguments, 3);
        assert!(err.contains(told), "{err}");
    }
    let output =
        kinglet().arg("devices").env("ALSA_CONFIG_PATH", &configuration).output().expect("it starts");
    let (out, _) = common::check(output, &["devices"], 0);
    assert!(out.contains("pipe"), "{out}");
}
