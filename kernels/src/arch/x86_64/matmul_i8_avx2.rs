//! Int8 matrix product with `VPMADDUBSW`.
//!
//! The instruction takes one operand without sign and saturates sums of two products at int16. With the
//! magnitude of the weight as that operand and the row's value carrying the sign of the product, no sum
//! exceeds 2 * 128 * 127 < 32768: rows hold at most 127 in magnitude.

use core::arch::x86_64::{
    __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_cvtepi32_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
};

use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// Up to 4 rows x 16 outputs at a time: 8 of the 16 registers are accumulators.
#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_i8_block16x4_avx2(matmul: Matmul<'_>) {
    for panel in matmul.panels() {
        // SAFETY: the panel's own invariants.
        unsafe { multiply_panel(&panel) }
    }
}

/// All rows x 16 outputs.
///
/// # Safety
/// The panel's invariants.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply_panel(panel: &Panel<'_>) {
    let mut row = 0;
    // SAFETY: each tile ends at or before the last row.
    unsafe {
        while panel.rows - row >= 4 {
            tile::<4>(panel, row);
            row += 4;
        }
        match panel.rows - row {
            3 => tile::<3>(panel, row),
            2 => tile::<2>(panel, row),
            1 => tile::<1>(panel, row),
            _ => {}
        }
    }
}

/// `ROWS` rows x 16 outputs.
///
/// # Safety
/// The rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(panel: &Panel<'_>, row: usize) {
    let inputs = panel.inputs;
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    // SAFETY: each row has `inputs` bytes and the panel `16 * inputs`; the rows given to `finish` exist.
    unsafe {
        let values = panel.values.add(row * inputs);
        for block in 0..inputs / 4 {
            let weights = panel.weights.add(block * 64).cast::<__m256i>();
            let weights = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
            let magnitudes = weights.map(|weights| _mm256_abs_epi8(weights));
            for (index, sums) in sums.iter_mut().enumerate() {
                let value = values.add(index * inputs + block * 4).cast::<i32>().read_unaligned();
                let value = _mm256_set1_epi32(value);
                for half in 0..2 {
                    let signed = _mm256_sign_epi8(value, weights[half]);
                    let pairs = _mm256_maddubs_epi16(magnitudes[half], signed);
                    sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        for (index, sums) in sums.into_iter().enumerate() {
            finish(panel, row + index, sums);
        }
    }
}

/// Scales the sums of `row`, adds the bias and stores as many outputs as exist.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn finish(panel: &Panel<'_>, row: usize, sums: [__m256i; 2]) {
    let mut edge = [0.0_f32; 16];
    let whole = panel.width == 16;
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place; a whole
    // panel is 16 wide, another goes through `edge`, of which `width` floats are copied.
    unsafe {
        let row_scale = _mm256_set1_ps(*panel.row_scales.add(row));
        let out = panel.out.add(row * panel.out_stride);
        let target = if whole { out } else { edge.as_mut_ptr() };
        for (half, sums) in sums.into_iter().enumerate() {
            let scale = _mm256_mul_ps(row_scale, _mm256_loadu_ps(panel.scales.as_ptr().add(8 * half)));
            let bias = _mm256_loadu_ps(panel.bias.as_ptr().add(8 * half));
            _mm256_storeu_ps(target.add(8 * half), _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, bias));
        }
        if !whole {
            out.copy_from_nonoverlapping(edge.as_ptr(), panel.width);
        }
    }
}
