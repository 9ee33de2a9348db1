//! Samples to encoder frames: strided convolutions, each a matrix product over overlapping rows.
//!
//! The chain runs [`FRONTEND_FRAMES`] output frames at a time, so that the long, wide results in the middle never
//! exist whole. A group norm needs the mean and variance of all frames of its convolution: one extra pass up to
//! that convolution finds them. What this pass computes of the first one is kept where memory of later phases has room for it.

use crate::error::Error;
use crate::project::{Input, Rounding, part, part_mut, prefix, prefix_mut, result_rows};
use crate::region::buffers;
use crate::sizes::{FRONTEND_FRAMES, ROWS, Sizes, input_frames, output_frames};
use kinglet_kernels::{Kernels, Rows};
use kinglet_model_format::{Activation, Convolution, Model};

buffers! {
    /// Working memory of the frontend.
    FrontendBuffers(sizes: Sizes) phase "frontend" {
        /// Samples of one step.
        samples: [f32; sizes.step_samples],
        /// Results of the convolutions at even positions.
        even: [f32; sizes.convolution_even],
        /// Results of the convolutions at odd positions.
        odd: [f32; sizes.convolution_odd],
        /// `[2 ROWS, inputs]`, where a convolution splits rows.
        split: [f32; Sizes::split(ROWS, sizes.convolution_rows, sizes.convolution_split)],
        /// `[ROWS or 2 ROWS, inputs]` quantized.
        rows: [i8; Kernels::quantized_bytes(ROWS * sizes.convolution_rows, sizes.convolution_inputs)],
        /// `[ROWS or 2 ROWS]`.
        row_scales: [f32; ROWS, sizes.convolution_rows],
        /// [`Sizes::biases`].
        bias: [f32; sizes.biases],
        /// [`Sizes::room`].
        room: [i8; sizes.room(ROWS * sizes.convolution_rows, sizes.convolution_inputs)],
    }
}

/// Most convolutions of a frontend, as the format states.
const MAX_CONVOLUTIONS: usize = 8;

/// Mean and one over the standard deviation of a convolution's result.
#[derive(Clone, Copy)]
struct Statistics {
    mean: f32,
    scale: f32,
}

struct Frontend<'m, 's, 'b> {
    kernels: Kernels,
    convolutions: [Option<Convolution<'m>>; MAX_CONVOLUTIONS],
    statistics: [Option<Statistics>; MAX_CONVOLUTIONS],
    samples: &'s [i16],
    buffers: FrontendBuffers<'b>,
    /// The first frames of convolution 0, before its norm, and how many are there.
    kept: &'b mut [f32],
    kept_frames: usize,
}

/// Computes the encoder's input `[frames, width]` and returns the number of frames, at least one: audio shorter
/// than the frontend's window is taken as if silence followed. `spare` may have any length: the longer, the less is computed twice.
pub(crate) fn run(
    kernels: Kernels,
    model: &Model<'_>,
    samples: &[i16],
    buffers: FrontendBuffers<'_>,
    spare: &mut [f32],
    states: &mut [f32],
) -> Result<usize, Error> {
    let mut convolutions = [None; MAX_CONVOLUTIONS];
    for (slot, convolution) in convolutions.iter_mut().zip(model.convolutions()) {
        *slot = Some(convolution);
    }
    let statistics = [None; MAX_CONVOLUTIONS];
    let (kept, kept_frames) = (spare, 0);
    let mut frontend = Frontend { kernels, convolutions, statistics, samples, buffers, kept, kept_frames };
    for index in 0..MAX_CONVOLUTIONS {
        frontend.measure(index)?;
    }
    let last = model.config().frontend.convolutions.saturating_sub(1);
    let frames = frontend.frames(last);
    let width = model.encoder_inputs();
    let mut done = 0;
    while done < frames {
        let count = FRONTEND_FRAMES.min(frames - done);
        frontend.step(last, done, count)?;
        let result = prefix(frontend.result(last), count * width)?;
        part_mut(states, done * width, count * width)?.copy_from_slice(result);
        done += count;
    }
    Ok(frames)
}

impl Frontend<'_, '_, '_> {
    /// Frames of convolution `index` over the whole utterance, at least one.
    fn frames(&self, index: usize) -> usize {
        let chain = self.convolutions.iter().take(index + 1).flatten();
        chain.fold(self.samples.len(), |frames, convolution| output_frames(convolution, frames)).max(1)
    }

    /// Finds the statistics of convolution `index`, if a group norm follows it.
    fn measure(&mut self, index: usize) -> Result<(), Error> {
        let Some(Some(convolution)) = self.convolutions.get(index).copied() else { return Ok(()) };
        if convolution.group_norm.is_none() {
            return Ok(());
        }
        let frames = self.frames(index);
        // Two lane-wise sums in f64: many small squares would vanish beside a large f32 sum.
        let (mut sum, mut squares) = ([0.0f64; 8], [0.0f64; 8]);
        let mut done = 0;
        while done < frames {
            let count = self.step_frames(index).min(frames - done);
            self.step(index, done, count)?;
            if index == 0 {
                self.keep(done, count, convolution.outputs)?;
            }
            let (blocks, rest) = prefix(self.result(index), count * convolution.outputs)?.as_chunks::<8>();
            let mut add = |values: &[f32]| {
                for ((sum, squares), value) in sum.iter_mut().zip(&mut squares).zip(values) {
                    let value = f64::from(*value);
                    *sum += value;
                    *squares += value * value;
                }
            };
            // Blocks, whose length is known, take fewer instructions.
            blocks.iter().for_each(|block| add(block));
            add(rest);
            done += count;
        }
        let count = (frames * convolution.outputs) as f64;
        let mean = sum.iter().sum::<f64>() / count;
        let variance = (squares.iter().sum::<f64>() / count - mean * mean).max(0.0);
        let scale = 1.0 / libm::sqrt(variance + 1e-5);
        if let Some(slot) = self.statistics.get_mut(index) {
            *slot = Some(Statistics { mean: mean as f32, scale: scale as f32 });
        }
        Ok(())
    }

    /// Keeps `count` frames of convolution 0 from frame `first` on, if all before them are kept and there is room.
    fn keep(&mut self, first: usize, count: usize, outputs: usize) -> Result<(), Error> {
        if self.kept_frames == first
            && let Some(kept) = self.kept.get_mut(first * outputs..(first + count) * outputs)
        {
            kept.copy_from_slice(prefix(self.buffers.even, count * outputs)?);
            self.kept_frames += count;
        }
        Ok(())
    }

    /// Puts kept frames into the buffer; whether all of them are there.
    fn recall(&mut self, first: usize, count: usize, outputs: usize) -> Result<bool, Error> {
        if first + count > self.kept_frames {
            return Ok(false);
        }
        let result = prefix_mut(self.buffers.even, count * outputs)?;
        result.copy_from_slice(part(self.kept, first * outputs, count * outputs)?);
        Ok(true)
    }

    /// Frames of convolution `index` that its buffer holds.
    fn step_frames(&self, index: usize) -> usize {
        let later = self.convolutions.iter().skip(index + 1).flatten();
        let count = later.clone().count();
        (0..count)
            .rev()
            .filter_map(|i| later.clone().nth(i))
            .fold(FRONTEND_FRAMES, |frames, convolution| input_frames(convolution, frames))
    }

    fn result(&self, index: usize) -> &[f32] {
        if index.is_multiple_of(2) { self.buffers.even } else { self.buffers.odd }
    }

    /// Computes frames `first .. first + count` of convolution `index` into its buffer.
    fn step(&mut self, index: usize, first: usize, count: usize) -> Result<(), Error> {
        let Some(Some(convolution)) = self.convolutions.get(index).copied() else { return Ok(()) };
        if index > 0 || !self.recall(first, count, convolution.outputs)? {
            self.convolve(&convolution, index, first, count)?;
        }
        let even = index.is_multiple_of(2);
        let result = if even { &mut *self.buffers.even } else { &mut *self.buffers.odd };
        let statistics = self.statistics.get(index).copied().flatten();
        if let (Some(norm), Some(statistics)) = (convolution.group_norm, statistics) {
            let outputs = convolution.outputs;
            for frame in prefix_mut(result, count * outputs)?.chunks_exact_mut(outputs) {
                let scaled = |value: f32, weight: f32| (value - statistics.mean) * statistics.scale * weight;
                match norm.bias {
                    Some(bias) => {
                        for ((value, weight), bias) in frame.iter_mut().zip(norm.weight).zip(bias) {
                            *value = scaled(*value, *weight) + bias;
                        }
                    }
                    None => {
                        for (value, weight) in frame.iter_mut().zip(norm.weight) {
                            *value = scaled(*value, *weight);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// [`Self::step`] before the norm.
    fn convolve(
        &mut self,
        convolution: &Convolution<'_>,
        index: usize,
        first: usize,
        count: usize,
    ) -> Result<(), Error> {
        let needed = input_frames(convolution, count);
        let first_input = first * convolution.stride;
        if index == 0 {
            self.fill_samples(first_input, needed)?;
        } else {
            self.step(index - 1, first_input, needed)?;
        }
        let FrontendBuffers { samples, even, odd, split, rows, row_scales, bias, room } = &mut self.buffers;
        let mut rounding = Rounding { split, rows, scales: row_scales, bias, room };
        let (source, result): (&[f32], &mut [f32]) = match (index, index % 2) {
            (0, _) => (samples, even),
            (_, 0) => (odd, even),
            _ => (even, odd),
        };
        let stride = convolution.stride * convolution.inputs;
        let inputs = convolution.kernel * convolution.inputs;
        let outputs = convolution.outputs;
        for start in (0..count).step_by(ROWS) {
            let step = ROWS.min(count - start);
            let length = (step - 1) * stride + inputs;
            let source = Rows { values: part(source, start * stride, length)?, stride };
            let room = step * result_rows(convolution.bits) * outputs;
            let out = part_mut(result, start * outputs, room)?;
            let input = Input::new(self.kernels, convolution.bits, source, step, inputs, &mut rounding)?;
            input.times(&convolution.linear, out)?;
        }
        activate(self.kernels, convolution.activation, prefix_mut(result, count * outputs)?);
        Ok(())
    }

    /// Samples `first .. first + count` as floats, zero beyond the end.
    fn fill_samples(&mut self, first: usize, count: usize) -> Result<(), Error> {
        let there = self.samples.get(first..).unwrap_or(&[]);
        let (within, beyond) = prefix_mut(self.buffers.samples, count)?.split_at_mut(count.min(there.len()));
        for (value, sample) in within.iter_mut().zip(there) {
            *value = f32::from(*sample) / 32768.0;
        }
        beyond.fill(0.0);
        Ok(())
    }
}

/// Applies an activation without a gate in place.
pub(crate) fn activate(kernels: Kernels, activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Relu => kernels.relu(values),
        Activation::Gelu => kernels.gelu(values),
        Activation::Tanh => kernels.tanh(values),
        // A gate is a second matrix; where there is one, its block applies it.
        Activation::SwiGlu => {}
    }
}
