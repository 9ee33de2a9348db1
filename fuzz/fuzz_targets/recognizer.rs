//! Any samples in chunks of any size: an error or utterances in order, never a panic.
#![no_main]

use kinglet_fuzz::files::{Victim, models};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, Recognizer, SegmenterConfig, memory_required};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

fuzz_target!(|data: &[u8]| {
    static MODEL: OnceLock<Victim> = OnceLock::new();
    let file = MODEL.get_or_init(|| Victim::new(&models::packed("tiny")));
    let model = Model::parse(file.bytes()).expect("the fixture");
    let limits = Limits { utterance_seconds: 1.0, ..Limits::default() };
    let mut region = vec![0xAA; memory_required(&model, &limits).expect("a size")];
    let mut recognizer =
        Recognizer::new(model, Kernels::detect(), limits, SegmenterConfig::default(), &mut region)
            .expect("fits");
    let mut end = 0;
    // Each record: how many samples, and the four bytes of the float that they swing around.
    for record in data.chunks_exact(6).take(64) {
        let count = usize::from(u16::from_le_bytes([record[0], record[1]])) % 8_000;
        let value = f32::from_le_bytes([record[2], record[3], record[4], record[5]]);
        let samples: Vec<f32> = (0..count).map(|i| if i % 3 == 0 { value } else { -value * 0.5 }).collect();
        let mut rest = samples.as_slice();
        while !rest.is_empty() {
            let accepted = recognizer.push(rest);
            rest = &rest[accepted..];
            let mut polled = 0;
            while let Ok(Some(utterance)) = recognizer.poll() {
                assert!(utterance.start_sample >= end && utterance.end_sample >= utterance.start_sample);
                end = utterance.end_sample;
                polled += 1;
            }
            assert!(accepted > 0 || polled > 0, "a recogniser that takes nothing must have something to say");
        }
    }
    recognizer.finish();
    while let Ok(Some(_)) = recognizer.poll() {}
});
