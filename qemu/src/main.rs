//! Kinglet without an operating system.
//!
//! ```text
//! reset -> board (start-up, memory, console) -> image: model -> Recognizer <- recording; transcript -> console -> board
//! ```
//!
//! Everything that differs between boards is behind [`boards::Board`]; all `unsafe` of this crate is there too.
//! `docs/porting.md` says what a new board needs.
#![no_std]
#![no_main]

mod failure;
mod image;
#[cfg(feature = "raspi3b")]
mod cpio;
mod boards;

use core::panic::PanicInfo;

use boards::{Active, Status};

/// Where every board's start-up ends.
fn start() -> ! {
    let status = match image::run::<Active>() {
        Ok(()) => Status::Success,
        Err(failure) => {
            boards::print(format_args!("kinglet: error: {failure}\n"));
            Status::Failure
        }
    };
    boards::end(status)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    boards::print(format_args!("kinglet: error: {info}; this is a defect, please report it\n"));
    boards::end(Status::Fault)
}
