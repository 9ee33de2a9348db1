//! Ctrl-C, hang-ups and requests to end.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::partial_file;

/// Set while a command ends by itself when it is asked to.
static ORDERLY: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From now on an interrupt leaves no half-written file behind.
pub fn install() {
    let handler = || {
        // Whoever asks twice does not want to wait.
        if ORDERLY.load(Ordering::SeqCst) && !REQUESTED.swap(true, Ordering::SeqCst) {
            return;
        }
        partial_file::remove_unfinished(|| {
            #[expect(
                clippy::exit,
                reason = "an interrupt ends the program wherever it is; 128 + SIGINT is what shells expect"
            )]
            std::process::exit(130)
        });
    };
    if let Err(cause) = ctrlc::set_handler(handler) {
        log::debug!("no handler for interrupts: {cause}");
    }
}

/// From now on the first interrupt only makes [`requested`] true.
#[cfg(feature = "microphone")]
pub fn end_orderly() {
    ORDERLY.store(true, Ordering::SeqCst);
}

/// Whether the command was asked to end.
#[cfg(feature = "microphone")]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
