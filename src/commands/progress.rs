//! How far transcription is.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is over sooner needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on standard error: seconds of audio for one recording, recordings where there are several. It appears only when the
/// work takes long, and never where standard error is not a terminal.
pub struct Progress {
    bar: ProgressBar,
    several: bool,
    /// When to appear; `None` once that is done, or where it never will be.
    appear: Option<Instant>,
}

impl Progress {
    /// Progress through `recordings`.
    pub fn new(recordings: usize, quiet: bool) -> Self {
        let several = recordings > 1;
        let length = several.then_some(recordings as u64);
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
        let template =
            if several { "{bar:30} {pos}/{len} {wide_msg}" } else { "{bar:30} {pos}/{len} s {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, several, appear: (!quiet).then(|| Instant::now() + PATIENCE) }
    }

    /// A recording begins.
    pub fn begin(&mut self, name: &str, promised_seconds: Option<f64>) {
        self.bar.set_message(name.to_string());
        if let (false, Some(seconds)) = (self.several, promised_seconds) {
            self.bar.set_length(seconds.ceil() as u64);
        }
        self.show();
    }

    /// Its audio up to `seconds` is done.
    pub fn reach(&mut self, seconds: f64) {
        if !self.several {
            self.bar.set_position(seconds as u64);
        }
        self.show();
    }

    /// It is done.
    pub fn next(&mut self) {
        if self.several {
            self.bar.inc(1);
        }
        self.show();
    }

    /// Runs `write` while the bar is out of the way.
    pub fn suspend<R>(&self, write: impl FnOnce() -> R) -> R {
        self.bar.suspend(write)
    }

    /// All is done.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&mut self) {
        if self.appear.is_some_and(|when| Instant::now() >= when) {
            self.appear = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}
