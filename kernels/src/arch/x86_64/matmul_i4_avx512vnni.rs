//! Int4 matrix product with `VPDPBUSD`.
//!
//! Few rows: each half of a byte becomes a register of weights 16 times as large, the low one shifted, the high one where it
//! stands. Rows are stored plus 128; 128 times the sum of an output's weights is taken off again. More rows: a panel is
//! unpacked to int8 for all.

use core::arch::x86_64::{
    __m512i, _mm_and_si128, _mm_loadl_epi64, _mm_set1_epi8, _mm_srli_epi16, _mm_unpacklo_epi64,
    _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepu8_epi32, _mm512_dpbusd_epi32, _mm512_loadu_si512,
    _mm512_maddubs_epi16, _mm512_mask_mov_epi8, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_srai_epi32,
    _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_sub_epi32, _mm512_xor_si512,
};

use kinglet_model_format::Int4Matrix;

use super::matmul_i8_avx512vnni::{all_rows, finish};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::arch::panel::Panel;
use crate::matmul::{LEAST_UNPACKED, Matmul};

/// One row x 64 outputs or 2 or 3 x 32 at a time, or the int8 kernel; `room` has 16 times the inputs there.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul_i4_block16x4_avx512vnni<'a>(matmul: Matmul<'a, Int4Matrix<'a>>, room: &mut [i8]) {
    let rows = matmul.rows.rows();
    let mut panels = matmul.panels();
    if rows >= LEAST_UNPACKED {
        for panel in panels {
            // SAFETY: the room is large enough.
            unsafe { all_rows(&[unpack(panel, room.as_mut_ptr())]) }
        }
        return;
    }
    while let Some(first) = panels.next() {
        // SAFETY: all panels have these rows.
        unsafe {
            match (panels.next(), rows) {
                (None, 1) => tile::<1, 1>(&[first]),
                (None, 2) => tile::<2, 1>(&[first]),
                (None, _) => tile::<3, 1>(&[first]),
                (Some(second), 2) => tile::<2, 2>(&[first, second]),
                (Some(second), 3) => tile::<3, 2>(&[first, second]),
                (Some(second), _) => match (panels.next(), panels.next()) {
                    (Some(third), Some(fourth)) => tile::<1, 4>(&[first, second, third, fourth]),
                    (Some(third), None) => tile::<1, 3>(&[first, second, third]),
                    _ => tile::<1, 2>(&[first, second]),
                },
            }
        }
    }
}

/// The multipliers of a group of inputs.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multipliers(place: *const u8) -> __m512i {
    // SAFETY: the caller's.
    let packed = unsafe { _mm_loadl_epi64(place.cast()) };
    let halves = _mm_unpacklo_epi64(packed, _mm_srli_epi16::<4>(packed));
    _mm512_cvtepu8_epi32(_mm_and_si128(halves, _mm_set1_epi8(0xf)))
}

/// All rows, `ROWS` of them, x `16 * PANELS` outputs.
///
/// # Safety
/// The panels must belong to one product and have as many rows.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(panels: &[Int4Panel<'_>; PANELS]) {
    let mut totals = [[_mm512_setzero_si512(); PANELS]; ROWS];
    for group in panels[0].groups() {
        // SAFETY: the rows exist; each group has its multipliers.
        unsafe {
            let (sums, offsets) = group_sums::<ROWS, PANELS>(panels, &group);
            for (index, (panel, offset)) in panels.iter().zip(offsets).enumerate() {
                let multipliers = multipliers(panel.multipliers.add(8 * group.index));
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    let sum = _mm512_srai_epi32::<4>(_mm512_sub_epi32(sums[index], offset));
                    totals[index] = _mm512_add_epi32(totals[index], _mm512_mullo_epi32(sum, multipliers));
                }
            }
        }
    }
    for (row, totals) in totals.into_iter().enumerate() {
        for (panel, total) in panels.iter().zip(totals) {
            // SAFETY: the row exists.
            unsafe { finish(&panel.panel, row, total, _mm512_setzero_si512()) }
        }
    }
}

/// 16 times the sums of one group, with the rows' offset in them, and that offset.
///
/// # Safety
/// The panels must belong to one product and have `ROWS` rows, and the group be one of theirs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_sums<const ROWS: usize, const PANELS: usize>(
    panels: &[Int4Panel<'_>; PANELS],
    group: &Group,
) -> ([[__m512i; PANELS]; ROWS], [__m512i; PANELS]) {
    let (values, inputs) = (panels[0].panel.values, panels[0].panel.inputs);
    let (offset, high_half) = (_mm512_set1_epi8(-128), _mm512_set1_epi8(0xf0_u8 as i8));
    let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
    let mut offsets = [_mm512_setzero_si512(); PANELS];
    // SAFETY: each row has `inputs` bytes and each panel `8 * inputs`, of which the group's are read.
    unsafe {
        for pair in group.first / 8..group.last / 8 {
            let (mut low, mut high) = ([offset; PANELS], [offset; PANELS]);
            for (index, panel) in panels.iter().enumerate() {
                let packed = _mm512_loadu_si512(panel.packed.add(pair * 64).cast());
                low[index] = _mm512_and_si512(_mm512_slli_epi16::<4>(packed), high_half);
                high[index] = _mm512_and_si512(packed, high_half);
                offsets[index] = _mm512_dpbusd_epi32(offsets[index], offset, low[index]);
                offsets[index] = _mm512_dpbusd_epi32(offsets[index], offset, high[index]);
            }
            for (index, sums) in sums.iter_mut().enumerate() {
                let value = values.add(index * inputs + pair * 8).cast::<i32>();
                let first = _mm512_set1_epi32(value.read_unaligned());
                let second = _mm512_set1_epi32(value.add(1).read_unaligned());
                for ((sum, low), high) in sums.iter_mut().zip(low).zip(high) {
                    *sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(*sum, first, low), second, high);
                }
            }
        }
    }
    (sums, offsets)
}

/// The panel as int8, its weights in `room`.
///
/// # Safety
/// `16 * inputs` bytes may be written at `room`, which stays as it is as long as the result is used.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn unpack<'a>(panel: Int4Panel<'a>, room: *mut i8) -> Panel<'a> {
    for group in panel.groups() {
        // SAFETY: the group has its multipliers; of the panel's `8 * inputs` bytes those of the group are read, and twice as
        // many are written.
        unsafe {
            let multipliers = multipliers(panel.multipliers.add(8 * group.index));
            let even = _mm512_or_si512(multipliers, _mm512_slli_epi32::<16>(multipliers));
            for pair in group.first / 8..group.last / 8 {
                let packed = _mm512_loadu_si512(panel.packed.add(pair * 64).cast());
                let target = room.add(pair * 128);
                _mm512_storeu_si512(target.cast(), times(packed, even));
                _mm512_storeu_si512(target.add(64).cast(), times(_mm512_srli_epi16::<4>(packed), even));
            }
        }
    }
    Panel { weights: room, ..panel.panel }
}

/// The low halves of bytes, with their sign, times the even bytes of `even`, each of which serves two neighbours.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn times(halves: __m512i, even: __m512i) -> __m512i {
    let eight = _mm512_set1_epi8(8);
    let flipped = _mm512_xor_si512(_mm512_and_si512(halves, _mm512_set1_epi8(0xf)), eight);
    let values = _mm512_sub_epi8(flipped, eight);
    let (first, second) =
        (_mm512_maddubs_epi16(even, values), _mm512_maddubs_epi16(_mm512_slli_epi16::<8>(even), values));
    _mm512_mask_mov_epi8(first, 0xaaaa_aaaa_aaaa_aaaa, _mm512_slli_epi16::<8>(second))
}
