//! Puts sections together: the mirror image of the readers.

use super::checkpoint::{Checkpoint, CheckpointConfig, Frontend, Stack};
use super::error::PackError;
use super::lay_out::{StoredTensor, TensorReport};
use crate::config::{Activation, Config, Positions};
use crate::layer::{LayerKind, Part, Role};
use crate::model::Model;
use crate::section::{ALIGNMENT, CHECKED_FROM, ENTRY_LENGTH, HEADER_LENGTH, MAGIC, SectionKind, VERSION};
use crate::sparse::BlockShape;
use crate::text::{MOST_SHARED, PIECES, SHARED};
use std::format;
use std::iter;
use std::vec::Vec;

/// The tensors of a layer: role, part, id.
pub(crate) type SlotList = Vec<(Role, Part, u32)>;

/// Collects tensors and layers, then writes the file.
pub(crate) struct Writer {
    tensors: Vec<StoredTensor>,
    layers: Vec<(LayerKind, [u32; 6], SlotList)>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { tensors: Vec::new(), layers: Vec::new() }
    }

    /// Adds a tensor and returns its id.
    pub(crate) fn tensor(&mut self, tensor: StoredTensor) -> u32 {
        self.tensors.push(tensor);
        self.tensors.len() as u32 - 1
    }

    pub(crate) fn layer(&mut self, kind: LayerKind, parameters: [u32; 6], slots: SlotList) {
        self.layers.push((kind, parameters, slots));
    }

    pub(crate) fn reports(&self) -> Vec<TensorReport> {
        self.tensors.iter().map(|tensor| tensor.report.clone()).collect()
    }

    /// Writes the file and reads it back: what the reader would refuse is never returned.
    pub(crate) fn finish(&self, checkpoint: &Checkpoint) -> Result<Vec<u8>, PackError> {
        let config = &checkpoint.config;
        let (tensors, data) = self.tensor_sections();
        let texts = [&config.name, &config.language, &config.licence, &config.provenance];
        let vocabulary = write_vocabulary(&checkpoint.pieces)?;
        let mut text_section = Vec::new();
        put_strings(&mut text_section, texts.into_iter().map(|text| text.as_bytes()));
        let sections = [write_config(config)?, tensors, self.layer_section(), vocabulary, text_section, data];
        let file = assemble(&sections);
        check(&file)?;
        Ok(file)
    }

    fn tensor_sections(&self) -> (Vec<u8>, Vec<u8>) {
        let mut data = Vec::new();
        let mut table = Vec::new();
        put_u32s(&mut table, &[self.tensors.len() as u32, 0]);
        for tensor in &self.tensors {
            let (outputs, inputs) = tensor.report.shape;
            let block = tensor.report.block.map_or(0, BlockShape::code);
            table.extend([tensor.report.kind.code(), block, 0, 0]);
            put_u32s(&mut table, &[outputs as u32, inputs as u32, tensor.group_inputs as u32]);
            for part in [&tensor.values, &tensor.scales, &tensor.index] {
                let offset = if part.is_empty() { 0 } else { pad(&mut data) };
                table.extend((offset as u64).to_le_bytes());
                table.extend((part.len() as u64).to_le_bytes());
                data.extend(part);
            }
        }
        put_strings(&mut table, self.tensors.iter().map(|tensor| tensor.report.name.as_bytes()));
        (table, data)
    }

    fn layer_section(&self) -> Vec<u8> {
        let mut section = Vec::new();
        put_u32s(&mut section, &[self.layers.len() as u32, 0]);
        for (kind, parameters, slots) in &self.layers {
            put_u32s(&mut section, &[kind.code(), slots.len() as u32]);
            put_u32s(&mut section, parameters);
            for (role, part, id) in slots {
                section.extend(role.code().to_le_bytes());
                section.extend(part.code().to_le_bytes());
                section.extend(id.to_le_bytes());
            }
        }
        section
    }
}

fn write_config(config: &CheckpointConfig) -> Result<Vec<u8>, PackError> {
    let mut section = Vec::with_capacity(Config::LENGTH);
    put_frontend(&mut section, &config.frontend)?;
    put_stack(&mut section, &config.encoder)?;
    put_stack(&mut section, &config.decoder)?;
    put_u32s(&mut section, &[config.output.vocabulary as u32, config.tokens.begin, config.tokens.end]);
    section.extend(config.tokens.max_per_second.to_le_bytes());
    put_u32s(&mut section, &[0; 4]);
    Ok(section)
}

fn put_frontend(section: &mut Vec<u8>, frontend: &Frontend) -> Result<(), PackError> {
    let convolutions = frontend.convolutions.len() as u32;
    match (frontend.kind.as_str(), &frontend.filter_bank) {
        ("waveform", None) => {
            put_u32s(section, &[1, frontend.sample_rate, convolutions]);
            put_u32s(section, &[0; 5]);
        }
        ("filter_bank", Some(bank)) if convolutions == 0 => {
            put_u32s(section, &[2, frontend.sample_rate, 0]);
            let sizes = [bank.mels, bank.frame_length, bank.frame_shift, bank.stacked, bank.stride];
            put_u32s(section, &sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX)));
        }
        ("waveform" | "filter_bank", _) => {
            let message =
                "a frontend has convolutions, kind `waveform`, or a `filter_bank`, kind `filter_bank`";
            return Err(PackError::Value(message.into()));
        }
        (other, _) => return Err(PackError::Value(format!("frontend kind `{other}` is unknown"))),
    }
    Ok(())
}

fn put_stack(section: &mut Vec<u8>, stack: &Stack) -> Result<(), PackError> {
    let sizes = [stack.layers, stack.width, stack.heads, stack.head_width, stack.feed_forward.most()];
    put_u32s(section, &sizes.map(|size| u32::try_from(size).unwrap_or(u32::MAX)));
    let positions = match stack.positions.as_str() {
        "none" => Positions::None,
        "rotary" => Positions::Rotary,
        "sinusoidal" => Positions::Sinusoidal,
        other => return Err(PackError::Value(format!("positions `{other}` are unknown"))),
    };
    let activation = activation_code(&stack.activation)?;
    put_u32s(section, &[activation, positions as u32 + 1, stack.rotary_width as u32]);
    section.extend(stack.rotary_base.to_le_bytes());
    section.extend(stack.norm_epsilon.to_le_bytes());
    let memory = stack.memory.map_or([0; 2], |memory| [memory.kernel, memory.look_ahead]);
    let chunk = stack.chunk.map_or([0; 2], |chunk| [chunk.frames, chunk.left]);
    section.extend(memory.into_iter().chain(chunk).flat_map(u16::to_le_bytes));
    Ok(())
}

/// The code of an activation's name.
pub(crate) fn activation_code(name: &str) -> Result<u32, PackError> {
    let activation = match name {
        "relu" => Activation::Relu,
        "gelu" => Activation::Gelu,
        "swiglu" => Activation::SwiGlu,
        "tanh" => Activation::Tanh,
        _ => return Err(PackError::Value(format!("activation `{name}` is unknown"))),
    };
    Ok(activation as u32 + 1)
}

fn assemble(sections: &[Vec<u8>; SectionKind::ALL.len()]) -> Vec<u8> {
    let table_end = HEADER_LENGTH + ENTRY_LENGTH * sections.len();
    let mut table = Vec::new();
    let mut body = Vec::new();
    for (kind, section) in SectionKind::ALL.into_iter().zip(sections) {
        let end = table_end + body.len();
        let offset = end.next_multiple_of(ALIGNMENT);
        body.resize(offset - table_end, 0);
        body.extend(section);
        put_u32s(&mut table, &[kind.code(), crc32fast::hash(section)]);
        table.extend((offset as u64).to_le_bytes());
        table.extend((section.len() as u64).to_le_bytes());
        table.extend([0; 8]);
    }
    let mut checked = ((table_end + body.len()) as u64).to_le_bytes().to_vec();
    checked.resize(HEADER_LENGTH - CHECKED_FROM, 0);
    checked.extend(table);
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend((sections.len() as u16).to_le_bytes());
    put_u32s(&mut file, &[crc32fast::hash(&checked)]);
    file.extend(checked);
    file.extend(body);
    file
}

/// Reads the file back from an aligned copy.
fn check(file: &[u8]) -> Result<(), PackError> {
    let mut copy = std::vec![0u8; file.len() + ALIGNMENT];
    let start = copy.as_ptr().align_offset(ALIGNMENT);
    let aligned = copy.get_mut(start..start + file.len()).unwrap_or(&mut []);
    aligned.copy_from_slice(file);
    Model::parse(aligned)?;
    Ok(())
}

fn pad(data: &mut Vec<u8>) -> usize {
    data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    data.len()
}

fn put_u32s(bytes: &mut Vec<u8>, values: &[u32]) {
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// Tokens that begin like the one before them share those bytes with it, where that saves more than saying so costs: in
/// the order of their bytes they do.
fn write_vocabulary(pieces: &[Vec<u8>]) -> Result<Vec<u8>, PackError> {
    let lengths = pieces.iter().map(|piece| u8::try_from(piece.len())).collect::<Result<Vec<_>, _>>();
    let lengths = lengths.map_err(|_| PackError::Vocabulary("a token has more than 255 bytes".into()))?;
    let mut shared: Vec<u8> = pieces.chunks(PIECES).flat_map(shared_in_run).collect();
    let saved: usize = shared.iter().copied().map(usize::from).sum();
    let pays = saved > pieces.len().div_ceil(2);
    if !pays {
        shared.fill(0);
    }
    let count = pieces.len() as u32 | if pays { SHARED } else { 0 };
    let mut section = count.to_le_bytes().to_vec();
    let own: Vec<&[u8]> =
        pieces.iter().zip(&shared).map(|(piece, &shared)| &piece[usize::from(shared)..]).collect();
    let mut place = 0;
    for run in own.chunks(PIECES) {
        put_u32s(&mut section, &[place]);
        place += run.iter().map(|own| own.len() as u32).sum::<u32>();
    }
    section.extend(lengths);
    if pays {
        section.extend(shared.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4));
    }
    section.extend(own.into_iter().flatten());
    Ok(section)
}

/// How many bytes each token of a run has in common with the beginning of the one before it; none the first.
fn shared_in_run(run: &[Vec<u8>]) -> impl Iterator<Item = u8> {
    let before = iter::once(&[][..]).chain(run.iter().map(Vec::as_slice));
    run.iter().zip(before).map(|(piece, before)| {
        piece.iter().zip(before).take(MOST_SHARED).take_while(|(a, b)| a == b).count() as u8
    })
}

fn put_strings<'a>(bytes: &mut Vec<u8>, strings: impl Iterator<Item = &'a [u8]> + Clone) {
    let mut offset = 0u32;
    put_u32s(bytes, &[0]);
    for string in strings.clone() {
        offset += string.len() as u32;
        put_u32s(bytes, &[offset]);
    }
    bytes.extend(strings.flatten());
}
