//! Any bytes as a model, checksums mended; what is accepted recognises a little audio in the memory that it asks for.
#![no_main]

use kinglet_fuzz::{Aligned, mend};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, Transcriber, transcriber_memory};
use libfuzzer_sys::fuzz_target;

/// A caller with more memory than this would be a computer that nobody calls a board.
const MOST_MEMORY: usize = 256 << 20;

fuzz_target!(|data: &[u8]| {
    let mut mended = data.to_vec();
    mend(&mut mended);
    let file = Aligned::new(&mended);
    let Ok(model) = Model::parse(file.bytes()) else { return };
    let limits = Limits { utterance_seconds: 1.0, beam: 2 };
    let Ok(needed) = transcriber_memory(&model, &limits) else { return };
    if needed > MOST_MEMORY {
        return;
    }
    let mut region = vec![0xAA; needed];
    let Ok(mut transcriber) = Transcriber::new(model, Kernels::detect(), limits, &mut region) else { return };
    let audio: Vec<i16> = (0..6_400i32).map(|i| ((i * i / 64 % 20_000) - 10_000) as i16).collect();
    if let Ok(transcript) = transcriber.transcribe(&audio) {
        assert!((0.0..=1.0).contains(&transcript.confidence()));
        assert!(
            transcript.words().all(|word| word.start_seconds.is_finite() && word.end_seconds.is_finite())
        );
    }
});
