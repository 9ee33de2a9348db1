//! A product with block-sparse weights, cut into rows of blocks.

use core::marker::PhantomData;

use kinglet_model_format::{BlockColumns, BlockIndex, OUTPUT_BLOCK, SparseInt4Matrix, SparseInt8Matrix};

use super::run::Run;
use crate::QuantizedRows;
use crate::arch::panel::{Panel, panel_bias};
use crate::matmul::Matmul;

/// What the kernels read and write.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`] and of the matrix; `values` holds `rows` rows of `inputs`
/// values, with padding, in quads; there is a scale for each output, with padding to 16, and with int4 weights a multiplier for
/// each of these and each group.
pub(super) struct Product<'a> {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) values: *const i8,
    pub(super) row_scales: *const f32,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    outputs: usize,
    bias: Option<&'a [f32]>,
    /// Bias of the last row of blocks, if that is cut short, or zeros where there is none at all.
    edge_bias: [f32; OUTPUT_BLOCK],
    /// Outputs of a block.
    height: usize,
    /// Bytes of a block's weights.
    block_bytes: usize,
    counts: &'a [u16],
    ids: *const u8,
    /// Whether an id is two bytes.
    pub(super) wide_ids: bool,
    weights: *const u8,
    /// One an output.
    scales: *const f32,
    /// Of int4 weights, `[outputs / 16][groups][8]`.
    multipliers: *const u8,
    pub(super) groups: usize,
    /// Columns of blocks that share a multiplier.
    group_columns: usize,
}

/// One row of blocks: at most 16 outputs.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    /// All its blocks.
    pub(super) run: Run,
    /// One scale an output.
    pub(super) scales: *const f32,
    /// The int4 multipliers of the first group, for the 16 outputs among which these are; those of the next are 8 further.
    pub(super) multipliers: *const u8,
    /// Where among these its first output is.
    pub(super) lane: usize,
    /// As many values as a block has outputs.
    pub(super) bias: *const f32,
    /// Its first output of the first row.
    pub(super) out: *mut f32,
    /// Outputs that exist, at least one.
    pub(super) width: usize,
    group_columns: usize,
    block_bytes: usize,
    borrowed: PhantomData<&'a f32>,
}

impl<'a> Product<'a> {
    pub(super) fn int8(matmul: Matmul<'a, SparseInt8Matrix<'a>>) -> Self {
        let Matmul { rows, weights, bias, out, out_stride } = matmul;
        let block_bytes = weights.index().shape().weights();
        Self {
            block_bytes,
            weights: weights.values().as_ptr().cast(),
            ..Self::new(rows, weights.outputs(), weights.index(), weights.scales(), bias, out, out_stride)
        }
    }

    pub(super) fn int4(matmul: Matmul<'a, SparseInt4Matrix<'a>>) -> Self {
        let Matmul { rows, weights, bias, out, out_stride } = matmul;
        let (shape, scales) = (weights.index().shape(), weights.scales());
        Self {
            block_bytes: shape.weights() / 2,
            weights: weights.values().as_ptr(),
            multipliers: scales.multipliers.as_ptr(),
            groups: weights.groups(),
            group_columns: scales.group_inputs / shape.inputs(),
            ..Self::new(rows, weights.outputs(), weights.index(), scales.scales, bias, out, out_stride)
        }
    }

    fn new(
        rows: &QuantizedRows<'_>,
        outputs: usize,
        index: BlockIndex<'a>,
        scales: &'a [f32],
        bias: Option<&'a [f32]>,
        out: &'a mut [f32],
        out_stride: usize,
    ) -> Self {
        let height = index.shape().outputs();
        let (ids, wide_ids) = match index.columns() {
            BlockColumns::Bytes(ids) => (ids.as_ptr(), false),
            BlockColumns::Words(ids) => (ids.as_ptr().cast(), true),
        };
        Self {
            rows: rows.rows(),
            inputs: rows.padded_inputs(),
            values: rows.values().as_ptr(),
            row_scales: rows.scales().as_ptr(),
            out: out.as_mut_ptr(),
            out_stride,
            outputs,
            bias,
            edge_bias: panel_bias(bias, outputs / height * height),
            height,
            block_bytes: 0,
            counts: index.counts(),
            ids,
            wide_ids,
            weights: core::ptr::null(),
            scales: scales.as_ptr(),
            multipliers: core::ptr::null(),
            groups: 1,
            group_columns: usize::MAX,
        }
    }

    /// The rows of blocks, in the order of the outputs.
    #[inline(always)]
    pub(super) fn strips<const WIDE: bool>(&self) -> impl Iterator<Item = Strip<'_>> {
        let (mut first, mut ids, mut weights) = (0, self.ids, self.weights);
        self.counts.iter().map(move |&blocks| {
            let run = Run { ids, blocks: blocks.into(), weights };
            let width = self.outputs - first;
            let bias = match self.bias {
                Some(bias) if width >= self.height => bias.as_ptr().wrapping_add(first),
                _ => self.edge_bias.as_ptr(),
            };
            let panel = first / OUTPUT_BLOCK * self.groups * (OUTPUT_BLOCK / 2);
            let strip = Strip {
                run,
                scales: self.scales.wrapping_add(first),
                multipliers: self.multipliers.wrapping_add(panel),
                lane: first % OUTPUT_BLOCK,
                bias,
                out: self.out.wrapping_add(first),
                width,
                group_columns: self.group_columns,
                block_bytes: self.block_bytes,
                borrowed: PhantomData,
            };
            first += self.height;
            ids = run.ids_at::<WIDE>(run.blocks);
            weights = weights.wrapping_add(run.blocks * self.block_bytes);
            strip
        })
    }

    /// One of the rows of blocks, the `index`th, as a product of its own, with int8 weights.
    pub(super) fn alone<'p>(&'p self, index: usize, strip: &Strip<'p>, weights: *const i8) -> Product<'p> {
        let mut edge_bias = [0.0; OUTPUT_BLOCK];
        // SAFETY: there is a value of bias for each of a block's outputs.
        unsafe { strip.bias.copy_to_nonoverlapping(edge_bias.as_mut_ptr(), self.height) }
        Product {
            outputs: strip.width,
            bias: None,
            edge_bias,
            block_bytes: 2 * self.block_bytes,
            counts: self.counts.get(index..=index).unwrap_or(&[]),
            ids: strip.run.ids,
            weights: weights.cast(),
            scales: strip.scales,
            out: strip.out,
            groups: 1,
            group_columns: usize::MAX,
            ..*self
        }
    }

    /// Whether a row of blocks of 16 x 4 int8 weights has them all, which makes it a panel of a dense matrix.
    #[inline(always)]
    pub(super) fn is_dense(&self, strip: &Strip<'_>) -> bool {
        strip.run.blocks * 4 == self.inputs
    }

    /// That panel.
    pub(super) fn panel<'p>(&'p self, strip: &Strip<'p>) -> Panel<'p> {
        let (mut bias, mut scales) = ([0.0; OUTPUT_BLOCK], [0.0; OUTPUT_BLOCK]);
        // SAFETY: a block of 16 outputs has as many values of bias, and scales.
        unsafe {
            strip.bias.copy_to_nonoverlapping(bias.as_mut_ptr(), OUTPUT_BLOCK);
            strip.scales.copy_to_nonoverlapping(scales.as_mut_ptr(), OUTPUT_BLOCK);
        }
        Panel {
            rows: self.rows,
            inputs: self.inputs,
            values: self.values,
            row_scales: self.row_scales,
            weights: strip.run.weights.cast(),
            scales,
            bias,
            out: strip.out,
            out_stride: self.out_stride,
            width: strip.width.min(OUTPUT_BLOCK),
            borrowed: PhantomData,
        }
    }
}

impl Strip<'_> {
    /// The group of inputs that `block` is in.
    #[inline(always)]
    pub(super) fn group_of<const WIDE: bool>(&self, block: usize) -> usize {
        self.run.id::<WIDE>(block) / self.group_columns
    }

    /// Its blocks, cut where the multiplier changes: the group, and its blocks. Groups without a block are left out: they would
    /// add zero.
    #[inline(always)]
    pub(super) fn groups<const WIDE: bool>(&self) -> impl Iterator<Item = (usize, Run)> {
        let (strip, Self { run, group_columns, block_bytes, .. }) = (*self, *self);
        let mut next = 0;
        core::iter::from_fn(move || {
            let start = next;
            if start >= run.blocks {
                return None;
            }
            let group = strip.group_of::<WIDE>(start);
            let behind = (group + 1) * group_columns;
            let end = (start + 1..run.blocks).find(|&block| run.id::<WIDE>(block) >= behind);
            let end = end.unwrap_or(run.blocks);
            next = end;
            let ids = run.ids_at::<WIDE>(start);
            let weights = run.weights.wrapping_add(start * block_bytes);
            Some((group, Run { ids, weights, blocks: end - start, ..run }))
        })
    }
}
