//! Attention of one query over int8 keys and values, with the frames as lanes.
//!
//! The query and the weights of the values are rounded to 16 bits, with one scale a head: products with int8 are then exact
//! in int32, at half the instructions of float. The rounding is far finer than that of the cache.

use super::AttentionShape;
use super::attention::MAX_HEAD_WIDTH;
use super::cached_frames::{Frames, Gathered, InOrder};
use super::key_value_cache::{check_cache, largest_size, quantization};
use super::lanes::{LANES, Lanes, Operation};
use super::softmax::softmax;
use crate::{KernelError, Kernels};

/// Blocks of sixteen frames scored together.
const BLOCKS: usize = 4;
/// Dimensions of the result summed together.
const ROWS: usize = 4;
/// More frames could overflow the int32 sum of a lane.
const MAX_FRAMES: usize = 8192;
/// The largest rounded value.
const WORD: f32 = 32767.0;

/// Int8 keys or values of one layer, as [`Kernels::cache_write`] makes them.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a> {
    /// `[heads * head_width][capacity]`.
    pub values: &'a [i8],
    /// `[heads][capacity]`.
    pub scales: &'a [f32],
    /// Frames that fit, a multiple of 16.
    pub capacity: usize,
}

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `keys.values` and `values.values` have `heads * head_width` rows of `capacity`,
/// which is a multiple of 16 and more than each column in `frames`; these are 1 to [`MAX_FRAMES`].
struct AttendCached<'a, F> {
    shape: AttentionShape,
    query: &'a [f32],
    keys: Cache<'a>,
    values: Cache<'a>,
    frames: F,
    dot_products: bool,
    /// `[heads][capacity]`.
    probabilities: &'a mut [f32],
    /// `[capacity]`.
    scratch: &'a mut [f32],
    out: &'a mut [f32],
}

impl<F: Frames> Operation for AttendCached<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let capacity = self.keys.capacity;
        let width = self.shape.head_width;
        let Some(weights) = self.scratch.get_mut(..self.frames.count().next_multiple_of(LANES)) else {
            return;
        };
        let (weights, _) = weights.as_chunks_mut::<LANES>();
        let mut words = [0; MAX_HEAD_WIDTH];
        let heads = self.query.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for (head, (query, out)) in heads.enumerate() {
            let Some(probabilities) = self.probabilities.get_mut(head * capacity..) else { return };
            let Some(probabilities) = probabilities.get_mut(..weights.len() * LANES) else { return };
            let (blocks, _) = probabilities.as_chunks_mut::<LANES>();
            let key_scales = self.keys.scales.get(head * capacity..).unwrap_or(&[]);
            let value_scales = self.values.scales.get(head * capacity..).unwrap_or(&[]);
            // SAFETY: `head_width` rows of the caches, by the invariants.
            let (keys, values) = unsafe {
                let first = head * width * capacity;
                (self.keys.values.as_ptr().add(first), self.values.values.as_ptr().add(first))
            };

            let factor = self.shape.scale * round_words(lanes, query, &mut words);
            let words = words.get(..width).unwrap_or(&[]);
            let factor = lanes.splat(factor);
            let mut block = 0;
            let mut groups = blocks.chunks_exact_mut(BLOCKS);
            for group in &mut groups {
                // SAFETY: these blocks of frames lie in each of the rows.
                let sums = unsafe { score::<L, BLOCKS>(lanes, self.frames, words, keys, capacity, block) };
                for (index, (place, sum)) in group.iter_mut().zip(sums).enumerate() {
                    let scales = self.frames.scales(lanes, key_scales, block + index);
                    lanes.store(lanes.mul(lanes.mul(lanes.sums_to_floats(sum), scales), factor), place);
                }
                block += BLOCKS;
            }
            for place in groups.into_remainder() {
                // SAFETY: as above.
                let [sum] = unsafe { score::<L, 1>(lanes, self.frames, words, keys, capacity, block) };
                let scales = self.frames.scales(lanes, key_scales, block);
                lanes.store(lanes.mul(lanes.mul(lanes.sums_to_floats(sum), scales), factor), place);
                block += 1;
            }

            let (valid, padding) = probabilities.split_at_mut(self.frames.count());
            softmax(lanes, valid);
            padding.fill(0.0);
            let (blocks, _) = probabilities.as_chunks::<LANES>();
            for (block, (weight, probability)) in weights.iter_mut().zip(blocks).enumerate() {
                let scales = self.frames.scales(lanes, value_scales, block);
                lanes.store(lanes.mul(lanes.load(probability), scales), weight);
            }
            let valid = self.frames.count() % LANES;
            if let (Some(last), 1..) = (weights.last_mut(), valid) {
                // The scale of a frame that does not exist may be NaN.
                last[valid..].fill(0.0);
            }
            let factor = round_weights(lanes, weights);
            let split = F::IN_ORDER && lanes.split_words(self.dot_products, weights);

            let (tiles, rest) = out.as_chunks_mut::<ROWS>();
            let mut row = values;
            for tile in tiles {
                // SAFETY: `ROWS` rows of the cache, each with these blocks of frames.
                let sums = unsafe {
                    if split {
                        lanes.weigh_split(weights, row, capacity)
                    } else {
                        weigh::<L, ROWS>(lanes, self.frames, weights, row, capacity)
                    }
                };
                *tile = sums.map(|sum| sum as f32 * factor);
                row = row.wrapping_add(ROWS * capacity);
            }
            for value in rest {
                // SAFETY: one row of the cache.
                let [sum] = unsafe { weigh::<L, 1>(lanes, self.frames, weights, row, capacity) };
                *value = sum as f32 * factor;
                row = row.wrapping_add(capacity);
            }
        }
    }
}

/// Rounds `values` to 16 bits and returns the factor that undoes it. NaN becomes 0, and a head with an infinite
/// value all 0, as in the cache.
#[inline(always)]
fn round_words<L: Lanes>(lanes: L, values: &[f32], words: &mut [i16; MAX_HEAD_WIDTH]) -> f32 {
    let (inverse, factor) = quantization(largest_size(lanes, values), WORD);
    let (places, _) = words.as_chunks_mut();
    for (chunk, place) in values.chunks(LANES).zip(places) {
        let block = match chunk.first_chunk() {
            Some(block) => lanes.load(block),
            None => lanes.load_part(chunk, 0.0),
        };
        *place = to_words(lanes, lanes.mul(block, lanes.splat(inverse)));
    }
    factor
}

/// Rounds each block of weights to 16 bits, which are put into its own first half; returns the factor that undoes it.
#[inline(always)]
fn round_weights<L: Lanes>(lanes: L, weights: &mut [[f32; LANES]]) -> f32 {
    let (inverse, factor) = quantization(largest_size(lanes, weights.as_flattened()), WORD);
    for block in weights {
        let words = to_words(lanes, lanes.mul(lanes.load(block), lanes.splat(inverse)));
        // SAFETY: the block is larger than the words and as strictly aligned; any bits are valid in both.
        unsafe { *core::ptr::from_mut(block).cast() = words };
    }
    factor
}

/// The nearest integers; 0 for NaN.
#[inline(always)]
fn to_words<L: Lanes>(lanes: L, scaled: L::F) -> [i16; LANES] {
    lanes.to_words(lanes.where_less(lanes.abs(scaled), lanes.splat(WORD + 0.25), scaled, lanes.splat(0.0)))
}

/// Products of the query with `BLOCKS` blocks of keys, without their scales.
///
/// # Safety
/// `query.len()` rows of the cache begin at `keys`, and have these blocks.
#[inline(always)]
unsafe fn score<L: Lanes, const BLOCKS: usize>(
    lanes: L,
    frames: impl Frames,
    query: &[i16],
    keys: *const i8,
    capacity: usize,
    block: usize,
) -> [L::Sums; BLOCKS] {
    let mut sums = [lanes.no_sums(); BLOCKS];
    let mut row = keys;
    for value in query {
        let value = lanes.splat_words(*value);
        for index in 0..BLOCKS {
            // SAFETY: the caller's promise.
            sums[index] = unsafe { frames.multiply(lanes, row, block + index, value, sums[index]) };
        }
        row = row.wrapping_add(capacity);
    }
    sums
}

/// Sums over the frames of rounded weight times value, for `ROWS` rows.
///
/// # Safety
/// `ROWS` rows of the cache begin at `values`, and have as many blocks as `weights`, which [`round_weights`] rounded.
#[inline(always)]
unsafe fn weigh<L: Lanes, const ROWS: usize>(
    lanes: L,
    frames: impl Frames,
    weights: &[[f32; LANES]],
    values: *const i8,
    capacity: usize,
) -> [i64; ROWS] {
    let mut sums = [lanes.no_sums(); ROWS];
    for (block, weight) in weights.iter().enumerate() {
        // SAFETY: the words in the first half of the block.
        let words = lanes.load_words(unsafe { &*core::ptr::from_ref(weight).cast() });
        for row in 0..ROWS {
            let start = values.wrapping_add(row * capacity);
            // SAFETY: the caller's promise.
            sums[row] = unsafe { frames.multiply(lanes, start, block, words, sums[row]) };
        }
    }
    let mut totals = [0; ROWS];
    for row in 0..ROWS {
        totals[row] = lanes.total(sums[row]);
    }
    totals
}

impl Kernels {
    /// Attention of one `query` `[heads * head_width]` over the first `frames` columns of `keys` and `values`: `out =
    /// softmax(scale * query . key[t]) value[t]`, head by head.
    ///
    /// The query, and the products of probability and value scale, are rounded to 16 bits, relative to the largest of a
    /// head; errors of the result stay below 1e-4 of the largest value. NaN in the query counts as 0.
    /// `probabilities` `[heads][capacity]` receives the softmax of each head, and zeros up to the next multiple of 16
    /// frames. `scratch` is `[capacity]`.
    ///
    /// # Errors
    /// When a number is out of its range, a slice is too short, or the caches differ in capacity.
    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    pub fn attend_cached(
        self,
        shape: &AttentionShape,
        query: &[f32],
        keys: Cache<'_>,
        values: Cache<'_>,
        frames: usize,
        probabilities: &mut [f32],
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        self.cached(shape, query, keys, values, InOrder(frames), probabilities, scratch, out)
    }

    /// [`Self::attend_cached`] where frame `t` lies in column `positions[t]`: one hypothesis of several that share the
    /// caches. The same bits where `positions[t] == t`.
    ///
    /// # Errors
    /// Those of [`Self::attend_cached`], and when a position is not below the capacity.
    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    pub fn attend_cached_gather(
        self,
        shape: &AttentionShape,
        query: &[f32],
        keys: Cache<'_>,
        values: Cache<'_>,
        positions: &[u16],
        probabilities: &mut [f32],
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let last = positions.iter().copied().max().unwrap_or(0).into();
        KernelError::check_range("position", last, 0, keys.capacity.saturating_sub(1))?;
        self.cached(shape, query, keys, values, Gathered(positions), probabilities, scratch, out)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    fn cached(
        self,
        shape: &AttentionShape,
        query: &[f32],
        keys: Cache<'_>,
        values: Cache<'_>,
        frames: impl Frames,
        probabilities: &mut [f32],
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let width = shape.width()?;
        let capacity = keys.capacity;
        check_cache(keys.values, keys.scales, capacity, shape.heads, width)?;
        KernelError::check_range("capacity of the values", values.capacity, capacity, capacity)?;
        check_cache(values.values, values.scales, capacity, shape.heads, width)?;
        KernelError::check_range("frames", frames.count(), 1, capacity.min(MAX_FRAMES))?;
        let query = KernelError::prefix("query", query, width)?;
        KernelError::check_rows("probabilities", probabilities.len(), shape.heads, capacity, capacity)?;
        KernelError::check_rows("scratch", scratch.len(), 1, capacity, capacity)?;
        let given = out.len();
        let out = out.get_mut(..width).ok_or(KernelError::TooShort { name: "out", needed: width, given })?;
        let (shape, dot_products) = (*shape, self.has_dot_products());
        self.run(AttendCached {
            shape,
            query,
            keys,
            values,
            frames,
            dot_products,
            probabilities,
            scratch,
            out,
        });
        Ok(())
    }
}
