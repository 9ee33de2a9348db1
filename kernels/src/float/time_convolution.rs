//! Depthwise convolution over time: the memory of an FSMN.

use core::ops::Range;

use kinglet_model_format::FloatMatrix;

use super::Rows;
use super::lanes::{LANES, Lanes, Operation};
use super::tile::block;
use crate::{KernelError, Kernels};

/// Each channel convolved over time with taps of its own.
#[derive(Debug, Clone, Copy)]
pub struct TimeConvolution<'a> {
    /// `[taps][channels rounded up to 16]`: the inputs of the matrix are taps, its outputs channels.
    pub weights: FloatMatrix<'a>,
    /// Taps before the frame itself, below `taps`: `taps - 1` is causal, `(taps - 1) / 2` symmetric.
    pub left: usize,
    /// Whether the result starts at the frame itself and not at 0: the memory of V is its convolution plus V.
    pub add_input: bool,
    /// Whether the result is added to what `out` holds.
    pub add_to_out: bool,
}

/// Floats of the ring that [`Kernels::convolve_time_step`] needs: `[taps - 1, channels]`.
pub const fn time_ring(taps: usize, channels: usize) -> usize {
    taps.saturating_sub(1).saturating_mul(channels)
}

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `source` has `frames` rows of as many floats as there are channels;
/// `range.end <= frames`; `convolution.left` is a tap.
struct Convolve<'a> {
    convolution: &'a TimeConvolution<'a>,
    source: Rows<'a>,
    frames: usize,
    range: Range<usize>,
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(mut self, lanes: L) {
        let (taps, left) = (self.convolution.weights.inputs(), self.convolution.left);
        let mut frame = self.range.start;
        while frame < self.range.end {
            let (behind, wanted) = (self.frames - frame, self.range.end - frame);
            if frame >= left && wanted >= TILE && behind >= TILE + (taps - 1 - left) {
                self.all_channels::<L, TILE>(lanes, frame, 0..taps);
                frame += TILE;
            } else {
                let inside = left.saturating_sub(frame)..taps.min(behind.saturating_add(left));
                self.all_channels::<L, 1>(lanes, frame, inside);
                frame += 1;
            }
        }
    }
}

impl Convolve<'_> {
    /// Frame by frame and not channel by channel: the same channels of many frames, where these lie a power of two apart,
    /// would drive each other from the cache.
    #[inline(always)]
    fn all_channels<L: Lanes, const FRAMES: usize>(&mut self, lanes: L, frame: usize, taps: Range<usize>) {
        let channels = self.convolution.weights.outputs();
        let whole = channels / LANES * LANES;
        for channel in (0..whole).step_by(LANES) {
            self.tile::<L, FRAMES>(lanes, frame, taps.clone(), channel, Whole);
        }
        if whole < channels {
            self.tile::<L, FRAMES>(lanes, frame, taps, whole, Part(channels - whole));
        }
    }

    /// `FRAMES` frames from `frame`, of which `taps` find all their inputs; the channels from `channel` on.
    #[inline(always)]
    fn tile<L: Lanes, const FRAMES: usize>(
        &mut self,
        lanes: L,
        frame: usize,
        taps: Range<usize>,
        channel: usize,
        width: impl Width,
    ) {
        let TimeConvolution { weights, left, add_input, .. } = *self.convolution;
        let source = self.source.values.as_ptr();
        let row = |frame: usize| source.wrapping_add(frame * self.source.stride + channel);
        let mut sums = [lanes.splat(0.0); FRAMES];
        if add_input {
            for index in 0..FRAMES {
                // SAFETY: the frame exists, and has `width` channels from `channel` on.
                sums[index] = unsafe { width.load(lanes, row(frame + index)) };
            }
        }
        let first = weights.values().as_ptr().wrapping_add(taps.start * weights.padded_outputs() + channel);
        let weights = Taps { first, stride: weights.padded_outputs(), count: taps.len() };
        // SAFETY: the weights of these taps exist, and all frames that they meet, by the caller's promise.
        let sums = unsafe {
            accumulate(lanes, sums, weights, row(frame + taps.start - left), self.source.stride, width)
        };
        for index in 0..FRAMES {
            let start = (frame + index - self.range.start) * self.out_stride + channel;
            let Some(out) = self.out.get_mut(start..start + width.channels()) else { return };
            finish(lanes, sums[index], self.convolution.add_to_out, out);
        }
    }
}

/// Checked arguments.
///
/// Invariants, relied on by unsafe code: `ring` holds `taps - 1` rows of as many floats as there are channels, `frame`
/// one.
struct Step<'a> {
    convolution: &'a TimeConvolution<'a>,
    ring: &'a [f32],
    count: usize,
    frame: &'a [f32],
    out: &'a mut [f32],
}

impl Operation for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(mut self, lanes: L) {
        let channels = self.frame.len();
        let whole = channels / LANES * LANES;
        for channel in (0..whole).step_by(LANES) {
            self.block(lanes, channel, Whole);
        }
        if whole < channels {
            self.block(lanes, whole, Part(channels - whole));
        }
    }
}

impl Step<'_> {
    #[inline(always)]
    fn block<L: Lanes>(&mut self, lanes: L, channel: usize, width: impl Width) {
        let weights = self.convolution.weights;
        let (channels, stride) = (self.frame.len(), weights.padded_outputs());
        let past = weights.inputs() - 1;
        let newer = self.count.checked_rem(past).unwrap_or(0);
        let older = if self.count < past { 0 } else { past - newer };
        let tap = |tap: usize| weights.values().as_ptr().wrapping_add(tap * stride + channel);
        let row = |row: usize| self.ring.as_ptr().wrapping_add(row * channels + channel);
        // SAFETY: the ring has `past` rows, `frame` is one, and each of the `past + 1` taps has its weights. The rows from
        // `newer` on are the oldest frames, those before it the latest.
        unsafe {
            let frame = width.load(lanes, self.frame.as_ptr().wrapping_add(channel));
            let sums = if self.convolution.add_input { [frame] } else { [lanes.splat(0.0)] };
            let taps = Taps { first: tap(0), stride, count: older };
            let sums = accumulate(lanes, sums, taps, row(newer), channels, width);
            let taps = Taps { first: tap(past - newer), stride, count: newer };
            let [sum] = accumulate(lanes, sums, taps, row(0), channels, width);
            let sum = lanes.fma(lanes.load(block(tap(past))), frame, sum);
            let Some(out) = self.out.get_mut(channel..channel + width.channels()) else { return };
            finish(lanes, sum, self.convolution.add_to_out, out);
        }
    }
}

/// Weights of some taps, of sixteen channels.
#[derive(Clone, Copy)]
struct Taps {
    first: *const f32,
    stride: usize,
    count: usize,
}

/// `sums[i] + sum over tap of weights[tap] * frames[tap + i]`, in the order of the taps: the result does not depend on
/// `FRAMES`.
///
/// # Safety
/// At `taps.first`, sixteen floats can be read for each tap; at `frames`, `width` floats in each of
/// `taps.count + FRAMES - 1` rows (none where there is no tap).
#[inline(always)]
unsafe fn accumulate<L: Lanes, const FRAMES: usize>(
    lanes: L,
    mut sums: [L::F; FRAMES],
    taps: Taps,
    frames: *const f32,
    stride: usize,
    width: impl Width,
) -> [L::F; FRAMES] {
    let (mut weights, mut frames) = (taps.first, frames);
    for _ in 0..taps.count {
        // SAFETY: the caller's promise.
        let weight = lanes.load(unsafe { block(weights) });
        for index in 0..FRAMES {
            // SAFETY: the caller's promise.
            let input = unsafe { width.load(lanes, frames.wrapping_add(index * stride)) };
            sums[index] = lanes.fma(weight, input, sums[index]);
        }
        weights = weights.wrapping_add(taps.stride);
        frames = frames.wrapping_add(stride);
    }
    sums
}

#[inline(always)]
fn finish<L: Lanes>(lanes: L, sum: L::F, add_to_out: bool, out: &mut [f32]) {
    match out.first_chunk_mut() {
        Some(out) => {
            let sum = if add_to_out { lanes.add(lanes.load(out), sum) } else { sum };
            lanes.store(sum, out);
        }
        None => {
            let sum = if add_to_out { lanes.add(lanes.load_part(out, 0.0), sum) } else { sum };
            lanes.store_part(sum, out);
        }
    }
}

/// How many of sixteen channels exist. Types and not a number, so that the loops over whole blocks have no branch.
trait Width: Copy {
    fn channels(self) -> usize;

    /// The channels at `start`.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load<L: Lanes>(self, lanes: L, start: *const f32) -> L::F;
}

/// Sixteen.
#[derive(Clone, Copy)]
struct Whole;

impl Width for Whole {
    #[inline(always)]
    fn channels(self) -> usize {
        LANES
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(self, lanes: L, start: *const f32) -> L::F {
        // SAFETY: the caller's promise.
        lanes.load(unsafe { block(start) })
    }
}

/// Fewer: the last channels.
#[derive(Clone, Copy)]
struct Part(usize);

impl Width for Part {
    #[inline(always)]
    fn channels(self) -> usize {
        self.0
    }

    #[inline(always)]
    unsafe fn load<L: Lanes>(self, lanes: L, start: *const f32) -> L::F {
        // SAFETY: the caller's promise.
        lanes.load_part(unsafe { core::slice::from_raw_parts(start, self.0) }, 0.0)
    }
}

impl TimeConvolution<'_> {
    fn check(&self, least_left: usize) -> Result<(), KernelError> {
        KernelError::check_range("left", self.left, least_left, self.weights.inputs() - 1)
    }
}

impl Kernels {
    /// Convolves the frames `range` of `source`, which has `frames` rows of `[channels]`: with
    /// `total = sum over tap of weights[tap, channel] * source[frame + tap - left, channel]`, from the frame itself on where
    /// `add_input` says so and else from 0, one fused multiply-add after another in the order of the taps,
    /// `out[frame - range.start, channel] = total`, or `+= total` where `add_to_out` says so.
    ///
    /// Frames before the first and behind the last count as zero, so `0..frames` convolves a whole utterance; a shorter
    /// range in the midst of its real neighbours gives the same bits as the whole. Row `r` of the result starts at
    /// `out[r * out_stride]`; nothing is written beyond `channels` values of a row.
    ///
    /// # Errors
    /// When `left` is no tap, the range does not lie in the frames, a slice is too short or rows of the result overlap.
    pub fn convolve_time(
        self,
        convolution: &TimeConvolution<'_>,
        source: Rows<'_>,
        frames: usize,
        range: Range<usize>,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let channels = convolution.weights.outputs();
        convolution.check(0)?;
        source.check("source", frames, channels)?;
        KernelError::check_range("range end", range.end, 0, frames)?;
        KernelError::check_range("range start", range.start, 0, range.end)?;
        KernelError::check_stride(channels, out_stride, range.len())?;
        KernelError::check_rows("out", out.len(), range.len(), channels, out_stride)?;
        self.run(Convolve { convolution, source, frames, range, out, out_stride });
        Ok(())
    }

    /// Convolves one frame `[channels]` of a causal convolution, then puts it into the ring of past frames: as
    /// [`convolve_time`](Self::convolve_time) of all frames so far, bit for bit.
    ///
    /// `count` says how many frames came before. The `ring` `[taps - 1, channels]` ([`time_ring`]) holds frame `i` in row
    /// `i % (taps - 1)`; what it holds before the first frame (`count` 0) does not matter. Nothing in it is moved: a step
    /// writes one row.
    ///
    /// # Errors
    /// When `left` is not `taps - 1` or a slice is too short.
    pub fn convolve_time_step(
        self,
        convolution: &TimeConvolution<'_>,
        ring: &mut [f32],
        count: usize,
        frame: &[f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let (taps, channels) = (convolution.weights.inputs(), convolution.weights.outputs());
        convolution.check(taps - 1)?;
        KernelError::check_rows("ring", ring.len(), taps - 1, channels, channels)?;
        let frame = KernelError::prefix("frame", frame, channels)?;
        KernelError::prefix("out", out, channels)?;
        self.run(Step { convolution, ring, count, frame, out });
        let row = count.checked_rem(taps - 1).and_then(|row| ring.get_mut(row * channels..));
        if let Some(row) = row.and_then(|row| row.get_mut(..channels)) {
            row.copy_from_slice(frame);
        }
        Ok(())
    }
}
