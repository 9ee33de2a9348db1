//! Attention over an int8 cache against f64 on the same int8 values.

use std::vec;
use std::vec::Vec;

use super::attention::{doubles, naive};
use super::{Random, every, same_bits};
use crate::{AttentionShape, Cache, CacheMut, Kernels, Rows};

/// An owned cache.
#[derive(Clone, PartialEq, Debug)]
struct Stored {
    values: Vec<i8>,
    scales: Vec<f32>,
    capacity: usize,
}

impl Stored {
    fn new(heads: usize, head_width: usize, capacity: usize) -> Self {
        // Not zero, so that reading what was never written shows.
        Self {
            values: vec![99; heads * head_width * capacity],
            scales: vec![f32::NAN; heads * capacity],
            capacity,
        }
    }

    fn view(&self) -> Cache<'_> {
        Cache { values: &self.values, scales: &self.scales, capacity: self.capacity }
    }

    fn view_mut(&mut self) -> CacheMut<'_> {
        CacheMut { values: &mut self.values, scales: &mut self.scales, capacity: self.capacity }
    }

    fn value(&self, head_width: usize, head: usize, dim: usize, frame: usize) -> f64 {
        let value = self.values[(head * head_width + dim) * self.capacity + frame];
        f64::from(value) * f64::from(self.scales[head * self.capacity + frame])
    }
}

/// Writes `frames` rows, in groups of `group`.
fn write(
    kernels: Kernels,
    rows: &[f32],
    frames: usize,
    heads: usize,
    head_width: usize,
    group: usize,
) -> Stored {
    let mut stored = Stored::new(heads, head_width, frames.next_multiple_of(16) + 16);
    let stride = heads * head_width;
    let mut first = 0;
    while first < frames {
        let count = group.min(frames - first);
        let rows = Rows { values: &rows[first * stride..], stride };
        let result = kernels.cache_write(rows, count, heads, head_width, first, stored.view_mut());
        assert_eq!(result, Ok(()));
        first += count;
    }
    stored
}

#[test]
fn rows_are_quantized_to_the_nearest() {
    let mut random = Random(9);
    for kernels in every() {
        for (heads, head_width, frames) in [(1, 1, 1), (2, 36, 20), (3, 17, 33), (1, 256, 16)] {
            let rows = random.floats(frames * heads * head_width);
            let single = write(kernels, &rows, frames, heads, head_width, 1);
            for group in [3, 16] {
                let stored = write(kernels, &rows, frames, heads, head_width, group);
                for row in 0..heads * head_width {
                    let part = |stored: &Stored| stored.values[row * stored.capacity..][..frames].to_vec();
                    assert_eq!(part(&stored), part(&single), "groups of {group}");
                }
            }
            for frame in 0..frames {
                for head in 0..heads {
                    let scale = f64::from(single.scales[head * single.capacity + frame]);
                    for dim in 0..head_width {
                        let exact = f64::from(rows[(frame * heads + head) * head_width + dim]);
                        let error = single.value(head_width, head, dim, frame) - exact;
                        assert!(error.abs() <= scale * 0.5001, "{error} {scale}");
                    }
                }
            }
        }
        let rows = [0.0, 0.0, 1.0, f32::INFINITY, f32::NAN, 2.0, 1e-45, 0.0, -f32::NAN, f32::NAN];
        let stored = write(kernels, &rows, 1, 5, 2, 1);
        let columns: Vec<i8> = stored.values.iter().step_by(stored.capacity).copied().collect();
        assert_eq!(columns[..6], [0, 0, 0, 0, 0, 127]);
        assert_eq!(columns[8..], [0, 0]);
    }
}

#[test]
fn cached_attention_matches_f64() {
    let mut random = Random(10);
    for (heads, head_width, frames) in
        [(1, 1, 1), (2, 36, 20), (8, 36, 100), (3, 17, 64), (1, 256, 129), (2, 6, 15)]
    {
        let width = heads * head_width;
        let shape = AttentionShape { heads, head_width, scale: 1.0 / (head_width as f32).sqrt() };
        let query: Vec<f32> = random.floats(width).iter().map(|x| x * 4.0).collect();
        let (keys, values) = (random.floats(frames * width), random.floats(frames * width));
        let attend = |kernels: Kernels| {
            let keys = write(kernels, &keys, frames, heads, head_width, 16);
            let values = write(kernels, &values, frames, heads, head_width, 1);
            let mut probabilities = vec![7.0; heads * keys.capacity];
            let (mut scratch, mut out) = (vec![f32::NAN; keys.capacity], vec![7.0; width]);
            let result = kernels.attend_cached(
                &shape,
                &query,
                keys.view(),
                values.view(),
                frames,
                &mut probabilities,
                &mut scratch,
                &mut out,
            );
            assert_eq!(result, Ok(()));
            let positions: Vec<u16> = (0..frames as u16).collect();
            let mut gathered = vec![7.0; width];
            let direct = probabilities.clone();
            let result = kernels.attend_cached_gather(
                &shape,
                &query,
                keys.view(),
                values.view(),
                &positions,
                &mut probabilities,
                &mut scratch,
                &mut gathered,
            );
            assert_eq!(result, Ok(()));
            assert_eq!(super::bits(&gathered), super::bits(&out));
            assert_eq!(super::bits(&direct), super::bits(&probabilities));
            out.extend(probabilities);
            out
        };
        same_bits("attend_cached", attend);
        let result = attend(Kernels::detect());
        let (out, probabilities) = result.split_at(width);
        let keys = write(Kernels::detect(), &keys, frames, heads, head_width, 16);
        let values = write(Kernels::detect(), &values, frames, heads, head_width, 16);
        for head in 0..heads {
            let row = |stored: &Stored, frame| {
                (0..head_width).map(|dim| stored.value(head_width, head, dim, frame)).collect()
            };
            let keys_of_head: Vec<Vec<f64>> = (0..frames).map(|frame| row(&keys, frame)).collect();
            let values_of_head: Vec<Vec<f64>> = (0..frames).map(|frame| row(&values, frame)).collect();
            let query = doubles(&query[head * head_width..][..head_width]);
            let (expected, exact) = naive(&query, &keys_of_head, &values_of_head, f64::from(shape.scale));
            for (given, expected) in out[head * head_width..].iter().zip(expected) {
                assert!((f64::from(*given) - expected).abs() < 1e-4, "{given} {expected}");
            }
            let row = &probabilities[head * keys.capacity..][..keys.capacity];
            for (given, expected) in row.iter().zip(exact) {
                assert!((f64::from(*given) / expected - 1.0).abs() < 1e-3, "{given} {expected}");
            }
            assert!(row[frames..frames.next_multiple_of(16)].iter().all(|padding| *padding == 0.0));
        }
    }
}

#[test]
fn gathered_frames_are_those_of_a_copied_cache() {
    let mut random = Random(11);
    let (heads, head_width, frames) = (2, 20, 40);
    let shape = AttentionShape { heads, head_width, scale: 0.2 };
    let width = heads * head_width;
    let (query, rows) = (random.floats(width), random.floats(frames * width));
    let positions: Vec<u16> = (0..23).map(|t| (t * 7 % 40) as u16).collect();
    let chosen: Vec<f32> =
        positions.iter().flat_map(|&place| rows[usize::from(place) * width..][..width].to_vec()).collect();
    same_bits("attend_cached_gather", |kernels| {
        let cache = write(kernels, &rows, frames, heads, head_width, 16);
        let copy = write(kernels, &chosen, positions.len(), heads, head_width, 1);
        let (mut probabilities, mut scratch) = (vec![0.0; heads * cache.capacity], vec![0.0; cache.capacity]);
        let (mut gathered, mut direct) = (vec![0.0; width], vec![0.0; width]);
        let result = kernels.attend_cached_gather(
            &shape,
            &query,
            cache.view(),
            cache.view(),
            &positions,
            &mut probabilities,
            &mut scratch,
            &mut gathered,
        );
        assert_eq!(result, Ok(()));
        let result = kernels.attend_cached(
            &shape,
            &query,
            copy.view(),
            copy.view(),
            positions.len(),
            &mut probabilities,
            &mut scratch,
            &mut direct,
        );
        assert_eq!(result, Ok(()));
        assert_eq!(super::bits(&gathered), super::bits(&direct));
        gathered
    });
}

#[test]
fn caches_that_do_not_fit_are_refused() {
    let kernels = Kernels::detect();
    let mut stored = Stored::new(2, 4, 32);
    let row = [0.5; 8];
    let rows = Rows { values: &row, stride: 8 };
    assert!(kernels.cache_write(rows, 1, 2, 4, 31, stored.view_mut()).is_ok());
    assert!(kernels.cache_write(rows, 1, 2, 4, 32, stored.view_mut()).is_err());
    assert!(kernels.cache_write(rows, 2, 2, 4, 0, stored.view_mut()).is_err());
    assert!(kernels.cache_write(rows, 1, 2, 5, 0, stored.view_mut()).is_err());
    assert!(kernels.cache_write(rows, 1, 2, 4, 0, CacheMut { capacity: 24, ..stored.view_mut() }).is_err());
    let shape = AttentionShape { heads: 2, head_width: 4, scale: 1.0 };
    let attend = |frames, probabilities: usize, scratch: usize, out: usize| {
        let cache = stored.view();
        let (mut probabilities, mut scratch, mut out) =
            (vec![0.0; probabilities], vec![0.0; scratch], vec![0.0; out]);
        kernels
            .attend_cached(&shape, &row, cache, cache, frames, &mut probabilities, &mut scratch, &mut out)
            .is_ok()
    };
    assert!(attend(32, 64, 32, 8));
    assert!(!attend(33, 64, 32, 8));
    assert!(!attend(0, 64, 32, 8));
    assert!(!attend(32, 63, 32, 8));
    assert!(!attend(32, 64, 31, 8));
    assert!(!attend(32, 64, 32, 7));
    let cache = stored.view();
    let (mut probabilities, mut scratch, mut out) = ([0.0; 64], [0.0; 32], [0.0; 8]);
    let result = kernels.attend_cached_gather(
        &shape,
        &row,
        cache,
        cache,
        &[0, 32],
        &mut probabilities,
        &mut scratch,
        &mut out,
    );
    assert!(result.is_err());
}
