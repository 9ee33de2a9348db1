//! Int4 matrix product with `VPMADDUBSW`.
//!
//! Few rows: weights take the operand without sign, plus 8; 8 times the sum of the row's values is taken off again. Two
//! products of each half of a byte fit an int16 sum: 4 * 15 * 127 < 32768. More rows: a panel is unpacked to int8 for all.

use core::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_and_si128, _mm_hadd_epi32, _mm_loadl_epi64, _mm_loadu_si128, _mm_madd_epi16,
    _mm_maddubs_epi16, _mm_set1_epi8, _mm_set1_epi16, _mm_setzero_si128, _mm_srli_epi16, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastd_epi32, _mm256_cvtepu8_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mullo_epi32, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_slli_epi32,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi8, _mm256_sub_epi32, _mm256_xor_si256,
};

use kinglet_model_format::Int4Matrix;

use super::matmul_i8_avx2::{finish, multiply_panel};
use crate::arch::int4_panel::{Group, Int4Panel};
use crate::arch::panel::Panel;
use crate::matmul::Matmul;

/// 1 to 3 rows x 16 outputs at a time, or the int8 kernel; `room` has 16 times the inputs there.
#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul_i4_block16x4_avx2<'a>(matmul: Matmul<'a, Int4Matrix<'a>>, room: &mut [i8]) {
    for panel in matmul.panels() {
        // SAFETY: all rows are those of the tile; the room is large enough where there are more.
        unsafe {
            match panel.panel.rows {
                1 => tile::<1>(&panel),
                2 => tile::<2>(&panel),
                3 => tile::<3>(&panel),
                _ => multiply_panel(&unpack(panel, room.as_mut_ptr())),
            }
        }
    }
}

/// The multipliers of a group, of outputs 0 to 7 and of outputs 8 to 15.
///
/// # Safety
/// 8 bytes must be readable.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn multipliers(place: *const u8) -> [__m256i; 2] {
    let low_half = _mm_set1_epi8(0xf);
    // SAFETY: the caller's.
    let packed = unsafe { _mm_loadl_epi64(place.cast()) };
    [packed, _mm_srli_epi16::<4>(packed)].map(|halves| _mm256_cvtepu8_epi32(_mm_and_si128(halves, low_half)))
}

/// All rows, `ROWS` of them, x 16 outputs.
///
/// # Safety
/// The panel must have as many rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(panel: &Int4Panel<'_>) {
    let mut totals = [[_mm256_setzero_si256(); 2]; ROWS];
    for group in panel.groups() {
        // SAFETY: the rows exist; each group has its multipliers.
        unsafe {
            let sums = group_sums::<ROWS>(panel, &group);
            let multipliers = multipliers(panel.multipliers.add(8 * group.index));
            for (totals, sums) in totals.iter_mut().zip(&sums) {
                for half in 0..2 {
                    let product = _mm256_mullo_epi32(sums[half], multipliers[half]);
                    totals[half] = _mm256_add_epi32(totals[half], product);
                }
            }
        }
    }
    for (row, totals) in totals.into_iter().enumerate() {
        // SAFETY: the row exists.
        unsafe { finish(&panel.panel, row, totals) }
    }
}

/// # Safety
/// The panel must have `ROWS` rows, and the group be one of its own.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn group_sums<const ROWS: usize>(panel: &Int4Panel<'_>, group: &Group) -> [[__m256i; 2]; ROWS] {
    let (ones, eights) = (_mm256_set1_epi16(1), _mm256_set1_epi8(0x88_u8 as i8));
    let low_half = _mm256_set1_epi8(0xf);
    let (values, inputs) = (panel.panel.values, panel.panel.inputs);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    // SAFETY: each row has `inputs` bytes and the panel `8 * inputs`, of which the group's are read.
    unsafe {
        for (row, sums) in sums.iter_mut().enumerate() {
            *sums = [offset(values.add(row * inputs), group); 2];
        }
        for pair in group.first / 8..group.last / 8 {
            for half in 0..2 {
                let packed = _mm256_loadu_si256(panel.packed.add(pair * 64 + 32 * half).cast());
                let packed = _mm256_xor_si256(packed, eights);
                let low = _mm256_and_si256(packed, low_half);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), low_half);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = values.add(row * inputs + pair * 8).cast::<i32>();
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

/// The panel as int8, its weights in `room`.
///
/// # Safety
/// `16 * inputs` bytes may be written at `room`, which stays as it is as long as the result is used.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack<'a>(panel: Int4Panel<'a>, room: *mut i8) -> Panel<'a> {
    for group in panel.groups() {
        // SAFETY: the group has its multipliers; of the panel's `8 * inputs` bytes those of the group are read, and twice as
        // many are written.
        unsafe {
            let multipliers = multipliers(panel.multipliers.add(8 * group.index))
                .map(|lanes| _mm256_or_si256(lanes, _mm256_slli_epi32::<16>(lanes)));
            for pair in group.first / 8..group.last / 8 {
                for (half, even) in multipliers.into_iter().enumerate() {
                    let packed = _mm256_loadu_si256(panel.packed.add(pair * 64 + 32 * half).cast());
                    let target = room.add(pair * 128 + 32 * half);
                    _mm256_storeu_si256(target.cast(), times(packed, even));
                    let high = _mm256_srli_epi16::<4>(packed);
                    _mm256_storeu_si256(target.add(64).cast(), times(high, even));
                }
            }
        }
    }
    Panel { weights: room, ..panel.panel }
}

/// The low halves of bytes, with their sign, times the even bytes of `even`, each of which serves two neighbours.
#[inline]
#[target_feature(enable = "avx2")]
fn times(halves: __m256i, even: __m256i) -> __m256i {
    let eight = _mm256_set1_epi8(8);
    let flipped = _mm256_xor_si256(_mm256_and_si256(halves, _mm256_set1_epi8(0xf)), eight);
    let values = _mm256_sub_epi8(flipped, eight);
    let (first, second) =
        (_mm256_maddubs_epi16(even, values), _mm256_maddubs_epi16(_mm256_slli_epi16::<8>(even), values));
    let low_byte = _mm256_set1_epi16(0xff);
    _mm256_or_si256(_mm256_and_si256(first, low_byte), _mm256_slli_epi16::<8>(second))
}
