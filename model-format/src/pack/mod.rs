//! The only writer of the format: from a checkpoint folder to the bytes of a `.kgl` file.
//!
//! ```text
//! checkpoint (safetensors, config.json, vocabulary.txt) -> quantize, lay out -> writer -> bytes
//! ```

mod checkpoint;
mod error;
mod lay_out;
mod low_rank;
mod network;
mod options;
mod overrides;
mod share;
mod sparse;
mod steps;
mod trellis;
mod trellis_path;
mod writer;

pub use checkpoint::Checkpoint;
pub use error::PackError;
pub use lay_out::TensorReport;
pub use options::{PackOptions, Sparse, Storage, Weights};
pub use overrides::Overrides;
pub use share::{Groups, ShareReport, Sharing};

use std::vec::Vec;

/// A packed model.
#[derive(Debug)]
pub struct Packed {
    /// The file, whole.
    pub bytes: Vec<u8>,
    /// What was done with each tensor, in the order of the ids.
    pub tensors: Vec<TensorReport>,
    /// What was done with each matrix that layers were made to share, in the order of the layers.
    pub shared: Vec<ShareReport>,
}

/// Packs a checkpoint with every matrix in int8. `progress` is called before each tensor with tensors done and in all.
///
/// # Errors
/// As [`pack_with`].
pub fn pack(checkpoint: &Checkpoint, progress: &mut dyn FnMut(usize, usize)) -> Result<Packed, PackError> {
    pack_with(checkpoint, &PackOptions::default(), progress)
}

/// Packs a checkpoint as `options` say. `progress` is called before each tensor with tensors done and in all.
///
/// # Errors
/// When a tensor is missing, has another shape than the config says or holds a value that is not finite,
/// when one is left over, when layers cannot share as they should, or when a text or size is outside the format's limits.
pub fn pack_with(
    checkpoint: &Checkpoint,
    options: &PackOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Packed, PackError> {
    let mut writer = writer::Writer::new();
    let shared = network::write_network(checkpoint, options, &mut writer, progress)?;
    let tensors = writer.reports();
    let bytes = writer.finish(checkpoint)?;
    Ok(Packed { bytes, tensors, shared })
}

#[cfg(test)]
mod tests;
