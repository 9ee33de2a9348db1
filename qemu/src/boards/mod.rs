//! What an image asks of a board, and the only choice between boards.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(feature = "mps3-an547")]
mod mps3_an547;
#[cfg(feature = "raspi3b")]
mod raspi3b;
#[cfg(any(feature = "virt", feature = "mps3-an547"))]
mod semihosted;
#[cfg(feature = "virt")]
mod virt;

use core::fmt::{self, Write};

use crate::failure::Failure;

#[cfg(feature = "mps3-an547")]
pub use mps3_an547::Mps3An547 as Active;
#[cfg(feature = "raspi3b")]
pub use raspi3b::Raspi3b as Active;
#[cfg(feature = "virt")]
pub use virt::Virt as Active;

#[cfg(not(any(feature = "virt", feature = "raspi3b", feature = "mps3-an547")))]
compile_error!("choose a board: --features virt, raspi3b or mps3-an547");

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is a transcript.
    Success = 0,
    /// Something is wrong with the model, the recording or the memory.
    Failure = 1,
    /// An exception or a panic.
    Fault = 3,
}

/// Borders of the recognition, for programs that count instructions.
#[derive(Debug, Clone, Copy)]
pub enum Marker {
    Begin,
    End,
}

/// Memory that the image may write to, once.
pub struct Memory {
    /// For the recogniser, and for the recording where the board has to copy it.
    pub region: &'static mut [u8],
    /// Bytes of the stack, which lies elsewhere.
    pub stack: usize,
}

/// A board. Its module also brings the start-up code, which ends in [`crate::start`].
pub trait Board {
    /// What the board is called.
    const NAME: &'static str;
    /// Where the model is, in words.
    const MODEL_PLACE: &'static str;
    /// What to do when there is none.
    const NO_MODEL: &'static str;

    /// The memory of the image. Called once, before anything else.
    fn memory() -> Memory;
    /// All bytes of the place in which the model begins, on a 64-byte boundary.
    fn model() -> Result<&'static [u8], Failure>;
    /// The recording, 16-bit little-endian samples; `spare` is memory for a copy.
    fn recording(spare: &mut [u8]) -> Result<&[u8], Failure>;
    /// Writes to the console.
    fn write(text: &str);
    /// Ticks since reset, and how many there are in a second.
    fn clock() -> Option<(u64, u64)>;
    /// Leaves a trace that a counting emulator sees.
    fn mark(_: Marker) {}
    /// Ends the run; whoever watches learns the status.
    fn exit(status: Status) -> !;
}

/// Writes to the console of the board.
pub fn print(arguments: fmt::Arguments<'_>) {
    struct Console;
    impl Write for Console {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            Active::write(text);
            Ok(())
        }
    }
    // `Console` never fails.
    let _ = Console.write_fmt(arguments);
}

/// Says how the run ended, for watchers that see only the console, and ends it.
pub fn end(status: Status) -> ! {
    print(format_args!("kinglet: exit status {}\n", status as u8));
    Active::exit(status)
}
