//! What happens while listening.

use kinglet::output::{Segment, milli};
use serde::Serialize;

use super::to_seconds;
use kinglet_runtime::SAMPLE_RATE;

/// One line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event {
    /// What has been said so far of an utterance; nothing, where there were no words after all.
    Partial {
        #[serde(serialize_with = "milli")]
        start: f64,
        #[serde(serialize_with = "milli")]
        end: f64,
        /// Words that are never taken back: the text of the utterance begins with them.
        stable: String,
        /// Words that may still change.
        tentative: String,
    },
    /// An utterance.
    Final(Segment),
    /// How loud the last second was, in dB below full scale.
    Level { rms_db: f32, peak_db: f32 },
    /// Samples were lost.
    Overrun {
        /// What did not fit into the ring.
        lost_seconds: f64,
        /// Times that the audio system lost an unknown number of samples.
        device_overruns: usize,
    },
    /// Recognition does not keep up.
    Behind {
        /// Seconds of audio that are recognised in a second.
        speed: f64,
        /// Audio that waits.
        waiting_seconds: f64,
    },
    /// A device was opened or has gone away.
    Device {
        state: DeviceState,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum DeviceState {
    Opened,
    Lost,
}

/// How fast recognition is, over the last half minute or so.
#[derive(Default)]
pub(super) struct Pace {
    audio: f64,
    busy: f64,
}

impl Pace {
    const SECONDS: f64 = 30.0;

    /// So much audio was recognised in so much time.
    pub(super) fn add(&mut self, audio: f64, busy: f64) {
        if self.audio > Self::SECONDS {
            // The past counts for less and less.
            (self.audio, self.busy) = (self.audio / 2.0, self.busy / 2.0);
        }
        self.audio += audio;
        self.busy += busy;
    }

    /// Seconds of audio a second, once there was some.
    pub(super) fn speed(&self) -> Option<f64> {
        (self.audio > 0.0).then(|| self.audio / self.busy.max(1e-3))
    }
}

/// The level of each second.
#[derive(Default)]
pub(super) struct Level {
    squares: f64,
    peak: f32,
    samples: u64,
}

impl Level {
    /// Silence is given as this, since JSON has no infinity.
    const FLOOR_DB: f32 = -100.0;

    /// Takes samples; gives the level where a second is full.
    pub(super) fn push(&mut self, samples: &[f32]) -> Option<Event> {
        for &sample in samples {
            self.squares += f64::from(sample * sample);
            self.peak = self.peak.max(sample.abs());
        }
        self.samples += samples.len() as u64;
        if self.samples < u64::from(SAMPLE_RATE) {
            return None;
        }
        let decibels = |value: f32| (20.0 * value.log10()).max(Self::FLOOR_DB);
        let rms = (self.squares / (to_seconds(self.samples) * f64::from(SAMPLE_RATE))).sqrt() as f32;
        let event = Event::Level { rms_db: decibels(rms), peak_db: decibels(self.peak) };
        *self = Self::default();
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_what_is_new() {
        let mut pace = Pace::default();
        assert_eq!(pace.speed(), None);
        pace.add(10.0, 20.0);
        assert_eq!(pace.speed(), Some(0.5));
        for _ in 0..100 {
            pace.add(1.0, 0.25);
        }
        assert!(pace.speed().is_some_and(|speed| (3.5..=4.0).contains(&speed)), "{:?}", pace.speed());
    }

    #[test]
    fn a_level_a_second() {
        let mut level = Level::default();
        assert!(level.push(&[0.5; 15_999]).is_none());
        let event = serde_json::to_value(level.push(&[0.5])).expect("serialised");
        assert_eq!(event["event"], "level");
        assert!((event["rms_db"].as_f64().expect("a number") + 6.02).abs() < 0.01);
        assert!((event["peak_db"].as_f64().expect("a number") + 6.02).abs() < 0.01);
        let silence = serde_json::to_value(level.push(&[0.0; 16_000])).expect("serialised");
        assert_eq!(silence["rms_db"], -100.0);
    }
}
