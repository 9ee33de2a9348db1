//! Depthwise convolution over time against f64, whole, in ranges and step by step.

use std::vec;
use std::vec::Vec;

use kinglet_model_format::FloatMatrix;

use super::{Random, bits, every, same_bits};
use crate::{KernelError, Kernels, Rows, TimeConvolution, time_ring};

/// Taps, taps before the frame, channels, frames: among them fewer frames than taps, and tiles of every length.
const SHAPES: [(usize, usize, usize, usize); 12] = [
    (1, 0, 1, 1),
    (1, 0, 16, 30),
    (2, 1, 33, 3),
    (3, 1, 15, 7),
    (11, 5, 288, 31),
    (11, 10, 320, 29),
    (11, 0, 17, 64),
    (11, 5, 48, 4),
    (15, 3, 32, 14),
    (21, 10, 31, 52),
    (4, 3, 20, 40),
    (31, 30, 16, 9),
];

/// Floats, with room behind each row.
struct Case {
    shape: (usize, usize, usize, usize),
    weights: Vec<f32>,
    source: Vec<f32>,
    stride: usize,
    before: Vec<f32>,
}

impl Case {
    fn new(shape: (usize, usize, usize, usize)) -> Self {
        let (taps, left, channels, frames) = shape;
        let mut random = Random((taps * 100 + left * 10 + channels + frames) as u64);
        let padded = channels.next_multiple_of(16);
        // What stands in the padding of the weights must not matter.
        let weights = (0..taps * padded)
            .map(|index| if index % padded < channels { random.float() } else { f32::NAN })
            .collect();
        let stride = channels + 3;
        let source = random.floats((frames - 1) * stride + channels);
        Self { shape, weights, source, stride, before: random.floats(frames * (channels + 1)) }
    }

    fn convolution(&self, add_input: bool, add_to_out: bool) -> TimeConvolution<'_> {
        let (taps, left, channels, _) = self.shape;
        let weights = FloatMatrix::new(channels, taps, &self.weights).unwrap();
        TimeConvolution { weights, left, add_input, add_to_out }
    }

    fn rows(&self) -> Rows<'_> {
        Rows { values: &self.source, stride: self.stride }
    }

    /// All frames, in rows with one more float that must stay.
    fn whole(&self, kernels: Kernels, convolution: &TimeConvolution<'_>) -> Vec<f32> {
        let (_, _, channels, frames) = self.shape;
        let mut out = self.before.clone();
        let result =
            kernels.convolve_time(convolution, self.rows(), frames, 0..frames, &mut out, channels + 1);
        assert_eq!(result, Ok(()));
        out
    }
}

const OPTIONS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

#[test]
fn matches_f64_with_the_same_bits_everywhere() {
    for shape in SHAPES {
        let case = Case::new(shape);
        let (taps, left, channels, frames) = shape;
        for (add_input, add_to_out) in OPTIONS {
            let convolution = case.convolution(add_input, add_to_out);
            same_bits("convolve_time", |kernels| case.whole(kernels, &convolution));
            let out = case.whole(Kernels::detect(), &convolution);
            for (frame, (row, before)) in
                out.chunks_exact(channels + 1).zip(case.before.chunks_exact(channels + 1)).enumerate()
            {
                for channel in 0..channels {
                    let input = |frame: usize| f64::from(case.source[frame * case.stride + channel]);
                    let mut expected = if add_input { input(frame) } else { 0.0 };
                    expected += if add_to_out { f64::from(before[channel]) } else { 0.0 };
                    for tap in 0..taps {
                        let at = (frame + tap).checked_sub(left).filter(|at| *at < frames);
                        let weight = case.weights[tap * channels.next_multiple_of(16) + channel];
                        expected += at.map_or(0.0, input) * f64::from(weight);
                    }
                    let given = f64::from(row[channel]);
                    assert!(
                        (given - expected).abs() < 1e-5,
                        "{shape:?} {frame} {channel}: {given} {expected}"
                    );
                }
                assert_eq!(row[channels], before[channels], "{shape:?}: written beyond the row");
            }
        }
    }
}

#[test]
fn a_range_equals_the_whole() {
    let kernels_found = every();
    for shape in SHAPES {
        let case = Case::new(shape);
        let (_, _, channels, frames) = shape;
        let convolution = case.convolution(true, true);
        for &kernels in &kernels_found {
            let whole = case.whole(kernels, &convolution);
            for range in [0..frames, 0..frames / 2, frames / 3..frames, frames / 2..frames / 2, 0..1] {
                let place = range.start * (channels + 1)..range.end * (channels + 1);
                let mut out = case.before[place.clone()].to_vec();
                let result =
                    kernels.convolve_time(&convolution, case.rows(), frames, range, &mut out, channels + 1);
                assert_eq!(result, Ok(()));
                assert_eq!(bits(&out), bits(&whole[place]), "{shape:?}");
            }
        }
    }
}

#[test]
fn steps_equal_the_whole() {
    let kernels_found = every();
    for shape in SHAPES {
        let mut case = Case::new(shape);
        case.shape.1 = shape.0 - 1;
        let (taps, _, channels, _) = shape;
        for (add_input, add_to_out) in OPTIONS {
            let convolution = case.convolution(add_input, add_to_out);
            for &kernels in &kernels_found {
                let whole = case.whole(kernels, &convolution);
                let mut ring = vec![f32::NAN; time_ring(taps, channels)];
                let mut out = case.before.clone();
                let frames = case.source.chunks(case.stride).zip(out.chunks_exact_mut(channels + 1));
                for (count, (frame, out)) in frames.enumerate() {
                    let result = kernels.convolve_time_step(&convolution, &mut ring, count, frame, out);
                    assert_eq!(result, Ok(()));
                }
                assert_eq!(bits(&out), bits(&whole), "{shape:?}, {}", kernels.instruction_set());
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new((3, 1, 20, 6));
    let convolution = case.convolution(false, false);
    let causal = TimeConvolution { left: 2, ..convolution };
    let late = TimeConvolution { left: 3, ..convolution };
    let mut out = vec![0.0; 6 * 20];
    for kernels in every() {
        let mut whole = |convolution, frames, range, length, stride| -> Result<(), KernelError> {
            kernels.convolve_time(convolution, case.rows(), frames, range, &mut out[..length], stride)
        };
        assert_eq!(whole(&convolution, 6, 0..6, 120, 20), Ok(()));
        let left = KernelError::OutOfRange { name: "left", given: 3, least: 0, most: 2 };
        assert_eq!(whole(&late, 6, 0..6, 120, 20), Err(left));
        let short = KernelError::TooShort { name: "source", needed: 6 * 23 + 20, given: 5 * 23 + 20 };
        assert_eq!(whole(&convolution, 7, 0..6, 120, 20), Err(short));
        let end = KernelError::OutOfRange { name: "range end", given: 7, least: 0, most: 6 };
        assert_eq!(whole(&convolution, 6, 0..7, 120, 20), Err(end));
        #[expect(clippy::reversed_empty_ranges, reason = "it is to be refused")]
        let backwards = whole(&convolution, 6, 4..3, 120, 20);
        let start = KernelError::OutOfRange { name: "range start", given: 4, least: 0, most: 3 };
        assert_eq!(backwards, Err(start));
        let short = KernelError::TooShort { name: "out", needed: 120, given: 119 };
        assert_eq!(whole(&convolution, 6, 0..6, 119, 20), Err(short));
        assert_eq!(
            whole(&convolution, 6, 0..6, 120, 19),
            Err(KernelError::Stride { outputs: 20, stride: 19 })
        );
        assert_eq!(whole(&convolution, usize::MAX, 0..6, 120, 20), Err(KernelError::TooLarge));

        let mut ring = [0.0; 40];
        let mut step = |convolution, ring_length, frame: usize, out: usize| {
            let (ring, mut place) = (&mut ring[..ring_length], [0.0; 20]);
            kernels.convolve_time_step(convolution, ring, 5, &case.source[..frame], &mut place[..out])
        };
        assert_eq!(step(&causal, 40, 20, 20), Ok(()));
        let left = KernelError::OutOfRange { name: "left", given: 1, least: 2, most: 2 };
        assert_eq!(step(&convolution, 40, 20, 20), Err(left));
        let short = |name, needed, given| Err(KernelError::TooShort { name, needed, given });
        assert_eq!(step(&causal, 39, 20, 20), short("ring", 40, 39));
        assert_eq!(step(&causal, 40, 19, 20), short("frame", 20, 19));
        assert_eq!(step(&causal, 40, 20, 19), short("out", 20, 19));
    }
    // Rows that all start at one place may be more than fit into memory.
    let still = Rows { values: &case.source, stride: 0 };
    let last = usize::MAX - 2..usize::MAX;
    assert_eq!(Kernels::detect().convolve_time(&convolution, still, usize::MAX, last, &mut out, 20), Ok(()));
}
