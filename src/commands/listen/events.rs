//! What happens while listening.

use kinglet::output::Segment;
use serde::Serialize;

use super::to_seconds;
use kinglet_runtime::SAMPLE_RATE;

/// One line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Event {
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
