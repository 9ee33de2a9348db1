"""Layers that share matrices, each with a residual of low rank and a diagonal of its own (2310.02489); names as in the checkpoint."""

import torch
from torch import nn
from torch.nn import functional


class Linear(nn.Module):
    """A matrix that may be another layer's, with what this layer adds to it."""

    def __init__(self, inputs: int, outputs: int, lender: "Linear | None", rank: int, diagonal: bool, bias: bool = True):
        super().__init__()
        if lender is None:
            self.weight = nn.Parameter(torch.empty(outputs, inputs))
            nn.init.xavier_uniform_(self.weight)
        # In a list, so that the lender's weight is no parameter of this layer.
        self.lender = [lender]
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        if rank:
            self.residual_left = nn.Parameter(torch.zeros(outputs, rank))
            self.residual_right = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        if diagonal and inputs == outputs:
            self.diagonal = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.linear(x, (self.lender[0] or self).weight, self.bias)
        if hasattr(self, "residual_left"):
            y = y + x @ self.residual_right.T @ self.residual_left.T
        return y + x * self.diagonal if hasattr(self, "diagonal") else y


@torch.no_grad()
def share_layers(layers: nn.ModuleList, groups: list[int], rank: int) -> None:
    """Makes the layers of a trained stack share, each matrix the mean of its group's, with residuals that come as close to its own as `rank`
    allows. `groups` names for each layer the one whose matrices it uses."""
    names = [name for name, module in layers[0].named_modules() if isinstance(module, nn.Linear)]
    for name in names:
        own = [layer.get_submodule(name) for layer in layers]
        made: list[Linear] = []
        for index, module in enumerate(own):
            lender = made[groups[index]] if groups[index] != index else None
            group = [other.weight for other, place in zip(own, groups) if place == groups[index]]
            mean = torch.stack(group).mean(0)
            alone = len(group) == 1
            shared = Linear(module.in_features, module.out_features, lender, 0 if alone else rank, not alone, module.bias is not None)
            if lender is None:
                shared.weight.copy_(mean)
            if module.bias is not None:
                shared.bias.copy_(module.bias)
            if not alone and rank:
                left, values, right = torch.linalg.svd(module.weight - mean, full_matrices=False)
                root = values[:rank].sqrt()
                shared.residual_left.copy_(left[:, :rank] * root)
                shared.residual_right.copy_(root[:, None] * right[:rank])
            made.append(shared)
        for layer, module in zip(layers, made):
            layer.set_submodule(name, module)
