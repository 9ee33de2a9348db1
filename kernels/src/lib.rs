//! Every SIMD instruction of Kinglet: int8 matrix products and the float operations around them.
//!
//! ```text
//! f32 rows --quantize_rows--> int8 rows + one scale a row --matmul(int8 weights, bias)--> f32 rows
//! ```
//!
//! [`Kernels`] is a value that proves that its instructions exist; every operation is a method of it.
//! Each operation has one scalar implementation, always compiled, which is also the oracle of the
//! others: every instruction set gives the same bits.
//!
//! What this crate does not do: allocate, start threads, read files, or repack weights. One layout of int8 and one of
//! int4 weights ([`kinglet_model_format::Int8Matrix`], [`kinglet_model_format::Int4Matrix`]) serve every instruction set, and so
//! does each shape of sparse blocks ([`kinglet_model_format::BlockShape`]).
#![no_std]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod arch;
mod error;
mod float;
mod instruction_set;
mod matmul;
mod quantize;

pub use error::KernelError;
pub use float::{
    AttentionShape, Cache, CacheMut, FrameCache, FrameCacheMut, MAX_HEAD_WIDTH, MAX_TOP, Peak, Rows, Scored,
    TimeConvolution, attend_scratch, dequantize_int3_row, dequantize_int4_row, dequantize_row,
    dequantize_sparse_int4_row, dequantize_sparse_row, frame_cache_bytes, frame_cache_scales, frame_scratch,
    frame_scratch_bytes, time_ring,
};
pub use instruction_set::{InstructionSet, Kernels, UnknownInstructionSet};
pub use quantize::QuantizedRows;

#[cfg(test)]
mod tests;
