//! All working memory comes from one region that the caller owns. [`buffers!`](crate::region) declares a set
//! of buffers once: their names, types, shapes and so their sum.
//!
//! Sums are 64 bits on every machine and stop at the largest number instead of wrapping: a wide model may need more than 32 bits
//! can say, and is refused with the number.

use crate::error::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Every buffer begins on a multiple of this many bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// The part of the region that is not given out yet.
pub(crate) struct Region<'r> {
    rest: &'r mut [u8],
}

impl<'r> Region<'r> {
    pub(crate) fn new(bytes: &'r mut [u8]) -> Self {
        Self { rest: bytes }
    }

    /// `count` values, zero or whatever was there before.
    pub(crate) fn take<T>(&mut self, count: u64) -> Result<&'r mut [T], Error>
    where
        T: FromBytes + IntoBytes + Immutable + KnownLayout,
    {
        let taken = self.take_bytes(count.saturating_mul(size_of::<T>() as u64))?;
        let given = taken.len();
        <[T]>::mut_from_bytes(taken).map_err(|_| Error::RegionTooSmall { needed: given, given })
    }

    /// All the floats that are left.
    pub(crate) fn rest(mut self) -> Result<&'r mut [f32], Error> {
        let skipped = self.rest.as_ptr().align_offset(ALIGNMENT);
        self.take((self.rest.len().saturating_sub(skipped) / size_of::<f32>()) as u64)
    }

    /// `bytes` bytes on a 64-byte boundary.
    pub(crate) fn take_bytes(&mut self, bytes: u64) -> Result<&'r mut [u8], Error> {
        let bytes = addressable(bytes)?;
        let skipped = self.rest.as_ptr().align_offset(ALIGNMENT);
        let given = self.rest.len();
        let needed = skipped.saturating_add(bytes);
        let rest = core::mem::take(&mut self.rest);
        let (head, rest) =
            rest.split_at_mut_checked(needed).ok_or(Error::RegionTooSmall { needed, given })?;
        self.rest = rest;
        head.get_mut(skipped..).ok_or(Error::RegionTooSmall { needed, given })
    }
}

/// Values in a buffer of this shape.
pub(crate) fn count<const N: usize>(shape: [u64; N]) -> u64 {
    shape.into_iter().fold(1, u64::saturating_mul)
}

/// Bytes that `count` values of `T` take in a region.
pub(crate) fn bytes_of<T>(count: u64) -> u64 {
    let bytes = count.saturating_mul(size_of::<T>() as u64);
    bytes.checked_next_multiple_of(ALIGNMENT as u64).unwrap_or(u64::MAX)
}

/// `bytes`, where they can be one region on this machine.
pub(crate) fn addressable(bytes: u64) -> Result<usize, Error> {
    let fitting = isize::try_from(bytes).ok().and_then(|bytes| usize::try_from(bytes).ok());
    fitting.ok_or(Error::TooLarge { needed: bytes })
}

/// One buffer of a plan, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// When it is in use.
    pub phase: &'static str,
    /// What it holds.
    pub name: &'static str,
    /// Values.
    pub count: u64,
    /// Bytes, with alignment.
    pub bytes: u64,
}

/// Declares a struct of slices and, from the same list, the bytes that it takes and how it is carved. Of each buffer it is
/// given the type and the shape: the factors of the number of values, which nobody multiplies but [`count`].
macro_rules! buffers {
    (
        $(#[$meta:meta])*
        $name:ident ($sizes:ident: $sizes_type:ty) phase $phase:literal {
            $( $(#[$field_meta:meta])* $field:ident: [$type:ty; $($factor:expr),+], )*
        }
    ) => {
        $(#[$meta])*
        pub(crate) struct $name<'r> {
            $( $(#[$field_meta])* pub(crate) $field: &'r mut [$type], )*
        }

        impl<'r> $name<'r> {
            /// Bytes of all buffers.
            pub(crate) fn bytes($sizes: &$sizes_type) -> u64 {
                let mut sum = 0u64;
                Self::list($sizes, &mut |buffer| sum = sum.saturating_add(buffer.bytes));
                sum
            }

            /// Lists the buffers.
            pub(crate) fn list($sizes: &$sizes_type, each: &mut dyn FnMut($crate::region::Buffer)) {
                $(
                    let count = $crate::region::count([$( $factor as u64 ),+]);
                    let bytes = $crate::region::bytes_of::<$type>(count);
                    each($crate::region::Buffer { phase: $phase, name: stringify!($field), count, bytes });
                )*
            }

            /// Takes the buffers from the beginning of `bytes`.
            #[allow(dead_code, reason = "some share their bytes with others")]
            pub(crate) fn carve(
                bytes: &'r mut [u8],
                $sizes: &$sizes_type,
            ) -> Result<Self, $crate::error::Error> {
                Self::carve_from(&mut $crate::region::Region::new(bytes), $sizes)
            }

            /// Takes the buffers from what is left of `region`.
            pub(crate) fn carve_from(
                region: &mut $crate::region::Region<'r>,
                $sizes: &$sizes_type,
            ) -> Result<Self, $crate::error::Error> {
                Ok(Self { $( $field: region.take::<$type>($crate::region::count([$( $factor as u64 ),+]))?, )* })
            }
        }
    };
}
pub(crate) use buffers;
