//! Int4 matrix product with `VPMADDUBSW`.
//!
//! Weights take the operand without sign, plus 8; 8 times the sum of the row's values is taken off again. Two
//! products of each half of a byte fit an int16 sum: 4 * 15 * 127 < 32768.

use core::arch::x86_64::{
    __m256, __m256i, _mm_add_epi32, _mm_hadd_epi32, _mm_loadu_si128, _mm_madd_epi16, _mm_maddubs_epi16,
    _mm_set1_epi8, _mm_set1_epi16, _mm_setzero_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_broadcastd_epi32, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_srli_epi16, _mm256_storeu_ps, _mm256_sub_epi32, _mm256_xor_si256,
};

use kinglet_model_format::Int4Matrix;

use crate::arch::int4_panel::{Group, Int4Panel};
use crate::matmul::Matmul;

/// Up to 4 rows x 16 outputs at a time: 8 of the 16 registers are accumulators.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul_i4_block16x4_avx2<'a>(matmul: Matmul<'a, Int4Matrix<'a>>) {
    for panel in matmul.panels() {
        let mut row = 0;
        // SAFETY: each tile ends at or before the last row.
        unsafe {
            while panel.rows - row >= 4 {
                tile::<4>(&panel, row);
                row += 4;
            }
            match panel.rows - row {
                3 => tile::<3>(&panel, row),
                2 => tile::<2>(&panel, row),
                1 => tile::<1>(&panel, row),
                _ => {}
            }
        }
    }
}

/// `ROWS` rows x 16 outputs.
///
/// # Safety
/// The rows from `row` on must exist.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const ROWS: usize>(panel: &Int4Panel<'_>, row: usize) {
    let mut totals = [[_mm256_setzero_ps(); 2]; ROWS];
    for group in panel.groups() {
        // SAFETY: the rows exist; each group has 16 scales.
        unsafe {
            let sums = group_sums::<ROWS>(panel, row, &group);
            for half in 0..2 {
                let scale = panel.scales.add(16 * group.index + 8 * half);
                let scale = _mm256_cvtph_ps(_mm_loadu_si128(scale.cast()));
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    // As if each weight had been 16 times as large: see the scalar kernel.
                    let sum = _mm256_srai_epi32::<4>(_mm256_slli_epi32::<4>(sums[half]));
                    totals[half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, totals[half]);
                }
            }
        }
    }
    for (index, totals) in totals.into_iter().enumerate() {
        // SAFETY: the row exists.
        unsafe { finish(panel, row + index, totals) }
    }
}

/// # Safety
/// The rows from `row` on must exist, and the group be one of the panel's.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group_sums<const ROWS: usize>(
    panel: &Int4Panel<'_>,
    row: usize,
    group: &Group,
) -> [[__m256i; 2]; ROWS] {
    let (ones, eights) = (_mm256_set1_epi16(1), _mm256_set1_epi8(0x88_u8 as i8));
    let low_half = _mm256_set1_epi8(0xf);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
    unsafe {
        let values = panel.values.add(row * panel.inputs);
        for (index, sums) in sums.iter_mut().enumerate() {
            *sums = [offset(values.add(index * panel.inputs), group); 2];
        }
        for pair in group.first / 8..group.last / 8 {
            for half in 0..2 {
                let packed = _mm256_loadu_si256(panel.weights.add(pair * 64 + 32 * half).cast());
                let packed = _mm256_xor_si256(packed, eights);
                let low = _mm256_and_si256(packed, low_half);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), low_half);
                for (index, sums) in sums.iter_mut().enumerate() {
                    let value = values.add(index * panel.inputs + pair * 8).cast::<i32>();
                    let first = _mm256_set1_epi32(value.read_unaligned());
                    let second = _mm256_set1_epi32(value.add(1).read_unaligned());
                    let low = _mm256_maddubs_epi16(low, first);
                    let high = _mm256_maddubs_epi16(high, second);
                    let products = _mm256_madd_epi16(_mm256_add_epi16(low, high), ones);
                    sums[half] = _mm256_add_epi32(sums[half], products);
                }
            }
        }
    }
    sums
}

/// -8 times the sum of a row's values in the group, in every lane.
///
/// # Safety
/// The row must hold the group's inputs.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn offset(values: *const i8, group: &Group) -> __m256i {
    let (ones, eights) = (_mm_set1_epi16(1), _mm_set1_epi8(8));
    let mut sums = _mm_setzero_si128();
    for input in (group.first..group.last).step_by(16) {
        // SAFETY: 16 values from `input` on are the group's.
        let values = unsafe { _mm_loadu_si128(values.add(input).cast()) };
        sums = _mm_add_epi32(sums, _mm_madd_epi16(_mm_maddubs_epi16(eights, values), ones));
    }
    let sums = _mm_hadd_epi32(sums, sums);
    _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_broadcastd_epi32(_mm_hadd_epi32(sums, sums)))
}

/// Scales the totals of `row`, adds the bias and stores as many outputs as exist.
///
/// # Safety
/// `row` must exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish(panel: &Int4Panel<'_>, row: usize, totals: [__m256; 2]) {
    let mut edge = [0.0_f32; 16];
    let whole = panel.width == 16;
    // SAFETY: the row exists, so its scale does, and `width` floats may be written at its place; a whole
    // panel is 16 wide, another goes through `edge`, of which `width` floats are copied.
    unsafe {
        let row_scale = _mm256_set1_ps(*panel.row_scales.add(row));
        let out = panel.out.add(row * panel.out_stride);
        let target = if whole { out } else { edge.as_mut_ptr() };
        for (half, totals) in totals.into_iter().enumerate() {
            let bias = _mm256_loadu_ps(panel.bias.as_ptr().add(8 * half));
            _mm256_storeu_ps(target.add(8 * half), _mm256_fmadd_ps(totals, row_scale, bias));
        }
        if !whole {
            out.copy_from_nonoverlapping(edge.as_ptr(), panel.width);
        }
    }
}
