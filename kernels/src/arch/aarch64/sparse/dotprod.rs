//! Block-sparse runs with `SDOT`.

use core::arch::aarch64::{
    int32x4_t, vaddq_s32, vdupq_n_s32, vpaddq_s32, vreinterpretq_s32_s64, vreinterpretq_s64_s32, vtrn1q_s32,
    vtrn1q_s64, vtrn2q_s32, vtrn2q_s64,
};
use core::arch::asm;

use super::run::{Run, align, align_small, block, id, kinds, run, small_blocks};

/// Each sum += 16 values of a register times a quarter of `$x`.
macro_rules! sdot {
    ($x:literal $quarter:literal: $($sum:ident $w:literal)+) => {
        concat!($("sdot {", stringify!($sum), ":v}.4s, {", $w, ":v}.16b, {", $x, ":v}.4b[", $quarter, "]\n"),+)
    };
}

/// A block of 16 x 4 times 4 inputs of four rows, which share `$x`.
macro_rules! quad_16x4 {
    ($x:literal: $w0:literal $w1:literal $w2:literal $w3:literal) => {
        concat!(
            sdot!($x 0: a0 $w0 b0 $w1 c0 $w2 d0 $w3), sdot!($x 1: a1 $w0 b1 $w1 c1 $w2 d1 $w3),
            sdot!($x 2: a2 $w0 b2 $w1 c2 $w2 d2 $w3), sdot!($x 3: a3 $w0 b3 $w1 c3 $w2 d3 $w3),
        )
    };
}

/// Four rows x 16 outputs.
///
/// # Safety
/// The run's invariants; four rows as wide as the matrix stand side by side at `values`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn quad_16x4<const WIDE: bool>(
    run: Run,
    values: *const i8,
    _: usize,
) -> [[[int32x4_t; 4]; 4]; 1] {
    let (a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, a3, b3, c3, d3);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a0 b0 c0 d0 a1 b1 c1 d1 a2 b2 c2 d2 a3 b3 c3 d3]
                vectors [x y w0 w1 w2 w3 w4 w5 w6 w7] fixed [] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "ldr {x:q}, [{values}, {i}, lsl #4]\n", "ldr {y:q}, [{values}, {j}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), block!($kind "w4" "w5" "w6" "w7"),
                    quad_16x4!("x": "w0" "w1" "w2" "w3"), quad_16x4!("y": "w4" "w5" "w6" "w7")
                ]
                single [
                    id!("i" $suffix $size), "ldr {x:q}, [{values}, {i}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), quad_16x4!("x": "w0" "w1" "w2" "w3")
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 16 bytes of the four rows. Sums of products are all that is computed.
    unsafe { kinds!(code, WIDE) }
    [[[a0, b0, c0, d0], [a1, b1, c1, d1], [a2, b2, c2, d2], [a3, b3, c3, d3]]]
}

/// One row x 16 outputs.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn row_16x4<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 4]; 1]; 1] {
    let (a, b, c, d);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b c d] vectors [x y w0 w1 w2 w3 w4 w5 w6 w7] fixed [] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "ldr {x:s}, [{values}, {i}, lsl #2]\n", "ldr {y:s}, [{values}, {j}, lsl #2]\n",
                    block!($kind "w0" "w1" "w2" "w3"), block!($kind "w4" "w5" "w6" "w7"),
                    sdot!("x" 0: a "w0" b "w1" c "w2" d "w3"), sdot!("y" 0: a "w4" b "w5" c "w6" d "w7")
                ]
                single [
                    id!("i" $suffix $size), "ldr {x:s}, [{values}, {i}, lsl #2]\n",
                    block!($kind "w0" "w1" "w2" "w3"), sdot!("x" 0: a "w0" b "w1" c "w2" d "w3")
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 4 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    [[align::<INT4, 4>([a, b, c, d])]]
}

/// 16 inputs of four rows at `$pointer` times a block of 4 x 16. A register of inputs holds 4 of each row: times those of an
/// output's weights it gives that output's sums of four rows, and nothing is left to add up.
macro_rules! quad_4x16 {
    ($pointer:literal $id:literal: $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            "add {k}, {", $pointer, "}, {", $id, "}, lsl #6\n",
            "ldp {x0:q}, {x1:q}, [{k}]\n",
            "ldp {x2:q}, {x3:q}, [{k}, #32]\n",
            sdot!("w0" 0: $a "x0"), sdot!("w1" 0: $b "x0"), sdot!("w2" 0: $c "x0"), sdot!("w3" 0: $d "x0"),
            sdot!("w0" 1: $a "x1"), sdot!("w1" 1: $b "x1"), sdot!("w2" 1: $c "x1"), sdot!("w3" 1: $d "x1"),
            sdot!("w0" 2: $a "x2"), sdot!("w1" 2: $b "x2"), sdot!("w2" 2: $c "x2"), sdot!("w3" 2: $d "x2"),
            sdot!("w0" 3: $a "x3"), sdot!("w1" 3: $b "x3"), sdot!("w2" 3: $c "x3"), sdot!("w3" 3: $d "x3"),
        )
    };
}

/// A function for some number of fours of rows x 4 outputs, blocks of 4 x 16. Each: its pointer, its four sums.
macro_rules! quads_4x16 {
    ($name:ident $quads:literal: $($index:literal $pointer:ident $text:literal $a:ident $b:ident $c:ident $d:ident)+) => {
        /// # Safety
        /// The run's invariants; as many times four rows as wide as the matrix stand side by side, from `values` on and
        /// `stride` bytes apart.
        #[inline]
        #[target_feature(enable = "neon,dotprod")]
        pub(super) unsafe fn $name<const WIDE: bool>(
            run: Run,
            values: *const i8,
            stride: usize,
        ) -> [[[int32x4_t; 1]; 4]; $quads] {
            $(let ($a, $b, $c, $d);)+
            $(let $pointer = values.wrapping_add($index * stride);)+
            macro_rules! code {
                ($kind:ident $suffix:literal $size:literal) => {
                    run!(run; sums [$($a $b $c $d)+] vectors [x0 x1 x2 x3 w0 w1 w2 w3] fixed [] general [k]
                        pointers [$($pointer)+]
                        pair [
                            id!("i" $suffix $size), id!("j" $suffix $size),
                            block!($kind "w0" "w1" "w2" "w3"), $(quad_4x16!($text "i": $a $b $c $d),)+
                            block!($kind "w0" "w1" "w2" "w3"), $(quad_4x16!($text "j": $a $b $c $d)),+
                        ]
                        single [
                            id!("i" $suffix $size),
                            block!($kind "w0" "w1" "w2" "w3"), $(quad_4x16!($text "i": $a $b $c $d)),+
                        ])
                };
            }
            // SAFETY: the caller's: an id stands for 64 bytes of four rows. Sums of products are all that is computed.
            unsafe { kinds!(code, WIDE) }
            [$([$a, $b, $c, $d]),+].map(|sums| transpose(sums).map(|sums| [sums]))
        }
    };
}

quads_4x16!(one_quad_4x16 1: 0 p0 "p0" a0 b0 c0 d0);
quads_4x16!(two_quads_4x16 2: 0 p0 "p0" a0 b0 c0 d0 1 p1 "p1" a1 b1 c1 d1);

/// Sums of four outputs, a register for each with a lane a row, as a register a row.
#[inline]
#[target_feature(enable = "neon")]
fn transpose([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let (ab_even, ab_odd) = (vtrn1q_s32(a, b), vtrn2q_s32(a, b));
    let (cd_even, cd_odd) = (vtrn1q_s32(c, d), vtrn2q_s32(c, d));
    let wide = |vector| vreinterpretq_s64_s32(vector);
    let lower = |x, y| vreinterpretq_s32_s64(vtrn1q_s64(wide(x), wide(y)));
    let upper = |x, y| vreinterpretq_s32_s64(vtrn2q_s64(wide(x), wide(y)));
    [lower(ab_even, cd_even), lower(ab_odd, cd_odd), upper(ab_even, cd_even), upper(ab_odd, cd_odd)]
}

/// One row x 4 outputs, blocks of 4 x 16.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn row_4x16<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 1]; 1]; 1] {
    let (a, b, c, d);
    macro_rules! products {
        ($x:literal $w0:literal $w1:literal $w2:literal $w3:literal) => {
            concat!(
                "sdot {a:v}.4s, {",
                $w0,
                ":v}.16b, {",
                $x,
                ":v}.16b\n",
                "sdot {b:v}.4s, {",
                $w1,
                ":v}.16b, {",
                $x,
                ":v}.16b\n",
                "sdot {c:v}.4s, {",
                $w2,
                ":v}.16b, {",
                $x,
                ":v}.16b\n",
                "sdot {d:v}.4s, {",
                $w3,
                ":v}.16b, {",
                $x,
                ":v}.16b\n",
            )
        };
    }
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b c d] vectors [x y w0 w1 w2 w3 w4 w5 w6 w7] fixed [] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    "ldr {x:q}, [{values}, {i}, lsl #4]\n", "ldr {y:q}, [{values}, {j}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), block!($kind "w4" "w5" "w6" "w7"),
                    products!("x" "w0" "w1" "w2" "w3"), products!("y" "w4" "w5" "w6" "w7")
                ]
                single [
                    id!("i" $suffix $size), "ldr {x:q}, [{values}, {i}, lsl #4]\n",
                    block!($kind "w0" "w1" "w2" "w3"), products!("x" "w0" "w1" "w2" "w3")
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 16 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    let [a, b, c, d] = align::<INT4, 4>([a, b, c, d]);
    [[[vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))]]]
}

/// A block of 4 x 4 times 4 inputs of four rows.
macro_rules! quad_4x4 {
    ($w:literal $id:literal: $pointer:literal $x:literal $a:ident $b:ident $c:ident $d:ident) => {
        concat!(
            "ldr {", $x, ":q}, [{", $pointer, "}, {", $id, "}, lsl #4]\n",
            sdot!($x 0: $a $w), sdot!($x 1: $b $w), sdot!($x 2: $c $w), sdot!($x 3: $d $w),
        )
    };
}

/// A function for some number of fours of rows x 4 outputs, blocks of 4 x 4. Each: its pointer, a register, its four sums.
macro_rules! quads_4x4 {
    ($name:ident $quads:literal: $($index:literal $pointer:ident $text:literal $x:ident $x_text:literal
        $a:ident $b:ident $c:ident $d:ident)+) => {
        /// # Safety
        /// The run's invariants; as many times four rows as wide as the matrix stand side by side, from `values` on and
        /// `stride` bytes apart.
        #[inline]
        #[target_feature(enable = "neon,dotprod")]
        pub(super) unsafe fn $name<const WIDE: bool>(
            run: Run,
            values: *const i8,
            stride: usize,
        ) -> [[[int32x4_t; 1]; 4]; $quads] {
            $(let ($a, $b, $c, $d);)+
            $(let $pointer = values.wrapping_add($index * stride);)+
            macro_rules! code {
                ($kind:ident $suffix:literal $size:literal) => {
                    run!(run; sums [$($a $b $c $d)+] vectors [$($x)+ w0 w1] fixed [] general []
                        pointers [$($pointer)+]
                        pair [
                            id!("i" $suffix $size), id!("j" $suffix $size), small_blocks!($kind "x0": "w0" "w1"),
                            $(quad_4x4!("w0" "i": $text $x_text $a $b $c $d),)+
                            $(quad_4x4!("w1" "j": $text $x_text $a $b $c $d)),+
                        ]
                        single [
                            id!("i" $suffix $size), small_blocks!($kind "x0": "w0"),
                            $(quad_4x4!("w0" "i": $text $x_text $a $b $c $d)),+
                        ])
                };
            }
            // SAFETY: the caller's: an id stands for 16 bytes of four rows. Sums of products are all that is computed.
            unsafe { kinds!(code, WIDE) }
            [$([$a, $b, $c, $d]),+].map(|sums| sums.map(|sums| [sums]))
        }
    };
}

quads_4x4!(one_quad_4x4 1: 0 p0 "p0" x0 "x0" a0 b0 c0 d0);
quads_4x4!(four_quads_4x4 4: 0 p0 "p0" x0 "x0" a0 b0 c0 d0 1 p1 "p1" x1 "x1" a1 b1 c1 d1
    2 p2 "p2" x2 "x2" a2 b2 c2 d2 3 p3 "p3" x3 "x3" a3 b3 c3 d3);

/// One row x 4 outputs, blocks of 4 x 4.
///
/// # Safety
/// The run's invariants; a row in plain order, as wide as the matrix, stands at `values`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn row_4x4<const INT4: bool, const WIDE: bool>(
    run: Run,
    values: *const i8,
) -> [[[int32x4_t; 1]; 1]; 1] {
    let (a, b);
    macro_rules! code {
        ($kind:ident $suffix:literal $size:literal) => {
            run!(run; sums [a b] vectors [x y w0 w1] fixed [] general [] pointers [values]
                pair [
                    id!("i" $suffix $size), id!("j" $suffix $size),
                    small_blocks!($kind "x": "w0" "w1"),
                    "ldr {x:s}, [{values}, {i}, lsl #2]\n", "ldr {y:s}, [{values}, {j}, lsl #2]\n",
                    sdot!("x" 0: a "w0"), sdot!("y" 0: b "w1")
                ]
                single [
                    id!("i" $suffix $size), small_blocks!($kind "x": "w0"),
                    "ldr {x:s}, [{values}, {i}, lsl #2]\n", sdot!("x" 0: a "w0")
                ])
        };
    }
    // SAFETY: the caller's: an id stands for 4 bytes of the row. Sums of products are all that is computed.
    unsafe { kinds!(code, INT4, WIDE) }
    [[[align_small::<INT4>(vaddq_s32(a, b))]]]
}
