//! Keys or values of past frames as int8, transposed: `[width][capacity]` with one scale a head and frame,
//! `[heads][capacity]`. Frames lie side by side, so that they can be the lanes.

use super::Rows;
use super::attention::ZEROS;
use super::lanes::{LANES, Lanes, Operation};
use crate::{KernelError, Kernels};

/// Int8 rows of one cache, to be written.
#[derive(Debug)]
pub struct CacheMut<'a> {
    /// `[heads * head_width][capacity]`.
    pub values: &'a mut [i8],
    /// `[heads][capacity]`.
    pub scales: &'a mut [f32],
    /// Frames that fit, a multiple of 16.
    pub capacity: usize,
}

/// Checks the lengths of a cache and returns nothing else: shared by its readers and writers.
pub(super) fn check_cache(
    values: &[i8],
    scales: &[f32],
    capacity: usize,
    heads: usize,
    width: usize,
) -> Result<(), KernelError> {
    KernelError::check_range("capacity", capacity, LANES, u32::MAX as usize)?;
    KernelError::check_range("capacity modulo 16", capacity % LANES, 0, 0)?;
    KernelError::check_rows("cache values", values.len(), width, capacity, capacity)?;
    KernelError::check_rows("cache scales", scales.len(), heads, capacity, capacity)
}

/// Checked: `rows` has `count` rows of `heads * head_width` floats, 1 to 16; the columns `first..first + count`
/// are in the cache, and with `blocks` also the rest of the sixteen.
struct Write<'a> {
    rows: Rows<'a>,
    count: usize,
    heads: usize,
    head_width: usize,
    first: usize,
    cache: CacheMut<'a>,
}

impl Operation for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let CacheMut { values, scales, capacity } = self.cache;
        let Self { rows, count, heads, head_width, first, .. } = self;
        for head in 0..heads {
            let start = head * head_width;
            let Some(values) = values.get_mut(start * capacity..) else { return };
            let Some(scales) = scales.get_mut(head * capacity + first..) else { return };
            if first % LANES == 0 && count > 1 {
                let mut sources = [ZEROS.as_ptr(); LANES];
                for (frame, source) in sources.iter_mut().enumerate().take(count) {
                    *source = rows.values.as_ptr().wrapping_add(frame * rows.stride + start);
                }
                // SAFETY: `count` rows have `head_width` floats from `start`, and a head has at most 256.
                unsafe { write_block(lanes, sources, head_width, values, scales, first, capacity) };
            } else {
                for (frame, scale) in scales.iter_mut().enumerate().take(count) {
                    let row = rows.values.get(frame * rows.stride + start..).unwrap_or(&[]);
                    let row = row.get(..head_width).unwrap_or(&[]);
                    let largest = largest_size(lanes, row);
                    *scale = quantization(largest, 127.0).1;
                    write_column(lanes, row, quantization(largest, 127.0).0, values, first + frame, capacity);
                }
            }
        }
    }
}

/// Sixteen frames of one head: `values[d * capacity + first..][..16]`, and their scales.
///
/// # Safety
/// `head_width` floats can be read at each of `sources`.
#[inline(always)]
unsafe fn write_block<L: Lanes>(
    lanes: L,
    sources: [*const f32; LANES],
    head_width: usize,
    values: &mut [i8],
    scales: &mut [f32],
    first: usize,
    capacity: usize,
) {
    let mut largest = lanes.splat(0.0);
    let mut dim = 0;
    while dim < head_width {
        // SAFETY: the caller's promise.
        let (columns, count) = unsafe { columns(lanes, &sources, dim, head_width) };
        for column in columns.into_iter().take(count) {
            let size = lanes.abs(column);
            largest = lanes.where_less(largest, size, size, largest);
        }
        dim += count;
    }
    let mut sizes = [0.0; LANES];
    lanes.store(largest, &mut sizes);
    let mut inverses = [0.0; LANES];
    for ((size, inverse), scale) in sizes.into_iter().zip(&mut inverses).zip(scales) {
        (*inverse, *scale) = quantization(size, 127.0);
    }
    let inverses = lanes.load(&inverses);
    let mut dim = 0;
    while dim < head_width {
        // SAFETY: the caller's promise.
        let (columns, count) = unsafe { columns(lanes, &sources, dim, head_width) };
        for (index, column) in columns.into_iter().take(count).enumerate() {
            let place = values.get_mut((dim + index) * capacity + first..);
            if let Some(place) = place.and_then(|place| place.first_chunk_mut()) {
                *place = to_bytes(lanes, lanes.mul(column, inverses));
            }
        }
        dim += count;
    }
}

/// Lane `i` of vector `d` is `sources[i][dim + d]`: four vectors, or one where fewer than four are left.
///
/// # Safety
/// `width` floats can be read at each of `sources`; `dim` is below `width`.
#[inline(always)]
unsafe fn columns<L: Lanes>(
    lanes: L,
    sources: &[*const f32; LANES],
    dim: usize,
    width: usize,
) -> ([L::F; 4], usize) {
    let rows = sources.map(|source| source.wrapping_add(dim));
    if dim + 4 <= width {
        // SAFETY: four floats from `dim`, by the caller's promise.
        return (unsafe { lanes.columns(&rows) }, 4);
    }
    // SAFETY: one float at `dim`, by the caller's promise.
    let column = rows.map(|row| unsafe { *row });
    ([lanes.load(&column); 4], 1)
}

/// The largest absolute value; NaN does not count.
#[inline(always)]
pub(super) fn largest_size<L: Lanes>(lanes: L, row: &[f32]) -> f32 {
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut largest = lanes.splat(0.0);
    for block in blocks {
        let size = lanes.abs(lanes.load(block));
        largest = lanes.where_less(largest, size, size, largest);
    }
    if !rest.is_empty() {
        let size = lanes.abs(lanes.load_part(rest, 0.0));
        largest = lanes.where_less(largest, size, size, largest);
    }
    lanes.largest(largest)
}

/// The factor that makes the largest value `limit`, and the one back. Where the largest is 0 or infinite, all becomes 0.
#[inline(always)]
pub(super) fn quantization(largest: f32, limit: f32) -> (f32, f32) {
    if largest > 0.0 && largest < f32::INFINITY { (limit / largest, largest / limit) } else { (0.0, 0.0) }
}

/// The nearest integers; 0 for what is no number of int8.
#[inline(always)]
pub(super) fn to_bytes<L: Lanes>(lanes: L, scaled: L::F) -> [i8; LANES] {
    let inside = lanes.where_less(lanes.abs(scaled), lanes.splat(127.25), scaled, lanes.splat(0.0));
    lanes.to_bytes(inside)
}

#[inline(always)]
fn write_column<L: Lanes>(
    lanes: L,
    source: &[f32],
    inverse: f32,
    values: &mut [i8],
    first: usize,
    capacity: usize,
) {
    let inverse = lanes.splat(inverse);
    let mut place = first;
    for chunk in source.chunks(LANES) {
        let block = match chunk.first_chunk() {
            Some(block) => lanes.load(block),
            None => lanes.load_part(chunk, 0.0),
        };
        for byte in to_bytes(lanes, lanes.mul(block, inverse)).into_iter().take(chunk.len()) {
            if let Some(value) = values.get_mut(place) {
                *value = byte;
            }
            place += capacity;
        }
    }
}

impl Kernels {
    /// Quantizes `rows`, 1 to 16 rows of `heads * head_width` floats, to int8 with one scale a head, and puts them into the
    /// columns `first..first + count` of `cache`.
    ///
    /// Several rows that start at a multiple of 16 are written fastest; then the rest of these sixteen columns
    /// becomes 0. A head that is all 0 or has an infinite value becomes 0; NaN becomes 0.
    ///
    /// # Errors
    /// When a number is out of its range or a slice is too short.
    pub fn cache_write(
        self,
        rows: Rows<'_>,
        count: usize,
        heads: usize,
        head_width: usize,
        first: usize,
        cache: CacheMut<'_>,
    ) -> Result<(), KernelError> {
        let shape = super::AttentionShape { heads, head_width, scale: 1.0 };
        let width = shape.width()?;
        KernelError::check_range("count", count, 1, LANES)?;
        rows.check("rows", count, width)?;
        check_cache(cache.values, cache.scales, cache.capacity, heads, width)?;
        KernelError::check_range("first frame", first, 0, cache.capacity.saturating_sub(count))?;
        self.run(Write { rows, count, heads, head_width, first, cache });
        Ok(())
    }
}
