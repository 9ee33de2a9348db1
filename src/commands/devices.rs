//! `kinglet devices`: what can be recorded from.

use std::io::{self, Write};

use clap::Args;
use kinglet::microphone::{DeviceError, list};

use crate::failure::Failure;

/// List the devices that `kinglet listen` can record from
#[derive(Debug, Args)]
pub struct Devices {}

impl Devices {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let devices = list().map_err(Failure::device)?;
        if devices.is_empty() {
            return Err(Failure::device(DeviceError::NoDevice));
        }
        let mut out = io::stdout().lock();
        writeln!(out, "  {:<32} {:>16} {:>9}  description", "device", "rate (Hz)", "channels")?;
        for device in devices {
            writeln!(
                out,
                "{} {:<32} {:>16} {:>9}  {}",
                if device.default { '*' } else { ' ' },
                device.name,
                range(device.rates.0, device.rates.1),
                range(device.channels.0.into(), device.channels.1.into()),
                device.description
            )?;
        }
        writeln!(out, "* is the default; `kinglet listen --device NAME` takes another")?;
        Ok(())
    }
}

fn range(lowest: u32, highest: u32) -> String {
    if lowest == highest { lowest.to_string() } else { format!("{lowest}-{highest}") }
}
