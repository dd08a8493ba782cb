"""The formulas of torch's optimisers for all slices of a cohort, each slice with hyperparameters of its own.

They are those of `torch.optim`, in the same order of operations. Where rows are long, torch's fused kernels take their
place: a call for each slice goes through its row once, the formula through all rows as often as it has operations.
"""

# Shapes: K = slices, P = trained parameters of one.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

Columns = Mapping[str, Tensor]
"""Hyperparameters of all slices: (K, 1), or (K, P) where they differ from group to group."""

Decay = Sequence[tuple[int, int, Tensor]]
"""Weight decay: from which column to which, and the strengths of the slices there, shape (K, 1). Biases and the like
have none, and a tensor of shape (K, P) would take longer to read than all the rest of a step."""

Steps = Sequence[int]
"""How many steps each slice has made, this one included."""

Change = Callable[[Tensor, Tensor, dict[str, Tensor], Steps], None]
"""Changes rows and state in place, given the gradients, both (K, P)."""

Formula = Callable[[Columns, Decay, torch.dtype], Change]


def _sgd(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
    momentum = h["momentum"]
    ahead = torch.where(momentum == 0, 0.0, h["nesterov"])
    # torch starts without a buffer, and then takes the first gradient whole
    gain = torch.where(momentum == 0, 1.0, 1 - h["dampening"]).to(kind)
    first = torch.where(h["begins_empty"] > 0, 1.0, gain).to(kind)
    kept, of_gradient, of_buffer = (c.to(kind) for c in (momentum, ahead, ahead * momentum + (1 - ahead)))
    moving, looking = bool(momentum.any()), bool(ahead.any())
    decayed, rate = _decayed(decay, kind), h["lr"].to(kind)

    def change(row: Tensor, gradient: Tensor, state: dict[str, Tensor], steps: Steps) -> None:
        gradient = decayed(row, gradient)
        if moving:
            weight = gain
            if min(steps) == 1:
                begun = torch.tensor(steps, device=row.device).unsqueeze(1) > 1
                weight = torch.where(begun, gain, first)
            buffer = state["momentum_buffer"].mul_(kept).addcmul_(gradient, weight)
            gradient = (gradient * of_gradient).addcmul_(buffer, of_buffer) if looking else buffer
        row.addcmul_(gradient, rate, value=-1)

    return change


def _adam(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
    decoupled, lr = bool(h["decoupled_weight_decay"].all()), h["lr"]
    shrink = [(a, b, (1 - (lr if lr.shape[1] == 1 else lr[:, a:b]) * each).to(kind)) for a, b, each in decay]
    decayed = _decayed([] if decoupled else decay, kind)
    new_mean, old_square, new_square, eps = (c.to(kind) for c in (1 - h["beta1"], h["beta2"], 1 - h["beta2"], h["eps"]))

    def change(row: Tensor, gradient: Tensor, state: dict[str, Tensor], steps: Steps) -> None:
        for start, end, factor in shrink if decoupled else ():
            row[:, start:end].mul_(factor)
        gradient = decayed(row, gradient)
        count = torch.tensor(steps, dtype=torch.float64, device=row.device).unsqueeze(1)
        mean = state["exp_avg"].lerp_(gradient, new_mean)
        square = state["exp_avg_sq"].mul_(old_square).addcmul_(gradient.square(), new_square)
        size = (h["lr"] / (1 - h["beta1"] ** count)).to(kind)
        root = (1 - h["beta2"] ** count).sqrt_().to(kind)
        row.addcdiv_(mean * size, square.sqrt().div_(root).add_(eps), value=-1)

    return change


def _rmsprop(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
    decayed = _decayed(decay, kind)
    old, new, rate, eps = (c.to(kind) for c in (h["alpha"], 1 - h["alpha"], h["lr"], h["eps"]))

    def change(row: Tensor, gradient: Tensor, state: dict[str, Tensor], _: Steps) -> None:
        gradient = decayed(row, gradient)
        square = state["square_avg"].mul_(old).addcmul_(gradient.square(), new)
        row.addcdiv_(gradient * rate, square.sqrt().add_(eps), value=-1)

    return change


def _adagrad(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
    decayed, eps = _decayed(decay, kind), h["eps"].to(kind)

    def change(row: Tensor, gradient: Tensor, state: dict[str, Tensor], steps: Steps) -> None:
        gradient = decayed(row, gradient)
        count = torch.tensor(steps, dtype=torch.float64, device=row.device).unsqueeze(1)
        size = (h["lr"] / (1 + (count - 1) * h["lr_decay"])).to(kind)
        total = state["sum"].addcmul_(gradient, gradient)
        row.addcdiv_(gradient * size, total.sqrt().add_(eps), value=-1)

    return change


def _decayed(decay: Decay, kind: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    """Weight decay that enters the gradient, in place."""
    parts = [(start, end, strengths.to(kind)) for start, end, strengths in decay]

    def decayed(row: Tensor, gradient: Tensor) -> Tensor:
        for start, end, strengths in parts:
            gradient[:, start:end].addcmul_(row[:, start:end], strengths)
        return gradient

    return decayed


# ---- torch's fused kernels -----------------------------------------------------------------------------------------

Part = tuple[int, int, Sequence[float]]
"""Columns from which to which, and the weight decay of every slice there."""


Call = Callable[[Tensor, int], None]
"""Changes one slice, given its gradient and how many steps it has made."""

Kernel = Callable[[Sequence[Tensor], Tensor, Mapping[str, float], float], Call]
"""Makes a slice's call ready, given its row and state, a count of its steps, its hyperparameters and weight decay."""


class _SliceBySlice:
    """A change that calls a kernel for each slice. What does not change from step to step is made ready once.

    Args:
        kernel: what changes a slice.
        h: hyperparameters, columns of shape (K, 1).
        decay: weight decay.
    """

    def __init__(self, kernel: Kernel, h: Columns, decay: Decay) -> None:
        self._kernel, self._decay = kernel, decay
        columns = {name: column[:, 0].tolist() for name, column in h.items()}
        self._numbers = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self._counts = torch.zeros(len(self._numbers))
        self._whole: list[Tensor] = []
        self._widths: list[int] = []
        self._calls: list[list[Call]] = []

    def __call__(self, row: Tensor, gradient: Tensor, state: dict[str, Tensor], steps: Steps) -> None:
        whole = [row, *state.values()]
        if len(self._whole) != len(whole) or any(a is not b for a, b in zip(whole, self._whole, strict=True)):
            self._prepare(whole)
        self._counts.copy_(torch.tensor(steps, dtype=torch.float32))
        for calls, gradients in zip(self._calls, gradient.split(self._widths, dim=1), strict=True):
            for call, its, step in zip(calls, gradients.unbind(), steps, strict=True):
                call(its, step)

    def _prepare(self, whole: list[Tensor]) -> None:
        self._whole = whole
        parts = list(_parts(self._decay, *whole[0].shape))
        self._widths = [end - start for start, end, _ in parts]
        self._calls = []
        for start, end, strengths in parts:
            slices = zip(*(tensor[:, start:end].unbind() for tensor in whole), strict=True)
            each = zip(slices, self._counts.unbind(), self._numbers, strengths, strict=True)
            self._calls.append([self._kernel(*one) for one in each])


def _fused(kernel: Kernel, plain: Formula) -> Formula:
    """The formula by a kernel; the plain one where groups of parameters differ in more than weight decay."""

    def formula(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
        if any(column.shape[1] != 1 for column in h.values()):
            return plain(h, decay, kind)
        return _SliceBySlice(kernel, h, decay)

    return formula


def _parts(decay: Decay, k: int, width: int) -> Iterator[Part]:
    """All columns, where their weight decay is the same."""
    start = 0
    for begin, end, strengths in decay:
        if start < begin:
            yield start, begin, [0.0] * k
        yield begin, end, strengths[:, 0].tolist()
        start = end
    if start < width:
        yield start, width, [0.0] * k


def _fused_sgd(tensors: Sequence[Tensor], _: Tensor, h: Mapping[str, float], decay: float) -> Call:
    row, buffer = tensors
    rows, buffers, empty = [row], [buffer] if h["momentum"] else [], h["begins_empty"] > 0
    told: dict[str, Any] = {name: h[name] for name in ("lr", "momentum", "dampening")}
    told |= {"weight_decay": decay, "nesterov": bool(h["nesterov"]), "maximize": False}

    def call(gradient: Tensor, step: int) -> None:
        torch._fused_sgd_(rows, [gradient], buffers, **told, is_first_step=step == 1 and empty)

    return call


def _fused_adam(tensors: Sequence[Tensor], count: Tensor, h: Mapping[str, float], decay: float) -> Call:
    rows, means, squares = ([tensor] for tensor in tensors)
    counts = [count]
    kernel: Callable[..., None] = torch._fused_adamw_ if h["decoupled_weight_decay"] else torch._fused_adam_
    told = {**{name: h[name] for name in ("lr", "beta1", "beta2", "eps")}, "weight_decay": decay}

    def call(gradient: Tensor, _: int) -> None:
        kernel(rows, [gradient], means, squares, [], counts, **told, amsgrad=False, maximize=False)

    return call


def _fused_adagrad(tensors: Sequence[Tensor], count: Tensor, h: Mapping[str, float], decay: float) -> Call:
    rows, totals = ([tensor] for tensor in tensors)
    counts = [count]
    told: dict[str, Any] = {**{name: h[name] for name in ("lr", "lr_decay", "eps")}, "weight_decay": decay}

    def call(gradient: Tensor, _: int) -> None:
        torch._fused_adagrad_(rows, [gradient], totals, counts, **told, maximize=False)

    return call


# ---- which -----------------------------------------------------------------------------------------------------------

_FORMULAS: Mapping[type[Optimizer], Formula] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}

LONG: dict[type[Optimizer], int] = {SGD: 24_000, Adam: 6_000, AdamW: 6_000, Adagrad: 12_000}
"""From how many parameters on a call for each slice is faster than the formula."""

_FUSED: Mapping[type[Optimizer], Formula] = {
    SGD: _fused(_fused_sgd, _sgd),
    Adam: _fused(_fused_adam, _adam),
    AdamW: _fused(_fused_adam, _adam),
    Adagrad: _fused(_fused_adagrad, _adagrad),
}


def formula_of(kind: type[Optimizer], rows: Tensor) -> Formula | None:
    """The formula of an optimiser for rows of shape (K, P), or None if there is none."""
    if rows.device.type == "cpu" and rows.is_floating_point() and rows.shape[1] >= LONG.get(kind, rows.shape[1] + 1):
        return _FUSED[kind]
    return _FORMULAS.get(kind)
