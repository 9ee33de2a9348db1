//! Tests that look inside.

mod ctc;
mod encoder_stream;
mod int4;
mod memory;
mod merge;
pub(crate) mod parity;
mod region;
mod residual;
mod sanm;
mod sparse;
mod streams;
mod variant;
