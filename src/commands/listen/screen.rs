//! What `kinglet listen` prints.

use std::io::{self, IsTerminal, Write};

use console::Term;

use super::events::{DeviceState, Event};
use super::line;

/// Back to the first column, and the rest of the line away.
const CLEAR: &str = "\r\x1b[K";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Standard output.
pub(super) struct Screen {
    json: bool,
    /// Where it is a terminal that understands more than plain lines.
    terminal: Option<Term>,
    /// Whether running words stand in the last line.
    running: bool,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let plain = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        let terminal = (!json && !plain && io::stdout().is_terminal()).then(Term::stdout);
        Self { json, terminal, running: false }
    }

    /// Whether partial results are shown at all.
    pub(super) fn shows_partials(&self) -> bool {
        self.json || self.terminal.is_some()
    }

    /// Shows what happens.
    pub(super) fn show(&mut self, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, event)?;
            writeln!(out)?;
            return out.flush();
        }
        if self.running && !matches!(event, Event::Level { .. }) {
            write!(out, "{CLEAR}")?;
            out.flush()?;
            self.running = false;
        }
        match event {
            Event::Partial { stable, tentative, .. } => {
                if let Some(terminal) = &self.terminal {
                    // A character in the last column makes some terminals begin another line.
                    let columns = usize::from(terminal.size().1).saturating_sub(1);
                    let (stable, tentative) = line::fit(stable, tentative, columns);
                    write!(out, "{stable}{DIM}{tentative}{PLAIN}")?;
                    self.running = true;
                }
            }
            Event::Final(said) => {
                writeln!(out, "[{} - {}] {}", time(said.start), time(said.end), said.text)?;
            }
            Event::Level { .. } => {}
            Event::Overrun { lost_seconds, device_overruns } => match device_overruns {
                0 => log::warn!(
                    "{lost_seconds:.2} s of audio were lost; end other programs or use a smaller model"
                ),
                times => {
                    log::warn!("the device lost audio {times} times; {lost_seconds:.2} s more did not fit")
                }
            },
            Event::Behind { speed, waiting_seconds } => {
                log::warn!(
                    "cannot keep up: {speed:.2} s of audio a second, {waiting_seconds:.1} s wait; \
                     end other programs, or shorten utterances with `--max-utterance`"
                );
            }
            Event::Device { state, name, cause } => match state {
                DeviceState::Opened if self.terminal.is_some() => {
                    writeln!(io::stderr(), "{name}: listening, Ctrl-C ends")?
                }
                DeviceState::Opened => log::info!("{name}: listening"),
                DeviceState::Lost => {
                    log::warn!("{}; waiting for it to come back", cause.as_deref().unwrap_or(name));
                }
            },
        }
        out.flush()
    }
}

/// Hours where there are any, minutes, seconds and tenths.
fn time(seconds: f64) -> String {
    let tenths = (seconds.max(0.0) * 10.0).round() as u64;
    let (hours, minutes, rest) = (tenths / 36_000, tenths / 600 % 60, tenths % 600);
    let hours = if hours > 0 { format!("{hours}:") } else { String::new() };
    format!("{hours}{minutes:02}:{:02}.{}", rest / 10, rest % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(time(0.0), "00:00.0");
        assert_eq!(time(75.26), "01:15.3");
        assert_eq!(time(3_725.5), "1:02:05.5");
    }
}
