//! What the caller may choose.

use super::error::PackError;
use super::lay_out::{StoredTensor, store_float, store_int8, store_steps};
use super::overrides::Overrides;
use super::share::Sharing;
use super::sparse::{prune, store_sparse};
use super::steps::{Grid, Steps};
use super::trellis::store_trellis;
use crate::layer::Role;
use crate::sparse::BlockShape;
use std::format;

/// How the weights of a matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    /// One byte a weight, one scale an output.
    #[default]
    Int8,
    /// Four bytes a weight: nothing is rounded.
    Float,
    /// Half a byte a weight, one scale an output. `group_inputs` inputs of it share a multiplier; all where it is `None`.
    Int4 {
        /// Inputs that share a multiplier, rounded up to a multiple of 16.
        group_inputs: Option<usize>,
    },
    /// Three eighths of a byte a weight, otherwise as int4. There is no zero among them, so that no blocks of it can be left out.
    Int3 {
        /// As of int4.
        group_inputs: Option<usize>,
    },
    /// As many bits, which together with those of other weights name one of 64 levels, see [`trellis`](crate::trellis): less noise than int3, more
    /// work for a product of one row. Never in blocks.
    Trellis {
        /// As of int4.
        group_inputs: Option<usize>,
    },
}

impl Weights {
    /// Names of ways to store weights.
    pub const NAMES: [&str; 8] =
        ["int8", "int4", "int4-groups", "int3", "int3-groups", "trellis", "trellis-groups", "float"];

    /// The way with this name: `int4`, `int3` and `trellis` have one scale an output, with `-groups` also a multiplier for each 32 inputs of it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "int8" => Some(Self::Int8),
            "int4" => Some(Self::Int4 { group_inputs: None }),
            "int4-groups" => Some(Self::Int4 { group_inputs: Some(32) }),
            "int3" => Some(Self::Int3 { group_inputs: None }),
            "int3-groups" => Some(Self::Int3 { group_inputs: Some(32) }),
            "trellis" => Some(Self::Trellis { group_inputs: None }),
            "trellis-groups" => Some(Self::Trellis { group_inputs: Some(32) }),
            "float" => Some(Self::Float),
            _ => None,
        }
    }

    /// Inputs that share a multiplier, where weights have such groups.
    pub(super) fn group_inputs(&mut self) -> Option<&mut Option<usize>> {
        match self {
            Self::Int4 { group_inputs } | Self::Int3 { group_inputs } | Self::Trellis { group_inputs } => {
                Some(group_inputs)
            }
            Self::Int8 | Self::Float => None,
        }
    }
}

/// How matrices are kept in blocks of which those of zeros are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sparse {
    /// The shape of the blocks.
    pub block: BlockShape,
    /// The part of the blocks of each matrix that is set to zero, those of the smallest weights, 0 to 1. Where it is
    /// `None` only what training set to zero is left out, and a matrix in which that saves nothing stays whole.
    pub sparsity: Option<f32>,
}

/// How one matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Storage {
    /// How its weights are.
    pub weights: Weights,
    /// In which blocks, where it is not kept whole.
    pub sparse: Option<Sparse>,
}

impl Storage {
    /// `rows` is `[outputs][inputs]`; int4, int3 and trellis weights lie on `grid` where there is one.
    pub(super) fn store(
        self,
        name: &str,
        rows: &[f32],
        outputs: usize,
        inputs: usize,
        grid: Option<&Grid>,
    ) -> Result<StoredTensor, PackError> {
        let whole = |rows: &[f32]| match self.weights {
            Weights::Int8 => Ok(store_int8(name, rows, outputs, inputs)),
            Weights::Float => Ok(store_float(name, rows, outputs, inputs)),
            Weights::Int4 { group_inputs } => {
                store_steps(name, rows, outputs, inputs, Steps::Int4, group_inputs, grid)
            }
            Weights::Int3 { group_inputs } => {
                store_steps(name, rows, outputs, inputs, Steps::Int3, group_inputs, grid)
            }
            Weights::Trellis { group_inputs } => {
                store_trellis(name, rows, outputs, inputs, group_inputs, grid)
            }
        };
        // Numbers and counts of columns have two bytes at most: a matrix so wide that they would need more stays whole.
        let numbered = |sparse: &Sparse| inputs.div_ceil(sparse.block.inputs()) <= usize::from(u16::MAX);
        let Some(Sparse { block, sparsity }) = self.sparse.filter(numbered) else { return whole(rows) };
        if let (Weights::Int3 { .. } | Weights::Trellis { .. }, Some(_)) = (self.weights, sparsity) {
            let message = format!("`{name}`: int3 and trellis know no blocks, so none can be left out");
            return Err(PackError::Options(message));
        }
        let blocks = |rows: &[f32]| store_sparse(name, rows, outputs, inputs, block, self.weights, grid);
        if let Some(sparsity) = sparsity {
            let pruned = prune(rows, outputs, inputs, block, sparsity);
            return Ok(blocks(&pruned)?.compared_with(rows, &pruned));
        }
        let (sparse, whole) = (blocks(rows)?, whole(rows)?);
        Ok(if sparse.report.bytes < whole.report.bytes { sparse } else { whole })
    }
}

/// How a checkpoint is packed.
#[derive(Debug, Clone, Default)]
pub struct PackOptions {
    /// The matrices of encoder and decoder blocks and of convolutions; a convolution over the waveform, small as it is, never
    /// gets fewer than eight bits.
    pub weights: Weights,
    /// The embedding, and the output matrix where it is one of its own.
    pub embedding: Weights,
    /// How matrices in `weights` are kept in blocks, where they are.
    pub sparse: Option<Sparse>,
    /// What is different for single matrices.
    pub overrides: Overrides,
    /// Which layers share their matrices.
    pub sharing: Sharing,
}

impl PackOptions {
    /// How the matrix `name` (without `.weight`) that does `role` is stored; `used` has a place for each override.
    pub(crate) fn storage(&self, role: Role, name: &str, used: &mut [bool]) -> Result<Storage, PackError> {
        let usual = match role {
            Role::Embedding | Role::Vocabulary => Storage { weights: self.embedding, sparse: None },
            _ => Storage { weights: self.weights, sparse: self.sparse },
        };
        self.overrides.storage(name, usual, self.block(), used)
    }

    /// [`storage`](Self::storage) of the kernel of a convolution over the waveform.
    pub(crate) fn waveform_storage(&self, name: &str, used: &mut [bool]) -> Result<Storage, PackError> {
        let weights = match self.weights {
            Weights::Int4 { .. } | Weights::Int3 { .. } | Weights::Trellis { .. } => Weights::Int8,
            weights => weights,
        };
        self.overrides.storage(name, Storage { weights, sparse: None }, self.block(), used)
    }

    /// The shape of blocks where an override names none.
    fn block(&self) -> BlockShape {
        self.sparse.map_or(BlockShape::Outputs16Inputs4, |sparse| sparse.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_with_more_columns_of_blocks_than_an_index_numbers_stays_whole() {
        let most = 4 * usize::from(u16::MAX);
        let sparse = Some(Sparse { block: BlockShape::Outputs16Inputs4, sparsity: Some(0.0) });
        let storage = Storage { weights: Weights::Int8, sparse };
        for (inputs, block) in [(most, Some(BlockShape::Outputs16Inputs4)), (most + 1, None)] {
            let tensor = storage.store("w", &std::vec![1.0; inputs], 1, inputs, None).expect("it packs");
            assert_eq!(tensor.report.block, block);
        }
    }

    #[test]
    fn blocks_are_used_where_they_save_bytes() {
        let (outputs, inputs) = (32, 64);
        for block in BlockShape::ALL {
            let storage = Storage { weights: Weights::Int8, sparse: Some(Sparse { block, sparsity: None }) };
            let full: std::vec::Vec<f32> = (1..=outputs * inputs).map(|value| value as f32).collect();
            let store = |rows: &[f32]| storage.store("w", rows, outputs, inputs, None).expect("it packs");
            assert_eq!(store(&full).report.block, None);
            let mut half = full;
            half[..outputs * inputs / 2].fill(0.0);
            let tensor = store(&half);
            assert_eq!((tensor.report.block, tensor.report.density), (Some(block), 0.5));
        }
    }
}
