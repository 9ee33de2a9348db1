//! What AArch64 boards share: start-up, memory, exceptions, the time counter.

mod exceptions;

use aarch64_cpu::asm;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};

use super::{Marker, Memory};

core::arch::global_asm!(include_str!("start.s"));

// SAFETY: set by the linker script; they are addresses, nothing is read through them but in `memory`.
unsafe extern "C" {
    static __stack_start: u8;
    static __stack_end: u8;
    static mut __region_start: u8;
    static __region_end: u8;
}

/// Called by start.s, once, on one core, with a stack and all memory mapped.
// SAFETY: the name is not used elsewhere in the image.
#[unsafe(no_mangle)]
extern "C" fn rust_start() -> ! {
    crate::start()
}

/// The memory that the linker script sets aside.
pub fn memory() -> Memory {
    let start = &raw mut __region_start;
    let length = (&raw const __region_end).addr() - start.addr();
    let stack = (&raw const __stack_end).addr() - (&raw const __stack_start).addr();
    // SAFETY: the linker script sets this memory aside for nothing else, the page tables map it, and this is called once.
    // It comes from outside of Rust: whatever bytes it holds, they are bytes.
    Memory { region: unsafe { core::slice::from_raw_parts_mut(start, length) }, stack }
}

/// Ticks of the system counter, and its rate.
pub fn clock() -> (u64, u64) {
    (CNTVCT_EL0.get(), CNTFRQ_EL0.get())
}

/// Hints that no core knows: they do nothing, and a counting plugin sees them.
pub fn mark(marker: Marker) {
    match marker {
        // SAFETY: a hint that no core knows is a no-operation; it touches neither memory nor registers.
        Marker::Begin => unsafe { core::arch::asm!("hint #0x70", options(nomem, nostack, preserves_flags)) },
        // SAFETY: as above.
        Marker::End => unsafe { core::arch::asm!("hint #0x78", options(nomem, nostack, preserves_flags)) },
    }
}

/// Nothing more is done.
#[cfg_attr(feature = "virt", expect(dead_code, reason = "QEMU ends by itself"))]
pub fn park() -> ! {
    loop {
        asm::wfe();
    }
}
