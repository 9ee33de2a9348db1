//! A block of the decoder: self-attention, memory or both, cross-attention and a feed-forward network, in either order.

use crate::block::{Attention, FeedForward, Norm, Resolver};
use crate::config::{ActivationBits, Config};
use crate::error::Rule;
use crate::layer::Role;
use crate::memory::Memory;

/// What lets a token of the decoder know those before it.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// Before both.
    pub norm: Norm<'a>,
    /// Causal self-attention.
    pub attention: Option<Attention<'a>>,
    /// A causal memory: of the values of self-attention, or of the norm's output where there is no attention.
    pub memory: Option<Memory<'a>>,
}

/// Attention to the encoder's output.
#[derive(Debug, Clone, Copy)]
pub struct CrossAttention<'a> {
    /// Before it.
    pub norm: Norm<'a>,
    /// Its matrices.
    pub attention: Attention<'a>,
}

/// A block of the decoder: `x += sequence(x)`, `x += cross(x)`, `x += feed_forward(norm(x))`; or, where the
/// feed-forward network comes first, `y = feed_forward(norm(x))`, `x += sequence(y)` (`x = y` where there is none),
/// `x += cross(x)`.
#[derive(Debug, Clone, Copy)]
pub struct DecoderBlock<'a> {
    /// How finely its inputs are rounded.
    pub bits: ActivationBits,
    /// Whether the feed-forward network comes first.
    pub feed_forward_first: bool,
    /// Self-attention, memory or both.
    pub sequence: Option<Sequence<'a>>,
    /// Attention to the encoder's output.
    pub cross: Option<CrossAttention<'a>>,
    /// Before the feed-forward network.
    pub feed_forward_norm: Norm<'a>,
    /// The feed-forward network.
    pub feed_forward: FeedForward<'a>,
}

/// What a decoder block is made of: the third parameter of its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecoderForm(u32);

impl DecoderForm {
    pub(crate) const FEED_FORWARD_FIRST: u32 = 1;
    pub(crate) const NO_SELF_ATTENTION: u32 = 2;
    pub(crate) const NO_CROSS_ATTENTION: u32 = 4;
    pub(crate) const NO_MEMORY: u32 = 8;

    fn from_code(code: u32) -> Result<Self, Rule> {
        if code < 16 { Ok(Self(code)) } else { Err(Rule::Code("decoder block form")) }
    }

    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

const DECODER_ROLES: [Role; 16] = [
    Role::AttentionNorm,
    Role::Query,
    Role::Key,
    Role::Value,
    Role::AttentionOutput,
    Role::Memory,
    Role::CrossNorm,
    Role::CrossQuery,
    Role::CrossKey,
    Role::CrossValue,
    Role::CrossOutput,
    Role::FeedForwardNorm,
    Role::Up,
    Role::Gate,
    Role::InnerNorm,
    Role::Down,
];

impl<'a> Resolver<'a> {
    pub(crate) fn decoder_block(&self, config: &Config) -> Result<DecoderBlock<'a>, Rule> {
        use Role::*;
        let [_, _, form, ..] = self.layer.parameters;
        let form = DecoderForm::from_code(form)?;
        let attends = !form.has(DecoderForm::NO_SELF_ATTENTION);
        let crosses = !form.has(DecoderForm::NO_CROSS_ATTENTION);
        let remembers = !form.has(DecoderForm::NO_MEMORY) && config.decoder.memory.is_some();
        if form.has(DecoderForm::NO_MEMORY) && config.decoder.memory.is_none() {
            return Err(Rule::Code("decoder block form"));
        }
        let attention = [Query, Key, Value, AttentionOutput];
        let cross = [CrossQuery, CrossKey, CrossValue, CrossOutput];
        self.only(&DECODER_ROLES, 3)?;
        self.absent(if attends { &[] } else { &attention })?;
        self.absent(if attends || remembers { &[] } else { &[AttentionNorm] })?;
        self.absent(if crosses { &[] } else { &cross })?;
        self.absent(if crosses { &[] } else { &[CrossNorm] })?;
        let stack = &config.decoder;
        let remembered = if attends { stack.attention_width() } else { stack.width };
        let sequence = if attends || remembers {
            Some(Sequence {
                norm: self.norm(AttentionNorm, stack.width)?,
                attention: match attends {
                    true => Some(self.attention(attention, stack, [stack.width; 2])?),
                    false => None,
                },
                memory: self.memory(stack, remembers, remembered)?,
            })
        } else {
            None
        };
        let cross = if crosses {
            let attention = self.attention(cross, stack, [stack.width, config.encoder.width])?;
            Some(CrossAttention { norm: self.norm(CrossNorm, stack.width)?, attention })
        } else {
            None
        };
        Ok(DecoderBlock {
            bits: self.bits()?,
            feed_forward_first: form.has(DecoderForm::FEED_FORWARD_FIRST),
            sequence,
            cross,
            feed_forward_norm: self.norm(FeedForwardNorm, stack.width)?,
            feed_forward: self.feed_forward(stack)?,
        })
    }
}
