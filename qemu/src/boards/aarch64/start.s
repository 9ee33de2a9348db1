// From reset to Rust, on any AArch64 board: one core, EL1, FP and SIMD on, MMU and caches on.

    .equ    TABLE, 3
    .equ    NORMAL, 0x40000000000701                // valid, attribute 0, inner shareable, accessed; not for EL0 to execute
    .equ    DEVICE, 0x40000000000605                // valid, attribute 1, outer shareable, accessed
    .equ    READ_ONLY, 0x80
    .equ    NO_EXECUTE, 0x20000000000000

    .section .text.start, "ax"
    .global _start
_start:
    mrs     x1, mpidr_el1
    and     x1, x1, #0xff
    cbz     x1, 1f
    .global park
park:
    wfi                                             // the other cores wait for nothing
    b       park

1:  mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    at_el1
    // A Raspberry Pi starts at EL2.
    mov     x1, #(1 << 31)                          // EL1 is AArch64
    msr     hcr_el2, x1
    msr     hstr_el2, xzr
    mov     x1, #0x33ff                             // FP and SIMD do not trap
    msr     cptr_el2, x1
    mrs     x1, cnthctl_el2
    orr     x1, x1, #3                              // neither do the counters
    msr     cnthctl_el2, x1
    msr     cntvoff_el2, xzr
    mrs     x1, midr_el1
    msr     vpidr_el2, x1
    mrs     x1, mpidr_el1
    msr     vmpidr_el2, x1
    ldr     x1, =0x30d00800                         // bits that are one on every core; MMU and caches off
    msr     sctlr_el1, x1
    mov     x1, #0x3c5                              // EL1 with its own stack pointer, interrupts masked
    msr     spsr_el2, x1
    adr     x1, at_el1
    msr     elr_el2, x1
    eret

at_el1:
    mrs     x2, id_aa64pfr0_el1
    ubfx    x2, x2, #16, #4
    cmp     x2, #15
    adrp    x1, without_fp
    add     x1, x1, :lo12:without_fp
    b.eq    refuse_core
    mrs     x2, id_aa64isar0_el1
    ubfx    x2, x2, #16, #4
    adrp    x1, without_crc
    add     x1, x1, :lo12:without_crc
    cbz     x2, refuse_core
    mov     x1, #(3 << 20)
    msr     cpacr_el1, x1
    isb

    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    // Exceptions have a stack of their own, so that they can tell of an overflow of the other.
    msr     spsel, #1
    adrp    x1, __exception_stack_end
    add     x1, x1, :lo12:__exception_stack_end
    mov     sp, x1
    msr     spsel, #0
    ldr     x1, =__stack_end
    mov     sp, x1

    ic      iallu
    tlbi    vmalle1
    ldr     x1, =0x04ff                             // attribute 0: memory, write-back; 1: device, nGnRE
    msr     mair_el1, x1
    ldr     x1, =0x100803519                        // 39 bits of address, write-back walks, 36 bits behind, no upper half
    msr     tcr_el1, x1
    adrp    x1, translation_table
    msr     ttbr0_el1, x1
    dsb     sy
    isb
    ldr     x1, =0x30d0180d                         // MMU, data and instruction caches, stack alignment
    msr     sctlr_el1, x1
    isb

    ldr     x1, =__bss_start
    ldr     x2, =__bss_end
2:  cmp     x1, x2
    b.hs    3f
    stp     xzr, xzr, [x1], #16
    b       2b
3:  b       rust_start

    // Sixteen vectors, all alike: save the registers, tell Rust which vector it was.
    .macro  vector number
    .balign 0x80
    sub     sp, sp, #256
    stp     x0, x1, [sp]
    mov     x1, #\number
    b       save_registers
    .endm

    .balign 0x800
vectors:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vector  \n
    .endr

save_registers:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    mov     x0, sp
    bl      report_exception

    .section .rodata, "a"
without_fp:
    .asciz  "kinglet: error: this core has no floating point; Kinglet needs it\nkinglet: exit status 1\n"
without_crc:
    .asciz  "kinglet: error: this core has no CRC instructions; build the image without `target-feature=+crc`\nkinglet: exit status 1\n"
