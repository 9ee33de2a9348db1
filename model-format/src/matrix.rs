//! Views of weight matrices, in the order in which the kernels read them.
//!
//! A matrix maps `inputs` values to `outputs` values. Outputs are padded to a multiple of
//! [`OUTPUT_BLOCK`], inputs to a multiple of [`INPUT_PAD`]; padding is zero. Int8 values lie in blocks
//! of 16 outputs x 4 inputs, 64 bytes: `[outputs / 16][inputs / 4][16][4]`. One `SDOT` or `VPDPBUSD`
//! operand is then one aligned load, and a quarter of a block is a `SMULL` operand.

use thiserror::Error;

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
        let matrix = Self { outputs, inputs, values, scales };
        let shape_error = MatrixShapeError { outputs, inputs };
        if outputs == 0 || inputs == 0 {
            return Err(shape_error);
        }
        let padded_outputs = outputs.checked_next_multiple_of(OUTPUT_BLOCK).ok_or(shape_error)?;
        let padded_inputs = inputs.checked_next_multiple_of(INPUT_PAD).ok_or(shape_error)?;
        let count = padded_outputs.checked_mul(padded_inputs).ok_or(shape_error)?;
        if values.len() != count || scales.len() != padded_outputs {
            return Err(shape_error);
        }
        Ok(matrix)
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
