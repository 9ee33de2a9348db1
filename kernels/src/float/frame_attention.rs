//! Attention of sixteen queries at once over int8 keys and values.
//!
//! ```text
//! queries -> int8 -- x keys --> scores -> 2^(score - largest) -> int8 -- x values --> / sum
//! ```
//!
//! The queries are the lanes, as in the attention of floats, but both products are of int8. The scale of a value goes into
//! its score, as a logarithm, so that the largest product of probability and scale becomes the largest int8; the sum that divides is
//! of the probabilities without it.

use core::ops::Range;

use super::attention::ZEROS;
use super::frame_cache::{BLOCK, FrameCache, check_frames, column_scales, inside, quad_columns};
use super::lanes::{LANES, Lanes, Operation, QUADS, Run};
use super::{AttentionShape, MAX_HEAD_WIDTH, Rows};
use crate::{KernelError, Kernels};

/// More frames could overflow an int32 sum.
const MAX_FRAMES: usize = 1 << 17;
/// 1.5 times 2 to this, 84.25, is what the largest product of probability and value scale becomes: 127, less what errors of the power
/// may add. It is the float nearest to the logarithm.
const LARGEST_EXPONENT: f32 = 6.396_605;
/// Stretches of frames that are told apart; the last one takes in all behind it, zeros too.
const MAX_RUNS: usize = 16;
/// Beyond this a score has no meaning: the steps between floats are too large to be a power's.
const LARGEST_SCORE: f32 = 65536.0;

/// Floats of scratch that [`Kernels::attend_frames`] needs for `frames` frames.
pub const fn frame_scratch(frames: usize) -> usize {
    covered(frames).saturating_mul(LANES)
}

/// Bytes of scratch that [`Kernels::attend_frames`] needs for `frames` frames.
pub const fn frame_scratch_bytes(frames: usize) -> usize {
    covered(frames).saturating_mul(LANES)
}

/// Frames of the groups of four that some `frames` frames touch, at most.
const fn covered(frames: usize) -> usize {
    (frames.saturating_add(2 * BLOCK - 2)) / BLOCK * BLOCK
}

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `query` has `queries` rows of `shape.width()` floats, 1 to 16; the cache has the columns
/// `frames`, which are not empty; `shape.head_width` is 1..=256; `scratch` and `bytes` have [`frame_scratch`] and
/// [`frame_scratch_bytes`] for them; `out` has as many rows as `query`, `out_stride` apart.
struct AttendFrames<'a> {
    shape: AttentionShape,
    query: Rows<'a>,
    queries: usize,
    cache: FrameCache<'a>,
    frames: Range<usize>,
    scratch: &'a mut [f32],
    bytes: &'a mut [[i8; QUADS]],
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for AttendFrames<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let Self { shape, query, queries, cache, frames, scratch, bytes, out, out_stride } = self;
        let AttentionShape { heads, head_width, scale } = shape;
        let blocks = head_width.div_ceil(BLOCK);
        let capacity = cache.capacity;
        // Groups of four frames; the first and the last may hold frames that are not seen.
        let first = frames.start / BLOCK;
        let groups = frames.end.div_ceil(BLOCK) - first;
        let seen = frames.start - first * BLOCK..frames.end - first * BLOCK;
        let (scores, _) = scratch.as_chunks_mut::<LANES>();
        let (scores, _) = scores.as_chunks_mut::<BLOCK>();
        let (Some(scores), Some(bytes)) = (scores.get_mut(..groups), bytes.get_mut(..groups)) else { return };
        let mut panel = [[0; QUADS]; MAX_HEAD_WIDTH / BLOCK];
        for head in 0..heads {
            let start = head * head_width;
            let scales = |part: usize| {
                let scales = cache.scales.get((part * heads + head) * capacity + first * BLOCK..);
                let (scales, _) = scales.unwrap_or(&[]).as_chunks::<BLOCK>();
                scales.get(..groups).unwrap_or(&[])
            };
            // SAFETY: `queries` rows have `head_width` floats from `start`; the panel has room for the widest head.
            let factor = unsafe { round_queries(lanes, &query, queries, start, head_width, &mut panel) };
            let factor = lanes.mul(factor, lanes.splat(scale * core::f32::consts::LOG2_E));
            // SAFETY: `groups` groups of this head's keys, `blocks` blocks each, and as many of the panel.
            let largest = unsafe {
                let keys =
                    cache.keys.as_ptr().add((head * capacity / BLOCK + first) * blocks * BLOCK * BLOCK);
                let scales = scales(0).iter().zip(scales(1));
                score(lanes, panel.as_ptr().cast(), keys, blocks, factor, scales, seen.clone(), scores)
            };
            let mut runs = Runs::default();
            let sum = probabilities(lanes, largest, scores, scales(2), seen.clone(), bytes, &mut runs);
            let inverse = lanes.div(lanes.splat(1.0), sum);
            for block in 0..blocks {
                // SAFETY: `groups` blocks of this row of values, and as many of the probabilities; all runs are among them.
                let sums = unsafe {
                    let row = (head * blocks + block) * capacity / BLOCK + first;
                    let values = cache.values.as_ptr().add(row * BLOCK * BLOCK);
                    lanes.multiply_quads(values, bytes.as_ptr().cast(), runs.all())
                };
                let sums = sums.map(|sum| lanes.mul(lanes.sums_to_floats(sum), inverse));
                let first = start + block * BLOCK;
                // SAFETY: rows of `out` are as wide as all heads; no block reaches beyond its head.
                unsafe {
                    store(
                        lanes,
                        sums,
                        out,
                        out_stride,
                        first,
                        queries,
                        (head_width - block * BLOCK).min(BLOCK),
                    );
                }
            }
        }
    }
}

/// Rounds the queries of one head to int8, `panel[d / 4][query][d % 4]`, and returns the scale of each.
///
/// # Safety
/// `queries` rows have `head_width` floats from `first`; `panel` has a block for each four of them.
#[inline(always)]
unsafe fn round_queries<L: Lanes>(
    lanes: L,
    query: &Rows<'_>,
    queries: usize,
    first: usize,
    head_width: usize,
    panel: &mut [[i8; QUADS]],
) -> L::F {
    let mut sources = [ZEROS.as_ptr(); LANES];
    for (lane, source) in sources.iter_mut().enumerate().take(queries) {
        *source = query.values.as_ptr().wrapping_add(lane * query.stride + first);
    }
    let mut scales = [0.0; LANES];
    // SAFETY: the caller's promise.
    let inverses = unsafe { column_scales(lanes, &sources, head_width, &mut scales) };
    for (block, bytes) in panel.iter_mut().enumerate().take(head_width.div_ceil(BLOCK)) {
        // SAFETY: the caller's promise.
        let columns = unsafe { quad_columns(lanes, &sources, block, head_width) };
        *bytes = lanes.to_quads(columns.map(|column| inside(lanes, lanes.mul(column, inverses))));
    }
    lanes.load(&scales)
}

/// Fills `scores[t][q]` with the products of key `t` and query `q`, as powers of two, plus the logarithm of the value's scale, and
/// returns the largest of each query over the frames that are `seen`.
///
/// # Safety
/// `scores.len()` groups of four keys, `blocks` blocks each, can be read at `keys`, and `blocks` blocks at `panel`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two operands with their scales")]
unsafe fn score<'a, L: Lanes>(
    lanes: L,
    panel: *const i8,
    keys: *const i8,
    blocks: usize,
    factor: L::F,
    scales: impl Iterator<Item = (&'a [f32; BLOCK], &'a [f32; BLOCK])>,
    seen: Range<usize>,
    scores: &mut [[[f32; LANES]; BLOCK]],
) -> L::F {
    let mut largest = lanes.splat(f32::NEG_INFINITY);
    let mut group_keys = keys;
    for (group, (scores, (scales, logarithms))) in scores.iter_mut().zip(scales).enumerate() {
        // SAFETY: the caller's promise.
        let sums = unsafe { lanes.multiply_quads(group_keys, panel, &[Run { first: 0, blocks }]) };
        group_keys = group_keys.wrapping_add(blocks * BLOCK * BLOCK);
        let scales = lanes.quad(scales);
        let products = [
            lanes.mul_quad::<0>(lanes.sums_to_floats(sums[0]), scales),
            lanes.mul_quad::<1>(lanes.sums_to_floats(sums[1]), scales),
            lanes.mul_quad::<2>(lanes.sums_to_floats(sums[2]), scales),
            lanes.mul_quad::<3>(lanes.sums_to_floats(sums[3]), scales),
        ];
        let inside = group * BLOCK >= seen.start && (group + 1) * BLOCK <= seen.end;
        for index in 0..BLOCK {
            let score = lanes.fma(products[index], factor, lanes.splat(logarithms[index]));
            if inside || seen.contains(&(group * BLOCK + index)) {
                largest = lanes.max(largest, score);
            }
            lanes.store(score, &mut scores[index]);
        }
    }
    largest
}

/// Groups of four frames that have a probability other than 0, in order. What a query attends to is a part of what it could.
#[derive(Default)]
struct Runs {
    runs: [Run; MAX_RUNS],
    count: usize,
}

impl Runs {
    /// A run begins; where there is no room for another, the last one goes on.
    #[inline(always)]
    fn begin(&mut self, group: usize) {
        if self.count == MAX_RUNS {
            self.count -= 1;
        } else if let Some(run) = self.runs.get_mut(self.count) {
            run.first = group;
        }
    }

    /// It ends before `group`.
    #[inline(always)]
    fn end(&mut self, group: usize) {
        if let Some(run) = self.runs.get_mut(self.count) {
            run.blocks = group - run.first;
            self.count += 1;
        }
    }

    fn all(&self) -> &[Run] {
        self.runs.get(..self.count).unwrap_or(&[])
    }
}

/// Fills `bytes[t / 4][q][t % 4]` with the rounded `1.5 * 2^(LARGEST_EXPONENT + score - largest)`, 0 for frames that are not `seen`, and
/// `runs` with the groups that are not all 0; returns the sums of these times `divisors`, before they are rounded.
#[inline(always)]
fn probabilities<L: Lanes>(
    lanes: L,
    largest: L::F,
    scores: &[[[f32; LANES]; BLOCK]],
    divisors: &[[f32; BLOCK]],
    seen: Range<usize>,
    bytes: &mut [[i8; QUADS]],
    runs: &mut Runs,
) -> L::F {
    let shift = lanes.sub(lanes.splat(127.0 + LARGEST_EXPONENT), largest);
    let known = lanes.abs(largest);
    let shift = lanes.where_less(known, lanes.splat(LARGEST_SCORE), shift, lanes.splat(f32::NAN));
    let mut sum = lanes.splat(0.0);
    let mut counted = false;
    for (group, ((scores, divisors), bytes)) in scores.iter().zip(divisors).zip(bytes).enumerate() {
        let mut powers = [lanes.splat(0.0); BLOCK];
        let inside = group * BLOCK >= seen.start && (group + 1) * BLOCK <= seen.end;
        if inside {
            let divisors = lanes.quad(divisors);
            for index in 0..BLOCK {
                powers[index] = power(lanes, lanes.add(lanes.load(&scores[index]), shift));
            }
            sum = lanes.fma_quad::<0>(powers[0], divisors, sum);
            sum = lanes.fma_quad::<1>(powers[1], divisors, sum);
            sum = lanes.fma_quad::<2>(powers[2], divisors, sum);
            sum = lanes.fma_quad::<3>(powers[3], divisors, sum);
        } else {
            for index in 0..BLOCK {
                if seen.contains(&(group * BLOCK + index)) {
                    powers[index] = power(lanes, lanes.add(lanes.load(&scores[index]), shift));
                    sum = lanes.fma(powers[index], lanes.splat(divisors[index]), sum);
                }
            }
        }
        *bytes = lanes.to_quads(powers);
        let count = lanes.any_byte(bytes);
        if count != counted {
            if count {
                runs.begin(group)
            } else {
                runs.end(group)
            }
            counted = count;
        }
    }
    if counted {
        runs.end(scores.len());
    }
    sum
}

/// `1.5 * 2^(biased - 127)`, relative error below 4e-3: `2^u` for `u` in 0..=1 is about `((1 + u)^2 + 2) / 3`, exact at both
/// ends.
#[inline(always)]
fn power<L: Lanes>(lanes: L, biased: L::F) -> L::F {
    let (whole, half, line) = lanes.power_parts(biased);
    lanes.fma(half, line, whole)
}

/// `out[q][first + d] = sums[d][q]` for `dims` of them, 4 at most.
///
/// # Safety
/// Each of the `queries` rows of `out`, 16 at most, has `dims` floats from `first` on.
#[inline(always)]
unsafe fn store<L: Lanes>(
    lanes: L,
    sums: [L::F; BLOCK],
    out: &mut [f32],
    out_stride: usize,
    first: usize,
    queries: usize,
    dims: usize,
) {
    let rows = lanes.rows(sums);
    let mut target = out.as_mut_ptr().wrapping_add(first);
    for values in rows.iter().take(queries) {
        // SAFETY: the caller's promise.
        unsafe {
            if dims == BLOCK {
                target.cast::<[f32; BLOCK]>().write_unaligned(*values);
            } else {
                target.copy_from_nonoverlapping(values.as_ptr(), dims);
            }
        }
        target = target.wrapping_add(out_stride);
    }
}

impl Kernels {
    /// Multi-head attention of `queries` query rows, 1 to 16 (16 cost no more than 1), over the columns `frames` of an int8
    /// cache: `out[q] = softmax(scale * query[q] . keys[t]) values[t]`, head by head, over rows `[heads * head_width]`.
    /// `out` row `q` starts at `out[q * out_stride]`.
    ///
    /// Queries are rounded to int8 too, relative to the largest of a head, and so are the products of probability and value
    /// scale, relative to the largest of a query. A score beyond 45,000 makes the result NaN. `scratch` holds
    /// [`frame_scratch`] floats, `bytes` [`frame_scratch_bytes`].
    ///
    /// # Errors
    /// When a number is out of its range, a slice is too short, or `frames` is empty.
    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    pub fn attend_frames(
        self,
        shape: &AttentionShape,
        query: Rows<'_>,
        queries: usize,
        cache: FrameCache<'_>,
        frames: Range<usize>,
        scratch: &mut [f32],
        bytes: &mut [i8],
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let width = shape.width()?;
        KernelError::check_range("queries", queries, 1, LANES)?;
        KernelError::check_range("frames", frames.len(), 1, MAX_FRAMES)?;
        query.check("query", queries, width)?;
        check_frames(shape, (cache.keys.len(), cache.values.len(), cache.scales.len()), cache.capacity)?;
        KernelError::check_range("end of the frames", frames.end, 1, cache.capacity)?;
        KernelError::check_rows("out", out.len(), queries, width, out_stride)?;
        KernelError::check_stride(width, out_stride, queries)?;
        let needed = frame_scratch(frames.len());
        let given = scratch.len();
        let scratch =
            scratch.get_mut(..needed).ok_or(KernelError::TooShort { name: "scratch", needed, given })?;
        let needed = frame_scratch_bytes(frames.len());
        let given = bytes.len();
        let bytes = bytes.get_mut(..needed).ok_or(KernelError::TooShort { name: "bytes", needed, given })?;
        let (bytes, _) = bytes.as_chunks_mut();
        let shape = *shape;
        self.run_products(AttendFrames {
            shape,
            query,
            queries,
            cache,
            frames,
            scratch,
            bytes,
            out,
            out_stride,
        });
        Ok(())
    }
}
