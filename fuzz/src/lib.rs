//! What the fuzz targets share: models in aligned memory, with checksums that are right whatever was changed.

use kinglet_model_format::pack::{Checkpoint, pack};
use kinglet_model_format::{ALIGNMENT, MAGIC, Model, SectionKind, VERSION};
use std::path::{Path, PathBuf};

const HEADER: usize = 64;
const ENTRY: usize = 32;
const TABLE_END: usize = HEADER + SectionKind::ALL.len() * ENTRY;

/// Bytes on a boundary that a model may begin on.
pub struct Aligned {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let mut storage = vec![0; bytes.len() + ALIGNMENT];
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        storage[start..start + bytes.len()].copy_from_slice(bytes);
        Self { storage, start, length: bytes.len() }
    }

    /// The copy.
    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

/// Puts magic, version, length and every checksum right, so that a change reaches the rules behind them. The places of
/// the sections stay what the bytes say.
pub fn mend(bytes: &mut [u8]) {
    let length = bytes.len();
    if length < TABLE_END {
        return;
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    for index in 0..SectionKind::ALL.len() {
        let entry = HEADER + index * ENTRY;
        let field = |at: usize| {
            let word = bytes[entry + at..entry + at + 8].try_into().expect("eight bytes");
            usize::try_from(u64::from_le_bytes(word)).unwrap_or(usize::MAX)
        };
        let (first, size) = (field(8), field(16));
        let end = first.saturating_add(size);
        if let Some(section) = bytes.get(first..end) {
            let sum = crc32fast::hash(section);
            bytes[entry + 4..entry + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    let sum = crc32fast::hash(&bytes[16..TABLE_END]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}

/// Folder of a checkpoint among the test data.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// A tiny model, packed.
pub fn packed(name: &str) -> Vec<u8> {
    let checkpoint = Checkpoint::open(&fixture(name)).expect("the fixture is a checkpoint");
    pack(&checkpoint, &mut |_, _| ()).expect("the fixture packs").bytes
}

/// Touches everything that a reader of a model can ask for.
pub fn visit(model: &Model<'_>) -> usize {
    let tensors: usize = model
        .tensors()
        .iter()
        .map(|tensor| tensor.stored_bytes() + usize::from(tensor.matrix().is_some()))
        .sum();
    let slots = model.layers().iter().flat_map(|layer| layer.slots()).count();
    tensors + slots + model.encoder_blocks().count() + model.decoder_blocks().count()
}
