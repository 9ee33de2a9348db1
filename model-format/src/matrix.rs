//! Views of weight matrices, in the order in which the kernels read them.
//!
//! A matrix maps `inputs` values to `outputs` values. Outputs are padded to a multiple of
//! [`OUTPUT_BLOCK`], inputs to a multiple of [`INPUT_PAD`]; padding is zero. Int8 values lie in blocks
//! of 16 outputs x 4 inputs, 64 bytes: `[outputs / 16][inputs / 4][16][4]`. One `SDOT` or `VPDPBUSD`
//! operand is then one aligned load, and a quarter of a block is a `SMULL` operand.

use crate::sparse::{SparseInt4Matrix, SparseInt8Matrix};
use crate::trellis::{self, LANES, SYMBOLS};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Outputs in one block.
pub const OUTPUT_BLOCK: usize = 16;
/// Inputs in one block.
pub const INPUT_BLOCK: usize = 4;
/// Inputs are padded to a multiple of this, so that no kernel has an input tail.
pub const INPUT_PAD: usize = 16;

/// `value` rounded up to a multiple of `step`. `step` must not be zero.
pub const fn round_up(value: usize, step: usize) -> usize {
    value.div_ceil(step) * step
}

/// Values or scales do not have the length that the shape asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("matrix {outputs}x{inputs} does not fit its data")]
pub struct MatrixShapeError {
    /// Outputs asked for.
    pub outputs: usize,
    /// Inputs asked for.
    pub inputs: usize,
}

/// Weights of a dense matrix with padding.
///
/// # Errors
/// When a dimension is zero or there are more than can be counted.
fn padded_count(outputs: usize, inputs: usize) -> Result<usize, MatrixShapeError> {
    let padded_inputs = inputs.checked_next_multiple_of(INPUT_PAD);
    let padded = outputs.checked_next_multiple_of(OUTPUT_BLOCK).zip(padded_inputs);
    let count = padded.and_then(|(outputs, inputs)| outputs.checked_mul(inputs));
    count.filter(|&count| count > 0).ok_or(MatrixShapeError { outputs, inputs })
}

/// The weight of a byte that belongs to the `block`th of a row's blocks of inputs: its low half where that is even, else the high one.
fn half(byte: u8, block: usize) -> i8 {
    // Shifting the wanted half to the top and back extends its sign.
    if block.is_multiple_of(2) { (byte << 4) as i8 >> 4 } else { byte as i8 >> 4 }
}

/// Dense int8 weights `[outputs, inputs]` with one scale an output.
///
/// Invariants, relied on by unsafe code in the kernels:
/// `values().len() == padded_outputs() * padded_inputs()` and `scales().len() == padded_outputs()`;
/// neither dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct Int8Matrix<'a> {
    outputs: usize,
    inputs: usize,
    values: &'a [i8],
    scales: &'a [f32],
}

impl<'a> Int8Matrix<'a> {
    /// A view of `values` (blocks, see the module) and `scales` (`[padded outputs]`).
    ///
    /// # Errors
    /// When a dimension is zero or a length does not fit the shape.
    pub fn new(
        outputs: usize,
        inputs: usize,
        values: &'a [i8],
        scales: &'a [f32],
    ) -> Result<Self, MatrixShapeError> {
        // Where there is a count, the outputs can be padded.
        if values.len() != padded_count(outputs, inputs)? || scales.len() != round_up(outputs, OUTPUT_BLOCK) {
            return Err(MatrixShapeError { outputs, inputs });
        }
        Ok(Self { outputs, inputs, values, scales })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs with padding.
    pub fn padded_outputs(&self) -> usize {
        round_up(self.outputs, OUTPUT_BLOCK)
    }

    /// Inputs with padding.
    pub fn padded_inputs(&self) -> usize {
        round_up(self.inputs, INPUT_PAD)
    }

    /// Values, `[padded outputs / 16][padded inputs / 4][16][4]`.
    pub fn values(&self) -> &'a [i8] {
        self.values
    }

    /// One scale an output, `[padded outputs]`.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// The int8 value that joins `input` to `output`; zero outside the padded matrix.
    pub fn value(&self, output: usize, input: usize) -> i8 {
        let (block_row, lane) = (output / OUTPUT_BLOCK, output % OUTPUT_BLOCK);
        let (block, element) = (input / INPUT_BLOCK, input % INPUT_BLOCK);
        let blocks = self.padded_inputs() / INPUT_BLOCK;
        if block >= blocks {
            return 0;
        }
        let index = ((block_row * blocks + block) * OUTPUT_BLOCK + lane) * INPUT_BLOCK + element;
        self.values.get(index).copied().unwrap_or(0)
    }
}

/// Dense f32 weights `[inputs][padded outputs]`: for the few layers where int8 costs too much.
///
/// Invariant: `values().len() == inputs() * padded_outputs()`; neither dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct FloatMatrix<'a> {
    outputs: usize,
    inputs: usize,
    values: &'a [f32],
}

impl<'a> FloatMatrix<'a> {
    /// A view of `values`, `[inputs][outputs rounded up to 16]`.
    ///
    /// # Errors
    /// When a dimension is zero or the length does not fit the shape.
    pub fn new(outputs: usize, inputs: usize, values: &'a [f32]) -> Result<Self, MatrixShapeError> {
        let shape_error = MatrixShapeError { outputs, inputs };
        let padded = outputs.checked_next_multiple_of(OUTPUT_BLOCK).ok_or(shape_error)?;
        let count = padded.checked_mul(inputs).ok_or(shape_error)?;
        if outputs == 0 || inputs == 0 || values.len() != count {
            return Err(shape_error);
        }
        Ok(Self { outputs, inputs, values })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs with padding.
    pub fn padded_outputs(&self) -> usize {
        round_up(self.outputs, OUTPUT_BLOCK)
    }

    /// Values, `[inputs][padded outputs]`.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
}

/// A positive number in 16 bits, 6 of exponent and 10 of mantissa: 2^-47 to 131,008, to one part in two thousand.
///
/// The bits of the f32 are these times 2^13 and 0x28000000 more, so that vectors of them are made by a shift and an addition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, Immutable)]
#[repr(transparent)]
pub struct ShortScale(u16);

impl ShortScale {
    const SHIFT: u32 = 13;
    /// Zero in this form.
    const LEAST: u32 = 0x2800_0000;

    /// The nearest to `value`; the least for what is smaller, zero included, or is no number.
    pub fn new(value: f32) -> Self {
        if value.is_nan() || value <= 0.0 {
            return Self(0);
        }
        // Half a step more, then cut: what is half way becomes the larger.
        let steps =
            value.to_bits().saturating_sub(Self::LEAST).saturating_add(1 << (Self::SHIFT - 1)) >> Self::SHIFT;
        Self(u16::try_from(steps).unwrap_or(u16::MAX))
    }

    /// As f32.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        f32::from_bits(((self.0 as u32) << Self::SHIFT) + Self::LEAST)
    }

    /// As the file holds it.
    pub const fn to_le_bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }
}

/// What int4 weights are multiplied by: one scale an output, and a whole number for each output and group of inputs.
/// Dense matrices have [`ShortScale`]s; matrices in blocks have them as f32, which kernels read where they lie.
///
/// A weight is `value * multiplier * scale`, value -8 to 7 and multiplier 1 to 15: `value * multiplier` is an int8, and a
/// product with int4 weights is to the last bit the product with these as an [`Int8Matrix`].
#[derive(Debug, Clone, Copy)]
pub struct Int4Scales<'a, S = ShortScale> {
    /// Inputs that share a multiplier: a multiple of 16, at most [`MOST_GROUP_INPUTS`].
    pub group_inputs: usize,
    /// One an output, `[padded outputs]`.
    pub scales: &'a [S],
    /// Two a byte, `[padded outputs / 16][groups][8]`: the low four bits of byte `k` belong to output `k` of 16, the high
    /// four to output `k + 8`.
    pub multipliers: &'a [u8],
}

/// Most inputs of a group: 16 times the products of one group add up to less than 2^31, as kernels need.
pub const MOST_GROUP_INPUTS: usize = 1 << 16;

/// Whether a group may have so many inputs.
pub(crate) const fn is_group(group_inputs: usize) -> bool {
    group_inputs > 0 && group_inputs.is_multiple_of(INPUT_PAD) && group_inputs <= MOST_GROUP_INPUTS
}

/// Multipliers of a matrix, in bytes; nothing where these cannot be counted.
pub(crate) fn multiplier_bytes(padded_outputs: usize, inputs: usize, group_inputs: usize) -> Option<usize> {
    (padded_outputs / 2).checked_mul(inputs.div_ceil(group_inputs.max(1)))
}

impl<S> Int4Scales<'_, S> {
    /// `Ok` where the group is one and the lengths are those of a matrix `[outputs, inputs]`.
    pub(crate) fn check(&self, outputs: usize, inputs: usize) -> Result<(), MatrixShapeError> {
        let shape_error = MatrixShapeError { outputs, inputs };
        let padded_outputs = outputs.checked_next_multiple_of(OUTPUT_BLOCK).ok_or(shape_error)?;
        let multipliers = multiplier_bytes(padded_outputs, inputs, self.group_inputs);
        let fits = self.scales.len() == padded_outputs && Some(self.multipliers.len()) == multipliers;
        if is_group(self.group_inputs) && fits { Ok(()) } else { Err(shape_error) }
    }

    /// The multiplier of `output` in the group that holds `input`, of a matrix with so many groups; zero outside.
    pub(crate) fn multiplier(&self, groups: usize, output: usize, input: usize) -> i8 {
        let (panel, lane) = (output / OUTPUT_BLOCK, output % OUTPUT_BLOCK);
        let place = (panel * groups + input / self.group_inputs) * (OUTPUT_BLOCK / 2) + lane % 8;
        let byte = self.multipliers.get(place).copied().unwrap_or(0);
        (if lane < 8 { byte & 0xf } else { byte >> 4 }) as i8
    }
}

/// Dense int4 weights `[outputs, inputs]`, two a byte, with [`Int4Scales`].
///
/// Values lie in pairs of blocks of 16 outputs x 4 inputs, 64 bytes a pair:
/// `[padded outputs / 16][padded inputs / 8][16][4]`; the low four bits of a byte belong to the pair's
/// first block, the high four to its second, both two's complement.
///
/// Invariants: `values().len() == padded_outputs() * padded_inputs() / 2`, those of [`Int4Scales`] for this shape; neither
/// dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct Int4Matrix<'a> {
    outputs: usize,
    inputs: usize,
    values: &'a [u8],
    scales: Int4Scales<'a>,
}

impl<'a> Int4Matrix<'a> {
    /// A view of packed `values` and their `scales`.
    ///
    /// # Errors
    /// When a dimension is zero, a group cannot be one or a length does not fit the shape.
    pub fn new(
        outputs: usize,
        inputs: usize,
        values: &'a [u8],
        scales: Int4Scales<'a>,
    ) -> Result<Self, MatrixShapeError> {
        if values.len() != padded_count(outputs, inputs)? / 2 {
            return Err(MatrixShapeError { outputs, inputs });
        }
        scales.check(outputs, inputs)?;
        Ok(Self { outputs, inputs, values, scales })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs with padding.
    pub fn padded_outputs(&self) -> usize {
        round_up(self.outputs, OUTPUT_BLOCK)
    }

    /// Inputs with padding.
    pub fn padded_inputs(&self) -> usize {
        round_up(self.inputs, INPUT_PAD)
    }

    /// Groups of inputs, the last perhaps smaller.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(self.scales.group_inputs)
    }

    /// Values, two a byte, in the order above.
    pub fn values(&self) -> &'a [u8] {
        self.values
    }

    /// What values are multiplied by.
    pub fn scales(&self) -> Int4Scales<'a> {
        self.scales
    }

    /// The value that joins `input` to `output` times its multiplier, -120 to 105; zero outside the padded matrix.
    pub fn weight(&self, output: usize, input: usize) -> i8 {
        let (block_row, lane) = (output / OUTPUT_BLOCK, output % OUTPUT_BLOCK);
        let (block, element) = (input / INPUT_BLOCK, input % INPUT_BLOCK);
        let pairs = self.padded_inputs() / (2 * INPUT_BLOCK);
        let index = ((block_row * pairs + block / 2) * OUTPUT_BLOCK + lane) * INPUT_BLOCK + element;
        if block / 2 >= pairs {
            return 0;
        }
        let byte = self.values.get(index).copied().unwrap_or(0);
        half(byte, block) * self.scales.multiplier(self.groups(), output, input)
    }
}

/// What the three bits of an [`Int3Matrix`] say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int3Coding {
    /// The odd numbers of int4, -7 to 7: little work for a product of one row.
    ///
    /// What an [`Int4Matrix`] has in the 64 bytes of a pair of blocks, four vectors of 16 bytes, has here 48: of the halves of the first three vectors
    /// the lowest bit, which is always one, makes room for the fourth, see [`widen_odd`].
    Odd,
    /// Symbols, which with those before them name one of 64 [levels](trellis): less noise and more work, for products of many rows.
    ///
    /// Two symbols that follow each other, of outputs *o* and *o + 4*, are a pair of six bits, the earlier one on top. Byte *k* of each of three vectors belongs
    /// to outputs *k / 4*, *k / 4 + 4* and so on of 16, and to inputs *k % 4* and *k % 4 + 4* of 8. In the low six bits the first vector has the pair of
    /// the first two outputs and the first input, the second that of the other two outputs, the third that of the first two and the other
    /// input; the fourth pair lies in the top two bits, the lowest in the first vector.
    Trellis,
}

/// 16 outputs x 8 inputs of an [`Int3Matrix`].
pub type Int3Block = [u8; 48];
/// The same as int4.
pub type WideBlock = [i8; 64];

/// Dense int3 weights `[outputs, inputs]`, with [`Int4Scales`], `[padded outputs / 16][padded inputs / 8]` of [`Int3Block`].
///
/// Invariants: `values().len() == padded_outputs() * padded_inputs() / 8 * 3`, those of [`Int4Scales`] for this shape; neither
/// dimension is zero.
#[derive(Debug, Clone, Copy)]
pub struct Int3Matrix<'a> {
    outputs: usize,
    inputs: usize,
    coding: Int3Coding,
    values: &'a [u8],
    scales: Int4Scales<'a>,
}

impl<'a> Int3Matrix<'a> {
    /// A view of packed `values` and their `scales`.
    ///
    /// # Errors
    /// When a dimension is zero, a group cannot be one or a length does not fit the shape.
    pub fn new(
        outputs: usize,
        inputs: usize,
        coding: Int3Coding,
        values: &'a [u8],
        scales: Int4Scales<'a>,
    ) -> Result<Self, MatrixShapeError> {
        if values.len() != padded_count(outputs, inputs)? / 8 * 3 {
            return Err(MatrixShapeError { outputs, inputs });
        }
        scales.check(outputs, inputs)?;
        Ok(Self { outputs, inputs, coding, values, scales })
    }

    /// Outputs.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What its bits say.
    pub fn coding(&self) -> Int3Coding {
        self.coding
    }

    /// Inputs with padding.
    pub fn padded_inputs(&self) -> usize {
        round_up(self.inputs, INPUT_PAD)
    }

    /// Groups of inputs, the last perhaps smaller.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(self.scales.group_inputs)
    }

    /// Panels of 16 outputs, the last perhaps smaller.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(OUTPUT_BLOCK)
    }

    /// Blocks of a panel, 8 inputs each.
    pub fn panel_blocks(&self) -> usize {
        self.padded_inputs() / (2 * INPUT_BLOCK)
    }

    /// All blocks, one panel behind the other.
    pub fn blocks(&self) -> &'a [Int3Block] {
        self.values.as_chunks().0
    }

    /// The block with the weight that joins `input` to `output`, if there is one.
    fn block(&self, output: usize, input: usize) -> Option<&'a Int3Block> {
        let (panel, place) = (output / OUTPUT_BLOCK, input / (2 * INPUT_BLOCK));
        let first = panel.checked_mul(self.panel_blocks())?;
        (place < self.panel_blocks()).then(|| self.blocks().get(first + place)).flatten()
    }

    /// `count` panels from the `first`th on as an int4 matrix of these `values`, which are those of the panels. Nothing where there are
    /// no such panels or `values` are not as many as they need.
    pub fn as_int4<'r>(&self, first: usize, count: usize, values: &'r [i8]) -> Option<Int4Matrix<'r>>
    where
        'a: 'r,
    {
        let of_panels = |each: usize| first * each..(first + count) * each;
        let outputs = self.outputs.min((first + count) * OUTPUT_BLOCK).checked_sub(first * OUTPUT_BLOCK)?;
        let scales = Int4Scales {
            group_inputs: self.scales.group_inputs,
            scales: self.scales.scales.get(of_panels(OUTPUT_BLOCK))?,
            multipliers: self.scales.multipliers.get(of_panels(OUTPUT_BLOCK / 2 * self.groups()))?,
        };
        Int4Matrix::new(outputs, self.inputs, values.as_bytes(), scales).ok()
    }

    /// What values are multiplied by.
    pub fn scales(&self) -> Int4Scales<'a> {
        self.scales
    }

    /// As [`Int4Matrix::weight`].
    pub fn weight(&self, output: usize, input: usize) -> i8 {
        let value = match self.coding {
            Int3Coding::Odd => self.odd(output, input),
            Int3Coding::Trellis => self.level(output, input),
        };
        value * self.scales.multiplier(self.groups(), output, input)
    }

    /// Zero outside the padded matrix.
    fn odd(&self, output: usize, input: usize) -> i8 {
        let Some(block) = self.block(output, input) else { return 0 };
        let mut wide = [0; 64];
        widen_odd(block, &mut wide);
        let place = output % OUTPUT_BLOCK * INPUT_BLOCK + input % INPUT_BLOCK;
        half(wide[place] as u8, input / INPUT_BLOCK)
    }

    fn level(&self, output: usize, input: usize) -> i8 {
        let symbol =
            |steps: usize| output.checked_sub(LANES * steps).map_or(0, |output| self.symbol(output, input));
        trellis::level(symbol(0) | symbol(1) << 3, symbol(2) | symbol(3) << 3)
    }

    /// 0 to 7; zero outside the padded matrix.
    fn symbol(&self, output: usize, input: usize) -> u8 {
        let Some(block) = self.block(output, input) else { return 0 };
        let byte = output % LANES * INPUT_BLOCK + input % INPUT_BLOCK;
        let vectors = [block[byte], block[16 + byte], block[32 + byte]];
        let step = output % OUTPUT_BLOCK / LANES;
        let pair = match input / INPUT_BLOCK % 2 * 2 + step / 2 {
            3 => vectors[0] >> 6 | vectors[1] >> 6 << 2 | vectors[2] >> 6 << 4,
            vector => vectors[vector],
        };
        (if step.is_multiple_of(2) { pair >> 3 } else { pair }) % SYMBOLS
    }
}

/// A block of odd numbers as int4. Compilers make vectors of it.
#[inline(always)]
pub fn widen_odd(block: &Int3Block, wide: &mut WideBlock) {
    const LOWEST: u8 = 0x11;
    for byte in 0..16 {
        let [a, b, c] = [block[byte], block[16 + byte], block[32 + byte]];
        wide[byte] = (a | LOWEST) as i8;
        wide[16 + byte] = (b | LOWEST) as i8;
        wide[32 + byte] = (c | LOWEST) as i8;
        wide[48 + byte] = ((a & LOWEST) << 3 | (b & LOWEST) << 2 | (c & LOWEST) << 1 | LOWEST) as i8;
    }
}

/// A weight matrix of any kind.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// f32.
    Float(FloatMatrix<'a>),
    /// int8, one scale an output.
    Int8(Int8Matrix<'a>),
    /// int4, one scale an output and a multiplier for each group of inputs.
    Int4(Int4Matrix<'a>),
    /// int3, likewise.
    Int3(Int3Matrix<'a>),
    /// int8 in blocks, one scale an output.
    SparseInt8(SparseInt8Matrix<'a>),
    /// int4 in blocks, one scale an output and a multiplier for each group of inputs.
    SparseInt4(SparseInt4Matrix<'a>),
}

impl Matrix<'_> {
    /// Outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Float(m) => m.outputs(),
            Self::Int8(m) => m.outputs(),
            Self::Int4(m) => m.outputs(),
            Self::Int3(m) => m.outputs(),
            Self::SparseInt8(m) => m.outputs(),
            Self::SparseInt4(m) => m.outputs(),
        }
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Float(m) => m.inputs(),
            Self::Int8(m) => m.inputs(),
            Self::Int4(m) => m.inputs(),
            Self::Int3(m) => m.inputs(),
            Self::SparseInt8(m) => m.inputs(),
            Self::SparseInt4(m) => m.inputs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_scale_is_the_nearest() {
        for value in [2.0_f32.powi(-47), 1e-9, 0.000_641_364_7, 0.05, 1.0, 1.000_48, 77.7, 131_008.0] {
            let scale = ShortScale::new(value);
            assert!((scale.to_f32() / value - 1.0).abs() <= 1.0 / 2048.0, "{value} {}", scale.to_f32());
            for other in [scale.0.saturating_sub(1), scale.0.saturating_add(1)].map(ShortScale) {
                let distance = |scale: ShortScale| (scale.to_f32() - value).abs();
                assert!(distance(scale) <= distance(other), "{value}");
            }
        }
    }

    #[test]
    fn a_short_scale_is_positive_and_finite() {
        for value in [0.0, -1.0, 1e-30, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(ShortScale::new(value).to_f32(), 2.0_f32.powi(-47));
        }
        for value in [131_008.0, 1e30, f32::INFINITY] {
            assert_eq!(ShortScale::new(value).to_f32(), 131_008.0);
        }
    }
}
