//! Sums of int16 weights times int8 values with `SDOT`: each weight as two int8 digits.
//!
//! Functions of their own, called where the processor has the instruction: an operation compiled twice for them would be larger than all
//! that they do.

use core::arch::aarch64::{
    int32x4_t, vaddlvq_s32, vcombine_s8, vdupq_n_s16, vdupq_n_s32, vld1q_s16, vminq_s16, vminvq_s16,
    vmovn_s16, vnegq_s16, vrshrn_n_s16, vst1q_s8,
};
use core::arch::asm;

use super::LANES;

/// Bytes of a block before its digits: the words.
const WORDS: usize = 2 * LANES;

/// Puts the digits of the negated words, which are the first half of each block, into its second half: `word = -(256 high + low)`, sixteen
/// high ones, then sixteen low ones. Returns whether no word was negative: of those the largest have no such digits.
#[inline(never)]
#[target_feature(enable = "neon")]
pub(super) fn split_words(blocks: &mut [[f32; LANES]]) -> bool {
    let mut least = vdupq_n_s16(0);
    for block in blocks {
        let block = block.as_mut_ptr();
        // SAFETY: a block has 64 bytes: 32 of words, which any bits are, and 32 that are written.
        unsafe {
            let words = [vld1q_s16(block.cast()), vld1q_s16(block.cast::<i16>().add(8))];
            least = vminq_s16(least, vminq_s16(words[0], words[1]));
            let [first, second] = words.map(|word| vnegq_s16(word));
            let digits = block.cast::<i8>().add(WORDS);
            vst1q_s8(digits, vcombine_s8(vrshrn_n_s16::<8>(first), vrshrn_n_s16::<8>(second)));
            vst1q_s8(digits.add(LANES), vcombine_s8(vmovn_s16(first), vmovn_s16(second)));
        }
    }
    vminvq_s16(least) == 0
}

/// Sums of words times values, of four rows that are `stride` apart.
///
/// # Safety
/// The blocks have digits of [`split_words`], and each row 16 values for each of them.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn weigh_split(blocks: &[[f32; LANES]], rows: *const i8, stride: usize) -> [i64; 4] {
    let mut sums = [[vdupq_n_s32(0); 2]; 4];
    if blocks.is_empty() {
        return [0; 4];
    }
    let [[a, e], [b, f], [c, g], [d, h]] = &mut sums;
    // SAFETY: the caller's: of each block the second half is read, and 16 bytes of each row. Sums of products are all that is
    // computed.
    unsafe {
        asm!(
            "2:",
            "ldp {high:q}, {low:q}, [{digits}], #64",
            "ldr {w:q}, [{p}], #16",
            "ldr {x:q}, [{q}], #16",
            "ldr {y:q}, [{r}], #16",
            "ldr {z:q}, [{s}], #16",
            "sdot {a:v}.4s, {w:v}.16b, {high:v}.16b", "sdot {e:v}.4s, {w:v}.16b, {low:v}.16b",
            "sdot {b:v}.4s, {x:v}.16b, {high:v}.16b", "sdot {f:v}.4s, {x:v}.16b, {low:v}.16b",
            "sdot {c:v}.4s, {y:v}.16b, {high:v}.16b", "sdot {g:v}.4s, {y:v}.16b, {low:v}.16b",
            "subs {blocks}, {blocks}, #1",
            "sdot {d:v}.4s, {z:v}.16b, {high:v}.16b", "sdot {h:v}.4s, {z:v}.16b, {low:v}.16b",
            "b.ne 2b",
            digits = inout(reg) blocks.as_ptr().cast::<i8>().add(WORDS) => _,
            p = inout(reg) rows => _,
            q = inout(reg) rows.wrapping_add(stride) => _,
            r = inout(reg) rows.wrapping_add(2 * stride) => _,
            s = inout(reg) rows.wrapping_add(3 * stride) => _,
            blocks = inout(reg) blocks.len() => _,
            high = out(vreg) _, low = out(vreg) _,
            w = out(vreg) _, x = out(vreg) _, y = out(vreg) _, z = out(vreg) _,
            a = inout(vreg) *a, b = inout(vreg) *b, c = inout(vreg) *c, d = inout(vreg) *d,
            e = inout(vreg) *e, f = inout(vreg) *f, g = inout(vreg) *g, h = inout(vreg) *h,
            options(nostack, readonly),
        );
    }
    sums.map(|[high, low]| total(high, low))
}

#[inline]
#[target_feature(enable = "neon")]
fn total(high: int32x4_t, low: int32x4_t) -> i64 {
    -(256 * vaddlvq_s32(high) + vaddlvq_s32(low))
}
