//! Segmentation of real recordings, decoded as the command line does.

use std::path::{Path, PathBuf};

use kinglet::audio::{AudioReader, Input, find_inputs};
use kinglet_runtime::{Segment, Segmenter, SegmenterConfig};

/// Folders with clips of one utterance each: the bundled ones, and more beside the project.
const FOLDERS: [&str; 2] = ["tests/data/speech", "../shared/speech/dev"];
const MOST_CLIPS: usize = 10;

fn clips() -> Vec<(PathBuf, Vec<f32>)> {
    let mut clips = Vec::new();
    for folder in FOLDERS.map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
        let Ok(inputs) = find_inputs(&folder) else { continue };
        for input in inputs.into_iter().take(MOST_CLIPS) {
            let mut reader = AudioReader::open(&input).expect("a clip can be read");
            let mut samples = Vec::new();
            while let Some(chunk) = reader.next_chunk().expect("a clip can be decoded") {
                samples.extend_from_slice(chunk);
            }
            if let Input::File { path, .. } = input {
                clips.push((path, samples));
            }
        }
    }
    if clips.is_empty() {
        println!("skipped: no speech data");
    }
    clips
}

fn segments(samples: &[f32], chunk: usize) -> Vec<Segment> {
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    let mut segments = Vec::new();
    for mut chunk in samples.chunks(chunk) {
        while !chunk.is_empty() {
            let pushed = segmenter.push(chunk);
            segments.extend(pushed.segment);
            chunk = &chunk[pushed.accepted..];
        }
    }
    while let Some(segment) = segmenter.finish() {
        segments.push(segment);
    }
    segments
}

/// How much of the energy lies in the segments.
fn energy_kept(samples: &[f32], segments: &[Segment]) -> f64 {
    let energy = |samples: &[f32]| samples.iter().map(|&sample| f64::from(sample).powi(2)).sum::<f64>();
    let kept = segments
        .iter()
        .map(|segment| energy(&samples[segment.start_sample as usize..segment.end_sample as usize]));
    kept.sum::<f64>() / energy(samples)
}

#[test]
fn clips_are_found_whole_whatever_the_chunks() {
    for (path, samples) in clips() {
        let found = segments(&samples, samples.len());
        assert!(!found.is_empty(), "{}", path.display());
        assert!(energy_kept(&samples, &found) > 0.99, "{}: {found:?}", path.display());
        for chunk in [7, 160, 1000] {
            assert_eq!(segments(&samples, chunk), found, "{} in chunks of {chunk}", path.display());
        }
    }
}

#[test]
fn clips_with_pauses_between_them_come_apart() {
    let clips = clips();
    let mut joined = Vec::new();
    for (_, samples) in &clips {
        joined.extend_from_slice(samples);
        joined.extend(std::iter::repeat_n(0.0, 24_000));
    }
    let found = segments(&joined, 1600);
    assert!(found.len() >= clips.len(), "{} segments of {} clips", found.len(), clips.len());
    assert!(found.iter().all(|segment| segment.end_sample - segment.start_sample <= 30 * 16_000));
    assert!(clips.is_empty() || energy_kept(&joined, &found) > 0.99);
}
