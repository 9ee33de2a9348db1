//! One file for each command.

mod bench;
mod bench_kernels;
#[cfg(feature = "microphone")]
mod devices;
mod flash;
mod inspect;
#[cfg(feature = "microphone")]
mod listen;
mod model;
mod pack;
mod progress;
mod transcribe;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Offline speech recognition.
#[derive(Debug, Parser)]
#[command(name = "kinglet", version, about, after_help = EXIT_STATUS, arg_required_else_help = true)]
pub struct CommandLine {
    /// Say what is being done; twice says more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No warnings and no progress bar; errors are still told
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 all went well; 2 an input could not be read or was damaged (what could be done was done); \
3 an audio device could not be used; 1 anything else.";

#[derive(Debug, Subcommand)]
enum Command {
    Transcribe(transcribe::Transcribe),
    #[cfg(feature = "microphone")]
    Listen(listen::Listen),
    #[cfg(feature = "microphone")]
    Devices(devices::Devices),
    Inspect(inspect::Inspect),
    Pack(pack::Pack),
    Bench(bench::Bench),
    Flash(flash::Flash),
}

impl CommandLine {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Transcribe(command) => command.run(self.quiet),
            #[cfg(feature = "microphone")]
            Command::Listen(command) => command.run(),
            #[cfg(feature = "microphone")]
            Command::Devices(command) => command.run(),
            Command::Inspect(command) => command.run(),
            Command::Pack(command) => command.run(self.quiet),
            Command::Bench(command) => command.run(),
            Command::Flash(command) => command.run(self.quiet),
        }
    }
}
