"""Three bits a weight that are worth more: which 8 of 64 levels a weight can have depends on what was said of the weights before it.

Trellis-coded quantization, as "QTIP" (arXiv 2406.11235) has it for weights: of each column of a matrix the weights of every fourth output are a sequence,
of which each has a symbol 0 to 7; the last four symbols name one of 64 levels, most of them near zero, as weights are. So all symbols of a sequence
are chosen together (the Viterbi algorithm, 4096 states); a reader needs three symbols besides a weight's own.
"""

import numba
import numpy
import torch

LANES = 4  # sequences of a column
SYMBOLS = 8
STATES = SYMBOLS**4

# The levels in order; what their spread is to be, in steps, lets the outermost just be held by four bits.
LEVELS = numpy.array(
    [-8, -6, -6, -5, -5, -4, -4, -4, -4, -3, -3, -3, -3, -3, -2, -2, -2, -2, -2, -2, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0]
    + [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 6, 6, 7],
    numpy.int8,
)


def level_of() -> numpy.ndarray:
    """`[4096]`: the level that four symbols name, the latest in the lowest bits.

    Every eighth level is one of a set that a weight chooses from, so that each set spans all; the set, and in which order, is what the symbols before say.
    """
    state = numpy.arange(STATES)
    earlier = (state >> 6) * 37 & 63
    place = state & 63 ^ earlier ^ earlier >> 3
    return LEVELS[(place & 7) * 8 + (place >> 3)]


LEVEL_OF = level_of()


@numba.njit(parallel=True, fastmath=True, cache=True)
def _paths(wanted, cost, level_of, found):
    """Of each row of `wanted` `[sequences, steps]` the path that costs least, into `found`; `cost`: of a squared error, likewise."""
    for sequence in numba.prange(len(wanted)):
        steps = wanted.shape[1]
        total, following = numpy.full(4096, numpy.float32(1e30)), numpy.empty(4096, numpy.float32)
        # The symbols before the first are zero.
        total[0] = 0
        least, before = numpy.empty(512, numpy.float32), numpy.empty((steps, 512), numpy.uint8)
        error = numpy.empty(16, numpy.float32)
        for step in range(steps):
            for level in range(16):
                error[level] = cost[sequence, step] * (wanted[sequence, step] - (level - 8)) ** 2
            for kept in range(512):
                least[kept], before[step, kept] = total[kept], 0
            for oldest in range(1, 8):
                for kept in range(512):
                    tried = total[oldest * 512 + kept]
                    before[step, kept] = oldest if tried < least[kept] else before[step, kept]
                    least[kept] = min(least[kept], tried)
            for kept in range(512):
                for symbol in range(8):
                    following[kept * 8 + symbol] = least[kept] + error[level_of[kept * 8 + symbol] + 8]
            total, following = following, total
        state = total.argmin()
        for step in range(steps - 1, -1, -1):
            found[sequence, step] = level_of[state]
            state = state >> 3 | numpy.int64(before[step, state >> 3]) << 9


def levels(symbols: numpy.ndarray) -> numpy.ndarray:
    """What symbols `[outputs, inputs]` name; outputs are a multiple of four."""
    behind = numpy.pad(symbols.astype(numpy.int64), ((3 * LANES, 0), (0, 0)))
    return LEVEL_OF[sum(behind[(3 - steps) * LANES : len(behind) - steps * LANES] << 3 * steps for steps in range(4))]


def nearest(wanted: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
    """`[outputs, ...]`, whole numbers -8 to 7: what can be stored, column by column, with the least sum of `cost * (found - wanted)²`."""
    outputs = len(wanted)
    rows = -(-outputs // LANES)

    def sequences(values):
        padded = torch.zeros(rows * LANES, values[0].numel())
        padded[:outputs] = values.reshape(outputs, -1)
        return padded.unflatten(0, (rows, LANES)).permute(2, 1, 0).flatten(0, 1).contiguous().numpy()

    found = numpy.empty((wanted[0].numel() * LANES, rows), numpy.int8)
    _paths(sequences(wanted), sequences(cost / cost.mean()), LEVEL_OF, found)
    columns = torch.from_numpy(found).unflatten(0, (-1, LANES)).permute(2, 1, 0).flatten(0, 1)
    return columns[:outputs].reshape(wanted.shape).to(wanted.dtype)


def holds(steps: torch.Tensor) -> bool:
    """Whether these whole numbers `[outputs, inputs]` can be stored."""
    return torch.equal(nearest(steps, torch.ones_like(steps)), steps)
