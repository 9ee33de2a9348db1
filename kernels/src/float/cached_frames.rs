//! Which columns of a key-value cache the frames are.
//!
//! Two types and not one with a choice inside: the loops over the cache then have no branch.

use super::lanes::{LANES, Lanes};

/// The columns of frames, sixteen at a time.
pub(super) trait Frames: Copy {
    /// Whether frame `t` is column `t`.
    const IN_ORDER: bool;

    /// How many frames there are.
    fn count(self) -> usize;

    /// `sums` plus frames `16 block..` of one row times `words`.
    ///
    /// # Safety
    /// `row` is a row of a cache that has all these columns.
    unsafe fn multiply<L: Lanes>(
        self,
        lanes: L,
        row: *const i8,
        block: usize,
        words: L::Words,
        sums: L::Sums,
    ) -> L::Sums;

    /// The scales of frames `16 block..`; anything for frames that do not exist.
    fn scales<L: Lanes>(self, lanes: L, scales: &[f32], block: usize) -> L::F;
}

/// Frame `t` is column `t`; the columns up to the next multiple of 16 exist.
#[derive(Clone, Copy)]
pub(super) struct InOrder(pub(super) usize);

impl Frames for InOrder {
    const IN_ORDER: bool = true;

    #[inline(always)]
    fn count(self) -> usize {
        self.0
    }

    #[inline(always)]
    unsafe fn multiply<L: Lanes>(
        self,
        lanes: L,
        row: *const i8,
        block: usize,
        words: L::Words,
        sums: L::Sums,
    ) -> L::Sums {
        // SAFETY: the caller's promise.
        lanes.multiply_bytes(unsafe { &*row.add(block * LANES).cast() }, words, sums)
    }

    #[inline(always)]
    fn scales<L: Lanes>(self, lanes: L, scales: &[f32], block: usize) -> L::F {
        match scales.get(block * LANES..).and_then(|scales| scales.first_chunk()) {
            Some(scales) => lanes.load(scales),
            None => lanes.splat(0.0),
        }
    }
}

/// Frame `t` is column `positions[t]`; there is at least one.
#[derive(Clone, Copy)]
pub(super) struct Gathered<'a>(pub(super) &'a [u16]);

impl Gathered<'_> {
    /// The columns of sixteen frames; the first one for frames that do not exist.
    #[inline(always)]
    fn places(self, block: usize) -> [usize; LANES] {
        let first = self.0.first().copied().unwrap_or(0);
        let mut places = [first.into(); LANES];
        let positions = self.0.get(block * LANES..).unwrap_or(&[]);
        for (place, position) in places.iter_mut().zip(positions) {
            *place = (*position).into();
        }
        places
    }
}

impl Frames for Gathered<'_> {
    const IN_ORDER: bool = false;

    #[inline(always)]
    fn count(self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    unsafe fn multiply<L: Lanes>(
        self,
        lanes: L,
        row: *const i8,
        block: usize,
        words: L::Words,
        sums: L::Sums,
    ) -> L::Sums {
        // SAFETY: the caller's promise.
        let bytes = self.places(block).map(|place| unsafe { *row.add(place) });
        lanes.multiply_bytes(&bytes, words, sums)
    }

    #[inline(always)]
    fn scales<L: Lanes>(self, lanes: L, scales: &[f32], block: usize) -> L::F {
        lanes.load(&self.places(block).map(|place| scales.get(place).copied().unwrap_or(0.0)))
    }
}
