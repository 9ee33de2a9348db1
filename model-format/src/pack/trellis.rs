//! Weights rounded to levels that symbols name: those of a column of a matrix are chosen together.

use super::error::PackError;
use super::lay_out::{RelativeError, StoredTensor, stored};
use super::steps::{Grid, MOST, Quantized, TOLERANCE, group_of};
use super::trellis_path::{PathSearch, Wanted};
use crate::matrix::{INPUT_BLOCK, INPUT_PAD, Int3Block, OUTPUT_BLOCK, ShortScale, round_up};
use crate::tensor::TensorKind;
use crate::trellis::LANES;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

/// The root mean square of a group in steps, where training chose none: so that the outermost levels are just used.
const SPREAD: f32 = 2.6;

/// `rows` is `[outputs][inputs]`, of the tensor `name`: on the grid that training chose, or else on one of which each group's root mean square
/// is about as many steps; a group is all the inputs where it is `None`.
///
/// # Errors
/// When weights are not what symbols can name on the grid that training chose.
pub(super) fn store_trellis(
    name: &str,
    rows: &[f32],
    outputs: usize,
    inputs: usize,
    group_inputs: Option<usize>,
    grid: Option<&Grid>,
) -> Result<StoredTensor, PackError> {
    let group_inputs = grid.map_or_else(|| group_of(inputs, group_inputs), |grid| grid.group_inputs);
    let groups = inputs.div_ceil(group_inputs);
    let (scales, multipliers) = match grid {
        Some(grid) => (grid.scales.clone(), grid.multipliers.clone()),
        None => spread(rows, inputs, group_inputs),
    };
    let multiplier =
        |output: usize, input: usize| f32::from(multipliers[output * groups + input / group_inputs]);
    let step = |output: usize, input: usize| scales[output] * multiplier(output, input);
    // Costs are compared with each other alone: the largest is one, whatever weights are measured in.
    let most = scales.iter().fold(0.0_f32, |most, &scale| most.max(scale)) * f32::from(MOST);
    let (mut search, mut values, mut symbols) =
        (PathSearch::new(), vec![0; rows.len()], vec![0; round_up(outputs, OUTPUT_BLOCK) * inputs]);
    for input in 0..inputs {
        for lane in 0..LANES.min(outputs) {
            let of_lane = (lane..outputs).step_by(LANES);
            let sequence: Vec<Wanted> = of_lane
                .clone()
                .map(|output| match step(output, input) {
                    step if step > 0.0 => Wanted {
                        // Neither infinity nor NaN may reach sums that are compared.
                        steps: finite(rows[output * inputs + input] / step),
                        cost: (step / most).powi(2),
                    },
                    _ => Wanted { steps: 0.0, cost: 0.0 },
                })
                .collect();
            for (output, (symbol, level)) in of_lane.zip(search.path(&sequence)) {
                values[output * inputs + input] = level;
                symbols[output * inputs + input] = symbol;
            }
        }
    }
    let stored_scales: Vec<ShortScale> = scales.iter().map(|&scale| ShortScale::new(scale)).collect();
    let mut error = RelativeError::default();
    for (index, (&value, &level)) in rows.iter().zip(&values).enumerate() {
        let (output, input) = (index / inputs, index % inputs);
        let multiple = if value == 0.0 { 0.0 } else { value / step(output, input) };
        // Neither infinity nor NaN is near anything; where the scale is zero, any level is.
        let is_near =
            (multiple - f32::from(level)).abs() <= TOLERANCE || value == 0.0 && step(output, input) == 0.0;
        if grid.is_some() && !is_near {
            return Err(PackError::OffTrellis { name: name.to_string(), output, input, value, multiple });
        }
        error.add(f32::from(level) * multiplier(output, input) * stored_scales[output].to_f32(), value);
    }
    let relative_error = error.value();
    let quantized = Quantized { group_inputs, values, scales: stored_scales, multipliers, relative_error };
    let (kind, shape) = (TensorKind::Trellis, (outputs, inputs));
    let bytes = quantized.scale_bytes(kind);
    let tensor = stored(name, kind, shape, blocks(&symbols, inputs), bytes, quantized.relative_error);
    Ok(StoredTensor { group_inputs, ..tensor })
}

fn finite(steps: f32) -> f32 {
    if steps.is_nan() { 0.0 } else { steps.clamp(-1e6, 1e6) }
}

/// Scales `[outputs]` and multipliers `[outputs][groups]`.
fn spread(rows: &[f32], inputs: usize, group_inputs: usize) -> (Vec<f32>, Vec<u8>) {
    let (mut scales, mut multipliers) = (Vec::new(), Vec::new());
    let most = if group_inputs < inputs { f32::from(MOST) } else { 1.0 };
    for row in rows.chunks_exact(inputs) {
        let steps: Vec<f32> = row
            .chunks(group_inputs)
            .map(|group| {
                let power: f32 = group.iter().map(|value| value.powi(2)).sum();
                (power / group.len() as f32).sqrt() / SPREAD
            })
            .collect();
        let scale = ShortScale::new(steps.iter().fold(0.0_f32, |most, &step| most.max(step)) / most).to_f32();
        multipliers.extend(steps.iter().map(|step| (step / scale).round().clamp(1.0, most) as u8));
        scales.push(scale);
    }
    (scales, multipliers)
}

/// Symbols `[padded outputs][inputs]` as [`Int3Matrix`](crate::Int3Matrix) has them.
fn blocks(symbols: &[u8], inputs: usize) -> Vec<u8> {
    let symbol =
        |output: usize, input: usize| if input < inputs { symbols[output * inputs + input] } else { 0 };
    let mut bytes = Vec::with_capacity(symbols.len() / 8 * 3);
    for panel in 0..symbols.len() / inputs / OUTPUT_BLOCK {
        for first_input in (0..round_up(inputs, INPUT_PAD)).step_by(2 * INPUT_BLOCK) {
            let mut block: Int3Block = [0; 48];
            for byte in 0..16 {
                let output = panel * OUTPUT_BLOCK + byte / INPUT_BLOCK;
                let pair = |step: usize, input: usize| {
                    let output = output + step * LANES;
                    let input = first_input + input * INPUT_BLOCK + byte % INPUT_BLOCK;
                    symbol(output + LANES, input) | symbol(output, input) << 3
                };
                let last = pair(2, 1);
                block[byte] = pair(0, 0) | last << 6;
                block[16 + byte] = pair(2, 0) | last >> 2 << 6;
                block[32 + byte] = pair(0, 1) | last >> 4 << 6;
            }
            bytes.extend(block);
        }
    }
    bytes
}
