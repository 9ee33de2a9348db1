//! The Kinglet model file (`.kgl`): checked, zero-copy views of one contiguous, 64-byte aligned slice.
//!
//! ```text
//! bytes -> header -> sections -> config ─┐
//!                             -> tensors ┼-> layers -> blocks of the network, as matrix views
//!                             -> data   ─┘
//!                             -> vocabulary, texts
//! ```
//!
//! [`Model::parse`] checks every offset, length, count, shape, share and special token once, before
//! anything else happens; after that no accessor can fail. The layout is specified in `FORMAT.md`
//! beside this crate's manifest; [`FormatError`] mirrors its rules one by one. Feature `pack` adds the
//! only writer.
//!
//! This crate opens no file, runs no network and knows nothing of audio.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("model files are little-endian and are used in place: big-endian targets are not supported");

#[cfg(feature = "std")]
extern crate std;

mod error;
mod fields;
mod section;
mod config;
mod matrix;
mod sparse;
mod tensor;
mod layer;
mod filter_bank;
mod floats;
mod memory;
mod residual;
mod block;
mod decoder_block;
mod text;
pub mod trellis;
mod model;
#[cfg(feature = "pack")]
pub mod pack;

pub use block::{Attention, Convolution, CtcHead, EncoderBlock, FeedForward, Linear, Norm, OutputHead};
pub use config::{
    Activation, ActivationBits, ChunkConfig, Config, FrontendConfig, FrontendKind, MemoryConfig, Positions,
    StackConfig, Tokens,
};
pub use decoder_block::{CrossAttention, DecoderBlock, Sequence};
pub use error::{FormatError, Rule};
pub use filter_bank::{FILTER_BANK_TRANSFORM, FilterBank, FilterBankConfig, Window};
pub use floats::{Floats, Half};
pub use layer::{Layer, LayerKind, LayerTable, Part, Role, Slot};
pub use matrix::{
    FloatMatrix, INPUT_BLOCK, INPUT_PAD, Int3Block, Int3Coding, Int3Matrix, Int4Matrix, Int4Scales,
    Int8Matrix, MOST_GROUP_INPUTS, Matrix, MatrixShapeError, OUTPUT_BLOCK, ShortScale, WideBlock, round_up,
    widen_odd,
};
pub use memory::Memory;
pub use model::{Model, Verify};
pub use residual::LowRank;
pub use section::{ALIGNMENT, MAGIC, Section, SectionKind, VERSION};
pub use sparse::{
    BlockColumns, BlockIndex, BlockRow, BlockShape, IndexError, SparseInt4Matrix, SparseInt8Matrix,
};
pub use tensor::{Tensor, TensorKind, TensorTable};
pub use text::{Piece, Texts, Vocabulary};
