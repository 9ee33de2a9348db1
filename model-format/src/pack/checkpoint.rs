//! A checkpoint folder: `config.json`, `model.safetensors`, `vocabulary.txt`.

use super::error::PackError;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::format;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

/// `config.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckpointConfig {
    pub(crate) format: String,
    pub(crate) name: String,
    pub(crate) language: String,
    pub(crate) frontend: Frontend,
    pub(crate) encoder: Stack,
    pub(crate) decoder: Stack,
    #[serde(default)]
    pub(crate) ctc: Option<Ctc>,
    pub(crate) output: Output,
    pub(crate) tokens: TokenConfig,
    pub(crate) licence: String,
    pub(crate) provenance: String,
    #[serde(default)]
    pub(crate) share: ShareConfig,
}

/// For each layer of a stack the layer whose matrices it uses, itself where it has its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShareConfig {
    #[serde(default)]
    pub(crate) encoder: Option<Vec<usize>>,
    #[serde(default)]
    pub(crate) decoder: Option<Vec<usize>>,
}

impl CheckpointConfig {
    /// Values a frame of the encoder's input.
    pub(crate) fn encoder_inputs(&self) -> usize {
        self.frontend
            .filter_bank
            .as_ref()
            .map_or(self.encoder.width, |bank| bank.mels.saturating_mul(bank.stacked))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Frontend {
    pub(crate) kind: String,
    pub(crate) sample_rate: u32,
    #[serde(default)]
    pub(crate) convolutions: Vec<ConvolutionConfig>,
    #[serde(default)]
    pub(crate) filter_bank: Option<FilterBankEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterBankEntry {
    pub(crate) mels: usize,
    pub(crate) frame_length: usize,
    pub(crate) frame_shift: usize,
    pub(crate) stacked: usize,
    pub(crate) stride: usize,
    pub(crate) window: String,
    pub(crate) pre_emphasis: f32,
    pub(crate) low_hz: u32,
    pub(crate) high_hz: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvolutionConfig {
    pub(crate) channels: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) activation: String,
    #[serde(default)]
    pub(crate) norm: Option<String>,
    #[serde(default = "default_bits")]
    pub(crate) activation_bits: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stack {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
    pub(crate) feed_forward: FeedForwardWidth,
    pub(crate) activation: String,
    pub(crate) positions: String,
    #[serde(default)]
    pub(crate) rotary_width: usize,
    #[serde(default = "default_rotary_base")]
    pub(crate) rotary_base: f32,
    pub(crate) norm_epsilon: f32,
    #[serde(default = "default_bits")]
    pub(crate) activation_bits: u32,
    #[serde(default)]
    pub(crate) down_activation_bits: Option<u32>,
    #[serde(default)]
    pub(crate) memory: Option<MemoryTaps>,
    #[serde(default)]
    pub(crate) chunk: Option<Chunk>,
    /// Encoder only: how many frames each block first takes the mean of; one each where there is no list.
    #[serde(default)]
    pub(crate) merge: Option<Vec<u32>>,
    /// A norm inside the feed-forward networks.
    #[serde(default)]
    pub(crate) inner_norm: bool,
    /// Decoder only: the feed-forward network comes first.
    #[serde(default)]
    pub(crate) feed_forward_first: bool,
    /// Decoder only: what each block is made of; all of it where there is no list.
    #[serde(default)]
    pub(crate) blocks: Option<Vec<DecoderParts>>,
}

/// Values in the middle of feed-forward networks.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum FeedForwardWidth {
    /// Of every block.
    All(usize),
    /// Of each block.
    Each(Vec<usize>),
}

impl FeedForwardWidth {
    pub(crate) fn most(&self) -> usize {
        match self {
            Self::All(width) => *width,
            Self::Each(widths) => widths.iter().copied().max().unwrap_or(0),
        }
    }

    /// Zero where the list ends before the block.
    pub(crate) fn of(&self, block: usize) -> usize {
        match self {
            Self::All(width) => *width,
            Self::Each(widths) => widths.get(block).copied().unwrap_or(0),
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryTaps {
    pub(crate) kernel: u16,
    #[serde(default)]
    pub(crate) look_ahead: u16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chunk {
    pub(crate) frames: u16,
    #[serde(default)]
    pub(crate) left: u16,
}

/// Which parts a decoder block has besides its feed-forward network.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecoderParts {
    pub(crate) self_attention: bool,
    pub(crate) memory: bool,
    pub(crate) cross_attention: bool,
}

fn default_bits() -> u32 {
    8
}

fn default_rotary_base() -> f32 {
    10_000.0
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Output {
    pub(crate) vocabulary: usize,
    pub(crate) tied: bool,
    #[serde(default = "default_bits")]
    pub(crate) activation_bits: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ctc {
    pub(crate) blank: u32,
    #[serde(default = "default_bits")]
    pub(crate) activation_bits: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenConfig {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) max_per_second: f32,
}

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Checkpoint {
    pub(crate) config: CheckpointConfig,
    pub(crate) pieces: Vec<Vec<u8>>,
    tensors: Vec<u8>,
}

impl Checkpoint {
    /// Reads the three files of a checkpoint folder.
    ///
    /// # Errors
    /// When a file is missing, or is not what its name says.
    pub fn open(folder: &Path) -> Result<Self, PackError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| PackError::Read { path, error })
        };
        let config = read("config.json")?;
        let config: CheckpointConfig = serde_json::from_slice(&config)
            .map_err(|error| PackError::Config { path: folder.join("config.json"), error })?;
        if config.format != "kinglet-checkpoint-1" {
            return Err(PackError::Format(config.format));
        }
        let pieces = parse_vocabulary(&read("vocabulary.txt")?, config.output.vocabulary)?;
        let tensors = read("model.safetensors")?;
        SafeTensors::deserialize(&tensors)
            .map_err(|error| PackError::Tensors { path: folder.join("model.safetensors"), error })?;
        Ok(Self { config, pieces, tensors })
    }

    /// The tensors' names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.view()
            .map(|view| view.names().into_iter().map(|name| name.to_string()).collect())
            .unwrap_or_default()
    }

    /// The shape of a tensor, if it is there.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.view()?.tensor(name).ok()?.shape().to_vec())
    }

    /// The f32 values of a tensor, which must be there in this shape and finite.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, PackError> {
        let missing = || PackError::TensorMissing { name: name.to_string(), expected: shape.to_vec() };
        let view = self.view().ok_or_else(missing)?;
        let tensor = view.tensor(name).map_err(|_| missing())?;
        if tensor.shape() != shape || tensor.dtype() != Dtype::F32 {
            let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            return Err(PackError::TensorShape { name: name.to_string(), expected: shape.to_vec(), found });
        }
        let values: Vec<f32> = tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        match values.iter().position(|value| !value.is_finite()) {
            Some(position) => Err(PackError::NotFinite { name: name.to_string(), position }),
            None => Ok(values),
        }
    }

    // Opened and checked once already; parsing the header again costs microseconds.
    fn view(&self) -> Option<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.tensors).ok()
    }
}

/// One line a token: lower-case hexadecimal of the bytes that it stands for, empty for special tokens.
fn parse_vocabulary(bytes: &[u8], expected: usize) -> Result<Vec<Vec<u8>>, PackError> {
    let text = str::from_utf8(bytes).map_err(|_| PackError::Vocabulary("it is not text".into()))?;
    let mut pieces = Vec::with_capacity(expected);
    for (number, line) in text.lines().enumerate() {
        let piece = parse_hex(line).ok_or_else(|| {
            PackError::Vocabulary(format!("line {}: `{line}` is not hexadecimal", number + 1))
        })?;
        pieces.push(piece);
    }
    if pieces.len() == expected {
        Ok(pieces)
    } else {
        Err(PackError::Vocabulary(format!("it has {} lines, config.json says {expected}", pieces.len())))
    }
}

fn parse_hex(line: &str) -> Option<Vec<u8>> {
    if !line.is_ascii() || !line.len().is_multiple_of(2) {
        return None;
    }
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(line.get(i..i + 2)?, 16).ok()).collect()
}
