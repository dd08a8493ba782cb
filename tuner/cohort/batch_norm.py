"""Batch normalisation of all slices by one kernel: the channels of K slices are K times as many channels of one.

torch's own rule under vmap calls the kernel without γ and β and takes the rest apart, backwards twice over.
"""

# Shapes: K = slices, B = batch, C = channels, * = positions.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_aten = torch.ops.aten


def takes(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
) -> bool:
    """Whether `batch_norm` does what `F.batch_norm` would with these arguments."""
    tensors = (x, running_mean, running_var, weight, bias)
    return (
        isinstance(training, bool)
        and isinstance(momentum, float)
        and isinstance(eps, float)
        and all(isinstance(one, Tensor) for one in tensors)
        and len({one.dtype for one in tensors}) == 1
        and x.dim() >= 2
        and x.dtype in (torch.float32, torch.float64)
        and not (training and x.numel() == x.shape[1])  # torch refuses one value a channel
    )


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, which moves the running statistics in training.

    Args:
        x: shape (B, C, *).
        running_mean: shape (C,).
        running_var: shape (C,).
        weight: γ, shape (C,).
        bias: β, shape (C,).
        training: whether by the batch's own statistics.
        momentum: by how much the running statistics move towards the batch's.
        eps: ε.
    """
    y: Tensor = _BatchNorm.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, running_mean, running_var, training, momentum, eps
    )[0]
    return y


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        training: bool,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, ...]:
        normalised: tuple[Tensor, ...] = _aten.native_batch_norm(
            x, weight, bias, running_mean, running_var, training, momentum, eps
        )
        return normalised

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, running_mean, running_var, ctx.training, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        running = (None, None) if ctx.training else (running_mean, running_var)  # training has moved them
        ctx.save_for_backward(x, weight, *running, *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        gradients = _Backward.apply(gradient, *ctx.saved_tensors, ctx.training, ctx.eps)  # type: ignore[no-untyped-call]
        return (*gradients, None, None, None, None, None)

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, *rest: Any) -> tuple[Any, ...]:
        k = info.batch_size
        x = _slices(x, dims[0], k)
        fold = _Fold(x)
        channels = [_slices(one, dim, k).reshape(-1) for one, dim in zip(rest[:4], dims[1:5], strict=True)]
        y, *statistics = _BatchNorm.apply(fold.fold(x), *channels, *rest[4:])  # type: ignore[no-untyped-call]
        return (fold.unfold(y), *(_apart(one, k) for one in statistics)), (0, 0, 0)


class _Backward(torch.autograd.Function):
    """The gradients of x, γ and β; it has none of its own, so a step that asks for second derivatives raises."""

    @staticmethod
    def forward(
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        mean: Tensor,
        invstd: Tensor,
        training: bool,
        eps: float,
    ) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = _aten.native_batch_norm_backward(
            gradient, x, weight, running_mean, running_var, mean, invstd, training, eps, [True, True, True]
        )
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], gradient: Tensor, x: Tensor, *rest: Any) -> tuple[Any, ...]:
        k = info.batch_size
        x = _slices(x, dims[1], k)
        fold = _Fold(x)
        folded = fold.fold(_slices(gradient, dims[0], k)), fold.fold(x)
        channels = [
            None if one is None else _slices(one, dim, k).reshape(-1)
            for one, dim in zip(rest[:5], dims[2:7], strict=True)
        ]
        of_x, *others = _Backward.apply(*folded, *channels, *rest[5:])  # type: ignore[no-untyped-call]
        return (fold.unfold(of_x), *(_apart(one, k) for one in others)), (0, 0, 0)


class _Fold:
    """Makes K·C channels of (K, B, C, *), and back, without a copy where the channels lie outermost in memory.

    Args:
        like: of this shape and order in memory.
    """

    def __init__(self, like: Tensor) -> None:
        self._shape = like.shape
        inner = sorted((1, *range(3, like.dim())), key=like.stride, reverse=True)
        self._order = [0, 2, *inner]
        self._outermost = like.permute(self._order).is_contiguous()

    def fold(self, x: Tensor) -> Tensor:
        """From (K, B, C, *) to (1, K·C, …) or (B, K·C, *)."""
        if self._outermost:
            return x.permute(self._order).reshape(1, self._shape[0] * self._shape[2], -1)
        return x.transpose(0, 1).reshape(self._shape[1], -1, *self._shape[3:])

    def unfold(self, x: Tensor) -> Tensor:
        """Back again."""
        k, b, c, *positions = self._shape
        if self._outermost:
            back = sorted(range(len(self._order)), key=self._order.__getitem__)
            return x.view([self._shape[dim] for dim in self._order]).permute(back)
        return x.view(b, k, c, *positions).transpose(0, 1)


def _slices(x: Tensor, dim: int | None, k: int) -> Tensor:
    """With the slices' dimension first."""
    return x.expand(k, *x.shape) if dim is None else x.movedim(dim, 0)


def _apart(x: Tensor, k: int) -> Tensor:
    """What belongs to channels, slice by slice; at inference there is nothing."""
    return x.view(k, x.numel() // k)
