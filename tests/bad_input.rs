//! Everything that people hand over by mistake: a clear sentence, the right exit status, and the rest of the batch done.
#![cfg(feature = "embed-model")]

mod common;

use std::process::Stdio;

use common::{Folder, byte_wav, check, float_wav, kinglet, recording, run, slow, wav};

/// Transcribes `file` beside a sound recording; returns what is said about it. The sound one must be done all the same.
fn complaint(file: &str, status: i32) -> String {
    let (out, err) = run(&["transcribe", "--format", "json", file, "tests/data/speech/selfish.flac"], status);
    assert!(out.contains("rather selfish"), "{file}: the other file was not done\n{out}{err}");
    assert!(status == 0 || err.contains(file), "{file} is not named: {err}");
    err
}

#[test]
fn files_that_give_nothing_are_named_with_their_cause() {
    let folder = Folder::new();
    let sound = wav(16_000, 1, &[0.1; 4_000]);
    let mut headless = sound.clone();
    headless[0] = b'X';
    // Found by fuzzing: channels times bytes a sample is more than the header's own field can hold.
    let mut many_channels = sound.clone();
    many_channels[22..24].copy_from_slice(&0x8001u16.to_le_bytes());
    std::fs::create_dir(folder.path("no-audio")).expect("created");
    for (file, cause) in [
        (folder.path("missing.wav"), "No such file"),
        (folder.path("no-audio"), "folder without audio"),
        (folder.write("text.wav", b"Dear diary, this is not a recording at all.\n"), "not audio"),
        (folder.write("empty.flac", b""), "empty file"),
        (folder.write("header.wav", &sound[..30]), "not audio"),
        (folder.write("damaged.wav", &headless), "not audio"),
        (folder.write("channels.wav", &many_channels), "damaged"),
        (folder.write("rate.wav", &wav(2_000_000, 1, &[0.1; 4_000])), "sample rate of 2000000 Hz"),
        ("tests/data/audio/selfish.opus".into(), "codec is not supported"),
    ] {
        let err = complaint(&file, 2);
        assert!(err.contains(cause), "{file}: {err}");
        assert_eq!(err.lines().count(), 1, "{file}: {err}");
    }
}

#[test]
fn what_can_be_decoded_of_a_damaged_file_is_transcribed() {
    let folder = Folder::new();
    let amiable = std::fs::read("tests/data/speech/amiable.wav").expect("bundled");
    let flac = std::fs::read("tests/data/speech/consider.flac").expect("bundled");
    let mut holed = flac.clone();
    holed[60_000..60_400].fill(0x55);
    for (file, heard) in [
        (folder.write("cut.wav", &amiable[..160_000]), "more amiable woman"),
        (folder.write("cut.flac", &flac[..90_000]), "leisure to consider"),
        (folder.write("holed.flac", &holed), "John Dashwood"),
    ] {
        let (out, err) = run(&["transcribe", &file], 2);
        assert!(out.contains(heard), "{file}: {out}");
        assert!(err.contains(&file) && err.contains("promised by its header"), "{file}: {err}");
    }
}

#[test]
fn no_sound_gives_no_words() {
    let folder = Folder::new();
    let mut state = 1_u32;
    let noise: Vec<f32> = (0..160_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as f32 / 65_536.0 * 0.002 - 0.001
        })
        .collect();
    // Swelling noise, which passes for a voice now and then: without a rule against it the model says "You".
    let (mut random, mut low) = (15_838_u32, 0.0);
    let swelling: Vec<f32> = (0..960_000)
        .map(|n| {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let white = f64::from(random) / 2_147_483_648.0 - 1.0;
            low = 0.96 * low + white;
            let level =
                10_f64.powf(0.5 * (f64::from(n) / 16_000.0 * std::f64::consts::TAU / 20.0).sin() - 1.5);
            (level * (0.9 * white + 0.5 * low)).clamp(-1.0, 1.0) as f32
        })
        .collect();
    for file in [
        folder.write("none.wav", &wav(16_000, 1, &[])),
        folder.write("one.wav", &wav(16_000, 1, &[0.5])),
        folder.write("silence.wav", &wav(16_000, 1, &[0.0; 160_000])),
        folder.write("noise.wav", &wav(16_000, 1, &noise)),
        folder.write("swelling.wav", &wav(16_000, 1, &swelling)),
        folder.write("constant.wav", &wav(16_000, 1, &[0.9; 48_000])),
    ] {
        assert_eq!(run(&["transcribe", &file], 0), (String::new(), String::new()), "{file}");
    }
}

/// 40 s at 16 kHz.
fn long(sample: impl Fn(f32) -> f32) -> Vec<f32> {
    (0..640_000_u32).map(|n| sample(n as f32 / 16_000.0)).collect()
}

#[test]
fn knocks_give_no_words_unless_asked_for() {
    use std::f32::consts::TAU;
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    let folder = Folder::new();
    let knocks = long(|seconds| {
        let since = seconds % 1.7;
        let modes = [(140.0, 0.05), (330.0, 0.03), (700.0, 0.02)];
        modes.map(|(hertz, decay)| 0.25 * (TAU * hertz * since).sin() * (-since / decay).exp()).iter().sum()
    });
    let file = folder.write("knocks.wav", &wav(16_000, 1, &knocks));
    for format in ["text", "srt"] {
        let silent = run(&["transcribe", "--format", format, &file], 0);
        assert_eq!(silent, (String::new(), String::new()));
    }
    let (json, _) = run(&["transcribe", "--format", "json", &file], 0);
    assert!(json.contains("\"text\":\"\",\"segments\":[]"), "{json}");
    let (kept, _) = run(&["transcribe", "--keep-doubtful", "--format", "json", &file], 0);
    assert!(kept.contains("ou") && kept.contains("\"doubtful\":true"), "{kept}");
    // Speech among knocks is heard.
    let speech = recording("selfish.flac");
    let both: Vec<f32> = speech.iter().zip(&knocks).map(|(speech, knock)| speech + 0.1 * knock).collect();
    let (out, _) = run(&["transcribe", &folder.write("both.wav", &wav(16_000, 1, &both))], 0);
    assert!(out.contains("selfish"), "{out}");
}

#[test]
fn a_damaged_recording_whose_sums_overflow_is_survived() {
    // Found by fuzzing: a predictor whose sum does not fit its integers.
    let file = "tests/data/damaged/overflow.flac";
    let output = kinglet().args(["transcribe", file]).output().expect("it starts");
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{output:?}");
}

#[test]
fn clipped_samples_and_samples_that_are_no_numbers_are_survived() {
    let folder = Folder::new();
    let speech = recording("selfish.flac");
    let loud: Vec<f32> = speech.iter().map(|sample| sample * 8.0).collect();
    let (out, err) = run(&["transcribe", &folder.write("loud.wav", &float_wav(16_000, &loud))], 0);
    assert!(out.contains("selfish") && err.is_empty(), "{out}{err}");
    let mut broken = speech;
    for (index, value) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
        broken[20_000 + index * 50] = value;
    }
    let (out, err) = run(&["transcribe", &folder.write("nan.wav", &float_wav(16_000, &broken))], 2);
    assert!(out.contains("rather selfish") && err.contains("3 samples are not numbers"), "{out}{err}");
    let hopeless = folder.write("hopeless.wav", &float_wav(16_000, &[f32::NAN; 32_000]));
    assert_eq!(run(&["transcribe", &hopeless], 2).0, "");
}

#[test]
fn long_recordings_need_no_more_memory() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    // Twenty minutes at 8 kHz: 77 MB as floats at 16 kHz.
    let mut data: Vec<u8> = vec![128; 20 * 60 * 8_000];
    for (index, pair) in recording("selfish.flac").chunks(2).enumerate() {
        data[4_000_000 + index] = (128.0 + 127.0 * pair.iter().sum::<f32>() / 2.0) as u8;
    }
    let folder = Folder::new();
    let file = folder.write("long.wav", &byte_wav(8_000, data));
    let (out, err) = run(&["bench", "--runs", "1", "--model", "models/en.kgl", "--no-mmap", &file], 0);
    let peak = out.lines().find_map(|line| line.strip_prefix("peak RSS")).expect("it is measured");
    let Ok(megabytes) = peak.split_whitespace().next().expect("a number").parse::<f64>() else {
        return eprintln!("skipped: peak memory is unknown here");
    };
    // 28 MB of model, a debug build's own code, the recogniser.
    assert!(megabytes < 70.0, "{out}{err}");
}

#[test]
fn models_that_are_none_or_damaged_are_refused_with_their_name() {
    let folder = Folder::new();
    let sound = std::fs::read("models/en.kgl").expect("committed");
    let changed = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let mut newer = sound.clone();
    newer[8] = 9;
    for (file, cause) in [
        (folder.path("missing.kgl"), "No such file"),
        (folder.write("text.kgl", b"not a model"), "not a Kinglet model"),
        (folder.write("empty.kgl", b""), "not a Kinglet model"),
        (folder.write("cut.kgl", &sound[..1_000_000]), "damaged"),
        (folder.write("weight.kgl", &changed(sound.len() / 2)), "section `data`"),
        (folder.write("newer.kgl", &newer), "update the program"),
    ] {
        for options in [&["--model", &file][..], &["--model", &file, "--no-mmap"]] {
            let arguments = [&["transcribe", "tests/data/speech/selfish.flac"], options].concat();
            let (out, err) = run(&arguments, 2);
            assert!(out.is_empty() && err.contains(&file) && err.contains(cause), "{file}: {out}{err}");
        }
        let (_, err) = run(&["inspect", &file], 2);
        assert!(err.contains(&file) && err.contains(cause), "{file}: {err}");
    }
}

#[test]
fn decoding_that_the_model_has_no_head_for_is_refused() {
    for decoding in ["ctc-greedy", "ctc-beam", "rescore"] {
        let (out, err) = run(&["transcribe", "--decoding", decoding, "tests/data/speech/selfish.flac"], 2);
        assert!(out.is_empty() && err.contains("the model has no CTC head"), "{decoding}: {out}{err}");
    }
    let (_, err) = run(&["transcribe", "--ctc-weight", "-1", "tests/data/speech/selfish.flac"], 2);
    assert!(err.contains("--ctc-weight"), "{err}");
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let folder = Folder::new();
    let file = folder.write("file", b"in the way");
    let (_, err) = run(&["transcribe", "-o", &file, "tests/data/speech/selfish.flac"], 1);
    assert!(err.contains("cannot be written"), "{err}");
    let (_, err) = run(&["pack", "tests/data/tiny", "-o", &folder.path("none/tiny.kgl")], 1);
    assert!(err.contains("cannot be written"), "{err}");
    let (_, err) = run(&["pack", &folder.path(""), "-o", &folder.path("x.kgl")], 2);
    assert!(err.contains("config.json"), "{err}");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn transcripts_that_would_overwrite_each_other_are_refused() {
    let folder = Folder::new();
    let arguments = [
        "transcribe",
        "-o",
        &folder.path(""),
        "tests/data/speech/selfish.flac",
        "tests/data/audio/selfish.mp3",
    ];
    let (_, err) = run(&arguments, 2);
    assert!(err.contains("selfish.mp3: would be written to"), "{err}");
    assert_eq!(folder.names(), ["selfish.txt"]);
    let (out, err) = run(&["transcribe", "--format", "srt", "tests/data/speech"], 2);
    assert!(out.is_empty() && err.contains("--output"), "{out}{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = kinglet()
        .args(["inspect", "--tensors", "models/en.kgl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let (_, err) = check(child.wait_with_output().expect("it ends"), &["inspect"], 0);
    assert_eq!(err, "");
}
