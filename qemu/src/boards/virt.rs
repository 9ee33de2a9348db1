//! QEMU's `virt` machine: the model in flash, console and recording through semihosting.

use semihosting::io::{Write, stdout};

use super::aarch64::{self, memory};
use super::{Board, Marker, Memory, Status, semihosted};
use crate::failure::Failure;

core::arch::global_asm!(include_str!("virt.s"));

/// The second bank of flash: `-drive if=pflash,unit=1`.
const FLASH: usize = 0x0400_0000;
const FLASH_BYTES: usize = 0x0400_0000;

pub struct Virt;

impl Board for Virt {
    const NAME: &'static str = "QEMU virt";
    const MODEL_PLACE: &'static str = "flash at 0x04000000";
    const NO_MODEL: &'static str = "give QEMU `-drive if=pflash,unit=1,format=raw,file=flash.img`; `kinglet flash --board virt` writes it";

    fn memory() -> Memory {
        memory()
    }

    fn model() -> Result<&'static [u8], Failure> {
        // SAFETY: the page tables in virt.s map this bank as read-only memory, and nobody writes to it while the image runs.
        Ok(unsafe { core::slice::from_raw_parts(FLASH as *const u8, FLASH_BYTES) })
    }

    fn recording(spare: &mut [u8]) -> Result<&[u8], Failure> {
        semihosted::read_recording(spare)
    }

    fn write(text: &str) {
        if let Ok(mut stdout) = stdout() {
            // A console that is gone can be told nothing.
            let _ = stdout.write_all(text.as_bytes());
        }
    }

    fn clock() -> Option<(u64, u64)> {
        Some(aarch64::clock())
    }

    fn mark(marker: Marker) {
        aarch64::mark(marker);
    }

    fn exit(status: Status) -> ! {
        semihosting::process::exit(status as i32)
    }
}
