//! A product with block-sparse weights, cut into rows of blocks, the unit in which SIMD kernels work.

use core::marker::PhantomData;

use kinglet_model_format::{BlockColumns, BlockShape, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix};

use crate::matmul::Matmul;

/// A row of blocks of a product, 16 or 4 outputs, for all rows. `W` is what weights are stored in.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`]; `weights` holds the blocks of the row, as many as `columns`,
/// one behind the other; each column times the inputs of a block plus those inputs is at most `inputs`, and columns
/// increase; there is a scale for each output of the block, and with int4 weights 8 bytes of multipliers for each group, in which
/// the block's outputs begin at `lane`, a multiple of their number and less than 16; for each `row < rows` `width` floats may be written at `out + row * out_stride`; `1 <= width <= outputs of a block`.
pub(crate) struct SparsePanel<'a, W> {
    /// Rows, at least one.
    pub(crate) rows: usize,
    /// Inputs with padding, a multiple of 16.
    pub(crate) inputs: usize,
    /// Inputs that share a multiplier, a multiple of 16; all of them in an int8 matrix.
    pub(crate) group_inputs: usize,
    /// Quantized rows, in the order of the instruction set.
    pub(crate) values: *const i8,
    /// One scale a row.
    pub(crate) row_scales: *const f32,
    /// The first block.
    pub(crate) weights: *const W,
    /// The columns of the blocks.
    pub(crate) columns: BlockColumns<'a>,
    /// One scale an output.
    pub(crate) scales: *const f32,
    /// `[groups][8]`, of the 16 outputs among which the panel is; null with int8 weights.
    pub(crate) multipliers: *const u8,
    /// Where among these its first output is.
    pub(crate) lane: usize,
    /// One bias an output, zero where there is none.
    pub(crate) bias: [f32; OUTPUT_BLOCK],
    /// The panel's first output of the first row.
    pub(crate) out: *mut f32,
    /// Floats from one row of the result to the next.
    pub(crate) out_stride: usize,
    /// Outputs that exist: those of a block but in the last row of blocks.
    pub(crate) width: usize,
    borrowed: PhantomData<&'a mut f32>,
}

/// int8 weights.
pub(crate) type SparseInt8Panel<'a> = SparsePanel<'a, i8>;
/// int4 weights, two a byte.
pub(crate) type SparseInt4Panel<'a> = SparsePanel<'a, u8>;

impl<'a> Matmul<'a, SparseInt8Matrix<'a>> {
    /// The shape of the blocks.
    pub(crate) fn block_shape(&self) -> BlockShape {
        self.weights.index().shape()
    }

    /// The rows of blocks, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = SparseInt8Panel<'a>> {
        let weights = *self.weights;
        let values = weights.values().as_ptr();
        let (shape, scales) = (weights.index().shape(), weights.scales());
        cut(self, weights.index().rows(), shape, weights.outputs(), scales, move |panel, block, _| {
            SparsePanel { weights: values.wrapping_add(block * shape.weights()), ..panel }
        })
    }
}

impl<'a> Matmul<'a, SparseInt4Matrix<'a>> {
    /// The shape of the blocks.
    pub(crate) fn block_shape(&self) -> BlockShape {
        self.weights.index().shape()
    }

    /// The rows of blocks, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = SparseInt4Panel<'a>> {
        let weights = *self.weights;
        let (values, scales) = (weights.values().as_ptr(), weights.scales());
        let (shape, groups) = (weights.index().shape(), weights.groups());
        let multipliers = scales.multipliers.as_ptr();
        cut(
            self,
            weights.index().rows(),
            shape,
            weights.outputs(),
            scales.scales,
            move |panel, block, output| SparsePanel {
                group_inputs: scales.group_inputs,
                weights: values.wrapping_add(block * (shape.weights() / 2)),
                multipliers: multipliers.wrapping_add(output / OUTPUT_BLOCK * groups * (OUTPUT_BLOCK / 2)),
                ..panel
            },
        )
    }
}

/// Puts panels together: `place` adds weights and multipliers for the first block and the first output of a row of blocks.
fn cut<'a, M, W>(
    matmul: Matmul<'a, M>,
    block_rows: impl Iterator<Item = kinglet_model_format::BlockRow<'a>>,
    shape: BlockShape,
    outputs: usize,
    scales: &'a [f32],
    place: impl Fn(SparsePanel<'a, W>, usize, usize) -> SparsePanel<'a, W>,
) -> impl Iterator<Item = SparsePanel<'a, W>> {
    let Matmul { rows, bias, out, out_stride, .. } = matmul;
    let out = out.as_mut_ptr();
    block_rows.map(move |block_row| {
        let first = block_row.first_output;
        let width = shape.outputs().min(outputs - first);
        let mut panel_bias = [0.0; OUTPUT_BLOCK];
        if let Some(bias) = bias {
            panel_bias[..width].copy_from_slice(&bias[first..first + width]);
        }
        let panel = SparsePanel {
            rows: rows.rows(),
            inputs: rows.padded_inputs(),
            group_inputs: rows.padded_inputs(),
            values: rows.values().as_ptr(),
            row_scales: rows.scales().as_ptr(),
            weights: core::ptr::null(),
            columns: block_row.columns,
            scales: scales.as_ptr().wrapping_add(first),
            multipliers: core::ptr::null(),
            lane: first % OUTPUT_BLOCK,
            bias: panel_bias,
            out: out.wrapping_add(first),
            out_stride,
            width,
            borrowed: PhantomData,
        };
        place(panel, block_row.first_block, first)
    })
}
