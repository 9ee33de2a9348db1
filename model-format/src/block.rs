//! Layers with their tensors in place: what the runtime runs.

use crate::config::{Activation, ActivationBits, Config, MAX_MERGE, MAX_WIDTH, StackConfig};
use crate::error::Rule;
use crate::floats::Floats;
use crate::layer::{Layer, Part, Parts, Role};
use crate::matrix::Matrix;
use crate::memory::Memory;
use crate::residual::LowRank;
use crate::tensor::{Tensor, TensorKind, TensorTable};

/// A norm over the values of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// `[width]`.
    pub weight: &'a [f32],
    /// `[width]`.
    pub bias: Option<&'a [f32]>,
}

/// A matrix, its bias, and what the layer adds to a matrix that it shares.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    /// `[outputs, inputs]`.
    pub weight: Matrix<'a>,
    /// `[outputs]`.
    pub bias: Option<Floats<'a>>,
    /// Added to the matrix.
    pub residual: Option<LowRank<'a>>,
    /// `[outputs]`, added to the diagonal of a square matrix.
    pub diagonal: Option<&'a [f32]>,
}

impl<'a> Linear<'a> {
    /// A matrix and its bias, with nothing added.
    pub fn new(weight: Matrix<'a>, bias: Option<Floats<'a>>) -> Self {
        Self { weight, bias, residual: None, diagonal: None }
    }
}

/// The matrices of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// `[attention width, width]`.
    pub query: Linear<'a>,
    /// `[attention width, width of what is attended to]`.
    pub key: Linear<'a>,
    /// `[attention width, width of what is attended to]`.
    pub value: Linear<'a>,
    /// `[width, attention width]`.
    pub output: Linear<'a>,
}

/// The matrices of a feed-forward network.
#[derive(Debug, Clone, Copy)]
pub struct FeedForward<'a> {
    /// How finely the inputs of `down` are rounded: an activation leaves a few large values among many small ones.
    pub down_bits: ActivationBits,
    /// Values in the middle: the block's own number, at most the stack's.
    pub middle: usize,
    /// `[middle, width]`.
    pub up: Linear<'a>,
    /// `[middle, width]`, there exactly when the activation has a gate.
    pub gate: Option<Linear<'a>>,
    /// `[middle]`, behind the activation.
    pub inner_norm: Option<Norm<'a>>,
    /// `[width, middle]`.
    pub down: Linear<'a>,
}

/// A block of the encoder.
#[derive(Debug, Clone, Copy)]
pub struct EncoderBlock<'a> {
    /// How finely its inputs are rounded.
    pub bits: ActivationBits,
    /// Values of a frame that comes in. Where they are not as many as go out, nothing is added to the attention.
    pub inputs: usize,
    /// The block first takes the mean of each so many frames that come in: 1 where it takes them as they are.
    pub merge: usize,
    /// Before self-attention.
    pub attention_norm: Norm<'a>,
    /// Self-attention.
    pub attention: Attention<'a>,
    /// A memory of the values of self-attention, added behind its output matrix.
    pub memory: Option<Memory<'a>>,
    /// Before the feed-forward network.
    pub feed_forward_norm: Norm<'a>,
    /// The feed-forward network.
    pub feed_forward: FeedForward<'a>,
}

/// A strided convolution over time.
#[derive(Debug, Clone, Copy)]
pub struct Convolution<'a> {
    /// How finely its inputs are rounded.
    pub bits: ActivationBits,
    /// Frames that one output sees.
    pub kernel: usize,
    /// Frames between outputs.
    pub stride: usize,
    /// Applied to the sums.
    pub activation: Activation,
    /// Channels that come in.
    pub inputs: usize,
    /// Channels that go out.
    pub outputs: usize,
    /// `[outputs, kernel x inputs]`, inputs of one frame side by side.
    pub linear: Linear<'a>,
    /// Behind the activation: one mean and variance over all channels and frames, then `[outputs]` weights.
    pub group_norm: Option<Norm<'a>>,
}

/// The end of the network.
#[derive(Debug, Clone, Copy)]
pub struct OutputHead<'a> {
    /// How finely its inputs are rounded.
    pub bits: ActivationBits,
    /// Behind the last decoder block.
    pub norm: Norm<'a>,
    /// `[vocabulary, width]`.
    pub embedding: Matrix<'a>,
    /// `[vocabulary, width]`; the embedding when the model ties them.
    pub vocabulary: Linear<'a>,
}

/// Reads tokens off the encoder's frames without a decoder: one distribution a frame, over the vocabulary, in which one
/// token stands for none (connectionist temporal classification).
#[derive(Debug, Clone, Copy)]
pub struct CtcHead<'a> {
    /// How finely its inputs are rounded.
    pub bits: ActivationBits,
    /// The token that stands for none.
    pub blank: u32,
    /// `[vocabulary, encoder width]`.
    pub output: Linear<'a>,
}

const ENCODER_ROLES: [Role; 11] = [
    Role::AttentionNorm,
    Role::Query,
    Role::Key,
    Role::Value,
    Role::AttentionOutput,
    Role::Memory,
    Role::FeedForwardNorm,
    Role::Up,
    Role::Gate,
    Role::InnerNorm,
    Role::Down,
];

/// Looks up a layer's tensors and checks their shapes. What it accepts once it accepts always.
pub(crate) struct Resolver<'a> {
    pub(crate) tensors: TensorTable<'a>,
    pub(crate) layer: Layer<'a>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn convolution(&self, inputs: usize) -> Result<Convolution<'a>, Rule> {
        let [kernel, stride, activation, outputs, bits, _] = self.layer.parameters;
        self.only(&[Role::Kernel, Role::GroupNorm], 5)?;
        let bits = ActivationBits::from_code(bits)?;
        if !(1..=1024).contains(&kernel) {
            return Err(Rule::Range("kernel"));
        }
        if stride == 0 || stride > kernel {
            return Err(Rule::Range("stride"));
        }
        if outputs == 0 || outputs > MAX_WIDTH {
            return Err(Rule::Range("channels"));
        }
        let activation = Activation::from_code(activation)?;
        if activation == Activation::SwiGlu {
            return Err(Rule::Code("activation"));
        }
        let (kernel, outputs) = (kernel as usize, outputs as usize);
        let linear = self.linear(Role::Kernel, outputs, kernel * inputs)?;
        let has_norm = self.layer.slot(Role::GroupNorm, Part::Weight).is_some();
        let group_norm = if has_norm { Some(self.norm(Role::GroupNorm, outputs)?) } else { None };
        let stride = stride as usize;
        Ok(Convolution { bits, kernel, stride, activation, inputs, outputs, linear, group_norm })
    }

    /// `inputs` values a frame come in.
    pub(crate) fn encoder_block(&self, config: &Config, inputs: usize) -> Result<EncoderBlock<'a>, Rule> {
        use Role::*;
        let roles = [Query, Key, Value, AttentionOutput];
        self.only(&ENCODER_ROLES, 3)?;
        let stack = &config.encoder;
        Ok(EncoderBlock {
            bits: self.bits()?,
            inputs,
            merge: self.merge()?,
            attention_norm: self.norm(AttentionNorm, inputs)?,
            attention: self.attention(roles, stack, [inputs; 2])?,
            memory: self.memory(stack, true, stack.attention_width())?,
            feed_forward_norm: self.norm(FeedForwardNorm, stack.width)?,
            feed_forward: self.feed_forward(stack)?,
        })
    }

    /// Zero says that nothing is merged; one would say the same.
    fn merge(&self) -> Result<usize, Rule> {
        let [_, _, frames, ..] = self.layer.parameters;
        match frames {
            0 => Ok(1),
            2..=MAX_MERGE => Ok(frames as usize),
            _ => Err(Rule::Range("merged frames")),
        }
    }

    pub(crate) fn encoder_norm(&self, config: &Config) -> Result<Norm<'a>, Rule> {
        self.only(&[Role::FinalNorm], 0)?;
        self.norm(Role::FinalNorm, config.encoder.width)
    }

    pub(crate) fn output(&self, config: &Config) -> Result<OutputHead<'a>, Rule> {
        self.only(&[Role::FinalNorm, Role::Embedding, Role::Vocabulary], 1)?;
        let (vocabulary, width) = (config.vocabulary, config.decoder.width);
        let embedding = self.linear(Role::Embedding, vocabulary, width)?;
        let untied = self.layer.slot(Role::Vocabulary, Part::Weight).is_some();
        let head = if untied { self.linear(Role::Vocabulary, vocabulary, width)? } else { embedding };
        Ok(OutputHead {
            bits: self.bits()?,
            norm: self.norm(Role::FinalNorm, width)?,
            embedding: embedding.weight,
            vocabulary: head,
        })
    }

    pub(crate) fn ctc(&self, config: &Config) -> Result<CtcHead<'a>, Rule> {
        self.only(&[Role::CtcOutput], 2)?;
        let [_, blank, ..] = self.layer.parameters;
        if blank as usize >= config.vocabulary {
            return Err(Rule::Range("blank token"));
        }
        let output = self.linear(Role::CtcOutput, config.vocabulary, config.encoder.width)?;
        Ok(CtcHead { bits: self.bits()?, blank, output })
    }

    /// The first parameter of every layer but a convolution and a norm.
    pub(crate) fn bits(&self) -> Result<ActivationBits, Rule> {
        let [bits, ..] = self.layer.parameters;
        ActivationBits::from_code(bits)
    }

    pub(crate) fn attention(
        &self,
        roles: [Role; 4],
        stack: &StackConfig,
        [width, attended]: [usize; 2],
    ) -> Result<Attention<'a>, Rule> {
        let inner = stack.attention_width();
        let [query, key, value, output] = roles;
        Ok(Attention {
            query: self.linear(query, inner, width)?,
            key: self.linear(key, inner, attended)?,
            value: self.linear(value, inner, attended)?,
            output: self.linear(output, stack.width, inner)?,
        })
    }

    pub(crate) fn feed_forward(&self, stack: &StackConfig) -> Result<FeedForward<'a>, Rule> {
        let middle = self.middle(stack.feed_forward);
        let gate = match (stack.activation, self.layer.slot(Role::Gate, Part::Weight)) {
            (Activation::SwiGlu, _) => Some(self.linear(Role::Gate, middle, stack.width)?),
            (_, None) => None,
            (_, Some(_)) => return Err(Rule::SlotUnknown { layer: self.layer.index }),
        };
        let [_, down_bits, ..] = self.layer.parameters;
        Ok(FeedForward {
            down_bits: ActivationBits::from_code(down_bits)?,
            middle,
            up: self.linear(Role::Up, middle, stack.width)?,
            gate,
            inner_norm: match self.layer.slot(Role::InnerNorm, Part::Weight) {
                Some(_) => Some(self.norm(Role::InnerNorm, middle)?),
                None => None,
            },
            down: self.linear(Role::Down, stack.width, middle)?,
        })
    }

    /// Outputs of `up`, as many as the layer has, where that is at most `most`.
    fn middle(&self, most: usize) -> usize {
        let up = self.layer.parts(Role::Up).id(Part::Weight).and_then(|id| self.tensors.get(id));
        // Whatever else is wrong with `up`, it is not a matrix of `most` outputs.
        up.map_or(most, |tensor| tensor.outputs.min(most))
    }

    /// The memory of `width` values a frame that every block has whose stack has one, unless it is not `wanted`.
    pub(crate) fn memory(
        &self,
        stack: &StackConfig,
        wanted: bool,
        width: usize,
    ) -> Result<Option<Memory<'a>>, Rule> {
        let Some(config) = stack.memory.filter(|_| wanted) else {
            return self.absent(&[Role::Memory]).map(|()| None);
        };
        let parts = self.layer.parts(Role::Memory);
        let tensor = self.tensors.get(parts.id(Part::Weight).ok_or(self.missing(Role::Memory))?);
        let fits = |tensor: &Tensor<'_>| {
            let is_matrix = matches!(tensor.kind, TensorKind::Float | TensorKind::HalfFloat);
            is_matrix && (tensor.outputs, tensor.inputs) == (width, config.kernel)
        };
        // What it gives is added to the stack's states as it is.
        let bare = Part::ALL.into_iter().all(|part| part == Part::Weight || parts.id(part).is_none());
        let values = tensor.filter(fits).and_then(|tensor| tensor.floats());
        match values.filter(|_| bare && width == stack.width) {
            Some(values) => Ok(Some(Memory { config, width, values })),
            None => Err(self.misfit(Role::Memory)),
        }
    }

    fn linear(&self, role: Role, outputs: usize, inputs: usize) -> Result<Linear<'a>, Rule> {
        let parts = self.layer.parts(role);
        Ok(Linear {
            weight: self.matrix(role, parts.id(Part::Weight), outputs, inputs)?,
            bias: self.floats(role, parts.id(Part::Bias), outputs)?,
            residual: self.residual(role, parts, outputs, inputs)?,
            diagonal: match parts.id(Part::Diagonal) {
                Some(_) if outputs != inputs => return Err(self.misfit(role)),
                id => self.vector(role, id, outputs)?,
            },
        })
    }

    fn residual(
        &self,
        role: Role,
        parts: Parts,
        outputs: usize,
        inputs: usize,
    ) -> Result<Option<LowRank<'a>>, Rule> {
        let [left, right] = [Part::ResidualLeft, Part::ResidualRight].map(|part| parts.id(part));
        if left.is_none() && right.is_none() {
            return Ok(None);
        }
        let rank = right.and_then(|id| self.tensors.get(id)).map_or(0, |tensor| tensor.outputs);
        if rank > outputs.min(inputs) {
            return Err(self.misfit(role));
        }
        let right = self.matrix(role, right, rank, inputs)?;
        Ok(Some(LowRank { left: self.matrix(role, left, outputs, rank)?, right }))
    }

    fn matrix(&self, role: Role, id: Option<u32>, outputs: usize, inputs: usize) -> Result<Matrix<'a>, Rule> {
        let tensor = self.tensors.get(id.ok_or(self.missing(role))?);
        let matrix = tensor.and_then(|tensor| tensor.matrix());
        let fits = |matrix: &Matrix<'_>| matrix.outputs() == outputs && matrix.inputs() == inputs;
        matrix.filter(fits).ok_or(self.misfit(role))
    }

    pub(crate) fn norm(&self, role: Role, width: usize) -> Result<Norm<'a>, Rule> {
        let weight = self.optional_vector(role, Part::Weight, width)?.ok_or(self.missing(role))?;
        Ok(Norm { weight, bias: self.optional_vector(role, Part::Bias, width)? })
    }

    pub(crate) fn optional_vector(
        &self,
        role: Role,
        part: Part,
        length: usize,
    ) -> Result<Option<&'a [f32]>, Rule> {
        self.vector(role, self.layer.slot(role, part), length)
    }

    /// An f32 vector.
    fn vector(&self, role: Role, id: Option<u32>, length: usize) -> Result<Option<&'a [f32]>, Rule> {
        match self.floats(role, id, length)? {
            None => Ok(None),
            Some(Floats::Single(values)) => Ok(Some(values)),
            Some(Floats::Half(_)) => Err(self.misfit(role)),
        }
    }

    /// A vector of f32 or f16.
    fn floats(&self, role: Role, id: Option<u32>, length: usize) -> Result<Option<Floats<'a>>, Rule> {
        let Some(id) = id else {
            return Ok(None);
        };
        let fits = |tensor: &Tensor<'_>| tensor.kind.is_vector() && tensor.outputs == length;
        let vector = self.tensors.get(id).filter(fits).and_then(|tensor| tensor.floats());
        vector.map(Some).ok_or(self.misfit(role))
    }

    /// None of `roles`.
    pub(crate) fn absent(&self, roles: &[Role]) -> Result<(), Rule> {
        if self.layer.slots().any(|slot| roles.contains(&slot.role)) {
            return Err(Rule::SlotUnknown { layer: self.layer.index });
        }
        Ok(())
    }

    /// No role outside `roles`, and no parameter from `parameters` on.
    pub(crate) fn only(&self, roles: &[Role], parameters: usize) -> Result<(), Rule> {
        if self.layer.slots().any(|slot| !roles.contains(&slot.role)) {
            return Err(Rule::SlotUnknown { layer: self.layer.index });
        }
        if self.layer.parameters.iter().skip(parameters).any(|&value| value != 0) {
            return Err(Rule::Reserved);
        }
        Ok(())
    }

    pub(crate) fn missing(&self, role: Role) -> Rule {
        Rule::SlotMissing { layer: self.layer.index, role: role.name() }
    }

    fn misfit(&self, role: Role) -> Rule {
        Rule::SlotShape { layer: self.layer.index, role: role.name() }
    }
}
