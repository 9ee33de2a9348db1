//! Block-sparse runs for cores without `SDOT`.
//!
//! As in the dense product two products of int8 share an int16 sum before `SADALP`: those of two blocks where a block is 4
//! inputs wide, those of its two halves where it is 16.

use core::arch::aarch64::{int32x4_t, vdupq_n_s32, vpaddq_s32};
use core::arch::asm;

use super::run::{Run, align, align_small, block, half_block, id, kinds, run, small_blocks};

/// `$name` of the lower and `$name2` of the upper half of each register of weights and `$x`, into int16 sums.
macro_rules! multiply {
    ($name:literal $x:literal: $($low:literal $high:literal $w:literal)+) => {
        concat!($(
            $name, " {", $low, ":v}.8h, {", $w, ":v}.8b, ", $x, ".8b\n",
            $name, "2 {", $high, ":v}.8h, {", $w, ":v}.16b, ", $x, ".16b\n",
        )+)
    };
}

/// Pairs of int16 sums into int32 sums.
macro_rules! widen {
    ($($sum:ident $product:literal)+) => {
        concat!($("sadalp {", stringify!($sum), ":v}.4s, {", $product, ":v}.8h\n"),+)
    };
}

/// Two blocks of 16 x 4, 8 outputs of each, times a row's 4 inputs for each.
macro_rules! pair_half {
    ($x:literal $y:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            multiply!("smull" $x: "p" "q" "w0" "r" "s" "w1"),
            multiply!("smlal" $y: "p" "q" "w2" "r" "s" "w3"),
            widen!($a "p" $b "q" $c "r" $d "s"),
        )
    };
}

/// One block of 16 x 4, 8 of its outputs, times a row's 4 inputs.
macro_rules! single_half {
    ($x:literal $w0:literal $w1:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(multiply!("smull" $x: "p" "q" $w0 "r" "s" $w1), widen!($a "p" $b "q" $c "r" $d "s"))
    };
}

/// Four rows x 8 outputs, those of each block from the run's weights on.
///
/// # Safety
/// The run's invariants, for 8 outputs of each block; four rows as wide as the matrix stand side by side at `values`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn quad_16x4_half<const WIDE: bool>(
    run: Run,
    values: *const i8,
    _: usize,
) -> [[[int32x4_t; 2]; 4]; 1] {
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a0 b0 c0 d0 a1 b1 c1 d1 a2 b2 c2 d2 a3 b3 c3 d3]
                vectors [w0 w1 w2 w3 p q r s] fixed ["v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"] general []
                pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "add {i}, {values}, {i}, lsl #4\n", "add {j}, {values}, {j}, lsl #4\n",
                    "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{i}]\n",
                    half_block!("w0" "w1"),
                    "ld4r {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{j}]\n",
                    half_block!("w2" "w3"),
                    pair_half!("v0" "v4": a0 b0 c0 d0), pair_half!("v1" "v5": a1 b1 c1 d1),
                    pair_half!("v2" "v6": a2 b2 c2 d2), pair_half!("v3" "v7": a3 b3 c3 d3)
                ]
                single [
                    id!("i" $suffix $size), "add {i}, {values}, {i}, lsl #4\n",
                    "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{i}]\n",
                    half_block!("w0" "w1"),
                    single_half!("v0" "w0" "w1": a0 b0 c0 d0), single_half!("v1" "w0" "w1": a1 b1 c1 d1),
                    single_half!("v2" "w0" "w1": a2 b2 c2 d2), single_half!("v3" "w0" "w1": a3 b3 c3 d3)
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 16 bytes of the four rows. Sums of products are all that is computed.
    unsafe { kinds!(code, WIDE) }
    [[[a0, b0, c0, d0], [a1, b1, c1, d1], [a2, b2, c2, d2], [a3, b3, c3, d3]]
        .map(|[a, b, c, d]| [vpaddq_s32(a, b), vpaddq_s32(c, d)])]
}

/// One row x 16 outputs.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_16x4<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 4]; 1]; 1] {
    let (a, b, c, d, e, f, g, h);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b c d e f g h] vectors [w0 w1 w2 w3 w4 w5 w6 w7 p q r s] fixed ["v0" "v1"]
                general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "add {i}, {values}, {i}, lsl #2\n", "add {j}, {values}, {j}, lsl #2\n",
                    "ld1r {{v0.4s}}, [{i}]\n", "ld1r {{v1.4s}}, [{j}]\n",
                    block!($kind "w0" "w1" "w4" "w5"), block!($kind "w2" "w3" "w6" "w7"),
                    pair_half!("v0" "v1": a b c d),
                    multiply!("smull" "v0": "p" "q" "w4" "r" "s" "w5"),
                    multiply!("smlal" "v1": "p" "q" "w6" "r" "s" "w7"),
                    widen!(e "p" f "q" g "r" h "s")
                ]
                single [
                    id!("i" $suffix $size), "add {i}, {values}, {i}, lsl #2\n", "ld1r {{v0.4s}}, [{i}]\n",
                    block!($kind "w0" "w1" "w4" "w5"),
                    single_half!("v0" "w0" "w1": a b c d), single_half!("v0" "w4" "w5": e f g h)
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 4 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    [[align::<INT4, 4>([vpaddq_s32(a, b), vpaddq_s32(c, d), vpaddq_s32(e, f), vpaddq_s32(g, h)])]]
}

/// A block of 4 x 16 times 16 inputs of a row.
macro_rules! row_4x16 {
    ($x:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            row_4x16!(@ "smull" $x ".8b": "p" "w0" "q" "w1" "r" "w2" "s" "w3"),
            row_4x16!(@ "smlal2" $x ".16b": "p" "w0" "q" "w1" "r" "w2" "s" "w3"),
            widen!($a "p" $b "q" $c "r" $d "s"),
        )
    };
    (@ $name:literal $x:literal $lanes:literal: $($product:literal $w:literal)+) => {
        concat!($($name, " {", $product, ":v}.8h, {", $w, ":v}", $lanes, ", ", $x, $lanes, "\n"),+)
    };
}

/// Four rows x 4 outputs, blocks of 4 x 16.
///
/// # Safety
/// The run's invariants; four rows as wide as the matrix stand side by side at `values`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn quad_4x16<const WIDE: bool>(
    run: Run,
    values: *const i8,
    _: usize,
) -> [[[int32x4_t; 1]; 4]; 1] {
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    macro_rules! quad {
        ($kind:ident $id:literal) => {
            concat!(
                "add {", $id, "}, {values}, {", $id, "}, lsl #6\n",
                "ld4 {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{", $id, "}]\n",
                block!($kind "w0" "w1" "w2" "w3"),
                row_4x16!("v0": a0 b0 c0 d0), row_4x16!("v1": a1 b1 c1 d1),
                row_4x16!("v2": a2 b2 c2 d2), row_4x16!("v3": a3 b3 c3 d3),
            )
        };
    }
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a0 b0 c0 d0 a1 b1 c1 d1 a2 b2 c2 d2 a3 b3 c3 d3]
                vectors [w0 w1 w2 w3 p q r s] fixed ["v0" "v1" "v2" "v3"] general [] pointers [values]
                pair [id!("i" $suffix $size), id!("j" $suffix $size), quad!($kind "i"), quad!($kind "j")]
                single [id!("i" $suffix $size), quad!($kind "i")])
        };
    }
    // SAFETY: the caller's: an id stands for 64 bytes of the four rows. Sums of products are all that is computed.
    unsafe { kinds!(code, WIDE) }
    [[[a0, b0, c0, d0], [a1, b1, c1, d1], [a2, b2, c2, d2], [a3, b3, c3, d3]].map(|sums| join(sums))]
}

/// Partial sums of four outputs, a register for each, joined.
#[inline]
#[target_feature(enable = "neon")]
fn join([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 1] {
    [vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))]
}

/// One row x 4 outputs, blocks of 4 x 16.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_4x16<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 1]; 1]; 1] {
    let (a, b, c, d);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b c d] vectors [w0 w1 w2 w3 p q r s] fixed ["v0" "v1"] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "ldr q0, [{values}, {i}, lsl #4]\n", "ldr q1, [{values}, {j}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), row_4x16!("v0": a b c d),
                    block!($kind "w0" "w1" "w2" "w3"), row_4x16!("v1": a b c d)
                ]
                single [
                    id!("i" $suffix $size), "ldr q0, [{values}, {i}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), row_4x16!("v0": a b c d)
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 16 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    [[join(align::<INT4, 4>([a, b, c, d]))]]
}

/// Two blocks of 4 x 4 times 4 inputs of four rows for each.
macro_rules! pair_4x4 {
    ($pointer:literal: $a0:ident $b0:ident $a1:ident $b1:ident $a2:ident $b2:ident $a3:ident $b3:ident) => {
        concat!(
            "add {k}, {", $pointer, "}, {i}, lsl #4\n", "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{k}]\n",
            "add {k}, {", $pointer, "}, {j}, lsl #4\n", "ld4r {{v4.4s, v5.4s, v6.4s, v7.4s}}, [{k}]\n",
            multiply!("smull" "v0": "p" "q" "w0"), multiply!("smull" "v1": "r" "s" "w0"),
            multiply!("smlal" "v4": "p" "q" "w1"), multiply!("smlal" "v5": "r" "s" "w1"),
            widen!($a0 "p" $b0 "q" $a1 "r" $b1 "s"),
            multiply!("smull" "v2": "p" "q" "w0"), multiply!("smull" "v3": "r" "s" "w0"),
            multiply!("smlal" "v6": "p" "q" "w1"), multiply!("smlal" "v7": "r" "s" "w1"),
            widen!($a2 "p" $b2 "q" $a3 "r" $b3 "s"),
        )
    };
}

/// One block of 4 x 4 times 4 inputs of four rows.
macro_rules! single_4x4 {
    ($pointer:literal: $a0:ident $b0:ident $a1:ident $b1:ident $a2:ident $b2:ident $a3:ident $b3:ident) => {
        concat!(
            "add {k}, {", $pointer, "}, {i}, lsl #4\n", "ld4r {{v0.4s, v1.4s, v2.4s, v3.4s}}, [{k}]\n",
            multiply!("smull" "v0": "p" "q" "w0"), multiply!("smull" "v1": "r" "s" "w0"),
            widen!($a0 "p" $b0 "q" $a1 "r" $b1 "s"),
            multiply!("smull" "v2": "p" "q" "w0"), multiply!("smull" "v3": "r" "s" "w0"),
            widen!($a2 "p" $b2 "q" $a3 "r" $b3 "s"),
        )
    };
}

/// A function for some number of fours of rows x 4 outputs, blocks of 4 x 4. Each: its pointer, two sums a row.
macro_rules! quads_4x4 {
    ($name:ident $quads:literal: $($index:literal $pointer:ident $text:literal $a0:ident $b0:ident $a1:ident $b1:ident
        $a2:ident $b2:ident $a3:ident $b3:ident)+) => {
        /// # Safety
        /// The run's invariants; as many times four rows as wide as the matrix stand side by side, from `values` on and
        /// `stride` bytes apart.
        #[inline]
        #[target_feature(enable = "neon")]
        pub(super) unsafe fn $name<const WIDE: bool>(
            run: Run,
            values: *const i8,
            stride: usize,
        ) -> [[[int32x4_t; 1]; 4]; $quads] {
            $(let ($a0, $b0, $a1, $b1, $a2, $b2, $a3, $b3);)+
            $(let $pointer = values.wrapping_add($index * stride);)+
            macro_rules! code {
                ($kind:ident $suffix:literal $size:literal) => {
                    run!(run; sums [$($a0 $b0 $a1 $b1 $a2 $b2 $a3 $b3)+] vectors [w0 w1 p q r s]
                        fixed ["v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"] general [k] pointers [$($pointer)+]
                        pair [
                            id!("i" $suffix $size), id!("j" $suffix $size), small_blocks!($kind "p": "w0" "w1"),
                            $(pair_4x4!($text: $a0 $b0 $a1 $b1 $a2 $b2 $a3 $b3)),+
                        ]
                        single [
                            id!("i" $suffix $size), small_blocks!($kind "p": "w0"),
                            $(single_4x4!($text: $a0 $b0 $a1 $b1 $a2 $b2 $a3 $b3)),+
                        ])
                };
            }
            // SAFETY: the caller's: an id stands for 16 bytes of four rows. Sums of products are all that is computed.
            unsafe { kinds!(code, WIDE) }
            [$([[$a0, $b0], [$a1, $b1], [$a2, $b2], [$a3, $b3]]),+]
                .map(|sums| sums.map(|[a, b]| [vpaddq_s32(a, b)]))
        }
    };
}

quads_4x4!(one_quad_4x4 1: 0 p0 "p0" a0 b0 a1 b1 a2 b2 a3 b3);
quads_4x4!(two_quads_4x4 2: 0 p0 "p0" a0 b0 a1 b1 a2 b2 a3 b3 1 p1 "p1" a4 b4 a5 b5 a6 b6 a7 b7);

/// One row x 4 outputs, blocks of 4 x 4.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_4x4<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 1]; 1]; 1] {
    let (a, b);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b] vectors [w0 w1 p q] fixed ["v0" "v1"] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "add {i}, {values}, {i}, lsl #2\n", "add {j}, {values}, {j}, lsl #2\n",
                    "ld1r {{v0.4s}}, [{i}]\n", "ld1r {{v1.4s}}, [{j}]\n",
                    small_blocks!($kind "p": "w0" "w1"),
                    multiply!("smull" "v0": "p" "q" "w0"), multiply!("smlal" "v1": "p" "q" "w1"),
                    widen!(a "p" b "q")
                ]
                single [
                    id!("i" $suffix $size), "add {i}, {values}, {i}, lsl #2\n", "ld1r {{v0.4s}}, [{i}]\n",
                    small_blocks!($kind "p": "w0"), multiply!("smull" "v0": "p" "q" "w0"), widen!(a "p" b "q")
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 4 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    [[[align_small::<INT4>(vpaddq_s32(a, b))]]]
}
