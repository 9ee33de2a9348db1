//! The `kinglet` command.
#![deny(unsafe_code)]

mod commands;
mod failure;
mod interrupt;
mod machine;
mod partial_file;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use log::{Level, LevelFilter};

fn main() -> ExitCode {
    let line = commands::CommandLine::parse();
    set_up_log(line.verbose, line.quiet);
    interrupt::install();
    match line.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // Where standard error is gone as well, the exit status still tells.
                let _ = writeln!(std::io::stderr(), "kinglet: {}", failure.message);
            }
            ExitCode::from(failure.status)
        }
    }
}

fn set_up_log(verbose: u8, quiet: bool) {
    let ours = match (quiet, verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Debug,
    };
    // What decoders say about their bits is of interest only to somebody who looks for a bug.
    let theirs = if verbose > 2 { LevelFilter::Debug } else { LevelFilter::Off };
    env_logger::Builder::new()
        .filter_level(theirs)
        .filter_module("kinglet", ours)
        .format(|out, record| match record.level() {
            Level::Error => writeln!(out, "kinglet: {}", record.args()),
            Level::Warn => writeln!(out, "kinglet: warning: {}", record.args()),
            _ => writeln!(out, "kinglet: {}: {}", record.target(), record.args()),
        })
        .init();
}
