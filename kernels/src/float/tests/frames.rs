//! Attention over int8 frames against f64, and its products against plain sums.

use std::ops::Range;
use std::vec;
use std::vec::Vec;

use super::attention::{doubles, naive};
use super::{Random, every, same_bits};
use crate::float::lanes::{LANES, Lanes, Operation, Run};
use crate::{
    AttentionShape, FrameCache, FrameCacheMut, Kernels, Rows, frame_cache_bytes, frame_cache_scales,
    frame_scratch, frame_scratch_bytes,
};

/// An owned cache.
#[derive(Clone, PartialEq, Debug)]
struct Stored {
    shape: AttentionShape,
    keys: Vec<i8>,
    values: Vec<i8>,
    scales: Vec<f32>,
    capacity: usize,
}

impl Stored {
    fn new(shape: AttentionShape, capacity: usize) -> Self {
        // Not zero, so that reading what was never written shows.
        let bytes = vec![99; frame_cache_bytes(shape.heads, shape.head_width, capacity)];
        let scales = vec![f32::NAN; frame_cache_scales(shape.heads, capacity)];
        Self { shape, keys: bytes.clone(), values: bytes, scales, capacity }
    }

    fn view(&self) -> FrameCache<'_> {
        FrameCache { keys: &self.keys, values: &self.values, scales: &self.scales, capacity: self.capacity }
    }

    fn view_mut(&mut self) -> FrameCacheMut<'_> {
        FrameCacheMut {
            keys: &mut self.keys,
            values: &mut self.values,
            scales: &mut self.scales,
            capacity: self.capacity,
        }
    }

    /// Puts rows of both into the columns from `first` on, `group` at a time.
    fn keep(&mut self, kernels: Kernels, keys: &[f32], values: &[f32], first: usize, group: usize) {
        let stride = self.shape.heads * self.shape.head_width;
        let shape = self.shape;
        let pieces = keys.chunks(group * stride).zip(values.chunks(group * stride));
        for (index, (keys, values)) in pieces.enumerate() {
            let rows = |values| Rows { values, stride };
            let count = keys.len() / stride;
            let (keys, values) = (rows(keys), rows(values));
            let result =
                kernels.keep_frames(&shape, keys, values, count, first + index * group, self.view_mut());
            assert_eq!(result, Ok(()));
        }
    }

    /// The key and the value that stand for one number of a frame, as the layout in the documentation says.
    fn kept(&self, head: usize, frame: usize, dim: usize) -> (f64, f64) {
        let AttentionShape { heads, head_width, .. } = self.shape;
        let (blocks, capacity) = (head_width.div_ceil(4), self.capacity);
        let key = (((head * capacity / 4 + frame / 4) * blocks + dim / 4) * 4 + frame % 4) * 4 + dim % 4;
        let value = (((head * blocks + dim / 4) * capacity / 4 + frame / 4) * 4 + dim % 4) * 4 + frame % 4;
        let scale = |part: usize| f64::from(self.scales[(part * heads + head) * capacity + frame]);
        assert!((scale(1).exp2() * scale(2) - 1.0).abs() < 1e-5, "{head} {frame}");
        (f64::from(self.keys[key]) * scale(0), f64::from(self.values[value]) / scale(2))
    }
}

fn attend(
    kernels: Kernels,
    stored: &Stored,
    query: &[f32],
    queries: usize,
    frames: Range<usize>,
) -> Vec<f32> {
    let width = stored.shape.heads * stored.shape.head_width;
    let mut out = vec![7.0; queries * (width + 1)];
    let mut scratch = vec![f32::NAN; frame_scratch(frames.len())];
    let mut bytes = vec![99; frame_scratch_bytes(frames.len())];
    let result = kernels.attend_frames(
        &stored.shape,
        Rows { values: query, stride: width },
        queries,
        stored.view(),
        frames,
        &mut scratch,
        &mut bytes,
        &mut out,
        width + 1,
    );
    assert_eq!(result, Ok(()));
    assert!(out.chunks(width + 1).all(|row| row[width] == 7.0), "written beyond the row");
    out
}

fn shape(heads: usize, head_width: usize) -> AttentionShape {
    AttentionShape { heads, head_width, scale: 1.0 / (head_width as f32).sqrt() }
}

/// The products of the blocks of rows and columns that are in `runs`, `[4][16]`.
struct Products<'a> {
    rows: &'a [i8],
    columns: &'a [i8],
    runs: &'a [Run],
}

impl Operation for Products<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) -> Vec<f32> {
        let blocks = self.rows.len() / 16;
        assert_eq!(self.columns.len(), 64 * blocks);
        assert!(self.runs.iter().all(|run| run.blocks > 0 && run.first + run.blocks <= blocks));
        // SAFETY: as many blocks of both, and all runs are in them.
        let sums = unsafe { lanes.multiply_quads(self.rows.as_ptr(), self.columns.as_ptr(), self.runs) };
        let mut floats = [[0.0; LANES]; 4];
        for row in 0..4 {
            lanes.store(lanes.sums_to_floats(sums[row]), &mut floats[row]);
        }
        floats.concat()
    }
}

#[test]
fn products_are_exact_sums() {
    let mut random = Random(11);
    for blocks in [1, 2, 3, 8, 9, 97] {
        for extreme in [None, Some((127, 127)), Some((-127, -128)), Some((127, -128)), Some((-127, 127))] {
            let mut bytes = |count: usize, lowest: i8, value: Option<i8>| -> Vec<i8> {
                (0..count).map(|_| value.unwrap_or((random.bits() >> 24) as i8).max(lowest)).collect()
            };
            let rows = bytes(16 * blocks, -127, extreme.map(|(row, _)| row));
            let columns = bytes(64 * blocks, -128, extreme.map(|(_, column)| column));
            let all = [Run { first: 0, blocks }];
            let third = blocks / 3;
            let some = [Run { first: 0, blocks: third }, Run { first: blocks - third, blocks: third }];
            for runs in [&all[..], if third > 0 { &some[..] } else { &[] }] {
                let mut expected = Vec::new();
                for row in 0..4 {
                    for column in 0..LANES {
                        let blocks = runs.iter().flat_map(|run| run.first..run.first + run.blocks);
                        let products =
                            blocks.flat_map(|block| (0..4).map(move |k| (block, k))).map(|(block, k)| {
                                i32::from(rows[(block * 4 + row) * 4 + k])
                                    * i32::from(columns[(block * LANES + column) * 4 + k])
                            });
                        expected.push(products.sum::<i32>() as f32);
                    }
                }
                for kernels in every() {
                    let sums = kernels.run_products(Products { rows: &rows, columns: &columns, runs });
                    assert_eq!(sums, expected, "{} {blocks}", kernels.instruction_set());
                }
            }
        }
    }
}

#[test]
fn frames_are_kept_to_the_nearest_whatever_the_groups() {
    let mut random = Random(12);
    for kernels in every() {
        for (heads, head_width, frames) in [(1, 1, 1), (2, 36, 37), (3, 17, 33), (1, 256, 16), (2, 6, 50)] {
            let shape = shape(heads, head_width);
            let width = heads * head_width;
            let (keys, values) = (random.floats(frames * width), random.floats(frames * width));
            let mut single = Stored::new(shape, frames.next_multiple_of(16) + 16);
            single.keep(kernels, &keys, &values, 0, 1);
            for group in [3, 16, 32] {
                let mut stored = Stored::new(shape, single.capacity);
                stored.keep(kernels, &keys, &values, 0, group);
                assert_eq!(
                    (&stored.keys, &stored.values),
                    (&single.keys, &single.values),
                    "groups of {group}"
                );
            }
            for frame in 0..frames {
                for head in 0..heads {
                    let part =
                        |rows: &[f32]| doubles(&rows[frame * width + head * head_width..][..head_width]);
                    let (keys, values) = (part(&keys), part(&values));
                    let step = |row: &[f64]| row.iter().fold(0.0, |most: f64, x| most.max(x.abs())) / 127.0;
                    for dim in 0..head_width {
                        let (key, value) = single.kept(head, frame, dim);
                        assert!((key - keys[dim]).abs() <= 0.501 * step(&keys), "{head} {frame} {dim}");
                        assert!((value - values[dim]).abs() <= 0.501 * step(&values), "{head} {frame} {dim}");
                    }
                }
            }
        }
    }
}

#[test]
fn attend_frames_matches_f64() {
    let mut random = Random(13);
    let shapes = [
        (1, 1, 1, 1, 0..1),
        (2, 36, 16, 23, 0..23),
        (3, 5, 7, 50, 13..50),
        (1, 64, 3, 12, 0..12),
        (2, 256, 16, 9, 1..8),
        (8, 36, 16, 61, 0..61),
        (1, 18, 15, 30, 2..29),
        (1, 36, 16, 300, 0..300),
    ];
    for (heads, head_width, queries, rows, frames) in shapes {
        let shape = shape(heads, head_width);
        let width = heads * head_width;
        let query: Vec<f32> = random.floats(queries * width).iter().map(|x| x * 4.0).collect();
        let (keys, values) = (random.floats(rows * width), random.floats(rows * width));
        let run = |kernels: Kernels| {
            let mut stored = Stored::new(shape, rows.next_multiple_of(16));
            stored.keep(kernels, &keys, &values, 0, 16);
            attend(kernels, &stored, &query, queries, frames.clone())
        };
        same_bits("attend_frames", run);
        let out = run(Kernels::detect());
        let mut stored = Stored::new(shape, rows.next_multiple_of(16));
        stored.keep(Kernels::detect(), &keys, &values, 0, 16);
        for row in 0..queries {
            for head in 0..heads {
                let query = doubles(&query[row * width + head * head_width..][..head_width]);
                // The query as int8, as it is multiplied.
                let step = query.iter().fold(0.0, |most: f64, x| most.max(x.abs())) / 127.0;
                let query: Vec<f64> = query.iter().map(|x| (x / step).round() * step).collect();
                let stored = &stored;
                let kept = |frame, dim| stored.kept(head, frame, dim);
                let part = |take: fn((f64, f64)) -> f64| -> Vec<Vec<f64>> {
                    let row = |frame| (0..head_width).map(|dim| take(kept(frame, dim))).collect();
                    frames.clone().map(row).collect()
                };
                let (keys, values) = (part(|(key, _)| key), part(|(_, value)| value));
                let (expected, probabilities) = naive(&query, &keys, &values, f64::from(shape.scale));
                // Half a step of each probability, and what the power is wrong by.
                let largest = probabilities.iter().copied().fold(0.0, f64::max);
                let bound = 0.009 + frames.len() as f64 * largest / 126.0 / 2.0;
                for (dim, expected) in expected.iter().enumerate() {
                    let given = f64::from(out[row * (width + 1) + head * head_width + dim]);
                    assert!((given - expected).abs() < bound, "{heads} {head_width}: {given} {expected}");
                }
            }
        }
    }
}

/// Rounding is to the nearest, so its errors cancel: the mean over many queries is far below the bound of one.
#[test]
fn attend_frames_is_right_on_average() {
    let mut random = Random(14);
    let (shape, frames) = (shape(4, 36), 388);
    let width = 4 * 36;
    let query: Vec<f32> = random.floats(16 * width).iter().map(|x| x * 6.0).collect();
    let (keys, values) = (random.floats(frames * width), random.floats(frames * width));
    let mut stored = Stored::new(shape, frames.next_multiple_of(16));
    stored.keep(Kernels::detect(), &keys, &values, 0, 32);
    let out = attend(Kernels::detect(), &stored, &query, 16, 0..frames);
    let (mut error, mut size) = (0.0, 0.0);
    for row in 0..16 {
        for head in 0..4 {
            let part = |rows: &[f32], row: usize| doubles(&rows[row * width + head * 36..][..36]);
            let keys: Vec<_> = (0..frames).map(|frame| part(&keys, frame)).collect();
            let values: Vec<_> = (0..frames).map(|frame| part(&values, frame)).collect();
            let (expected, _) = naive(&part(&query, row), &keys, &values, f64::from(shape.scale));
            for (dim, expected) in expected.into_iter().enumerate() {
                let given = f64::from(out[row * (width + 1) + head * 36 + dim]);
                error += (given - expected).powi(2);
                size += expected.powi(2);
            }
        }
    }
    assert!((error / size).sqrt() < 0.04, "{}", (error / size).sqrt());
}

/// Frames that no query attends to are left out, in more stretches than are told apart too.
#[test]
fn attend_frames_leaves_out_what_has_no_weight() {
    let mut random = Random(16);
    let shape = AttentionShape { heads: 1, head_width: 4, scale: 1.0 };
    for (frames, period) in [(40, 8), (40, 16), (100, 100), (320, 8)] {
        let seen = |frame: usize| frame % period >= period / 2;
        let keys: Vec<f32> =
            (0..frames).flat_map(|frame| [if seen(frame) { 20.0 } else { -20.0 }, 0.0, 0.0, 0.0]).collect();
        let values = random.floats(frames * 4);
        let query = [1.0, 0.0, 0.0, 0.0].repeat(16);
        let run = |kernels: Kernels| {
            let mut stored = Stored::new(shape, frames.next_multiple_of(16));
            stored.keep(kernels, &keys, &values, 0, 16);
            attend(kernels, &stored, &query, 16, 0..frames)
        };
        same_bits("attend_frames", run);
        let out = run(Kernels::detect());
        let count = (0..frames).filter(|frame| seen(*frame)).count() as f32;
        for dim in 0..4 {
            let mean =
                (0..frames).filter(|frame| seen(*frame)).map(|frame| values[frame * 4 + dim]).sum::<f32>()
                    / count;
            for row in out.chunks(5) {
                assert!((row[dim] - mean).abs() < 0.02, "{frames} {period}: {} {mean}", row[dim]);
            }
        }
    }
}

/// Where the frames stand in the cache, and what stands beside them, changes no bit.
#[test]
fn attend_frames_wherever_they_stand() {
    let mut random = Random(15);
    let shape = shape(2, 6);
    let (keys, values) = (random.floats(21 * 12), random.floats(21 * 12));
    let query = random.floats(5 * 12);
    for kernels in every() {
        let at = |first: usize| {
            let mut stored = Stored::new(shape, 48);
            stored.keep(kernels, &keys, &values, first, 7);
            stored
        };
        let want = attend(kernels, &at(0), &query, 5, 0..21);
        for first in [1, 2, 3, 4, 17] {
            assert_eq!(attend(kernels, &at(first), &query, 5, first..first + 21), want, "from {first}");
        }
        let mut moved = at(18);
        assert_eq!(moved.view_mut().drop_frames(&shape, 16), Ok(()));
        assert_eq!(attend(kernels, &moved, &query, 5, 2..23), want);
        let one = attend(kernels, &at(0), &query, 1, 0..21);
        assert_eq!(one[..12], want[..12], "one query alone");
    }
}

#[test]
fn attend_frames_survives_any_values() {
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, -3e38, 1e20, 1e-40] {
        for place in [0, 5, 8 * 9] {
            same_bits("attend_frames", |kernels| {
                let shape = AttentionShape { heads: 1, head_width: 8, scale: 1.0 };
                let mut keys = vec![0.25; 8 * 10];
                keys[place] = special;
                let query: Vec<f32> = (0..16 * 8).map(|i| i as f32 - 60.0).collect();
                let mut stored = Stored::new(shape, 16);
                stored.keep(kernels, &keys, &keys, 0, 16);
                let mut out = attend(kernels, &stored, &query, 16, 0..10);
                let mut strange = vec![0.5; 8];
                strange[place % 8] = special;
                out.extend(attend(kernels, &stored, &strange, 1, 0..10));
                out
            });
        }
    }
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let kernels = Kernels::detect();
    let good = shape(2, 5);
    let data = [0.5; 30];
    let keep = |count, first, capacity: usize, bytes: usize, scales: usize| {
        let (mut keys, mut values, mut scales) = (vec![0; bytes], vec![0; bytes], vec![0.0; scales]);
        let rows = Rows { values: &data, stride: 10 };
        let cache = FrameCacheMut { keys: &mut keys, values: &mut values, scales: &mut scales, capacity };
        kernels.keep_frames(&good, rows, rows, count, first, cache).is_ok()
    };
    assert!(keep(3, 13, 16, 256, 96));
    assert!(!keep(4, 0, 16, 256, 96));
    assert!(!keep(3, 14, 16, 256, 96));
    assert!(!keep(3, usize::MAX, 16, 256, 96));
    assert!(!keep(3, 13, 16, 255, 96));
    assert!(!keep(3, 13, 16, 256, 95));
    assert!(!keep(3, 13, 20, 1000, 1000));
    let attend = |shape: AttentionShape, queries, frames: Range<usize>, scratch, bytes, out: usize| {
        let stored = Stored::new(good, 16);
        let query = Rows { values: &data, stride: 10 };
        let (mut scratch, mut bytes, mut out) = (vec![0.0; scratch], vec![0; bytes], vec![0.0; out]);
        let (scratch, bytes) = (&mut scratch, &mut bytes);
        kernels
            .attend_frames(&shape, query, queries, stored.view(), frames, scratch, bytes, &mut out, 10)
            .is_ok()
    };
    let (scratch, bytes) = (frame_scratch(16), frame_scratch_bytes(16));
    assert!(attend(good, 3, 0..16, scratch, bytes, 30));
    assert!(!attend(good, 0, 0..16, scratch, bytes, 30));
    assert!(!attend(good, 4, 0..16, scratch, bytes, 40));
    assert!(!attend(good, 3, 0..17, frame_scratch(17), frame_scratch_bytes(17), 30));
    assert!(!attend(good, 3, 5..5, scratch, bytes, 30));
    assert!(!attend(good, 3, 0..16, scratch - 1, bytes, 30));
    assert!(!attend(good, 3, 0..16, scratch, bytes - 1, 30));
    assert!(!attend(good, 3, 0..16, scratch, bytes, 29));
    assert!(!attend(AttentionShape { heads: 3, ..good }, 1, 0..16, scratch, bytes, 30));
    let mut stored = Stored::new(good, 16);
    assert!(stored.view_mut().drop_frames(&good, 2).is_err());
    assert!(stored.view_mut().drop_frames(&good, 20).is_err());
    assert!(stored.view_mut().drop_frames(&good, 16).is_ok());
}
