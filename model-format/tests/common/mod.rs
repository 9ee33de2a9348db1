//! What tests of damaged files share, the fuzz targets among them: small valid models of every kind, changed with their
//! checksums put right, and the changes that other loaders have fallen for.
#![allow(dead_code, unused_imports, reason = "each user takes a part of this")]

pub mod attacks;
pub mod models;
mod victim;

use kinglet_model_format::Model;

pub use victim::{ENTRY, HEADER, TABLE_END, Victim, mend};

/// Touches everything that a reader of a model can ask for.
pub fn visit(model: &Model<'_>) -> usize {
    let tensors: usize = model
        .tensors()
        .iter()
        .map(|tensor| tensor.stored_bytes() + usize::from(tensor.matrix().is_some()))
        .sum();
    let slots = model.layers().iter().flat_map(|layer| layer.slots()).count();
    tensors + slots + model.encoder_blocks().count() + model.decoder_blocks().count()
}
