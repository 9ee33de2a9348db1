//! Times of two products that take turns.

use std::time::Instant;

use kinglet_kernels::{KernelError, Kernels, QuantizedRows};

use super::weights::Weights;

/// How long one half of a pair lasts at least, in nanoseconds.
const HALF: f64 = 500_000.0;
/// Floats in a line of the cache: results begin with one, as they do in the recogniser.
const LINE: usize = 16;

/// What a product is timed beside.
pub struct Pairs<'a> {
    pub kernels: Kernels,
    pub rows: &'a QuantizedRows<'a>,
    /// Pairs, of which the median counts.
    pub rounds: usize,
    pub dense: &'a Weights<'a>,
}

/// Medians.
pub struct Timing {
    /// One product.
    pub nanoseconds: f64,
    /// How much longer the dense product took, the quartiles of the pairs.
    pub speed_up: [f64; 3],
}

impl Pairs<'_> {
    /// Times products with `weights` and dense products in turn.
    pub fn time(&self, weights: &Weights<'_>) -> Result<Timing, KernelError> {
        let mut floats = vec![0.0; self.rows.rows() * weights.outputs() + LINE];
        let start = floats.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE);
        let out = floats.get_mut(start..).unwrap_or_default();
        let mut room = vec![0; Kernels::int3_room(self.rows.rows(), self.rows.inputs())];
        let mut multiply = |weights: &Weights<'_>, products| {
            time(products, || weights.multiply(self.kernels, self.rows, &mut room, out))
        };
        let dense_products = products(multiply(self.dense, 3)?);
        let own_products = products(multiply(weights, 3)?);
        let (mut own, mut ratios) = (Vec::with_capacity(self.rounds), Vec::with_capacity(self.rounds));
        for _ in 0..self.rounds {
            let dense = multiply(self.dense, dense_products)?;
            let nanoseconds = multiply(weights, own_products)?;
            own.push(nanoseconds);
            ratios.push(dense / nanoseconds);
        }
        std::hint::black_box(&floats);
        let [_, nanoseconds, _] = quartiles(own);
        Ok(Timing { nanoseconds, speed_up: quartiles(ratios) })
    }
}

/// The median time of one of many runs, in nanoseconds.
pub fn median(rounds: usize, mut run: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let count = products(time(3, &mut run)?);
    let times = (0..rounds).map(|_| time(count, &mut run)).collect::<Result<_, _>>()?;
    let [_, median, _] = quartiles(times);
    Ok(median)
}

/// How many products make half a pair.
fn products(nanoseconds: f64) -> u32 {
    (HALF / nanoseconds.max(1.0)).max(1.0) as u32
}

/// Nanoseconds of one of `count` runs.
fn time(count: u32, mut run: impl FnMut() -> Result<(), KernelError>) -> Result<f64, KernelError> {
    let start = Instant::now();
    for _ in 0..count {
        run()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(count))
}

/// First quartile, median, third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| {
        let place = quarter * values.len().saturating_sub(1) / 4;
        values.get(place).copied().unwrap_or(f64::NAN)
    })
}
