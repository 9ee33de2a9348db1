//! A damaged file is refused, and the message says where.
#![cfg(feature = "pack")]

mod common;

use common::attacks::attacks;
use common::{Victim, models, visit};
use kinglet_model_format::{FormatError, MAGIC, Model, SectionKind, Verify};

fn tiny() -> Victim {
    Victim::new(&models::packed("tiny-odd"))
}

#[test]
fn models_of_every_kind_can_be_walked_through() {
    for (name, file) in models::all() {
        assert!(visit(&Model::parse(Victim::new(&file).bytes()).expect(name)) > 0);
    }
}

#[test]
fn a_changed_byte_is_found() {
    let mut file = tiny();
    let data = Model::parse(file.bytes()).expect("a model").sections()[SectionKind::Data as usize].offset;
    // Every byte of header and tables, and some hundreds of the weights, each of which costs a checksum of all.
    let length = file.bytes().len();
    for position in (0..data).chain((data..length).step_by(389)) {
        file.flip(position, 1 << (position % 8));
        assert!(Model::parse(file.bytes()).is_err(), "byte {position}");
        file.flip(position, 1 << (position % 8));
    }
    assert!(Model::parse(file.bytes()).is_ok());
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let file = tiny();
    for length in (0..file.bytes().len()).step_by(61) {
        assert!(Model::parse(&file.bytes()[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn messages_say_what_is_wrong() {
    let mut file = tiny();
    let message = |file: &Victim| Model::parse(file.bytes()).expect_err("damaged").to_string();
    file.flip(0, 1);
    assert_eq!(message(&file), "not a Kinglet model: it does not begin with the magic bytes");
    file.flip(0, 1);
    for (bit, words) in [
        (1, "model has format version 3, this program reads version 2: update the program"),
        (3, "model has format version 1, this program reads version 2: pack the model anew"),
    ] {
        file.flip(MAGIC.len(), bit);
        assert_eq!(message(&file), words);
        file.flip(MAGIC.len(), bit);
    }
    file.flip(64, 1);
    assert_eq!(message(&file), "model is damaged: header, its checksum is wrong");
    file.flip(64, 1);
    for (kind, name) in
        SectionKind::ALL.into_iter().zip(["config", "tensors", "layers", "vocabulary", "texts", "data"])
    {
        let offset = Model::parse(file.bytes()).expect("whole").sections()[kind as usize].offset;
        file.flip(offset, 1);
        assert_eq!(message(&file), format!("model is damaged: section `{name}`, its checksum is wrong"));
        file.flip(offset, 1);
    }
}

#[test]
fn the_checksum_of_the_weights_can_be_left_out() {
    let mut file = tiny();
    let last = file.bytes().len() - 1;
    file.flip(last, 1);
    assert!(matches!(
        Model::parse(file.bytes()),
        Err(FormatError::Section { section: SectionKind::Data, .. })
    ));
    assert!(Model::parse_with(file.bytes(), Verify::Tables).is_ok());
}

#[test]
fn bytes_that_begin_elsewhere_are_refused() {
    let file = tiny();
    let mut storage = vec![0; file.bytes().len() + 128];
    let start = storage.as_ptr().align_offset(64) + 8;
    storage[start..start + file.bytes().len()].copy_from_slice(file.bytes());
    assert_eq!(Model::parse(&storage[start..start + file.bytes().len()]).err(), Some(FormatError::Unaligned));
}

#[test]
fn what_other_loaders_fell_for_is_refused_or_can_be_walked_through() {
    for file in [models::memory(), models::kaldi()] {
        assert!(visit(&Model::parse(Victim::new(&file).bytes()).expect("whole")) > 0);
        let attacks = attacks(&file);
        let accepted = attacks.iter().filter(|attack| {
            let victim = Victim::new(&attack.bytes);
            Model::parse(victim.bytes()).is_ok_and(|model| visit(&model) > 0)
        });
        // What changes nothing that has a rule, such as the kind that the first tensor has anyway.
        assert!(accepted.count() < 8);
    }
}
