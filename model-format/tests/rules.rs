//! Each rule of FORMAT.md, broken by itself, is refused with its own error: one test a variant of [`Rule`].
#![cfg(feature = "pack")]

mod common;

use common::{ENTRY, HEADER, TABLE_END, Victim, mend, models};
use kinglet_model_format::pack::PackError;
use kinglet_model_format::{FormatError, IndexError, Model, Part, Role, Rule, SectionKind, TensorKind};

/// Places of sections in the file.
type Sections = [(usize, usize); SectionKind::ALL.len()];

/// What is said of `file` once `change` was made to it and its checksums mended.
fn refusal(file: &[u8], change: impl FnOnce(&mut Vec<u8>, Sections)) -> FormatError {
    let mut bytes = file.to_vec();
    change(&mut bytes, Victim::new(file).sections());
    mend(&mut bytes);
    Model::parse(Victim::new(&bytes).bytes()).expect_err("a broken rule")
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) {
    bytes[place..place + value.len()].copy_from_slice(value);
}

/// The model `tiny` with bytes of one section changed breaks `rule` there.
#[track_caller]
fn check(section: SectionKind, place: usize, value: &[u8], rule: Rule) {
    let error = refusal(&models::packed("tiny"), |bytes, sections| {
        put(bytes, sections[section as usize].0 + place, value);
    });
    assert_eq!(error, FormatError::Section { section, rule });
}

/// `file`, changed at a place in its layers, breaks `rule` there.
#[track_caller]
fn check_layer(file: &[u8], place: impl FnOnce(&Victim) -> usize, value: &[u8], rule: Rule) {
    let place = place(&Victim::new(file));
    let error = refusal(file, |bytes, _| put(bytes, place, value));
    assert_eq!(error, FormatError::Section { section: SectionKind::Layers, rule });
}

const MOST: [u8; 4] = u32::MAX.to_le_bytes();
/// Of the first tensor's record: its group, and offset and length of its values.
const GROUP: usize = 8 + 12;
const VALUES: usize = 8 + 16;
/// The first encoder block of `tiny`, behind its convolutions, and the norm behind its encoder.
const BLOCK: usize = 3;
const NORM: usize = 5;

#[test]
fn truncated() {
    let error = refusal(&models::packed("tiny"), |bytes, _| {
        bytes.truncate(TABLE_END - 1);
        let length = (bytes.len() as u64).to_le_bytes();
        put(bytes, 16, &length);
    });
    assert_eq!(error, FormatError::Header(Rule::Truncated));
    check(SectionKind::Tensors, 0, &60_000u32.to_le_bytes(), Rule::Truncated);
}

#[test]
fn trailing() {
    let error = refusal(&models::packed("tiny"), |bytes, _| bytes.extend([0; 64]));
    assert_eq!(error, FormatError::Header(Rule::Trailing));
}

#[test]
fn reserved() {
    let error = refusal(&models::packed("tiny"), |bytes, _| put(bytes, 24, &[1]));
    assert_eq!(error, FormatError::Header(Rule::Reserved));
    check(SectionKind::Config, 12, &[1], Rule::Reserved);
    check(SectionKind::Tensors, 4, &[1], Rule::Reserved);
    check(SectionKind::Layers, 4, &[1], Rule::Reserved);
}

#[test]
fn checksum() {
    let mut file = Victim::new(&models::packed("tiny"));
    let (place, _) = file.sections()[SectionKind::Layers as usize];
    file.flip(place, 1);
    let error = FormatError::Section { section: SectionKind::Layers, rule: Rule::Checksum };
    assert_eq!(Model::parse(file.bytes()).err(), Some(error));
}

#[test]
fn section_order() {
    let error = refusal(&models::packed("tiny"), |bytes, _| put(bytes, HEADER + ENTRY, &[3]));
    assert_eq!(error, FormatError::Header(Rule::SectionOrder));
    let error = refusal(&models::packed("tiny"), |bytes, _| put(bytes, 10, &[5]));
    assert_eq!(error, FormatError::Header(Rule::SectionOrder));
}

#[test]
fn range() {
    check(SectionKind::Config, 4, &[0; 4], Rule::Range("sample_rate"));
    check(SectionKind::Config, 128, &[0; 4], Rule::Range("vocabulary"));
    check(SectionKind::Config, 132, &64u32.to_le_bytes(), Rule::Range("begin token"));
    check(SectionKind::Config, 136, &MOST, Rule::Range("end token"));
    check(SectionKind::Config, 140, &f32::NAN.to_le_bytes(), Rule::Range("max_per_second"));
    for (place, name) in [
        (0, "layers"),
        (4, "width"),
        (8, "heads"),
        (12, "head_width"),
        (16, "feed_forward"),
        (32, "rotary_base"),
        (36, "norm_epsilon"),
    ] {
        for stack in [32, 80] {
            check(SectionKind::Config, stack + place, &[0; 4], Rule::Range(name));
            check(SectionKind::Config, stack + place, &MOST, Rule::Range(name));
        }
    }
}

/// A block's feed-forward network may be narrower than the config says, never wider.
#[test]
fn feed_forward_width() {
    let rule = Rule::SlotShape { layer: BLOCK as u32, role: "feed-forward up" };
    let error = refusal(&models::packed("tiny"), |bytes, sections| {
        put(bytes, sections[SectionKind::Config as usize].0 + 32 + 16, &47u32.to_le_bytes());
    });
    assert_eq!(error, FormatError::Section { section: SectionKind::Layers, rule });
    let file = models::packed("tiny-merged");
    let victim = Victim::new(&file);
    let model = Model::parse(victim.bytes()).expect("whole");
    let widths: Vec<usize> = model.encoder_blocks().map(|block| block.feed_forward.middle).collect();
    assert_eq!((widths, model.config().encoder.feed_forward), (vec![32, 20, 48], 48));
}

#[test]
fn code() {
    check(SectionKind::Config, 0, &[9], Rule::Code("frontend"));
    check(SectionKind::Config, 32 + 20, &[4], Rule::Code("activation"));
    check(SectionKind::Config, 32 + 24, &[0], Rule::Code("positions"));
    check(SectionKind::Tensors, 8, &[0xFF], Rule::Code("tensor kind"));
    check(SectionKind::Tensors, 9, &[4], Rule::Code("block shape"));
    check(SectionKind::Layers, 8, &MOST, Rule::Code("layer kind"));
    check(SectionKind::Layers, 8 + 32, &[0xFF], Rule::Code("role"));
    check(SectionKind::Layers, 8 + 34, &[0xFF], Rule::Code("part"));
}

#[test]
fn tensor_place() {
    check(SectionKind::Tensors, VALUES, &[1], Rule::TensorPlace(0));
    check(SectionKind::Tensors, VALUES, &u64::MAX.to_le_bytes(), Rule::TensorPlace(0));
}

#[test]
fn tensor_length() {
    check(SectionKind::Tensors, VALUES + 8, &[1], Rule::TensorLength(0));
    check(SectionKind::Tensors, VALUES + 8, &u64::MAX.to_le_bytes(), Rule::TensorLength(0));
}

#[test]
fn tensor_shape() {
    check(SectionKind::Tensors, 9, &[1], Rule::TensorShape(0));
}

/// A model with an int4 and an int8 matrix, the id of the first one of this kind, and where its record and its scales begin.
fn first(kind: TensorKind) -> (Vec<u8>, u32, usize, usize) {
    let (_, file) =
        models::all().into_iter().find(|(name, _)| *name == "tiny-odd-int4").expect("it is there");
    let victim = Victim::new(&file);
    let model = Model::parse(victim.bytes()).expect("whole");
    let id = model.tensors().iter().position(|tensor| tensor.kind == kind).expect("such a matrix");
    let sections = victim.sections();
    let record = sections[SectionKind::Tensors as usize].0 + 8 + 64 * id;
    let offset = victim.bytes()[record + 32..record + 40].try_into().expect("eight bytes");
    let scales = sections[SectionKind::Data as usize].0 + u64::from_le_bytes(offset) as usize;
    (file, id as u32, record, scales)
}

#[test]
fn group() {
    check(SectionKind::Tensors, GROUP, &[16], Rule::Group(0));
    let (file, id, record, _) = first(TensorKind::Int4);
    for group in [0u32, 8, 40, (1 << 16) + 16, 1 << 24] {
        let error = refusal(&file, |bytes, _| put(bytes, record + 12, &group.to_le_bytes()));
        let expected = FormatError::Section { section: SectionKind::Tensors, rule: Rule::Group(id) };
        assert_eq!(error, expected, "{group}");
    }
}

#[test]
fn multiplier() {
    let (file, id, _, scales) = first(TensorKind::Int4);
    let outputs = Model::parse(Victim::new(&file).bytes())
        .expect("whole")
        .tensors()
        .get(id)
        .expect("it is there")
        .outputs;
    let multipliers = scales + 4 * outputs.next_multiple_of(16);
    // One of the first group's two that share a byte, then the other.
    for pair in [0x10, 0x0f] {
        let error = refusal(&file, |bytes, _| put(bytes, multipliers, &[pair]));
        let rule = Rule::Multiplier(id);
        assert_eq!(error, FormatError::Section { section: SectionKind::Tensors, rule });
    }
}

#[test]
fn not_finite() {
    let error = refusal(&models::packed_as_floats("tiny"), |bytes, sections| {
        put(bytes, sections[SectionKind::Data as usize].0, &f32::NAN.to_le_bytes());
    });
    // Values are held against the record that describes them.
    assert_eq!(error, FormatError::Section { section: SectionKind::Tensors, rule: Rule::NotFinite(0) });
    let (file, id, _, scales) = first(TensorKind::Int8);
    let error = refusal(&file, |bytes, _| put(bytes, scales, &f32::INFINITY.to_le_bytes()));
    assert_eq!(error, FormatError::Section { section: SectionKind::Tensors, rule: Rule::NotFinite(id) });
}

#[test]
fn index() {
    let file = models::memory();
    let victim = Victim::new(&file);
    let model = Model::parse(victim.bytes()).expect("a model");
    let blocks = |index: &[u8]| usize::from(u16::from_le_bytes([index[0], index[1]]));
    // The first sparse matrix whose first row of blocks has at least two.
    let records = victim.sections()[SectionKind::Tensors as usize].0 + 8;
    let (data, _) = victim.sections()[SectionKind::Data as usize];
    let (tensor, index) = (0..model.tensors().len())
        .filter(|id| model.tensors().get(*id as u32).is_some_and(|tensor| tensor.block.is_some()))
        .map(|id| {
            let record = &victim.bytes()[records + 64 * id..][..64];
            let offset = u64::from_le_bytes(record[48..56].try_into().expect("eight bytes"));
            (id, data + offset as usize)
        })
        .find(|(_, index)| blocks(&victim.bytes()[*index..]) >= 2)
        .expect("a matrix in blocks");
    let outputs = model.tensors().get(tensor as u32).expect("it is there").outputs;
    let columns = index + 2 * outputs.div_ceil(4);
    let [first, second] = [victim.bytes()[columns], victim.bytes()[columns + 1]];
    let count = victim.bytes()[index];
    for (place, value, error) in [
        (index, vec![count - 1], IndexError::Length),
        (index, vec![0xFF; 2], IndexError::Count),
        (columns, vec![second, first], IndexError::Order),
        (columns + usize::from(count) - 1, vec![0xFF], IndexError::Range),
    ] {
        let refused = refusal(&file, |bytes, _| put(bytes, place, &value));
        let rule = Rule::Index { tensor: tensor as u32, error };
        assert_eq!(refused, FormatError::Section { section: SectionKind::Tensors, rule });
    }
}

#[test]
fn tensor_missing() {
    let tensor = u32::MAX;
    check(SectionKind::Layers, 8 + 32 + 4, &MOST, Rule::TensorMissing { layer: 0, tensor });
}

#[test]
fn slot_missing() {
    let file = models::packed("tiny");
    let rule = Rule::SlotMissing { layer: 1, role: Role::Kernel.name() };
    let group_norm = [16, 0];
    check_layer(&file, |file| file.slot(1, Role::Kernel, Part::Weight), &group_norm, rule);
}

#[test]
fn slot_repeated() {
    let file = models::packed("tiny");
    let query = [2, 0];
    let rule = Rule::SlotRepeated { layer: BLOCK as u32 };
    check_layer(&file, |file| file.slot(BLOCK, Role::Key, Part::Weight), &query, rule);
}

#[test]
fn slot_unknown() {
    let file = models::packed("tiny");
    let query = [2, 0];
    let rule = Rule::SlotUnknown { layer: 1 };
    check_layer(&file, |file| file.slot(1, Role::Kernel, Part::Weight), &query, rule);
}

#[test]
fn slot_shape() {
    let file = models::packed("tiny");
    let rule = Rule::SlotShape { layer: NORM as u32, role: Role::FinalNorm.name() };
    check_layer(&file, |file| file.slot(NORM, Role::FinalNorm, Part::Weight) + 4, &[0; 4], rule);
}

#[test]
fn not_shared() {
    let shared = models::all().into_iter().find(|(name, _)| *name == "tiny-shared").expect("it is there").1;
    let victim = Victim::new(&shared);
    let key = victim.slot(BLOCK + 1, Role::Key, Part::Weight) + 4;
    let key = victim.bytes()[key..key + 4].to_vec();
    let rule = Rule::NotShared { layer: BLOCK as u32, role: Role::Query.name() };
    check_layer(&shared, |file| file.slot(BLOCK + 1, Role::Query, Part::Weight) + 4, &key, rule);
}

#[test]
fn layer_order() {
    let file = models::packed("tiny");
    let encoder_block = [2];
    check_layer(&file, |file| file.layer(0), &encoder_block, Rule::LayerOrder);
    // A convolution less than there are layers.
    let error = refusal(&file, |bytes, sections| {
        put(bytes, sections[SectionKind::Config as usize].0 + 8, &2u32.to_le_bytes());
    });
    assert_eq!(error, FormatError::Section { section: SectionKind::Layers, rule: Rule::LayerOrder });
}

/// The third parameter of a layer, which of an encoder block is how many frames it merges.
fn merge_of(file: &Victim, layer: usize) -> usize {
    file.layer(layer) + 16
}

#[test]
fn merged_frames() {
    let file = models::packed("tiny");
    for merge in [1, 17, u32::MAX] {
        let place = |file: &Victim| merge_of(file, BLOCK);
        check_layer(&file, place, &merge.to_le_bytes(), Rule::Range("merged frames"));
    }
    let places = [BLOCK, BLOCK + 1].map(|layer| merge_of(&Victim::new(&file), layer));
    for (merge, merged) in [([2, 16], Some(32)), ([16, 4], Some(64)), ([13, 5], None)] {
        let mut changed = file.clone();
        for (place, merge) in places.into_iter().zip(merge) {
            put(&mut changed, place, &[merge]);
        }
        mend(&mut changed);
        let rule = Rule::Range("merged frames");
        let error = FormatError::Section { section: SectionKind::Layers, rule };
        let victim = Victim::new(&changed);
        assert_eq!(Model::parse(victim.bytes()).map(|model| model.merged_frames()), merged.ok_or(error));
    }
}

#[test]
fn merged_chunks() {
    let rule = Rule::MergedChunks { layer: 2 };
    check_layer(&models::memory(), |file| merge_of(file, 2), &[2], rule);
}

#[test]
fn deaf() {
    let error = models::deaf();
    let rule = Rule::Deaf;
    let expected = FormatError::Section { section: SectionKind::Layers, rule };
    assert!(matches!(error, PackError::Refused(refused) if refused == expected), "{error}");
}

#[test]
fn offset_order() {
    check(SectionKind::Vocabulary, 4, &[1], Rule::OffsetOrder);
    check(SectionKind::Vocabulary, 8, &MOST, Rule::OffsetOrder);
    check(SectionKind::Texts, 0, &[1], Rule::OffsetOrder);
}

#[test]
fn text() {
    check(SectionKind::Texts, 20, &[0xFF], Rule::Text);
}
