"""The runtime's float arithmetic in PyTorch, bit for bit: `kernels/src` says what each function is, and in which order it adds.

Everything is float32 on a processor. Each operation rounds once to the nearest, as IEEE 754 has it; what the runtime fuses, `fma` fuses.
Int8 values, and the words of 16 bits that attention makes, are whole numbers in tensors of floats.
"""

import math

import numpy
import torch
from torch.nn import functional

LANES = 16


def single(value: float) -> float:
    """The float32 nearest to `value`."""
    return float(numpy.float32(value))


def divide(a: float | torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a / b`, rounded once: the operator multiplies a number by the reciprocal."""
    return torch.div(torch.as_tensor(a, dtype=torch.float32), b)


def square_root(x: torch.Tensor) -> torch.Tensor:
    """Rounded to the nearest: torch's own may be a step away."""
    return torch.from_numpy(numpy.sqrt(x.numpy()))


def fma(a: torch.Tensor, b: float | torch.Tensor, c: float | torch.Tensor) -> torch.Tensor:
    """`a * b + c`, rounded once; below 2^-126, where nothing here looks so closely, perhaps to the neighbour."""
    a, b, c = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b, c))
    # A product of two floats is exact.
    total = torch.addcmul(c, a, b)
    # A sum that lies half way between two floats may have been rounded to there: then what was lost decides.
    half_way = total.view(torch.int64).bitwise_and(0x1FFFFFFF) == 0x10000000
    if half_way.any():
        a, b, c = (x.expand_as(total)[half_way] for x in (a, b, c))
        product, near = a * b, total[half_way]
        back = near - product
        lost = (product - (near - back)) + (c - back)
        total[half_way] = torch.nextafter(near, torch.where(lost == 0, near, lost * torch.inf))
    return total.float()


# Sums.


def whole_dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a @ b.T` of int8 values `[..., rows, n]` and `[..., columns, n]`, exact and then rounded once."""
    # 1024 products of int8 fit the 24 bits of a float, whatever the order of the sum.
    parts = [x @ y.transpose(-1, -2) for x, y in zip(a.split(1024, -1), b.split(1024, -1))]
    return parts[0] if len(parts) == 1 else sum(part.double() for part in parts).float()


def word_dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The same for words of 16 bits in `a`."""
    return (a.double() @ b.double().transpose(-1, -2)).float()


def in_lanes(x: torch.Tensor) -> torch.Tensor:
    """`[..., n]` as `[blocks, ..., LANES]`, zeros behind the last value."""
    padded = functional.pad(x, (0, -x.shape[-1] % LANES))
    return padded.unflatten(-1, (-1, LANES)).movedim(-2, 0)


def sum_lanes(x: torch.Tensor) -> torch.Tensor:
    """Lanes 8 apart, then 4, 2, 1."""
    for half in (8, 4, 2, 1):
        x = x[..., :half] + x[..., half : 2 * half]
    return x[..., 0]


def add_up(blocks: torch.Tensor) -> torch.Tensor:
    """One block after the other."""
    total = 0.0
    for block in blocks:
        total = total + block
    return total


def add_products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The sum of `a[i] * b[i]`, one fused multiply-add after the other."""
    total = 0.0
    for x, y in zip(a, b):
        total = fma(x, y, total)
    return total


# Functions of single values.

WHOLE = 12582912.0  # 1.5 * 2^23: adding it rounds to whole numbers
ROUND = WHOLE + 127  # with the bias of an exponent
LOG2_E, LN_2, LN_2_REST = single(math.log2(math.e)), single(math.log(2)), single(-1.904_654_3e-9)
EXP2 = [single(c) for c in (0.693_124_2, 0.240_240_99, 0.055_906_426, 0.009_582_853)]
EXP = [single(c) for c in (0.499_999_93, 0.166_665_2, 0.041_668_39, 0.008_368_717, 0.001_381_459_8)]


def exp(x: torch.Tensor) -> torch.Tensor:
    """`e^x` between -87.3 and 88.3; beyond, what it is there."""
    x = x.clamp(single(-87.3), single(88.3))
    shifted = fma(x, LOG2_E, ROUND)
    n = shifted - ROUND
    r = fma(-n, LN_2_REST, fma(-n, LN_2, x))
    square = r * r
    high = fma(square, EXP[4], fma(r, EXP[3], EXP[2]))
    q = fma(high, square, fma(r, EXP[1], EXP[0]))
    power = fma(q, square, r) + 1.0
    return power * to_exponent(shifted)


def to_exponent(shifted: torch.Tensor) -> torch.Tensor:
    """`2^n` of `n + ROUND`."""
    return (shifted.view(torch.int32) << 23).view(torch.float32)


def tanh(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(single(-9.1), single(9.1))
    power = exp(x + x)
    return (power - 1.0) / (power + 1.0)


def silu(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(min=-88.0)
    return x / (exp(0.0 - x) + 1.0)


GELU_BOUND = single(5.2)
GELU_SCALE = single(2.0 / single(GELU_BOUND * GELU_BOUND))
GELU = [
    single(c)
    for c in (
        0.135_949_98, -0.067_743_62, 0.050_025_616, -0.039_931_986, 0.031_973_917, -0.024_698_842, 0.018_038_768,
        -0.012_619_65, 0.008_365_106, -0.004_542_336, 0.002_005_169_6, -0.001_468_750_8, 0.001_188_689_9, -0.000_388_243_7,
    )
]  # fmt: skip


def gelu(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(min=-GELU_BOUND)
    bounded = x.clamp(max=GELU_BOUND)
    w = fma(bounded * bounded, GELU_SCALE, -1.0)
    square = w * w
    total = fma(w, GELU[13], GELU[12])
    for pair in range(10, -1, -2):
        total = fma(total, square, fma(w, GELU[pair + 1], GELU[pair]))
    return x * fma(bounded, total, 0.5)


def log2(x: torch.Tensor) -> torch.Tensor:
    return x.double().log2().float()


# Norms and softmax.


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    count = float(x.shape[-1])
    centered = x - (sum_lanes(add_up(in_lanes(x))) / count)[..., None]
    blocks = in_lanes(centered)
    variance = sum_lanes(add_products(blocks, blocks)) / count
    normed = centered * divide(1.0, square_root(variance + single(epsilon)))[..., None]
    return normed * weight if bias is None else fma(normed, weight, bias)


def group_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, step_frames: int) -> torch.Tensor:
    """Over all values of a clip `[frames, channels]`, which the runtime makes `step_frames` at a time: its sums have eight lanes, anew in each step."""
    lanes = [functional.pad(step, (0, -len(step) % 8)).view(-1, 8) for step in (part.flatten().double() for part in x.split(step_frames))]
    values = torch.cat(lanes)
    mean, square = (one_by_one(sums.cumsum(0)[-1].tolist()) / x.numel() for sums in (values, values * values))
    scale = 1.0 / math.sqrt(max(square - mean * mean, 0.0) + 1e-5)
    return (x - single(mean)) * single(scale) * weight + bias


def one_by_one(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Over the last dimension."""
    powers = exp(x - x.amax(-1, keepdim=True))
    whole = x.shape[-1] // LANES * LANES
    total = sum_lanes(add_up(in_lanes(powers[..., :whole]))) if whole else torch.zeros(x.shape[:-1])
    if whole < x.shape[-1]:
        total = total + sum_lanes(in_lanes(powers[..., whole:])[0])
    return powers * divide(1.0, total)[..., None]


# Rounding to whole numbers. A scale stands for all values along the last dimension.

Quantized = tuple[torch.Tensor, torch.Tensor]


def quantize_rows(x: torch.Tensor) -> Quantized:
    """Inputs of a matrix as int8 `[..., n]`, and scales `[..., 1]`."""
    return round_to(x, 127.0, least=single(1e-35))


def round_to(x: torch.Tensor, limit: float, least: float = 0.0) -> Quantized:
    """Whole numbers up to `limit`, and scales; zeros where the largest is 0 or below `least`."""
    largest = x.abs().amax(-1, keepdim=True)
    is_zero = (largest < least) | (largest == 0)
    values = (x * divide(limit, largest.masked_fill(is_zero, 1.0))).round().masked_fill(is_zero, 0.0)
    return values, (largest / limit).masked_fill(is_zero, 0.0)


def split_rows(x: torch.Tensor) -> list[Quantized]:
    """Sixteen bits: the int8 rows, and those of what they lost."""
    values, scales = quantize_rows(x)
    return [(values, scales), quantize_rows(fma(-values, scales, x))]


# Attention.


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turns the first pairs of `[..., head width]` by tables `[..., pairs]`."""
    width = 2 * cosine.shape[-1]
    even, odd = x[..., 0:width:2], x[..., 1:width:2]
    turned = torch.stack((fma(-odd, sine, even * cosine), fma(even, sine, odd * cosine)), -1).flatten(-2)
    return torch.cat((turned, x[..., width:]), -1)


def rotary_tables(base: float, width: int, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines `[positions, width / 2]`, turned on from position to position in float64."""
    rates = [math.pow(single(base), -2.0 * pair / width) for pair in range(width // 2)]
    step_cosine, step_sine = (numpy.array([function(rate) for rate in rates]) for function in (math.cos, math.sin))
    cosine, sine = numpy.ones_like(step_cosine), numpy.zeros_like(step_sine)
    rows = []
    for _ in range(positions):
        rows.append((cosine, sine))
        cosine, sine = cosine * step_cosine - sine * step_sine, sine * step_cosine + cosine * step_sine
    tables = torch.from_numpy(numpy.array(rows)).float()
    return tables[:, 0], tables[:, 1]


SMALLEST_SCALE = 2.0**-100
LARGEST = single(127.0 + float(log2(torch.tensor(84.25))))


def attend_frames(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The encoder's attention: everything `[heads, frames, head width]` and rounded to int8."""
    scale = single(1.0 / single(math.sqrt(query.shape[-1])))
    (query, query_scales), (key, key_scales), (value, value_scales) = (round_to(x, 127.0) for x in (query, key, value))
    value_scales = value_scales.clamp(min=SMALLEST_SCALE)
    logarithms, divisors = log2(value_scales), divide(1.0, value_scales)
    factors = (query_scales * single(scale * LOG2_E)).transpose(1, 2)
    # Head by head, as many numbers as a cache holds: frames of keys by frames of queries.
    powers = torch.stack([power_of(*head) for head in zip(whole_dot(key, query), key_scales, factors, logarithms)])
    sums = add_products(powers.movedim(1, 0), divisors.movedim(1, 0))
    return whole_dot(powers.round().transpose(1, 2), value.transpose(1, 2)) * divide(1.0, sums)[..., None]


def attend_floats(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The same of an encoder whose activations have sixteen bits: nothing is rounded."""
    query = query * single(single(1.0 / single(math.sqrt(query.shape[-1]))) * LOG2_E)
    scores = add_products(key.movedim(-1, 0)[..., None], query.movedim(-1, 0)[..., None, :])
    round_up = ROUND - (scores.amax(1, keepdim=True) + WHOLE - WHOLE)
    shifted = (scores + round_up).clamp(min=ROUND - 126.0)
    f = scores - (shifted - round_up)
    high = fma(f * f, EXP2[3], fma(f, EXP2[2], EXP2[1]))
    powers = fma(high, f * f, fma(f, EXP2[0], 1.0)) * to_exponent(shifted)
    frames = powers.movedim(1, 0)
    return add_products(frames[..., None], value.movedim(1, 0)[:, :, None]) * divide(1.0, add_up(frames))[..., None]


def power_of(sums: torch.Tensor, key_scales: torch.Tensor, factors: torch.Tensor, logarithms: torch.Tensor) -> torch.Tensor:
    """About 127 times two to the power of each score `[keys, queries]` less the largest of its query."""
    scores = fma(sums * key_scales, factors, logarithms)
    biased = (LARGEST - scores.amax(0)) + scores
    whole, half, line = power_parts(biased)
    return fma(half, line, whole)


def power_parts(biased: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`a`, `b` and `c` of which `a + b * c` is about `1.5 * 2^(biased - 127)`."""
    bits = (biased.clamp(min=0.0) * 2.0**23).to(torch.int32)
    return tuple(part.view(torch.float32) for part in (bits & -0x800000, (bits & 0x7FFFFF) | 0x3F000000, bits))


def attend_cached(query: torch.Tensor, keys: Quantized, values: Quantized) -> torch.Tensor:
    """The decoder's attention: a query `[heads, head width]`, rounded to 16 bits, over int8 keys and values `[heads, frames, head width]`."""
    words, factors = round_to(query, 32767.0)
    factors = factors * single(1.0 / single(math.sqrt(query.shape[-1])))
    sums = word_dot(words[:, None], keys[0])[:, 0]
    weights = softmax(sums * keys[1][..., 0] * factors) * values[1][..., 0]
    words, factors = round_to(weights, 32767.0)
    return word_dot(words[:, None], values[0].transpose(1, 2))[:, 0] * factors
