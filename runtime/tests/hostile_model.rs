//! A model whose checksums are right but whose bytes are not: refused, or run to a finite result in bounded memory.
//!
//! `model-format/tests/damage.rs` shows that checksums find accidents. This test mends them after each change, as
//! somebody who means harm would.

#[path = "common/mod.rs"]
mod common;
#[path = "../../model-format/tests/common/mod.rs"]
mod files;

use common::{Outcome, chirp, run};
use files::attacks::attacks;
use files::{TABLE_END, Victim, models};
use kinglet_model_format::{Model, SectionKind};
use std::ops::RangeInclusive;

/// A changed model may ask for more than the tiny one does; beyond this the caller would refuse.
const MOST_MEMORY: usize = 64 << 20;

/// What became of changed models.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    too_large: usize,
    ran: usize,
}

impl Tally {
    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Refused => self.refused += 1,
            Outcome::TooLarge => self.too_large += 1,
            Outcome::Ran => self.ran += 1,
        }
    }
}

/// Runs `file` with each of `changes` made to every byte, `step` bytes apart, of the sections `kinds`.
fn change_bytes(
    name: &str,
    file: &[u8],
    kinds: &[SectionKind],
    step: usize,
    changes: &[&dyn Fn(u8) -> u8],
) -> Tally {
    let mut victim = Victim::new(file);
    let (audio, sections) = (chirp(4_800), victim.sections());
    let mut region = Vec::new();
    let mut tally = Tally::default();
    for &kind in kinds {
        let (index, place) = (kind as usize, sections[kind as usize]);
        for position in (place.0..place.1).step_by(step) {
            let before = victim.bytes()[position];
            for change in changes {
                victim.bytes_mut()[position] = change(before);
                victim.mend_section(index, place);
                tally.add(run(victim.bytes(), &audio, MOST_MEMORY, &mut region));
            }
            victim.bytes_mut()[position] = before;
        }
        victim.mend_section(index, place);
    }
    assert!(victim.bytes() == file, "the test put everything back");
    println!("{name}, {} bytes, {kinds:?}: {tally:?}", file.len());
    tally
}

/// Every file shorter than `file`, `step` bytes apart in the weights, mended.
fn cut_anywhere(file: &[u8], step: usize) {
    let mut victim = Victim::new(file);
    let sections = victim.sections();
    victim.cut(&sections, file.len());
    assert!(Model::parse(victim.bytes()).is_ok(), "mending changes nothing that is whole");
    let data = sections[SectionKind::Data as usize].0;
    for length in (TABLE_END..data).chain((data..file.len()).step_by(step)) {
        victim.cut(&sections, length);
        assert!(Model::parse(victim.bytes()).is_err(), "{length} bytes of {}", file.len());
    }
}

#[test]
fn every_model_runs() {
    let mut region = Vec::new();
    for (name, file) in models::all() {
        let victim = Victim::new(&file);
        assert_eq!(run(victim.bytes(), &chirp(16_000), MOST_MEMORY, &mut region), Outcome::Ran, "{name}");
    }
}

#[test]
fn what_other_loaders_fell_for_is_refused_or_runs() {
    let mut region = Vec::new();
    for (name, file) in models::all() {
        let mut tally = Tally::default();
        for attack in attacks(&file) {
            let victim = Victim::new(&attack.bytes);
            tally.add(run(victim.bytes(), &chirp(4_800), MOST_MEMORY, &mut region));
        }
        println!("{name}: {tally:?}");
        assert!(tally.refused > 60, "{name}: {tally:?}");
    }
}

#[test]
fn a_file_cut_short_is_refused_however_its_checksums_are_mended() {
    cut_anywhere(&models::packed("tiny-odd"), 97);
    cut_anywhere(&models::memory(), 1);
    cut_anywhere(&models::kaldi(), 1);
}

const TABLES: [SectionKind; 5] = [
    SectionKind::Config,
    SectionKind::Tensors,
    SectionKind::Layers,
    SectionKind::Vocabulary,
    SectionKind::Texts,
];

#[test]
fn any_byte_of_the_tables_may_be_wrong() {
    let changes: [&dyn Fn(u8) -> u8; 4] = [&|b| b ^ 1, &|b| b ^ 0x80, &|b| b.wrapping_add(1), &|_| 0xFF];
    for (name, file) in models::all() {
        // The larger ones differ in little.
        let smallest = ["sanm-chunk", "memory", "kaldi"].contains(&name);
        let (step, changes) = if smallest { (1, &changes[..]) } else { (5, &changes[..2]) };
        let tally = change_bytes(name, &file, &TABLES, step, changes);
        assert!(tally.refused > 0 && tally.ran > 0, "rules are checked, names are free: {tally:?}");
    }
}

#[test]
fn any_byte_of_the_weights_may_be_wrong() {
    for (name, file) in models::all() {
        let changes: [&dyn Fn(u8) -> u8; 2] = [&|_| 0x7F, &|_| 0x80];
        let tally = change_bytes(name, &file, &[SectionKind::Data], 611, &changes);
        assert!(tally.ran > 0, "weights are free: {tally:?}");
    }
}

/// Every bit of every byte.
fn any_bit(name: &str, file: &[u8]) {
    let bits = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| move |byte: u8| byte ^ (1 << bit));
    let changes: Vec<&dyn Fn(u8) -> u8> = bits.iter().map(|bit| bit as &dyn Fn(u8) -> u8).collect();
    change_bytes(name, file, &SectionKind::ALL, 1, &changes);
    cut_anywhere(file, 1);
}

/// Every other value of every byte.
fn any_value(name: &str, file: &[u8], kinds: &[SectionKind]) {
    const OTHERS: RangeInclusive<u8> = 1..=u8::MAX;
    let values: Vec<_> = OTHERS.map(|change| move |byte: u8| byte ^ change).collect();
    let changes: Vec<&dyn Fn(u8) -> u8> = values.iter().map(|value| value as &dyn Fn(u8) -> u8).collect();
    change_bytes(name, file, kinds, 1, &changes);
}

// All of these: cargo test --release -p kinglet-runtime --test hostile_model -- --ignored --nocapture

#[test]
#[ignore = "minutes"]
fn any_bit_of_tiny_may_be_wrong() {
    any_bit("tiny", &models::packed("tiny"));
}

#[test]
#[ignore = "minutes"]
fn any_bit_of_tiny_odd_may_be_wrong() {
    any_bit("tiny-odd", &models::packed("tiny-odd"));
}

#[test]
#[ignore = "minutes"]
fn any_value_of_any_byte_of_the_tables_may_be_wrong() {
    for (name, file) in models::all() {
        any_value(name, &file, &TABLES);
    }
}

#[test]
#[ignore = "an hour"]
fn any_value_of_any_byte_of_the_smallest_models_may_be_wrong() {
    any_value("memory", &models::memory(), &[SectionKind::Data]);
    any_value("kaldi", &models::kaldi(), &[SectionKind::Data]);
}
