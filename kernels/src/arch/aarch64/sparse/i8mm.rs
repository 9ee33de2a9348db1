//! Block-sparse runs with `SMMLA`: 2 rows x 8 inputs times 2 outputs x 8 inputs.
//!
//! Two blocks of 16 x 4, whichever columns they stand in, zipped as 32-bit lanes, are operands of 2 outputs x 8 inputs, and the
//! 4 inputs of four rows for each, zipped, operands of 2 rows x 8 inputs.

use core::arch::aarch64::{int32x4_t, vdupq_n_s32};
use core::arch::asm;

use super::run::{Run, half_block, id, kinds, run};
use crate::arch::aarch64::finish::split;

/// Four outputs of one block and of another as twice 2 outputs x 8 inputs.
macro_rules! zip {
    ($first:literal $second:literal: $a:literal $b:literal) => {
        concat!(
            "zip1 {",
            $a,
            ":v}.4s, {",
            $first,
            ":v}.4s, {",
            $second,
            ":v}.4s\n",
            "zip2 {",
            $b,
            ":v}.4s, {",
            $first,
            ":v}.4s, {",
            $second,
            ":v}.4s\n",
        )
    };
}

/// Four rows, of which `x` has the inputs of one block and `$y` those of another, times 8 outputs x 8 inputs.
macro_rules! multiply {
    ($y:literal: $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        concat!(
            zip!("x" $y: "z" "y"),
            multiply!(@ "z": $a "w0" $b "w1" $c "w2" $d "w3"),
            multiply!(@ "y": $e "w0" $f "w1" $g "w2" $h "w3"),
        )
    };
    (@ $x:literal: $($sum:ident $weights:literal)+) => {
        concat!($("smmla {", stringify!($sum), ":v}.4s, {", $x, ":v}.16b, {", $weights, ":v}.16b\n"),+)
    };
}

/// A function for some number of fours of rows x 8 outputs, blocks of 16 x 4. Each: its pointer, its eight sums.
macro_rules! quads {
    ($name:ident $quads:literal: $($index:literal $pointer:ident $text:literal
        $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident)+) => {
        /// # Safety
        /// The run's invariants, for 8 outputs of each block; as many times four rows as wide as the matrix stand side by
        /// side, from `values` on and `stride` bytes apart.
        #[inline]
        #[target_feature(enable = "neon,i8mm")]
        pub(super) unsafe fn $name<const WIDE: bool>(
            run: Run,
            values: *const i8,
            stride: usize,
        ) -> [[[int32x4_t; 2]; 4]; $quads] {
            $(let ($a, $b, $c, $d, $e, $f, $g, $h);)+
            $(let $pointer = values.wrapping_add($index * stride);)+
            macro_rules! code {
                ($kind:ident $suffix:literal $size:literal) => {
                    run!(run; sums [$($a $b $c $d $e $f $g $h)+] vectors [w0 w1 w2 w3 x y z v] fixed [] general []
                        pointers [$($pointer)+]
                        pair [
                            id!("i" $suffix $size), id!("j" $suffix $size),
                            half_block!("x" "y"), half_block!("z" "v"),
                            zip!("x" "z": "w0" "w1"), zip!("y" "v": "w2" "w3"),
                            $(
                                concat!("ldr {x:q}, [{", $text, "}, {i}, lsl #4]\n"),
                                concat!("ldr {y:q}, [{", $text, "}, {j}, lsl #4]\n"),
                                multiply!("y": $a $b $c $d $e $f $g $h)
                            ),+
                        ]
                        // Zeros for a second block, and any inputs.
                        single [
                            id!("i" $suffix $size), half_block!("x" "y"), "movi {z:v}.16b, #0\n",
                            zip!("x" "z": "w0" "w1"), zip!("y" "z": "w2" "w3"),
                            $(
                                concat!("ldr {x:q}, [{", $text, "}, {i}, lsl #4]\n"),
                                multiply!("x": $a $b $c $d $e $f $g $h)
                            ),+
                        ])
                };
            }
            // SAFETY: the caller's: an id stands for 16 bytes of four rows. Sums of products are all that is computed.
            unsafe { kinds!(code, WIDE) }
            [$([$a, $b, $c, $d, $e, $f, $g, $h]),+].map(|sums| rows(sums))
        }
    };
}

quads!(one_quad_16x4_half 1: 0 p0 "p0" a0 b0 c0 d0 e0 f0 g0 h0);
quads!(two_quads_16x4_half 2: 0 p0 "p0" a0 b0 c0 d0 e0 f0 g0 h0 1 p1 "p1" a1 b1 c1 d1 e1 f1 g1 h1);
quads!(three_quads_16x4_half 3: 0 p0 "p0" a0 b0 c0 d0 e0 f0 g0 h0 1 p1 "p1" a1 b1 c1 d1 e1 f1 g1 h1
    2 p2 "p2" a2 b2 c2 d2 e2 f2 g2 h2);

/// Sums of 2 rows x 2 outputs as 8 outputs of each of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn rows([a, b, c, d, e, f, g, h]: [int32x4_t; 8]) -> [[int32x4_t; 2]; 4] {
    let ([r0, r1], [s0, s1]) = (split(a, b), split(c, d));
    let ([r2, r3], [s2, s3]) = (split(e, f), split(g, h));
    [[r0, s0], [r1, s1], [r2, s2], [r3, s3]]
}
