//! Everything that can be wrong with a model file.

use crate::section::SectionKind;
use crate::sparse::IndexError;
use thiserror::Error;

/// Why a model file is refused. The message names the section that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    /// The file does not begin with the magic bytes.
    #[error("not a Kinglet model: it does not begin with the magic bytes")]
    NotAModel,
    /// The file is of a version that this reader does not know.
    #[error("model has format version {found}, this program reads version {known}: {}", if found > known { "update the program" } else { "pack the model anew" })]
    Version {
        /// Version in the file.
        found: u16,
        /// Version that this reader knows.
        known: u16,
    },
    /// The slice does not lie on a 64-byte boundary, so views of it cannot be aligned.
    #[error("model bytes must begin on a 64-byte boundary in memory")]
    Unaligned,
    /// The length in the header is not the length of the file.
    #[error("model is damaged: it should have {expected} bytes and has {found}")]
    Length {
        /// Length that the header states.
        expected: u64,
        /// Length of the slice.
        found: u64,
    },
    /// A rule of the header or of the section table is broken.
    #[error("model is damaged: header, {0}")]
    Header(Rule),
    /// A section breaks a rule.
    #[error("model is damaged: section `{section}`, {rule}")]
    Section {
        /// The section that is damaged.
        section: SectionKind,
        /// The rule that it breaks.
        rule: Rule,
    },
}

/// The rules of `FORMAT.md`, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rule {
    /// A field lies beyond the end of what holds it.
    #[error("it is cut short")]
    Truncated,
    /// A section or a part holds more bytes than its fields describe.
    #[error("it has bytes that no field describes")]
    Trailing,
    /// Reserved bytes or padding are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// The stored checksum is not the checksum of the bytes.
    #[error("its checksum is wrong")]
    Checksum,
    /// Sections are missing, repeated, out of order, overlapping or apart.
    #[error("its sections are not in order, side by side")]
    SectionOrder,
    /// A number lies outside the limits that `FORMAT.md` states.
    #[error("`{0}` is out of range")]
    Range(&'static str),
    /// A code stands for nothing in this version.
    #[error("`{0}` has an unknown code")]
    Code(&'static str),
    /// A tensor's bytes are not where the tensors before it end.
    #[error("tensor {0} does not lie behind the tensor before it")]
    TensorPlace(u32),
    /// A tensor's lengths do not fit its kind and shape.
    #[error("tensor {0} does not have the length of its shape")]
    TensorLength(u32),
    /// A tensor has an impossible shape.
    #[error("tensor {0} has a shape that is not allowed")]
    TensorShape(u32),
    /// Groups of inputs are not of a size that the tensor's kind can have.
    #[error(
        "tensor {0} has groups of inputs that are not a multiple of 16 up to 65,536, or has no use for groups"
    )]
    Group(u32),
    /// A multiplier of int4 weights is zero.
    #[error("tensor {0} holds a multiplier that is not 1 to 15")]
    Multiplier(u32),
    /// A scale or a float value is not finite.
    #[error("tensor {0} holds a value that is not a finite number")]
    NotFinite(u32),
    /// The index of a sparse matrix is not one of this matrix.
    #[error("tensor {tensor}: {error}")]
    Index {
        /// The tensor's id.
        tensor: u32,
        /// What is wrong.
        error: IndexError,
    },
    /// A layer names a tensor that does not exist.
    #[error("layer {layer} names tensor {tensor}, which does not exist")]
    TensorMissing {
        /// Position of the layer in the table.
        layer: u32,
        /// Tensor id that it names.
        tensor: u32,
    },
    /// A layer lacks a tensor that its kind needs.
    #[error("layer {layer} has no `{role}`")]
    SlotMissing {
        /// Position of the layer in the table.
        layer: u32,
        /// What is missing.
        role: &'static str,
    },
    /// A layer names the same role twice.
    #[error("layer {layer} names a tensor twice for the same role")]
    SlotRepeated {
        /// Position of the layer in the table.
        layer: u32,
    },
    /// A layer holds a role that its kind does not have.
    #[error("layer {layer} names a tensor for a role that it does not have")]
    SlotUnknown {
        /// Position of the layer in the table.
        layer: u32,
    },
    /// A tensor of a layer has a shape or kind that does not fit there.
    #[error("layer {layer}, `{role}`: the tensor's kind or shape does not fit")]
    SlotShape {
        /// Position of the layer in the table.
        layer: u32,
        /// The role that does not fit.
        role: &'static str,
    },
    /// A residual or diagonal stands beside a matrix that no other layer names.
    #[error(
        "layer {layer}, `{role}`: only a matrix that another layer shares may have a residual or diagonal"
    )]
    NotShared {
        /// Position of the layer in the table.
        layer: u32,
        /// The role of the matrix.
        role: &'static str,
    },
    /// The layers are not the ones that the config describes, in its order.
    #[error("the layers are not the ones that the config describes")]
    LayerOrder,
    /// A block merges frames although the encoder has chunks, which count frames.
    #[error("layer {layer}: an encoder with chunks cannot merge frames")]
    MergedChunks {
        /// Position of the layer in the table.
        layer: u32,
    },
    /// No block of the decoder attends to the encoder.
    #[error("no block of the decoder attends to the encoder")]
    Deaf,
    /// Offsets of a table of strings do not increase.
    #[error("its offsets are out of order")]
    OffsetOrder,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}
