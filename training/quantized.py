"""Integer arithmetic of the runtime, simulated on the float model.

Weights: symmetric int8, one scale an output, rounded half to even, as `kinglet pack` writes them: the step of the row's grid where
its values lie on one (matrices that were published in 8 bits do), else the step of 41 with the least squared error.
Activations: symmetric int8, one scale a row, computed on the fly. The first convolution, norms and biases stay float.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from arithmetic import LARGEST, LOG2_E, SMALLEST_SCALE, divide, power_parts, round_to
from moonshine import Moonshine, windows


def input_bits(config: dict, name: str) -> int:
    """Bits of the inputs of the matrix `name`: 8, or 16 as two int8 rows."""
    part, *inner = name.split(".")
    if part == "frontend":
        return config[part]["convolutions"][int(inner[1])].get("activation_bits", 8)
    if inner[0] == "embedding":
        return config["output"].get("activation_bits", 8)
    # What comes of the encoder's states is kept in eight bits, whatever the decoder has.
    if "cross_attention.key" in name or "cross_attention.value" in name:
        return 8
    bits = config[part].get("activation_bits", 8)
    return config[part].get("down_activation_bits", bits) if ".down." in name else bits


@dataclass(frozen=True)
class Plan:
    """Which parts are int8."""

    activations: bool = True
    first_convolution: bool = False
    cache: bool = False
    convolution_scale: str = "patch"  # or "frame", "clip": how many input values of a convolution share a scale
    wide: tuple[str, ...] = ()  # name prefixes of modules whose inputs are two int8 rows: the value and what its rounding lost


class RoundRows(torch.autograd.Function):
    """`x` as the sum of `rows` int8 rows, each what the ones before it lost, with one scale for all values along `dims`; gradients pass."""

    @staticmethod
    def forward(context, x, dims, rows):
        total = None
        for _ in range(rows):
            rest = x if total is None else x - total
            largest = torch.linalg.vector_norm(rest, float("inf"), dims, keepdim=True)
            # All that depends on the scale alone is decided before it meets the values: each pass over those takes a while.
            inverse = torch.where(largest > 1e-35, divide(127.0, largest.clamp(min=1e-35)), 0.0)
            rounded = (rest * inverse).round_().mul_(largest / 127)
            total = rounded if total is None else total.add_(rounded)
        return total

    @staticmethod
    def backward(context, gradient):
        return gradient, None, None


def fake_quantize(x: torch.Tensor, dims: int | tuple = -1) -> torch.Tensor:
    """`x` rounded to int8 steps with one scale for all values along `dims`."""
    return RoundRows.apply(x.float(), dims, 1)


def fake_quantize_wide(x: torch.Tensor, dims: int | tuple = -1) -> torch.Tensor:
    """`x` as the sum of two int8 rows: about 15 bits at the price of a second row in the matrix product."""
    return RoundRows.apply(x.float(), dims, 2)


def grid_steps(weights: torch.Tensor) -> torch.Tensor:
    """`[outputs, 1]`: the step of which all values of a row are multiples, -128 to 127 times it; zero where there is none."""
    magnitudes = functional.pad(weights.abs(), (1, 0)).sort(1).values
    largest = magnitudes[:, -1:]
    gaps = magnitudes.diff(dim=1)
    # Rounding noise between equal values is far below the smallest step that 128 multiples allow.
    gap = torch.where(gaps > largest / 512, gaps, torch.inf).amin(1, keepdim=True)
    found = torch.zeros_like(largest)
    # The smallest gap is one step in a row that is full; where pruning left few values it may be any number of steps.
    for steps in range(1, 129):
        count = (largest / gap * steps + 0.5).floor()
        possible = (count >= 1) & (count <= 128) & (found == 0)
        if not possible.any():
            break
        step = torch.where(possible, largest / count, 1.0)
        multiples = weights / step
        on_grid = ((multiples - multiples.round()).abs() < 1e-3) & (multiples.round() <= 127)
        found = torch.where(possible & on_grid.all(1, keepdim=True), step, found)
    return found


def packed_steps(weights: torch.Tensor) -> torch.Tensor:
    """`[outputs, 1]`: the steps with which `kinglet pack` makes int8 of `[outputs, inputs]`."""
    steps = grid_steps(weights)
    return torch.where(steps > 0, steps, best_steps(weights))


def round_matrix(weights: torch.Tensor) -> torch.Tensor:
    """`[outputs, inputs]` as int8 holds it."""
    steps = packed_steps(weights).clamp(min=1e-30)
    return torch.round(weights / steps).clamp(-128, 127) * steps


def best_steps(weights: torch.Tensor) -> torch.Tensor:
    """`[outputs, 1]`: of 60 to 100 % of the largest magnitude / 127 the step with the least squared error."""
    largest = weights.abs().amax(1, keepdim=True) / 127
    candidates = [largest * percent / 100 for percent in range(100, 59, -1)]
    errors = []
    for step in candidates:
        rounded = torch.round(weights / step.clamp(min=1e-30)).clamp(-128, 127) * step
        errors.append((rounded - weights).double().square().sum(1, keepdim=True))
    return torch.cat(candidates, 1).gather(1, torch.cat(errors, 1).argmin(1, keepdim=True))


def quantize_weights(model: Moonshine, first_convolution: bool = False) -> None:
    """Rounds all matrices of `model` in place."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.copy_(round_matrix(module.weight))
        for conv in model.frontend.conv[0 if first_convolution else 1 :]:
            conv.weight.copy_(round_matrix(conv.weight.flatten(1)).view_as(conv.weight))


def apply(model: Moonshine, plan: Plan) -> None:
    """Makes `model` compute as the runtime does under `plan`, by rounding weights and hooking rounded inputs in."""
    quantize_weights(model, plan.first_convolution)
    if plan.activations:
        def rounding(name):
            return fake_quantize_wide if name.startswith(plan.wide) else fake_quantize

        for name, module in model.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs, quantize=rounding(name): (quantize(inputs[0]),))
        logits, quantize_hidden = model.decoder.logits, rounding("decoder.embedding")
        model.decoder.logits = lambda x: logits(quantize_hidden(x))
        for index, conv in enumerate(model.frontend.conv):
            if index > 0 or plan.first_convolution:
                conv.forward = rounded_convolution(conv, rounding(f"frontend.conv.{index}"), plan.convolution_scale)
    if plan.cache:
        for block in [*model.encoder.layers, *model.decoder.layers]:
            for name in ("attention", "self_attention", "cross_attention"):
                if hasattr(block, name):
                    round_cache(getattr(block, name))


def rounded_convolution(conv: nn.Conv1d, quantize, scale: str = "patch", round_weight=lambda weight: weight):
    """The forward function of `conv` with its input through `quantize`, and its weight `[outputs, inputs]` through `round_weight`."""

    def forward(x):
        if scale != "patch":
            return nn.Conv1d.forward(conv, quantize(x, 1 if scale == "frame" else (1, 2)))
        return functional.linear(quantize(windows(x, conv)), round_weight(conv.weight.flatten(1)), conv.bias).transpose(1, 2)

    return forward


def fake_int8(weights: torch.Tensor) -> torch.Tensor:
    """Floats that are learnt, on no grid, as `kinglet pack` makes int8 of them; with the gradients of what it rounds."""
    steps = best_steps(weights.detach()).clamp(min=1e-30)
    return instead(weights, (weights.detach() / steps).round().clamp(-128, 127) * steps)


def instead(exact: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """`rounded`, with the gradients of `exact`."""
    return exact + (rounded - exact).detach()


def round_cache(attention) -> None:
    """Keys and values as int8, one scale a head and frame; rounding what was rounded before changes nothing."""
    mix = attention.mix
    attention.mix = lambda query, key, value, **more: mix(query, fake_quantize(key), fake_quantize(value), **more)


def round_attention(attention) -> None:
    """Queries, keys, values and probabilities as int8, as in the runtime's encoder. While training, probabilities stay as they are: to round
    every one of them takes three times as long as the rest of a step."""
    mix = attention.mix

    def rounded(query, key, value, **more):
        if attention.training:
            return mix(*(fake_quantize(x) for x in (query, key, value)), **more)
        return instead(mix(query, key, value, **more), int8_attention(query, key, value))

    attention.mix = rounded


@torch.no_grad()
def int8_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`attend_frames` of `[..., frames, head width]`, but for the order of its sums."""
    with torch.autocast(query.device.type, enabled=False):
        scale = LOG2_E / query.shape[-1] ** 0.5
        (query, query_scales), (key, key_scales), (value, value_scales) = (round_to(x.float(), 127.0) for x in (query, key, value))
        value_scales = value_scales.clamp(min=SMALLEST_SCALE).transpose(-1, -2)
        scores = query @ key.transpose(-1, -2) * key_scales.transpose(-1, -2) * (query_scales * scale) + value_scales.log2()
        whole, half, line = power_parts(LARGEST - scores.amax(-1, keepdim=True) + scores)
        powers = whole + half * line
        return powers.round() @ value / (powers / value_scales).sum(-1, keepdim=True)
