//! What the fuzz targets share with the tests of hostile models.

#[path = "../../model-format/tests/common/mod.rs"]
pub mod files;
#[path = "../../runtime/tests/common/mod.rs"]
pub mod running;
