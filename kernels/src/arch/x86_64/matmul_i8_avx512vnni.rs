//! Int8 matrix product with `VPDPBUSD`: one block of weights is one register.
//!
//! The instruction takes one operand without sign: rows are stored plus 128 at quantization, and 128 times
//! the sum of an output's weights is taken off again.

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_sub_epi32,
};

use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// 12 rows x 32 outputs at a time; one or few rows take tiles that add several blocks in parallel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul_i8_block16x4_avx512vnni(matmul: Matmul<'_>) {
    let rows = matmul.rows.rows();
    let mut panels = matmul.panels();
    if rows == 1 {
        for panel in panels {
            // SAFETY: there is one row.
            unsafe { single_row(&panel) }
        }
        return;
    }
    while let Some(first) = panels.next() {
        // SAFETY: all panels have the same rows.
        unsafe {
            match panels.next() {
                Some(second) => all_rows(&[first, second]),
                None => all_rows(&[first]),
            }
        }
    }
}

/// # Safety
/// The panels must belong to one product.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn all_rows<const PANELS: usize>(panels: &[Panel<'_>; PANELS]) {
    let rows = panels[0].rows;
    // SAFETY: each tile ends at or before the last row.
    unsafe {
        let mut offsets = [_mm512_setzero_si512(); PANELS];
        for (offset, panel) in offsets.iter_mut().zip(panels) {
            *offset = column_offset(panel);
        }
        let mut row = 0;
        while rows - row >= 12 {
            tile::<12, PANELS>(panels, &offsets, row);
            row += 12;
        }
        match rows - row {
            11 => tile::<11, PANELS>(panels, &offsets, row),
            10 => tile::<10, PANELS>(panels, &offsets, row),
            9 => tile::<9, PANELS>(panels, &offsets, row),
            8 => tile::<8, PANELS>(panels, &offsets, row),
            7 => tile::<7, PANELS>(panels, &offsets, row),
            6 => tile::<6, PANELS>(panels, &offsets, row),
            5 => tile::<5, PANELS>(panels, &offsets, row),
            4 => tile::<4, PANELS>(panels, &offsets, row),
            3 => tile::<3, PANELS>(panels, &offsets, row),
            2 => tile::<2, PANELS>(panels, &offsets, row),
            1 => tile::<1, PANELS>(panels, &offsets, row),
            _ => {}
        }
    }
}

/// 128 times the sum of the weights of each output.
///
/// # Safety
/// None beyond the panel's invariants.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn column_offset(panel: &Panel<'_>) -> __m512i {
    let offset = _mm512_set1_epi8(-128);
    let mut sums = [_mm512_setzero_si512(); 4];
    for block in (0..panel.inputs / 4).step_by(4) {
        for (index, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the panel has `inputs / 4` blocks, a multiple of 4.
            let weights = unsafe { _mm512_loadu_si512(panel.weights.add((block + index) * 64).cast()) };
            *sum = _mm512_dpbusd_epi32(*sum, offset, weights);
        }
    }
    add(sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add([a, b, c, d]: [__m512i; 4]) -> __m512i {
    _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d))
}

/// `ROWS` rows x `16 * PANELS` outputs.
///
/// # Safety
/// The rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const ROWS: usize, const PANELS: usize>(
    panels: &[Panel<'_>; PANELS],
    offsets: &[__m512i; PANELS],
    row: usize,
) {
    let inputs = panels[0].inputs;
    let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
    // SAFETY: each row has `inputs` bytes and each panel `16 * inputs`; the rows given to `finish` exist.
    unsafe {
        let values = panels[0].values.add(row * inputs);
        for block in 0..inputs / 4 {
            let mut weights = [_mm512_setzero_si512(); PANELS];
            for (weights, panel) in weights.iter_mut().zip(panels) {
                *weights = _mm512_loadu_si512(panel.weights.add(block * 64).cast());
            }
            for (index, sums) in sums.iter_mut().enumerate() {
                let value = values.add(index * inputs + block * 4).cast::<i32>().read_unaligned();
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, _mm512_set1_epi32(value), weights);
                }
            }
        }
        for (index, sums) in sums.into_iter().enumerate() {
            for ((panel, sum), &offset) in panels.iter().zip(sums).zip(offsets) {
                finish(panel, row + index, sum, offset);
            }
        }
    }
}

/// One row: 4 blocks at a time, so that no sum waits for itself, and the offsets beside them.
///
/// # Safety
/// None beyond the panel's invariants.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn single_row(panel: &Panel<'_>) {
    let offset = _mm512_set1_epi8(-128);
    let mut sums = [_mm512_setzero_si512(); 4];
    let mut offsets = [_mm512_setzero_si512(); 4];
    // SAFETY: the row has `inputs`, a multiple of 16, bytes and the panel `16 * inputs`; row 0 exists.
    unsafe {
        for block in (0..panel.inputs / 4).step_by(4) {
            for index in 0..4 {
                let weights = _mm512_loadu_si512(panel.weights.add((block + index) * 64).cast());
                let value = panel.values.add((block + index) * 4).cast::<i32>().read_unaligned();
                sums[index] = _mm512_dpbusd_epi32(sums[index], _mm512_set1_epi32(value), weights);
                offsets[index] = _mm512_dpbusd_epi32(offsets[index], offset, weights);
            }
        }
        finish(panel, 0, add(sums), add(offsets));
    }
}

/// Scales the sums of `row`, adds the bias and stores as many outputs as exist.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn finish(panel: &Panel<'_>, row: usize, sums: __m512i, offset: __m512i) {
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place.
    unsafe {
        let row_scale = _mm512_set1_ps(*panel.row_scales.add(row));
        let scale = _mm512_mul_ps(row_scale, _mm512_loadu_ps(panel.scales.as_ptr()));
        let sums = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, offset));
        let result = _mm512_fmadd_ps(sums, scale, _mm512_loadu_ps(panel.bias.as_ptr()));
        let exists = u16::MAX >> (16 - panel.width);
        _mm512_mask_storeu_ps(panel.out.add(row * panel.out_stride), exists, result);
    }
}
