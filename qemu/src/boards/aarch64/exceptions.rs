//! No exception is expected: each is told, with the registers, and ends the run.

use aarch64_cpu::registers::{ELR_EL1, ESR_EL1, FAR_EL1, Readable, SPSR_EL1};

use crate::boards::{Status, end, print};

const SOURCES: [&str; 4] =
    ["this level", "this level, in an exception", "a lower level", "a lower level, 32 bits"];
const KINDS: [&str; 4] = ["synchronous exception", "interrupt", "fast interrupt", "system error"];

/// Called by start.s with the general registers and the number of the vector.
// SAFETY: the name is not used elsewhere in the image.
#[unsafe(no_mangle)]
extern "C" fn report_exception(registers: &[u64; 31], vector: usize) -> ! {
    let kind = KINDS.get(vector % 4).unwrap_or(&"exception");
    let source = SOURCES.get(vector / 4).unwrap_or(&"?");
    print(format_args!("kinglet: error: {kind} from {source}: {}\n", class(ESR_EL1.get() >> 26 & 0x3f)));
    print(format_args!(
        "esr {:#x}  elr {:#x}  far {:#x}  spsr {:#x}\n",
        ESR_EL1.get(),
        ELR_EL1.get(),
        FAR_EL1.get(),
        SPSR_EL1.get()
    ));
    for (index, value) in registers.iter().enumerate() {
        let end = if index % 4 == 3 || index == 30 { "\n" } else { "  " };
        print(format_args!("x{index:<2} {value:016x}{end}"));
    }
    end(Status::Fault)
}

/// The class of an exception, ESR_EL1 bits 31 to 26.
fn class(code: u64) -> &'static str {
    match code {
        0x00 => "unknown instruction",
        0x07 => "floating point is not switched on",
        0x20 | 0x21 => "instruction cannot be fetched",
        0x22 => "program counter is not aligned",
        0x24 | 0x25 => "data cannot be accessed (is there enough memory?)",
        0x26 => "stack pointer is not aligned",
        0x2f => "bus error",
        _ => "see the class in esr",
    }
}
