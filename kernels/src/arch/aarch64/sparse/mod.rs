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
mod unpack;

use core::arch::aarch64::{
    float32x4_t, int32x4_t, uint8x8_t, vcreate_u8, vcvtq_f32_s32, vdupq_laneq_f32, vdupq_n_f32, vdupq_n_s32,
    vfmaq_f32, vget_low_u16, vld1q_f32, vmovl_u8, vmovl_u16, vmulq_f32, vreinterpretq_s32_u32,
};
use core::arch::asm;
use core::mem::MaybeUninit;

use kinglet_model_format::{BlockShape, SparseInt4Matrix, SparseInt8Matrix};

use super::finish::store;
use super::int4::{add_group, multipliers_32};
use super::{matmul_i8_dotprod, matmul_i8_i8mm, matmul_i8_neon};
use crate::arch::scalar;
use crate::matmul::{LEAST_UNPACKED, Matmul};
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

/// Many rows take int4 weights as int8, unpacked once for all of them, a row of blocks at a time; few rows take them as they are.
pub(crate) fn dispatch_matmul_sparse_int4<'a>(
    kernels: Kernels,
    matmul: Matmul<'a, SparseInt4Matrix<'a>>,
    room: &mut [i8],
) {
    match kernels.instruction_set() {
        InstructionSet::I8mm | InstructionSet::Dotprod | InstructionSet::Neon => {
            let shape = matmul.block_shape();
            let product = Product::int4(matmul);
            if product.rows < LEAST_UNPACKED {
                dispatch::<true>(kernels, shape, &product);
            } else if product.wide_ids {
                unpack_and_dispatch::<true>(kernels, shape, &product, room);
            } else {
                unpack_and_dispatch::<false>(kernels, shape, &product, room);
            }
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

fn unpack_and_dispatch<const WIDE: bool>(
    kernels: Kernels,
    shape: BlockShape,
    product: &Product<'_>,
    room: &mut [i8],
) {
    for (index, strip) in product.strips::<WIDE>().enumerate() {
        // SAFETY: `Kernels` proves that NEON exists; blocks and ids are as the product says, and `room` has 16 bytes for each
        // input, as the widest row of blocks has weights.
        unsafe { unpack::unpack::<WIDE>(&strip, shape, room.as_mut_ptr()) }
        dispatch::<false>(kernels, shape, &product.alone(index, &strip, room.as_ptr()));
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

/// `$fours` times four rows, from `$row` on, of int8 weights: `4 * $vectors` outputs from `$first` of `$strip` on.
macro_rules! tile_fours {
    ($product:ident, $strip:ident, $row:expr, $first:expr, $fours:literal x $vectors:literal, |$run:ident| $sums:expr) => {
        let $run = $strip.run.from_output($first);
        let sums: [_; $fours] = $sums;
        for (index, sums) in sums.iter().enumerate() {
            finish::<$vectors, 4>($product, &$strip, $row + 4 * index, $first, sums);
        }
    };
}

/// One row, `$row`: `4 * $vectors` outputs, which are all, of `$strip`.
macro_rules! tile_row {
    ($product:ident, $strip:ident, $row:expr, $vectors:literal, |$run:ident| $sums:expr) => {
        let mut totals = [[vdupq_n_s32(0); $vectors]];
        if !INT4 {
            let $run = $strip.run;
            [totals] = $sums;
        } else if GROUPED {
            for (group, $run) in $strip.groups::<WIDE>() {
                add::<$vectors>(&$strip, group, $sums.as_flattened(), &mut totals);
            }
        } else {
            let $run = $strip.run;
            add::<$vectors>(&$strip, 0, $sums.as_flattened(), &mut totals);
        }
        finish::<$vectors, 1>($product, &$strip, $row, 0, &totals);
    };
}

/// A product: first the fours of rows, by the tile that takes most of them, then each row behind them.
macro_rules! product {
    ($name:ident $features:literal: $(dense $dense:path,)? from $firsts:expr;
        $($fours:literal x $vectors:literal $module:ident::$tile:ident,)+
        row $row_vectors:literal $row_module:ident::$row_tile:ident) => {
        /// # Safety
        /// The product must have blocks of that shape, ids of two bytes where `WIDE`, and one group unless `GROUPED`.
        #[target_feature(enable = $features)]
        unsafe fn $name<const INT4: bool, const WIDE: bool, const GROUPED: bool>(product: &Product<'_>) {
            // Int4 weights come as they are to fewer than four rows.
            let quad_rows = if INT4 { 0 } else { product.rows / 4 * 4 };
            // One row apart from others: there the little that is done for each row of blocks counts.
            if product.rows == 1 {
                for strip in product.strips::<WIDE>() {
                    // SAFETY: the product's invariants: there is one row, in plain order.
                    unsafe {
                        tile_row!(product, strip, 0, $row_vectors,
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
                        $(while quad_rows - row >= 4 * $fours {
                            let values = product.values.wrapping_add(row * product.inputs);
                            tile_fours!(product, strip, row, first, $fours x $vectors,
                                |run| $module::$tile::<WIDE>(run, values, 4 * product.inputs));
                            row += 4 * $fours;
                        })+
                    }
                    for row in quad_rows..product.rows {
                        let values = product.values.wrapping_add(row * product.inputs);
                        tile_row!(product, strip, row, $row_vectors,
                            |run| $row_module::$row_tile::<INT4, WIDE>(run, values));
                    }
                }
            }
        }
    };
}

product!(matmul_16x4_dotprod "neon,dotprod": dense matmul_i8_dotprod::multiply_panel, from [0];
    1 x 4 dotprod::quad_16x4, row 4 dotprod::row_16x4);
product!(matmul_4x16_dotprod "neon,dotprod": from [0];
    2 x 1 dotprod::two_quads_4x16, 1 x 1 dotprod::one_quad_4x16, row 1 dotprod::row_4x16);
product!(matmul_4x4_dotprod "neon,dotprod": from [0];
    4 x 1 dotprod::four_quads_4x4, 1 x 1 dotprod::one_quad_4x4, row 1 dotprod::row_4x4);
product!(matmul_16x4_neon "neon": dense matmul_i8_neon::multiply_panel, from [0, 8];
    1 x 2 neon::quad_16x4_half, row 4 neon::row_16x4);
product!(matmul_4x16_neon "neon": from [0];
    1 x 1 neon::quad_4x16, row 1 neon::row_4x16);
product!(matmul_4x4_neon "neon": from [0];
    2 x 1 neon::two_quads_4x4, 1 x 1 neon::one_quad_4x4, row 1 neon::row_4x4);
product!(matmul_16x4_i8mm "neon,dotprod,i8mm": dense matmul_i8_i8mm::multiply_panel, from [0, 8];
    3 x 2 i8mm::three_quads_16x4_half, 2 x 2 i8mm::two_quads_16x4_half, 1 x 2 i8mm::one_quad_16x4_half,
    row 4 dotprod::row_16x4);

/// Scales sums of `ROWS` rows from `row` on, from output `first` of the strip on, adds the bias and stores them.
///
/// # Safety
/// The rows must exist; `first + 4 * VECTORS` must be at most a block's outputs.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish<const VECTORS: usize, const ROWS: usize>(
    product: &Product<'_>,
    strip: &Strip<'_>,
    row: usize,
    first: usize,
    sums: &[[int32x4_t; VECTORS]; ROWS],
) {
    let out = strip.out.wrapping_add(row * product.out_stride + first);
    let whole = strip.width >= first + 4 * VECTORS;
    // SAFETY: the rows exist, so their scales do, and `width` floats may be written at the place of each; there are scales and
    // bias for all outputs of a block.
    unsafe {
        let (scales, bias) = (strip.scales.add(first), strip.bias.add(first));
        let row_scales = product.row_scales.add(row);
        if let Some(sums) = four_halves(sums) {
            // Where outputs are missing results go by way of `edge`, so that sums need not be in memory for that.
            let mut edge = MaybeUninit::<[f32; 32]>::uninit();
            let (target, stride) =
                if whole { (out, product.out_stride) } else { (edge.as_mut_ptr().cast(), 8) };
            finish_four_halves(row_scales, scales, bias, target, stride, sums);
            if !whole {
                copy_edge(target, out, product.out_stride, strip.width.saturating_sub(first));
            }
            return;
        }
        // Before the first store, behind which the compiler must think that they might have changed.
        let scales: [_; VECTORS] = core::array::from_fn(|vector| vld1q_f32(scales.add(4 * vector)));
        for (index, (row_scale, sums)) in in_lanes::<ROWS>(row_scales).into_iter().zip(sums).enumerate() {
            let results = core::array::from_fn(|vector| {
                let scale = vmulq_f32(scales[vector], row_scale);
                vfmaq_f32(vld1q_f32(bias.add(4 * vector)), vcvtq_f32_s32(sums[vector]), scale)
            });
            let out = out.wrapping_add(index * product.out_stride);
            store::<VECTORS>(out, strip.width.saturating_sub(first), results);
        }
    }
}

/// The first `width` of 8 results of each of four rows, from `edge` to where they belong.
///
/// # Safety
/// 32 floats must be readable at `edge`; `width` may be written at `out` and at each of the three places `stride` further.
#[cold]
#[inline(never)]
unsafe fn copy_edge(edge: *const f32, out: *mut f32, stride: usize, width: usize) {
    for row in 0..4 {
        // SAFETY: the caller's.
        unsafe { out.wrapping_add(row * stride).copy_from_nonoverlapping(edge.add(8 * row), width) }
    }
}

/// `sums`, where these are four rows of 8.
#[inline(always)]
fn four_halves<const VECTORS: usize, const ROWS: usize>(
    sums: &[[int32x4_t; VECTORS]; ROWS],
) -> Option<[int32x4_t; 8]> {
    if VECTORS == 2 && ROWS == 4 { sums.as_flattened().first_chunk().copied() } else { None }
}

/// One row of `finish_four_halves`: two registers of sums.
macro_rules! finish_half {
    ($lane:literal $a:literal $b:literal) => {
        concat!(
            "ldp {x:q}, {y:q}, [{bias}]\n",
            "fmul {p:v}.4s, {s:v}.4s, {row_scales:v}.s[",
            $lane,
            "]\n",
            "fmul {q:v}.4s, {t:v}.4s, {row_scales:v}.s[",
            $lane,
            "]\n",
            "scvtf {",
            $a,
            ":v}.4s, {",
            $a,
            ":v}.4s\n",
            "scvtf {",
            $b,
            ":v}.4s, {",
            $b,
            ":v}.4s\n",
            "fmla {x:v}.4s, {p:v}.4s, {",
            $a,
            ":v}.4s\n",
            "fmla {y:v}.4s, {q:v}.4s, {",
            $b,
            ":v}.4s\n",
            "stp {x:q}, {y:q}, [{out}]\n",
        )
    };
}

/// Scales sums of four rows x 8 outputs, adds the bias and stores them. Left to the compiler three times four rows have an
/// address each, and more registers than there are.
///
/// # Safety
/// Four row scales, 8 scales and 8 values of bias must be readable; 8 floats may be written at `out` and at each of the
/// three places `stride` floats further.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn finish_four_halves(
    row_scales: *const f32,
    scales: *const f32,
    bias: *const f32,
    out: *mut f32,
    stride: usize,
    [a, b, c, d, e, f, g, h]: [int32x4_t; 8],
) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "ldp {s:q}, {t:q}, [{scales}]",
            "ldr {row_scales:q}, [{first_scale}]",
            finish_half!(0 "a" "b"),
            "add {out}, {out}, {stride}",
            finish_half!(1 "c" "d"),
            "add {out}, {out}, {stride}",
            finish_half!(2 "e" "f"),
            "add {out}, {out}, {stride}",
            finish_half!(3 "g" "h"),
            scales = in(reg) scales, first_scale = in(reg) row_scales, bias = in(reg) bias,
            out = inout(reg) out => _, stride = in(reg) 4 * stride,
            s = out(vreg) _, t = out(vreg) _, row_scales = out(vreg) _,
            x = out(vreg) _, y = out(vreg) _, p = out(vreg) _, q = out(vreg) _,
            a = inout(vreg) a => _, b = inout(vreg) b => _, c = inout(vreg) c => _, d = inout(vreg) d => _,
            e = inout(vreg) e => _, f = inout(vreg) f => _, g = inout(vreg) g => _, h = inout(vreg) h => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Adds 16 times the sums of a group times their multipliers to the totals of as many rows.
///
/// # Safety
/// The product must have the group; `4 * VECTORS` must be a block's outputs.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add<const VECTORS: usize>(
    strip: &Strip<'_>,
    group: usize,
    sums: &[[int32x4_t; VECTORS]],
    totals: &mut [[int32x4_t; VECTORS]],
) {
    // SAFETY: a group has multipliers for all outputs of a block.
    let multipliers = unsafe { multipliers::<VECTORS>(strip.multipliers.add(8 * group), strip.lane) };
    for (totals, sums) in totals.iter_mut().zip(sums) {
        for vector in 0..VECTORS {
            totals[vector] = add_group(totals[vector], sums[vector], multipliers[vector]);
        }
    }
}

/// The multipliers of `4 * VECTORS` outputs from `lane`, a multiple of as many below 16, on.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multipliers<const VECTORS: usize>(group: *const u8, lane: usize) -> [int32x4_t; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        match VECTORS {
            4 => {
                let all = multipliers_32(group);
                core::array::from_fn(|vector| all[vector % 4])
            }
            _ => core::array::from_fn(|vector| {
                let four = vmovl_u8(multipliers_of_4(group, lane + 4 * vector));
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(four)))
            }),
        }
    }
}

/// The multipliers of 4 outputs from `lane`, a multiple of 4 below 16, on, as bytes.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn multipliers_of_4(group: *const u8, lane: usize) -> uint8x8_t {
    // SAFETY: the caller's.
    let four = unsafe { group.add(lane % 8).cast::<u32>().read_unaligned() } >> (lane / 8 * 4) & 0x0f0f_0f0f;
    vcreate_u8(four.into())
}

/// Each of `ROWS` scales in all lanes, four with one load where there are fours.
///
/// # Safety
/// As many floats must be readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn in_lanes<const ROWS: usize>(scales: *const f32) -> [float32x4_t; ROWS] {
    core::array::from_fn(|row| {
        // SAFETY: the caller's.
        unsafe {
            if ROWS.is_multiple_of(4) {
                let four = vld1q_f32(scales.add(row / 4 * 4));
                match row % 4 {
                    0 => vdupq_laneq_f32::<0>(four),
                    1 => vdupq_laneq_f32::<1>(four),
                    2 => vdupq_laneq_f32::<2>(four),
                    _ => vdupq_laneq_f32::<3>(four),
                }
            } else {
                vdupq_n_f32(*scales.add(row))
            }
        }
    })
}
