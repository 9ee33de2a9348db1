//! Functions of single values, over slices of any length.

use super::exponential;
use super::lanes::{LANES, Lanes, Operation};
use crate::{KernelError, Kernels};

/// A function of one value. A trait and not a closure: what calls a closure is a function of its own, which lacks
/// the caller's instructions and so is never inlined.
trait Pointwise {
    fn of<L: Lanes>(&self, lanes: L, x: L::F) -> L::F;
}

macro_rules! pointwise {
    ($($name:ident = $function:expr;)*) => { $(
        struct $name;

        impl Pointwise for $name {
            #[inline(always)]
            fn of<L: Lanes>(&self, lanes: L, x: L::F) -> L::F {
                $function(lanes, x)
            }
        }
    )* };
}

pointwise! {
    Exp = exponential::exp;
    Gelu = exponential::gelu;
    Relu = relu;
    Tanh = exponential::tanh;
}

#[inline(always)]
fn relu<L: Lanes>(lanes: L, x: L::F) -> L::F {
    // Not a maximum: its zero could have either sign.
    lanes.where_less(x, lanes.splat(0.0), lanes.splat(0.0), x)
}

/// A function of each value, in place.
struct Map<'a, P> {
    function: P,
    values: &'a mut [f32],
}

impl<P: Pointwise> Operation for Map<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let (blocks, rest) = self.values.as_chunks_mut::<LANES>();
        for block in blocks {
            lanes.store(self.function.of(lanes, lanes.load(block)), block);
        }
        if !rest.is_empty() {
            lanes.store_part(self.function.of(lanes, lanes.load_part(rest, 0.0)), rest);
        }
    }
}

/// `values += other`; both have one length.
struct Add<'a> {
    values: &'a mut [f32],
    other: &'a [f32],
}

impl Operation for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let (blocks, rest) = self.values.as_chunks_mut::<LANES>();
        let (other, other_rest) = self.other.as_chunks::<LANES>();
        for (block, other) in blocks.iter_mut().zip(other) {
            lanes.store(lanes.add(lanes.load(block), lanes.load(other)), block);
        }
        for (value, other) in rest.iter_mut().zip(other_rest) {
            *value += other;
        }
    }
}

/// `up = silu(gate) * up`; both have one length.
struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a mut [f32],
}

impl Operation for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        let (ups, up_rest) = self.up.as_chunks_mut::<LANES>();
        for (gate, up) in gates.iter().zip(ups) {
            lanes.store(silu_mul(lanes, lanes.load(gate), lanes.load(up)), up);
        }
        if !up_rest.is_empty() {
            let (gate, up) = (lanes.load_part(gate_rest, 0.0), lanes.load_part(up_rest, 0.0));
            lanes.store_part(silu_mul(lanes, gate, up), up_rest);
        }
    }
}

#[inline(always)]
fn silu_mul<L: Lanes>(lanes: L, gate: L::F, up: L::F) -> L::F {
    lanes.mul(exponential::silu(lanes, gate), up)
}

impl Kernels {
    /// `e^x` of each value, relative error below 1.5e-7. Below -87.3 (where results would be subnormal) it is 0,
    /// above 88.3 infinity.
    pub fn exp(self, values: &mut [f32]) {
        self.run(Map { function: Exp, values });
    }

    /// `x (1 + erf(x / sqrt 2)) / 2` of each value, error below `1e-6 max(1, |x|)`. Minus infinity gives nearly 0.
    pub fn gelu(self, values: &mut [f32]) {
        self.run(Map { function: Gelu, values });
    }

    /// The larger of 0 and each value; NaN stays.
    pub fn relu(self, values: &mut [f32]) {
        self.run(Map { function: Relu, values });
    }

    /// `tanh` of each value, absolute error below 3e-7.
    pub fn tanh(self, values: &mut [f32]) {
        self.run(Map { function: Tanh, values });
    }

    /// `values[i] += other[i]`: the residual connection.
    ///
    /// # Errors
    /// When `other` is shorter than `values`.
    pub fn add(self, values: &mut [f32], other: &[f32]) -> Result<(), KernelError> {
        let other = KernelError::prefix("other", other, values.len())?;
        self.run(Add { values, other });
        Ok(())
    }

    /// `up[i] *= gate[i] / (1 + e^-gate[i])`: the gate of SwiGLU.
    ///
    /// # Errors
    /// When `gate` is shorter than `up`.
    pub fn silu_mul(self, gate: &[f32], up: &mut [f32]) -> Result<(), KernelError> {
        let gate = KernelError::prefix("gate", gate, up.len())?;
        self.run(SiluMul { gate, up });
        Ok(())
    }
}
