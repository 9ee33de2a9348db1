//! Tests that look inside.

mod parity;
mod region;
mod streams;
