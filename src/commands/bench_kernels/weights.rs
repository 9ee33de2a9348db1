//! Matrices of noise, dense and sparse.

use kinglet_kernels::{KernelError, Kernels, QuantizedRows};
use kinglet_model_format::{
    BlockColumns, BlockIndex, BlockShape, Int3Coding, Int3Matrix, Int4Matrix, Int4Scales, Int8Matrix,
    MatrixShapeError, ShortScale, SparseInt4Matrix, SparseInt8Matrix,
};

/// Bytes in a line of the cache: weights begin with one, as they do in a model file.
const LINE: usize = 64;

/// Noise, as zeros might be faster than a real model.
pub struct Noise(u32);

impl Default for Noise {
    fn default() -> Self {
        Self(0x9e37_79b9)
    }
}

impl Iterator for Noise {
    type Item = i8;

    fn next(&mut self) -> Option<i8> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        Some(self.0 as i8)
    }
}

/// What the weights are stored as.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Int8,
    /// With a multiplier for each output and so many inputs.
    Int4 {
        group: usize,
    },
    /// Likewise; there are none in blocks.
    Int3 {
        coding: Int3Coding,
        group: usize,
    },
}

/// A matrix.
pub enum Weights<'a> {
    Int8(Int8Matrix<'a>),
    Int4(Int4Matrix<'a>),
    Int3(Int3Matrix<'a>),
    SparseInt8(SparseInt8Matrix<'a>),
    SparseInt4(SparseInt4Matrix<'a>),
}

impl Weights<'_> {
    pub fn outputs(&self) -> usize {
        match self {
            Self::Int8(weights) => weights.outputs(),
            Self::Int4(weights) => weights.outputs(),
            Self::Int3(weights) => weights.outputs(),
            Self::SparseInt8(weights) => weights.outputs(),
            Self::SparseInt4(weights) => weights.outputs(),
        }
    }

    /// The product, its rows side by side in `out`; `room` as for [`Kernels::matmul_int3`].
    pub fn multiply(
        &self,
        kernels: Kernels,
        rows: &QuantizedRows<'_>,
        room: &mut [i8],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let stride = self.outputs();
        match self {
            Self::Int8(weights) => kernels.matmul(rows, weights, None, out, stride),
            Self::Int4(weights) => kernels.matmul_int4(rows, weights, None, room, out, stride),
            Self::Int3(weights) => kernels.matmul_int3(rows, weights, None, room, out, stride),
            Self::SparseInt8(weights) => kernels.matmul_sparse_int8(rows, weights, None, out, stride),
            Self::SparseInt4(weights) => kernels.matmul_sparse_int4(rows, weights, None, room, out, stride),
        }
    }
}

/// Which blocks are stored.
pub struct Index {
    shape: BlockShape,
    counts: Vec<u16>,
    bytes: Vec<u8>,
    words: Vec<u16>,
}

/// Values and scales for matrices of one shape.
pub struct Store {
    outputs: usize,
    inputs: usize,
    bytes: Vec<i8>,
    packed: Vec<u8>,
    scales: Vec<f32>,
    /// The same, as int4 matrices have them that are not in blocks.
    short_scales: Vec<ShortScale>,
    multipliers: Vec<u8>,
}

impl Store {
    /// For `[outputs, inputs]`, both multiples of 16.
    pub fn new(outputs: usize, inputs: usize) -> Self {
        let bytes: Vec<i8> = Noise::default().take(outputs * inputs + LINE).collect();
        Self {
            outputs,
            inputs,
            packed: bytes.iter().map(|value| *value as u8).collect(),
            bytes,
            scales: vec![0.01; outputs],
            short_scales: vec![ShortScale::new(0.01); outputs],
            multipliers: vec![0x79; outputs / 2 * inputs.div_ceil(32)],
        }
    }

    /// All weights.
    pub fn dense(&self, kind: Kind) -> Result<Weights<'_>, MatrixShapeError> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        Ok(match kind {
            Kind::Int8 => Weights::Int8(Int8Matrix::new(
                outputs,
                inputs,
                part(&self.bytes, outputs * inputs),
                &self.scales,
            )?),
            Kind::Int4 { group } => {
                let values = part(&self.packed, outputs * inputs / 2);
                Weights::Int4(Int4Matrix::new(
                    outputs,
                    inputs,
                    values,
                    self.int4_scales(group, &self.short_scales),
                )?)
            }
            Kind::Int3 { coding, group } => {
                let values = part(&self.packed, outputs * inputs / 8 * 3);
                let scales = self.int4_scales(group, &self.short_scales);
                Weights::Int3(Int3Matrix::new(outputs, inputs, coding, values, scales)?)
            }
        })
    }

    /// The weights of the blocks in `index`.
    pub fn sparse<'a>(&'a self, kind: Kind, index: &'a Index) -> Result<Weights<'a>, MatrixShapeError> {
        let (outputs, inputs) = (self.outputs, self.inputs);
        let columns = if inputs / index.shape.inputs() > BlockIndex::BYTE_COLUMNS {
            BlockColumns::Words(&index.words)
        } else {
            BlockColumns::Bytes(&index.bytes)
        };
        let count = index.words.len() * index.shape.weights();
        let index = BlockIndex::new(index.shape, outputs, inputs, &index.counts, columns)
            .map_err(|_| MatrixShapeError { outputs, inputs })?;
        Ok(match kind {
            Kind::Int8 => Weights::SparseInt8(SparseInt8Matrix::new(
                outputs,
                inputs,
                index,
                part(&self.bytes, count),
                &self.scales,
            )?),
            Kind::Int4 { group } => {
                let (values, scales) = (part(&self.packed, count / 2), self.int4_scales(group, &self.scales));
                Weights::SparseInt4(SparseInt4Matrix::new(outputs, inputs, index, values, scales)?)
            }
            Kind::Int3 { .. } => return Err(MatrixShapeError { outputs, inputs }),
        })
    }

    /// Leaves out exactly `percent` of the blocks, as chance will have it.
    pub fn index(&self, shape: BlockShape, percent: usize) -> Index {
        let (rows, columns) = (self.outputs / shape.outputs(), self.inputs / shape.inputs());
        let mut left = rows * columns;
        let mut wanted = left * (100 - percent) / 100;
        let mut index = Index { shape, counts: Vec::new(), bytes: Vec::new(), words: Vec::new() };
        let mut noise = Noise::default();
        for _ in 0..rows {
            let before = index.words.len();
            for column in 0..columns {
                noise.next();
                if (noise.0 as usize) % left < wanted {
                    index.words.push(column as u16);
                    index.bytes.push(column as u8);
                    wanted -= 1;
                }
                left -= 1;
            }
            index.counts.push((index.words.len() - before) as u16);
        }
        index
    }

    fn int4_scales<'a, S>(&'a self, group_inputs: usize, scales: &'a [S]) -> Int4Scales<'a, S> {
        let count = self.outputs / 2 * self.inputs.div_ceil(group_inputs);
        let multipliers = self.multipliers.get(..count).unwrap_or_default();
        Int4Scales { group_inputs, scales, multipliers }
    }
}

/// `count` values from the start of a line.
fn part<T>(values: &[T], count: usize) -> &[T] {
    let start = values.as_ptr().align_offset(LINE).min(LINE);
    values.get(start..).and_then(|values| values.get(..count)).unwrap_or_default()
}
