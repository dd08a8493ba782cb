"""The formulas of torch's optimisers for all slices of a cohort, each slice with hyperparameters of its own.

They are those of `torch.optim`, in the same order of operations. Where rows are long, torch's fused kernels take their
place: a call for each slice goes through its row once, the formula through all rows as often as it has operations.
"""

# Shapes: K = slices, P = trained parameters of one.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

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


Kernel = Callable[[Sequence[Tensor], Mapping[str, float], float, int, Tensor], None]
"""Given a slice's row, gradient and state, its hyperparameters, its weight decay, and the steps made, twice."""


class _SliceBySlice:
    """A change that calls a kernel for each slice.

    Args:
        kernel: what changes a slice.
        names: of what the optimiser keeps, in the kernel's order.
        h: hyperparameters, columns of shape (K, 1).
        decay: weight decay.
    """

    def __init__(self, kernel: Kernel, names: Sequence[str], h: Columns, decay: Decay) -> None:
        self._kernel, self._names, self._decay = kernel, names, decay
        columns = {name: column[:, 0].tolist() for name, column in h.items()}
        self._numbers = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        self._known: list[tuple[Tensor, list[list[Tensor]]]] = []

    def __call__(self, row: Tensor, gradient: Tensor, state: dict[str, Tensor], steps: Steps) -> None:
        parts = list(_parts(self._decay, *row.shape))
        whole = [row, *(state[name] for name in self._names)]
        if len(self._known) != len(whole) or any(a is not b for a, (b, _) in zip(whole, self._known, strict=True)):
            self._known = [(tensor, _cut(tensor, parts)) for tensor in whole]  # others are new at every step
        (_, rows), *kept = self._known
        counts = torch.tensor(steps, dtype=torch.float32).unbind()
        for number, ((_, _, strengths), gradients) in enumerate(zip(parts, _cut(gradient, parts), strict=True)):
            of_all = zip(rows[number], gradients, *(cut[number] for _, cut in kept), strict=True)
            for k, tensors in enumerate(of_all):
                self._kernel(tensors, self._numbers[k], strengths[k], steps[k], counts[k])


def _fused(kernel: Kernel, names: Sequence[str], plain: Formula) -> Formula:
    """The formula by a kernel; the plain one where groups of parameters differ in more than weight decay."""

    def formula(h: Columns, decay: Decay, kind: torch.dtype) -> Change:
        if any(column.shape[1] != 1 for column in h.values()):
            return plain(h, decay, kind)
        return _SliceBySlice(kernel, names, h, decay)

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


def _cut(whole: Tensor, parts: Sequence[Part]) -> list[list[Tensor]]:
    """The parts of every slice: part, slice."""
    return [list(part.unbind()) for part in whole.split([end - start for start, end, _ in parts], dim=1)]


def _fused_sgd(tensors: Sequence[Tensor], h: Mapping[str, float], decay: float, step: int, _: Tensor) -> None:
    row, gradient, buffer = tensors
    torch._fused_sgd_(
        [row],
        [gradient],
        [buffer] if h["momentum"] else [],
        weight_decay=decay,
        momentum=h["momentum"],
        lr=h["lr"],
        dampening=h["dampening"],
        nesterov=bool(h["nesterov"]),
        maximize=False,
        is_first_step=step == 1 and bool(h["begins_empty"]),
    )


def _fused_adam(tensors: Sequence[Tensor], h: Mapping[str, float], decay: float, _: int, count: Tensor) -> None:
    row, gradient, mean, square = tensors
    call = torch._fused_adamw_ if h["decoupled_weight_decay"] else torch._fused_adam_
    call(
        [row],
        [gradient],
        [mean],
        [square],
        [],
        [count],
        lr=h["lr"],
        beta1=h["beta1"],
        beta2=h["beta2"],
        weight_decay=decay,
        eps=h["eps"],
        amsgrad=False,
        maximize=False,
    )


def _fused_adagrad(tensors: Sequence[Tensor], h: Mapping[str, float], decay: float, _: int, count: Tensor) -> None:
    row, gradient, total = tensors
    torch._fused_adagrad_(
        [row],
        [gradient],
        [total],
        [count],
        lr=h["lr"],
        lr_decay=h["lr_decay"],
        weight_decay=decay,
        eps=h["eps"],
        maximize=False,
    )


# ---- which -----------------------------------------------------------------------------------------------------------

_FORMULAS: Mapping[type[Optimizer], Formula] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}

LONG: dict[type[Optimizer], int] = {SGD: 16_000, Adam: 2_000, AdamW: 2_000, Adagrad: 4_000}
"""From how many parameters on a call for each slice is faster than the formula."""

_FUSED: Mapping[type[Optimizer], Formula] = {
    SGD: _fused(_fused_sgd, ("momentum_buffer",), _sgd),
    Adam: _fused(_fused_adam, ("exp_avg", "exp_avg_sq"), _adam),
    AdamW: _fused(_fused_adam, ("exp_avg", "exp_avg_sq"), _adam),
    Adagrad: _fused(_fused_adagrad, ("sum",), _adagrad),
}


def formula_of(kind: type[Optimizer], rows: Tensor) -> Formula | None:
    """The formula of an optimiser for rows of shape (K, P), or None if there is none."""
    if rows.device.type == "cpu" and rows.is_floating_point() and rows.shape[1] >= LONG.get(kind, rows.shape[1] + 1):
        return _FUSED[kind]
    return _FORMULAS.get(kind)
