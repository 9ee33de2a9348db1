//! Times of tokens from cross-attention: the monotonic path through `[tokens][frames]` with the largest sum.

/// Attention is kept in seven bits of a byte; the eighth notes where the best path came from.
const WEIGHT: u8 = 0x7f;
const ADVANCED: u8 = 0x80;
/// A token lasts over those frames of its stretch whose attention is at least this share of its largest.
const LEAST_SHARE: u32 = 8;

/// Stores one row of attention, largest value scaled to the whole range.
pub(crate) fn store_row(attention: &[f32], row: &mut [u8]) {
    let largest = attention.iter().fold(1e-9f32, |largest, &value| largest.max(value));
    for (byte, &value) in row.iter_mut().zip(attention) {
        *byte = (value / largest * f32::from(WEIGHT)) as u8 & WEIGHT;
    }
}

/// Finds for each token `i`, whose attention is `rows[row_of(i)][..frames]` with `capacity` bytes a row, the frames
/// `[first, last]` that it spans. `sums` is room for one value a frame. Rows are used up.
pub(crate) fn align(
    rows: &mut [u8],
    capacity: usize,
    frames: usize,
    row_of: &dyn Fn(usize) -> usize,
    sums: &mut [f32],
    spans: &mut [[u32; 2]],
) {
    let tokens = spans.len();
    let Some(sums) = sums.get_mut(..frames).filter(|sums| !sums.is_empty()) else { return };
    let row_range = |token: usize| {
        let start = row_of(token).saturating_mul(capacity);
        start..start.saturating_add(frames)
    };
    for token in 0..tokens {
        let Some(row) = rows.get_mut(row_range(token)) else { return };
        accumulate(row, token, sums);
    }
    let mut frame = frames - 1;
    for token in (0..tokens).rev() {
        let Some(row) = rows.get(row_range(token)) else { return };
        let end = frame;
        while frame > 0 && row.get(frame).is_some_and(|byte| byte & ADVANCED == 0) {
            frame -= 1;
        }
        if let Some(span) = spans.get_mut(token) {
            *span = loud_part(row, frame, end);
        }
        // The first frame of this token came from the frame before it, which belongs to the token before.
        frame = frame.saturating_sub(1);
    }
}

/// One row of the path search: `sums[t]` becomes the best sum of a path that ends with this token at frame `t`.
fn accumulate(row: &mut [u8], token: usize, sums: &mut [f32]) {
    let mut diagonal = f32::NEG_INFINITY;
    let mut stay = f32::NEG_INFINITY;
    for (frame, (byte, sum)) in row.iter_mut().zip(sums.iter_mut()).enumerate() {
        let weight = f32::from(*byte & WEIGHT);
        let advance = match (token, frame) {
            (0, 0) => 0.0,
            (0, _) => f32::NEG_INFINITY,
            _ => diagonal,
        };
        diagonal = *sum;
        let advanced = advance > stay;
        stay = weight + if advanced { advance } else { stay };
        *sum = stay;
        *byte = (*byte & WEIGHT) | if advanced { ADVANCED } else { 0 };
    }
}

/// The first and last frame of `first..=last` with enough attention.
fn loud_part(row: &[u8], first: usize, last: usize) -> [u32; 2] {
    let weight = |frame: usize| row.get(frame).map_or(0, |byte| u32::from(byte & WEIGHT));
    let largest = (first..=last).map(weight).max().unwrap_or(0);
    let loud = |frame: &usize| weight(*frame) * LEAST_SHARE >= largest;
    let begin = (first..=last).find(loud).unwrap_or(first);
    let end = (first..=last).rev().find(loud).unwrap_or(last);
    [begin as u32, end as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_diagonal() {
        let mut rows = [0u8; 3 * 6];
        for (token, frame) in [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)] {
            rows[token * 6 + frame] = 100;
        }
        let mut sums = [0.0; 6];
        let mut spans = [[0; 2]; 3];
        align(&mut rows, 6, 6, &|token| token, &mut sums, &mut spans);
        assert_eq!(spans, [[0, 1], [2, 3], [4, 5]]);
    }

    #[test]
    fn quiet_frames_belong_to_no_token() {
        let mut rows = [0u8; 2 * 8];
        rows[1] = 127;
        rows[8 + 6] = 127;
        let (mut sums, mut spans) = ([0.0; 8], [[0; 2]; 2]);
        align(&mut rows, 8, 8, &|token| token, &mut sums, &mut spans);
        assert_eq!(spans, [[1, 1], [6, 6]]);
    }

    #[test]
    fn more_tokens_than_frames_stay_in_range() {
        let mut rows = [50u8; 5 * 2];
        let (mut sums, mut spans) = ([0.0; 2], [[9; 2]; 5]);
        align(&mut rows, 2, 2, &|token| token, &mut sums, &mut spans);
        assert!(spans.iter().all(|[first, last]| first <= last && *last < 2));
    }
}
