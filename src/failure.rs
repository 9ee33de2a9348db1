//! How a command ends when it does not end well.

use std::fmt::Display;
use std::io;

/// A sentence for the user and the exit status that goes with it.
#[derive(Debug)]
pub struct Failure {
    /// 2: the input is at fault; 3: an audio device is; 1: something else is.
    pub status: u8,
    /// What is wrong with what, and what to do; empty where it was already said, or nobody is left to read it.
    pub message: String,
}

impl Failure {
    /// Something that the user named cannot be used.
    pub fn input(name: impl Display, cause: impl Display) -> Self {
        Self { status: 2, message: format!("{name}: {cause}") }
    }

    /// Something else went wrong with it.
    pub fn other(name: impl Display, cause: impl Display) -> Self {
        Self { status: 1, message: format!("{name}: {cause}") }
    }

    /// No audio comes from a device.
    #[cfg(feature = "microphone")]
    pub fn device(cause: impl Display) -> Self {
        Self { status: 3, message: cause.to_string() }
    }

    /// The inputs at fault were named as they came.
    pub fn reported() -> Self {
        Self { status: 2, message: String::new() }
    }

    /// Standard output cannot be written to. Where its reader has gone away, as `head` does, all is well.
    pub fn stdout(cause: &io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            return Self { status: 0, message: String::new() };
        }
        Self::other("standard output", format!("cannot be written: {cause}"))
    }
}

impl From<io::Error> for Failure {
    /// The only files that commands write to without saying which are the standard streams.
    fn from(cause: io::Error) -> Self {
        Self::stdout(&cause)
    }
}

impl From<kinglet_runtime::Error> for Failure {
    fn from(cause: kinglet_runtime::Error) -> Self {
        // The model and the option do not go together: the caller's to mend.
        let status = if cause == kinglet_runtime::Error::NoCtcHead { 2 } else { 1 };
        Self { status, message: cause.to_string() }
    }
}
