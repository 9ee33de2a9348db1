//! A product with int4 weights, cut into panels of 16 outputs.

use kinglet_model_format::{Int4Matrix, OUTPUT_BLOCK, ShortScale};

use crate::arch::panel::{Panel, panels};
use crate::matmul::Matmul;

/// 16 outputs of a product with int4 weights, for all its rows.
///
/// Invariants, relied on by unsafe code: those of [`Panel`], but for its weights; `packed` holds `8 * inputs` bytes, and
/// `multipliers` 8 for each group.
pub(crate) struct Int4Panel<'a> {
    /// All but the weights, which are nowhere until they are unpacked.
    pub(crate) panel: Panel<'a>,
    /// `[inputs / 8][16][4]`: inputs 0 to 3 in the low halves, 4 to 7 in the high ones.
    pub(crate) packed: *const u8,
    /// `[groups][8]`: outputs 0 to 7 in the low halves, 8 to 15 in the high ones.
    pub(crate) multipliers: *const u8,
    /// Inputs that share a multiplier, a multiple of 16.
    pub(crate) group_inputs: usize,
}

/// Inputs that share a multiplier: the `index`th, inputs `first` to `last`, both multiples of 16.
pub(crate) struct Group {
    pub(crate) index: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Int4Panel<'_> {
    /// The groups in order, at least one; none is empty.
    #[inline(always)]
    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        self.cut(self.group_inputs)
    }

    /// As if `step` inputs, a multiple of 16, shared a multiplier.
    #[inline(always)]
    pub(crate) fn cut(&self, step: usize) -> impl Iterator<Item = Group> + use<> {
        let inputs = self.panel.inputs;
        let mut next = (0, 0);
        core::iter::from_fn(move || {
            let (index, first) = next;
            let last = inputs.min(first + step);
            next = (index + 1, last);
            (first < inputs).then_some(Group { index, first, last })
        })
    }
}

/// The scales of a panel as f32, in vectors: `map` would take them one by one.
#[inline(always)]
fn widen(scales: &[ShortScale; OUTPUT_BLOCK]) -> [f32; OUTPUT_BLOCK] {
    let mut floats = [0.0; OUTPUT_BLOCK];
    for (float, scale) in floats.iter_mut().zip(scales) {
        *float = scale.to_f32();
    }
    floats
}

impl<'a> Matmul<'a, Int4Matrix<'a>> {
    /// The panels, in the order of the outputs.
    pub(crate) fn panels(self) -> impl Iterator<Item = Int4Panel<'a>> {
        self.panels_from(0)
    }

    /// The panels from the `start`th on.
    pub(crate) fn panels_from(self, start: usize) -> impl Iterator<Item = Int4Panel<'a>> {
        let (weights, inputs, scales) = (*self.weights, self.rows.padded_inputs(), self.weights.scales());
        let packed = weights.values().chunks_exact(OUTPUT_BLOCK * inputs / 2).skip(start);
        let multipliers = scales.multipliers.chunks_exact(OUTPUT_BLOCK / 2 * weights.groups()).skip(start);
        let panels = panels(self, weights.outputs(), start, scales.scales, widen);
        panels.zip(packed).zip(multipliers).map(move |((panel, packed), multipliers)| Int4Panel {
            panel,
            packed: packed.as_ptr(),
            multipliers: multipliers.as_ptr(),
            group_inputs: scales.group_inputs,
        })
    }
}
