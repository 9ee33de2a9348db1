//! Tests that look inside.

mod int4;
mod parity;
mod region;
mod streams;
