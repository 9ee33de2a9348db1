"""Rounding and pruning of one matrix so that its products with seen inputs change least.

After "GPTQ" (arXiv 2210.17323) and "SparseGPT" (2301.00774): columns are rounded one after the other, and what rounding a
column changes in the output is made up for by the columns behind it, through the inverse of the inputs' second moment. What
that leaves is lowered by taking single steps anew ("QuantEase", 2309.01885).
"""

from dataclasses import dataclass, replace

import torch
from torch.nn import functional

import trellis
from scheme import Scheme

DAMPING = 0.01
TRELLIS_DAMPING = 0.1  # whose levels leave the largest weights out, which matter where an input is seldom heard
COLUMNS = 64  # rounded before the columns behind them hear of it
SPREADS = 2.1, 2.4, 2.7, 3.0  # of a group's weights, in steps of a trellis; the best is taken


@dataclass
class Rounded:
    """`weight = steps * multipliers * scales`: `steps` `[outputs, inputs]` and `multipliers` `[outputs, groups]` whole numbers, `scales` `[outputs, 1]`."""

    steps: torch.Tensor
    multipliers: torch.Tensor
    scales: torch.Tensor
    group: int

    @property
    def whole(self) -> torch.Tensor:
        """`[outputs, inputs]`: the weight in scales."""
        return self.steps * spread(self.multipliers, self.group, self.steps.shape[1])

    @property
    def weight(self) -> torch.Tensor:
        return self.whole * self.scales


def on_grid(weight: torch.Tensor, scales: torch.Tensor, multipliers: torch.Tensor, scheme: Scheme) -> Rounded:
    """`weight` `[outputs, inputs]`, which lies on this grid."""
    group = scheme.group or weight.shape[1]
    return Rounded((weight / (spread(multipliers, group, weight.shape[1]) * scales)).round(), multipliers, scales, group)


def spread(values: torch.Tensor, group: int, inputs: int) -> torch.Tensor:
    """`[outputs, groups]` to `[outputs, inputs]`."""
    return values.repeat_interleave(group, 1)[:, :inputs]


def search_scales(weight: torch.Tensor, importance: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`[outputs, 1]`: the scale with the least error, each input's error weighed by its `importance` `[inputs]`.

    With groups, of multiples of the scale: a whole number up to `scheme.most` for each group.
    """
    if scheme.group:
        steps = [search_scales(*part, replace(scheme, group=0)) for part in zip(weight.split(scheme.group, 1), importance.split(scheme.group))]
        steps = torch.cat(steps, 1)
        parts = [(steps.amax(1, keepdim=True) * part / scheme.most).clamp(min=1e-9) for part in torch.linspace(0.8, 1.2, 17).tolist()]
        rounded = [_nearest(weight, spread((steps / scales).round().clamp(1, scheme.most), scheme.group, weight.shape[1]) * scales, scheme) for scales in parts]
    else:
        largest = weight.abs().amax(1, keepdim=True)
        parts = [(largest * part / -scheme.lowest).clamp(min=1e-9) for part in torch.linspace(0.4, 1.05, 27).tolist()]
        rounded = [_nearest(weight, scales, scheme) for scales in parts]
    errors = torch.cat([((values - weight).square() * importance).sum(1, keepdim=True) for values in rounded], 1)
    return as_stored(torch.cat(parts, 1).gather(1, errors.argmin(1, keepdim=True)), scheme).to(weight)


def as_stored(scales: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """As the file holds them."""
    return short_scales(scales) if scheme.bits in (3, 4) else scales.float()


def short_scales(scales: torch.Tensor) -> torch.Tensor:
    """What 16 bits hold of positive scales, as f32: `ShortScale` of the file."""
    least, shift = 0x28000000, 13
    steps = ((scales.float().view(torch.int32) - least).clamp(min=0) + (1 << (shift - 1))) >> shift
    return ((steps.clamp(max=0xFFFF) << shift) + least).view(torch.float32)


def _nearest(weight: torch.Tensor, step: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    return scheme.nearest(weight / step) * step


def damp(moment: torch.Tensor, share: float = DAMPING) -> torch.Tensor:
    return moment + torch.eye(len(moment), dtype=moment.dtype) * share * moment.diagonal().mean()


def inverse_factor(damped: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped second moment `[inputs, inputs]`."""
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """`[outputs, inputs]`: the kernel of a convolution, `[outputs, channels, taps]`, lies tap by tap, as in the file."""
    return weight.transpose(1, 2).flatten(1) if weight.dim() == 3 else weight


def as_weight(matrix: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """The inverse of `as_matrix`, for a weight of `shape`."""
    return matrix.unflatten(1, (shape[2], shape[1])).transpose(1, 2) if len(shape) == 3 else matrix


def cut_blocks(values: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """`[outputs, inputs]` as `[rows of blocks, outputs of a block, columns of blocks, inputs of a block]`, padded with zeros."""
    high, wide = block
    padded = functional.pad(values, (0, -values.shape[1] % wide, 0, -values.shape[0] % high))
    return padded.unflatten(0, (-1, high)).unflatten(2, (-1, wide))


def spread_blocks(blocks: torch.Tensor, block: tuple[int, int], shape: torch.Size) -> torch.Tensor:
    """One value a block to each weight of the block, `shape` in all."""
    return blocks.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[: shape[0], : shape[1]]


def keep_blocks(cost: torch.Tensor, share: float, block: tuple[int, int]) -> torch.Tensor:
    """`[outputs, inputs]`, false on the `share` of blocks with the least sum of `cost` `[outputs, inputs]`."""
    blocks = cut_blocks(cost, block).sum((1, 3))
    kept = torch.ones(blocks.numel(), dtype=torch.bool, device=cost.device)
    kept[blocks.flatten().argsort()[: int(share * blocks.numel())]] = False
    return spread_blocks(kept.view_as(blocks), block, cost.shape)


def block_mask(weight: torch.Tensor, factor: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`[outputs, inputs]`, false on the share of blocks whose loss costs least."""
    if scheme.sparsity <= 0:
        return torch.ones_like(weight, dtype=torch.bool)
    return keep_blocks((weight / factor.diagonal()).square(), scheme.sparsity, scheme.block)


def round_matrix(weight: torch.Tensor, moment: torch.Tensor, scheme: Scheme, passes: int = 2) -> Rounded:
    """Rounds `weight` `[outputs, inputs]` for inputs of the second moment; each later pass starts from the scales that suit the last."""
    weight, moment = weight.double(), moment.double()
    dead = moment.diagonal() == 0
    moment = moment + torch.diag(dead.double())
    damped = damp(moment, TRELLIS_DAMPING if scheme.trellis else DAMPING)
    factor = inverse_factor(damped)
    mask = block_mask(weight, factor, scheme)
    if scheme.trellis:
        tried = [_sweep(weight, factor, mask, scheme, *spread_scales(weight, scheme, spread)) for spread in SPREADS]
        rounded = min(tried, key=lambda rounded: _cost(weight, rounded, damped))
        scales, multipliers, passes = best_scales(weight, rounded, damped, scheme), rounded.multipliers, passes - 1
    else:
        scales, multipliers = search_scales(weight * mask, moment.diagonal(), scheme), None
    for _ in range(passes):
        rounded = _sweep(weight, factor, mask, scheme, scales, multipliers)
        scales = rounded.scales = best_scales(weight, rounded, damped, scheme)
    descend(weight, rounded, damped, mask, scheme)
    rounded.scales = best_scales(weight, rounded, damped, scheme)
    return rounded


def _cost(weight: torch.Tensor, rounded: Rounded, damped: torch.Tensor) -> float:
    error = weight - rounded.weight
    return (error @ damped * error).sum().item()


def spread_scales(weight: torch.Tensor, scheme: Scheme, steps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and multipliers with which the root mean square of each group is about so many steps."""
    groups = weight.split(scheme.group or weight.shape[1], 1)
    wanted = torch.stack([group.square().mean(1).sqrt() for group in groups], 1).clamp(min=1e-9) / steps
    scales = as_stored(wanted.amax(1, keepdim=True) / (scheme.most if scheme.group else 1), scheme).to(weight)
    return scales, (wanted / scales).round().clamp(1, scheme.most)


def prune(weight: torch.Tensor, moment: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`weight` with the blocks gone that cost least, the rest in floats and changed to make up for them."""
    factor = inverse_factor(damp(moment.double()))
    mask = block_mask(weight.double(), factor, scheme)
    return _sweep(weight.double(), factor, mask, scheme, torch.ones(len(weight), 1, dtype=torch.float64)).steps.to(weight)


def _sweep(weight: torch.Tensor, factor: torch.Tensor, mask: torch.Tensor, scheme: Scheme, scales: torch.Tensor, given: torch.Tensor | None = None) -> Rounded:
    """Column after column; where a group begins, of all multipliers the one is taken with which its columns cost least, unless they are `given`."""
    weight = weight.clone()
    outputs, inputs = weight.shape
    steps, multipliers = torch.zeros_like(weight), []
    group, wide = scheme.group or inputs, scheme.group or COLUMNS
    for start in range(0, inputs, wide):
        end = min(start + wide, inputs)
        part = mask[:, start:end], factor[start:end, start:end]
        if start % group == 0:
            candidates = torch.arange(1.0, (scheme.most if scheme.group else 1) + 1, dtype=weight.dtype)
            if given is not None:
                multipliers.append(given[:, start // group, None])
            elif len(candidates) > 1:
                # All of them at once, one below the other.
                tried = weight[:, start:end].repeat(len(candidates), 1), (candidates[:, None] * scales[:, 0]).view(-1, 1), part[0].repeat(len(candidates), 1)
                cost = _columns(*tried, part[1], scheme)[1].square().sum(1).view(len(candidates), outputs)
                multipliers.append(candidates[cost.argmin(0)][:, None])
            else:
                multipliers.append(candidates.expand(outputs, 1))
        steps[:, start:end], errors = _columns(weight[:, start:end], scales * multipliers[-1], *part, scheme)
        weight[:, end:] -= errors @ factor[start:end, end:]
    return Rounded(steps, torch.cat(multipliers, 1), scales, group)


def _columns(weight, step, mask, factor, scheme) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps of a few columns, and what each of them costs: its error over the root of how freely it may be made up for."""
    # Columns become rows, which lie in one piece.
    weight, mask, step = weight.T.clone(), mask.T.contiguous(), step[:, 0]
    steps, errors = torch.zeros_like(weight), torch.zeros_like(weight)
    for column, values in enumerate(weight):
        stored = _stored(values, step, scheme)
        steps[column] = stored * mask[column]
        errors[column] = (values - steps[column] * step) / factor[column, column]
        weight[column + 1 :].addcmul_(factor[column, column + 1 :, None], errors[column], value=-1)
    return steps.T, errors.T


def _stored(values: torch.Tensor, step: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Of one column `[outputs]` what can be stored, in steps of `step` `[outputs]`."""
    if scheme.trellis:
        return trellis.nearest(values / step, step.square())
    return values if scheme.bits == 32 else scheme.nearest(values / step)


def descend(weight: torch.Tensor, rounded: Rounded, damped: torch.Tensor, mask: torch.Tensor, scheme: Scheme, rounds: int = 10) -> None:
    """Takes each step anew with all the others as they are, a column at a time: the error of the outputs can only fall."""
    step = (spread(rounded.multipliers, rounded.group, weight.shape[1]) * rounded.scales).T.contiguous()
    steps, mask = rounded.steps.T.contiguous(), mask.T.contiguous()
    pull = (damped @ (weight - rounded.weight).T).contiguous()
    for _ in range(rounds):
        for column in range(len(steps)):
            wanted = steps[column] * step[column] + pull[column] / damped[column, column]
            wanted = _stored(wanted, step[column], scheme) * mask[column]
            pull.addcmul_(damped[column, :, None], (wanted - steps[column]) * step[column], value=-1)
            steps[column] = wanted
    rounded.steps = steps.T.contiguous()


def best_scales(weight: torch.Tensor, rounded: Rounded, damped: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`[outputs, 1]`: the scales with which the outputs come closest to those of `weight`."""
    seen = rounded.whole @ damped
    fitted = (seen * weight).sum(1, keepdim=True) / (seen * rounded.whole).sum(1, keepdim=True)
    # An output of zeros has no say, and a scale that turned negative or ran away would serve no one.
    sound = (fitted > 0.5 * rounded.scales) & (fitted < 2 * rounded.scales)
    return as_stored(torch.where(sound, fitted, rounded.scales), scheme).to(weight)
