//! The layer table: section `layers`. A layer is a list of tensor ids; two layers that name the same id share it.

use crate::error::Rule;
use crate::fields::Fields;
use core::fmt;

const RECORD_HEAD: usize = 32;
const SLOT_LENGTH: usize = 8;
/// Largest number of tensors that one layer names.
pub const MAX_SLOTS: u32 = 64;

/// What a layer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A convolution of the frontend.
    Convolution,
    /// An encoder block.
    EncoderBlock,
    /// The norm behind the encoder.
    EncoderNorm,
    /// A decoder block.
    DecoderBlock,
    /// The norm behind the decoder, embedding and output matrix.
    Output,
    /// The filter bank of the frontend.
    FilterBank,
    /// The head that reads tokens off the encoder's frames.
    Ctc,
}

impl LayerKind {
    pub(crate) const ALL: [LayerKind; 7] = [
        Self::Convolution,
        Self::EncoderBlock,
        Self::EncoderNorm,
        Self::DecoderBlock,
        Self::Output,
        Self::FilterBank,
        Self::Ctc,
    ];

    #[cfg(feature = "pack")]
    pub(crate) fn code(self) -> u32 {
        self as u32 + 1
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Convolution => "convolution",
            Self::EncoderBlock => "encoder block",
            Self::EncoderNorm => "encoder norm",
            Self::DecoderBlock => "decoder block",
            Self::Output => "output",
            Self::FilterBank => "filter bank",
            Self::Ctc => "CTC head",
        })
    }
}

/// What a tensor does in its layer. The numbers are the file's; those between them are kept for other parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Norm before self-attention.
    AttentionNorm = 1,
    /// Query matrix of self-attention.
    Query,
    /// Key matrix of self-attention.
    Key,
    /// Value matrix of self-attention.
    Value,
    /// Output matrix of self-attention.
    AttentionOutput,
    /// Norm before cross-attention.
    CrossNorm,
    /// Query matrix of cross-attention.
    CrossQuery,
    /// Key matrix of cross-attention.
    CrossKey,
    /// Value matrix of cross-attention.
    CrossValue,
    /// Output matrix of cross-attention.
    CrossOutput,
    /// Norm before the feed-forward network.
    FeedForwardNorm,
    /// First matrix of the feed-forward network.
    Up,
    /// Gate matrix of the feed-forward network.
    Gate,
    /// Second matrix of the feed-forward network.
    Down,
    /// Kernel of a convolution.
    Kernel,
    /// Group norm behind a convolution, over all channels and frames.
    GroupNorm,
    /// Norm behind a stack.
    FinalNorm,
    /// Embedding of the tokens, also the output matrix unless the layer names one.
    Embedding,
    /// Output matrix.
    Vocabulary,
    /// Kernel of an FSMN memory: a convolution over time, channel by channel.
    Memory,
    /// Norm inside a feed-forward network, before its second matrix.
    InnerNorm,
    /// What is added to the frames of a filter bank.
    FeatureShift = 23,
    /// What the shifted frames of a filter bank are multiplied by.
    FeatureScale,
    /// Output matrix of a CTC head.
    CtcOutput,
}

impl Role {
    /// By code, from 1 on.
    pub(crate) const ALL: [Option<Role>; 25] = [
        Some(Self::AttentionNorm),
        Some(Self::Query),
        Some(Self::Key),
        Some(Self::Value),
        Some(Self::AttentionOutput),
        Some(Self::CrossNorm),
        Some(Self::CrossQuery),
        Some(Self::CrossKey),
        Some(Self::CrossValue),
        Some(Self::CrossOutput),
        Some(Self::FeedForwardNorm),
        Some(Self::Up),
        Some(Self::Gate),
        Some(Self::Down),
        Some(Self::Kernel),
        Some(Self::GroupNorm),
        Some(Self::FinalNorm),
        Some(Self::Embedding),
        Some(Self::Vocabulary),
        Some(Self::Memory),
        Some(Self::InnerNorm),
        None,
        Some(Self::FeatureShift),
        Some(Self::FeatureScale),
        Some(Self::CtcOutput),
    ];

    pub(crate) fn code(self) -> u16 {
        self as u16
    }

    /// The role's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention norm",
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::AttentionOutput => "attention output",
            Self::CrossNorm => "cross-attention norm",
            Self::CrossQuery => "cross-attention query",
            Self::CrossKey => "cross-attention key",
            Self::CrossValue => "cross-attention value",
            Self::CrossOutput => "cross-attention output",
            Self::FeedForwardNorm => "feed-forward norm",
            Self::Up => "feed-forward up",
            Self::Gate => "feed-forward gate",
            Self::Down => "feed-forward down",
            Self::Kernel => "convolution kernel",
            Self::GroupNorm => "group norm",
            Self::FinalNorm => "final norm",
            Self::Embedding => "embedding",
            Self::Vocabulary => "output matrix",
            Self::Memory => "memory",
            Self::InnerNorm => "feed-forward inner norm",
            Self::FeatureShift => "feature shift",
            Self::FeatureScale => "feature scale",
            Self::CtcOutput => "CTC output",
        }
    }
}

/// Which part of its role a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The weights.
    Weight,
    /// The bias.
    Bias,
    /// What a layer adds to a shared matrix: the left factor, `[outputs, rank]`.
    ResidualLeft,
    /// Its right factor, `[rank, inputs]`.
    ResidualRight,
    /// What a layer adds to the diagonal of a shared square matrix, a vector.
    Diagonal,
}

impl Part {
    pub(crate) const ALL: [Part; 5] =
        [Self::Weight, Self::Bias, Self::ResidualLeft, Self::ResidualRight, Self::Diagonal];

    pub(crate) fn code(self) -> u16 {
        self as u16 + 1
    }
}

/// One tensor that a layer names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// What the tensor does in the layer.
    pub role: Role,
    /// Which part of that it is.
    pub part: Part,
    /// The tensor's id.
    pub tensor: u32,
}

/// The tensors of one role, by part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Parts([Option<u32>; Part::ALL.len()]);

impl Parts {
    pub(crate) fn id(&self, part: Part) -> Option<u32> {
        self.0.get(part as usize).copied().flatten()
    }
}

/// One layer: its kind, six parameters whose meaning the kind gives, and the tensors that it names.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// Position in the table.
    pub index: u32,
    /// What the layer does.
    pub kind: LayerKind,
    pub(crate) parameters: [u32; 6],
    slots: &'a [u8],
}

impl<'a> Layer<'a> {
    /// The tensors that the layer names.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'a> {
        self.slots.chunks_exact(SLOT_LENGTH).filter_map(|bytes| decode_slot(bytes).ok())
    }

    /// The id for a role and part, if the layer names one.
    pub fn slot(&self, role: Role, part: Part) -> Option<u32> {
        self.slots().find(|slot| slot.role == role && slot.part == part).map(|slot| slot.tensor)
    }

    /// All the tensors that the layer names for a role, in one walk that compares bytes: blocks are looked up anew for every token.
    pub(crate) fn parts(&self, role: Role) -> Parts {
        let (mut parts, code) = (Parts::default(), role.code().to_le_bytes());
        let named = self.slots.chunks_exact(SLOT_LENGTH).filter(|slot| slot.starts_with(&code));
        for slot in named.filter_map(|slot| decode_slot(slot).ok()) {
            if let Some(id) = parts.0.get_mut(slot.part as usize) {
                *id = Some(slot.tensor);
            }
        }
        parts
    }

    /// Whether the layer names this tensor as a weight. Compares bytes, as a damaged file may ask for it very often.
    pub(crate) fn names_weight(&self, tensor: u32) -> bool {
        let (part, id) = (Part::Weight.code().to_le_bytes(), tensor.to_le_bytes());
        self.slots.chunks_exact(SLOT_LENGTH).any(|slot| slot.ends_with(&id) && slot[2..4] == part)
    }

    fn check_slots(&self, tensors: usize) -> Result<(), Rule> {
        let layer = self.index;
        for (i, bytes) in self.slots.chunks_exact(SLOT_LENGTH).enumerate() {
            let slot = decode_slot(bytes)?;
            if slot.tensor as usize >= tensors {
                return Err(Rule::TensorMissing { layer, tensor: slot.tensor });
            }
            let same = |other: &Slot| other.role == slot.role && other.part == slot.part;
            if self.slots().take(i).any(|other| same(&other)) {
                return Err(Rule::SlotRepeated { layer });
            }
        }
        Ok(())
    }
}

fn decode_slot(bytes: &[u8]) -> Result<Slot, Rule> {
    let mut fields = Fields::new(bytes);
    let role = usize::from(fields.u16()?).checked_sub(1).and_then(|i| Role::ALL.get(i)).copied().flatten();
    let part = usize::from(fields.u16()?).checked_sub(1).and_then(|i| Part::ALL.get(i)).copied();
    let tensor = fields.u32()?;
    Ok(Slot { role: role.ok_or(Rule::Code("role"))?, part: part.ok_or(Rule::Code("part"))?, tensor })
}

/// The checked layer table.
#[derive(Debug, Clone, Copy)]
pub struct LayerTable<'a> {
    count: usize,
    records: &'a [u8],
}

impl<'a> LayerTable<'a> {
    pub(crate) fn parse(bytes: &'a [u8], tensors: usize) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        let count = fields.count("layer count", 1, 1024)?;
        fields.zeros(4)?;
        let records = fields.rest();
        for index in 0..count {
            decode_layer(&mut fields, index as u32)?.check_slots(tensors)?;
        }
        fields.end()?;
        Ok(Self { count, records })
    }

    /// Number of layers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none; a checked table has at least one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All layers, in the order in which they run.
    pub fn iter(&self) -> impl Iterator<Item = Layer<'a>> + use<'a> {
        let mut fields = Fields::new(self.records);
        (0..self.count as u32).map_while(move |index| decode_layer(&mut fields, index).ok())
    }
}

fn decode_layer<'a>(fields: &mut Fields<'a>, index: u32) -> Result<Layer<'a>, Rule> {
    let mut head = Fields::new(fields.bytes(RECORD_HEAD)?);
    let code = head.u32()?;
    let kind = (code as usize).checked_sub(1).and_then(|i| LayerKind::ALL.get(i)).copied();
    let kind = kind.ok_or(Rule::Code("layer kind"))?;
    let slots = head.count("slot count", 1, MAX_SLOTS)?;
    let mut parameters = [0; 6];
    for parameter in &mut parameters {
        *parameter = head.u32()?;
    }
    let slots = fields.bytes(slots * SLOT_LENGTH)?;
    Ok(Layer { index, kind, parameters, slots })
}
