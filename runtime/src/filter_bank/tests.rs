//! Against kaldi-native-fbank and FunASR, whose values `training/filter_bank.py` recorded, and against plain sums.

use super::spectrum::{Complex, POINTS, Rotations, SAMPLES, SPECTRUM, TABLE};
use super::*;
use crate::tests::parity::fixture;
use kinglet_model_format::Window;
use safetensors::SafeTensors;
use std::vec;
use std::vec::Vec;

const MELS: usize = 80;

struct Expected(Vec<u8>);

impl Expected {
    fn open() -> Self {
        let path = fixture("filter_bank").join("expected.safetensors");
        Self(std::fs::read(path).expect("expected values"))
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let view = SafeTensors::deserialize(&self.0).expect("a safetensors file");
        let (chunks, rest) = view.tensor(name).expect("the tensor").data().as_chunks::<N>();
        assert!(rest.is_empty());
        chunks.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }

    fn audio(&self) -> Vec<i16> {
        self.bytes("audio").into_iter().map(i16::from_le_bytes).collect()
    }
}

/// A filter bank as FunASR's and Kaldi's, `stacked` frames every `stride`.
fn bank<'a>(
    stacked: usize,
    stride: usize,
    window: Window,
    shift: &'a [f32],
    scale: &'a [f32],
) -> FilterBank<'a> {
    let config = FilterBankConfig { mels: MELS, frame_length: 400, frame_shift: 160, stacked, stride };
    FilterBank { config, window, pre_emphasis: 0.97, low_hz: 20, high_hz: 8000, shift, scale }
}

/// Memory for a bank, its tables filled.
fn with_buffers<T>(bank: &FilterBank<'_>, act: impl FnOnce(&mut FilterBankBuffers<'_>) -> T) -> T {
    let sizes = Some(bank.config);
    // Whatever was there before must not matter.
    let mut memory = vec![0xa5; FilterBankBuffers::bytes(&sizes) as usize + 64];
    let start = memory.as_ptr().align_offset(64);
    let mut buffers = FilterBankBuffers::carve(&mut memory[start..], &sizes).expect("room");
    buffers.fill_tables(bank);
    act(&mut buffers)
}

fn whole(bank: &FilterBank<'_>, samples: &[i16]) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows(&bank.config, samples.len()) * bank.config.width()];
    let count = with_buffers(bank, |buffers| run(bank, buffers, samples, &mut out)).expect("rows");
    assert_eq!(count, rows(&bank.config, samples.len()));
    out
}

fn largest_difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn log_energies_are_kaldis() {
    let expected = Expected::open();
    for (window, name) in [(Window::Hamming, "hamming"), (Window::Povey, "povey")] {
        let bank = bank(1, 1, window, &[0.0; MELS], &[1.0; MELS]);
        let difference = largest_difference(&whole(&bank, &expected.audio()), &expected.floats(name));
        assert!(difference <= 1e-3, "{name}: {difference}");
        std::println!("{name}: largest difference {difference:.1e}");
    }
}

#[test]
fn rows_are_funasrs() {
    let expected = Expected::open();
    let (shift, scale) = (expected.floats("shift"), expected.floats("scale"));
    let bank = bank(7, 6, Window::Hamming, &shift, &scale);
    let difference = largest_difference(&whole(&bank, &expected.audio()), &expected.floats("rows"));
    // 1e-3 of a log energy, times a scale of at most 0.4.
    assert!(difference <= 4e-4, "{difference}");
    std::println!("rows: largest difference {difference:.1e}");
}

#[test]
fn pieces_make_no_difference() {
    let audio = Expected::open().audio();
    for (stacked, stride) in [(7, 6), (1, 1), (5, 2), (2, 9), (16, 1)] {
        let width = MELS * stacked;
        let (shift, scale) = (vec![0.5; width], vec![2.0; width]);
        let bank = bank(stacked, stride, Window::Povey, &shift, &scale);
        for length in [0, 1, 399, 400, 401, 560, 2_000, audio.len()] {
            let audio = &audio[..length];
            let want = whole(&bank, audio);
            assert!(want.iter().all(|value| value.is_finite()));
            for piece in [1, 77, 160, 1_000] {
                let got = with_buffers(&bank, |buffers| {
                    let (mut stream, mut row, mut got) = (Stream::default(), vec![0.0; width], Vec::new());
                    for piece in audio.chunks(piece) {
                        let mut rest = piece;
                        while !rest.is_empty() {
                            let pushed = stream.push(&bank, buffers, rest, &mut row).expect("a piece");
                            got.extend_from_slice(&row[..pushed.rows * width]);
                            rest = &rest[pushed.samples..];
                        }
                    }
                    while stream.finish(&bank, buffers, &mut row).expect("the end") > 0 {
                        got.extend_from_slice(&row);
                    }
                    got
                });
                assert!(got == want, "{stacked} {stride} {length} {piece}");
            }
        }
    }
}

#[test]
fn silence_and_noise_are_finite() {
    let bank = bank(1, 1, Window::Hamming, &[0.0; MELS], &[1.0; MELS]);
    for sample in [0, 1, i16::MIN, i16::MAX] {
        // A constant has no energy once its mean is off.
        let floor = f32::EPSILON.ln();
        assert!(
            whole(&bank, &[sample; 800]).iter().all(|&value| (floor - 1e-5..0.0).contains(&value)),
            "{sample}"
        );
    }
    let loud: Vec<i16> = (0..800).map(|t| if t * 7 % 13 < 6 { i16::MIN } else { i16::MAX }).collect();
    assert!(whole(&bank, &loud).iter().all(|value| value.is_finite()));
}

#[test]
fn the_spectrum_is_the_sum_of_its_definition() {
    let samples: Vec<f32> = (0..SAMPLES).map(|t| ((t * t * 31 + t * 7) % 997) as f32 - 498.0).collect();
    let (mut data, mut spare) = ([0.0; SAMPLES], [0.0; SAMPLES]);
    frame::pair_up(&samples, &mut data);
    let (mut cosines, mut sines, mut power) = ([0.0; TABLE], [0.0; TABLE], [0.0; SPECTRUM]);
    spectrum::fill(&mut cosines, &mut sines);
    let rotations = Rotations::new(&cosines, &sines).expect("tables");
    let (data, spare) = (Complex::new(&mut data).expect("room"), Complex::new(&mut spare).expect("room"));
    spectrum::power(rotations, data, spare, &mut power);
    let total: f64 = samples.iter().map(|&x| f64::from(x).powi(2)).sum();
    for (k, &got) in power.iter().enumerate().take(POINTS) {
        let angle = |t: usize| std::f64::consts::TAU * ((k * t) % SAMPLES) as f64 / SAMPLES as f64;
        let sum = |part: fn(f64) -> f64| -> f64 {
            samples.iter().enumerate().map(|(t, &x)| f64::from(x) * part(angle(t))).sum()
        };
        let want = sum(f64::cos).powi(2) + sum(f64::sin).powi(2);
        assert!((f64::from(got) - want).abs() < 1e-6 * total, "{k}: {got} {want}");
    }
}
