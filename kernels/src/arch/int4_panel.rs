//! A product with int4 weights, cut into panels of 16 outputs.

use core::marker::PhantomData;

use kinglet_model_format::{Int4Matrix, OUTPUT_BLOCK};

use crate::arch::panel::panel_bias;
use crate::matmul::Matmul;

/// 16 outputs of a product with int4 weights, for all its rows.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`]; `weights` holds `8 * inputs` bytes and `scales` 16 for
/// each group; for each `row < rows` `width` floats may be written at `out + row * out_stride`; `1 <= width <= 16`.
pub(crate) struct Int4Panel<'a> {
    /// Rows, at least one.
    pub(crate) rows: usize,
    /// Inputs with padding, a multiple of 16.
    pub(crate) inputs: usize,
    /// Inputs that share a scale, a multiple of 16.
    group_inputs: usize,
    /// Quantized rows, in the order of the instruction set.
    pub(crate) values: *const i8,
    /// One scale a row.
    pub(crate) row_scales: *const f32,
    /// `[inputs / 8][16][4]`: inputs 0 to 3 in the low halves, 4 to 7 in the high ones.
    pub(crate) weights: *const u8,
    /// `[groups][16]`, the bits of f16.
    pub(crate) scales: *const u16,
    /// One bias an output, zero where there is none.
    pub(crate) bias: [f32; OUTPUT_BLOCK],
    /// The panel's first output of the first row.
    pub(crate) out: *mut f32,
    /// Floats from one row of the result to the next.
    pub(crate) out_stride: usize,
    /// Outputs that exist: 16 but in the last panel.
    pub(crate) width: usize,
    borrowed: PhantomData<&'a mut f32>,
}

/// Inputs that share a scale: the `index`th, inputs `first` to `last`, both multiples of 16.
pub(crate) struct Group {
    pub(crate) index: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Int4Panel<'_> {
    /// The groups in order, at least one; none is empty.
    #[inline(always)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let (inputs, step) = (self.inputs, self.group_inputs.min(self.inputs));
        let mut next = (0, 0);
        core::iter::from_fn(move || {
            let (index, first) = next;
            let last = inputs.min(first + step);
            next = (index + 1, last);
            (first < inputs).then_some(Group { index, first, last })
        })
    }
}

impl<'a> Matmul<'a, Int4Matrix<'a>> {
    /// The panels, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = Int4Panel<'a>> {
        let Matmul { rows, weights, bias, out, out_stride } = self;
        let (inputs, outputs) = (rows.padded_inputs(), weights.outputs());
        let out = out.as_mut_ptr();
        let panels = weights.values().chunks_exact(OUTPUT_BLOCK * inputs / 2);
        let scales = weights.scales().chunks_exact(OUTPUT_BLOCK * weights.groups());
        panels.zip(scales).enumerate().map(move |(index, (panel_weights, scales))| {
            let first = index * OUTPUT_BLOCK;
            let width = OUTPUT_BLOCK.min(outputs - first);
            Int4Panel {
                rows: rows.rows(),
                inputs,
                group_inputs: weights.group_inputs(),
                values: rows.values().as_ptr(),
                row_scales: rows.scales().as_ptr(),
                weights: panel_weights.as_ptr(),
                scales: scales.as_ptr().cast(),
                bias: panel_bias(bias, first),
                out: out.wrapping_add(first),
                out_stride,
                width,
                borrowed: PhantomData,
            }
        })
    }
}
