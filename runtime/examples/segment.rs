//! Prints the segments of a recording: `segment [--frames] [--repeat N] FILE`, FILE being raw 16 kHz mono f32, little-endian.
//!
//! With `--frames` it prints score, level and verdict of every frame instead; with `--repeat` it does the work N times and prints only
//! the last result, so that the time or the instructions of one pass can be told from the cost of starting.

use std::{env, error::Error, fs};

use kinglet_runtime::{FRAME_SAMPLES, Segmenter, SegmenterConfig, VoiceActivity};

fn main() -> Result<(), Box<dyn Error>> {
    let mut frames = false;
    let mut repeat = 1;
    let mut path = None;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--frames" => frames = true,
            "--repeat" => repeat = arguments.next().ok_or("--repeat needs a number")?.parse()?,
            _ => path = Some(argument),
        }
    }
    let bytes = fs::read(path.ok_or("usage: segment [--frames] [--repeat N] FILE")?)?;
    let samples: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    if frames {
        print_frames(&samples);
        return Ok(());
    }
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    let mut segments = Vec::new();
    for _ in 0..repeat {
        segments.clear();
        let mut rest = samples.as_slice();
        while !rest.is_empty() {
            let pushed = segmenter.push(rest);
            segments.extend(pushed.segment);
            rest = &rest[pushed.accepted..];
        }
        while let Some(segment) = segmenter.finish() {
            segments.push(segment);
        }
    }
    for segment in segments {
        println!("{} {}", segment.start_sample, segment.end_sample);
    }
    Ok(())
}

fn print_frames(samples: &[f32]) {
    let mut activity = VoiceActivity::new();
    for frame in samples.as_chunks::<FRAME_SAMPLES>().0 {
        let activity = activity.push(frame);
        println!(
            "{:08x} {:08x} {}",
            activity.score.to_bits(),
            activity.level.to_bits(),
            u8::from(activity.voiced)
        );
    }
}
