//! What `kinglet listen` prints.

use std::io::{self, IsTerminal, Write};

use super::events::{DeviceState, Event};

/// Standard output.
pub(super) struct Screen {
    json: bool,
    terminal: bool,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        Self { json, terminal: !json && io::stdout().is_terminal() }
    }

    /// Shows what happens.
    pub(super) fn show(&mut self, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, event)?;
            writeln!(out)?;
            return out.flush();
        }
        match event {
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
                DeviceState::Opened if self.terminal => {
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
