//! All working memory comes from one region that the caller owns. [`buffers!`](crate::region) declares a set
//! of buffers once: their names, types, lengths and so their sum.

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
    pub(crate) fn take<T>(&mut self, count: usize) -> Result<&'r mut [T], Error>
    where
        T: FromBytes + IntoBytes + Immutable + KnownLayout,
    {
        let bytes = count.checked_mul(size_of::<T>()).ok_or(Error::TooLarge)?;
        let taken = self.take_bytes(bytes)?;
        let given = taken.len();
        <[T]>::mut_from_bytes(taken).map_err(|_| Error::RegionTooSmall { needed: bytes, given })
    }

    /// `bytes` bytes on a 64-byte boundary.
    pub(crate) fn take_bytes(&mut self, bytes: usize) -> Result<&'r mut [u8], Error> {
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

/// Bytes that `count` values of `T` take in a region.
pub(crate) fn bytes_of<T>(count: usize) -> usize {
    count.saturating_mul(size_of::<T>()).checked_next_multiple_of(ALIGNMENT).unwrap_or(usize::MAX)
}

/// One buffer of a plan, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// When it is in use.
    pub phase: &'static str,
    /// What it holds.
    pub name: &'static str,
    /// Values.
    pub count: usize,
    /// Bytes, with alignment.
    pub bytes: usize,
}

/// Declares a struct of slices and, from the same list, the bytes that it takes and how it is carved.
macro_rules! buffers {
    (
        $(#[$meta:meta])*
        $name:ident ($sizes:ident: $sizes_type:ty) phase $phase:literal {
            $( $(#[$field_meta:meta])* $field:ident: [$type:ty; $count:expr], )*
        }
    ) => {
        $(#[$meta])*
        pub(crate) struct $name<'r> {
            $( $(#[$field_meta])* pub(crate) $field: &'r mut [$type], )*
        }

        impl<'r> $name<'r> {
            /// Bytes of all buffers.
            pub(crate) fn bytes($sizes: &$sizes_type) -> usize {
                [$( $crate::region::bytes_of::<$type>($count) ),*].into_iter().fold(0, usize::saturating_add)
            }

            /// Lists the buffers.
            pub(crate) fn list($sizes: &$sizes_type, each: &mut dyn FnMut($crate::region::Buffer)) {
                $( each($crate::region::Buffer {
                    phase: $phase,
                    name: stringify!($field),
                    count: $count,
                    bytes: $crate::region::bytes_of::<$type>($count),
                }); )*
            }

            /// Takes the buffers from the beginning of `bytes`.
            pub(crate) fn carve(
                bytes: &'r mut [u8],
                $sizes: &$sizes_type,
            ) -> Result<Self, $crate::error::Error> {
                let mut region = $crate::region::Region::new(bytes);
                Ok(Self { $( $field: region.take::<$type>($count)?, )* })
            }
        }
    };
}
pub(crate) use buffers;
