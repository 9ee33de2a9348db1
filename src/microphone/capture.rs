//! A running device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use cpal::traits::{DeviceTrait, StreamTrait};
use cpal::{Device, ErrorKind, FromSample, SampleFormat, SizedSample, StreamConfig};
use rtrb::{Consumer, RingBuffer};

use super::devices::select;
use super::{DeviceError, Selection};
use crate::audio::Resampler;

/// Audio that the ring holds while an utterance is being recognised.
const RING_SECONDS: usize = 10;

/// A device that records.
pub struct Microphone {
    name: String,
    rate: u32,
    channels: usize,
    stream: Option<cpal::Stream>,
    ring: Box<dyn Ring>,
    lost: Arc<AtomicU64>,
    errors: Receiver<cpal::Error>,
    resampler: Resampler,
    /// The mean of the channels, at the device's rate.
    mono: Vec<f32>,
}

/// What one call to [`Microphone::read`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[must_use]
pub struct Received {
    /// Frames at the device's rate.
    pub frames: usize,
    /// Frames that came while the ring was full, and are lost.
    pub lost_frames: u64,
    /// Times that the audio system says that it lost an unknown number of samples.
    pub overruns: usize,
    /// Part of the ring that was full.
    pub fill: f32,
}

impl Microphone {
    /// Begins to record.
    ///
    /// # Errors
    /// When the device is not there, is busy, or refuses the format.
    pub fn open(selection: &Selection) -> Result<Self, DeviceError> {
        let (device, name, config, format) = select(selection)?;
        let wanted = format!("{} Hz, {} channels, {format}", config.sample_rate, config.channels);
        let refused = || DeviceError::Refused { name: name.clone(), wanted: wanted.clone() };
        let resampler = Resampler::new(config.sample_rate).map_err(|_| refused())?;
        let lost = Arc::new(AtomicU64::new(0));
        let (report, errors) = channel();
        let open = match format {
            SampleFormat::I8 => open::<i8>,
            SampleFormat::U8 => open::<u8>,
            SampleFormat::I16 => open::<i16>,
            SampleFormat::U16 => open::<u16>,
            SampleFormat::I24 => open::<cpal::I24>,
            SampleFormat::I32 => open::<i32>,
            SampleFormat::U32 => open::<u32>,
            SampleFormat::F32 => open::<f32>,
            SampleFormat::F64 => open::<f64>,
            _ => return Err(refused()),
        };
        let failed = |cause: cpal::Error| DeviceError::new(&name, &wanted, &cause);
        let (stream, ring) = open(&device, &config, &lost, report).map_err(failed)?;
        stream.play().map_err(failed)?;
        log::info!("{name}: recording {wanted}");
        Ok(Self {
            rate: config.sample_rate,
            channels: usize::from(config.channels).max(1),
            stream: Some(stream),
            ring,
            lost,
            errors,
            resampler,
            mono: Vec::new(),
            name,
        })
    }

    /// What the system calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rate, Hz, before resampling.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Appends what has come since the last call to `output`: 16 kHz mono in `[-1, 1]`.
    ///
    /// # Errors
    /// When the device has gone away; it may be opened again.
    pub fn read(&mut self, output: &mut Vec<f32>) -> Result<Received, DeviceError> {
        let mut received =
            Received { lost_frames: self.lost.swap(0, Ordering::Relaxed), ..Received::default() };
        for error in self.errors.try_iter() {
            match error.kind() {
                ErrorKind::Xrun => received.overruns += 1,
                ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => log::info!("{}: {error}", self.name),
                _ => return Err(DeviceError::new(&self.name, "to go on", &error)),
            }
        }
        self.mono.clear();
        received.fill = self.ring.take(self.channels, &mut self.mono);
        received.frames = self.mono.len();
        self.resampler.push(&self.mono, output);
        Ok(received)
    }
}

impl Drop for Microphone {
    fn drop(&mut self) {
        // Closing waits for the device's thread, and a device that has gone away may never let it go.
        if let Some(stream) = self.stream.take() {
            std::thread::spawn(move || drop(stream));
        }
    }
}

/// The ring, whatever it holds.
trait Ring {
    /// Appends the mean of each whole frame; returns how full the ring was.
    fn take(&mut self, channels: usize, mono: &mut Vec<f32>) -> f32;
}

impl<T> Ring for Consumer<T>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    fn take(&mut self, channels: usize, mono: &mut Vec<f32>) -> f32 {
        let filled = self.slots();
        let fill = filled as f32 / self.buffer().capacity().max(1) as f32;
        let Ok(chunk) = self.read_chunk(filled - filled % channels) else { return fill };
        let mut samples = chunk.into_iter();
        while let Some(first) = samples.next() {
            let mut sum: f32 = first.to_sample();
            sum += samples.by_ref().take(channels - 1).map(cpal::Sample::to_sample::<f32>).sum::<f32>();
            mono.push(sum / channels as f32);
        }
        fill
    }
}

type Opened = (cpal::Stream, Box<dyn Ring>);

fn open<T>(
    device: &Device,
    config: &StreamConfig,
    lost: &Arc<AtomicU64>,
    report: Sender<cpal::Error>,
) -> Result<Opened, cpal::Error>
where
    T: SizedSample + Send + 'static,
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels).max(1);
    let capacity = (config.sample_rate as usize).saturating_mul(channels * RING_SECONDS);
    let (mut ring, samples) = RingBuffer::<T>::new(capacity);
    let lost = Arc::clone(lost);
    let stream = device.build_input_stream::<T, _, _>(
        *config,
        move |data, _| {
            // Whole frames only, so that the channels stay in their places.
            let room = ring.slots() / channels * channels;
            let (kept, rest) = data.split_at(room.min(data.len()));
            let (_, unkept) = ring.push_partial_slice(kept);
            debug_assert!(unkept.is_empty());
            if !rest.is_empty() {
                lost.fetch_add((rest.len() / channels) as u64, Ordering::Relaxed);
            }
        },
        // Nobody listens any more once the microphone is closed.
        move |error| drop(report.send(error)),
        None,
    )?;
    Ok((stream, Box::new(samples)))
}
