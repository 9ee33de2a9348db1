//! Frames merged between blocks of the encoder: the blocks behind have fewer to work on.

use crate::error::Error;
use crate::project::{part, part_mut};

/// Replaces `[frames, width]` by the means of each `count` frames, the last by that of those that are left, and returns how many
/// there are. Sums are made from the first frame on and multiplied by one over the number of frames: the same bits everywhere.
pub(crate) fn merge_frames(
    states: &mut [f32],
    frames: usize,
    width: usize,
    count: usize,
) -> Result<usize, Error> {
    if count == 1 {
        return Ok(frames);
    }
    let states = part_mut(states, 0, frames * width)?;
    for frame in 0..frames {
        let (merged, place) = (frame / count, frame % count);
        if place == 0 {
            states.copy_within(frame * width..(frame + 1) * width, merged * width);
        } else {
            let (before, own) = states.split_at_mut(frame * width);
            let sums = part_mut(before, merged * width, width)?;
            for (sum, value) in sums.iter_mut().zip(part(own, 0, width)?) {
                *sum += value;
            }
        }
        if place + 1 == count || frame + 1 == frames {
            let share = 1.0 / (place + 1) as f32;
            for value in part_mut(states, merged * width, width)? {
                *value *= share;
            }
        }
    }
    Ok(frames.div_ceil(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn frames_become_means_and_the_last_one_of_those_that_are_left() {
        let states = || -> Vec<f32> { [0, 10, 2, 30, 7, 50, 1, 70, 5, 90].map(|value| value as f32).into() };
        for (count, frames, want) in [
            (1, 5, &[0.0, 10.0, 2.0, 30.0, 7.0, 50.0, 1.0, 70.0, 5.0, 90.0][..]),
            (2, 5, &[1.0, 20.0, 4.0, 60.0, 5.0, 90.0]),
            (3, 5, &[3.0, 30.0, 3.0, 80.0]),
            (16, 5, &[3.0, 50.0]),
            (2, 4, &[1.0, 20.0, 4.0, 60.0]),
            (2, 1, &[0.0, 10.0]),
            (2, 0, &[]),
        ] {
            let mut states = states();
            let merged = merge_frames(&mut states, frames, 2, count).expect("there are so many");
            assert_eq!(&states[..2 * merged], want, "{frames} frames by {count}");
        }
        assert!(merge_frames(&mut states(), 6, 2, 2).is_err());
    }

    #[test]
    fn sums_are_made_from_the_first_frame_on() {
        let large = 2f32.powi(24);
        let mut states = [large, 1.0, 1.0];
        merge_frames(&mut states, 3, 1, 3).expect("three frames");
        assert_eq!(states[0], large * (1.0 / 3.0), "from the last on it would be two more");
    }
}
