//! A matrix product cut into panels of 16 outputs, the unit in which every SIMD kernel works.
//!
//! A panel's weights, 16 times the inputs, stay in the first-level cache while all rows pass by.

use core::marker::PhantomData;

use kinglet_model_format::OUTPUT_BLOCK;

use crate::matmul::Matmul;

/// 16 outputs of a matrix product, for all its rows.
///
/// Invariants, relied on by unsafe code: those of [`Matmul`]; `weights` holds `16 * inputs` values;
/// for each `row < rows` `width` floats may be written at `out + row * out_stride`; `1 <= width <= 16`.
pub(crate) struct Panel<'a> {
    /// Rows, at least one.
    pub(crate) rows: usize,
    /// Inputs with padding, a multiple of 16.
    pub(crate) inputs: usize,
    /// Quantized rows, in the order of the instruction set.
    pub(crate) values: *const i8,
    /// One scale a row.
    pub(crate) row_scales: *const f32,
    /// `[inputs / 4][16][4]`.
    pub(crate) weights: *const i8,
    /// One scale an output.
    pub(crate) scales: [f32; OUTPUT_BLOCK],
    /// One bias an output, zero where there is none.
    pub(crate) bias: [f32; OUTPUT_BLOCK],
    /// The panel's first output of the first row.
    pub(crate) out: *mut f32,
    /// Floats from one row of the result to the next.
    pub(crate) out_stride: usize,
    /// Outputs that exist: 16 but in the last panel.
    pub(crate) width: usize,
    pub(super) borrowed: PhantomData<&'a mut f32>,
}

impl<'a> Matmul<'a> {
    /// The panels, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = Panel<'a>> {
        let weights = *self.weights;
        let values = weights.values().chunks_exact(OUTPUT_BLOCK * self.rows.padded_inputs());
        let panels = panels(self, weights.outputs(), 0, weights.scales(), |scales| *scales);
        panels.zip(values).map(|(panel, values)| Panel { weights: values.as_ptr(), ..panel })
    }
}

/// The panels of a product from the `start`th on, without their weights. `scales` are those of the outputs, padded; `as_floats` makes
/// f32 of those of a panel.
pub(super) fn panels<'a, W, S>(
    matmul: Matmul<'a, W>,
    outputs: usize,
    start: usize,
    scales: &'a [S],
    as_floats: impl Fn(&[S; OUTPUT_BLOCK]) -> [f32; OUTPUT_BLOCK],
) -> impl Iterator<Item = Panel<'a>> {
    let Matmul { rows, bias, out, out_stride, .. } = matmul;
    let inputs = rows.padded_inputs();
    let out = out.as_mut_ptr();
    scales.as_chunks().0.iter().enumerate().skip(start).map(move |(index, scales)| {
        let first = index * OUTPUT_BLOCK;
        let width = OUTPUT_BLOCK.min(outputs - first);
        Panel {
            rows: rows.rows(),
            inputs,
            values: rows.values().as_ptr(),
            row_scales: rows.scales().as_ptr(),
            weights: core::ptr::null(),
            scales: as_floats(scales),
            bias: panel_bias(bias, first),
            out: out.wrapping_add(first),
            out_stride,
            width,
            borrowed: PhantomData,
        }
    })
}

/// The 16 values of `bias` from output `first` on, zero where there are none.
#[inline]
pub(crate) fn panel_bias(bias: Option<&[f32]>, first: usize) -> [f32; OUTPUT_BLOCK] {
    let bias = bias.and_then(|bias| bias.get(first..)).unwrap_or(&[]);
    // All panels but the last have the whole: a copy of known length, without a call.
    bias.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0.0; OUTPUT_BLOCK];
        for (target, &value) in padded.iter_mut().zip(bias) {
            *target = value;
        }
        padded
    })
}
