"""Elman's recurrence over all steps, with two operations for each, forwards and backwards.

Autograd goes back through every step on its own: a product for the weight's gradient, sums, and zeros around each slice
of the state. Here the weight's gradient is one product over all steps.
"""

# Shapes: K = slices, B = batch, T = steps, U = units.

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten

_ACTIVATIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "tanh": (torch.tanh, _aten.tanh_backward),
    "relu": (torch.relu, lambda gradient, h: _aten.threshold_backward(gradient, h, 0)),
}


def elman(mapped: Tensor, start: Tensor, weight: Tensor, activation: str) -> Tensor:
    """H_t = φ(X_t + H_{t-1} Wᵀ) for every step, shape (B, T, U).

    Args:
        mapped: X, to which every bias is already added, shape (B, T, U).
        start: H before the first step, shape (B, U).
        weight: W, shape (U, U).
        activation: φ, `tanh` or `relu`.
    """
    given = mapped.unsqueeze(0), start.unsqueeze(0), weight.unsqueeze(0)
    out: Tensor = _Elman.apply(*given, activation)  # type: ignore[no-untyped-call]
    return out.squeeze(0)


class _Elman(torch.autograd.Function):
    @staticmethod
    def forward(mapped: Tensor, start: Tensor, weight: Tensor, activation: str) -> Tensor:
        phi, _ = _ACTIVATIONS[activation]
        h, turned, out = start, weight.transpose(1, 2), []  # (K, B, U)
        for step in mapped.unbind(2):
            h = phi(torch.baddbmm(step, h, turned))
            out.append(h)
        return torch.stack(out, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, start, weight, ctx.activation = inputs
        ctx.save_for_backward(start, weight, output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _Backward.apply(gradient, *ctx.saved_tensors, ctx.activation)  # type: ignore[no-untyped-call]
        return (*gradients, None)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *given: Any) -> tuple[Tensor, int]:
        k = info.batch_size
        out: Tensor = _Elman.apply(*_merged(given[:3], dims, k), given[3])  # type: ignore[no-untyped-call]
        return out.unflatten(0, (k, -1)), 0


class _Backward(torch.autograd.Function):
    """The gradients of X, H and W; it has none of its own, so a step that asks for second derivatives raises."""

    @staticmethod
    def forward(
        gradient: Tensor, start: Tensor, weight: Tensor, out: Tensor, activation: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        _, back = _ACTIVATIONS[activation]
        hidden = out.unbind(2)
        later: list[Tensor] = []
        for number, own in reversed(list(enumerate(gradient.unbind(2)))):
            whole = torch.baddbmm(own, later[-1], weight) if later else own
            later.append(back(whole, hidden[number]))
        of_mapped = torch.stack(later[::-1], 2)  # (K, B, T, U)
        before = torch.cat([start.unsqueeze(2), out[:, :, :-1]], 2)
        of_weight = torch.bmm(of_mapped.flatten(1, 2).transpose(1, 2), before.flatten(1, 2))
        return of_mapped, torch.bmm(later[-1], weight), of_weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], *given: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        k = info.batch_size
        gradients = _Backward.apply(*_merged(given[:4], dims, k), given[4])  # type: ignore[no-untyped-call]
        return tuple(one.unflatten(0, (k, -1)) for one in gradients), (0, 0, 0)


def _merged(given: tuple[Tensor, ...], dims: tuple[int | None, ...], k: int) -> list[Tensor]:
    """The slices of one more dimension among those in the first."""
    whole = [x.expand(k, *x.shape) if dim is None else x.movedim(dim, 0) for x, dim in zip(given, dims, strict=False)]
    return [x.flatten(0, 1) for x in whole]
