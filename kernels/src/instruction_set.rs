//! Which instructions exist here.

use core::fmt;
use core::str::FromStr;

use crate::arch;

/// The instruction sets for which there are kernels. Which ones can exist depends on the architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// AArch64 with int8 matrix multiplication (`SMMLA`) and dot products.
    I8mm,
    /// AArch64 with int8 dot products (`SDOT`): Cortex-A55, A76 and later.
    Dotprod,
    /// AArch64 as every core has it: Cortex-A53, A72.
    Neon,
    /// x86-64 with AVX-512 F, BW, VL and VNNI.
    Avx512Vnni,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// Plain Rust.
    Scalar,
}

impl InstructionSet {
    /// Every instruction set, best first.
    pub const ALL: [Self; 6] =
        [Self::I8mm, Self::Dotprod, Self::Neon, Self::Avx512Vnni, Self::Avx2, Self::Scalar];

    /// The name that [`FromStr`] reads, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I8mm => "i8mm",
            Self::Dotprod => "dotprod",
            Self::Neon => "neon",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx2 => "avx2",
            Self::Scalar => "scalar",
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that no instruction set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set; known are i8mm, dotprod, neon, avx512vnni, avx2 and scalar")]
pub struct UnknownInstructionSet;

impl FromStr for InstructionSet {
    type Err = UnknownInstructionSet;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or(UnknownInstructionSet)
    }
}

/// Kernels whose instructions exist on this processor: the value is the proof.
///
/// Invariant, relied on by unsafe code: `set` was found by detection, so its instructions can be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    set: InstructionSet,
}

impl Kernels {
    /// The best kernels for this processor.
    pub fn detect() -> Self {
        let kernels = Self::available().next().unwrap_or(Self { set: InstructionSet::Scalar });
        log::debug!("kernels: {}", kernels.set);
        kernels
    }

    /// The kernels for `set`, when its instructions exist here.
    pub fn new(set: InstructionSet) -> Option<Self> {
        arch::exists(set).then_some(Self { set })
    }

    /// All kernels that can run here, best first; the last is always scalar.
    pub fn available() -> impl Iterator<Item = Self> {
        InstructionSet::ALL.into_iter().filter_map(Self::new)
    }

    /// The instruction set that these kernels use.
    pub const fn instruction_set(self) -> InstructionSet {
        self.set
    }
}
