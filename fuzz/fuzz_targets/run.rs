//! Any bytes as a model, checksums mended; what is accepted recognises a little audio in the memory that it asks for.
#![no_main]

use kinglet_fuzz::files::{Victim, mend};
use kinglet_fuzz::running::{chirp, run};
use libfuzzer_sys::fuzz_target;

/// A caller with more memory than this would be a computer that nobody calls a board.
const MOST_MEMORY: usize = 256 << 20;

fuzz_target!(|data: &[u8]| {
    let mut mended = data.to_vec();
    mend(&mut mended);
    run(Victim::new(&mended).bytes(), &chirp(6_400), MOST_MEMORY, &mut Vec::new());
});
