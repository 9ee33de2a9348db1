//! Layer normalization.

use super::lanes::{LANES, Lanes, Operation};
use crate::{KernelError, Kernels};

/// Checked: `out` and `values` hold the rows, `weight` and `bias` have `width` values, `width` is not zero.
struct LayerNorm<'a> {
    values: &'a [f32],
    stride: usize,
    rows: usize,
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    epsilon: f32,
    out: &'a mut [f32],
    out_stride: usize,
}

impl Operation for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let width = self.weight.len();
        for row in 0..self.rows {
            let values = self.values.get(row * self.stride..).and_then(|values| values.get(..width));
            let out = self.out.get_mut(row * self.out_stride..).and_then(|out| out.get_mut(..width));
            if let (Some(values), Some(out)) = (values, out) {
                let (mean, scale) = mean_and_scale(lanes, values, self.epsilon);
                normalize(lanes, values, mean, scale, self.weight, self.bias, out);
            }
        }
    }
}

/// The mean and `1 / sqrt(variance + epsilon)`.
#[inline(always)]
pub(super) fn mean_and_scale<L: Lanes>(lanes: L, values: &[f32], epsilon: f32) -> (f32, f32) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let count = values.len() as f32;
    let mut sum = lanes.splat(0.0);
    for block in blocks {
        sum = lanes.add(sum, lanes.load(block));
    }
    if !rest.is_empty() {
        sum = lanes.add(sum, lanes.load_part(rest, 0.0));
    }
    let mean = lanes.sum(sum) / count;
    let center = lanes.splat(mean);
    let mut squares = lanes.splat(0.0);
    for block in blocks {
        let difference = lanes.sub(lanes.load(block), center);
        squares = lanes.fma(difference, difference, squares);
    }
    if !rest.is_empty() {
        let difference = lanes.sub(lanes.load_part(rest, mean), center);
        squares = lanes.fma(difference, difference, squares);
    }
    (mean, 1.0 / libm::sqrtf(lanes.sum(squares) / count + epsilon))
}

#[inline(always)]
fn normalize<L: Lanes>(
    lanes: L,
    values: &[f32],
    mean: f32,
    scale: f32,
    weight: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let (mean, scale) = (lanes.splat(mean), lanes.splat(scale));
    let (values, value_rest) = values.as_chunks::<LANES>();
    let (weights, weight_rest) = weight.as_chunks::<LANES>();
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    if let Some(bias) = bias {
        let (biases, bias_rest) = bias.as_chunks::<LANES>();
        for (((value, weight), bias), out) in values.iter().zip(weights).zip(biases).zip(outs) {
            let centered = lanes.mul(lanes.sub(lanes.load(value), mean), scale);
            lanes.store(lanes.fma(centered, lanes.load(weight), lanes.load(bias)), out);
        }
        if !out_rest.is_empty() {
            let centered = lanes.mul(lanes.sub(lanes.load_part(value_rest, 0.0), mean), scale);
            let (weight, bias) = (lanes.load_part(weight_rest, 0.0), lanes.load_part(bias_rest, 0.0));
            lanes.store_part(lanes.fma(centered, weight, bias), out_rest);
        }
    } else {
        for ((value, weight), out) in values.iter().zip(weights).zip(outs) {
            let centered = lanes.mul(lanes.sub(lanes.load(value), mean), scale);
            lanes.store(lanes.mul(centered, lanes.load(weight)), out);
        }
        if !out_rest.is_empty() {
            let centered = lanes.mul(lanes.sub(lanes.load_part(value_rest, 0.0), mean), scale);
            lanes.store_part(lanes.mul(centered, lanes.load_part(weight_rest, 0.0)), out_rest);
        }
    }
}

impl Kernels {
    /// `out = (x - mean) / sqrt(variance + epsilon) * weight + bias` for `rows` rows of `weight.len()` values; row
    /// `r` starts at `values[r * stride]` and `out[r * out_stride]`.
    ///
    /// # Errors
    /// When a slice is too short, `weight` is empty or rows of the result overlap.
    #[expect(
        clippy::too_many_arguments,
        reason = "two strided operands and the usual parameters of the operation"
    )]
    pub fn layer_norm(
        self,
        values: &[f32],
        stride: usize,
        rows: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        epsilon: f32,
        out: &mut [f32],
        out_stride: usize,
    ) -> Result<(), KernelError> {
        let width = weight.len();
        KernelError::check_range("weight", width, 1, usize::MAX)?;
        KernelError::check_rows("values", values.len(), rows, width, stride)?;
        KernelError::check_rows("out", out.len(), rows, width, out_stride)?;
        KernelError::check_stride(width, out_stride, rows)?;
        let bias = bias.map(|bias| KernelError::prefix("bias", bias, width)).transpose()?;
        self.run(LayerNorm { values, stride, rows, weight, bias, epsilon, out, out_stride });
        Ok(())
    }
}
