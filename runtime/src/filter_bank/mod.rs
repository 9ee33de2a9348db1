//! Samples to the encoder's input as Kaldi and FunASR reckon it: log mel energies, stacked, shifted and scaled.
//!
//! ```text
//! samples -> frame (mean off, emphasis, window) -> power spectrum -> log mel energies -> stack -> shift, scale -> rows
//! ```
//!
//! [`Stream`] takes samples as they arrive; the rows are the same whatever the pieces. Everything is in one set of
//! buffers, which must last from the first samples of an utterance to its last row.

mod frame;
mod mel;
mod spectrum;
mod feature_stream;
#[cfg(test)]
mod tests;

pub use feature_stream::{FeatureStream, feature_stream_memory};

use crate::error::Error;
use crate::project::{part, part_mut};
use crate::region::buffers;
use kinglet_model_format::{FilterBank, FilterBankConfig};
use mel::Bands;
use spectrum::{Complex, POINTS, Rotations, SPECTRUM, TABLE, array_mut};

buffers! {
    /// Tables and working memory of a filter bank; nothing where the frontend is none.
    FilterBankBuffers(bank: Option<FilterBankConfig>) phase "filter bank" {
        /// `[frame length]`.
        window: [f32; needed(bank, |bank| bank.frame_length)],
        /// Rotations of the transform.
        cosines: [f32; needed(bank, |_| TABLE)],
        /// Rotations of the transform.
        sines: [f32; needed(bank, |_| TABLE)],
        /// `[mels]`: where bands are in the spectrum.
        places: [[u16; 2]; needed(bank, |bank| bank.mels)],
        /// Weights of the spectrum in the bands.
        weights: [f32; needed(bank, |bank| mel::weights(bank.mels))],
        /// Real and imaginary parts, of the frame and of a copy.
        parts: [f32; needed(bank, |_| 4 * POINTS)],
        /// Power spectrum of a frame.
        power: [f32; needed(bank, |_| SPECTRUM)],
        /// `[frame length]`: the samples that the next frame begins with.
        samples: [i16; needed(bank, |bank| bank.frame_length)],
        /// `[stacked, mels]`: the last frames, frame `t` at `t modulo stacked`.
        frames: [f32; needed(bank, FilterBankConfig::width)],
    }
}

/// A size that a filter bank has; zero where there is none.
fn needed(bank: &Option<FilterBankConfig>, size: impl Fn(&FilterBankConfig) -> usize) -> usize {
    bank.as_ref().map_or(0, size)
}

impl FilterBankBuffers<'_> {
    /// Fills the tables, once.
    pub(crate) fn fill_tables(&mut self, bank: &FilterBank<'_>) {
        frame::fill_window(bank, self.window);
        spectrum::fill(self.cosines, self.sines);
        mel::fill(bank, self.places, self.weights);
    }
}

/// Rows of the encoder's input that `samples` samples give: at least one.
pub(crate) fn rows(bank: &FilterBankConfig, samples: usize) -> usize {
    let frames = samples.saturating_sub(bank.frame_length) / bank.frame_shift + 1;
    frames.div_ceil(bank.stride)
}

/// Computes the encoder's input `[rows, width]` of a whole utterance and returns the number of rows.
pub(crate) fn run(
    bank: &FilterBank<'_>,
    buffers: &mut FilterBankBuffers<'_>,
    samples: &[i16],
    out: &mut [f32],
) -> Result<usize, Error> {
    let mut stream = Stream::default();
    let whole = stream.push(bank, buffers, samples, out)?.rows;
    let rest = out.get_mut(whole * bank.config.width()..).unwrap_or(&mut []);
    Ok(whole + stream.finish(bank, buffers, rest)?)
}

/// How far an utterance is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stream {
    /// Samples that the buffer holds.
    held: usize,
    /// Frames that were reckoned.
    frames: usize,
    /// Rows that were given out.
    rows: usize,
}

/// What became of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Samples taken: all, unless there is no room for another row.
    pub(crate) samples: usize,
    /// Rows written.
    pub(crate) rows: usize,
}

impl Stream {
    /// Takes samples and writes the rows that they complete to `out`, `[rows, width]`, as many as have room.
    pub(crate) fn push(
        &mut self,
        bank: &FilterBank<'_>,
        buffers: &mut FilterBankBuffers<'_>,
        samples: &[i16],
        out: &mut [f32],
    ) -> Result<Pushed, Error> {
        let FilterBankConfig { frame_length, frame_shift, .. } = bank.config;
        let width = bank.config.width();
        let mut pushed = Pushed { samples: 0, rows: 0 };
        // A frame completes at most one row, as rows are at least one frame apart.
        while let Some(row) = out.get_mut(pushed.rows * width..(pushed.rows + 1) * width) {
            let rest = samples.get(pushed.samples..).unwrap_or(&[]);
            let taken = rest.len().min(frame_length - self.held);
            part_mut(buffers.samples, self.held, taken)?.copy_from_slice(part(rest, 0, taken)?);
            pushed.samples += taken;
            self.held += taken;
            if self.held < frame_length {
                break;
            }
            self.reckon(bank, buffers)?;
            buffers.samples.copy_within(frame_shift.., 0);
            self.held = frame_length - frame_shift;
            if self.row_end(&bank.config) <= self.frames {
                self.write_row(bank, buffers, row)?;
                pushed.rows += 1;
            }
        }
        Ok(pushed)
    }

    /// Once all samples were pushed: writes the rows that are left, as many as have room, and returns their number;
    /// zero when none was left. Behind the last frame it is repeated, and less than a frame of samples is taken as if
    /// silence followed.
    pub(crate) fn finish(
        &mut self,
        bank: &FilterBank<'_>,
        buffers: &mut FilterBankBuffers<'_>,
        out: &mut [f32],
    ) -> Result<usize, Error> {
        if self.frames == 0 {
            buffers.samples.get_mut(self.held..).unwrap_or(&mut []).fill(0);
            self.reckon(bank, buffers)?;
        }
        let left = self.frames.div_ceil(bank.config.stride).saturating_sub(self.rows);
        let mut written = 0;
        for row in out.chunks_exact_mut(bank.config.width()).take(left) {
            self.write_row(bank, buffers, row)?;
            written += 1;
        }
        Ok(written)
    }

    /// One past the last frame of the next row.
    fn row_end(&self, config: &FilterBankConfig) -> usize {
        self.rows * config.stride + config.stacked - (config.stacked - 1) / 2
    }

    /// Reckons the frame whose samples are there.
    fn reckon(&mut self, bank: &FilterBank<'_>, buffers: &mut FilterBankBuffers<'_>) -> Result<(), Error> {
        let FilterBankBuffers { window, cosines, sines, places, weights, parts, power, samples, frames } =
            buffers;
        let FilterBankConfig { mels, stacked, .. } = bank.config;
        let (data, spare) = parts.split_at_mut(2 * POINTS);
        frame::prepare(samples, window, bank.pre_emphasis, array_mut(spare)?);
        frame::pair_up(spare, data);
        let power = array_mut(power)?;
        spectrum::power(Rotations::new(cosines, sines)?, Complex::new(data)?, Complex::new(spare)?, power);
        let frame = part_mut(frames, self.frames % stacked * mels, mels)?;
        Bands::new(places, weights).log_energies(power, frame);
        self.frames += 1;
        Ok(())
    }

    /// Writes the next row from the frames that are there.
    fn write_row(
        &mut self,
        bank: &FilterBank<'_>,
        buffers: &FilterBankBuffers<'_>,
        row: &mut [f32],
    ) -> Result<(), Error> {
        let FilterBankConfig { mels, stacked, stride, .. } = bank.config;
        let before = (stacked - 1) / 2;
        let adjust = bank.shift.chunks_exact(mels).zip(bank.scale.chunks_exact(mels));
        for (index, (row, (shift, scale))) in row.chunks_exact_mut(mels).zip(adjust).enumerate() {
            let frame =
                (self.rows * stride + index).saturating_sub(before).min(self.frames.saturating_sub(1));
            let frame = part(buffers.frames, frame % stacked * mels, mels)?;
            for (((value, &energy), shift), scale) in row.iter_mut().zip(frame).zip(shift).zip(scale) {
                *value = (energy + shift) * scale;
            }
        }
        self.rows += 1;
        Ok(())
    }
}
