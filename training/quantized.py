"""Integer arithmetic of the runtime, simulated on the float model.

Weights: symmetric int8, one scale an output (largest magnitude / 127), rounded half to even, as `kinglet pack` writes them.
Activations: symmetric int8, one scale a row, computed on the fly. The first convolution, norms and biases stay float.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from moonshine import Moonshine


@dataclass(frozen=True)
class Plan:
    """Which parts are int8."""

    activations: bool = True
    first_convolution: bool = False
    cache: bool = False
    convolution_scale: str = "patch"  # or "frame", "clip": how many input values of a convolution share a scale


def fake_quantize(x: torch.Tensor, dims: int | tuple = -1) -> torch.Tensor:
    """`x` rounded to int8 steps with one scale for all values along `dims`."""
    scale = x.abs().amax(dims, keepdim=True) / 127
    return torch.where(scale > 0, torch.round(x / scale.clamp(min=1e-30)).clamp(-127, 127) * scale, 0.0)


def quantize_weights(model: Moonshine, first_convolution: bool = False) -> None:
    """Rounds all matrices of `model` in place."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.copy_(fake_quantize(module.weight))
        for conv in model.frontend.conv[0 if first_convolution else 1 :]:
            conv.weight.copy_(fake_quantize(conv.weight, (1, 2)))


def apply(model: Moonshine, plan: Plan) -> None:
    """Makes `model` compute as the runtime does under `plan`, by rounding weights and hooking rounded inputs in."""
    quantize_weights(model, plan.first_convolution)
    if plan.activations:
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs: (fake_quantize(inputs[0]),))
        logits = model.decoder.logits
        model.decoder.logits = lambda x: logits(fake_quantize(x))
        for conv in model.frontend.conv[0 if plan.first_convolution else 1 :]:
            conv.forward = _convolution(conv, plan.convolution_scale)
    if plan.cache:
        for block in [*model.encoder.layers, *model.decoder.layers]:
            for name in ("attention", "self_attention", "cross_attention"):
                if hasattr(block, name):
                    _quantize_cache(getattr(block, name))


def _convolution(conv: nn.Conv1d, scale: str):
    def forward(x):
        if scale != "patch":
            return nn.Conv1d.forward(conv, fake_quantize(x, 1 if scale == "frame" else (1, 2)))
        patches = x.unfold(2, conv.kernel_size[0], conv.stride[0]).transpose(1, 2).flatten(2)
        return functional.linear(fake_quantize(patches), conv.weight.flatten(1), conv.bias).transpose(1, 2)

    return forward


def _quantize_cache(attention) -> None:
    """Keys and values as int8, one scale a head and frame; rounding what was rounded before changes nothing."""
    attend = attention.attend
    attention.attend = lambda query, key, value, **more: attend(query, fake_quantize(key), fake_quantize(value), **more)
