//! Float operations around the int8 products, written once over [`lanes::Lanes`].
//!
//! Every operation gives the same bits on every instruction set, scalar included; only the sign and payload of
//! a NaN may differ. Nothing here fails on infinite or NaN values.
#![expect(
    clippy::needless_range_loop,
    reason = "tiles of registers are arrays with constant indices, written as what they are"
)]

mod activation;
mod attention;
mod cached_attention;
mod cached_frames;
mod embedding;
mod exponential;
mod frame_attention;
mod frame_cache;
mod key_value_cache;
mod lanes;
mod layer_norm;
mod matmul;
mod rotary;
mod softmax;
mod split;
mod tile;
mod time_convolution;

pub use attention::{AttentionShape, MAX_HEAD_WIDTH, Rows, attend_scratch};
pub use cached_attention::Cache;
pub use embedding::{
    dequantize_int3_row, dequantize_int4_row, dequantize_row, dequantize_sparse_int4_row,
    dequantize_sparse_row,
};
pub use frame_attention::{frame_scratch, frame_scratch_bytes};
pub use frame_cache::{FrameCache, FrameCacheMut, frame_cache_bytes, frame_cache_scales};
pub use key_value_cache::CacheMut;
pub use softmax::{MAX_TOP, Peak, Scored};
pub use time_convolution::{TimeConvolution, time_ring};

#[cfg(test)]
mod tests;
