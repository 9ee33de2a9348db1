//! What can be wrong with a device, and what to do about it.

use cpal::ErrorKind;

/// Why no audio comes from a device.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The system's audio does not answer.
    #[error(
        "the audio system does not answer: {0}; check that ALSA or the sound server is installed and running"
    )]
    NoHost(String),
    /// There is no device to record from.
    #[error("no microphone was found; connect one, or see what there is with `kinglet devices`")]
    NoDevice,
    /// No device has that name.
    #[error("no recording device is called `{0}`; `kinglet devices` lists the names")]
    NotFound(String),
    /// It is not there at the moment.
    #[error(
        "{0}: the device is not there; connect it, or choose another that `kinglet devices` lists with `--device`"
    )]
    Absent(String),
    /// Another program has it.
    #[error(
        "{0}: the device is busy; end the program that records from it, or choose another with `--device`"
    )]
    Busy(String),
    /// This user may not record.
    #[error(
        "{0}: permission denied; add your user to the group `audio` (`usermod -aG audio USER`) and log in again"
    )]
    Denied(String),
    /// None of its formats can be used.
    #[error("{name}: the device refuses {wanted}; try `plug{name}`, or another format with `--capture`")]
    Refused {
        /// The device.
        name: String,
        /// What it was asked for.
        wanted: String,
    },
    /// Something else.
    #[error("{name}: {cause}; connect the device again, or choose another with `--device`")]
    Failed {
        /// The device.
        name: String,
        /// What the system says.
        cause: String,
    },
}

impl DeviceError {
    pub(super) fn new(name: &str, wanted: &str, cause: &cpal::Error) -> Self {
        let name = name.to_string();
        match cause.kind() {
            ErrorKind::DeviceBusy => Self::Busy(name),
            ErrorKind::DeviceNotAvailable => Self::Absent(name),
            ErrorKind::PermissionDenied => Self::Denied(name),
            ErrorKind::HostUnavailable => Self::NoHost(cause.to_string()),
            ErrorKind::UnsupportedConfig | ErrorKind::InvalidInput => {
                Self::Refused { name, wanted: wanted.into() }
            }
            _ => Self::Failed { name, cause: cause.to_string() },
        }
    }
}
