//! Rotary positions, neighbours paired.

use super::attention::MAX_HEAD_WIDTH;
use super::lanes::{LANES, Lanes, Operation};
use crate::{KernelError, Kernels};

/// Checked: `row` has heads of `head_width` values; the tables have half of `rotary_width`, which is even and at
/// most `head_width`.
struct Rotary<'a> {
    row: &'a mut [f32],
    head_width: usize,
    cosines: &'a [f32],
    sines: &'a [f32],
}

impl Operation for Rotary<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const TILE: usize, const DIMS: usize>(self, lanes: L) {
        let rotary_width = 2 * self.cosines.len();
        let signs = lanes.load(&core::array::from_fn(|lane| if lane % 2 == 0 { -1.0 } else { 1.0 }));
        for head in self.row.chunks_exact_mut(self.head_width) {
            let Some(head) = head.get_mut(..rotary_width) else { return };
            let (blocks, rest) = head.as_chunks_mut::<LANES>();
            let (cosines, cosine_rest) = self.cosines.as_chunks::<{ LANES / 2 }>();
            let (sines, sine_rest) = self.sines.as_chunks::<{ LANES / 2 }>();
            for ((block, cosine), sine) in blocks.iter_mut().zip(cosines).zip(sines) {
                let rotated = rotate(lanes, lanes.load(block), cosine, sine, signs);
                lanes.store(rotated, block);
            }
            if !rest.is_empty() {
                let (mut cosine, mut sine) = ([0.0; LANES / 2], [0.0; LANES / 2]);
                for (lane, value) in cosine.iter_mut().zip(cosine_rest) {
                    *lane = *value;
                }
                for (lane, value) in sine.iter_mut().zip(sine_rest) {
                    *lane = *value;
                }
                let rotated = rotate(lanes, lanes.load_part(rest, 0.0), &cosine, &sine, signs);
                lanes.store_part(rotated, rest);
            }
        }
    }
}

#[inline(always)]
fn rotate<L: Lanes>(
    lanes: L,
    values: L::F,
    cosine: &[f32; LANES / 2],
    sine: &[f32; LANES / 2],
    signs: L::F,
) -> L::F {
    let turned = lanes.mul(lanes.swap_pairs(values), signs);
    lanes.fma(turned, lanes.load_twice(sine), lanes.mul(values, lanes.load_twice(cosine)))
}

impl Kernels {
    /// Turns the first `2 cosines.len()` values of each head of one row `[heads, head_width]`, in place: the pair
    /// `(x, y) = (head[2 i], head[2 i + 1])` becomes `(x cos_i - y sin_i, y cos_i + x sin_i)`.
    /// `cosines` and `sines` `[rotary_width / 2]` are those of the row's position.
    ///
    /// # Errors
    /// When `row` is not a whole number of heads, `head_width` is not 1..=256, the tables differ in length or are
    /// longer than a head.
    pub fn rotary(
        self,
        row: &mut [f32],
        head_width: usize,
        cosines: &[f32],
        sines: &[f32],
    ) -> Result<(), KernelError> {
        KernelError::check_range("head_width", head_width, 1, MAX_HEAD_WIDTH)?;
        KernelError::check_range("cosines", cosines.len(), 0, head_width / 2)?;
        KernelError::check_range("sines", sines.len(), cosines.len(), cosines.len())?;
        KernelError::check_range("row modulo head_width", row.len() % head_width, 0, 0)?;
        self.run(Rotary { row, head_width, cosines, sines });
        Ok(())
    }
}
