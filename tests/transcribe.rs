//! `kinglet transcribe` on recordings that are what they should be.
#![cfg(feature = "embed-model")]

mod common;

use common::{Folder, kinglet, recording, run, slow, stretch, wav};
use serde_json::Value;

/// What the default model hears in the bundled recordings, on every instruction set.
const GOLDEN: [(&str, &str); 3] = [
    (
        "amiable.wav",
        "Had he married a more amiable woman, he might have been made still more respectable than he was. He might even have been made amiable himself.",
    ),
    (
        "consider.flac",
        "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them.",
    ),
    ("selfish.flac", "Unless to be rather cold-hearted and rather selfish is to be ill-disposed,"),
];

fn json(arguments: &[&str]) -> Vec<Value> {
    let (out, _) = run(&[&["transcribe", "--format", "json"], arguments].concat(), 0);
    out.lines().map(|line| serde_json::from_str(line).expect("a JSON object on each line")).collect()
}

#[test]
fn bundled_recordings_have_their_golden_transcripts() {
    let values = json(&["tests/data/speech"]);
    assert_eq!(values.len(), GOLDEN.len());
    for (value, (file, text)) in values.iter().zip(GOLDEN) {
        assert_eq!(value["file"], format!("tests/data/speech/{file}"));
        assert_eq!(value["text"], text);
    }
}

#[test]
fn words_have_times_in_order_and_confidences() {
    for value in json(&["tests/data/speech"]) {
        let seconds = value["seconds"].as_f64().expect("a length");
        let mut last = 0.0;
        let mut heard = Vec::new();
        for segment in value["segments"].as_array().expect("segments") {
            assert!(!segment["tokens"].as_array().expect("tokens").is_empty());
            for word in segment["words"].as_array().expect("words") {
                let number = |field: &str| word[field].as_f64().expect("a number");
                assert!(last <= number("start") && number("start") < number("end"), "{word}");
                assert!((0.0..=1.0).contains(&number("confidence")), "{word}");
                last = number("start");
                assert!(number("end") <= seconds + 0.1, "{word} in {seconds} s");
                heard.push(word["word"].as_str().expect("a word").to_string());
            }
        }
        assert_eq!(value["text"], heard.join(" "));
    }
}

#[test]
fn text_names_recordings_only_where_there_are_several() {
    let (one, _) = run(&["transcribe", "tests/data/speech/selfish.flac"], 0);
    assert_eq!(one, format!("{}\n", GOLDEN[2].1));
    let (two, _) =
        run(&["transcribe", "tests/data/speech/selfish.flac", "tests/data/speech/consider.flac"], 0);
    assert_eq!(
        two,
        format!(
            "==> tests/data/speech/selfish.flac <==\n{}\n\n==> tests/data/speech/consider.flac <==\n{}\n",
            GOLDEN[2].1, GOLDEN[1].1
        )
    );
}

#[test]
fn compressed_copies_are_heard() {
    for (file, needed) in [("selfish.mp3", "rather selfish"), ("selfish.ogg", "rather selfish")] {
        let (out, err) = run(&["transcribe", &format!("tests/data/audio/{file}")], 0);
        assert!(out.contains(needed) && err.is_empty(), "{file}: {out}{err}");
    }
}

#[test]
fn any_rate_and_any_number_of_channels_is_heard() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    let samples = recording("selfish.flac");
    let halved: Vec<f32> = samples.chunks(2).map(|pair| pair.iter().sum::<f32>() / 2.0).collect();
    let folder = Folder::new();
    let files = [
        folder.write("8000.wav", &wav(8_000, 1, &halved)),
        folder.write("48000.wav", &wav(48_000, 2, &stretch(&samples, 3))),
        folder.write("192000.wav", &wav(192_000, 1, &stretch(&samples, 12))),
        folder.write("channels.wav", &wav(16_000, 8, &samples)),
    ];
    for file in files {
        let (out, err) = run(&["transcribe", &file], 0);
        assert!(out.contains("rather selfish") && err.is_empty(), "{file}: {out}{err}");
    }
}

#[test]
fn standard_input_is_a_recording() {
    let file = std::fs::File::open("tests/data/speech/selfish.flac").expect("bundled");
    let output = kinglet().args(["transcribe", "-"]).stdin(file).output().expect("it starts");
    let (out, err) = common::check(output, &["transcribe", "-"], 0);
    assert_eq!((out, err), (format!("{}\n", GOLDEN[2].1), String::new()));
}

#[test]
fn threads_change_nothing_but_the_time() {
    if slow() {
        return eprintln!("skipped: under emulation");
    }
    // Forty seconds with pauses, so that one recording has several segments.
    let mut samples = Vec::new();
    for name in ["consider.flac", "selfish.flac", "amiable.wav", "consider.flac"] {
        samples.extend(recording(name));
        samples.extend([0.0; 32_000]);
    }
    let folder = Folder::new();
    let long = folder.write("long.wav", &wav(16_000, 1, &samples));
    let one = json(&["--threads", "1", &long, "tests/data/speech", "tests/data/audio/selfish.mp3"]);
    assert!(one[0]["segments"].as_array().expect("segments").len() >= 3, "{}", one[0]);
    for threads in ["2", "5", "0"] {
        assert_eq!(
            json(&["--threads", threads, &long, "tests/data/speech", "tests/data/audio/selfish.mp3"]),
            one
        );
    }
}

#[test]
fn subtitles_have_cues_in_order() {
    let (srt, _) = run(&["transcribe", "--format", "srt", "tests/data/speech/amiable.wav"], 0);
    let cues: Vec<&str> = srt.trim_end().split("\n\n").collect();
    assert!(cues.len() >= 2, "{srt}");
    let mut last = 0;
    for (index, cue) in cues.iter().enumerate() {
        let mut lines = cue.lines();
        assert_eq!(lines.next(), Some((index + 1).to_string().as_str()));
        let (start, end) = lines.next().and_then(|line| line.split_once(" --> ")).expect("times");
        let (start, end) = (milliseconds(start, ','), milliseconds(end, ','));
        assert!(last <= start && start < end, "{cue}");
        last = end;
        assert!((1..=2).contains(&lines.count()), "{cue}");
    }
    let (vtt, _) = run(&["transcribe", "--words", "--format", "vtt", "tests/data/speech/selfish.flac"], 0);
    let cues: Vec<&str> = vtt.trim_end().split("\n\n").collect();
    assert_eq!(cues[0], "WEBVTT");
    assert_eq!(cues.len() - 1, GOLDEN[2].1.split(' ').count());
    let (start, _) = cues[1].split_once(" --> ").expect("times");
    milliseconds(start, '.');
}

/// `HH:MM:SS,mmm`, strictly.
fn milliseconds(time: &str, point: char) -> u64 {
    let (clock, rest) = time.split_once(point).expect("a point");
    let fields: Vec<u64> = clock.split(':').map(|field| field.parse().expect("a number")).collect();
    assert!(fields.len() == 3 && clock.len() == 8 && rest.len() == 3, "{time}");
    (fields[0] * 3600 + fields[1] * 60 + fields[2]) * 1000 + rest.parse::<u64>().expect("a number")
}

#[test]
fn each_recording_gets_its_file_and_nothing_else_is_left() {
    let folder = Folder::new();
    let (out, err) = run(&["transcribe", "-o", &folder.path(""), "tests/data/speech"], 0);
    assert!(out.is_empty() && err.is_empty(), "{out}{err}");
    assert_eq!(folder.names(), ["amiable.txt", "consider.txt", "selfish.txt"]);
    assert_eq!(
        std::fs::read_to_string(folder.path("selfish.txt")).expect("written"),
        format!("{}\n", GOLDEN[2].1)
    );
}

#[test]
fn read_model_beam_and_mapped_model_agree_with_the_built_in_one() {
    for options in [&["--model", "models/en.kgl"][..], &["--model", "models/en.kgl", "--no-mmap"]] {
        let (out, _) = run(&[&["transcribe", "tests/data/speech/selfish.flac"], options].concat(), 0);
        assert_eq!(out, format!("{}\n", GOLDEN[2].1), "{options:?}");
    }
    let (out, _) = run(&["transcribe", "--beam", "4", "tests/data/speech/selfish.flac"], 0);
    assert!(out.contains("rather selfish"), "{out}");
}
