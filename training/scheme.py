"""How each matrix is to be stored: the rules of a TOML file, first match wins.

    [[weights]]
    match = "decoder.layers.*_attention.*"   # shell pattern over tensor names; "*" also crosses dots
    bits = 8                                 # 8, 4, 3, or 32 (left in floats); one scale an output
    trellis = true                           # with 3 bits: not the odd numbers but levels that symbols name, see trellis.py; for matrices of many rows at a time
    group = 32                               # with 4 or 3 bits: inputs that share a multiplier of the scale; 0: no multipliers
    sparsity = 0.25                          # share of blocks that are zero
    block = [16, 4]                          # outputs, inputs
"""

import fnmatch
from dataclasses import dataclass

import torch

import trellis


@dataclass(frozen=True)
class Scheme:
    bits: int = 32
    trellis: bool = False
    group: int = 0
    sparsity: float = 0.0
    block: tuple[int, int] = (16, 4)

    @property
    def odd(self) -> bool:
        return self.bits == 3 and not self.trellis

    @property
    def lowest(self) -> int:
        return -7 if self.odd else -self.highest - 1

    @property
    def highest(self) -> int:
        """Three bits are whole numbers that four bits hold, too."""
        return (1 << (max(self.bits, 4) - 1)) - 1

    def nearest(self, steps: torch.Tensor) -> torch.Tensor:
        """Of what is stored, in steps; of a trellis all levels, of which trellis.py chooses. The odd numbers are as many below zero as above, and none is lost to zero."""
        whole = 2 * (steps / 2).floor() + 1 if self.odd else steps.round()
        return whole.clamp(self.lowest, self.highest)

    def holds(self, steps: torch.Tensor) -> bool:
        """Whether these steps `[outputs, inputs]` can be stored."""
        return trellis.holds(steps) if self.trellis else torch.equal(self.nearest(steps), steps)

    @property
    def most(self) -> int:
        """The largest multiplier."""
        return 15


class Rules:
    def __init__(self, entries: list[dict]):
        self.entries = []
        for entry in entries:
            values = {key: tuple(value) if key == "block" else value for key, value in entry.items() if key != "match"}
            scheme = Scheme(**values)
            if scheme.bits not in (3, 4, 8, 32) or scheme.group % 16 or scheme.group and scheme.bits not in (3, 4):
                raise SystemExit(f"rule {entry}: bits are 3, 4, 8 or 32, a group (of 3 or 4 bits) is a multiple of 16")
            if scheme.bits == 3 and scheme.sparsity or scheme.trellis and scheme.bits != 3:
                raise SystemExit(f"rule {entry}: three bits know no blocks, and a trellis has three bits")
            self.entries.append((entry["match"], scheme))

    def names(self, name: str) -> bool:
        """Whether a rule is about this tensor; what none is about stays in floats while training and is packed as the packer likes."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in self.entries)

    def keeps_floats(self, name: str) -> bool:
        """Whether a rule wants this matrix in floats in the file too."""
        scheme = self.of(name)
        return self.names(name) and scheme.bits == 32 and not scheme.sparsity

    def of(self, name: str) -> Scheme:
        return next((scheme for pattern, scheme in self.entries if fnmatch.fnmatchcase(name, pattern)), Scheme())
