//! Memory: the sum that is asked for is the sum that is used, and one byte less is refused.

use super::parity::packed;
use super::variant::pack_variant;
use crate::region::{addressable, bytes_of, count};
use crate::{
    Error, Limits, Recognizer, SegmenterConfig, Transcriber, list_buffers, memory_required,
    transcriber_memory,
};
use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_model_format::pack::PackOptions;
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

#[test]
fn what_this_machine_cannot_address_is_refused_with_the_number_needed() {
    // A frame a sample and a hundred tokens a second: 960,000 frames, for each of which 48,000 columns keep a byte.
    let words = [
        ("\"frame_shift\": 160", "\"frame_shift\": 1"),
        ("\"stride\": 6", "\"stride\": 1"),
        ("16.666666666666668", "100.0"),
    ];
    let file = pack_variant("sanm", &words, &[], &PackOptions::default()).expect("it packs");
    let model = Model::parse(file.bytes()).expect("a model");
    let limits = Limits { utterance_seconds: 60.0, beam: 8, ..Limits::default() };
    let mut attention = 0;
    list_buffers(&model, &limits, &mut |buffer| {
        attention += buffer.bytes * u64::from(buffer.name == "attention")
    })
    .expect("a list");
    assert_eq!(attention, 48_000 * (960_000u64 - 399).next_multiple_of(16));
    let needed = match memory_required(&model, &limits) {
        Ok(needed) => needed as u64,
        Err(Error::TooLarge { needed }) if usize::BITS == 32 => needed,
        Err(error) => panic!("{error}"),
    };
    assert!((attention..2 * attention).contains(&needed), "{needed}");
    let error = Transcriber::new(model, Kernels::detect(), limits, &mut []).err();
    assert!(
        matches!(error, Some(Error::TooLarge { .. } | Error::RegionTooSmall { given: 0, .. })),
        "{error:?}"
    );
}

#[test]
fn sizes_stop_at_the_largest_number() {
    assert_eq!(count([1 << 20, 1 << 20, 1 << 20, 1 << 20]), u64::MAX);
    assert_eq!(bytes_of::<u32>(u64::MAX / 4), u64::MAX);
    let most = isize::MAX as u64;
    assert_eq!(addressable(most), Ok(isize::MAX as usize));
    for needed in [most + 1, u64::MAX] {
        assert_eq!(addressable(needed), Err(Error::TooLarge { needed }));
    }
}
