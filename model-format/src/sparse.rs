//! Views of block-sparse weight matrices: only blocks that hold a weight other than zero are stored.
//!
//! Blocks lie in the order in which a kernel visits them: rows of blocks from the first outputs on, in a row of blocks by
//! column. An index says how many blocks each row has and in which column each stands.

use crate::matrix::{Int4Scales, MatrixShapeError, OUTPUT_BLOCK};
use core::fmt;
use thiserror::Error;

/// The shape of the blocks of a sparse matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockShape {
    /// 16 outputs x 4 inputs, 64 values: four operands of `SDOT`, one of `VPDPBUSD`.
    Outputs16Inputs4,
    /// 4 outputs x 16 inputs, 64 values: rows for `SMULL`.
    Outputs4Inputs16,
    /// 4 outputs x 4 inputs, 16 values: one operand of `SDOT`, for matrices that coarser blocks would spoil.
    Outputs4Inputs4,
}

impl BlockShape {
    /// All shapes, in the order of their codes from 1 on.
    pub const ALL: [Self; 3] = [Self::Outputs16Inputs4, Self::Outputs4Inputs16, Self::Outputs4Inputs4];

    /// Outputs of a block.
    pub const fn outputs(self) -> usize {
        match self {
            Self::Outputs16Inputs4 => 16,
            Self::Outputs4Inputs16 | Self::Outputs4Inputs4 => 4,
        }
    }

    /// Inputs of a block.
    pub const fn inputs(self) -> usize {
        match self {
            Self::Outputs4Inputs16 => 16,
            Self::Outputs16Inputs4 | Self::Outputs4Inputs4 => 4,
        }
    }

    /// Weights of a block.
    pub const fn weights(self) -> usize {
        self.outputs() * self.inputs()
    }

    #[cfg(feature = "pack")]
    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The byte of a block of int4 weights that holds the weight at `output`, `input` of the block, and whether it is its
    /// high half.
    ///
    /// Every 16 bytes (8 in a block of 4 x 4) unpack into a register of low halves and one of high halves, each of which
    /// holds whole rows of the block.
    pub const fn int4_place(self, output: usize, input: usize) -> (usize, bool) {
        match self {
            Self::Outputs16Inputs4 => {
                (output / 8 * 16 + output % 4 * 4 + input, !(output / 4).is_multiple_of(2))
            }
            Self::Outputs4Inputs16 => (output / 2 * 16 + input, !output.is_multiple_of(2)),
            Self::Outputs4Inputs4 => (output % 2 * 4 + input, output >= 2),
        }
    }
}

impl fmt::Display for BlockShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.outputs(), self.inputs())
    }
}

/// Column numbers of blocks: one byte each where that is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockColumns<'a> {
    /// For at most [`BlockIndex::BYTE_COLUMNS`] columns of blocks.
    Bytes(&'a [u8]),
    /// For more.
    Words(&'a [u16]),
}

impl<'a> BlockColumns<'a> {
    /// Number of columns.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(columns) => columns.len(),
            Self::Words(columns) => columns.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column at `index`; the last column there can be outside.
    pub fn get(&self, index: usize) -> usize {
        let column = match self {
            Self::Bytes(columns) => columns.get(index).map(|&column| usize::from(column)),
            Self::Words(columns) => columns.get(index).map(|&column| usize::from(column)),
        };
        column.unwrap_or(usize::from(u16::MAX))
    }

    fn part(&self, start: usize, count: usize) -> Self {
        let range = start..start.saturating_add(count);
        match self {
            Self::Bytes(columns) => Self::Bytes(columns.get(range).unwrap_or(&[])),
            Self::Words(columns) => Self::Words(columns.get(range).unwrap_or(&[])),
        }
    }
}

/// Why an index is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IndexError {
    /// It does not have a count for each row of blocks and a column for each block.
    #[error("the block index does not have the length of its counts")]
    Length,
    /// A row of blocks has more blocks than columns.
    #[error("a row of blocks has more blocks than there are columns")]
    Count,
    /// Columns of a row of blocks do not increase.
    #[error("block columns are out of order")]
    Order,
    /// A block lies outside the matrix.
    #[error("a block lies outside the matrix")]
    Range,
}

/// Which blocks of a matrix are stored.
///
/// Invariants, relied on by unsafe code in the kernels: there is one count for each row of blocks
/// (`outputs` over the block's outputs, rounded up); the counts add up to the number of columns; in each row of blocks
/// the columns increase and each is less than `inputs` over the block's inputs, rounded up.
#[derive(Debug, Clone, Copy)]
pub struct BlockIndex<'a> {
    shape: BlockShape,
    counts: &'a [u16],
    columns: BlockColumns<'a>,
}

/// One row of blocks.
#[derive(Debug, Clone, Copy)]
pub struct BlockRow<'a> {
    /// First output of the row.
    pub first_output: usize,
    /// Number of the row's first block among all that are stored.
    pub first_block: usize,
    /// Columns of its blocks.
    pub columns: BlockColumns<'a>,
}

impl<'a> BlockIndex<'a> {
    /// Most columns of blocks for which a column is one byte.
    pub const BYTE_COLUMNS: usize = 256;

    /// An index of blocks of a matrix `[outputs, inputs]`: a count for each row of blocks, then the columns of all.
    ///
    /// # Errors
    /// When any of the invariants above does not hold, or columns are words where bytes would do or the other way round.
    pub fn new(
        shape: BlockShape,
        outputs: usize,
        inputs: usize,
        counts: &'a [u16],
        columns: BlockColumns<'a>,
    ) -> Result<Self, IndexError> {
        let index = Self { shape, counts, columns };
        let all = inputs.div_ceil(shape.inputs());
        let bytes = matches!(columns, BlockColumns::Bytes(_));
        if counts.len() != outputs.div_ceil(shape.outputs()) || bytes != (all <= Self::BYTE_COLUMNS) {
            return Err(IndexError::Length);
        }
        let mut total = 0usize;
        for &count in counts {
            if usize::from(count) > all {
                return Err(IndexError::Count);
            }
            total = total.checked_add(usize::from(count)).ok_or(IndexError::Length)?;
        }
        if total != columns.len() {
            return Err(IndexError::Length);
        }
        for row in index.rows() {
            let mut least = 0;
            for block in 0..row.columns.len() {
                let column = row.columns.get(block);
                if column >= all {
                    return Err(IndexError::Range);
                }
                if column < least {
                    return Err(IndexError::Order);
                }
                least = column + 1;
            }
        }
        Ok(index)
    }

    /// An index whose invariants were checked before: the parser checks each once, the network is put together often.
    pub(crate) fn checked_before(shape: BlockShape, counts: &'a [u16], columns: BlockColumns<'a>) -> Self {
        Self { shape, counts, columns }
    }

    /// The shape of the blocks.
    pub fn shape(&self) -> BlockShape {
        self.shape
    }

    /// Stored blocks in each row of blocks.
    pub fn counts(&self) -> &'a [u16] {
        self.counts
    }

    /// Columns of all blocks, row by row.
    pub fn columns(&self) -> BlockColumns<'a> {
        self.columns
    }

    /// Stored blocks.
    pub fn blocks(&self) -> usize {
        self.columns.len()
    }

    /// Bytes of the index: counts, columns.
    pub fn bytes(&self) -> (usize, usize) {
        let width = if matches!(self.columns, BlockColumns::Bytes(_)) { 1 } else { 2 };
        (2 * self.counts.len(), width * self.columns.len())
    }

    /// The rows of blocks, in order.
    pub fn rows(&self) -> impl Iterator<Item = BlockRow<'a>> + use<'a> {
        let (columns, outputs) = (self.columns, self.shape.outputs());
        let mut first_block = 0;
        self.counts.iter().enumerate().map(move |(row, &count)| {
            let count = usize::from(count);
            let part = columns.part(first_block, count);
            let row = BlockRow { first_output: row * outputs, first_block, columns: part };
            first_block += count;
            row
        })
    }

    /// The stored block that holds the weight at `output`, `input`.
    fn block_of(&self, output: usize, input: usize) -> Option<usize> {
        let row = self.rows().nth(output / self.shape.outputs())?;
        let column = input / self.shape.inputs();
        (0..row.columns.len()).find(|&block| row.columns.get(block) == column).map(|b| row.first_block + b)
    }
}

/// Block-sparse int8 weights `[outputs, inputs]` with one scale an output.
///
/// Values are `[blocks][block outputs][block inputs]`.
///
/// Invariants, relied on by unsafe code in the kernels: those of [`BlockIndex`] for this shape;
/// `values().len() == index().blocks() * index().shape().weights()`; `scales()` holds one for each output, rounded up to
/// 16; neither dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct SparseInt8Matrix<'a> {
    outputs: usize,
    inputs: usize,
    index: BlockIndex<'a>,
    values: &'a [i8],
    scales: &'a [f32],
}

impl<'a> SparseInt8Matrix<'a> {
    /// A view of the blocks that `index` names, which must have been made for `outputs` and `inputs`.
    ///
    /// # Errors
    /// When a dimension is zero or a length does not fit.
    pub fn new(
        outputs: usize,
        inputs: usize,
        index: BlockIndex<'a>,
        values: &'a [i8],
        scales: &'a [f32],
    ) -> Result<Self, MatrixShapeError> {
        check_shape(outputs, inputs, &index, values.len(), index.shape().weights())?;
        if Some(scales.len()) != outputs.checked_next_multiple_of(OUTPUT_BLOCK) {
            return Err(MatrixShapeError { outputs, inputs });
        }
        Ok(Self { outputs, inputs, index, values, scales })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Which blocks are stored.
    pub fn index(&self) -> BlockIndex<'a> {
        self.index
    }

    /// Values, `[blocks][block outputs][block inputs]`.
    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// One scale an output, `[outputs rounded up to 16]`.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// The int8 value that joins `input` to `output`; zero where no block is stored. Slow: for tests and reports.
    pub fn value(&self, output: usize, input: usize) -> i8 {
        let shape = self.index.shape();
        let Some(block) = self.index.block_of(output, input) else { return 0 };
        let place = output % shape.outputs() * shape.inputs() + input % shape.inputs();
        self.values.get(block * shape.weights() + place).copied().unwrap_or(0)
    }
}

/// Block-sparse int4 weights `[outputs, inputs]`, two a byte, with [`Int4Scales`].
///
/// Values are `[blocks][block weights / 2]` bytes, in the order of [`BlockShape::int4_place`], two's complement.
///
/// Invariants, relied on by unsafe code in the kernels: those of [`BlockIndex`] and of [`Int4Scales`] for this shape;
/// `values().len() == index().blocks() * index().shape().weights() / 2`; neither dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct SparseInt4Matrix<'a> {
    outputs: usize,
    inputs: usize,
    index: BlockIndex<'a>,
    values: &'a [u8],
    scales: Int4Scales<'a, f32>,
}

impl<'a> SparseInt4Matrix<'a> {
    /// A view of the blocks that `index` names, which must have been made for `outputs` and `inputs`.
    ///
    /// # Errors
    /// When a dimension is zero, a group cannot be one or a length does not fit.
    pub fn new(
        outputs: usize,
        inputs: usize,
        index: BlockIndex<'a>,
        values: &'a [u8],
        scales: Int4Scales<'a, f32>,
    ) -> Result<Self, MatrixShapeError> {
        check_shape(outputs, inputs, &index, values.len(), index.shape().weights() / 2)?;
        scales.check(outputs, inputs)?;
        Ok(Self { outputs, inputs, index, values, scales })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Groups of inputs, the last perhaps smaller.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(self.scales.group_inputs)
    }

    /// Which blocks are stored.
    pub fn index(&self) -> BlockIndex<'a> {
        self.index
    }

    /// Values, two a byte.
    pub fn values(&self) -> &'a [u8] {
        self.values
    }

    /// What values are multiplied by.
    pub fn scales(&self) -> Int4Scales<'a, f32> {
        self.scales
    }

    /// The value that joins `input` to `output` times its multiplier, -120 to 105; zero where no block is stored. Slow: for
    /// tests and reports.
    pub fn weight(&self, output: usize, input: usize) -> i8 {
        let shape = self.index.shape();
        let Some(block) = self.index.block_of(output, input) else { return 0 };
        let (place, high) = shape.int4_place(output % shape.outputs(), input % shape.inputs());
        let byte = self.values.get(block * (shape.weights() / 2) + place).copied().unwrap_or(0);
        // Shifting the wanted half to the top and back extends its sign.
        let value = if high { byte as i8 >> 4 } else { (byte << 4) as i8 >> 4 };
        value * self.scales.multiplier(self.groups(), output, input)
    }

    /// The multiplier of `output` in the group that holds `input`.
    pub fn multiplier(&self, output: usize, input: usize) -> i8 {
        self.scales.multiplier(self.groups(), output, input)
    }
}

fn check_shape(
    outputs: usize,
    inputs: usize,
    index: &BlockIndex<'_>,
    values: usize,
    block_bytes: usize,
) -> Result<(), MatrixShapeError> {
    let shape = index.shape();
    let rows_fit = index.counts.len() == outputs.div_ceil(shape.outputs());
    let all = inputs.div_ceil(shape.inputs());
    // The index was checked against some shape; that it was this one is checked by what it names.
    let columns_fit = index
        .rows()
        .all(|row| row.columns.len().checked_sub(1).is_none_or(|last| row.columns.get(last) < all));
    let fits = rows_fit && columns_fit && Some(values) == index.blocks().checked_mul(block_bytes);
    if outputs == 0 || inputs == 0 || !fits { Err(MatrixShapeError { outputs, inputs }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int4_places_are_a_permutation() {
        for shape in BlockShape::ALL {
            let mut seen = [[false; 2]; 32];
            for output in 0..shape.outputs() {
                for input in 0..shape.inputs() {
                    let (place, high) = shape.int4_place(output, input);
                    assert!(!core::mem::replace(&mut seen[place][usize::from(high)], true));
                }
            }
            assert!(seen.iter().take(shape.weights() / 2).all(|halves| halves[0] && halves[1]), "{shape}");
        }
    }

    #[test]
    fn every_rule_of_an_index_is_checked() {
        let shape = BlockShape::Outputs16Inputs4;
        // 33 outputs, 19 inputs: 3 rows of blocks, 5 columns.
        let new = |counts: &[u16], columns: &[u8]| {
            BlockIndex::new(shape, 33, 19, counts, BlockColumns::Bytes(columns)).map(|index| index.blocks())
        };
        assert_eq!(new(&[2, 0, 1], &[0, 4, 4]), Ok(3));
        assert_eq!(new(&[0, 0, 0], &[]), Ok(0));
        assert_eq!(new(&[5, 5, 5], &[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]), Ok(15));
        assert_eq!(new(&[2, 1], &[0, 4, 4]), Err(IndexError::Length));
        assert_eq!(new(&[2, 0, 1, 0], &[0, 4, 4]), Err(IndexError::Length));
        assert_eq!(new(&[2, 0, 1], &[0, 4]), Err(IndexError::Length));
        assert_eq!(new(&[2, 0, 1], &[0, 4, 4, 4]), Err(IndexError::Length));
        assert_eq!(new(&[6, 0, 0], &[0, 1, 2, 3, 4, 5]), Err(IndexError::Count));
        assert_eq!(new(&[u16::MAX, 0, 0], &[0]), Err(IndexError::Count));
        assert_eq!(new(&[2, 0, 1], &[4, 0, 4]), Err(IndexError::Order));
        assert_eq!(new(&[2, 0, 1], &[4, 4, 4]), Err(IndexError::Order));
        assert_eq!(new(&[2, 0, 1], &[0, 5, 4]), Err(IndexError::Range));
        assert_eq!(new(&[2, 0, 1], &[0, 4, 255]), Err(IndexError::Range));
        let words = BlockColumns::Words(&[0, 4, 4]);
        assert!(BlockIndex::new(shape, 33, 19, &[2, 0, 1], words).is_err());
        let wide = BlockColumns::Words(&[0, 256]);
        assert!(BlockIndex::new(shape, 16, 1025, &[2], wide).is_ok());
        assert!(BlockIndex::new(shape, 16, 1025, &[2], BlockColumns::Bytes(&[0, 1])).is_err());
        assert!(BlockIndex::new(shape, 16, 1024, &[2], BlockColumns::Bytes(&[0, 255])).is_ok());
    }

    #[test]
    fn an_index_for_another_shape_is_refused() {
        let shape = BlockShape::Outputs4Inputs4;
        let index = BlockIndex::new(shape, 4, 40, &[1], BlockColumns::Bytes(&[9])).expect("an index");
        assert!(SparseInt8Matrix::new(4, 40, index, &[1; 16], &[1.0; 16]).is_ok());
        for (outputs, inputs) in [(4, 36), (5, 40), (0, 40), (4, 0)] {
            assert!(SparseInt8Matrix::new(outputs, inputs, index, &[1; 16], &[1.0; 16]).is_err());
        }
        assert!(SparseInt8Matrix::new(4, 40, index, &[1; 15], &[1.0; 16]).is_err());
        assert!(SparseInt8Matrix::new(4, 40, index, &[1; 16], &[1.0; 4]).is_err());
        let new = |group_inputs, values: &[u8], scales: &[f32], multipliers: &[u8]| {
            let scales = Int4Scales { group_inputs, scales, multipliers };
            SparseInt4Matrix::new(4, 40, index, values, scales).is_ok()
        };
        assert!(new(48, &[1; 8], &[1.0; 16], &[0x11; 8]));
        assert!(new(16, &[1; 8], &[1.0; 16], &[0x11; 24]));
        assert!(!new(40, &[1; 8], &[1.0; 16], &[0x11; 8]));
        assert!(!new(0, &[1; 8], &[1.0; 16], &[0x11; 8]));
        assert!(!new(1 << 17, &[1; 8], &[1.0; 16], &[0x11; 8]));
        assert!(!new(48, &[1; 9], &[1.0; 16], &[0x11; 8]));
        assert!(!new(48, &[1; 8], &[1.0; 15], &[0x11; 8]));
        assert!(!new(48, &[1; 8], &[1.0; 16], &[0x11; 16]));
        assert!(!new(16, &[1; 8], &[1.0; 16], &[0x11; 8]));
    }
}
