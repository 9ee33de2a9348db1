// Memory map: translation tables of 2 MiB blocks. NORMAL, DEVICE, READ_ONLY and NO_EXECUTE are in aarch64/start.s.

    .section .rodata.tables, "a"
    .balign 4096
    .global translation_table
translation_table:                                  // 1 GiB an entry
    .quad   low + TABLE
    .fill   511, 8, 0
low:
    .quad   NORMAL                                  // the image
    .quad   0                                       // catches a stack that overflows
    .set    address, 0x400000
    .rept   62                                      // stack and region
    .quad   address + NORMAL + NO_EXECUTE
    .set    address, address + 0x200000
    .endr
    .rept   64                                      // initramfs, 128 MiB
    .quad   address + NORMAL + READ_ONLY + NO_EXECUTE
    .set    address, address + 0x200000
    .endr
    .fill   376, 8, 0                               // a Zero 2 W has 512 MiB; what is not mapped is not touched
    .set    address, 0x3f000000
    .rept   8
    .quad   address + DEVICE + NO_EXECUTE
    .set    address, address + 0x200000
    .endr

// Says the string at x1 and stops, without floating-point registers and without a stack.
    .section .text, "ax"
    .global refuse_core
refuse_core:
    mov     w2, #0x1000
    movk    w2, #0x3f20, lsl #16
1:  ldrb    w3, [x1], #1
    cbz     w3, 3f
2:  ldr     w4, [x2, #0x18]
    tbnz    w4, #5, 2b                              // full
    str     w3, [x2]
    b       1b
3:  wfe
    b       3b

// The firmware holds the other cores in a loop over a table of addresses at 0xe0. There QEMU keeps three processors of its
// host busy, so they are sent to a loop that sleeps. They see memory without caches.
    .global park_other_cores
park_other_cores:
    adrp    x0, park
    add     x0, x0, :lo12:park
    mov     x1, #0xe0
    mov     x2, #3
1:  str     x0, [x1]
    dc      civac, x1
    add     x1, x1, #8
    subs    x2, x2, #1
    b.ne    1b
    dsb     sy
    sev
    ret
