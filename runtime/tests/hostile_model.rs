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
use std::thread;
use std::time::{Duration, Instant};

/// A changed model may ask for more than the tiny one does; beyond this the caller would refuse.
const MOST_MEMORY: usize = 64 << 20;

/// Audio for one change, in samples: a few frames of each model's encoder. The least number of tokens is decoded anyway.
const SAMPLES: u32 = 1_600;

/// What became of changed models, and the most that one of them took.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    too_large: usize,
    ran: usize,
    bytes: usize,
    time: Duration,
}

impl Tally {
    fn add(&mut self, file: &[u8], audio: &[i16], region: &mut Vec<u8>) {
        let begun = Instant::now();
        match run(file, audio, MOST_MEMORY, region) {
            Outcome::Refused => self.refused += 1,
            Outcome::TooLarge => self.too_large += 1,
            Outcome::Ran => self.ran += 1,
        }
        self.time = self.time.max(begun.elapsed());
        self.bytes = self.bytes.max(region.len());
    }

    fn join(self, other: Self) -> Self {
        Self {
            refused: self.refused + other.refused,
            too_large: self.too_large + other.too_large,
            ran: self.ran + other.ran,
            bytes: self.bytes.max(other.bytes),
            time: self.time.max(other.time),
        }
    }
}

/// A share of the work, `(index, count)`: every `count`-th byte from the `index`-th on.
type Share = (usize, usize);

/// The share of this process, which `KINGLET_SHARE=2/8` makes the second of eight. What takes hours can so be done in pieces.
fn share() -> Share {
    let Ok(text) = std::env::var("KINGLET_SHARE") else { return (0, 1) };
    let parts = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let (part, of): (usize, usize) = parts.expect("KINGLET_SHARE is PART/COUNT, as in 2/8");
    assert!((1..=of).contains(&part), "KINGLET_SHARE={text}");
    (part - 1, of)
}

/// Says which change broke a promise.
struct Place(SectionKind, usize, u8);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("with {:#04x} at byte {} of the file, in section `{}`", self.2, self.1, self.0);
        }
    }
}

type Change<'c> = &'c (dyn Fn(u8) -> u8 + Sync);

/// Runs `file` with each of `changes` made to every byte, `step` bytes apart, of the sections `kinds`, on all processors.
fn change_bytes(
    name: &str,
    file: &[u8],
    kinds: &[SectionKind],
    step: usize,
    changes: &[Change<'_>],
) -> Tally {
    let begun = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (part, of) = share();
    let tally = thread::scope(|scope| {
        let run = |index| change_share(file, kinds, step, changes, (part * threads + index, of * threads));
        let workers: Vec<_> = (0..threads).map(|index| scope.spawn(move || run(index))).collect();
        let tallies = workers.into_iter().map(|worker| worker.join().expect("no change breaks it"));
        tallies.fold(Tally::default(), Tally::join)
    });
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{name}, {} bytes, part {} of {of}, {kinds:?}: {tally:?} in {seconds:.0} s",
        file.len(),
        part + 1
    );
    tally
}

fn change_share(
    file: &[u8],
    kinds: &[SectionKind],
    step: usize,
    changes: &[Change<'_>],
    (index, count): Share,
) -> Tally {
    let mut victim = Victim::new(file);
    let (audio, sections) = (chirp(SAMPLES), victim.sections());
    let mut region = Vec::new();
    let mut tally = Tally::default();
    for &kind in kinds {
        let (section, place) = (kind as usize, sections[kind as usize]);
        for position in (place.0..place.1).step_by(step).skip(index).step_by(count) {
            let before = victim.bytes()[position];
            for change in changes {
                let after = change(before);
                let _place = Place(kind, position, after);
                victim.bytes_mut()[position] = after;
                victim.mend_section(section, place);
                tally.add(victim.bytes(), &audio, &mut region);
            }
            victim.bytes_mut()[position] = before;
        }
        victim.mend_section(section, place);
    }
    assert!(victim.bytes() == file, "the test put everything back");
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
            tally.add(victim.bytes(), &chirp(SAMPLES), &mut region);
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
    let changes: [Change<'_>; 4] = [&|b| b ^ 1, &|b| b ^ 0x80, &|b| b.wrapping_add(1), &|_| 0xFF];
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
        let changes: [Change<'_>; 2] = [&|_| 0x7F, &|_| 0x80];
        let tally = change_bytes(name, &file, &[SectionKind::Data], 611, &changes);
        assert!(tally.ran > 0, "weights are free: {tally:?}");
    }
}

/// Every bit of every byte.
fn any_bit(name: &str, file: &[u8]) {
    let bits = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| move |byte: u8| byte ^ (1 << bit));
    let changes: Vec<Change<'_>> = bits.iter().map(|bit| bit as Change<'_>).collect();
    change_bytes(name, file, &SectionKind::ALL, 1, &changes);
    cut_anywhere(file, 1);
}

/// Every other value of every byte.
fn any_value(name: &str, file: &[u8], kinds: &[SectionKind]) {
    const OTHERS: RangeInclusive<u8> = 1..=u8::MAX;
    let values: Vec<_> = OTHERS.map(|change| move |byte: u8| byte ^ change).collect();
    let changes: Vec<Change<'_>> = values.iter().map(|value| value as Change<'_>).collect();
    change_bytes(name, file, kinds, 1, &changes);
}

// All of these: cargo test -p kinglet-runtime --test hostile_model -- --ignored --nocapture --test-threads 1

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
