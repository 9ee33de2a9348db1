//! Tests that look inside.

mod ctc;
mod int4;
pub(crate) mod parity;
mod region;
mod residual;
mod sparse;
mod streams;
