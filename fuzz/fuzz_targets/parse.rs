//! Any bytes as a model, as they are and with their checksums mended: an error, or a model that can be walked through.
#![no_main]

use kinglet_fuzz::files::{Victim, mend, visit};
use kinglet_model_format::{Model, Verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = Victim::new(data);
    for verify in [Verify::All, Verify::Tables] {
        if let Ok(model) = Model::parse_with(file.bytes(), verify) {
            visit(&model);
        }
    }
    let mut mended = data.to_vec();
    mend(&mut mended);
    if let Ok(model) = Model::parse(Victim::new(&mended).bytes()) {
        visit(&model);
    }
});
