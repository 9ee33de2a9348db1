//! The tensor table: section `tensors`, and the parts of section `data` that it describes.

use crate::error::Rule;
use crate::fields::{Fields, StringTable};
use crate::floats::{Floats, Half};
use crate::matrix::{
    FloatMatrix, INPUT_PAD, Int3Coding, Int3Matrix, Int4Matrix, Int4Scales, Int8Matrix, Matrix, OUTPUT_BLOCK,
    ShortScale, is_group, multiplier_bytes, round_up,
};
use crate::section::ALIGNMENT;
use crate::sparse::{BlockColumns, BlockIndex, BlockShape, IndexError, SparseInt4Matrix, SparseInt8Matrix};
use core::fmt;
use zerocopy::{FromBytes, Immutable};

pub(crate) const RECORD_LENGTH: usize = 64;
/// Largest number of tensors in a file.
pub const MAX_TENSORS: u32 = 1 << 16;
/// Largest number of outputs or inputs of a matrix, or of values of a vector.
pub const MAX_DIMENSION: u32 = 1 << 24;

/// How a tensor's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// f32 vector `[outputs]`: norms, biases.
    Vector,
    /// f16 vector `[outputs]`: biases of matrices.
    HalfVector,
    /// f32 matrix.
    Float,
    /// int8 matrix in blocks of 16 x 4, one f32 scale an output.
    Int8,
    /// int4 matrix in pairs of such blocks, one scale of 16 bits an output, multipliers for groups of inputs.
    Int4,
    /// Block-sparse int8 matrix, one f32 scale an output.
    SparseInt8,
    /// Block-sparse int4 matrix, one f32 scale an output, multipliers for groups of inputs.
    SparseInt4,
    /// int3 matrix in pairs of blocks, the odd numbers, scales and multipliers as of int4.
    Int3,
    /// The same with symbols that name levels.
    Trellis,
    /// f16 matrix: the taps of a memory.
    HalfFloat,
}

impl TensorKind {
    pub(crate) const ALL: [TensorKind; 10] = [
        Self::Vector,
        Self::HalfVector,
        Self::Float,
        Self::Int8,
        Self::Int4,
        Self::SparseInt8,
        Self::SparseInt4,
        Self::Int3,
        Self::Trellis,
        Self::HalfFloat,
    ];

    /// Whether it is a vector, of whatever values.
    pub fn is_vector(self) -> bool {
        matches!(self, Self::Vector | Self::HalfVector)
    }

    /// Whether groups of inputs have multipliers.
    pub fn has_groups(self) -> bool {
        matches!(self, Self::Int4 | Self::Int3 | Self::Trellis | Self::SparseInt4)
    }

    /// What three bits say, where weights have three.
    pub fn int3_coding(self) -> Option<Int3Coding> {
        match self {
            Self::Int3 => Some(Int3Coding::Odd),
            Self::Trellis => Some(Int3Coding::Trellis),
            _ => None,
        }
    }

    /// Whether only some blocks of the matrix are stored.
    pub fn is_sparse(self) -> bool {
        matches!(self, Self::SparseInt8 | Self::SparseInt4)
    }

    #[cfg(feature = "pack")]
    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }
}

impl fmt::Display for TensorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vector => "f32 vector",
            Self::HalfVector => "f16 vector",
            Self::Float => "f32",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::SparseInt8 => "sparse int8",
            Self::SparseInt4 => "sparse int4",
            Self::Int3 => "int3",
            Self::Trellis => "int3 trellis",
            Self::HalfFloat => "f16",
        })
    }
}

/// A tensor: how it is stored, its shape, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// How its values are stored.
    pub kind: TensorKind,
    /// Outputs of a matrix, values of a vector.
    pub outputs: usize,
    /// Inputs of a matrix; 1 for a vector.
    pub inputs: usize,
    /// Inputs that share a multiplier (int4 and int3); zero for the other kinds.
    pub group_inputs: usize,
    /// Name in the checkpoint that it was made from.
    pub name: &'a str,
    /// Shape of the blocks of a sparse matrix.
    pub block: Option<BlockShape>,
    values: &'a [u8],
    scales: &'a [u8],
    index: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Bytes of values, scales and index.
    pub fn stored_bytes(&self) -> usize {
        self.part_bytes().into_iter().sum()
    }

    /// Bytes of values, of scales with multipliers, and of the index of a sparse matrix.
    pub fn part_bytes(&self) -> [usize; 3] {
        [self.values.len(), self.scales.len(), self.index.len()]
    }

    /// Numbers that the tensor stands for, padding not counted.
    pub fn parameters(&self) -> usize {
        self.outputs * self.inputs
    }

    /// Its values in the order of the file, where they are not quantized.
    pub fn floats(&self) -> Option<Floats<'a>> {
        match self.kind {
            TensorKind::Vector | TensorKind::Float => {
                <[f32]>::ref_from_bytes(self.values).ok().map(Floats::Single)
            }
            TensorKind::HalfVector | TensorKind::HalfFloat => {
                <[Half]>::ref_from_bytes(self.values).ok().map(Floats::Half)
            }
            _ => None,
        }
    }

    /// The matrix, when it is one.
    pub fn matrix(&self) -> Option<Matrix<'a>> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        match self.kind {
            // Of halves there is no product.
            TensorKind::Vector | TensorKind::HalfVector | TensorKind::HalfFloat => None,
            TensorKind::Float => {
                let values = <[f32]>::ref_from_bytes(self.values).ok()?;
                FloatMatrix::new(outputs, inputs, values).ok().map(Matrix::Float)
            }
            TensorKind::Int8 => {
                let values = <[i8]>::ref_from_bytes(self.values).ok()?;
                let scales = <[f32]>::ref_from_bytes(self.scales).ok()?;
                Int8Matrix::new(outputs, inputs, values, scales).ok().map(Matrix::Int8)
            }
            TensorKind::Int4 => {
                Int4Matrix::new(outputs, inputs, self.values, self.int4_scales::<ShortScale>()?)
                    .ok()
                    .map(Matrix::Int4)
            }
            TensorKind::Int3 | TensorKind::Trellis => {
                let (coding, scales) = (self.kind.int3_coding()?, self.int4_scales::<ShortScale>()?);
                Int3Matrix::new(outputs, inputs, coding, self.values, scales).ok().map(Matrix::Int3)
            }
            TensorKind::SparseInt8 => {
                let values = <[i8]>::ref_from_bytes(self.values).ok()?;
                let scales = <[f32]>::ref_from_bytes(self.scales).ok()?;
                let index = self.block_index()?;
                SparseInt8Matrix::new(outputs, inputs, index, values, scales).ok().map(Matrix::SparseInt8)
            }
            TensorKind::SparseInt4 => {
                let (index, scales) = (self.block_index()?, self.int4_scales::<f32>()?);
                SparseInt4Matrix::new(outputs, inputs, index, self.values, scales)
                    .ok()
                    .map(Matrix::SparseInt4)
            }
        }
    }

    /// Scales of the outputs, and behind them the multipliers.
    fn int4_scales<S: FromBytes + Immutable>(&self) -> Option<Int4Scales<'a, S>> {
        let length = size_of::<S>() * round_up(self.outputs, OUTPUT_BLOCK);
        let (scales, multipliers) = self.scales.split_at_checked(length)?;
        let scales = <[S]>::ref_from_bytes(scales).ok()?;
        Some(Int4Scales { group_inputs: self.group_inputs, scales, multipliers })
    }

    /// The index of a sparse matrix, which was checked when the table was parsed.
    fn block_index(&self) -> Option<BlockIndex<'a>> {
        let block = self.block?;
        let (counts, columns) = self.parts_of_index(block).ok()?;
        Some(BlockIndex::checked_before(block, counts, columns))
    }

    /// A count for each row of blocks, and a column for each block.
    fn parts_of_index(&self, block: BlockShape) -> Result<(&'a [u16], BlockColumns<'a>), IndexError> {
        let rows = self.outputs.div_ceil(block.outputs());
        let (counts, columns) = self.index.split_at_checked(2 * rows).ok_or(IndexError::Length)?;
        let counts = <[u16]>::ref_from_bytes(counts).map_err(|_| IndexError::Length)?;
        let columns = if self.inputs.div_ceil(block.inputs()) <= BlockIndex::BYTE_COLUMNS {
            BlockColumns::Bytes(columns)
        } else {
            BlockColumns::Words(<[u16]>::ref_from_bytes(columns).map_err(|_| IndexError::Length)?)
        };
        Ok((counts, columns))
    }
}

/// Byte lengths of values and scales that a kind and shape ask for; of a sparse matrix the values are those of all blocks.
pub(crate) fn part_lengths(
    kind: TensorKind,
    outputs: usize,
    inputs: usize,
    group: usize,
) -> Option<(usize, usize)> {
    let padded_outputs = outputs.checked_next_multiple_of(OUTPUT_BLOCK)?;
    let padded_inputs = inputs.checked_next_multiple_of(INPUT_PAD)?;
    let count = padded_outputs.checked_mul(padded_inputs)?;
    Some(match kind {
        TensorKind::Vector => (outputs.checked_mul(4)?, 0),
        TensorKind::HalfVector => (outputs.checked_mul(2)?, 0),
        TensorKind::Float => (padded_outputs.checked_mul(inputs)?.checked_mul(4)?, 0),
        TensorKind::HalfFloat => (padded_outputs.checked_mul(inputs)?.checked_mul(2)?, 0),
        TensorKind::Int8 | TensorKind::SparseInt8 => (count, padded_outputs.checked_mul(4)?),
        TensorKind::Int4 | TensorKind::Int3 | TensorKind::Trellis | TensorKind::SparseInt4 => {
            let multipliers = multiplier_bytes(padded_outputs, inputs, group)?;
            let scale = if kind.is_sparse() { size_of::<f32>() } else { size_of::<ShortScale>() };
            let values = if kind.int3_coding().is_some() { count / 8 * 3 } else { count / 2 };
            (values, padded_outputs.checked_mul(scale)?.checked_add(multipliers)?)
        }
    })
}

/// The checked tensor table.
#[derive(Debug, Clone, Copy)]
pub struct TensorTable<'a> {
    count: usize,
    records: &'a [u8],
    names: StringTable<'a>,
    data: &'a [u8],
}

impl<'a> TensorTable<'a> {
    pub(crate) fn parse(bytes: &'a [u8], data: &'a [u8]) -> Result<Self, Rule> {
        let mut fields = Fields::new(bytes);
        let count = fields.count("tensor count", 1, MAX_TENSORS)?;
        fields.zeros(4)?;
        let records = fields.bytes(count * RECORD_LENGTH)?;
        let names = StringTable::parse(fields, count)?;
        let table = Self { count, records, names, data };
        let mut end = 0;
        for index in 0..count {
            let tensor = table.decode(index, &mut end)?;
            check_values(index as u32, &tensor)?;
        }
        if end != data.len() { Err(Rule::Trailing) } else { Ok(table) }
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none; a checked table has at least one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The tensor with this id.
    pub fn get(&self, id: u32) -> Option<Tensor<'a>> {
        let index = id as usize;
        if index >= self.count {
            return None;
        }
        // The place was checked against the tensor before it; here it is taken as the record states it.
        let mut start = self.part_offset(index)?;
        self.decode(index, &mut start).ok()
    }

    /// All tensors, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = Tensor<'a>> + use<'a> {
        let table = *self;
        (0..self.count as u32).filter_map(move |id| table.get(id))
    }

    fn record(&self, index: usize) -> Result<Fields<'a>, Rule> {
        let start = index * RECORD_LENGTH;
        self.records.get(start..start + RECORD_LENGTH).map(Fields::new).ok_or(Rule::Truncated)
    }

    fn part_offset(&self, index: usize) -> Option<usize> {
        let mut fields = self.record(index).ok()?;
        fields.bytes(16).ok()?;
        let (values, length, scales) = (fields.u64().ok()?, fields.u64().ok()?, fields.u64().ok()?);
        // A sparse matrix without blocks has no values.
        usize::try_from(if length == 0 { scales } else { values }).ok()
    }

    /// Reads a record whose values must begin at the first aligned offset behind `end`, and moves `end` behind it.
    fn decode(&self, index: usize, end: &mut usize) -> Result<Tensor<'a>, Rule> {
        let (id, name) = (index as u32, self.names.get(index));
        let mut fields = self.record(index)?;
        let code = fields.u8()?;
        let kind = usize::from(code).checked_sub(1).and_then(|i| TensorKind::ALL.get(i)).copied();
        let kind = kind.ok_or(Rule::Code("tensor kind"))?;
        let code = fields.u8()?;
        let block = usize::from(code).checked_sub(1).map(|i| BlockShape::ALL.get(i).copied());
        let block = block.map(|block| block.ok_or(Rule::Code("block shape"))).transpose()?;
        fields.zeros(2)?;
        let outputs = fields.count("outputs", 1, MAX_DIMENSION)?;
        let inputs = fields.count("inputs", 1, MAX_DIMENSION)?;
        let group_inputs = fields.count("group_inputs", 0, MAX_DIMENSION)?;
        let group_fits = if kind.has_groups() { is_group(group_inputs) } else { group_inputs == 0 };
        if (kind.is_vector() && inputs != 1) || block.is_some() != kind.is_sparse() {
            return Err(Rule::TensorShape(id));
        }
        if !group_fits {
            return Err(Rule::Group(id));
        }
        let lengths = part_lengths(kind, outputs, inputs, group_inputs).ok_or(Rule::TensorShape(id))?;
        // How many blocks a sparse matrix has stands in its index, which is held against them where it is checked.
        let values = self.part(&mut fields, id, (!kind.is_sparse()).then_some(lengths.0), end)?;
        let scales = self.part(&mut fields, id, Some(lengths.1), end)?;
        let index = self.part(&mut fields, id, (!kind.is_sparse()).then_some(0), end)?;
        let name = core::str::from_utf8(name).map_err(|_| Rule::Text)?;
        Ok(Tensor { kind, outputs, inputs, group_inputs, name, block, values, scales, index })
    }

    fn part(
        &self,
        fields: &mut Fields<'_>,
        id: u32,
        expected: Option<usize>,
        end: &mut usize,
    ) -> Result<&'a [u8], Rule> {
        let offset = usize::try_from(fields.u64()?).map_err(|_| Rule::TensorPlace(id))?;
        let length = usize::try_from(fields.u64()?).map_err(|_| Rule::TensorLength(id))?;
        if expected.is_some_and(|expected| expected != length) {
            return Err(Rule::TensorLength(id));
        }
        if length == 0 {
            // An absent part states no place.
            return if offset == 0 { Ok(&[]) } else { Err(Rule::TensorPlace(id)) };
        }
        if Some(offset) != end.checked_next_multiple_of(ALIGNMENT) {
            return Err(Rule::TensorPlace(id));
        }
        *end = offset.checked_add(length).ok_or(Rule::TensorPlace(id))?;
        self.data.get(offset..*end).ok_or(Rule::Truncated)
    }
}

/// Scales and float values must be finite, so that no accepted model can make the network's numbers undefined, and no
/// multiplier zero: weights that are zero are written so.
fn check_values(id: u32, tensor: &Tensor<'_>) -> Result<(), Rule> {
    let finite = match tensor.kind {
        TensorKind::Vector | TensorKind::Float => all_finite(tensor.values),
        TensorKind::HalfVector | TensorKind::HalfFloat => all_finite_half(tensor.values),
        TensorKind::Int8 | TensorKind::SparseInt8 => all_finite(tensor.scales),
        TensorKind::Int4 | TensorKind::Int3 | TensorKind::Trellis => {
            let scales = tensor.int4_scales::<ShortScale>().ok_or(Rule::TensorLength(id))?;
            check_multipliers(id, scales.multipliers)?;
            // Whatever the bits: a short scale is finite.
            true
        }
        TensorKind::SparseInt4 => {
            let Int4Scales { scales, multipliers, .. } =
                tensor.int4_scales::<f32>().ok_or(Rule::TensorLength(id))?;
            check_multipliers(id, multipliers)?;
            scales.iter().all(|scale| scale.is_finite())
        }
    };
    if let Some(block) = tensor.block {
        let index = tensor.parts_of_index(block).and_then(|(counts, columns)| {
            BlockIndex::new(block, tensor.outputs, tensor.inputs, counts, columns)
        });
        let index = index.map_err(|error| Rule::Index { tensor: id, error })?;
        let block_bytes =
            if tensor.kind == TensorKind::SparseInt8 { block.weights() } else { block.weights() / 2 };
        if Some(tensor.values.len()) != index.blocks().checked_mul(block_bytes) {
            return Err(Rule::TensorLength(id));
        }
    }
    if finite { Ok(()) } else { Err(Rule::NotFinite(id)) }
}

fn check_multipliers(id: u32, multipliers: &[u8]) -> Result<(), Rule> {
    // Without a branch for each, so that vectors of them are looked at: every half must have a bit.
    let bits = |pair: u8| pair | pair >> 1 | pair >> 2 | pair >> 3;
    let all = multipliers.iter().fold(0x11, |all, &pair| all & bits(pair));
    if all == 0x11 { Ok(()) } else { Err(Rule::Multiplier(id)) }
}

fn all_finite(bytes: &[u8]) -> bool {
    <[f32]>::ref_from_bytes(bytes).is_ok_and(|values| values.iter().all(|value| value.is_finite()))
}

fn all_finite_half(bytes: &[u8]) -> bool {
    <[Half]>::ref_from_bytes(bytes).is_ok_and(|values| values.iter().all(|value| value.is_finite()))
}
