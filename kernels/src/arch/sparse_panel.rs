//! A product with block-sparse weights, cut into rows of blocks, the unit in which SIMD kernels work.

use core::marker::PhantomData;

use kinglet_model_format::{BlockColumns, BlockShape, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix};

use crate::matmul::Matmul;

/// A row of blocks of a product, 16 or 4 outputs, for all rows. `W` is what weights are stored in, `S` a scale.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`]; `weights` holds the blocks of the row, as many as `columns`,
/// one behind the other; each column times the inputs of a block plus those inputs is at most `inputs`, and columns
/// increase; at `scales + 16 * group` there is a scale for each output of the block, for each of the `groups`; for each
/// `row < rows` `width` floats may be written at `out + row * out_stride`; `1 <= width <= outputs of a block`.
pub(crate) struct SparsePanel<'a, W, S> {
    /// Rows, at least one.
    pub(crate) rows: usize,
    /// Inputs with padding, a multiple of 16.
    pub(crate) inputs: usize,
    /// Inputs that share a scale, a multiple of 16; all of them in an int8 matrix.
    pub(crate) group_inputs: usize,
    /// Quantized rows, in the order of the instruction set.
    pub(crate) values: *const i8,
    /// One scale a row.
    pub(crate) row_scales: *const f32,
    /// The first block.
    pub(crate) weights: *const W,
    /// The columns of the blocks.
    pub(crate) columns: BlockColumns<'a>,
    /// `[groups][16]`, from the panel's first output on.
    pub(crate) scales: *const S,
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

/// int8 weights with f32 scales.
pub(crate) type SparseInt8Panel<'a> = SparsePanel<'a, i8, f32>;
/// int4 weights, two a byte, with the bits of f16 scales.
pub(crate) type SparseInt4Panel<'a> = SparsePanel<'a, u8, u16>;

impl<'a> Matmul<'a, SparseInt8Matrix<'a>> {
    /// The shape of the blocks.
    pub(crate) fn block_shape(&self) -> BlockShape {
        self.weights.index().shape()
    }

    /// The rows of blocks, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = SparseInt8Panel<'a>> {
        let weights = *self.weights;
        let (values, scales) = (weights.values().as_ptr(), weights.scales().as_ptr());
        let shape = weights.index().shape();
        cut(self, weights.index().rows(), shape, weights.outputs(), move |panel, block, output| SparsePanel {
            group_inputs: panel.inputs,
            weights: values.wrapping_add(block * shape.weights()),
            scales: scales.wrapping_add(output),
            ..panel
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
        let (values, scales) = (weights.values().as_ptr(), weights.scales().as_ptr().cast::<u16>());
        let (shape, groups) = (weights.index().shape(), weights.groups());
        cut(self, weights.index().rows(), shape, weights.outputs(), move |panel, block, output| SparsePanel {
            group_inputs: weights.group_inputs(),
            weights: values.wrapping_add(block * (shape.weights() / 2)),
            scales: scales
                .wrapping_add(output / OUTPUT_BLOCK * OUTPUT_BLOCK * groups + output % OUTPUT_BLOCK),
            ..panel
        })
    }
}

/// Puts panels together: `place` adds weights and scales for the first block and the first output of a row of blocks.
fn cut<'a, M, W, S>(
    matmul: Matmul<'a, M>,
    block_rows: impl Iterator<Item = kinglet_model_format::BlockRow<'a>>,
    shape: BlockShape,
    outputs: usize,
    place: impl Fn(SparsePanel<'a, W, S>, usize, usize) -> SparsePanel<'a, W, S>,
) -> impl Iterator<Item = SparsePanel<'a, W, S>> {
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
            scales: core::ptr::null(),
            bias: panel_bias,
            out: out.wrapping_add(first),
            out_stride,
            width,
            borrowed: PhantomData,
        };
        place(panel, block_row.first_block, first)
    })
}
