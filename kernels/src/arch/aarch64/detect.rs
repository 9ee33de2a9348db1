//! Which AArch64 extensions exist: asked of the operating system, of the ID registers where there is none,
//! else what the program was compiled for.

use crate::InstructionSet;

pub(crate) fn exists(set: InstructionSet) -> bool {
    match set {
        InstructionSet::Neon => cfg!(target_feature = "neon"),
        InstructionSet::Dotprod => cfg!(target_feature = "neon") && has_dotprod(),
        InstructionSet::I8mm => cfg!(target_feature = "neon") && has_dotprod() && has_i8mm(),
        _ => false,
    }
}

#[cfg(any(test, feature = "std"))]
fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

#[cfg(any(test, feature = "std"))]
fn has_i8mm() -> bool {
    std::arch::is_aarch64_feature_detected!("i8mm")
}

/// Bits 47:44 of ID_AA64ISAR0_EL1, "DP".
#[cfg(all(not(any(test, feature = "std")), target_os = "none"))]
fn has_dotprod() -> bool {
    let register: u64;
    // SAFETY: without an operating system the program runs at EL1 or above, where the register is readable.
    unsafe {
        core::arch::asm!("mrs {}, ID_AA64ISAR0_EL1", out(reg) register, options(nomem, nostack, preserves_flags));
    }
    register >> 44 & 0xf != 0
}

/// Bits 55:52 of ID_AA64ISAR1_EL1, "I8MM".
#[cfg(all(not(any(test, feature = "std")), target_os = "none"))]
fn has_i8mm() -> bool {
    let register: u64;
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("mrs {}, ID_AA64ISAR1_EL1", out(reg) register, options(nomem, nostack, preserves_flags));
    }
    register >> 52 & 0xf != 0
}

#[cfg(not(any(test, feature = "std", target_os = "none")))]
fn has_dotprod() -> bool {
    cfg!(target_feature = "dotprod")
}

#[cfg(not(any(test, feature = "std", target_os = "none")))]
fn has_i8mm() -> bool {
    cfg!(target_feature = "i8mm")
}
