//! The frontend that hears as Kaldi does: log energies of mel bands, several frames side by side, shifted and scaled.

use crate::block::Resolver;
use crate::config::Config;
use crate::error::Rule;
use crate::fields::Fields;
use crate::layer::{Part, Role};

/// Sizes of a filter bank, from section `config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterBankConfig {
    /// Bands.
    pub mels: usize,
    /// Samples that a frame sees: more than half a transform of 512, which they are padded to, and at most all of it.
    pub frame_length: usize,
    /// Samples from one frame to the next.
    pub frame_shift: usize,
    /// Frames side by side in one row of the encoder's input.
    pub stacked: usize,
    /// Frames from one such row to the next.
    pub stride: usize,
}

/// Samples of the Fourier transform of a frame.
pub const FILTER_BANK_TRANSFORM: u32 = 512;

impl FilterBankConfig {
    /// Values in a row of the encoder's input.
    pub fn width(&self) -> usize {
        self.mels * self.stacked
    }

    /// Samples from one row of the encoder's input to the next.
    pub fn row_samples(&self) -> usize {
        self.frame_shift * self.stride
    }

    pub(crate) fn parse(fields: &mut Fields<'_>) -> Result<Self, Rule> {
        let mels = fields.count("mels", 4, 128)?;
        let frame_length =
            fields.count("frame_length", FILTER_BANK_TRANSFORM / 2 + 1, FILTER_BANK_TRANSFORM)?;
        let frame_shift = fields.count("frame_shift", 1, frame_length as u32)?;
        let stacked = fields.count("stacked", 1, 16)?;
        let stride = fields.count("stride", 1, 16)?;
        Ok(Self { mels, frame_length, frame_shift, stacked, stride })
    }
}

/// What the samples of a frame are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// `0.54 - 0.46 cos`.
    Hamming,
    /// `(0.5 - 0.5 cos)^0.85`.
    Povey,
    /// `0.5 - 0.5 cos`.
    Hann,
}

impl Window {
    pub(crate) const ALL: [Window; 3] = [Self::Hamming, Self::Povey, Self::Hann];
}

/// The layer in front of the encoder, in place of convolutions.
#[derive(Debug, Clone, Copy)]
pub struct FilterBank<'a> {
    /// Sizes.
    pub config: FilterBankConfig,
    /// What the samples of a frame are multiplied by.
    pub window: Window,
    /// Share of the sample before that is taken from each sample.
    pub pre_emphasis: f32,
    /// Where the lowest band begins.
    pub low_hz: u32,
    /// Where the highest band ends.
    pub high_hz: u32,
    /// `[width]`, added to each row.
    pub shift: &'a [f32],
    /// `[width]`, what the shifted row is multiplied by.
    pub scale: &'a [f32],
}

impl<'a> Resolver<'a> {
    pub(crate) fn filter_bank(
        &self,
        config: &Config,
        sizes: FilterBankConfig,
    ) -> Result<FilterBank<'a>, Rule> {
        self.only(&[Role::FeatureShift, Role::FeatureScale], 4)?;
        let [window, pre_emphasis, low_hz, high_hz, ..] = self.layer.parameters;
        let window = (window as usize).checked_sub(1).and_then(|i| Window::ALL.get(i)).copied();
        let pre_emphasis = f32::from_bits(pre_emphasis);
        if !(0.0..=1.0).contains(&pre_emphasis) {
            return Err(Rule::Range("pre_emphasis"));
        }
        if low_hz >= high_hz || high_hz > config.frontend.sample_rate / 2 {
            return Err(Rule::Range("high_hz"));
        }
        let vector =
            |role| self.optional_vector(role, Part::Weight, sizes.width())?.ok_or(self.missing(role));
        Ok(FilterBank {
            config: sizes,
            window: window.ok_or(Rule::Code("window"))?,
            pre_emphasis,
            low_hz,
            high_hz,
            shift: vector(Role::FeatureShift)?,
            scale: vector(Role::FeatureScale)?,
        })
    }
}
