//! The Kinglet model file (`.kgl`): checked zero-copy views.
#![no_std]
#![forbid(unsafe_code)]

mod matrix;

pub use matrix::{Int8Matrix, MatrixShapeError, round_up};
