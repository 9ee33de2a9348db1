//! Plain Rust: the fallback, and the oracle of every other implementation.

mod matmul_i8;
mod quantize;

pub(crate) use matmul_i8::matmul_i8_block16x4;
pub(crate) use quantize::quantize_rows;
