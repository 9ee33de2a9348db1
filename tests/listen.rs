//! `kinglet listen` through ALSA: a named pipe stands for the microphone, written to several times faster than somebody speaks.
#![cfg(all(feature = "embed-model", feature = "microphone", target_os = "linux"))]

mod common;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use common::microphone::{Format, Microphone, NONBLOCK, device, faulty_type, file_device, usual_speed};
use common::{Folder, interrupt, kinglet, recording, slow};
use serde_json::Value;

const PLAIN: Format = Format { rate: 16_000, channels: 1, samples: "s16" };

/// Speaks into a device of this format, then ends the program as Ctrl-C does: the events.
fn listen(name: &str, format: Format, arguments: &[&str]) -> Option<Vec<Value>> {
    let microphone = Microphone::new()?;
    let mut child = kinglet()
        .args(["listen", "--device", "pipe", "--format", "json", "--capture", &format.argument()])
        .args(arguments)
        .env("ALSA_CONFIG_PATH", &microphone.configuration)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let speaker = microphone.speak(&recording(name), format, usual_speed());
    let mut events: Vec<Value> = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a JSON object on each line");
        if event["event"] == "final" {
            interrupt(child.id());
        }
        events.push(event);
    }
    assert!(child.wait().expect("it ends").success());
    speaker.stop();
    Some(events)
}

fn of<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

fn text<'e>(event: &'e Value, name: &str) -> &'e str {
    event[name].as_str().expect("a text")
}

#[test]
fn what_is_said_comes_out_whatever_the_device_gives() {
    let formats = [(48_000, 2), (44_100, 1), (8_000, 1)];
    let samples = ["s16", "s32", "float"];
    for (row, (rate, channels)) in formats.into_iter().enumerate() {
        for (column, samples) in samples.into_iter().enumerate() {
            // Each rate and each format once is enough where it takes minutes.
            if slow() && row != column {
                continue;
            }
            let format = Format { rate, channels, samples };
            let Some(events) = listen("selfish.flac", format, &["--partial-interval", "0"]) else { return };
            let finals = of(&events, "final");
            assert_eq!(finals.len(), 1, "{format:?}: {finals:?}");
            assert!(text(finals[0], "text").contains("selfish"), "{format:?}: {finals:?}");
            let start = finals[0]["start"].as_f64().expect("a time");
            assert!(slow() || (0.5..3.0).contains(&start), "{start}");
            assert_eq!((text(&events[0], "event"), text(&events[0], "state")), ("device", "opened"));
            assert!(!of(&events, "level").is_empty());
            assert!(of(&events, "partial").is_empty(), "none was asked for");
            // A slow recogniser takes longer than the ring lasts; by then all has been said.
            assert!(slow() || of(&events, "overrun").is_empty(), "{events:?}");
        }
    }
}

#[test]
fn words_are_shown_while_they_are_spoken_and_stable_ones_stay() {
    let recording = if slow() { "selfish.flac" } else { "amiable.wav" };
    let Some(events) = listen(recording, PLAIN, &[]) else { return };
    let (partials, finals) = (of(&events, "partial"), of(&events, "final"));
    assert_eq!(finals.len(), 1, "{finals:?}");
    let said = text(finals[0], "text");
    assert!(partials.len() >= 2, "{events:?}");
    let mut stable = "";
    for partial in partials {
        assert!(text(partial, "stable").starts_with(stable), "`{stable}` was taken back: {partial}");
        stable = text(partial, "stable");
        assert_eq!(partial["start"], finals[0]["start"]);
        assert!(partial["end"].as_f64() <= finals[0]["end"].as_f64().map(|end| end + 0.5), "{partial}");
    }
    assert!(said.starts_with(stable), "`{stable}` was taken back: {said}");
}

#[test]
fn transcript_and_audio_are_kept() {
    let kept = Folder::new();
    let (subtitles, audio) = (kept.path("said.srt"), kept.path("audio"));
    if listen("selfish.flac", PLAIN, &["--output", &subtitles, "--save", &audio]).is_none() {
        return;
    }
    let text = std::fs::read_to_string(&subtitles).expect("it is there");
    assert!(text.starts_with("1\n00:00:0") && text.ends_with("\n\n"), "{text}");
    let saved: Vec<_> = std::fs::read_dir(&audio).expect("it is there").collect();
    assert_eq!(saved.len(), 1);
    let (out, _) = common::run(&["transcribe", &audio], 0);
    assert!(out.contains("selfish"), "{out}");
}

#[test]
fn devices_that_cannot_be_used_end_with_status_3_and_a_next_step() {
    let folder = Folder::new();
    let mut configuration = device("pipe", &file_device("/dev/zero"));
    configuration += &device("absent", &file_device("/no/such/file"));
    let mut cases = vec![
        (["--device", "gone"], "`kinglet devices`"),
        (["--device", "absent"], "the device is not there; connect it"),
        (["--capture", "5:1:s16"], "try `plug"),
    ];
    if let Some(faulty) = faulty_type(&folder) {
        // 16 is EBUSY, 13 EACCES.
        configuration += &faulty;
        configuration += &device("busy", "type faulty\n open_error 16");
        configuration += &device("closed", "type faulty\n open_error 13");
        cases.push((["--device", "busy"], "the device is busy; end the program that records from it"));
        cases.push((["--device", "closed"], "add your user to the group `audio`"));
    }
    let configuration = folder.write("asoundrc", configuration.as_bytes());
    for (arguments, told) in cases {
        let device = if arguments[0] == "--capture" { &["--device", "pipe"][..] } else { &[] };
        let output = kinglet()
            .arg("listen")
            .args(device)
            .args(arguments)
            .env("ALSA_CONFIG_PATH", &configuration)
            .output()
            .expect("the program starts");
        let (out, err) = common::check(output, &arguments, 3);
        assert!(err.contains(told), "{arguments:?}: {err}");
        assert!(out.is_empty(), "{arguments:?}: {out}");
    }
    let output =
        kinglet().arg("devices").env("ALSA_CONFIG_PATH", &configuration).output().expect("it starts");
    let (out, _) = common::check(output, &["devices"], 0);
    assert!(out.contains("pipe"), "{out}");
}

#[test]
fn a_device_that_is_unplugged_is_told_of_waited_for_and_taken_up_again() {
    let folder = Folder::new();
    let Some(faulty) = faulty_type(&folder) else { return };
    let gone = folder.path("gone");
    let configuration = faulty + &device("usb", &format!("type faulty\n lasts_ms 300\n path \"{gone}\""));
    let mut child = kinglet()
        .args(["listen", "--device", "usb", "--format", "json"])
        .env("ALSA_CONFIG_PATH", folder.write("asoundrc", configuration.as_bytes()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut states = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a JSON object on each line");
        if event["event"] != "device" {
            continue;
        }
        states.push(text(&event, "state").to_string());
        match states.len() {
            2 => {
                assert!(text(&event, "cause").contains("usb: "), "{event}");
                // Plugged in again.
                std::fs::remove_file(&gone).expect("it has gone");
            }
            3 => interrupt(child.id()),
            _ => {}
        }
    }
    assert!(child.wait().expect("it ends").success());
    assert!(states.starts_with(&["opened".into(), "lost".into(), "opened".into()]), "{states:?}");
}

/// The next event of this kind.
fn until(printed: &mut BufReader<ChildStdout>, kind: &str) -> Value {
    loop {
        let mut line = String::new();
        assert!(printed.read_line(&mut line).expect("text") > 0, "it ended before `{kind}`");
        if line.trim().is_empty() {
            continue;
        }
        let event: Value = serde_json::from_str(&line).expect("a JSON object on each line");
        if event["event"] == kind {
            return event;
        }
    }
}

/// Fills the pipe that the program prints into, with empty lines: from here on it waits until somebody reads.
fn stall(printed: &ChildStdout) {
    let pipe = format!("/proc/self/fd/{}", printed.as_raw_fd());
    let mut pipe = OpenOptions::new().write(true).custom_flags(NONBLOCK).open(pipe).expect("it opens");
    loop {
        match pipe.write(b"\n") {
            Ok(_) => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => return,
            Err(cause) => panic!("{cause}"),
        }
    }
}

#[test]
fn what_does_not_fit_while_the_program_is_held_up_is_lost_and_told() {
    /// What the ring holds, and more than pipe and ALSA do.
    const RING: f64 = 10.0;
    const ELSEWHERE: f64 = 5.0;
    let Some(microphone) = Microphone::new() else { return };
    let mut child = kinglet()
        .args(["listen", "--device", "pipe", "--format", "json", "--capture", &PLAIN.argument()])
        .args(["--partial-interval", "0"])
        .env("ALSA_CONFIG_PATH", &microphone.configuration)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut printed = BufReader::new(child.stdout.take().expect("piped"));
    let silence = microphone.speak(&[], PLAIN, usual_speed());
    // The level of a second: the program has recognised some audio, and has a pace.
    until(&mut printed, "level");
    stall(printed.get_ref());
    let begun = silence.seconds();
    while silence.seconds() < begun + RING + 2.0 * ELSEWHERE {
        assert!(child.try_wait().expect("it runs").is_none(), "it ended");
        thread::sleep(Duration::from_millis(10));
    }
    let overrun = until(&mut printed, "overrun");
    let lost = overrun["lost_seconds"].as_f64().expect("a number");
    assert!(lost > 0.5 && lost < silence.seconds() - begun - RING + ELSEWHERE, "{overrun}");
    assert_eq!(overrun["device_overruns"], 0);
    let behind = until(&mut printed, "behind");
    let waiting = behind["waiting_seconds"].as_f64().expect("a number");
    assert!((RING / 2.0..=RING).contains(&waiting), "{behind}");
    assert!(behind["speed"].as_f64().is_some_and(|speed| speed > 0.0), "{behind}");
    // It goes on as if nothing had been.
    let speaker = microphone.speak(&recording("selfish.flac"), PLAIN, usual_speed());
    silence.stop();
    let said = until(&mut printed, "final");
    assert!(text(&said, "text").contains("selfish"), "{said}");
    interrupt(child.id());
    assert!(child.wait().expect("it ends").success());
    speaker.stop();
}

#[test]
fn what_the_device_loses_is_told() {
    let folder = Folder::new();
    let Some(faulty) = faulty_type(&folder) else { return };
    let configuration = faulty + &device("usb", "type faulty\n overrun_ms 300");
    let mut child = kinglet()
        .args(["listen", "--device", "usb", "--format", "json"])
        .env("ALSA_CONFIG_PATH", folder.write("asoundrc", configuration.as_bytes()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let (mut overruns, mut levels) = (0, 0);
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: Value = serde_json::from_str(&line.expect("text")).expect("a JSON object on each line");
        match text(&event, "event") {
            "overrun" => {
                assert_eq!(event["lost_seconds"], 0.0, "{event}");
                overruns += event["device_overruns"].as_u64().expect("a number");
            }
            // Audio goes on behind it.
            "level" if overruns > 0 => levels += 1,
            _ => {}
        }
        if levels == 2 {
            interrupt(child.id());
        }
    }
    assert!(child.wait().expect("it ends").success());
    assert_eq!(overruns, 1);
}
