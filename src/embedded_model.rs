//! The default model inside the program.

/// Begins on the boundary that a model needs; `include_bytes!` alone promises none.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

static MODEL: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/en.kgl")));

/// `models/en.kgl`, as it was when the program was built.
pub(crate) fn bytes() -> &'static [u8] {
    &MODEL.0
}
