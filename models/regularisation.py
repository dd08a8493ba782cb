"""Penalties on weights (documented.md §6)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def decays(parameter: nn.Parameter) -> bool:
    """Whether decay and penalties apply: to weights, not to biases, normalisers' γ and β or PReLU slopes.

    All of those are vectors, and weights never are.
    """
    return parameter.ndim > 1


def lp_penalty(parameters: Iterable[nn.Parameter], p: float | Tensor) -> Tensor:
    """‖θ‖_p^p = Σ |θ_i|^p over the weights, for p ≥ 1. A scalar.

    p = 1 drives weights to zero one by one, p = 2 shrinks all in proportion: a strength λ of it is a `weight_decay` of
    2 λ under plain gradient descent.
    """
    terms = [_power(parameter, p) for parameter in parameters if decays(parameter) and parameter.requires_grad]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _power(parameter: Tensor, p: float | Tensor) -> Tensor:
    if isinstance(p, Tensor):  # which stands for several networks at once
        return parameter.abs().pow(p).sum()
    if p == 1:
        return parameter.abs().sum()
    return parameter.square().sum() if p == 2 else parameter.abs().pow(p).sum()
