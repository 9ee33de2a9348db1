//! Sizes of the network: section `config`, 40 words of 4 bytes.

use crate::error::Rule;
use crate::fields::Fields;
use crate::filter_bank::FilterBankConfig;

/// Where the encoder's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontendKind {
    /// The raw waveform through strided convolutions.
    Waveform,
    /// Log energies of mel bands.
    FilterBank(FilterBankConfig),
}

/// The part before the encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrontendConfig {
    /// Where the encoder's input comes from.
    pub kind: FrontendKind,
    /// Samples a second that the network was trained on.
    pub sample_rate: u32,
    /// Number of convolutions; none behind a filter bank.
    pub convolutions: usize,
}

/// What a feed-forward network or a convolution applies to its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x times the normal distribution function of x, exact form.
    Gelu,
    /// silu(gate) times up: a feed-forward network with a gate.
    SwiGlu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    pub(crate) const ALL: [Activation; 4] = [Self::Relu, Self::Gelu, Self::SwiGlu, Self::Tanh];

    pub(crate) fn from_code(code: u32) -> Result<Self, Rule> {
        code_of(&Self::ALL, code, "activation")
    }
}

/// How finely a layer rounds what goes into its matrices. Weights are not concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationBits {
    /// int8, one scale a row.
    Eight,
    /// The sum of two int8 rows: twice the work, for layers whose rounding would be heard.
    Sixteen,
}

impl ActivationBits {
    pub(crate) fn from_code(code: u32) -> Result<Self, Rule> {
        match code {
            8 => Ok(Self::Eight),
            16 => Ok(Self::Sixteen),
            _ => Err(Rule::Code("activation bits")),
        }
    }
}

/// How an attention block knows the order of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// It does not.
    None,
    /// Pairs of neighbouring queries and keys are rotated by an angle that grows with the position.
    Rotary,
    /// Sines and cosines of wavelengths up to the base are added to the encoder's input, which is scaled by the
    /// square root of the width first.
    Sinusoidal,
}

impl Positions {
    pub(crate) const ALL: [Positions; 3] = [Self::None, Self::Rotary, Self::Sinusoidal];
}

fn code_of<T: Copy>(all: &[T], code: u32, name: &'static str) -> Result<T, Rule> {
    let index = (code as usize).checked_sub(1);
    index.and_then(|i| all.get(i)).copied().ok_or(Rule::Code(name))
}

/// An FSMN memory: a convolution over time, channel by channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Frames that one output sees.
    pub kernel: usize,
    /// Those of them that come after it; zero in a decoder.
    pub look_ahead: usize,
}

impl MemoryConfig {
    /// Frames before the output's own that it sees.
    pub fn look_back(&self) -> usize {
        self.kernel - 1 - self.look_ahead
    }
}

/// How far an encoder sees when audio is encoded as it arrives: its frames lie in chunks of equal length, and a frame
/// sees the whole of its own chunk and some chunks before it, never one behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkConfig {
    /// Frames in a chunk.
    pub frames: usize,
    /// Chunks before its own to which a frame attends.
    pub left: usize,
}

/// Sizes of the encoder or of the decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackConfig {
    /// Number of blocks.
    pub layers: usize,
    /// Values a frame or token between blocks.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Values a head.
    pub head_width: usize,
    /// Most values in the middle of a feed-forward network; a block may have fewer.
    pub feed_forward: usize,
    /// Activation of the feed-forward network.
    pub activation: Activation,
    /// Positions in self-attention.
    pub positions: Positions,
    /// Values of each head that are rotated; even.
    pub rotary_width: usize,
    /// Base of the rotary or sinusoidal wavelengths.
    pub rotary_base: f32,
    /// Added to the variance in norms.
    pub norm_epsilon: f32,
    /// The memory of its blocks.
    pub memory: Option<MemoryConfig>,
    /// Limits of what the encoder sees; none where it sees the whole utterance.
    pub chunk: Option<ChunkConfig>,
}

impl StackConfig {
    /// Values a frame inside attention: heads times head width.
    pub fn attention_width(&self) -> usize {
        self.heads * self.head_width
    }
}

/// Special tokens and bounds on decoding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tokens {
    /// The token that begins every utterance.
    pub begin: u32,
    /// The token that ends every utterance.
    pub end: u32,
    /// Tokens allowed for each second of audio; more is taken for endless repetition.
    pub max_per_second: f32,
}

/// Sizes of the whole network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// The part before the encoder.
    pub frontend: FrontendConfig,
    /// The encoder.
    pub encoder: StackConfig,
    /// The decoder.
    pub decoder: StackConfig,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Special tokens and bounds.
    pub tokens: Tokens,
}

/// Largest number of blocks in a stack.
pub const MAX_LAYERS: u32 = 256;
/// Largest width of a stack, of its attention, or of a convolution.
pub const MAX_WIDTH: u32 = 4096;
/// Largest head width.
pub const MAX_HEAD_WIDTH: u32 = 256;
/// Largest feed-forward width.
pub const MAX_FEED_FORWARD: u32 = 16384;
/// Largest vocabulary.
pub const MAX_VOCABULARY: u32 = 1 << 20;
/// Longest kernel of a memory.
pub const MAX_MEMORY_KERNEL: u16 = 128;
/// Most frames that a chunk and the chunks before it have together.
pub const MAX_CHUNK_CONTEXT: usize = 1 << 14;
/// Most frames that an encoder block takes the mean of.
pub const MAX_MERGE: u32 = 16;
/// Most frames of the frontend in one that the encoder makes.
pub const MAX_MERGED: usize = 64;
/// Largest number of convolutions in the frontend.
pub const MAX_CONVOLUTIONS: u32 = 8;

impl Config {
    /// Values a frame of the encoder's input: what the frontend makes.
    pub fn encoder_inputs(&self) -> usize {
        match self.frontend.kind {
            FrontendKind::Waveform => self.encoder.width,
            FrontendKind::FilterBank(bank) => bank.width(),
        }
    }

    #[cfg(feature = "pack")]
    pub(crate) const LENGTH: usize = 160;

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        let frontend = parse_frontend(&mut fields)?;
        let encoder = parse_stack(&mut fields)?;
        let decoder = parse_stack(&mut fields)?;
        check_decoder(&decoder)?;
        let vocabulary = fields.count("vocabulary", 1, MAX_VOCABULARY)?;
        let last = vocabulary as u32 - 1;
        let begin = fields.count("begin token", 0, last)? as u32;
        let end = fields.count("end token", 0, last)? as u32;
        let max_per_second = fields.f32()?;
        if !(0.1..=100.0).contains(&max_per_second) {
            return Err(Rule::Range("max_per_second"));
        }
        fields.zeros(16)?;
        fields.end()?;
        let tokens = Tokens { begin, end, max_per_second };
        Ok(Self { frontend, encoder, decoder, vocabulary, tokens })
    }
}

fn parse_frontend(fields: &mut Fields<'_>) -> Result<FrontendConfig, Rule> {
    let code = fields.u32()?;
    let sample_rate = fields.count("sample_rate", 8_000, 48_000)? as u32;
    let (kind, convolutions) = match code {
        1 => {
            let convolutions = fields.count("convolutions", 1, MAX_CONVOLUTIONS)?;
            fields.zeros(20)?;
            (FrontendKind::Waveform, convolutions)
        }
        2 => {
            fields.zeros(4)?;
            (FrontendKind::FilterBank(FilterBankConfig::parse(fields)?), 0)
        }
        _ => return Err(Rule::Code("frontend")),
    };
    Ok(FrontendConfig { kind, sample_rate, convolutions })
}

fn parse_stack(fields: &mut Fields<'_>) -> Result<StackConfig, Rule> {
    let layers = fields.count("layers", 1, MAX_LAYERS)?;
    let width = fields.count("width", 1, MAX_WIDTH)?;
    let heads = fields.count("heads", 1, MAX_WIDTH)?;
    let head_width = fields.count("head_width", 1, MAX_HEAD_WIDTH)?;
    if heads * head_width > MAX_WIDTH as usize {
        return Err(Rule::Range("heads"));
    }
    let feed_forward = fields.count("feed_forward", 1, MAX_FEED_FORWARD)?;
    let activation = Activation::from_code(fields.u32()?)?;
    if activation == Activation::Tanh {
        return Err(Rule::Code("activation"));
    }
    let positions = code_of(&Positions::ALL, fields.u32()?, "positions")?;
    let rotary_width = fields.count("rotary_width", 0, head_width as u32)?;
    let rotary_base = fields.f32()?;
    let norm_epsilon = fields.f32()?;
    let rotates = positions == Positions::Rotary;
    if rotary_width % 2 != 0 || rotates != (rotary_width > 0) {
        return Err(Rule::Range("rotary_width"));
    }
    if !(1.0..=1e9).contains(&rotary_base) {
        return Err(Rule::Range("rotary_base"));
    }
    if !(1e-12..=1.0).contains(&norm_epsilon) {
        return Err(Rule::Range("norm_epsilon"));
    }
    let (memory, chunk) = (parse_memory(fields)?, parse_chunk(fields)?);
    Ok(StackConfig {
        layers,
        width,
        heads,
        head_width,
        feed_forward,
        activation,
        positions,
        rotary_width,
        rotary_base,
        norm_epsilon,
        memory,
        chunk,
    })
}

fn parse_memory(fields: &mut Fields<'_>) -> Result<Option<MemoryConfig>, Rule> {
    let (kernel, look_ahead) = (fields.u16()?, fields.u16()?);
    if kernel > MAX_MEMORY_KERNEL {
        return Err(Rule::Range("memory kernel"));
    }
    if look_ahead >= kernel.max(1) {
        return Err(Rule::Range("memory look_ahead"));
    }
    let memory = MemoryConfig { kernel: usize::from(kernel), look_ahead: usize::from(look_ahead) };
    Ok((kernel > 0).then_some(memory))
}

fn parse_chunk(fields: &mut Fields<'_>) -> Result<Option<ChunkConfig>, Rule> {
    let (frames, left) = (usize::from(fields.u16()?), usize::from(fields.u16()?));
    if frames * (left + 1) > MAX_CHUNK_CONTEXT {
        return Err(Rule::Range("chunk frames"));
    }
    if frames == 0 && left > 0 {
        return Err(Rule::Range("chunk left"));
    }
    Ok((frames > 0).then_some(ChunkConfig { frames, left }))
}

/// A decoder makes one token at a time: nothing lies ahead of it, and its tokens have no chunks.
fn check_decoder(decoder: &StackConfig) -> Result<(), Rule> {
    if decoder.positions == Positions::Sinusoidal {
        return Err(Rule::Code("positions"));
    }
    if decoder.memory.is_some_and(|memory| memory.look_ahead > 0) {
        return Err(Rule::Range("memory look_ahead"));
    }
    if decoder.chunk.is_some() {
        return Err(Rule::Range("chunk frames"));
    }
    Ok(())
}
