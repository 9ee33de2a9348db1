//! What the caller may choose.

use super::lay_out::{StoredTensor, store_int4, store_int8};
use super::share::Sharing;

/// How the weights of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// One byte a weight, one scale an output.
    #[default]
    Int8,
    /// Half a byte a weight. `group_inputs` inputs share a scale; all of an output where it is `None`.
    Int4 {
        /// Inputs that share a scale, rounded up to a multiple of 16.
        group_inputs: Option<usize>,
    },
}

impl Weights {
    /// `rows` is `[outputs][inputs]`.
    pub(crate) fn store(self, name: &str, rows: &[f32], outputs: usize, inputs: usize) -> StoredTensor {
        match self {
            Self::Int8 => store_int8(name, rows, outputs, inputs),
            Self::Int4 { group_inputs } => store_int4(name, rows, outputs, inputs, group_inputs),
        }
    }
}

/// How a checkpoint is packed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PackOptions {
    /// The matrices of encoder and decoder blocks and of convolutions over channels.
    pub weights: Weights,
    /// The embedding, and the output matrix where it is one of its own.
    pub embedding: Weights,
    /// Which layers share their matrices.
    pub sharing: Sharing,
}
