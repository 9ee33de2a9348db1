//! Values that are not quantized: f32, or f16 where that says the same.

use zerocopy::{FromBytes, Immutable};

/// A number of IEEE 754's binary16, finite in every accepted file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, Immutable)]
#[repr(transparent)]
pub struct Half(u16);

impl Half {
    /// As f32, exactly. No branch, and nothing that vectors of them do not have: `half::f16` asks for the kind of number,
    /// which biases of every token would feel.
    #[inline(always)]
    pub const fn to_f32(self) -> f32 {
        // 2^112, the difference of the exponents' biases: what is subnormal becomes normal by it too.
        const BIAS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = self.0 as u32;
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * BIAS;
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }

    pub(crate) const fn is_finite(self) -> bool {
        self.0 & 0x7c00 != 0x7c00
    }
}

/// Values of a bias or a memory.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// f32.
    Single(&'a [f32]),
    /// f16.
    Half(&'a [Half]),
}

impl<'a> Floats<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Half(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values that [`widen`](Self::widen) needs room for: none where they are f32.
    pub fn room(&self) -> usize {
        match self {
            Self::Single(_) => 0,
            Self::Half(values) => values.len(),
        }
    }

    /// The values as f32: where they lie, or at the beginning of `room`; nothing where that is too short.
    pub fn widen<'r>(&self, room: &'r mut [f32]) -> Option<&'r [f32]>
    where
        'a: 'r,
    {
        match *self {
            Self::Single(values) => Some(values),
            Self::Half(values) => {
                let room = room.get_mut(..values.len())?;
                room.iter_mut().zip(values).for_each(|(wide, half)| *wide = half.to_f32());
                Some(room)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Half;
    use half::f16;

    #[test]
    fn every_half_is_the_f32_that_it_says() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            assert_eq!(Half(bits).is_finite(), half.is_finite());
            if half.is_finite() {
                assert_eq!(Half(bits).to_f32().to_bits(), half.to_f32().to_bits(), "{bits:#x}");
            }
        }
    }
}
