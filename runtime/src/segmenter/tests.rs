extern crate std;

use std::{vec, vec::Vec};

use super::*;

const RATE: usize = crate::SAMPLE_RATE as usize;

/// Something that both opinions take for a voice: harmonics of a wandering pitch, in syllables of a quarter second.
fn voice(seconds: f32) -> Vec<f32> {
    let mut phase = 0.0_f32;
    let samples = 0..(seconds * RATE as f32) as usize;
    samples
        .map(|index| {
            let time = index as f32 / RATE as f32;
            phase += (140.0 + 25.0 * libm::sinf(time * 7.0)) / RATE as f32;
            phase -= libm::floorf(phase);
            let tone: f32 = (1..20)
                .map(|harmonic| {
                    libm::sinf(core::f32::consts::TAU * phase * harmonic as f32) / harmonic as f32
                })
                .sum();
            let syllable = libm::sinf(core::f32::consts::PI * (time * 4.0 - libm::floorf(time * 4.0)));
            0.1 * tone * syllable
        })
        .collect()
}

fn noise(seconds: f32, amplitude: f32) -> Vec<f32> {
    let mut state = 1_u32;
    let samples = 0..(seconds * RATE as f32) as usize;
    samples
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            amplitude * ((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
        })
        .collect()
}

/// Speech with pauses of several lengths in faint noise.
fn conversation() -> Vec<f32> {
    let mut samples = Vec::new();
    for (speech, pause) in
        [(3.0, 2.0), (6.3, 0.6), (10.0, 0.6), (4.1, 0.3), (7.7, 1.3), (1.0, 3.0), (33.0, 0.7)]
    {
        samples.extend(voice(speech));
        samples.extend(vec![0.0; (pause * RATE as f32) as usize]);
    }
    let faint = noise(samples.len() as f32 / RATE as f32, 1e-4);
    samples.iter().zip(faint).map(|(sample, noise)| sample + noise).collect()
}

/// Pushes everything in chunks, checking at every step what the documentation promises a caller who keeps the audio.
fn run(segmenter: &mut Segmenter, samples: &[f32], chunk: usize) -> Vec<Segment> {
    // A recording begins wherever the segmenter is put: at 0, but for one test.
    let begin = if segmenter.recording_end.is_some() { 0 } else { segmenter.position() };
    let buffer = segmenter.buffer_samples() as u64;
    let mut segments = Vec::new();
    let mut kept_from = begin.min(segmenter.keep_from());
    for chunk in samples.chunks(chunk) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let pushed = segmenter.push(rest);
            rest = &rest[pushed.accepted..];
            assert!(pushed.segment.is_some() || rest.is_empty());
            assert!(segmenter.position() - segmenter.keep_from() <= buffer);
            if let Some(segment) = pushed.segment {
                assert!(segmenter.position() - segment.start_sample <= buffer);
                assert!(segment.start_sample >= kept_from && segment.end_sample <= segmenter.position());
                segments.push(segment);
            }
            assert!(segmenter.keep_from() >= kept_from);
            kept_from = segmenter.keep_from();
        }
    }
    assert_eq!(segmenter.position() - begin, samples.len() as u64);
    while let Some(segment) = segmenter.finish() {
        assert!(segment.start_sample >= kept_from && segment.end_sample <= begin + samples.len() as u64);
        segments.push(segment);
    }
    let limit = segmenter.rules.max_utterance * FRAME_SAMPLES as u64;
    for segment in &segments {
        assert!(segment.end_sample > segment.start_sample);
        assert!(segment.end_sample - segment.start_sample <= limit);
    }
    assert!(segments.windows(2).all(|pair| pair[0].end_sample <= pair[1].start_sample));
    segments
}

fn segments_of(samples: &[f32]) -> Vec<Segment> {
    run(&mut Segmenter::new(SegmenterConfig::default()), samples, 1600)
}

#[test]
fn chunks_make_no_difference() {
    let samples = conversation();
    let whole = run(&mut Segmenter::new(SegmenterConfig::default()), &samples, samples.len());
    assert!(whole.len() >= 5, "{whole:?}");
    for chunk in [1, 7, 160, 256, 1000] {
        assert_eq!(
            run(&mut Segmenter::new(SegmenterConfig::default()), &samples, chunk),
            whole,
            "chunks of {chunk}"
        );
    }
}

#[test]
fn a_segment_keeps_its_padding() {
    let mut samples = vec![0.0; 3 * RATE];
    samples.extend(voice(2.0));
    samples.extend(vec![0.0; 3 * RATE]);
    let segments = segments_of(&samples);
    let [segment] = segments[..] else { panic!("{segments:?}") };
    let seconds = |sample: u64| sample as f32 / RATE as f32;
    assert!((2.3..2.75).contains(&seconds(segment.start_sample)), "{segment:?}");
    assert!((5.3..5.75).contains(&seconds(segment.end_sample)), "{segment:?}");
}

#[test]
fn speech_up_to_the_edges_is_kept_whole() {
    let samples = voice(2.0);
    // A length that is no multiple of a frame, so that the last frame is filled up.
    let samples = &samples[..samples.len() - 100];
    let segments = segments_of(samples);
    let [segment] = segments[..] else { panic!("{segments:?}") };
    assert_eq!((segment.start_sample, segment.end_sample), (0, samples.len() as u64));
    assert!(
        segment.voiced_samples > segment.end_sample / 2 && segment.voiced_samples <= segment.end_sample,
        "{segment:?}"
    );
}

#[test]
fn short_pauses_do_not_cut_an_ordinary_utterance() {
    let mut samples = Vec::new();
    for _ in 0..5 {
        samples.extend(voice(2.0));
        samples.extend(vec![0.0; RATE * 7 / 10]);
    }
    assert_eq!(segments_of(&samples).len(), 1);
}

#[test]
fn what_is_not_speech_gives_no_segment() {
    let hum: Vec<f32> = (0..20 * RATE)
        .map(|index| 0.2 * libm::sinf(core::f32::consts::TAU * 50.0 * index as f32 / RATE as f32))
        .collect();
    let beginning = |amplitude| {
        let mut samples = vec![0.0; 3 * RATE];
        samples.extend(noise(8.0, amplitude));
        samples
    };
    for (name, samples) in [
        ("nothing", vec![]),
        ("one sample", vec![0.5]),
        ("silence", vec![0.0; 20 * RATE]),
        ("an offset", vec![0.3; 20 * RATE]),
        ("faint noise", noise(20.0, 0.002)),
        ("noise", noise(20.0, 0.02)),
        ("loud noise", noise(20.0, 0.3)),
        ("faint noise that begins", beginning(0.003)),
        ("noise that begins", beginning(0.03)),
        ("loud noise that begins", beginning(0.1)),
        ("hum", hum),
        ("no numbers", vec![f32::NAN; 5 * RATE]),
        ("infinity", vec![f32::INFINITY; 5 * RATE]),
    ] {
        assert_eq!(segments_of(&samples), [], "{name}");
    }
}

#[test]
fn the_longest_length_is_never_exceeded() {
    // No pauses at all: `run` checks the length of each segment.
    let samples = voice(70.0);
    for max_utterance in [2.0, 5.03, 30.0] {
        let mut segmenter = Segmenter::new(SegmenterConfig::for_utterances(max_utterance));
        let segments = run(&mut segmenter, &samples, 1000);
        assert_eq!(segments[0].start_sample, 0);
        assert_eq!(segments.last().unwrap().end_sample, samples.len() as u64);
        // Cut, not skipped: the next segment begins where the last one ended.
        assert!(segments.windows(2).all(|pair| pair[0].end_sample == pair[1].start_sample), "{segments:?}");
        assert!(segments.len() as f32 >= 70.0 / max_utterance);
    }
}

#[test]
fn a_cut_falls_into_the_quietest_moment() {
    let mut samples = voice(35.0);
    // A dip too short for any pause rule: the quietest moment of the last seconds before the limit.
    samples[27 * RATE..27 * RATE + RATE / 10].fill(0.0);
    let first = segments_of(&samples)[0].end_sample as usize;
    assert!((27 * RATE..27 * RATE + RATE / 10).contains(&first), "{first}");
}

#[test]
fn nonsense_rules_are_mended() {
    let samples = conversation();
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE] {
        let config = SegmenterConfig {
            padding_before: value,
            padding_after: value,
            endpoint_silence: value,
            long_utterance: value,
            long_silence: value,
            very_long_utterance: value,
            very_long_silence: value,
            max_utterance: if value.is_infinite() { 20.0 } else { value },
            cut_search: value,
            minimum_speech: value,
        };
        run(&mut Segmenter::new(config), &samples, 4096);
    }
}

#[test]
fn samples_that_are_no_numbers_do_no_lasting_harm() {
    let mut samples = vec![f32::NAN; RATE / 2];
    samples.extend([f32::INFINITY, f32::NEG_INFINITY, -f32::NAN, f32::MAX, f32::MIN]);
    let bad = samples.len() as u64;
    samples.extend(vec![0.0; 2 * RATE]);
    samples.extend(voice(3.0));
    let segments = segments_of(&samples);
    let [segment] = segments[..] else { panic!("{segments:?}") };
    assert!(segment.start_sample > bad);
    assert!(segment.end_sample - segment.start_sample > 3 * RATE as u64);
}

#[test]
fn positions_go_beyond_32_bits() {
    let samples = conversation();
    let expected = run(&mut Segmenter::new(SegmenterConfig::default()), &samples, 1600);
    // A day and a half of silence would lead here. Below, `run` lets positions count from the start of its own samples.
    let before = 1_u64 << 33;
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    segmenter.frames = before / FRAME_SAMPLES as u64;
    segmenter.earliest_start = segmenter.frames;
    let segments = run(&mut segmenter, &samples, 1600);
    let shifted = expected.iter().map(|segment| Segment {
        start_sample: segment.start_sample + before,
        end_sample: segment.end_sample + before,
        ..*segment
    });
    assert_eq!(segments, shifted.collect::<Vec<_>>());
}

#[test]
fn a_finished_segmenter_begins_anew() {
    let samples = conversation();
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    let first = run(&mut segmenter, &samples, 1600);
    assert_eq!(segmenter.position(), 0);
    assert_eq!(run(&mut segmenter, &samples, 1600), first);
    // Pushed in the middle of finishing: the old recording is over all the same.
    let _ = segmenter.push(&samples[..3 * RATE]);
    assert!(segmenter.finish().is_some());
    assert_eq!(run(&mut segmenter, &samples, 1600).len(), first.len());
}

#[test]
fn speech_and_silence_can_be_watched() {
    let mut segmenter = Segmenter::new(SegmenterConfig::default());
    assert!(!segmenter.in_speech());
    assert_eq!(segmenter.trailing_silence(), None);
    let _ = segmenter.push(&voice(2.0));
    assert!(segmenter.in_speech());
    let _ = segmenter.push(&vec![0.0; RATE / 2]);
    let silence = segmenter.trailing_silence().unwrap();
    assert!((0.2..0.55).contains(&silence), "{silence}");
    let pushed = segmenter.push(&vec![0.0; RATE]);
    assert!(pushed.segment.is_some() && pushed.accepted < RATE);
    assert!(!segmenter.in_speech());
}
