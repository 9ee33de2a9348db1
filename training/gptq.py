"""Rounding and pruning of one matrix so that its products with seen inputs change least.

After "GPTQ" (arXiv 2210.17323) and "SparseGPT" (2301.00774): columns are rounded one after the other, and what rounding a
column changes in the output is made up for by the columns behind it, through the inverse of the inputs' second moment.
"""

from dataclasses import dataclass

import torch

from scheme import Scheme

DAMPING = 0.01


@dataclass
class Rounded:
    """`weight = steps * scales` of each group; `steps` `[outputs, inputs]` whole numbers, `scales` `[outputs, groups]`."""

    steps: torch.Tensor
    scales: torch.Tensor
    group: int

    @property
    def weight(self) -> torch.Tensor:
        return self.steps * spread(self.scales, self.group, self.steps.shape[1])


def spread(scales: torch.Tensor, group: int, inputs: int) -> torch.Tensor:
    """`[outputs, groups]` to `[outputs, inputs]`."""
    return scales.repeat_interleave(group, 1)[:, :inputs]


def storable(scales: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """Scales as the file holds them: f16 for four bits, f32 for eight."""
    return scales.half().to(scales.dtype) if scheme.bits == 4 else scales.float().to(scales.dtype)


def search_scales(weight: torch.Tensor, importance: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`[outputs, 1]`: the scale with the least error, each input's error weighed by its `importance` `[inputs]`."""
    weight, importance = weight.float(), importance.float()
    largest = weight.abs().amax(1, keepdim=True)
    best_error = torch.full_like(largest, torch.inf)
    best = torch.zeros_like(largest)
    for part in torch.linspace(0.4, 1.05, 27).tolist():
        scales = storable((largest * part / -scheme.lowest).clamp(min=1e-7), scheme)
        steps = (weight / scales).round().clamp(scheme.lowest, scheme.highest)
        error = ((steps * scales - weight).square() * importance).sum(1, keepdim=True)
        best = torch.where(error < best_error, scales, best)
        best_error = torch.minimum(error, best_error)
    return best.double()


def inverse_factor(moment: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor of the inverse of the damped second moment `[inputs, inputs]`."""
    damped = moment + torch.eye(len(moment), dtype=moment.dtype) * DAMPING * moment.diagonal().mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def block_mask(weight: torch.Tensor, factor: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`[outputs, inputs]`, false on the share of blocks whose loss costs least."""
    if scheme.sparsity <= 0:
        return torch.ones_like(weight, dtype=torch.bool)
    high, wide = scheme.block
    outputs, inputs = weight.shape
    cost = (weight / factor.diagonal()).square()
    padded = torch.zeros(-(-outputs // high) * high, -(-inputs // wide) * wide, dtype=weight.dtype)
    padded[:outputs, :inputs] = cost
    blocks = padded.unflatten(0, (-1, high)).unflatten(2, (-1, wide)).sum((1, 3))
    dropped = int(scheme.sparsity * blocks.numel())
    kept = torch.ones(blocks.numel(), dtype=torch.bool)
    kept[blocks.flatten().argsort()[:dropped]] = False
    kept = kept.view_as(blocks)
    return kept.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:outputs, :inputs]


def round_matrix(weight: torch.Tensor, moment: torch.Tensor, scheme: Scheme, passes: int = 2) -> Rounded:
    """Rounds `weight` `[outputs, inputs]` for inputs of the second moment; each later pass starts from the scales that suit the last."""
    weight, moment = weight.double(), moment.double()
    dead = moment.diagonal() == 0
    moment = moment + torch.diag(dead.double())
    factor = inverse_factor(moment)
    mask = block_mask(weight, factor, scheme)
    group = scheme.group or weight.shape[1]
    steps, scales = _sweep(weight, factor, moment.diagonal(), mask, scheme, group, None)
    for _ in range(passes - 1):
        scales = refit_scales(weight, steps, scales, moment, scheme, group)
        steps, scales = _sweep(weight, factor, moment.diagonal(), mask, scheme, group, scales)
    return Rounded(steps, refit_scales(weight, steps, scales, moment, scheme, group), group)


def prune(weight: torch.Tensor, moment: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    """`weight` with the blocks gone that cost least, the rest in floats and changed to make up for them."""
    factor = inverse_factor(moment.double())
    mask = block_mask(weight.double(), factor, scheme)
    return _sweep(weight.double(), factor, None, mask, scheme, 64, None)[0].to(weight)


def _sweep(weight, factor, importance, mask, scheme, group, scales):
    """Steps `[outputs, inputs]` and scales `[outputs, groups]`; the scales are searched for where none are given."""
    outputs, inputs = weight.shape
    weight = weight.clone()
    steps, found = torch.zeros_like(weight), []
    for start in range(0, inputs, group):
        end = min(start + group, inputs)
        if scales is None and scheme.bits < 32:
            found.append(search_scales(weight[:, start:end] * mask[:, start:end], importance[start:end], scheme))
        scale = 1.0 if scheme.bits == 32 else found[-1][:, 0] if scales is None else scales[:, start // group]
        errors = torch.zeros(outputs, end - start, dtype=weight.dtype)
        for column in range(start, end):
            values = weight[:, column]
            stored = values if scheme.bits == 32 else (values / scale).round().clamp(scheme.lowest, scheme.highest)
            steps[:, column] = stored * mask[:, column]
            errors[:, column - start] = (values - steps[:, column] * scale) / factor[column, column]
            weight[:, column + 1 : end] -= errors[:, column - start, None] * factor[column, column + 1 : end]
        weight[:, end:] -= errors @ factor[start:end, end:]
    return steps, torch.cat(found, 1) if found else scales


def refit_scales(weight, steps, scales, moment, scheme, group) -> torch.Tensor:
    """The scales `[outputs, groups]` with which `steps` come closest to `weight` under the moment: least squares an output."""
    outputs, inputs = weight.shape
    groups = scales.shape[1]
    damped = moment + torch.eye(inputs, dtype=moment.dtype) * DAMPING * moment.diagonal().mean()
    fitted = torch.empty_like(scales)
    for start in range(0, outputs, 256):
        rows = steps[start : start + 256]
        # [rows, groups, inputs]: the steps of one group each, zero elsewhere.
        parts = torch.zeros(len(rows), groups, inputs, dtype=weight.dtype)
        for index in range(groups):
            parts[:, index, index * group : (index + 1) * group] = rows[:, index * group : (index + 1) * group]
        seen = parts @ damped
        left = seen @ parts.transpose(1, 2)
        left += torch.eye(groups, dtype=weight.dtype) * 1e-9 * left.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-12)
        right = (seen @ weight[start : start + 256, :, None])[..., 0]
        fitted[start : start + 256] = torch.linalg.solve(left, right)
    # A group of zeros has no say, and a scale that turned negative or ran away would not be stored.
    sound = (fitted > 0.5 * scales) & (fitted < 2 * scales)
    return storable(torch.where(sound, fitted, scales), scheme)
