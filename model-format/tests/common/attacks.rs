//! What loaders of model files have fallen for, each as a change to a valid file, its checksums mended.

use super::victim::{ENTRY, HEADER, TABLE_END, Victim, mend};
use kinglet_model_format::SectionKind;

/// A damaged file and what was done to it.
pub struct Attack {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Words in the sections whose places FORMAT.md fixes.
mod field {
    /// Of `config`.
    pub const SAMPLE_RATE: usize = 4;
    pub const ENCODER: usize = 32;
    pub const DECODER: usize = 80;
    pub const VOCABULARY: usize = 128;
    pub const BEGIN: usize = 132;
    pub const END: usize = 136;
    pub const MAX_PER_SECOND: usize = 140;
    /// Of the encoder or the decoder.
    pub const LAYERS: usize = 0;
    pub const WIDTH: usize = 4;
    pub const HEADS: usize = 8;
    pub const ROTARY_BASE: usize = 32;
    /// Of the first tensor's record, behind the count.
    pub const BLOCK: usize = 8 + 1;
    pub const OUTPUTS: usize = 8 + 4;
    pub const GROUP: usize = 8 + 12;
    pub const VALUES_OFFSET: usize = 8 + 16;
    pub const VALUES_LENGTH: usize = 8 + 24;
    pub const SCALES_OFFSET: usize = 8 + 32;
    pub const INDEX_OFFSET: usize = 8 + 48;
    pub const INDEX_LENGTH: usize = 8 + 56;
    /// Of the first layer, behind the count.
    pub const SLOTS: usize = 8 + 4;
    pub const PARAMETERS: usize = 8 + 8;
    pub const FIRST_ROLE: usize = 8 + 32;
    pub const FIRST_TENSOR: usize = 8 + 32 + 4;
}

/// Every attack on `file`, a whole model.
pub fn attacks(file: &[u8]) -> Vec<Attack> {
    let sections = Victim::new(file).sections();
    let [config, tensors, layers, vocabulary, texts, data] = sections.map(|(first, _)| first);
    let entry = |kind: SectionKind| HEADER + kind as usize * ENTRY;
    let (encoder, decoder) = (config + field::ENCODER, config + field::DECODER);
    let [most, long, zero] = [u32::MAX.to_le_bytes(), (u32::MAX / 2 + 1).to_le_bytes(), [0; 4]];
    let farthest = u64::MAX.to_le_bytes();
    let place = |offset: usize| (offset as u64).to_le_bytes();
    let mut found = Vec::new();
    let mut change = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = file.to_vec();
        if let Some(place) = changed.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            mend(&mut changed);
            found.push(Attack { name: name.into(), bytes: changed });
        }
    };
    // Counts that overrun what is read into.
    change("many-tensors", tensors, &most);
    change("tensors-times-record-overflows", tensors, &(u32::MAX / 64 + 1).to_le_bytes());
    change("many-layers", layers, &most);
    change("many-slots", layers + field::SLOTS, &most);
    change("no-slots", layers + field::SLOTS, &zero);
    change("many-tokens", vocabulary, &most);
    change("half-of-all-tokens", vocabulary, &long);
    change("many-encoder-blocks", encoder + field::LAYERS, &256u32.to_le_bytes());
    // Sizes that divide, allocate or loop.
    change("no-heads", encoder + field::HEADS, &zero);
    change("wide-encoder", encoder + field::WIDTH, &most);
    change("no-width", decoder + field::WIDTH, &zero);
    change("no-sample-rate", config + field::SAMPLE_RATE, &zero);
    change("endless-tokens", config + field::MAX_PER_SECOND, &f32::INFINITY.to_le_bytes());
    change("tokens-not-a-number", config + field::MAX_PER_SECOND, &f32::NAN.to_le_bytes());
    change("angles-not-a-number", encoder + field::ROTARY_BASE, &f32::NAN.to_le_bytes());
    change("no-stride", layers + field::PARAMETERS + 4, &zero);
    // A vocabulary smaller than what points into it.
    change("small-vocabulary", config + field::VOCABULARY, &1u32.to_le_bytes());
    change("begin-beyond-vocabulary", config + field::BEGIN, &most);
    change("end-beyond-vocabulary", config + field::END, &most);
    // Shapes whose product overflows, and lengths and offsets of 2^32 - 1 and 2^64 - 1.
    let widest = [0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0];
    change("shape-overflows", tensors + field::OUTPUTS, &widest);
    change("shape-of-four-billion", tensors + field::OUTPUTS, &[0xFF; 8]);
    change("no-shape", tensors + field::OUTPUTS, &[0; 8]);
    change("wide-group", tensors + field::GROUP, &most);
    change("tensor-at-the-end-of-memory", tensors + field::VALUES_OFFSET, &farthest);
    change("tensor-longer-than-memory", tensors + field::VALUES_LENGTH, &farthest);
    change("tensor-of-four-billion", tensors + field::VALUES_LENGTH, &place(u32::MAX as usize));
    change("tensor-not-aligned", tensors + field::VALUES_OFFSET, &place(1));
    change("scales-upon-values", tensors + field::SCALES_OFFSET, &place(64));
    change("index-at-the-end-of-memory", tensors + field::INDEX_OFFSET, &farthest);
    change("index-longer-than-memory", tensors + field::INDEX_LENGTH, &farthest);
    for code in 1..=4 {
        change(&format!("kind-{code}-in-blocks"), tensors + field::BLOCK, &[code]);
    }
    for kind in (0..=11).chain([0xFF]) {
        change(&format!("first-tensor-of-kind-{kind}"), tensors + 8, &[kind]);
    }
    // Indices that are used before they are compared.
    change("tensor-beyond-all", layers + field::FIRST_TENSOR, &most);
    change("role-beyond-all", layers + field::FIRST_ROLE, &[0xFF; 4]);
    change("layer-of-no-kind", layers + 8, &most);
    change("strings-reversed", vocabulary + 8, &most);
    change("texts-reversed", texts + 4, &most);
    // Sections that overlap, run backwards or end beyond the file.
    change("section-reversed", entry(SectionKind::Config) + 8, &place(data));
    change("section-overlaps", entry(SectionKind::Tensors) + 8, &place(config));
    change("section-upon-header", entry(SectionKind::Data) + 8, &place(0));
    change("section-longer-than-memory", entry(SectionKind::Data) + 16, &farthest);
    change("section-of-four-billion", entry(SectionKind::Data) + 16, &place(u32::MAX as usize));
    change("section-repeated", entry(SectionKind::Layers), &1u32.to_le_bytes());
    change("no-section", entry(SectionKind::Texts) + 16, &place(0));
    // Weights that are none.
    change("weights-not-a-number", data, &f32::NAN.to_le_bytes());
    change("weights-without-end", data, &f32::INFINITY.to_le_bytes());
    for (kind, (place, end)) in SectionKind::ALL.into_iter().zip(sections) {
        for (name, length) in [("before", place), ("within", place.midpoint(end))] {
            let mut cut = file[..length].to_vec();
            mend(&mut cut);
            found.push(Attack { name: format!("cut-{name}-{kind}"), bytes: cut });
        }
    }
    for length in [0, 1, 8, 63, 64, TABLE_END - 1, TABLE_END] {
        let mut cut = file[..length].to_vec();
        mend(&mut cut);
        found.push(Attack { name: format!("{length}-bytes"), bytes: cut });
    }
    found
}
