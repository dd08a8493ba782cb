"""Cross-entropy of classes by their numbers, with a third of the operations that torch's takes under vmap.

vmap has no rule for torch's own kernel, and takes it apart into comparisons, selections and scatters of whole matrices.
"""

# Shapes: N = samples, C = classes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""Torch's default for `ignore_index`: samples of this class do not count."""


def takes(logits: Any, target: Any, options: dict[str, Any]) -> bool:
    """Whether `mean_cross_entropy` does what `F.cross_entropy` would with these arguments."""
    return (
        isinstance(logits, Tensor)
        and isinstance(target, Tensor)
        and (logits.dim(), target.dim()) == (2, 1)
        and target.dtype == torch.int64
        and options.get("weight") is None
        and options.get("size_average") is None
        and options.get("reduce") is None
        and options.get("reduction", "mean") == "mean"
        and options.get("ignore_index", IGNORED) == IGNORED
        and not options.get("label_smoothing", 0.0)
    )


def mean_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over the samples that count.

    Args:
        logits: shape (N, C).
        target: classes, shape (N,).
    """
    loss: Tensor = _MeanCrossEntropy.apply(logits, target)[0]  # type: ignore[no-untyped-call]
    return loss


def _log_softmax(logits: Tensor) -> Tensor:
    """`F.log_softmax` over the classes; where those are few, torch takes several times as long as its parts do."""
    if logits.shape[1] >= _VECTOR:
        return F.log_softmax(logits, dim=1)
    below = logits - logits.amax(1, keepdim=True)
    return below - below.exp().sum(1, keepdim=True).log()


_VECTOR = 16
"""So many float32 make a vector of the widest kind, without which torch's kernel computes number by number."""


class _MeanCrossEntropy(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        log_p = _log_softmax(logits)
        counts = target != IGNORED
        index = torch.where(counts, target, 0).unsqueeze(1)
        number = counts.sum().to(logits.dtype)
        loss = -torch.where(counts, log_p.gather(1, index).squeeze(1), 0.0).sum() / number
        return loss, log_p, index, counts, number

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        return _Backward.apply(gradient, *ctx.saved_tensors), None  # type: ignore[no-untyped-call]


class _Backward(torch.autograd.Function):
    """The gradient of the logits; it has none of its own, so a step that asks for second derivatives raises.

    What it reads was marked as having no derivative, so it is given the logits as well.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        gradient: Tensor,
        logits: Tensor,  # noqa: ARG004 - what the others depend on
        log_p: Tensor,
        index: Tensor,
        counts: Tensor,
        number: Tensor,
    ) -> Tensor:
        share = (counts * (gradient / number)).unsqueeze(1)
        return (log_p.exp() * share).scatter_add(1, index, -share)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass
