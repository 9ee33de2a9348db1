//! The loop over the blocks of a row of blocks, which all block-sparse kernels share.
//!
//! Blocks go by two at a time: both column ids are read before the first is used, so that no load waits for the one just
//! before it, and on cores without `SDOT` the products of two blocks meet in int16.

use core::arch::aarch64::{int32x4_t, vld1q_s32, vshlq_n_s32, vshlq_s32};

/// Consecutive blocks of one row of blocks.
///
/// Invariants, relied on by unsafe code: `ids` holds a column id, of one byte or where `WIDE` of two, for each of the `blocks`,
/// each id within the matrix; `weights` holds the weights of as many blocks.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) ids: *const u8,
    pub(super) blocks: usize,
    pub(super) weights: *const u8,
}

impl Run {
    /// Where the id of `block` stands.
    #[inline(always)]
    pub(super) fn ids_at<const WIDE: bool>(self, block: usize) -> *const u8 {
        self.ids.wrapping_add(block << u32::from(WIDE))
    }

    /// The same blocks, 4 wide and of int8, from output `first` of each on.
    #[inline(always)]
    pub(super) fn from_output(self, first: usize) -> Self {
        Self { weights: self.weights.wrapping_add(4 * first), ..self }
    }

    /// The column of `block`.
    #[inline(always)]
    pub(super) fn id<const WIDE: bool>(self, block: usize) -> usize {
        assert!(block < self.blocks);
        // SAFETY: the block exists; ids of two bytes are aligned, as they were given as such.
        unsafe {
            let id = self.ids_at::<WIDE>(block);
            if WIDE { (*id.cast::<u16>()).into() } else { (*id).into() }
        }
    }
}

/// Assembly over all blocks of a [`Run`]: `pair` for two at a time, `single` for one that is left.
///
/// Operands are `ids`, `weights`, the registers for column ids `i` and `j`, the accumulators `sums`, the vector registers
/// `vectors`, the ones with a `fixed` number, the general registers `general` and the `pointers`.
macro_rules! run {
    ($run:ident; sums [$($sum:ident)+] vectors [$($vector:ident)*] fixed [$($fixed:tt)*] general [$($general:ident)*]
        pointers [$($pointer:ident)+] pair [$($pair:tt)+] single [$($single:tt)+]) => {{
        let zero = vdupq_n_s32(0);
        asm!(
            "subs {blocks}, {blocks}, #4",
            "b.lo 3f",
            "2:",
            concat!($($pair)+),
            concat!($($pair)+),
            "subs {blocks}, {blocks}, #4",
            "b.hs 2b",
            "3:",
            // The two lowest bits of what is below zero now are the blocks that are left.
            "tbz {blocks}, #1, 4f",
            concat!($($pair)+),
            "4:",
            "tbz {blocks}, #0, 5f",
            concat!($($single)+),
            "5:",
            blocks = inout(reg) $run.blocks => _,
            ids = inout(reg) $run.ids => _,
            weights = inout(reg) $run.weights => _,
            i = out(reg) _,
            j = out(reg) _,
            $($general = out(reg) _,)*
            $($pointer = in(reg) $pointer,)+
            $($vector = out(vreg) _,)*
            $(out($fixed) _,)*
            $($sum = inout(vreg) zero => $sum,)+
            options(nostack, readonly),
        );
    }};
}

/// `$code!(kind suffix size)` for the kind of weights, int8 unless there is a choice, and the size of ids at hand.
macro_rules! kinds {
    ($code:ident, $wide:expr) => {
        if $wide { $code!(int8 "h" 2) } else { $code!(int8 "b" 1) }
    };
    ($code:ident, $int4:expr, $wide:expr) => {
        match ($int4, $wide) {
            (false, false) => $code!(int8 "b" 1),
            (false, true) => $code!(int8 "h" 2),
            (true, false) => $code!(int4 "b" 1),
            (true, true) => $code!(int4 "h" 2),
        }
    };
}

/// Reads the next column id.
macro_rules! id {
    ($register:literal $suffix:literal $size:literal) => {
        concat!("ldr", $suffix, " {", $register, ":w}, [{ids}], #", $size, "\n")
    };
}

/// The 64 weights of the next block in four registers. Int4 weights come out 16 times as large in the first and the third
/// register, from the low halves of bytes, and as they are in the second and the fourth; [`align`] makes their sums equal.
macro_rules! block {
    (int8 $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "ldp {",
            $w0,
            ":q}, {",
            $w1,
            ":q}, [{weights}], #64\n",
            "ldp {",
            $w2,
            ":q}, {",
            $w3,
            ":q}, [{weights}, #-32]\n",
        )
    };
    (int4 $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            "ldp {",
            $w1,
            ":q}, {",
            $w3,
            ":q}, [{weights}], #32\n",
            "shl {",
            $w0,
            ":v}.16b, {",
            $w1,
            ":v}.16b, #4\n",
            "shl {",
            $w2,
            ":v}.16b, {",
            $w3,
            ":v}.16b, #4\n",
            "sshr {",
            $w1,
            ":v}.16b, {",
            $w1,
            ":v}.16b, #4\n",
            "sshr {",
            $w3,
            ":v}.16b, {",
            $w3,
            ":v}.16b, #4\n",
        )
    };
}

/// The first 8 outputs from `weights` on of the next block of 16 x 4, int8; the pointer moves on by a block.
macro_rules! half_block {
    ($w0:literal $w1:literal) => {
        concat!("ldp {", $w0, ":q}, {", $w1, ":q}, [{weights}], #64\n")
    };
}

/// The 16 weights of each of the next two blocks of 4 x 4, or of one, by way of `$t`. Int4 weights come out 16 times as large
/// in the first two outputs, which [`align_small`] makes equal.
macro_rules! small_blocks {
    (int8 $t:literal: $w0:literal $w1:literal) => {
        concat!("ldp {", $w0, ":q}, {", $w1, ":q}, [{weights}], #32\n")
    };
    (int4 $t:literal: $w0:literal $w1:literal) => {
        concat!(
            "ldr {",
            $w1,
            ":q}, [{weights}], #16\n",
            "shl {",
            $t,
            ":v}.16b, {",
            $w1,
            ":v}.16b, #4\n",
            "sshr {",
            $w1,
            ":v}.16b, {",
            $w1,
            ":v}.16b, #4\n",
            "zip1 {",
            $w0,
            ":v}.2d, {",
            $t,
            ":v}.2d, {",
            $w1,
            ":v}.2d\n",
            "zip2 {",
            $w1,
            ":v}.2d, {",
            $t,
            ":v}.2d, {",
            $w1,
            ":v}.2d\n",
        )
    };
    (int8 $t:literal: $w0:literal) => {
        concat!("ldr {", $w0, ":q}, [{weights}], #16\n")
    };
    (int4 $t:literal: $w0:literal) => {
        concat!(
            "ldr {",
            $w0,
            ":d}, [{weights}], #8\n",
            "shl {",
            $t,
            ":v}.8b, {",
            $w0,
            ":v}.8b, #4\n",
            "sshr {",
            $w0,
            ":v}.8b, {",
            $w0,
            ":v}.8b, #4\n",
            "zip1 {",
            $w0,
            ":v}.2d, {",
            $t,
            ":v}.2d, {",
            $w0,
            ":v}.2d\n",
        )
    };
}

/// The sums of registers of weights in turn, 16 times as large where weights are int4.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn align<const INT4: bool, const SUMS: usize>(mut sums: [int32x4_t; SUMS]) -> [int32x4_t; SUMS] {
    if INT4 {
        for sums in sums.iter_mut().skip(1).step_by(2) {
            *sums = vshlq_n_s32::<4>(*sums);
        }
    }
    sums
}

/// The sums of 4 outputs in blocks of 4 x 4, 16 times as large where weights are int4.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn align_small<const INT4: bool>(sums: int32x4_t) -> int32x4_t {
    if INT4 {
        // SAFETY: four values are read.
        vshlq_s32(sums, unsafe { vld1q_s32([0, 0, 4, 4].as_ptr()) })
    } else {
        sums
    }
}

pub(super) use {block, half_block, id, kinds, run, small_blocks};
