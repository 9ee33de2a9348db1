//! A filter bank by itself, for callers.

use super::{FilterBankBuffers, Stream};
use crate::error::Error;
use crate::region::{ALIGNMENT, Region, addressable, bytes_of};
use kinglet_model_format::{FilterBank, FrontendKind, Model};

/// The encoder's input of a model whose frontend is a filter bank, from samples as they arrive.
///
/// The rows are those that a [`Transcriber`](crate::Transcriber) reckons, whatever the pieces in which samples come.
pub struct FeatureStream<'m, 'r> {
    bank: FilterBank<'m>,
    buffers: FilterBankBuffers<'r>,
    /// `[width]`.
    row: &'r mut [f32],
    stream: Stream,
}

/// Bytes that a [`FeatureStream`] needs.
///
/// # Errors
/// When the model's frontend is no filter bank.
pub fn feature_stream_memory(model: &Model<'_>) -> Result<usize, Error> {
    let FrontendKind::FilterBank(bank) = model.config().frontend.kind else {
        return Err(Error::NoFilterBank);
    };
    // The region itself may begin anywhere.
    addressable(
        FilterBankBuffers::bytes(&Some(bank)) + bytes_of::<f32>(bank.width() as u64) + ALIGNMENT as u64,
    )
}

impl<'m, 'r> FeatureStream<'m, 'r> {
    /// Lays out `region`, which must have [`feature_stream_memory`] bytes.
    ///
    /// # Errors
    /// When the region is too small or the model's frontend is no filter bank.
    pub fn new(model: &Model<'m>, region: &'r mut [u8]) -> Result<Self, Error> {
        let needed = feature_stream_memory(model)?;
        if region.len() < needed {
            return Err(Error::RegionTooSmall { needed, given: region.len() });
        }
        let bank = model.filter_bank().ok_or(Error::NoFilterBank)?;
        let sizes = Some(bank.config);
        let mut region = Region::new(region);
        let row = region.take(bank.config.width() as u64)?;
        let mut buffers =
            FilterBankBuffers::carve(region.take_bytes(FilterBankBuffers::bytes(&sizes))?, &sizes)?;
        buffers.fill_tables(&bank);
        Ok(Self { bank, buffers, row, stream: Stream::default() })
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.bank.config.width()
    }

    /// Takes 16 kHz mono samples and calls `each` with every row `[width]` that they complete.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn push(&mut self, samples: &[i16], each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let mut rest = samples;
        while !rest.is_empty() {
            let pushed = self.stream.push(&self.bank, &mut self.buffers, rest, self.row)?;
            if pushed.rows > 0 {
                each(self.row);
            }
            rest = rest.get(pushed.samples..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Ends the utterance: calls `each` with the rows that are left, of every utterance at least one. The next sample
    /// begins another.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn finish(&mut self, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        while self.stream.finish(&self.bank, &mut self.buffers, self.row)? > 0 {
            each(self.row);
        }
        self.stream = Stream::default();
        Ok(())
    }
}
