//! Products with block-sparse weights, int8 or int4, in each shape of blocks.
//!
//! A kernel runs over the blocks of a row of blocks ([`run`]) for one row, or for some number of fours of rows, which stand side
//! by side: 4 inputs of four rows are one register, so that one load serves four rows whatever the column. What it sums is
//! scaled and stored here.

mod dotprod;
mod i8mm;
mod neon;
mod product;
mod run;

use core::arch::aarch64::{float32x4_t, int32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32};

use kinglet_model_format::{BlockShape, SparseInt4Matrix, SparseInt8Matrix};

use super::finish::{scale, store};
use super::int4::{add_group, widened};
use super::{matmul_i8_dotprod, matmul_i8_i8mm, matmul_i8_neon};
use crate::arch::scalar;
use crate::matmul::Matmul;
use crate::{InstructionSet, Kernels};
use product::{Product, Strip};

pub(crate) fn dispatch_matmul_sparse_int8<'a>(kernels: Kernels, matmul: Matmul<'a, SparseInt8Matrix<'a>>) {
    match kernels.instruction_set() {
        InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => {
            dispatch::<false>(kernels, matmul.block_shape(), &Product::int8(matmul));
        }
        _ => scalar::matmul_sparse_i8(matmul),
    }
}

pub(crate) fn dispatch_matmul_sparse_int4<'a>(kernels: Kernels, matmul: Matmul<'a, SparseInt4Matrix<'a>>) {
    match kernels.instruction_set() {
        InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => {
            dispatch::<true>(kernels, matmul.block_shape(), &Product::int4(matmul));
        }
        _ => scalar::matmul_sparse_i4(matmul),
    }
}

fn dispatch<const INT4: bool>(kernels: Kernels, shape: BlockShape, product: &Product<'_>) {
    match (product.wide_ids, INT4 && product.groups > 1) {
        (false, false) => dispatch_shape::<INT4, false, false>(kernels, shape, product),
        (false, true) => dispatch_shape::<INT4, false, true>(kernels, shape, product),
        (true, false) => dispatch_shape::<INT4, true, false>(kernels, shape, product),
        (true, true) => dispatch_shape::<INT4, true, true>(kernels, shape, product),
    }
}

/// `SMMLA` takes 8 inputs, so that blocks 4 wide must be zipped, as must the rows for any shape: that pays where four rows
/// meet blocks of 16 outputs. `SDOT` does the rest.
fn dispatch_shape<const INT4: bool, const WIDE: bool, const GROUPED: bool>(
    kernels: Kernels,
    shape: BlockShape,
    product: &Product<'_>,
) {
    let set = kernels.instruction_set();
    // SAFETY: `Kernels` proves that the instructions exist, and those of `SDOT` where those of `SMMLA` do. The shape is that
    // of the product's blocks, and ids and groups are as they say.
    unsafe {
        match shape {
            BlockShape::Outputs16Inputs4 => match set {
                InstructionSet::Neon => matmul_16x4_neon::<INT4, WIDE, GROUPED>(product),
                InstructionSet::I8mm if product.rows >= 4 => matmul_16x4_i8mm::<INT4, WIDE, GROUPED>(product),
                _ => matmul_16x4_dotprod::<INT4, WIDE, GROUPED>(product),
            },
            BlockShape::Outputs4Inputs16 => match set {
                InstructionSet::Neon => matmul_4x16_neon::<INT4, WIDE, GROUPED>(product),
                _ => matmul_4x16_dotprod::<INT4, WIDE, GROUPED>(product),
            },
            BlockShape::Outputs4Inputs4 => match set {
                InstructionSet::Neon => matmul_4x4_neon::<INT4, WIDE, GROUPED>(product),
                _ => matmul_4x4_dotprod::<INT4, WIDE, GROUPED>(product),
            },
        }
    }
}

/// `$rows` rows from `$row` on: `4 * $vectors` outputs from `$first` of `$strip` on.
macro_rules! tile {
    ($product:ident, $strip:ident, $row:expr, $first:expr, $rows:literal x $vectors:literal, |$run:ident| $sums:expr) => {
        if !INT4 {
            let $run = $strip.run.from_output::<INT4>($first);
            finish_int8::<$vectors>($product, &$strip, $row, $first, $sums.as_flattened());
        } else {
            let mut totals = [[vdupq_n_f32(0.0); $vectors]; $rows];
            if GROUPED {
                for (group, $run) in $strip.groups::<WIDE>() {
                    let $run = $run.from_output::<INT4>($first);
                    add::<$vectors>(&$strip, group, $first, $sums.as_flattened(), &mut totals);
                }
            } else {
                let $run = $strip.run.from_output::<INT4>($first);
                add::<$vectors>(&$strip, 0, $first, $sums.as_flattened(), &mut totals);
            }
            finish_int4::<$vectors>($product, &$strip, $row, $first, &totals);
        }
    };
}

/// A product: first the fours of rows, by the tile that takes most of them, then each row behind them.
macro_rules! product {
    ($name:ident $features:literal: $(dense $dense:path,)? from $firsts:expr;
        $($rows:literal x $vectors:literal $module:ident::$tile:ident,)+
        row $row_vectors:literal $row_module:ident::$row_tile:ident) => {
        /// # Safety
        /// The product must have blocks of that shape, ids of two bytes where `WIDE`, and one group unless `GROUPED`.
        #[target_feature(enable = $features)]
        unsafe fn $name<const INT4: bool, const WIDE: bool, const GROUPED: bool>(product: &Product<'_>) {
            let quad_rows = product.rows / 4 * 4;
            // One row apart from others: there the little that is done for each row of blocks counts.
            if product.rows == 1 {
                for strip in product.strips::<WIDE>() {
                    // SAFETY: the product's invariants: there is one row, in plain order.
                    unsafe {
                        tile!(product, strip, 0, 0, 1 x $row_vectors,
                            |run| $row_module::$row_tile::<INT4, WIDE>(run, product.values));
                    }
                }
                return;
            }
            for strip in product.strips::<WIDE>() {
                $(if !INT4 && product.is_dense(&strip) {
                    // SAFETY: the product's invariants are those of the panel.
                    unsafe { $dense(&product.panel(&strip)) };
                    continue;
                })?
                // SAFETY: the product's invariants: the rows of a tile exist, and stand in its order.
                unsafe {
                    for first in $firsts {
                        let mut row = 0;
                        $(while quad_rows - row >= $rows {
                            let values = product.values.wrapping_add(row * product.inputs);
                            tile!(product, strip, row, first, $rows x $vectors,
                                |run| $module::$tile::<INT4, WIDE>(run, values, 4 * product.inputs));
                            row += $rows;
                        })+
                    }
                    for row in quad_rows..product.rows {
                        let values = product.values.wrapping_add(row * product.inputs);
                        tile!(product, strip, row, 0, 1 x $row_vectors,
                            |run| $row_module::$row_tile::<INT4, WIDE>(run, values));
                    }
                }
            }
        }
    };
}

product!(matmul_16x4_dotprod "neon,dotprod": dense matmul_i8_dotprod::multiply_panel, from [0];
    4 x 4 dotprod::quad_16x4, row 4 dotprod::row_16x4);
product!(matmul_4x16_dotprod "neon,dotprod": from [0];
    8 x 1 dotprod::two_quads_4x16, 4 x 1 dotprod::one_quad_4x16, row 1 dotprod::row_4x16);
product!(matmul_4x4_dotprod "neon,dotprod": from [0];
    16 x 1 dotprod::four_quads_4x4, 4 x 1 dotprod::one_quad_4x4, row 1 dotprod::row_4x4);
product!(matmul_16x4_neon "neon": dense matmul_i8_neon::multiply_panel, from [0, 8];
    4 x 2 neon::quad_16x4_half, row 4 neon::row_16x4);
product!(matmul_4x16_neon "neon": from [0];
    4 x 1 neon::quad_4x16, row 1 neon::row_4x16);
product!(matmul_4x4_neon "neon": from [0];
    8 x 1 neon::two_quads_4x4, 4 x 1 neon::one_quad_4x4, row 1 neon::row_4x4);
product!(matmul_16x4_i8mm "neon,dotprod,i8mm": dense matmul_i8_i8mm::multiply_panel, from [0, 8];
    12 x 2 i8mm::three_quads_16x4_half, 8 x 2 i8mm::two_quads_16x4_half, 4 x 2 i8mm::one_quad_16x4_half,
    row 4 dotprod::row_16x4);

/// Scales int8 sums of the rows from `row` on, from output `first` of the strip on, adds the bias and stores them.
///
/// # Safety
/// The rows must exist; `first + 4 * VECTORS` must be at most a block's outputs.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_int8<const VECTORS: usize>(
    product: &Product<'_>,
    strip: &Strip<'_>,
    row: usize,
    first: usize,
    sums: &[[int32x4_t; VECTORS]],
) {
    // SAFETY: the rows exist, so their scales do; there are scales and bias for all outputs of a block.
    unsafe {
        let results = |index: usize, sums: &[int32x4_t; VECTORS]| {
            let row_scale = vdupq_n_f32(*product.row_scales.add(row + index));
            scale(row_scale, strip.scales.add(first), strip.bias.add(first), *sums)
        };
        store_rows(product, strip, row, first, sums, results);
    }
}

/// Adds 16 times the sums of a group, from output `first` of the strip on, to the totals of as many rows.
///
/// # Safety
/// The product must have the group; `first + 4 * VECTORS` must be at most a block's outputs.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add<const VECTORS: usize>(
    strip: &Strip<'_>,
    group: usize,
    first: usize,
    sums: &[[int32x4_t; VECTORS]],
    totals: &mut [[float32x4_t; VECTORS]],
) {
    for vector in 0..VECTORS {
        // SAFETY: a group has scales for all outputs of a block.
        let scales = unsafe { widened(strip.group_scales.add(16 * group + first + 4 * vector)) };
        for (totals, sums) in totals.iter_mut().zip(sums) {
            totals[vector] = add_group(totals[vector], sums[vector], scales);
        }
    }
}

/// Scales int4 totals of the rows from `row` on, from output `first` of the strip on, adds the bias and stores them.
///
/// # Safety
/// As for `finish_int8`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_int4<const VECTORS: usize>(
    product: &Product<'_>,
    strip: &Strip<'_>,
    row: usize,
    first: usize,
    totals: &[[float32x4_t; VECTORS]],
) {
    // SAFETY: as for `finish_int8`.
    unsafe {
        let results = |index: usize, totals: &[float32x4_t; VECTORS]| {
            let row_scale = vdupq_n_f32(*product.row_scales.add(row + index));
            let mut results = *totals;
            for (vector, result) in results.iter_mut().enumerate() {
                *result = vfmaq_f32(vld1q_f32(strip.bias.add(first + 4 * vector)), *result, row_scale);
            }
            results
        };
        store_rows(product, strip, row, first, totals, results);
    }
}

/// Stores what `results` makes of the sums of each row from `row` on.
///
/// # Safety
/// The rows must exist; `first + 4 * VECTORS` must be at most a block's outputs.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_rows<const VECTORS: usize, T>(
    product: &Product<'_>,
    strip: &Strip<'_>,
    row: usize,
    first: usize,
    sums: &[[T; VECTORS]],
    results: impl Fn(usize, &[T; VECTORS]) -> [float32x4_t; VECTORS],
) {
    let mut out = strip.out.wrapping_add(row * product.out_stride + first);
    let width = strip.width.saturating_sub(first);
    // Asked once, not for each row.
    if width >= 4 * VECTORS {
        for (index, sums) in sums.iter().enumerate() {
            // SAFETY: the row exists and as many floats may be written at its place.
            unsafe { store(out, 4 * VECTORS, results(index, sums)) }
            out = out.wrapping_add(product.out_stride);
        }
    } else {
        for (index, sums) in sums.iter().enumerate() {
            // SAFETY: the row exists and `width` floats may be written at its place.
            unsafe { store(out, width, results(index, sums)) }
            out = out.wrapping_add(product.out_stride);
        }
    }
}
