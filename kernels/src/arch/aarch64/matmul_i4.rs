//! Int4 matrix products with `SDOT`: few rows take weights as they are, more rows a panel that is unpacked to int8 for all of them.

use kinglet_model_format::Int4Matrix;

use super::int4::unpack;
use super::matmul_i4_dotprod_row::whole_panels;
use super::{matmul_i4_dotprod, matmul_i8_dotprod, matmul_i8_i8mm};
use crate::matmul::{LEAST_UNPACKED, Matmul};

/// A product, but for what [`whole_panels`] takes: `$few` takes all rows of a packed panel, 1 to 3, `$many` those of an unpacked one.
macro_rules! product {
    ($name:ident $features:literal: few $few:path, many $many:path) => {
        /// `room` has 16 times the inputs where there are rows enough to unpack for.
        #[target_feature(enable = $features)]
        pub(super) fn $name<'a>(mut matmul: Matmul<'a, Int4Matrix<'a>>, room: &mut [i8]) {
            let few = matmul.rows.rows() < LEAST_UNPACKED;
            let done = whole_panels(&mut matmul);
            for panel in matmul.panels_from(done) {
                // SAFETY: the panel's own invariants; the room is large enough.
                unsafe {
                    if few {
                        $few(&panel);
                    } else {
                        $many(&unpack(panel, room.as_mut_ptr()));
                    }
                }
            }
        }
    };
}

product!(matmul_i4_block16x4_dotprod "neon,dotprod":
    few matmul_i4_dotprod::few_rows, many matmul_i8_dotprod::multiply_panel);
product!(matmul_i4_block16x4_i8mm "neon,dotprod,i8mm":
    few matmul_i4_dotprod::few_rows, many matmul_i8_i8mm::multiply_panel);
