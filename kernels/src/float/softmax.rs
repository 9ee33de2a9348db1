//! Softmax and the choice of the next token.

use super::exponential::exp_upper_bounded;
use super::lanes::{LANES, Lanes, Operation};
use crate::{KernelError, Kernels};

/// The most candidates of [`Kernels::top_k`].
pub const MAX_TOP: usize = 16;
/// Logits whose largest is found together; only one such group is searched for its place.
const GROUP: usize = 1024;

/// The largest logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Where it is; the first of equals.
    pub index: usize,
    /// The logit.
    pub logit: f32,
    /// `ln` of the sum of `e^logit` over all logits: `logit - log_sum_exp` is a log probability.
    pub log_sum_exp: f32,
}

/// A logit and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scored {
    /// Index into the logits.
    pub index: usize,
    /// The logit.
    pub logit: f32,
}

#[inline(always)]
fn largest<L: Lanes>(lanes: L, values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut largest = lanes.splat(f32::NEG_INFINITY);
    for block in blocks {
        largest = lanes.max(largest, lanes.load(block));
    }
    if !rest.is_empty() {
        largest = lanes.max(largest, lanes.load_part(rest, f32::NEG_INFINITY));
    }
    lanes.largest(largest)
}

/// Softmax in place. A NaN anywhere makes every result NaN.
#[inline(always)]
pub(super) fn softmax<L: Lanes>(lanes: L, values: &mut [f32]) {
    let shift = lanes.splat(largest(lanes, values));
    let (blocks, rest) = values.as_chunks_mut::<LANES>();
    let mut sum = lanes.splat(0.0);
    for block in blocks.iter_mut() {
        let power = exp_upper_bounded(lanes, lanes.sub(lanes.load(block), shift));
        sum = lanes.add(sum, power);
        lanes.store(power, block);
    }
    let mut total = lanes.sum(sum);
    if !rest.is_empty() {
        let power = exp_upper_bounded(lanes, lanes.sub(lanes.load_part(rest, 0.0), shift));
        lanes.store_part(power, rest);
        total += lanes.sum(lanes.load_part(rest, 0.0));
    }
    let inverse = 1.0 / total;
    let factor = lanes.splat(inverse);
    for block in blocks {
        lanes.store(lanes.mul(lanes.load(block), factor), block);
    }
    for value in rest {
        *value *= inverse;
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl Operation for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        softmax(lanes, self.0);
    }
}

struct FindPeak<'a>(&'a [f32]);

impl Operation for FindPeak<'_> {
    type Output = Peak;

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) -> Peak {
        let logits = self.0;
        let (mut logit, mut group) = (f32::NEG_INFINITY, 0);
        for (index, values) in logits.chunks(GROUP).enumerate() {
            let candidate = largest(lanes, values);
            if candidate > logit {
                (logit, group) = (candidate, index);
            }
        }
        let first = group * GROUP;
        let offset = logits.iter().skip(first).position(|value| *value == logit).unwrap_or(0);

        let shift = lanes.splat(logit);
        let (blocks, rest) = logits.as_chunks::<LANES>();
        let mut sum = lanes.splat(0.0);
        for block in blocks {
            sum = lanes.add(sum, exp_upper_bounded(lanes, lanes.sub(lanes.load(block), shift)));
        }
        if !rest.is_empty() {
            let values = lanes.load_part(rest, f32::NEG_INFINITY);
            sum = lanes.add(sum, exp_upper_bounded(lanes, lanes.sub(values, shift)));
        }
        let sum = lanes.sum(sum);
        if sum.is_nan()
            && let Some(index) = logits.iter().position(|value| value.is_nan())
        {
            return Peak { index, logit: f32::NAN, log_sum_exp: f32::NAN };
        }
        // A zero could have either sign; adding 0 makes it positive.
        Peak { index: first + offset, logit: logit + 0.0, log_sum_exp: logit + libm::logf(sum) }
    }
}

struct TopK<'a> {
    logits: &'a [f32],
    best: &'a mut [Scored],
}

impl Operation for TopK<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) -> usize {
        let Self { logits, best } = self;
        let (blocks, rest) = logits.as_chunks::<LANES>();
        let mut found = 0;
        let mut threshold = f32::NEG_INFINITY;
        for (index, block) in blocks.iter().enumerate() {
            if lanes.any_greater(lanes.load(block), lanes.splat(threshold)) {
                threshold = insert_all(best, &mut found, index * LANES, block);
            }
        }
        insert_all(best, &mut found, logits.len() - rest.len(), rest);
        found
    }
}

/// Puts those of `logits` that belong there into `best[..found]`, which is sorted; returns what a logit must exceed.
fn insert_all(best: &mut [Scored], found: &mut usize, first: usize, logits: &[f32]) -> f32 {
    let threshold = |best: &[Scored], found: usize| match best.last() {
        Some(last) if found == best.len() => last.logit,
        _ => f32::NEG_INFINITY,
    };
    for (offset, &logit) in logits.iter().enumerate() {
        if logit > threshold(best, *found) {
            let place = best.iter().take(*found).position(|other| other.logit < logit).unwrap_or(*found);
            *found = best.len().min(*found + 1);
            if let Some(moved) = best.get_mut(place..*found) {
                moved.rotate_right(1);
                if let Some(slot) = moved.first_mut() {
                    *slot = Scored { index: first + offset, logit };
                }
            }
        }
    }
    threshold(best, *found)
}

impl Kernels {
    /// `e^x` of each value over their sum, in place. A NaN or plus infinity makes every value NaN.
    pub fn softmax(self, values: &mut [f32]) {
        self.run(Softmax(values));
    }

    /// The largest of `logits` and the logarithm of the sum of their exponentials, absolute error below 1e-5.
    /// With a NaN among them, the first NaN is the peak.
    ///
    /// # Errors
    /// When `logits` is empty.
    pub fn peak(self, logits: &[f32]) -> Result<Peak, KernelError> {
        KernelError::check_range("logits", logits.len(), 1, usize::MAX)?;
        Ok(self.run(FindPeak(logits)))
    }

    /// The `best.len()` (at most 16) largest of `logits`, largest first, of equals the first one first. Returns how many
    /// there are; NaN and minus infinity are never among them.
    ///
    /// # Errors
    /// When `best` is empty or longer than 16.
    pub fn top_k(self, logits: &[f32], best: &mut [Scored]) -> Result<usize, KernelError> {
        KernelError::check_range("best", best.len(), 1, MAX_TOP)?;
        Ok(self.run(TopK { logits, best }))
    }
}
