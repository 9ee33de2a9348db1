//! Attention of sixteen queries at once over float keys and values.
//!
//! The queries are the lanes: scores, their maximum, exp and their sum need no horizontal step, and keys and
//! values are read as the projections left them.

use core::ops::Range;

use super::exponential::{ROUND, ROUND_BIASED, exp2_fraction};
use super::lanes::{LANES, Lanes, Operation};
use super::tile::accumulate;
use crate::{KernelError, Kernels};

/// The widest head.
pub const MAX_HEAD_WIDTH: usize = 256;

/// Heads, and the factor of their scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Heads, at least 1.
    pub heads: usize,
    /// Values of a head, 1..=256.
    pub head_width: usize,
    /// What scores are multiplied with before softmax, usually `1 / sqrt(head_width)`.
    pub scale: f32,
}

impl AttentionShape {
    /// Values of a row: `heads * head_width`.
    pub(super) fn width(&self) -> Result<usize, KernelError> {
        KernelError::check_range("heads", self.heads, 1, usize::MAX)?;
        KernelError::check_range("head_width", self.head_width, 1, MAX_HEAD_WIDTH)?;
        self.heads.checked_mul(self.head_width).ok_or(KernelError::TooLarge)
    }
}

/// Rows of floats: row `r` starts at `values[r * stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// The floats of all rows.
    pub values: &'a [f32],
    /// From the start of a row to that of the next.
    pub stride: usize,
}

impl Rows<'_> {
    pub(super) fn check(&self, name: &'static str, rows: usize, width: usize) -> Result<(), KernelError> {
        KernelError::check_rows(name, self.values.len(), rows, width, self.stride)
    }
}

/// Floats of scratch that [`Kernels::attend`] needs for `frames` frames of keys.
pub const fn attend_scratch(frames: usize, head_width: usize) -> usize {
    frames.saturating_add(head_width).saturating_mul(LANES)
}

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `query` has `queries` rows, `keys` and `values` have `frames.end` rows, all of
/// `shape.width()` floats; `frames` is not empty; `queries` is 1..=16; `scratch` has [`attend_scratch`] floats
/// for the frames; `shape.head_width` is 1..=256.
struct Attend<'a> {
    shape: AttentionShape,
    query: Rows<'a>,
    queries: usize,
    keys: Rows<'a>,
    values: Rows<'a>,
    frames: Range<usize>,
    scratch: &'a mut [[f32; LANES]],
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let Self { shape, query, queries, keys, values, frames, scratch, out, out_stride } = self;
        let AttentionShape { heads, head_width, scale } = shape;
        let (transposed, scores) = scratch.split_at_mut(head_width);
        // exp is taken as a power of two.
        let factor = scale * core::f32::consts::LOG2_E;
        let scores = &mut scores[..frames.len()];
        for head in 0..heads {
            let first = head * head_width;
            // SAFETY: `queries` rows have `head_width` floats from `first`.
            unsafe { transpose(lanes, &query, queries, first, factor, transposed) };
            // SAFETY: the frames are rows of `keys`, and a row has `head_width` floats from `first`.
            let largest = unsafe {
                let start = keys.values.as_ptr().add(frames.start * keys.stride + first);
                score::<L, TILE>(lanes, transposed, start, keys.stride, scores)
            };
            let sum = exponentials(lanes, scores, largest);
            let inverse = lanes.div(lanes.splat(1.0), sum);
            // SAFETY: the frames are rows of `values`, and a row has `head_width` floats from `first`.
            unsafe {
                let start = values.values.as_ptr().add(frames.start * values.stride + first);
                let mut dim = 0;
                while dim + DIMS <= head_width {
                    let sums = weigh::<L, DIMS>(lanes, scores, start.add(dim), values.stride);
                    store(lanes, &sums, inverse, out, out_stride, first + dim, queries);
                    dim += DIMS;
                }
                while dim + 4 <= head_width {
                    let sums = weigh::<L, 4>(lanes, scores, start.add(dim), values.stride);
                    store(lanes, &sums, inverse, out, out_stride, first + dim, queries);
                    dim += 4;
                }
                while dim < head_width {
                    let sum = weigh_one(lanes, scores, start.add(dim), values.stride);
                    store(lanes, &[sum], inverse, out, out_stride, first + dim, queries);
                    dim += 1;
                }
            }
        }
    }
}

/// What stands for a row that is not there.
pub(super) static ZEROS: [f32; MAX_HEAD_WIDTH] = [0.0; MAX_HEAD_WIDTH];

/// `transposed[d][q] = query[q][first + d] * factor`; lanes without a query become 0.
///
/// # Safety
/// The first `queries` rows of `query` have `transposed.len()` floats from `first`; these are at most 256.
#[inline(always)]
unsafe fn transpose<L: Lanes>(
    lanes: L,
    query: &Rows<'_>,
    queries: usize,
    first: usize,
    factor: f32,
    transposed: &mut [[f32; LANES]],
) {
    let mut rows = [ZEROS.as_ptr(); LANES];
    for (lane, row) in rows.iter_mut().enumerate().take(queries) {
        *row = query.values.as_ptr().wrapping_add(lane * query.stride + first);
    }
    let factors = lanes.splat(factor);
    let (groups, rest) = transposed.as_chunks_mut::<4>();
    for group in groups {
        // SAFETY: four more floats of each row, by the caller's promise.
        let columns = unsafe { lanes.columns(&rows) };
        for dim in 0..4 {
            lanes.store(lanes.mul(columns[dim], factors), &mut group[dim]);
        }
        for row in &mut rows {
            *row = row.wrapping_add(4);
        }
    }
    for (dim, column) in rest.iter_mut().enumerate() {
        for (value, row) in column.iter_mut().zip(rows) {
            // SAFETY: as above.
            *value = factor * unsafe { *row.add(dim) };
        }
    }
}

/// Fills `scores[t][q]` with the products of key `t` and query `q`, and returns the largest of each query.
///
/// # Safety
/// `scores.len()` rows of `queries.len()` floats, `stride` apart, can be read from `keys`.
#[inline(always)]
unsafe fn score<L: Lanes, const TILE: usize>(
    lanes: L,
    queries: &[[f32; LANES]],
    keys: *const f32,
    stride: usize,
    scores: &mut [[f32; LANES]],
) -> L::F {
    let mut largest = lanes.splat(f32::NEG_INFINITY);
    let columns = queries.as_ptr().cast::<f32>();
    let mut row = keys;
    let (tiles, rest) = scores.as_chunks_mut::<TILE>();
    for tile in tiles {
        let mut rows = [row; TILE];
        for index in 0..TILE {
            rows[index] = row.wrapping_add(index * stride);
        }
        // SAFETY: these are rows of keys, by the caller's promise.
        let sums =
            unsafe { accumulate(lanes, [lanes.splat(0.0); TILE], &rows, columns, LANES, queries.len()) };
        for index in 0..TILE {
            largest = lanes.max(largest, sums[index]);
            lanes.store(sums[index], &mut tile[index]);
        }
        row = row.wrapping_add(TILE * stride);
    }
    for score in rest {
        // SAFETY: as above.
        let [sum] = unsafe { accumulate(lanes, [lanes.splat(0.0)], &[row], columns, LANES, queries.len()) };
        largest = lanes.max(largest, sum);
        lanes.store(sum, score);
        row = row.wrapping_add(stride);
    }
    largest
}

/// `scores = 2^(scores - round(largest))`; returns the sums over the frames.
///
/// The common factor cancels in softmax. Because it is a power of two, it costs nothing: it goes into the
/// constant that rounds. A NaN among the scores reaches the sum.
#[inline(always)]
fn exponentials<L: Lanes>(lanes: L, scores: &mut [[f32; LANES]], largest: L::F) -> L::F {
    let round = lanes.splat(ROUND);
    let shift = lanes.sub(lanes.add(largest, round), round);
    let round = lanes.sub(lanes.splat(ROUND_BIASED), shift);
    // The exponent stops at -126. What is then left of the score makes the polynomial grow, but by far less.
    let lowest = lanes.splat(ROUND_BIASED - 126.0);
    let mut sum = lanes.splat(0.0);
    for place in scores {
        let score = lanes.load(place);
        let shifted = lanes.max(lowest, lanes.add(score, round));
        let fraction = lanes.sub(score, lanes.sub(shifted, round));
        let power = lanes.mul(exp2_fraction(lanes, fraction), lanes.bits_to_exponent(shifted));
        sum = lanes.add(sum, power);
        lanes.store(power, place);
    }
    sum
}

/// `sums[d][q] = sum over t of weights[t][q] * values[t][d]`, in the order of `t`, for `DIMS` dimensions: an even number
/// of at least 4.
///
/// # Safety
/// `weights.len()` rows of `DIMS` floats, `stride` apart, can be read from `values`.
#[inline(always)]
unsafe fn weigh<L: Lanes, const DIMS: usize>(
    lanes: L,
    weights: &[[f32; LANES]],
    values: *const f32,
    stride: usize,
) -> [L::F; DIMS] {
    let mut sums = [lanes.splat(0.0); DIMS];
    let mut row = values;
    let (groups, rest) = weights.as_chunks::<4>();
    for group in groups {
        for weight in group {
            // SAFETY: a row of values, by the caller's promise.
            unsafe { weigh_frame(lanes, &mut sums, lanes.load(weight), row) };
            row = row.wrapping_add(stride);
        }
    }
    for weight in rest {
        // SAFETY: as above.
        unsafe { weigh_frame(lanes, &mut sums, lanes.load(weight), row) };
        row = row.wrapping_add(stride);
    }
    sums
}

/// # Safety
/// `DIMS` floats can be read from `row`.
#[inline(always)]
unsafe fn weigh_frame<L: Lanes, const DIMS: usize>(
    lanes: L,
    sums: &mut [L::F; DIMS],
    weight: L::F,
    row: *const f32,
) {
    let mut dim = 0;
    while dim + 4 <= DIMS {
        // SAFETY: the caller's promise.
        let quad = lanes.quad(unsafe { &*row.add(dim).cast() });
        sums[dim] = lanes.fma_quad::<0>(weight, quad, sums[dim]);
        sums[dim + 1] = lanes.fma_quad::<1>(weight, quad, sums[dim + 1]);
        sums[dim + 2] = lanes.fma_quad::<2>(weight, quad, sums[dim + 2]);
        sums[dim + 3] = lanes.fma_quad::<3>(weight, quad, sums[dim + 3]);
        dim += 4;
    }
    if dim < DIMS {
        // The last two scalars are the second half of a quad that overlaps the one before.
        // SAFETY: the caller's promise.
        let quad = lanes.quad(unsafe { &*row.add(dim - 2).cast() });
        sums[dim] = lanes.fma_quad::<2>(weight, quad, sums[dim]);
        sums[dim + 1] = lanes.fma_quad::<3>(weight, quad, sums[dim + 1]);
    }
}

/// One dimension of [`weigh`].
///
/// # Safety
/// `weights.len()` floats, `stride` apart, can be read from `values`.
#[inline(always)]
unsafe fn weigh_one<L: Lanes>(lanes: L, weights: &[[f32; LANES]], values: *const f32, stride: usize) -> L::F {
    let mut sum = lanes.splat(0.0);
    let mut value = values;
    for weight in weights {
        // SAFETY: the caller's promise.
        sum = lanes.fma(lanes.load(weight), lanes.splat(unsafe { *value }), sum);
        value = value.wrapping_add(stride);
    }
    sum
}

/// `out[q][first + d] = sums[d][q] * inverse[q]`.
#[inline(always)]
fn store<L: Lanes, const DIMS: usize>(
    lanes: L,
    sums: &[L::F; DIMS],
    inverse: L::F,
    out: &mut [f32],
    out_stride: usize,
    first: usize,
    queries: usize,
) {
    let mut columns = [[0.0; LANES]; DIMS];
    for dim in 0..DIMS {
        lanes.store(lanes.mul(sums[dim], inverse), &mut columns[dim]);
    }
    for query in 0..queries.min(LANES) {
        let row = out.get_mut(query * out_stride + first..);
        let Some(row) = row.and_then(|row| row.first_chunk_mut::<DIMS>()) else { return };
        for dim in 0..DIMS {
            row[dim] = columns[dim][query];
        }
    }
}

impl Kernels {
    /// Multi-head attention of `queries` query rows, 1 to 16 (16 cost no more than 1), over the key and value rows
    /// `frames`: `out[q] = softmax(scale * query[q] . keys[t]) values[t]`, head by head, over rows
    /// `[heads * head_width]`. `out` row `q` starts at `out[q * out_stride]`.
    ///
    /// Error of the probabilities below 1e-5. Scores beyond a million have no meaning. `scratch` holds [`attend_scratch`] floats.
    ///
    /// # Errors
    /// When a number is out of its range, a slice is too short, or `frames` is empty.
    #[expect(clippy::too_many_arguments, reason = "the operands of the operation, each with its own shape")]
    pub fn attend(
        self,
        shape: &AttentionShape,
        query: Rows<'_>,
        queries: usize,
        keys: Rows<'_>,
        values: Rows<'_>,
        frames: Range<usize>,
        scratch: &mut [f32],
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let width = shape.width()?;
        KernelError::check_range("queries", queries, 1, LANES)?;
        KernelError::check_range("frames", frames.len(), 1, usize::MAX)?;
        query.check("query", queries, width)?;
        keys.check("keys", frames.end, width)?;
        values.check("values", frames.end, width)?;
        KernelError::check_rows("out", out.len(), queries, width, out_stride)?;
        KernelError::check_stride(width, out_stride, queries)?;
        let needed = attend_scratch(frames.len(), shape.head_width);
        let given = scratch.len();
        let scratch =
            scratch.get_mut(..needed).ok_or(KernelError::TooShort { name: "scratch", needed, given })?;
        let (scratch, _) = scratch.as_chunks_mut();
        self.run(Attend { shape: *shape, query, queries, keys, values, frames, scratch, out, out_stride });
        Ok(())
    }
}
