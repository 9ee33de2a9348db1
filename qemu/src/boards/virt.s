// Memory map: translation tables of 2 MiB blocks. NORMAL, DEVICE, READ_ONLY and NO_EXECUTE are in aarch64/start.s.

    .section .rodata.tables, "a"
    .balign 4096
    .global translation_table
translation_table:                                  // 1 GiB an entry
    .quad   low + TABLE
    .quad   high + TABLE
    .fill   510, 8, 0
low:
    .set    address, 0
    .rept   64                                      // flash, both banks
    .quad   address + NORMAL + READ_ONLY + NO_EXECUTE
    .set    address, address + 0x200000
    .endr
    .rept   448
    .quad   address + DEVICE + NO_EXECUTE
    .set    address, address + 0x200000
    .endr
high:
    .quad   0                                       // device tree, not used
    .quad   0x40200000 + NORMAL                     // the image
    .quad   0                                       // catches a stack that overflows
    .set    address, 0x40600000
    .rept   4                                       // stack and region
    .quad   address + NORMAL + NO_EXECUTE
    .set    address, address + 0x200000
    .endr
    .fill   505, 8, 0

// Says the string at x1 and ends with status 1, without floating-point registers and without a stack.
    .section .text, "ax"
    .global refuse_core
refuse_core:
    mov     x0, #0x04                               // SYS_WRITE0
    hlt     #0xf000
    adrp    x1, refuse_status
    add     x1, x1, :lo12:refuse_status
    mov     x0, #0x18                               // SYS_EXIT
    hlt     #0xf000
    b       .

    .section .rodata, "a"
    .balign 8
refuse_status:
    .quad   0x20026, 1                              // ADP_Stopped_ApplicationExit
