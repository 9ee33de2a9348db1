//! After set-up nothing is allocated, whatever is recognised in whatever way: an allocator that counts, and from then on
//! refuses, which would end the test.

#[path = "common/mod.rs"]
mod common;
#[path = "../../model-format/tests/common/mod.rs"]
mod files;

use common::chirp;
use files::{Victim, models};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{
    Decoding, EncoderStream, Error, Event, Limits, PartialConfig, Recognizer, SegmenterConfig, Transcriber,
    encoder_stream_memory, memory_required, transcriber_memory,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, while the thread may allocate.
struct Guarded;

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system's; a null pointer says that there is no memory.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        if FORBIDDEN.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from the system.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` gives, which must not allocate.
fn without_allocation<R>(work: impl FnOnce() -> R) -> R {
    let before = COUNT.get();
    FORBIDDEN.set(true);
    let result = work();
    FORBIDDEN.set(false);
    assert_eq!(COUNT.get(), before);
    result
}

/// Every way in which `model` finds text.
fn decodings(model: &Model<'_>) -> Vec<Decoding> {
    let mut all = vec![Decoding::Attention];
    if model.ctc().is_some() {
        all.extend([Decoding::CtcGreedy, Decoding::CtcBeam, Decoding::Rescore { ctc_weight: 0.5 }]);
    }
    all
}

/// Voice and silence in turns, as the segmenter hears it.
fn stream() -> Vec<f32> {
    let voice = chirp(24_000).into_iter().map(|sample| f32::from(sample) / 32768.0);
    let turn: Vec<f32> = voice.chain(std::iter::repeat_n(0.0, 24_000)).collect();
    turn.repeat(2)
}

#[test]
fn the_allocator_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(COUNT.get(), before + 1);
}

#[test]
fn transcribers_allocate_nothing() {
    let samples = chirp(16_000);
    for (name, file) in models::all() {
        let file = Victim::new(&file);
        let model = Model::parse(file.bytes()).expect(name);
        for decoding in decodings(&model) {
            for beam in [1, 4] {
                let limits = Limits { utterance_seconds: 2.0, beam, decoding };
                let mut region = vec![0; transcriber_memory(&model, &limits).expect(name)];
                let bytes = without_allocation(|| {
                    let mut transcriber = Transcriber::new(model, Kernels::detect(), limits, &mut region)?;
                    let transcript = transcriber.transcribe(&samples)?;
                    Ok::<_, Error>(transcript.text().len() + transcript.words().count())
                });
                assert!(bytes.is_ok(), "{name} {decoding:?} {beam}: {bytes:?}");
            }
        }
    }
}

#[test]
fn recognisers_allocate_nothing() {
    let samples = stream();
    for (name, file) in models::all() {
        let file = Victim::new(&file);
        let model = Model::parse(file.bytes()).expect(name);
        for decoding in decodings(&model) {
            let limits = Limits { utterance_seconds: 2.0, beam: 2, decoding };
            let mut region = vec![0; memory_required(&model, &limits).expect(name)];
            let events = without_allocation(|| {
                let config = SegmenterConfig::default();
                let recognizer = Recognizer::new(model, Kernels::detect(), limits, config, &mut region)?;
                let mut recognizer = recognizer.with_partials(PartialConfig::default());
                let mut events = 0;
                for chunk in samples.chunks(1_000) {
                    let mut rest = chunk;
                    while !rest.is_empty() {
                        let accepted = recognizer.push(rest);
                        rest = &rest[accepted..];
                        events += poll(&mut recognizer)?;
                    }
                }
                recognizer.finish();
                Ok::<_, Error>(events + poll(&mut recognizer)?)
            });
            assert!(events.is_ok(), "{name} {decoding:?}: {events:?}");
        }
    }
}

fn poll(recognizer: &mut Recognizer<'_, '_>) -> Result<usize, Error> {
    let mut events = 0;
    while let Some(event) = recognizer.poll_event()? {
        events += match event {
            Event::Partial(partial) => partial.stable().len().min(1),
            Event::Final(utterance) => utterance.transcript.text().len().min(1),
        };
    }
    Ok(events)
}

#[test]
fn streams_of_the_encoder_allocate_nothing_and_name_the_memory_that_they_lack() {
    let file = Victim::new(&models::memory());
    let model = Model::parse(file.bytes()).expect("a model");
    let needed = encoder_stream_memory(&model).expect("it has chunks");
    let mut region = vec![0; needed];
    let frames = vec![0.5; 13 * model.encoder_inputs()];
    let values = without_allocation(|| {
        let mut values = 0;
        let mut stream = EncoderStream::new(model, Kernels::detect(), &mut region)?;
        stream.push(&frames, &mut |states| values += states.len())?;
        stream.finish(&mut |states| values += states.len())?;
        Ok::<_, Error>(values)
    });
    assert_eq!(values, Ok(13 * model.config().encoder.width));
    let error = EncoderStream::new(model, Kernels::detect(), &mut region[1..]).err();
    assert_eq!(error, Some(Error::RegionTooSmall { needed, given: needed - 1 }));
}
