//! The symbols whose levels come closest to a sequence of weights: the Viterbi algorithm over the last four symbols.

use crate::trellis::{SYMBOLS, level};
use std::vec;
use std::vec::Vec;

/// Last four symbols, the latest in the lowest bits.
const STATES: usize = 1 << 12;
/// Last three of them.
const KEPT: usize = 1 << 9;
/// Levels that four bits hold, -8 and up.
const LEVELS: usize = 16;

/// Room for one search after the other.
pub(super) struct PathSearch {
    /// The level that each state names, 8 more than it.
    level_of: Vec<u8>,
    total: Vec<f32>,
    following: Vec<f32>,
    /// `[steps][KEPT]`: the symbol before the last three on the best way to them.
    before: Vec<[u8; KEPT]>,
}

impl PathSearch {
    pub(super) fn new() -> Self {
        let level_of = (0..STATES).map(|state| (level(state as u8 & 63, (state >> 6) as u8) + 8) as u8);
        let level_of = level_of.collect();
        Self { level_of, total: vec![0.0; STATES], following: vec![0.0; STATES], before: Vec::new() }
    }

    /// The symbols with the least sum of `cost * (level - wanted)²`, `wanted` in steps, each with its level.
    pub(super) fn path(&mut self, sequence: &[Wanted]) -> Vec<(u8, i8)> {
        self.total.fill(f32::INFINITY);
        self.total[0] = 0.0;
        self.before.resize(sequence.len(), [0; KEPT]);
        for (wanted, before) in sequence.iter().zip(&mut self.before) {
            let mut least = [f32::INFINITY; KEPT];
            for (symbol, totals) in (0..SYMBOLS).zip(self.total.chunks_exact(KEPT)) {
                for ((least, before), &total) in least.iter_mut().zip(before.iter_mut()).zip(totals) {
                    *before = if total < *least { symbol } else { *before };
                    *least = least.min(total);
                }
            }
            let error: [f32; LEVELS] =
                core::array::from_fn(|level| wanted.cost * (level as f32 - 8.0 - wanted.steps).powi(2));
            let states = self.following.iter_mut().zip(&self.level_of).enumerate();
            for (state, (following, &level)) in states {
                *following = least[state >> 3] + error[usize::from(level) % LEVELS];
            }
            core::mem::swap(&mut self.total, &mut self.following);
        }
        let last = (0..STATES).min_by(|&a, &b| self.total[a].total_cmp(&self.total[b]));
        let mut state = last.unwrap_or(0);
        let mut path: Vec<(u8, i8)> = self.before[..sequence.len()]
            .iter()
            .rev()
            .map(|before| {
                let found = (state as u8 % SYMBOLS, self.level_of[state] as i8 - 8);
                state = state >> 3 | usize::from(before[state >> 3]) << 9;
                found
            })
            .collect();
        path.reverse();
        path
    }
}

/// A weight in steps, and what the square of an error of it costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) steps: f32,
    pub(super) cost: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(count: usize) -> Vec<Wanted> {
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        // Nearly a normal distribution of variance 2.7².
        (0..count)
            .map(|_| Wanted { steps: 2.7 * (0..12).map(|_| uniform()).sum::<f32>(), cost: 1.0 })
            .collect()
    }

    #[test]
    fn levels_are_what_symbols_name() {
        let path = PathSearch::new().path(&random(50));
        let mut earlier = [0; 3];
        for (symbol, found) in path {
            assert_eq!(level(symbol | earlier[0] << 3, earlier[1] | earlier[2] << 3), found);
            earlier = [symbol, earlier[0], earlier[1]];
        }
    }

    #[test]
    fn a_path_is_found_again() {
        let mut search = PathSearch::new();
        let path = search.path(&random(70));
        let sequence: Vec<Wanted> =
            path.iter().map(|&(_, level)| Wanted { steps: f32::from(level), cost: 0.3 }).collect();
        let again = search.path(&sequence);
        assert!(path.iter().zip(&again).all(|((_, a), (_, b))| a == b));
    }

    /// A scalar quantizer of three bits loses 14.6 dB at best, what no code can pass is 18.1.
    #[test]
    fn noise_is_17_db_below_normally_distributed_weights() {
        let sequence = random(4000);
        let path = PathSearch::new().path(&sequence);
        let power: f32 = sequence.iter().map(|wanted| wanted.steps.powi(2)).sum();
        let noise: f32 = sequence
            .iter()
            .zip(&path)
            .map(|(wanted, &(_, level))| (wanted.steps - f32::from(level)).powi(2))
            .sum();
        let ratio = 10.0 * (power / noise).log10();
        assert!((16.8..17.6).contains(&ratio), "{ratio} dB");
    }

    #[test]
    fn nothing_has_no_symbols() {
        assert!(PathSearch::new().path(&[]).is_empty());
    }
}
