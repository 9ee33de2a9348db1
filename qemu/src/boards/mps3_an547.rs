//! Arm MPS3 with image AN547: a Cortex-M55, 32 bits, scalar kernels. Model and recogniser lie in DDR memory, console and
//! recording are the debugger's (semihosting).

use core::fmt::Write;

use cortex_m::peripheral::SCB;
use cortex_m_rt::{ExceptionFrame, entry, exception};
use cortex_m_semihosting::{debug, hio};

use super::{Board, Memory, Status, end, print, semihosted};
use crate::failure::Failure;

/// DDR memory: the model, written there by the debugger (QEMU: `-device loader`), then the recogniser's memory.
const MODEL: usize = 0x6000_0000;
const MODEL_BYTES: usize = 0x0400_0000;
const REGION: usize = MODEL + MODEL_BYTES;
const REGION_BYTES: usize = 6_000_000;
/// Both coprocessors of floating point, fully accessible.
const FP_ACCESS: u32 = 0xf << 20;

pub struct Mps3An547;

#[entry]
fn main() -> ! {
    // SAFETY: a read of a register without side effects, on the only core.
    let access = unsafe { (*SCB::PTR).cpacr.read() };
    // cortex-m-rt has switched it on; where there is none the bits stay zero.
    if access & FP_ACCESS != FP_ACCESS {
        Mps3An547::write("kinglet: error: this core has no floating point; Kinglet needs it\n");
        Mps3An547::exit(Status::Failure);
    }
    crate::start()
}

// SAFETY: replaces the default handler; it returns to nothing and uses no state of the interrupted code.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    print(format_args!("kinglet: error: hard fault\n{frame:#x?}\n"));
    end(Status::Fault)
}

impl Board for Mps3An547 {
    const NAME: &'static str = "MPS3 AN547, Cortex-M55";
    const MODEL_PLACE: &'static str = "memory at 0x60000000";
    const NO_MODEL: &'static str = "give QEMU `-device loader,file=model.kgl,addr=0x60000000,force-raw=on`";

    fn memory() -> Memory {
        // SAFETY: DDR memory that the linker script does not use, behind the model's; this is called once.
        let region = unsafe { core::slice::from_raw_parts_mut(REGION as *mut u8, REGION_BYTES) };
        // All of RAM that is not static data; there is next to none.
        Memory { region, stack: 512 << 10 }
    }

    fn model() -> Result<&'static [u8], Failure> {
        // SAFETY: DDR memory that nobody writes to while the image runs.
        Ok(unsafe { core::slice::from_raw_parts(MODEL as *const u8, MODEL_BYTES) })
    }

    fn recording(spare: &mut [u8]) -> Result<&[u8], Failure> {
        semihosted::read_recording(spare)
    }

    fn write(text: &str) {
        if let Ok(mut console) = hio::hstdout() {
            // A console that is gone can be told nothing.
            let _ = console.write_str(text);
        }
    }

    /// The core's own timer wraps within a second.
    fn clock() -> Option<(u64, u64)> {
        None
    }

    fn exit(status: Status) -> ! {
        debug::exit(if status == Status::Success { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
        loop {
            cortex_m::asm::wfi();
        }
    }
}
