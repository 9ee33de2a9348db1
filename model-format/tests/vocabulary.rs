//! Tokens that share beginnings: what is packed is what is read, and a file whose counts do not fit is refused.
#![cfg(feature = "pack")]

mod common;

use common::{Victim, models};
use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_model_format::{Model, SectionKind};

/// Tokens of the fixture `tiny`.
const COUNT: usize = 64;
const SECTION: usize = SectionKind::Vocabulary as usize;
/// Places in the section, behind the count and one place of bytes.
const LENGTHS: usize = 8;
const SHARED: usize = LENGTHS + COUNT;

/// The fixture with another vocabulary, packed.
fn packed(name: &str, pieces: &[Vec<u8>]) -> Victim {
    let folder = std::env::temp_dir().join(format!("kinglet-vocabulary-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let tiny = models::fixture("tiny");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(tiny.join(file), folder.join(file)).expect("copied");
    }
    let hex = |piece: &Vec<u8>| piece.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    std::fs::write(folder.join("vocabulary.txt"), pieces.iter().map(hex).collect::<String>())
        .expect("written");
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    let bytes = pack(&checkpoint, &mut |_, _| ()).expect("it packs").bytes;
    std::fs::remove_dir_all(&folder).expect("removed");
    Victim::new(&bytes)
}

/// Holds the tokens of a file against `pieces`, and returns the bytes of its section.
fn check(file: &Victim, pieces: &[Vec<u8>]) -> usize {
    let model = Model::parse(file.bytes()).expect("whole");
    let vocabulary = model.vocabulary();
    assert_eq!(vocabulary.len(), pieces.len());
    assert_eq!(vocabulary.longest(), pieces.iter().map(Vec::len).max().unwrap_or(0));
    for (token, piece) in pieces.iter().enumerate() {
        assert!(vocabulary.piece(token as u32).into_iter().eq(piece.iter().copied()), "{token}: {piece:?}");
    }
    for beyond in [pieces.len() as u32, u32::MAX] {
        assert_eq!(vocabulary.piece(beyond).into_iter().count(), 0);
    }
    model.sections()[SECTION].bytes.len()
}

/// In the order of their bytes behind three special ones: long and short, equal, more than 15 bytes in common, several runs of letters.
fn in_order() -> Vec<Vec<u8>> {
    let long = "a beginning that is longer than can be shared";
    let mut pieces: Vec<Vec<u8>> = (0..20).map(|length| long.as_bytes()[..2 * length + 1].to_vec()).collect();
    pieces.extend((b'b'..=b'w').map(|letter| [b" under", &[letter][..]].concat()));
    pieces.extend([vec![0xe2, 0x82, 0xac], vec![0xe2, 0x82], vec![0xff; 255], vec![b'z']]);
    let rest = COUNT - 3 - pieces.len();
    pieces.extend(std::iter::repeat_n(b"same".to_vec(), rest));
    pieces.sort();
    [vec![Vec::new(); 3], pieces].concat()
}

#[test]
fn pieces_come_back() {
    let pieces = in_order();
    let shared = check(&packed("order", &pieces), &pieces);
    let mut mixed = pieces;
    // By their ends: neighbours begin with little in common.
    mixed.sort_by_key(|piece| piece.iter().rev().copied().collect::<Vec<u8>>());
    mixed[3..].rotate_left(7);
    let plain = check(&packed("mixed", &mixed), &mixed);
    assert!(shared + 100 < plain, "{shared} and {plain}");
}

#[test]
fn counts_that_do_not_fit_are_refused() {
    let file = packed("damaged", &in_order());
    let section = file.sections()[SECTION];
    let byte = |place: usize| file.bytes()[section.0 + place];
    assert_eq!(byte(3), 0x80, "tokens share bytes");
    let refused = |place: usize, byte: u8| {
        let mut file = Victim::new(file.bytes());
        file.bytes_mut()[section.0 + place] = byte;
        file.mend_section(SECTION, section);
        let error = Model::parse(file.bytes()).expect_err("damaged").to_string();
        error.strip_prefix("model is damaged: section `vocabulary`, ").expect("of the vocabulary").to_string()
    };
    let order = "its offsets are out of order";
    // The first token shares a byte of what is before it, of which there is none; another more than the one before it has.
    assert_eq!(refused(SHARED, 1), order);
    assert_eq!(refused(SHARED + 2, byte(SHARED + 2) | 0xf0), order);
    // Not as many bytes as there are; the shared ones taken for bytes of tokens.
    assert_eq!(refused(LENGTHS + 40, byte(LENGTHS + 40) + 1), order);
    assert_eq!(refused(3, 0), order);
    assert_eq!(refused(3, 0xc0), "`vocabulary` is out of range");
}
