//! Keys or values of past frames as int8, transposed: `[width][capacity]` with one scale a head and frame,
//! `[heads][capacity]`. Frames lie side by side, so that they can be the lanes.

use super::Rows;
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
    fn run<L: Lanes, const TILE: usize, const QUADS: usize>(self, lanes: L) {
        let Self { rows, count, heads, head_width, first, cache } = self;
        let CacheMut { values, scales, capacity } = cache;
        let whole = first % LANES == 0 && count > 1;
        for head in 0..heads {
            let start = head * head_width;
            let mut sources: [&[f32]; LANES] = [&[]; LANES];
            let mut inverses = [0.0; LANES];
            for frame in 0..count {
                let row = rows.values.get(frame * rows.stride + start..).unwrap_or(&[]);
                let row = row.get(..head_width).unwrap_or(&[]);
                let (inverse, scale) = quantization(largest_size(lanes, row));
                if let Some(place) = scales.get_mut(head * capacity + first + frame) {
                    *place = scale;
                }
                sources[frame & (LANES - 1)] = row;
                inverses[frame & (LANES - 1)] = inverse;
            }
            if whole {
                let inverses = lanes.load(&inverses);
                for dim in 0..head_width {
                    let mut column = [0.0; LANES];
                    for (value, source) in column.iter_mut().zip(sources.iter().take(count)) {
                        *value = source.get(dim).copied().unwrap_or(0.0);
                    }
                    let bytes = to_bytes(lanes, lanes.mul(lanes.load(&column), inverses));
                    let place = values.get_mut((start + dim) * capacity + first..);
                    if let Some(place) = place.and_then(|place| place.first_chunk_mut()) {
                        *place = bytes;
                    }
                }
            } else {
                for (frame, (source, inverse)) in sources.iter().zip(inverses).take(count).enumerate() {
                    write_column(lanes, source, inverse, values, start * capacity + first + frame, capacity);
                }
            }
        }
    }
}

/// The largest absolute value; NaN does not count.
#[inline(always)]
fn largest_size<L: Lanes>(lanes: L, row: &[f32]) -> f32 {
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

/// The factor into int8 and the one back. A row of zeros, or one with an infinite value, becomes zeros.
#[inline(always)]
fn quantization(largest: f32) -> (f32, f32) {
    if largest > 0.0 && largest < f32::INFINITY { (127.0 / largest, largest / 127.0) } else { (0.0, 0.0) }
}

/// The nearest integers; 0 for what is no number of int8.
#[inline(always)]
fn to_bytes<L: Lanes>(lanes: L, scaled: L::F) -> [i8; LANES] {
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
