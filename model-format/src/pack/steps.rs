//! Weights rounded to int4 or int3: one scale an output, a multiplier for each output and group of inputs.

use super::error::PackError;
use super::lay_out::{RelativeError, largest};
use crate::matrix::{INPUT_PAD, MOST_GROUP_INPUTS, OUTPUT_BLOCK, ShortScale, round_up};
use crate::tensor::TensorKind;
use std::format;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

/// The largest multiplier.
pub(super) const MOST: u8 = 15;
/// How far, in steps, a weight may lie from the grid that it was trained on.
pub(super) const TOLERANCE: f32 = 1e-3;

/// The whole numbers of steps that weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// -8 to 7.
    Int4,
    /// The odd ones, -7 to 7: as many below zero as above.
    Int3,
}

impl Steps {
    /// The nearest to `steps`.
    fn nearest(self, steps: f32) -> f32 {
        match self {
            Self::Int4 => steps.round_ties_even().clamp(-8.0, 7.0),
            Self::Int3 => (2.0 * (steps / 2.0).floor() + 1.0).clamp(-7.0, 7.0),
        }
    }

    /// A value as a multiple of `step`.
    fn of(self, value: f32, step: f32) -> f32 {
        self.nearest(if step > 0.0 { value / step } else { 0.0 })
    }

    fn squared_error(self, row: &[f32], step: f32) -> f32 {
        row.iter().map(|&value| (self.of(value, step) * step - value).powi(2)).sum()
    }

    /// The step with the least squared error: the largest value is one to eight steps, or is clipped.
    fn best_step(self, row: &[f32]) -> f32 {
        let most = largest(row);
        let counts = (1..=8u8).map(f32::from).chain((0..24).map(|more| 7.0 + 0.25 * more as f32));
        let power: f32 = row.iter().map(|value| value.powi(2)).sum();
        let mut best = (f32::INFINITY, 0.0);
        for count in counts {
            let error = self.squared_error(row, most / count);
            // What is less by rounding alone is no better: on a grid the largest step counts.
            if error < best.0 - 1e-9 * power || best.0 == f32::INFINITY {
                best = (error, most / count);
            }
        }
        best.1
    }

    /// The scale of a row, and the multipliers of its groups: the largest step that a group would take by itself is a whole
    /// number of scales, the fewest with which the others are whole numbers too, or else 15.
    fn fit(self, row: &[f32], group_inputs: usize) -> (f32, Vec<u8>) {
        let steps: Vec<f32> = row.chunks(group_inputs).map(|group| self.best_step(group)).collect();
        let most = largest(&steps);
        let is_whole = |count: f32| (count - count.round()).abs() < TOLERANCE && count.round() >= 1.0;
        let fits = |&count: &f32| steps.iter().all(|&step| step == 0.0 || is_whole(step * count / most));
        let scale = most / (1..=MOST).map(f32::from).find(fits).unwrap_or(f32::from(MOST));
        // As the file holds it: what is rounded here is made up for by the steps.
        let scale = ShortScale::new(scale).to_f32();
        let multipliers = row.chunks(group_inputs).zip(&steps).map(|(group, &step)| {
            let near = if scale > 0.0 { step / scale } else { 1.0 };
            self.best_multiplier(group, scale, near.round_ties_even().clamp(1.0, f32::from(MOST)) as u8)
        });
        (scale, multipliers.collect())
    }

    /// Of the multipliers from one below `near` to one above it the one with the least squared error.
    fn best_multiplier(self, group: &[f32], scale: f32, near: u8) -> u8 {
        let mut best = (f32::INFINITY, near);
        for multiplier in
            [near, near - 1, near + 1].into_iter().filter(|multiplier| (1..=MOST).contains(multiplier))
        {
            let error = self.squared_error(group, scale * f32::from(multiplier));
            if error < best.0 {
                best = (error, multiplier);
            }
        }
        best.1
    }
}

/// Scales and multipliers that training chose.
pub(super) struct Grid {
    pub(super) group_inputs: usize,
    /// `[outputs]`.
    pub(super) scales: Vec<f32>,
    /// `[outputs][groups]`.
    pub(super) multipliers: Vec<u8>,
}

impl Grid {
    /// Of the matrix `name` (without `.weight`) `[outputs, inputs]`: `scales` `[outputs]`, `multipliers` `[outputs, groups]`.
    /// Groups are of `usual` inputs where as many then make up the matrix, else of equal parts of it.
    pub(super) fn new(
        name: &str,
        inputs: usize,
        usual: Option<usize>,
        scales: Vec<f32>,
        multipliers: &[f32],
    ) -> Result<Self, PackError> {
        let groups = multipliers.len() / scales.len().max(1);
        let at_fault = |message: &str| PackError::Grid(format!("`{name}.{message}"));
        let candidates = [usual.unwrap_or(inputs), inputs.div_ceil(groups.max(1))];
        let mut candidates = candidates.into_iter().map(|inputs| group_of(inputs, None));
        let group_inputs = candidates.find(|&group| inputs.div_ceil(group) == groups).ok_or_else(|| {
            at_fault(&format!("multipliers`: {inputs} inputs are not {groups} groups of a multiple of 16"))
        })?;
        if let Some(scale) = scales.iter().find(|&&scale| scale < 0.0) {
            return Err(at_fault(&format!("scale` holds {scale}, which is below zero")));
        }
        let whole = |&value: &f32| value.fract() == 0.0 && (1.0..=f32::from(MOST)).contains(&value);
        if let Some(value) = multipliers.iter().find(|value| !whole(value)) {
            return Err(at_fault(&format!(
                "multipliers` holds {value}, which is not a whole number 1 to 15"
            )));
        }
        Ok(Self { group_inputs, scales, multipliers: multipliers.iter().map(|&value| value as u8).collect() })
    }
}

/// Rounded weights.
pub(super) struct Quantized {
    /// Inputs that share a multiplier.
    pub(super) group_inputs: usize,
    /// `[outputs][inputs]`, in steps.
    pub(super) values: Vec<i8>,
    /// `[outputs]`.
    pub(super) scales: Vec<ShortScale>,
    /// `[outputs][groups]`, 1 to 15.
    pub(super) multipliers: Vec<u8>,
    /// Root of the mean squared error over the root of the mean square.
    pub(super) relative_error: f32,
}

impl Quantized {
    /// Scales and multipliers as a file holds them for a matrix of this kind, those of outputs that do not exist zero and one.
    pub(super) fn scale_bytes(&self, kind: TensorKind) -> Vec<u8> {
        let outputs = self.scales.len();
        let padded = round_up(outputs, OUTPUT_BLOCK);
        let groups = self.multipliers.len() / outputs.max(1);
        let mut scales = self.scales.clone();
        scales.resize(padded, ShortScale::default());
        let mut multipliers = vec![0u8; padded / 2 * groups];
        for output in 0..padded {
            for group in 0..groups {
                let multiplier = self.multipliers.get(output * groups + group).copied().unwrap_or(1);
                let place = (output / OUTPUT_BLOCK * groups + group) * (OUTPUT_BLOCK / 2) + output % 8;
                multipliers[place] |= multiplier << (output % OUTPUT_BLOCK / 8 * 4);
            }
        }
        let mut bytes: Vec<u8> = if kind.is_sparse() {
            scales.iter().flat_map(|scale| scale.to_f32().to_le_bytes()).collect()
        } else {
            scales.iter().flat_map(|scale| scale.to_le_bytes()).collect()
        };
        bytes.extend(multipliers);
        bytes
    }
}

/// Inputs of a group: rounded up to a multiple of 16, or all the inputs, padded, but never more than a group may have.
pub(super) fn group_of(inputs: usize, group_inputs: Option<usize>) -> usize {
    round_up(group_inputs.unwrap_or(inputs).max(1), INPUT_PAD).min(MOST_GROUP_INPUTS)
}

/// Whole steps on the grid that training chose, or else on the one with little squared error. `rows` is
/// `[outputs][inputs]`, of the tensor `name`.
///
/// # Errors
/// When a weight does not lie on the grid that training chose.
pub(super) fn quantize_steps(
    name: &str,
    rows: &[f32],
    inputs: usize,
    steps: Steps,
    group_inputs: Option<usize>,
    grid: Option<&Grid>,
) -> Result<Quantized, PackError> {
    let group_inputs = grid.map_or_else(|| group_of(inputs, group_inputs), |grid| grid.group_inputs);
    let groups = inputs.div_ceil(group_inputs);
    let mut error = RelativeError::default();
    let (mut values, mut scales, mut multipliers) = (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
    for (output, row) in rows.chunks_exact(inputs).enumerate() {
        let (scale, of_row) = match grid {
            Some(grid) => {
                let of_row = &grid.multipliers[output * groups..(output + 1) * groups];
                check_on_grid(name, output, row, steps, grid, of_row)?;
                (grid.scales[output], of_row.to_vec())
            }
            None => steps.fit(row, group_inputs),
        };
        let stored = ShortScale::new(scale);
        for (group, &multiplier) in row.chunks(group_inputs).zip(&of_row) {
            for &value in group {
                let quantized = steps.of(value, scale * f32::from(multiplier));
                values.push(quantized as i8);
                error.add(quantized * f32::from(multiplier) * stored.to_f32(), value);
            }
        }
        scales.push(stored);
        multipliers.extend(of_row);
    }
    Ok(Quantized { group_inputs, values, scales, multipliers, relative_error: error.value() })
}

fn check_on_grid(
    name: &str,
    output: usize,
    row: &[f32],
    steps: Steps,
    grid: &Grid,
    multipliers: &[u8],
) -> Result<(), PackError> {
    for (input, &value) in row.iter().enumerate() {
        let step = grid.scales[output] * f32::from(multipliers[input / grid.group_inputs]);
        let multiple = if value == 0.0 { 0.0 } else { value / step };
        // Neither infinity nor NaN is near anything.
        let is_near = (multiple - steps.nearest(multiple)).abs() <= TOLERANCE;
        if !is_near {
            return Err(PackError::OffGrid { name: name.to_string(), output, input, value, multiple });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::{Int4Matrix, Int4Scales};
    use crate::pack::lay_out::{StoredTensor, store_steps};
    use zerocopy::FromBytes;

    /// The tensor as floats again.
    fn floats(tensor: &StoredTensor) -> Vec<f32> {
        let (outputs, inputs) = tensor.report.shape;
        let (scales, multipliers) = tensor.scales.split_at(2 * round_up(outputs, OUTPUT_BLOCK));
        let scales: Vec<ShortScale> = scales
            .as_chunks()
            .0
            .iter()
            .map(|bytes: &[u8; 2]| ShortScale::read_from_bytes(bytes).expect("two bytes"))
            .collect();
        let of_groups = Int4Scales { group_inputs: tensor.group_inputs, scales: &scales, multipliers };
        let matrix = Int4Matrix::new(outputs, inputs, &tensor.values, of_groups).expect("lengths fit");
        let value = |index: usize| {
            f32::from(matrix.weight(index / inputs, index % inputs)) * scales[index / inputs].to_f32()
        };
        (0..outputs * inputs).map(value).collect()
    }

    fn store(rows: &[f32], outputs: usize, inputs: usize, group: Option<usize>) -> StoredTensor {
        store_steps("w", rows, outputs, inputs, Steps::Int4, group, None).expect("it packs")
    }

    #[test]
    fn a_grid_is_kept() {
        let grid = |index: usize, least: i32, count: i32| (index as i32 * 5 % count + least) as f32 * 0.125;
        for (least, count) in [(-8, 16), (-7, 15), (-3, 7), (-1, 3)] {
            let (outputs, inputs) = (19, 37);
            let rows: Vec<f32> = (0..outputs * inputs).map(|index| grid(index, least, count)).collect();
            for group in [None, Some(32), Some(16)] {
                let tensor = store(&rows, outputs, inputs, group);
                assert_eq!(tensor.report.relative_error, 0.0);
                assert_eq!(floats(&tensor), rows);
            }
        }
    }

    #[test]
    fn what_lies_between_goes_to_the_nearest_that_is_stored() {
        for (steps, value, nearest) in [
            (Steps::Int4, 0.4, 0.0),
            (Steps::Int4, -8.7, -8.0),
            (Steps::Int4, 9.0, 7.0),
            (Steps::Int3, 0.4, 1.0),
            (Steps::Int3, -0.4, -1.0),
            (Steps::Int3, 1.9, 1.0),
            (Steps::Int3, 2.1, 3.0),
            (Steps::Int3, -9.0, -7.0),
            (Steps::Int3, 30.0, 7.0),
        ] {
            assert_eq!(steps.nearest(value), nearest, "{steps:?} {value}");
        }
    }

    /// Weights `[outputs][inputs]` as training leaves them: often zero, often not reaching the largest multiple.
    fn trained(outputs: usize, inputs: usize, group: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let mut state = 1u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let (mut rows, mut scales, mut multipliers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..outputs {
            let scale = ShortScale::new(0.0002 + random(10_000) as f32 * 1.7e-7).to_f32();
            let mut row = vec![0.0; inputs];
            for values in row.chunks_mut(group) {
                let multiplier = (1 + random(15)) as f32;
                let reach = 1 + random(8) as i32;
                for block in values.chunks_mut(4) {
                    if random(2) == 0 {
                        block.fill_with(|| {
                            (random(2 * reach as u32) as i32 - reach) as f32 * multiplier * scale
                        });
                    }
                }
                multipliers.push(multiplier);
            }
            rows.extend(row);
            scales.push(scale);
        }
        (rows, scales, multipliers)
    }

    #[test]
    fn a_grid_that_training_chose_is_kept_exactly() {
        let (outputs, inputs) = (33, 96);
        for (group, usual) in [(16, Some(16)), (32, Some(32)), (48, Some(32)), (96, None), (48, None)] {
            let (rows, scales, multipliers) = trained(outputs, inputs, group);
            let grid = Grid::new("w", inputs, usual, scales.clone(), &multipliers).expect("a grid");
            let tensor =
                store_steps("w", &rows, outputs, inputs, Steps::Int4, usual, Some(&grid)).expect("it packs");
            assert_eq!(tensor.group_inputs, group);
            let stored = tensor.scales.as_chunks().0.iter().take(outputs);
            let stored: Vec<f32> = stored
                .map(|bytes: &[u8; 2]| ShortScale::read_from_bytes(bytes).expect("two bytes").to_f32())
                .collect();
            assert_eq!(stored, scales);
            for (stored, value) in floats(&tensor).iter().zip(&rows) {
                assert!((stored - value).abs() <= value.abs() * 3e-7, "{stored} {value}");
            }
            assert!(tensor.report.relative_error < 1e-6);
        }
    }

    #[test]
    fn a_weight_off_the_grid_and_a_grid_that_is_none_are_refused() {
        let (mut rows, scales, multipliers) = trained(2, 64, 32);
        let grid = Grid::new("w", 64, Some(32), scales.clone(), &multipliers).expect("a grid");
        let step = scales[1] * multipliers[3];
        rows[64 + 40] = 2.001 * step;
        assert!(
            quantize_steps("w", &rows, 64, Steps::Int4, None, Some(&grid)).is_ok(),
            "a thousandth of a step is near"
        );
        for multiple in [2.01, 7.99, -8.6] {
            rows[64 + 40] = multiple * step;
            let error =
                quantize_steps("w.weight", &rows, 64, Steps::Int4, None, Some(&grid)).err().expect("refused");
            assert!(matches!(error, PackError::OffGrid { output: 1, input: 40, .. }), "{error}");
        }
        for (multipliers, scales, words) in [
            (
                [1.0, 2.0, 0.0, 4.0],
                [0.1, 0.2],
                "`w.multipliers` holds 0, which is not a whole number 1 to 15",
            ),
            ([1.0, 2.0, 2.5, 4.0], [0.1, 0.2], "holds 2.5"),
            ([1.0, 2.0, 16.0, 4.0], [0.1, 0.2], "holds 16"),
            ([1.0, 2.0, 3.0, 4.0], [0.1, -0.2], "`w.scale` holds -0.2, which is below zero"),
        ] {
            let error = Grid::new("w", 64, Some(32), scales.to_vec(), &multipliers).err().expect("refused");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = Grid::new("w", 64, Some(32), vec![0.1], &[1.0; 5]).err().expect("refused").to_string();
        assert!(error.contains("64 inputs are not 5 groups of a multiple of 16"), "{error}");
    }

    #[test]
    fn multipliers_cost_less_than_none() {
        let rows: Vec<f32> =
            (0..17 * 100).map(|index| (index as f32 * 0.7).sin() * (index % 100) as f32).collect();
        let error = |group| store(&rows, 17, 100, group).report.relative_error;
        assert!(error(Some(32)) < error(None), "{} {}", error(Some(32)), error(None));
        assert!(error(None) < 0.12, "{}", error(None));
        assert_eq!(store(&[0.0; 40], 2, 20, None).report.relative_error, 0.0);
        for rows in [[3e38, -3e38], [1e-44, 1e-45]] {
            for group in [None, Some(16)] {
                let mut row = vec![0.0; 40];
                row[20..22].copy_from_slice(&rows);
                assert!(floats(&store(&row, 1, 40, group)).iter().all(|value| value.is_finite()));
            }
        }
    }

    #[test]
    fn a_row_wider_than_a_group_may_be_has_several() {
        let rows: Vec<f32> = (0..70_000).map(|index| (index % 15 - 7) as f32).collect();
        let tensor = store(&rows, 1, 70_000, None);
        assert_eq!((tensor.group_inputs, tensor.scales.len()), (MOST_GROUP_INPUTS, 2 * 16 + 8 * 2));
        assert_eq!(floats(&tensor), rows);
    }
}
