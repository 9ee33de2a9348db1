//! What an image does, on every board.

use kinglet_kernels::Kernels;
use kinglet_model_format::{MAGIC, Model};
use kinglet_runtime::{Decoding, Limits, Recognizer, SAMPLE_RATE, Utterance, memory_required};

use crate::boards::{Board, Marker, print};
use crate::failure::Failure;

/// What fits 6 MB of memory with the default model. A longer utterance is cut at its quietest place.
const LIMITS: Limits = Limits { utterance_seconds: 10.0, beam: 1, decoding: Decoding::Attention };
/// Samples handed over at a time.
const CHUNK: usize = 512;

/// Recognises the board's recording with the board's model.
pub fn run<B: Board>() -> Result<(), Failure> {
    let memory = B::memory();
    let kernels = Kernels::detect();
    print(format_args!("kinglet on {}, {} kernels\n", B::NAME, kernels.instruction_set()));
    let model = Model::parse(stated_extent(B::model()?, B::MODEL_PLACE, B::NO_MODEL)?)?;
    print(format_args!("model: {} ({})\n", model.texts().name, model.texts().language));

    let needed = memory_required(&model, &LIMITS)?;
    let given = memory.region.len();
    let Some((region, spare)) = memory.region.split_at_mut_checked(needed) else {
        return Err(kinglet_runtime::Error::RegionTooSmall { needed, given }.into());
    };
    // Every run begins with the same memory.
    region.fill(0);
    let mut recognizer = Recognizer::for_recordings(model, kernels, LIMITS, region)?;
    print(format_args!(
        "memory: {needed} of {given} bytes for utterances of {} s, {} bytes of stack\n",
        LIMITS.utterance_seconds, memory.stack
    ));
    report_time::<B>("ready");

    let recording = B::recording(spare)?;
    let (samples, odd) = recording.as_chunks::<2>();
    if samples.is_empty() || !odd.is_empty() {
        return Err(Failure::RecordingShape);
    }
    B::mark(Marker::Begin);
    recognise(&mut recognizer, samples)?;
    B::mark(Marker::End);
    report_time::<B>("done");
    Ok(())
}

/// The bytes that a model's header claims; what lies behind them in flash is no part of it.
fn stated_extent(
    bytes: &'static [u8],
    place: &'static str,
    remedy: &'static str,
) -> Result<&'static [u8], Failure> {
    // FORMAT.md: magic, version, number of sections, checksum, then the length.
    const LENGTH_OFFSET: usize = 16;
    let length = bytes.get(LENGTH_OFFSET..).and_then(|rest| rest.first_chunk::<8>());
    let (true, Some(length)) = (bytes.starts_with(&MAGIC), length) else {
        return Err(Failure::NoModel { place, remedy });
    };
    let stated = u64::from_le_bytes(*length);
    let extent = usize::try_from(stated).ok().and_then(|length| bytes.get(..length));
    extent.ok_or(Failure::ModelTooLarge { stated, capacity: bytes.len(), place })
}

/// Pushes the recording and prints what is said in it.
fn recognise(recognizer: &mut Recognizer<'_, '_>, samples: &[[u8; 2]]) -> Result<(), Failure> {
    let mut buffer = [0.0; CHUNK];
    let mut rest = samples;
    while !rest.is_empty() {
        for (value, &sample) in buffer.iter_mut().zip(rest) {
            *value = f32::from(i16::from_le_bytes(sample)) / 32768.0;
        }
        let length = rest.len().min(CHUNK);
        let pushed = recognizer.push(buffer.get(..length).unwrap_or(&[]));
        rest = rest.get(pushed..).unwrap_or(&[]);
        if let Some(utterance) = recognizer.poll()? {
            print_utterance(&utterance);
        }
    }
    recognizer.finish();
    while let Some(utterance) = recognizer.poll()? {
        print_utterance(&utterance);
    }
    Ok(())
}

fn print_utterance(utterance: &Utterance<'_>) {
    let seconds = |sample: u64| sample as f32 / SAMPLE_RATE as f32;
    let (start, end) = (seconds(utterance.start_sample), seconds(utterance.end_sample));
    print(format_args!("{start:.2} to {end:.2} s: {}\ntokens:", utterance.transcript.text()));
    for token in utterance.transcript.tokens() {
        print(format_args!(" {token}"));
    }
    print(format_args!("\n"));
}

fn report_time<B: Board>(what: &str) {
    match B::clock() {
        Some((ticks, rate)) => print(format_args!("{what} at tick {ticks} of {rate} a second\n")),
        None => print(format_args!("{what}\n")),
    }
}
