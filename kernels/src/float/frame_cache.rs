//! Keys and values of many frames as int8, in the order in which sixteen queries at once multiply them, with one scale a
//! head and frame.

use super::attention::ZEROS;
use super::key_value_cache::{largest_size, quantization, to_bytes};
use super::lanes::{LANES, Lanes, Operation};
use super::{AttentionShape, Rows};
use crate::{KernelError, Kernels};

/// Values of one frame, or frames of one value, that stand side by side.
pub(super) const BLOCK: usize = 4;

/// Int8 keys and values of one layer, as [`Kernels::keep_frames`] writes them.
///
/// A head is as wide as its next multiple of 4, with zeros. Keys and values have [`frame_cache_bytes`] each.
#[derive(Debug, Clone, Copy)]
pub struct FrameCache<'a> {
    /// `[heads][capacity / 4][head width / 4][4 frames][4 values]`.
    pub keys: &'a [i8],
    /// `[heads][head width / 4][capacity / 4][4 values][4 frames]`.
    pub values: &'a [i8],
    /// `[3][heads][capacity]`: of the keys; of the values as binary logarithm; and what they are divided by.
    pub scales: &'a [f32],
    /// Frames that fit, a multiple of 16.
    pub capacity: usize,
}

/// A [`FrameCache`] to be written.
#[derive(Debug)]
pub struct FrameCacheMut<'a> {
    /// As there.
    pub keys: &'a mut [i8],
    /// As there.
    pub values: &'a mut [i8],
    /// As there.
    pub scales: &'a mut [f32],
    /// As there.
    pub capacity: usize,
}

/// A smaller scale of values counts as this one, as does that of zeros.
const SMALLEST_SCALE: f32 = f32::from_bits((127 - 100) << 23);

/// Floats of the scales of a [`FrameCache`].
pub const fn frame_cache_scales(heads: usize, capacity: usize) -> usize {
    heads.saturating_mul(capacity).saturating_mul(SCALES)
}

/// Scales of one head and frame.
const SCALES: usize = 3;

/// Bytes of the keys, or of the values, of a [`FrameCache`].
pub const fn frame_cache_bytes(heads: usize, head_width: usize, capacity: usize) -> usize {
    heads.saturating_mul(head_width.div_ceil(BLOCK).saturating_mul(BLOCK)).saturating_mul(capacity)
}

/// Checks the lengths of a cache.
pub(super) fn check_frames(
    shape: &AttentionShape,
    (keys, values, scales): (usize, usize, usize),
    capacity: usize,
) -> Result<(), KernelError> {
    KernelError::check_range("capacity", capacity, LANES, u32::MAX as usize)?;
    KernelError::check_range("capacity modulo 16", capacity % LANES, 0, 0)?;
    let bytes = frame_cache_bytes(shape.heads, shape.head_width, capacity);
    KernelError::check_rows("cache keys", keys, 1, bytes, bytes)?;
    KernelError::check_rows("cache values", values, 1, bytes, bytes)?;
    let needed = frame_cache_scales(shape.heads, capacity);
    KernelError::check_rows("cache scales", scales, 1, needed, needed)
}

/// The places of one head.
#[derive(Clone, Copy)]
struct Head {
    head: usize,
    heads: usize,
    /// Groups of four values.
    blocks: usize,
    capacity: usize,
}

impl Head {
    /// Where `values[frame][4 block ..]` of the keys begins.
    fn key(self, frame: usize, block: usize) -> usize {
        let group = self.head * self.capacity / BLOCK + frame / BLOCK;
        ((group * self.blocks + block) * BLOCK + frame % BLOCK) * BLOCK
    }

    /// Where `values[frame][4 block]` of the values is; the next value is four places behind it.
    fn value(self, frame: usize, block: usize) -> usize {
        let row = self.head * self.blocks + block;
        (row * self.capacity / BLOCK + frame / BLOCK) * BLOCK * BLOCK + frame % BLOCK
    }

    /// Where the scale of a frame is: 0 of the key, 1 and 2 of the value.
    fn scale(self, frame: usize, part: usize) -> usize {
        (part * self.heads + self.head) * self.capacity + frame
    }

    /// Stores the scale of a key or value.
    fn keep_scale(self, scales: &mut [f32], frame: usize, scale: f32, is_value: bool) {
        let scale = if is_value { scale.max(SMALLEST_SCALE) } else { scale };
        // Through f64, which leaves one right answer to whoever has to give the same.
        let logarithm = || libm::log2(f64::from(scale)) as f32;
        let parts: &[(usize, f32)] =
            if is_value { &[(1, logarithm()), (2, 1.0 / scale)] } else { &[(0, scale)] };
        for (part, value) in parts {
            if let Some(place) = scales.get_mut(self.scale(frame, *part)) {
                *place = *value;
            }
        }
    }
}

/// Checked: `keys` and `values` have `count` rows of `shape.width()` floats, and the cache has the columns `first..first +
/// count`.
struct Keep<'a> {
    keys: Rows<'a>,
    values: Rows<'a>,
    count: usize,
    shape: AttentionShape,
    first: usize,
    cache: FrameCacheMut<'a>,
}

impl Operation for Keep<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(mut self, lanes: L) {
        let AttentionShape { heads, head_width, .. } = self.shape;
        let blocks = head_width.div_ceil(BLOCK);
        for head in 0..heads {
            let place = Head { head, heads, blocks, capacity: self.cache.capacity };
            let mut frame = 0;
            while frame < self.count {
                let first = self.first + frame;
                if first.is_multiple_of(LANES) && frame + LANES <= self.count {
                    self.sixteen(lanes, place, frame);
                    frame += LANES;
                } else {
                    self.one(lanes, place, frame);
                    frame += 1;
                }
            }
        }
    }
}

impl Keep<'_> {
    /// One frame of one head.
    #[inline(always)]
    fn one<L: Lanes>(&mut self, lanes: L, place: Head, frame: usize) {
        let width = self.shape.head_width;
        let column = self.first + frame;
        for (rows, is_value) in [(self.keys, false), (self.values, true)] {
            let row = rows.values.get(frame * rows.stride + place.head * width..).unwrap_or(&[]);
            let row = row.get(..width).unwrap_or(&[]);
            let (inverse, scale) = quantization(largest_size(lanes, row), 127.0);
            place.keep_scale(self.cache.scales, column, scale, is_value);
            for (index, chunk) in row.chunks(LANES).enumerate() {
                let values = match chunk.first_chunk() {
                    Some(values) => lanes.load(values),
                    None => lanes.load_part(chunk, 0.0),
                };
                let bytes = to_bytes(lanes, lanes.mul(values, lanes.splat(inverse)));
                let (quads, _) = bytes.as_chunks::<BLOCK>();
                for (block, quad) in quads.iter().enumerate().take(chunk.len().div_ceil(BLOCK)) {
                    let block = index * LANES / BLOCK + block;
                    if is_value {
                        let targets = self.cache.values.get_mut(place.value(column, block)..);
                        let targets = targets.unwrap_or(&mut []).iter_mut().step_by(BLOCK);
                        for (target, byte) in targets.zip(quad) {
                            *target = *byte;
                        }
                    } else if let Some(target) = self.cache.keys.get_mut(place.key(column, block)..)
                        && let Some(target) = target.first_chunk_mut()
                    {
                        *target = *quad;
                    }
                }
            }
        }
    }

    /// Sixteen frames of one head, from a column that is a multiple of sixteen.
    #[inline(always)]
    fn sixteen<L: Lanes>(&mut self, lanes: L, place: Head, frame: usize) {
        let width = self.shape.head_width;
        let column = self.first + frame;
        for (rows, is_value) in [(self.keys, false), (self.values, true)] {
            let mut sources = [ZEROS.as_ptr(); LANES];
            for (index, source) in sources.iter_mut().enumerate() {
                *source =
                    rows.values.as_ptr().wrapping_add((frame + index) * rows.stride + place.head * width);
            }
            let mut scales = [0.0; LANES];
            // SAFETY: the sixteen rows have `width` floats of the head.
            let inverses = unsafe { column_scales(lanes, &sources, width, &mut scales) };
            for (index, scale) in scales.into_iter().enumerate() {
                place.keep_scale(self.cache.scales, column + index, scale, is_value);
            }
            for block in 0..place.blocks {
                // SAFETY: as above.
                let columns = unsafe { quad_columns(lanes, &sources, block, width) };
                let columns = columns.map(|column| inside(lanes, lanes.mul(column, inverses)));
                if is_value {
                    let bytes = columns.map(|column| lanes.to_bytes(column));
                    let Some(target) = self.cache.values.get_mut(place.value(column, block)..) else {
                        return;
                    };
                    let (target, _) = target.as_chunks_mut::<BLOCK>();
                    for (index, target) in target.iter_mut().enumerate().take(LANES) {
                        let (quads, _) = bytes[index % BLOCK].as_chunks::<BLOCK>();
                        *target = quads[index / BLOCK];
                    }
                } else {
                    let bytes = lanes.to_quads(columns);
                    let (groups, _) = bytes.as_chunks::<{ BLOCK * BLOCK }>();
                    for (group, bytes) in groups.iter().enumerate() {
                        let target = self.cache.keys.get_mut(place.key(column + BLOCK * group, block)..);
                        if let Some(target) = target.and_then(|target| target.first_chunk_mut()) {
                            *target = *bytes;
                        }
                    }
                }
            }
        }
    }
}

/// The scales of sixteen rows of `width` floats; returns the factors that make int8 of them.
///
/// # Safety
/// `width` floats can be read at each of `sources`.
#[inline(always)]
pub(super) unsafe fn column_scales<L: Lanes>(
    lanes: L,
    sources: &[*const f32; LANES],
    width: usize,
    scales: &mut [f32; LANES],
) -> L::F {
    let mut largest = lanes.splat(0.0);
    for block in 0..width.div_ceil(BLOCK) {
        // SAFETY: the caller's promise.
        for column in unsafe { quad_columns(lanes, sources, block, width) } {
            let size = lanes.abs(column);
            largest = lanes.where_less(largest, size, size, largest);
        }
    }
    let mut sizes = [0.0; LANES];
    lanes.store(largest, &mut sizes);
    let mut inverses = [0.0; LANES];
    for ((size, inverse), scale) in sizes.into_iter().zip(&mut inverses).zip(scales) {
        (*inverse, *scale) = quantization(size, 127.0);
    }
    lanes.load(&inverses)
}

/// Lane `i` of vector `d` is `sources[i][4 block + d]`, or 0 beyond `width`.
///
/// # Safety
/// `width` floats can be read at each of `sources`; `4 block` is below `width`.
#[inline(always)]
pub(super) unsafe fn quad_columns<L: Lanes>(
    lanes: L,
    sources: &[*const f32; LANES],
    block: usize,
    width: usize,
) -> [L::F; BLOCK] {
    let first = block * BLOCK;
    let rows = sources.map(|source| source.wrapping_add(first));
    if first + BLOCK <= width {
        // SAFETY: four floats from `first`, by the caller's promise.
        return unsafe { lanes.columns(&rows) };
    }
    let mut columns = [[0.0; LANES]; BLOCK];
    for (dim, column) in columns.iter_mut().enumerate().take(width - first) {
        // SAFETY: `width - first` floats, by the caller's promise.
        *column = rows.map(|row| unsafe { *row.add(dim) });
    }
    columns.map(|column| lanes.load(&column))
}

/// What is no number of int8 becomes 0.
#[inline(always)]
pub(super) fn inside<L: Lanes>(lanes: L, scaled: L::F) -> L::F {
    lanes.where_less(lanes.abs(scaled), lanes.splat(127.25), scaled, lanes.splat(0.0))
}

impl FrameCacheMut<'_> {
    /// Moves the columns from `first` on, a multiple of 4, to the beginning. What stands behind them afterwards has no
    /// meaning.
    ///
    /// # Errors
    /// When `first` is no such column or a slice is too short.
    pub fn drop_frames(&mut self, shape: &AttentionShape, first: usize) -> Result<(), KernelError> {
        shape.width()?;
        let lengths = (self.keys.len(), self.values.len(), self.scales.len());
        check_frames(shape, lengths, self.capacity)?;
        KernelError::check_range("first frame", first, 0, self.capacity)?;
        KernelError::check_range("first frame modulo 4", first % BLOCK, 0, 0)?;
        let (capacity, blocks) = (self.capacity, shape.head_width.div_ceil(BLOCK));
        for keys in self.keys.chunks_exact_mut(capacity * blocks * BLOCK).take(shape.heads) {
            keys.copy_within(first * blocks * BLOCK.., 0);
        }
        for values in self.values.chunks_exact_mut(capacity * BLOCK).take(shape.heads * blocks) {
            values.copy_within(first * BLOCK.., 0);
        }
        for scales in self.scales.chunks_exact_mut(capacity).take(SCALES * shape.heads) {
            scales.copy_within(first.., 0);
        }
        Ok(())
    }
}

impl Kernels {
    /// Quantizes `count` rows of keys and of values, `[heads * head_width]` floats, to int8 with one scale a head, and puts
    /// them into the columns `first..first + count` of `cache`; nothing else of it changes.
    ///
    /// Sixteen columns that begin at a multiple of 16 are written fastest. A head that is all 0 or has an infinite value becomes
    /// 0; NaN becomes 0.
    ///
    /// # Errors
    /// When a number is out of its range or a slice is too short.
    pub fn keep_frames(
        self,
        shape: &AttentionShape,
        keys: Rows<'_>,
        values: Rows<'_>,
        count: usize,
        first: usize,
        cache: FrameCacheMut<'_>,
    ) -> Result<(), KernelError> {
        let width = shape.width()?;
        keys.check("keys", count, width)?;
        values.check("values", count, width)?;
        check_frames(shape, (cache.keys.len(), cache.values.len(), cache.scales.len()), cache.capacity)?;
        KernelError::check_range("count", count, 0, cache.capacity)?;
        KernelError::check_range("first frame", first, 0, cache.capacity - count)?;
        self.run(Keep { keys, values, count, shape: *shape, first, cache });
        Ok(())
    }
}
