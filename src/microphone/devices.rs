//! Which devices there are, and which one in which format is meant.

use std::fmt;
use std::str::FromStr;

use cpal::traits::{DeviceTrait, HostTrait};
use cpal::{Device, SampleFormat, StreamConfig, SupportedStreamConfigRange};

use super::DeviceError;

/// Rates in the order in which they are asked for: real devices have one of the first two, and what they have is better
/// resampled here than by a driver.
const RATES: [u32; 5] = [48_000, 44_100, 16_000, 32_000, 8_000];

/// Formats in the order in which they are asked for; every other one follows.
const FORMATS: [SampleFormat; 3] = [SampleFormat::I16, SampleFormat::I32, SampleFormat::F32];

/// A device that can record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What `--device` takes.
    pub name: String,
    /// What people call it.
    pub description: String,
    /// Lowest and highest rate, Hz.
    pub rates: (u32, u32),
    /// Fewest and most channels.
    pub channels: (u16, u16),
    /// Whether it is used where none is named.
    pub default: bool,
}

/// How a device is asked to record; what is `None` is chosen from what it offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaptureFormat {
    /// Samples a second.
    pub rate: Option<u32>,
    /// Channels.
    pub channels: Option<u16>,
    /// Sample format.
    pub format: Option<SampleFormat>,
}

/// Which device to record from, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Its name, or the system's default.
    pub device: Option<String>,
    /// The format.
    pub format: CaptureFormat,
}

impl FromStr for CaptureFormat {
    type Err = String;

    /// `RATE[:CHANNELS[:FORMAT]]`, as `48000:2:s16`.
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("`{text}` is not RATE[:CHANNELS[:FORMAT]], as in 48000:2:s16");
        let mut parts = text.split(':');
        let rate = parts.next().and_then(|rate| rate.parse().ok()).ok_or_else(usage)?;
        let channels = parts.next().map(str::parse).transpose().map_err(|_| usage())?;
        let format = parts.next().map(sample_format).transpose()?;
        if parts.next().is_some() {
            return Err(usage());
        }
        Ok(Self { rate: Some(rate), channels, format })
    }
}

fn sample_format(name: &str) -> Result<SampleFormat, String> {
    match name {
        "u8" => Ok(SampleFormat::U8),
        "s8" => Ok(SampleFormat::I8),
        "s16" => Ok(SampleFormat::I16),
        "s24" => Ok(SampleFormat::I24),
        "s32" => Ok(SampleFormat::I32),
        "float" => Ok(SampleFormat::F32),
        "double" => Ok(SampleFormat::F64),
        _ => Err(format!("`{name}` is no sample format; there are u8, s8, s16, s24, s32, float and double")),
    }
}

impl fmt::Display for CaptureFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => write!(f, "{rate} Hz")?,
            None => write!(f, "every rate")?,
        }
        if let Some(channels) = self.channels {
            write!(f, ", {channels} channels")?;
        }
        if let Some(format) = self.format {
            write!(f, ", {format}")?;
        }
        Ok(())
    }
}

/// Every device that can record.
///
/// # Errors
/// When the system's audio does not answer.
pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
    let host = cpal::default_host();
    let devices = host.devices().map_err(|cause| DeviceError::NoHost(cause.to_string()))?;
    let default = host.default_input_device().and_then(|device| device.id().ok());
    let mut found: Vec<DeviceInfo> = Vec::new();
    for device in devices {
        let Ok(id) = device.id() else { continue };
        let Ok(configs) = device.supported_input_configs() else { continue };
        let configs: Vec<SupportedStreamConfigRange> = configs.collect();
        let (Some(slowest), Some(fastest)) = (
            configs.iter().map(SupportedStreamConfigRange::min_sample_rate).min(),
            configs.iter().map(SupportedStreamConfigRange::max_sample_rate).max(),
        ) else {
            continue;
        };
        let channels = configs.iter().map(SupportedStreamConfigRange::channels);
        found.push(DeviceInfo {
            name: id.id().into(),
            description: device.description().map(|text| text.name().to_string()).unwrap_or_default(),
            rates: (slowest, fastest),
            channels: (channels.clone().min().unwrap_or(0), channels.max().unwrap_or(0)),
            default: default.as_ref() == Some(&id),
        });
    }
    Ok(found)
}

/// The device, its name and the format to record in.
pub(super) fn select(
    selection: &Selection,
) -> Result<(Device, String, StreamConfig, SampleFormat), DeviceError> {
    let host = cpal::default_host();
    let device = match &selection.device {
        None => host.default_input_device().ok_or(DeviceError::NoDevice)?,
        Some(name) => {
            let mut devices = host.devices().map_err(|cause| DeviceError::NoHost(cause.to_string()))?;
            devices
                .find(|device| device.id().is_ok_and(|id| id.id() == name))
                .ok_or_else(|| DeviceError::NotFound(name.clone()))?
        }
    };
    let name = device.id().map_or_else(|_| "default".into(), |id| id.id().to_string());
    let wanted = selection.format.to_string();
    let configs = device.supported_input_configs().map_err(|cause| match cause.kind() {
        // Without any sound card the default device is a name with nothing behind it.
        cpal::ErrorKind::DeviceNotAvailable if selection.device.is_none() => DeviceError::NoDevice,
        _ => DeviceError::new(&name, &wanted, &cause),
    })?;
    let (config, format) = choose(configs, selection.format)
        .ok_or_else(|| DeviceError::Refused { name: name.clone(), wanted: wanted.clone() })?;
    Ok((device, name, config, format))
}

fn choose(
    configs: impl Iterator<Item = SupportedStreamConfigRange>,
    wanted: CaptureFormat,
) -> Option<(StreamConfig, SampleFormat)> {
    let place =
        |list: &[SampleFormat], format| list.iter().position(|&one| one == format).unwrap_or(list.len());
    configs
        .filter(|config| wanted.channels.is_none_or(|channels| channels == config.channels()))
        .filter(|config| wanted.format.is_none_or(|format| format == config.sample_format()))
        .filter(|config| !config.sample_format().is_dsd())
        .filter_map(|config| {
            let offered = |rate: &u32| config.contains_rate(*rate);
            let rate = match wanted.rate {
                Some(rate) => Some(rate).filter(offered)?,
                None => RATES.into_iter().find(offered).unwrap_or(config.max_sample_rate()),
            };
            let rank = RATES.iter().position(|&one| one == rate).unwrap_or(RATES.len());
            Some((rank, config.channels(), place(&FORMATS, config.sample_format()), rate, config))
        })
        .min_by_key(|&(rank, channels, format, ..)| (rank, channels, format))
        .map(|(.., rate, config)| (config.with_sample_rate(rate).config(), config.sample_format()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpal::SupportedBufferSize;

    fn range(channels: u16, rates: (u32, u32), format: SampleFormat) -> SupportedStreamConfigRange {
        SupportedStreamConfigRange::new(channels, rates.0, rates.1, SupportedBufferSize::Unknown, format)
    }

    #[test]
    fn the_usual_rate_then_few_channels_then_a_short_format() {
        let offered = [
            range(1, (8_000, 44_100), SampleFormat::I16),
            range(2, (48_000, 48_000), SampleFormat::F32),
            range(2, (48_000, 96_000), SampleFormat::I16),
            range(6, (48_000, 96_000), SampleFormat::I16),
        ];
        let (config, format) = choose(offered.into_iter(), CaptureFormat::default()).expect("offered");
        assert_eq!((config.sample_rate, config.channels, format), (48_000, 2, SampleFormat::I16));
        let slow = choose(offered.into_iter(), "8000".parse().expect("a format")).expect("offered");
        assert_eq!((slow.0.sample_rate, slow.0.channels), (8_000, 1));
        assert!(choose(offered.into_iter(), "22050:2:s16".parse().expect("a format")).is_none());
    }

    #[test]
    fn formats_are_read_as_written() {
        let format: CaptureFormat = "44100:2:float".parse().expect("a format");
        assert_eq!(format.to_string(), "44100 Hz, 2 channels, f32");
        for wrong in ["", "fast", "8000:x", "8000:1:s17", "8000:1:s16:1"] {
            assert!(wrong.parse::<CaptureFormat>().is_err(), "{wrong}");
        }
    }
}
