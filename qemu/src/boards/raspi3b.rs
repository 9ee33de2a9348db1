//! Raspberry Pi 3 and Zero 2 W, and QEMU's `raspi3b`: model and recording in an initramfs, console on the PL011 UART
//! (pins 8 and 10, 115200 baud).

use core::hint::spin_loop;
use core::ptr::{read_volatile, write_volatile};

use super::aarch64::{self, memory};
use super::{Board, Marker, Memory, Status};
use crate::cpio;
use crate::failure::Failure;

core::arch::global_asm!(include_str!("raspi3b.s"));

// SAFETY: defined in raspi3b.s with this signature.
unsafe extern "C" {
    fn park_other_cores();
}

/// Where config.txt, and QEMU, put the initramfs.
const INITRAMFS: usize = 0x0800_0000;
/// Most bytes that it may have: what the page tables map.
const INITRAMFS_BYTES: usize = 0x0800_0000;

const GPIO_FUNCTION_1: usize = 0x3f20_0004;
const GPIO_FUNCTION_3: usize = 0x3f20_000c;
const UART_DATA: usize = 0x3f20_1000;
const UART_FLAGS: usize = 0x3f20_1018;
const UART_BAUD_INTEGER: usize = 0x3f20_1024;
const UART_BAUD_FRACTION: usize = 0x3f20_1028;
const UART_LINE: usize = 0x3f20_102c;
const UART_CONTROL: usize = 0x3f20_1030;
const UART_FULL: u32 = 1 << 5;
const UART_BUSY: u32 = 1 << 3;
const POWER_RESET: usize = 0x3f10_001c;
const POWER_STATUS: usize = 0x3f10_0020;
const POWER_WATCHDOG: usize = 0x3f10_0024;
const POWER_PASSWORD: u32 = 0x5a00_0000;

pub struct Raspi3b;

impl Board for Raspi3b {
    const NAME: &'static str = "Raspberry Pi 3";
    const MODEL_PLACE: &'static str = "the initramfs at 0x08000000";
    const NO_MODEL: &'static str = "`kinglet flash --board rpi3` writes an initramfs with one";

    fn memory() -> Memory {
        // SAFETY: writes the firmware's table for the other cores, which nothing else of the image knows of.
        unsafe { park_other_cores() };
        start_uart();
        memory()
    }

    fn model() -> Result<&'static [u8], Failure> {
        cpio::find(initramfs(), "model.kgl")
            .ok_or(Failure::NoModel { place: Self::MODEL_PLACE, remedy: Self::NO_MODEL })
    }

    fn recording(_: &mut [u8]) -> Result<&[u8], Failure> {
        cpio::find(initramfs(), "recording.raw").ok_or(Failure::NoRecording(
            "there is no `recording.raw` in the initramfs; `kinglet flash --board rpi3` puts one there",
        ))
    }

    fn write(text: &str) {
        for byte in text.bytes() {
            if byte == b'\n' {
                put(b'\r');
            }
            put(byte);
        }
    }

    fn clock() -> Option<(u64, u64)> {
        Some(aarch64::clock())
    }

    fn mark(marker: Marker) {
        aarch64::mark(marker);
    }

    /// Halts the board; QEMU ends. The status is what the console said last.
    fn exit(_: Status) -> ! {
        while read(UART_FLAGS) & UART_BUSY != 0 {
            spin_loop();
        }
        // Partition 63 stands for "do not start again".
        write(POWER_STATUS, POWER_PASSWORD | read(POWER_STATUS) | 0x555);
        write(POWER_WATCHDOG, POWER_PASSWORD | 10);
        write(POWER_RESET, POWER_PASSWORD | (read(POWER_RESET) & !0x30) | 0x20);
        aarch64::park()
    }
}

fn initramfs() -> &'static [u8] {
    // SAFETY: the page tables in raspi3b.s map this as read-only memory; a Pi 3 and a Zero 2 W have it all, and nobody
    // writes to it while the image runs.
    unsafe { core::slice::from_raw_parts(INITRAMFS as *const u8, INITRAMFS_BYTES) }
}

/// 115200 baud, 8 bits, on pins 14 and 15, whatever the firmware has done: by default it gives this UART to Bluetooth.
fn start_uart() {
    write(UART_CONTROL, 0);
    write(GPIO_FUNCTION_3, read(GPIO_FUNCTION_3) & !(0o77 << 6)); // 32 and 33: inputs
    write(GPIO_FUNCTION_1, read(GPIO_FUNCTION_1) & !(0o77 << 12) | 0o44 << 12); // 14 and 15: function 0
    write(UART_BAUD_INTEGER, 26); // 48 MHz / (16 * 115200)
    write(UART_BAUD_FRACTION, 3);
    write(UART_LINE, 0b111 << 4); // 8 bits, FIFO
    write(UART_CONTROL, 0x301); // transmit, receive, enable
}

fn put(byte: u8) {
    while read(UART_FLAGS) & UART_FULL != 0 {
        spin_loop();
    }
    write(UART_DATA, u32::from(byte));
}

fn read(register: usize) -> u32 {
    // SAFETY: only called with the addresses above: device registers of this board, mapped as device memory by raspi3b.s.
    unsafe { read_volatile(register as *const u32) }
}

fn write(register: usize, value: u32) {
    // SAFETY: as in `read`; no register written to here makes a device access memory.
    unsafe { write_volatile(register as *mut u32, value) }
}
