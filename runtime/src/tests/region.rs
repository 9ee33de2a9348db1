//! Memory: the sum that is asked for is the sum that is used, and one byte less is refused.

use super::parity::packed;
use crate::{Error, Limits, Recognizer, SegmenterConfig, Transcriber, memory_required, transcriber_memory};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use std::vec;

#[test]
fn one_byte_too_few_is_refused_with_the_number_needed() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 3.0, beam: 2, ..Limits::default() };
    let kernels = Kernels::detect();
    let needed = transcriber_memory(&model, &limits).expect("a size");
    let mut region = vec![0; needed - 1];
    let error = Transcriber::new(model, kernels, limits, &mut region).err();
    assert_eq!(error, Some(Error::RegionTooSmall { needed, given: needed - 1 }));
    let needed = memory_required(&model, &limits).expect("a size");
    let mut region = vec![0; needed - 1];
    let error = Recognizer::new(model, kernels, limits, SegmenterConfig::default(), &mut region).err();
    assert_eq!(error, Some(Error::RegionTooSmall { needed, given: needed - 1 }));
}

#[test]
fn a_region_may_begin_anywhere() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 2.0, beam: 1, ..Limits::default() };
    let needed = memory_required(&model, &limits).expect("a size");
    let mut region = vec![0; needed + 64];
    for start in 0..64 {
        let region = &mut region[start..start + needed];
        let recognizer =
            Recognizer::new(model, Kernels::detect(), limits, SegmenterConfig::default(), region);
        assert!(recognizer.is_ok(), "{start}: {:?}", recognizer.err());
    }
}

#[test]
fn limits_out_of_range_are_refused() {
    let file = packed("tiny");
    let model = Model::parse(file.bytes()).expect("a model");
    for utterance_seconds in [0.0, -1.0, 61.0, f32::NAN, f32::INFINITY] {
        let limits = Limits { utterance_seconds, beam: 1, ..Limits::default() };
        assert!(matches!(memory_required(&model, &limits), Err(Error::Limit { .. })), "{utterance_seconds}");
    }
    for beam in [0, 9, usize::MAX] {
        let limits = Limits { utterance_seconds: 2.0, beam, ..Limits::default() };
        assert!(matches!(memory_required(&model, &limits), Err(Error::Limit { .. })), "{beam}");
    }
}
