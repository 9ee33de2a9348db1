//! Every SIMD instruction of Kinglet.
#![no_std]

#[cfg(feature = "std")]
extern crate std;
