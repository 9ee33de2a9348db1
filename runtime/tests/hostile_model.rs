//! A model whose checksums are right but whose bytes are not: refused, or run to a finite result in bounded memory.
//!
//! `model-format/tests/damage.rs` shows that checksums find accidents. This test mends them after each change, as
//! somebody who means harm would.

use kinglet_kernels::Kernels;
use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_model_format::{Model, SectionKind};
use kinglet_runtime::{
    Decoding, EncoderStream, Limits, Transcriber, encoder_stream_memory, transcriber_memory,
};
use std::path::Path;

const HEADER: usize = 64;
const ENTRY: usize = 32;
const LIMITS: Limits = Limits { utterance_seconds: 1.0, beam: 2, decoding: Decoding::Attention };
/// A changed model may ask for more than the tiny one does; beyond this the caller would refuse.
const MOST_MEMORY: usize = 64 << 20;

/// A model in aligned memory that is changed byte by byte.
struct Victim {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Victim {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name);
        let checkpoint = Checkpoint::open(&folder).expect("the fixture is a checkpoint");
        let bytes = pack(&checkpoint, &mut |_, _| ()).expect("the fixture packs").bytes;
        let mut storage = vec![0; bytes.len() + 64];
        let start = storage.as_ptr().align_offset(64);
        storage[start..start + bytes.len()].copy_from_slice(&bytes);
        Self { storage, start, length: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }

    /// Where each section begins and ends.
    fn sections(&self) -> Vec<(usize, usize)> {
        let model = Model::parse(self.bytes()).expect("whole");
        model
            .sections()
            .iter()
            .map(|section| (section.offset, section.offset + section.bytes.len()))
            .collect()
    }

    /// Puts the checksums of section `index` and of the header right.
    fn mend(&mut self, index: usize, (first, end): (usize, usize)) {
        let bytes = self.bytes_mut();
        let sum = crc32fast::hash(&bytes[first..end]);
        let entry = HEADER + index * ENTRY;
        bytes[entry + 4..entry + 8].copy_from_slice(&sum.to_le_bytes());
        let sum = crc32fast::hash(&bytes[16..HEADER + SectionKind::ALL.len() * ENTRY]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What became of changed models.
#[derive(Default, Debug)]
struct Tally {
    refused: usize,
    too_large: usize,
    ran: usize,
}

impl Tally {
    /// Parses and runs whatever is accepted; panics where a promise is broken.
    fn try_out(&mut self, bytes: &[u8], audio: &[i16], region: &mut Vec<u8>) {
        let Ok(model) = Model::parse(bytes) else {
            self.refused += 1;
            return;
        };
        let needed = match transcriber_memory(&model, &LIMITS) {
            Ok(needed) if needed <= MOST_MEMORY => needed,
            _ => {
                self.too_large += 1;
                return;
            }
        };
        region.clear();
        region.resize(needed, 0xAA);
        let Ok(mut transcriber) = Transcriber::new(model, Kernels::detect(), LIMITS, region) else {
            self.refused += 1;
            return;
        };
        match transcriber.transcribe(audio) {
            Ok(transcript) => {
                assert!((0.0..=1.0).contains(&transcript.confidence()), "{}", transcript.confidence());
                for word in transcript.words() {
                    assert!(word.start_seconds.is_finite() && word.end_seconds.is_finite());
                    assert!((0.0..=1.0).contains(&word.confidence));
                }
                self.ran += 1;
            }
            Err(_) => self.refused += 1,
        }
        stream(model, region);
    }
}

/// Encodes as it arrives what the model's encoder may see; nothing may panic.
fn stream(model: Model<'_>, region: &mut Vec<u8>) {
    let Ok(needed) = encoder_stream_memory(&model) else { return };
    if needed > MOST_MEMORY {
        return;
    }
    region.clear();
    region.resize(needed, 0xAA);
    let Ok(mut stream) = EncoderStream::new(model, Kernels::detect(), region) else { return };
    let frames: Vec<f32> = (0..17 * model.encoder_inputs()).map(|i| (i as f32 * 0.7).sin()).collect();
    let mut values = 0;
    for piece in frames.chunks(5 * model.encoder_inputs()) {
        stream.push(piece, &mut |states| values += states.len()).expect("whole frames");
    }
    stream.finish(&mut |states| values += states.len()).expect("the rest");
    assert_eq!(values, 17 * model.config().encoder.width);
}

/// A chirp: something in every band.
fn audio() -> Vec<i16> {
    (0..8_000i32).map(|i| ((i * i / 64 % 20_000) - 10_000) as i16).collect()
}

/// Bytes of the sections `kinds`, `step` apart, with each of `changes` made to them.
fn change_bytes(name: &str, kinds: &[SectionKind], step: usize, changes: &[fn(u8) -> u8]) -> Tally {
    let mut victim = Victim::new(name);
    let (audio, sections) = (audio(), victim.sections());
    let mut region = Vec::new();
    let mut tally = Tally::default();
    for &kind in kinds {
        let (index, place) = (kind as usize, sections[kind as usize]);
        for position in (place.0..place.1).step_by(step) {
            let before = victim.bytes()[position];
            for change in changes {
                victim.bytes_mut()[position] = change(before);
                victim.mend(index, place);
                tally.try_out(victim.bytes(), &audio, &mut region);
            }
            victim.bytes_mut()[position] = before;
        }
        victim.mend(index, place);
    }
    assert!(Model::parse(victim.bytes()).is_ok(), "the test put everything back");
    println!("{name}, {kinds:?}: {tally:?}");
    tally
}

/// The file cut to `length`, its sections and their checksums as if it had always been so.
fn cut(victim: &mut Victim, sections: &[(usize, usize)], length: usize) {
    victim.length = length;
    let bytes = victim.bytes_mut();
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    for (index, &(first, end)) in sections.iter().enumerate() {
        let (first, end) = (first.min(length), end.min(length));
        let sum = crc32fast::hash(&bytes[first..end]);
        let entry = &mut bytes[HEADER + index * ENTRY..][..ENTRY];
        entry[4..8].copy_from_slice(&sum.to_le_bytes());
        entry[8..16].copy_from_slice(&(first as u64).to_le_bytes());
        entry[16..24].copy_from_slice(&((end - first) as u64).to_le_bytes());
    }
    let sum = crc32fast::hash(&bytes[16..HEADER + sections.len() * ENTRY]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_file_cut_short_is_refused_however_its_checksums_are_mended() {
    let mut victim = Victim::new("tiny-odd");
    let (sections, whole) = (victim.sections(), victim.length);
    cut(&mut victim, &sections, whole);
    assert!(Model::parse(victim.bytes()).is_ok(), "mending changes nothing that is whole");
    let data = sections[SectionKind::Data as usize].0;
    let tables_end = HEADER + sections.len() * ENTRY;
    for length in (tables_end..data).chain((data..whole).step_by(97)) {
        cut(&mut victim, &sections, length);
        assert!(Model::parse(victim.bytes()).is_err(), "{length} bytes of {whole}");
    }
}

#[test]
fn any_byte_of_the_tables_may_be_wrong() {
    use SectionKind::{Config, Layers, Tensors, Texts, Vocabulary};
    let changes: [fn(u8) -> u8; 4] = [|b| b ^ 1, |b| b ^ 0x80, |b| b.wrapping_add(1), |_| 0xFF];
    for name in ["tiny", "tiny-odd", "sanm-chunk", "shared"] {
        let tally = change_bytes(name, &[Config, Tensors, Layers, Vocabulary, Texts], 1, &changes);
        assert!(tally.refused > 0 && tally.ran > 0, "rules are checked, names are free: {tally:?}");
    }
}

#[test]
fn any_byte_of_the_weights_may_be_wrong() {
    let changes: [fn(u8) -> u8; 2] = [|_| 0x7F, |_| 0x80];
    let tally = change_bytes("tiny-odd", &[SectionKind::Data], 61, &changes);
    assert!(tally.ran > 0, "weights are free: {tally:?}");
}

#[test]
#[ignore = "minutes: cargo test --release -p kinglet-runtime --test hostile_model -- --ignored"]
fn any_bit_of_any_byte_may_be_wrong() {
    let bits: [fn(u8) -> u8; 8] =
        [|b| b ^ 1, |b| b ^ 2, |b| b ^ 4, |b| b ^ 8, |b| b ^ 16, |b| b ^ 32, |b| b ^ 64, |b| b ^ 128];
    for name in ["tiny", "tiny-odd", "sanm", "sanm-chunk", "shared"] {
        change_bytes(name, &SectionKind::ALL, 1, &bits);
    }
}
