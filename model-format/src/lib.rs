//! The Kinglet model file (`.kgl`): checked zero-copy views.
#![no_std]
#![forbid(unsafe_code)]

mod matrix;

pub use matrix::{INPUT_BLOCK, INPUT_PAD, Int8Matrix, MatrixShapeError, OUTPUT_BLOCK, round_up};
