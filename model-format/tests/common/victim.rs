//! A file in aligned memory whose checksums are right whatever was changed.

use kinglet_model_format::{ALIGNMENT, MAGIC, Model, Part, Role, SectionKind, VERSION};

/// Where the section table begins.
pub const HEADER: usize = 64;
/// Bytes of a section in it.
pub const ENTRY: usize = 32;
/// Where it ends.
pub const TABLE_END: usize = HEADER + SectionKind::ALL.len() * ENTRY;

/// A copy of a file on a boundary that a model may begin on.
pub struct Victim {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl Victim {
    pub fn new(bytes: &[u8]) -> Self {
        let mut storage = vec![0; bytes.len() + ALIGNMENT];
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        storage[start..start + bytes.len()].copy_from_slice(bytes);
        Self { storage, start, length: bytes.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }

    pub fn flip(&mut self, position: usize, mask: u8) {
        self.bytes_mut()[position] ^= mask;
    }

    /// Where each section begins and ends. The file must be whole.
    pub fn sections(&self) -> [(usize, usize); SectionKind::ALL.len()] {
        let model = Model::parse(self.bytes()).expect("whole");
        SectionKind::ALL.map(|kind| {
            let section = model.sections()[kind as usize];
            (section.offset, section.offset + section.bytes.len())
        })
    }

    /// Where the record of a layer begins. The file must be whole.
    pub fn layer(&self, index: usize) -> usize {
        let model = Model::parse(self.bytes()).expect("whole");
        let before = model.layers().iter().take(index).map(|layer| 32 + 8 * layer.slots().count());
        model.sections()[SectionKind::Layers as usize].offset + 8 + before.sum::<usize>()
    }

    /// Where a slot of a layer begins. The file must be whole.
    pub fn slot(&self, layer: usize, role: Role, part: Part) -> usize {
        let model = Model::parse(self.bytes()).expect("whole");
        let layers = model.layers();
        let mut slots = layers.iter().nth(layer).expect("a layer").slots();
        let place = slots.position(|slot| slot.role == role && slot.part == part).expect("a slot");
        self.layer(layer) + 32 + 8 * place
    }

    /// Puts the checksums of section `index` and of the header right.
    pub fn mend_section(&mut self, index: usize, (first, end): (usize, usize)) {
        let bytes = self.bytes_mut();
        let sum = crc32fast::hash(&bytes[first..end]);
        bytes[HEADER + index * ENTRY + 4..][..4].copy_from_slice(&sum.to_le_bytes());
        mend_header(bytes);
    }

    /// The file cut to `length`, its sections and their checksums as if it had always been so.
    pub fn cut(&mut self, sections: &[(usize, usize)], length: usize) {
        self.length = length;
        let bytes = self.bytes_mut();
        bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
        for (index, &(first, end)) in sections.iter().enumerate() {
            let (first, end) = (first.min(length), end.min(length));
            let sum = crc32fast::hash(&bytes[first..end]);
            let entry = &mut bytes[HEADER + index * ENTRY..][..ENTRY];
            entry[4..8].copy_from_slice(&sum.to_le_bytes());
            entry[8..16].copy_from_slice(&(first as u64).to_le_bytes());
            entry[16..24].copy_from_slice(&((end - first) as u64).to_le_bytes());
        }
        mend_header(bytes);
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
        if let Some(section) = bytes.get(first..first.saturating_add(size)) {
            let sum = crc32fast::hash(section);
            bytes[entry + 4..entry + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    mend_header(bytes);
}

fn mend_header(bytes: &mut [u8]) {
    let sum = crc32fast::hash(&bytes[16..TABLE_END]);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
}
