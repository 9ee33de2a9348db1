//! Int4 matrix product with `VPDPBUSD`.
//!
//! Each half of a byte becomes a register of weights 16 times as large: the low one shifted, the high one where it
//! stands. Rows are stored plus 128; 128 times the sum of an output's weights is taken off again.

use core::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_cvtph_ps,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_slli_epi16, _mm512_srai_epi32, _mm512_sub_epi32,
};

use kinglet_model_format::Int4Matrix;

use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Up to 8 rows x 32 outputs at a time; one row x 64.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul_i4_block16x4_avx512vnni<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    let rows = matmul.rows.rows();
    let mut panels = matmul.panels();
    while let Some(first) = panels.next() {
        // SAFETY: all panels have the same rows.
        unsafe {
            match (panels.next(), rows) {
                (None, _) => all_rows(&[first]),
                (Some(second), 2..) => all_rows(&[first, second]),
                (Some(second), _) => match (panels.next(), panels.next()) {
                    (Some(third), Some(fourth)) => tile::<1, 4>(&[first, second, third, fourth], 0),
                    (Some(third), None) => tile::<1, 3>(&[first, second, third], 0),
                    _ => tile::<1, 2>(&[first, second], 0),
                },
            }
        }
    }
}

/// # Safety
/// The panels must belong to one product.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn all_rows<const PANELS: usize>(panels: &[Int4Panel<'_>; PANELS]) {
    let rows = panels[0].rows;
    let mut row = 0;
    // SAFETY: each tile ends at or before the last row.
    unsafe {
        while rows - row >= 8 {
            tile::<8, PANELS>(panels, row);
            row += 8;
        }
        match rows - row {
            7 => tile::<7, PANELS>(panels, row),
            6 => tile::<6, PANELS>(panels, row),
            5 => tile::<5, PANELS>(panels, row),
            4 => tile::<4, PANELS>(panels, row),
            3 => tile::<3, PANELS>(panels, row),
            2 => tile::<2, PANELS>(panels, row),
            1 => tile::<1, PANELS>(panels, row),
            _ => {}
        }
    }
}

/// `ROWS` rows x `16 * PANELS` outputs.
///
/// # Safety
/// The rows from `row` on must exist, and the panels belong to one product.
#[inline]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(panels: &[Int4Panel<'_>; PANELS], row: usize) {
    let mut totals = [[_mm512_setzero_ps(); PANELS]; ROWS];
    for group in panels[0].groups() {
        // SAFETY: the rows exist; each group has 16 scales.
        unsafe {
            let (sums, offsets) = group_sums::<ROWS, PANELS>(panels, row, &group);
            for (index, (panel, offset)) in panels.iter().zip(offsets).enumerate() {
                let scale = panel.scales.add(16 * group.index);
                let scale = _mm512_cvtph_ps(_mm256_loadu_si256(scale.cast()));
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    let sum = _mm512_srai_epi32::<4>(_mm512_sub_epi32(sums[index], offset));
                    totals[index] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, totals[index]);
                }
            }
        }
    }
    for (index, totals) in totals.into_iter().enumerate() {
        for (panel, total) in panels.iter().zip(totals) {
            // SAFETY: the row exists.
            unsafe { finish(panel, row + index, total) }
        }
    }
}

/// 16 times the sums of one group, with the rows' offset in them, and that offset.
///
/// # Safety
/// The rows from `row` on must exist, and the group be one of the panels'.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn group_sums<const ROWS: usize, const PANELS: usize>(
    panels: &[Int4Panel<'_>; PANELS],
    row: usize,
    group: &Group,
) -> ([[__m512i; PANELS]; ROWS], [__m512i; PANELS]) {
    let inputs = panels[0].inputs;
    let (offset, high_half) = (_mm512_set1_epi8(-128), _mm512_set1_epi8(0xf0_u8 as i8));
    let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
    let mut offsets = [_mm512_setzero_si512(); PANELS];
    // SAFETY: each row has `inputs` bytes and each panel `8 * inputs`, of which the group's are read.
    unsafe {
        let values = panels[0].values.add(row * inputs);
        for pair in group.first / 8..group.last / 8 {
            let (mut low, mut high) = ([offset; PANELS], [offset; PANELS]);
            for (index, panel) in panels.iter().enumerate() {
                let packed = _mm512_loadu_si512(panel.weights.add(pair * 64).cast());
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

/// Scales the totals of `row`, adds the bias and stores as many outputs as exist.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn finish(panel: &Int4Panel<'_>, row: usize, totals: __m512) {
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place.
    unsafe {
        let row_scale = _mm512_set1_ps(*panel.row_scales.add(row));
        let result = _mm512_fmadd_ps(totals, row_scale, _mm512_loadu_ps(panel.bias.as_ptr()));
        let exists = u16::MAX >> (16 - panel.width);
        _mm512_mask_storeu_ps(panel.out.add(row * panel.out_stride), exists, result);
    }
}
