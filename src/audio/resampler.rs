//! Any sample rate to 16 kHz.

use kinglet_runtime::SAMPLE_RATE;
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, FixedAsync, Indexing, Resampler as _, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

/// Input frames that the filter takes at a time.
const CHUNK_FRAMES: usize = 1024;

/// Length of the low-pass filter in samples of the slower of both rates: it passes 7.2 kHz whole and is 70 dB down at 8.8 kHz.
const FILTER_SAMPLES: usize = 64;

/// Rates below carry no speech; rates above are a damaged header rather than a recording.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// A sample rate that no recording of speech has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has a sample rate of {0} Hz; rates from 1 to 768 kHz can be read")]
pub struct UnsupportedRate(pub u32);

/// A streaming low-pass resampler of one channel. At 16 kHz samples pass through untouched.
pub struct Resampler {
    filter: Option<Filter>,
}

struct Filter {
    sinc: Async<f32>,
    input_rate: u32,
    /// Input that does not fill a chunk yet.
    pending: Vec<f32>,
    /// Output of one chunk.
    scratch: Vec<f32>,
    /// Output frames still to drop, because the filter looks ahead by half its length.
    delay_left: usize,
    consumed: u64,
    produced: u64,
}

impl Resampler {
    /// A resampler from `input_rate` Hz to 16 kHz.
    pub fn new(input_rate: u32) -> Result<Self, UnsupportedRate> {
        if input_rate == SAMPLE_RATE {
            return Ok(Self { filter: None });
        }
        if !RATES.contains(&input_rate) {
            return Err(UnsupportedRate(input_rate));
        }
        let ratio = f64::from(SAMPLE_RATE) / f64::from(input_rate);
        // rubato counts the filter in input samples, so a faster input needs a longer filter for the same sharpness.
        let length = (FILTER_SAMPLES as f64 / ratio.min(1.0)).ceil() as usize;
        let length = length.next_multiple_of(8);
        let parameters = SincInterpolationParameters::new(length, WindowFunction::Blackman2)
            .interpolation(SincInterpolationType::Linear)
            .oversampling_factor(128);
        let sinc = Async::new_sinc(ratio, 1.0, &parameters, CHUNK_FRAMES, 1, FixedAsync::Input)
            .map_err(|_| UnsupportedRate(input_rate))?;
        Ok(Self {
            filter: Some(Filter {
                input_rate,
                pending: Vec::with_capacity(CHUNK_FRAMES),
                scratch: vec![0.0; sinc.output_frames_max()],
                // rubato's first output lies one output sample after the centre of the filter meets the first input.
                delay_left: ((length / 2) as f64 * ratio).round() as usize - 1,
                consumed: 0,
                produced: 0,
                sinc,
            }),
        })
    }

    /// Takes `samples` at the input rate and appends what is ready at 16 kHz to `output`.
    pub fn push(&mut self, samples: &[f32], output: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else {
            output.extend_from_slice(samples);
            return;
        };
        filter.consumed += samples.len() as u64;
        let mut rest = samples;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(CHUNK_FRAMES - filter.pending.len()));
            filter.pending.extend_from_slice(head);
            rest = tail;
            if filter.pending.len() == CHUNK_FRAMES {
                filter.run(output);
            }
        }
    }

    /// Appends the rest, so that input and output last equally long.
    pub fn finish(&mut self, output: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else { return };
        let expected = (filter.consumed * u64::from(SAMPLE_RATE)).div_ceil(u64::from(filter.input_rate));
        while filter.produced < expected {
            let before = filter.produced;
            filter.run(output);
            if filter.produced > expected {
                output.truncate(output.len() - (filter.produced - expected) as usize);
                filter.produced = expected;
            }
            if filter.produced == before && filter.delay_left == 0 {
                break;
            }
        }
    }
}

impl Filter {
    /// Filters one chunk; what `pending` lacks of it is silence.
    fn run(&mut self, output: &mut Vec<f32>) {
        let frames = self.pending.len();
        self.pending.resize(CHUNK_FRAMES, 0.0);
        let capacity = self.scratch.len();
        let (Ok(input), Ok(mut result)) = (
            SequentialSlice::new(&self.pending, 1, CHUNK_FRAMES),
            SequentialSlice::new_mut(&mut self.scratch, 1, capacity),
        ) else {
            return;
        };
        let partial = Indexing::new().partial_len(frames);
        // The buffers have the sizes that the filter asked for, so it cannot refuse them.
        let written =
            self.sinc.process_into_buffer(&input, &mut result, Some(&partial)).map_or(0, |(_, n)| n);
        self.pending.clear();
        let skipped = written.min(self.delay_left);
        self.delay_left -= skipped;
        // A steep edge overshoots in any low-pass filter; the recogniser is promised [-1, 1].
        output.extend(self.scratch.iter().take(written).skip(skipped).map(|sample| sample.clamp(-1.0, 1.0)));
        self.produced += (written - skipped) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    fn sine(rate: u32, hertz: f32, seconds: f32) -> Vec<f32> {
        let count = (rate as f32 * seconds) as usize;
        (0..count).map(|index| 0.5 * (TAU * hertz * index as f32 / rate as f32).sin()).collect()
    }

    fn resample(rate: u32, samples: &[f32], chunk: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate).expect("a usual rate");
        let mut output = Vec::new();
        for piece in samples.chunks(chunk) {
            resampler.push(piece, &mut output);
        }
        resampler.finish(&mut output);
        output
    }

    fn level(samples: &[f32]) -> f32 {
        (samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn speech_frequencies_keep_their_level_and_phase() {
        for rate in [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000] {
            let output = resample(rate, &sine(rate, 1_000.0, 1.0), 700);
            let expected = sine(SAMPLE_RATE, 1_000.0, 1.0);
            assert_eq!(output.len(), expected.len(), "{rate} Hz");
            let middle = 1_000..15_000;
            let error: Vec<f32> = middle.map(|index| output[index] - expected[index]).collect();
            // Half a sample of delay, 31 microseconds, is what a ratio that is not whole may cost.
            assert!(level(&error) < 0.07, "{rate} Hz: error {}", level(&error));
        }
    }

    #[test]
    fn what_16_khz_cannot_carry_is_removed() {
        for rate in [44_100, 48_000, 192_000] {
            let output = resample(rate, &sine(rate, 9_500.0, 1.0), 4_096);
            assert!(level(&output[1_000..15_000]) < 0.001, "{rate} Hz: {}", level(&output[1_000..15_000]));
        }
    }

    #[test]
    fn the_size_of_the_pieces_changes_nothing() {
        let samples = sine(44_100, 440.0, 0.3);
        let whole = resample(44_100, &samples, samples.len());
        for chunk in [1, 37, 1_024, 1_025] {
            assert_eq!(resample(44_100, &samples, chunk), whole, "pieces of {chunk}");
        }
    }

    #[test]
    fn short_input_lasts_as_long_as_it_should() {
        assert_eq!(resample(8_000, &[], 1).len(), 0);
        assert_eq!(resample(8_000, &[0.5], 1).len(), 2);
        assert_eq!(resample(192_000, &[0.5], 1).len(), 1);
        assert_eq!(resample(16_000, &[0.5], 1), [0.5]);
    }

    #[test]
    fn impossible_rates_are_refused() {
        for rate in [0, 1, 999, 768_001, u32::MAX] {
            assert_eq!(Resampler::new(rate).err(), Some(UnsupportedRate(rate)));
        }
    }
}
