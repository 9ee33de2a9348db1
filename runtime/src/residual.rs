//! What a layer adds to a matrix that it shares: `left (right x) + diagonal * x`.
//!
//! The factors are small matrices like any other, of whatever kind the file holds. `kinglet pack` stores int8: a quarter of
//! the bytes of f32, and sixteen weights an SDOT. For one row at rank 16, a matrix of 512 x 512 takes 31,700 instructions
//! on a Cortex-A76 and 68,200 on an A53; its factors 6,200 and 9,100 more (`count_kernels`), and 18 kB beside its 264 kB.
//! Rows between int8 factors are rounded to int8: that error is to the residual as the residual is to the matrix.

use crate::error::Error;
use crate::project::{Input, Rounding, part, part_mut, prefix_mut, result_rows};
use crate::sizes::Sizes;
use kinglet_kernels::{KernelError, Kernels, Rows};
use kinglet_model_format::{ActivationBits, LayerKind, LowRank, Model, Part};

/// Room that a product leaves to what is added to it. Empty where no layer adds anything.
#[derive(Default)]
pub(crate) struct Spare<'a> {
    /// [`Need::floats`].
    pub(crate) floats: &'a mut [f32],
    /// [`Need::bytes`].
    pub(crate) rows: &'a mut [i8],
    /// [`Need::scales`].
    pub(crate) scales: &'a mut [f32],
}

/// The room that residuals need for some rows of a stack; none without residuals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    pub(crate) floats: usize,
    pub(crate) bytes: usize,
    pub(crate) scales: usize,
}

impl Need {
    /// For `rows` rows, each of which is `copies` rows in a product, through residuals of at most `rank` and `outputs`.
    pub(crate) fn of(rows: usize, copies: usize, rank: usize, outputs: usize) -> Self {
        if rank == 0 {
            return Self { floats: 0, bytes: 0, scales: 0 };
        }
        Self {
            floats: rows * (copies * rank + outputs),
            bytes: Kernels::quantized_bytes(rows, rank),
            scales: rows,
        }
    }

    pub(crate) fn encoder(sizes: &Sizes, rows: usize) -> Self {
        Self::of(rows, sizes.encoder_rows, sizes.encoder_rank, sizes.encoder_inputs())
    }

    pub(crate) fn decoder(sizes: &Sizes, rows: usize) -> Self {
        Self::of(rows, sizes.decoder_rows, sizes.decoder_rank, sizes.decoder_inputs())
    }
}

/// The largest rank of a residual in layers of a kind; zero where there is none.
pub(crate) fn largest_rank(model: &Model<'_>, kind: LayerKind) -> usize {
    let layers = model.layers();
    let slots = layers.iter().filter(|layer| layer.kind == kind).flat_map(|layer| layer.slots());
    let factors = slots.filter(|slot| slot.part == Part::ResidualRight);
    factors
        .filter_map(|slot| model.tensors().get(slot.tensor))
        .map(|factor| factor.outputs)
        .max()
        .unwrap_or(0)
}

impl Input<'_> {
    /// Adds `left (right x)` to `out`, `[rows, outputs]`.
    pub(crate) fn add_residual(
        &self,
        residual: &LowRank<'_>,
        spare: &mut Spare<'_>,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (rank, outputs) = (residual.rank(), residual.left.outputs());
        let room = self.rows * result_rows(self.bits) * rank;
        let given = spare.floats.len();
        let (middle, sums) = spare.floats.split_at_mut_checked(room).ok_or(KernelError::TooShort {
            name: "residual",
            needed: room,
            given,
        })?;
        self.product(&residual.right, None, middle)?;
        let room = self.room.take();
        let mut rounding =
            Rounding { split: &mut [], rows: spare.rows, scales: spare.scales, bias: &mut [], room };
        let source = Rows { values: middle, stride: rank };
        let bits = ActivationBits::Eight;
        let input = Input::new(self.kernels, bits, source, self.rows, rank, &mut rounding)?;
        let sums = prefix_mut(sums, self.rows * outputs)?;
        let done = input.product(&residual.left, None, sums);
        self.room.set(room);
        done?;
        self.kernels.add(prefix_mut(out, sums.len())?, sums)?;
        Ok(())
    }

    /// Adds `diagonal * x` to `out`, `[rows, width]`.
    pub(crate) fn add_diagonal(&self, diagonal: &[f32], out: &mut [f32]) -> Result<(), Error> {
        let width = diagonal.len();
        for row in 0..self.rows {
            let out = part_mut(out, row * width, width)?;
            let source = part(self.source.values, row * self.source.stride, width)?;
            for ((out, &value), &factor) in out.iter_mut().zip(source).zip(diagonal) {
                *out += value * factor;
            }
        }
        Ok(())
    }
}
