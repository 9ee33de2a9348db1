"""The student: Moonshine's layers with weights as the file will hold them, learnt through the rounding.

Each matrix that a rule names keeps a float copy, scales and multipliers; what the network multiplies by is the copy rounded to
steps of a scale times a multiplier, and gradients pass the rounding as if it were not there ("LSQ", arXiv 1902.08153). A matrix that was pruned keeps
its mask. Encoder blocks may get an FSMN memory, a depthwise convolution over time of the values added to the attention's output
(SAN-M, 2006.01713); it starts at zero, so the student starts as the model it was made from.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from gptq import as_matrix, as_weight, cut_blocks, keep_blocks, spread, spread_blocks
from moonshine import Encoder, EncoderBlock, Moonshine, merge_frames, rotate
from quantized import fake_int8, fake_quantize, fake_quantize_wide, input_bits, round_attention, round_cache, rounded_convolution
from scheme import Rules, Scheme
from shared import share_layers


GRID = "scale", "multipliers"  # beside the `weight` of a matrix in a checkpoint


class Round(torch.autograd.Function):
    """`weight` `[outputs, groups, group]` to what `scheme` stores, in steps of `scales` `[outputs, groups, 1]`."""

    @staticmethod
    def forward(context, weight, scales, scheme):
        context.save_for_backward(weight, scales)
        context.scheme = scheme
        return scheme.nearest(weight / scales).mul_(scales)

    @staticmethod
    def backward(context, gradient):
        weight, scales = context.saved_tensors
        scheme, exact = context.scheme, weight / scales
        half = 1 if scheme.odd else 0.5
        inside = (exact >= scheme.lowest - half) & (exact <= scheme.highest + half)
        for_scales = ((scheme.nearest(exact) - exact * inside) * gradient).sum(-1, keepdim=True)
        # As LSQ has it: a scale sums up the gradients of a whole group.
        return gradient * inside, for_scales / (weight.shape[-1] * scheme.highest) ** 0.5, None


class Rounded(nn.Module):
    """A parametrization of a weight `[outputs, ...]`. The multipliers of groups stay as they were found."""

    def __init__(self, scheme: Scheme, scales: torch.Tensor, multipliers: torch.Tensor, mask: torch.Tensor | None):
        super().__init__()
        self.scheme = scheme
        self.scales = nn.Parameter(scales.clone())
        self.register_buffer("multipliers", multipliers)
        self.register_buffer("mask", mask)

    def group(self, weight: torch.Tensor) -> int:
        """Inputs that share a multiplier; the last group may have fewer."""
        return self.scheme.group or weight[0].numel()

    def steps(self) -> torch.Tensor:
        """`[outputs, groups]`: what lies between two values."""
        return self.multipliers * self.scales.clamp(min=1e-9)[:, None]

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        matrix, group = as_matrix(weight), self.group(weight)
        groups = functional.pad(matrix, (0, -matrix.shape[1] % group)).unflatten(1, (-1, group))
        flat = Round.apply(groups, self.steps()[..., None], self.scheme).flatten(1)[:, : matrix.shape[1]]
        if self.mask is not None:
            flat = flat * self.mask
        return as_weight(flat, weight.shape)


class Pruned(nn.Module):
    """A parametrization of a weight `[outputs, inputs]` that stays in floats: blocks of it are set to zero, more and more of them."""

    def __init__(self, scheme: Scheme, weight: torch.Tensor):
        super().__init__()
        self.scheme = scheme
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool))
        # Mean square of each input, as lately seen.
        self.register_buffer("power", torch.ones(weight.shape[1]))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask

    def see(self, _, inputs: tuple[torch.Tensor]) -> None:
        with torch.no_grad():
            self.power.lerp_(inputs[0].detach().float().square().flatten(0, -2).mean(0), 0.1)

    @torch.no_grad()
    def prune(self, weight: torch.Tensor, share: float) -> None:
        """Drops the share of blocks that the outputs would miss least; what is gone stays gone."""
        self.mask.copy_(keep_blocks((weight * self.mask).square() * self.power, share, self.scheme.block))


class Memory(nn.Module):
    """A depthwise convolution over time with `kernel` taps, `look_ahead` of them on frames to come; zero at first."""

    def __init__(self, width: int, kernel: int, look_ahead: int):
        super().__init__()
        self.sides = kernel - 1 - look_ahead, look_ahead
        self.weight = nn.Parameter(torch.zeros(width, kernel))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`[batch, frames, width]`."""
        padded = functional.pad(values.transpose(1, 2), self.sides)
        return functional.conv1d(padded, self.weight[:, None, :].to(values.dtype), groups=len(self.weight)).transpose(1, 2)


class MemoryBlock(EncoderBlock):
    """An encoder block with an FSMN memory."""

    def __init__(self, config: dict, merge: int = 1, merged: int = 1):
        super().__init__(config, merge, merged)
        self.attention.memory = Memory(config["heads"] * config["head_width"], **config["memory"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = merge_frames(x, self.merge)
        attention, y = self.attention, self.attention_norm(x)
        query, key = (rotate(attention.split(p(y)), 0, *self.rotary) for p in (attention.query, attention.key))
        value = attention.value(y)
        x = x + attention.attend(query, key, attention.split(value)) + attention.memory(value)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Student(Moonshine):
    def __init__(self, config: dict):
        super().__init__(config)
        if config["encoder"].get("memory"):
            self.encoder = Encoder(config["encoder"], MemoryBlock)

    def matrices(self):
        """`(tensor name, module)` of everything that may be rounded."""
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding)):
                yield f"{name}.weight", module

    def round_weights(self, rules: Rules, grids: dict[str, torch.Tensor]) -> None:
        """Registers the rounding: `grids` holds `{matrix}.scale` and `{matrix}.multipliers`, as `calibrate.py` found them."""
        for name, module in list(self.matrices()):
            scheme = rules.of(name)
            if scheme.bits == 32:
                if scheme.sparsity:
                    pruned = Pruned(scheme, module.weight)
                    module.register_forward_pre_hook(pruned.see)
                    parametrize.register_parametrization(module, "weight", pruned)
                continue
            scales, multipliers = (grids[name.removesuffix("weight") + kind] for kind in GRID)
            round_weight(module, scheme, scales, multipliers)

    def share(self, groups: dict[str, list[int]], rank: int) -> None:
        """Makes layers of the stacks share matrices, from the trained ones on."""
        for stack, lenders in groups.items():
            share_layers(getattr(self, stack).layers, lenders, rank)
        self.config["share"] = groups

    def prune(self, done: float) -> None:
        """Drops blocks of matrices that stay in floats: `done` from 0 to 1, fast at first (1710.01878)."""
        for _, module in self.matrices():
            if parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations.weight[0], Pruned):
                pruned = module.parametrizations.weight[0]
                share = pruned.scheme.sparsity * (1 - (1 - min(done, 1.0)) ** 3)
                pruned.prune(module.parametrizations.weight.original, share)

    def round_inputs(self, rules: Rules) -> None:
        """Rounds what the runtime rounds: inputs of matrices that are not floats, and what attention multiplies."""
        for name, module in self.matrices():
            quantize = {8: fake_quantize, 16: fake_quantize_wide}[input_bits(self.config, name)]
            if name == "frontend.conv.0.weight" and not rules.names(name):
                # The packer makes int8 of every matrix without a rule; of this small one that can be done in each step.
                module.forward = rounded_convolution(module, quantize, round_weight=fake_int8)
            if rules.of(name).bits == 32:
                continue
            if isinstance(module, nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs, quantize=quantize: (quantize(inputs[0]),))
            elif isinstance(module, nn.Conv1d):
                module.forward = rounded_convolution(module, quantize)
            else:
                self.decoder.norm.register_forward_hook(lambda _, __, x, quantize=quantize: quantize(x))
        if self.config["encoder"].get("activation_bits", 8) == 8 and not rules.keeps_floats("encoder.layers.0.attention.key.weight"):
            for block in self.encoder.layers:
                round_attention(block.attention)
        for block in self.decoder.layers:
            round_cache(block.self_attention)
            round_cache(block.cross_attention)

    def start_from(self, exact: dict[str, torch.Tensor]) -> None:
        """Moves the float copies towards the weights before rounding."""
        for name, module in self.matrices():
            if parametrize.is_parametrized(module, "weight") and not isinstance(module.parametrizations.weight[0], Pruned):
                lean(module, exact[name])

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """The checkpoint: every tensor by its plain name, matrices rounded, and the grids of those in four bits or three; biases of matrices and
        memories in f16, which the packer then stores."""
        result = {}
        for name, values in self.state_dict().items():
            if ".parametrizations." not in name:
                result[name] = values
        for name, module in self.matrices():
            prefix = name.removesuffix("weight")
            result[name] = module.weight
            rounding = module.parametrizations.weight[0] if parametrize.is_parametrized(module, "weight") else None
            if isinstance(rounding, Rounded) and rounding.scheme.bits in (3, 4):
                result |= dict(zip((prefix + kind for kind in GRID), (rounding.scales.clamp(min=1e-9), rounding.multipliers)))
            if (bias := f"{prefix}bias") in result:
                result[bias] = result[bias].half()
        result |= {name: values.half() for name, values in result.items() if name.endswith("memory.weight")}
        return {name: values.detach().float().cpu() for name, values in result.items()}


def round_weight(module: nn.Module, scheme: Scheme, scales: torch.Tensor, multipliers: torch.Tensor) -> None:
    """From now on the weight of `module`, which lies on this grid, is a float copy that is rounded to it; what is zero in whole blocks stays so."""
    mask = whole_blocks((as_matrix(module.weight) != 0).float(), scheme) if scheme.sparsity else None
    parametrize.register_parametrization(module, "weight", Rounded(scheme, scales, multipliers, mask), unsafe=True)


@torch.no_grad()
def lean(module: nn.Module, exact: torch.Tensor) -> None:
    """Moves the float copy of a rounded weight towards `exact`, not so far that a small step would round it anew."""
    rounding, rounded = module.parametrizations.weight[0], module.weight
    copy = module.parametrizations.weight.original
    steps = spread(rounding.steps(), rounding.group(copy), copy[0].numel())
    steps = as_weight(steps, copy.shape)
    copy.copy_(rounded + (exact.to(rounded) - rounded).clamp(-0.25 * steps, 0.25 * steps))


def student_config(config: dict, run: dict) -> dict:
    """The teacher's `config` with what the run's `[model]` changes."""
    return config | {part: config[part] | changes for part, changes in run.get("model", {}).items()}


def multiplies_bf16(device: str) -> bool:
    """Whether matrices are multiplied faster in bf16. Processors without instructions for it take up to nine times as long as in f32."""
    return not device.startswith("cpu") or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def whole_blocks(mask: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """A block that holds anything is kept whole."""
    return spread_blocks(cut_blocks(mask, scheme.block).amax((1, 3)), scheme.block, mask.shape)
