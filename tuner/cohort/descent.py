"""torch's optimisers on the rows of a cohort, each row with hyperparameters of its own.

The trials' optimisers stay what holds the hyperparameters, so that any scheduler works: it changes its own optimiser,
and `refresh` reads that.
"""

# Shapes: K = slices, P = trained parameters of one, G = groups of parameters.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from tuner.cohort.errors import NotFusable
from tuner.cohort.formulas import Decay, Formula, formula_of
from tuner.cohort.rows import Rows


def descent_of(rows: Rows, optimizers: Sequence[Optimizer]) -> Descent:
    """What makes the steps of these optimisers: one formula for all rows where we have it, else each its own.

    Raises:
        NotFusable: an optimiser has hooks, which may do anything.
    """
    if any(one._optimizer_step_pre_hooks or one._optimizer_step_post_hooks for one in optimizers):
        raise NotFusable("its optimiser has hooks")
    formula = formula_of(type(optimizers[0]), rows.trained)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    unusual = any(group.get(flag) for group in groups for flag in _UNUSUAL)
    moving = type(optimizers[0]) is RMSprop and any(group["momentum"] for group in groups)
    if formula is None or unusual or moving or any(isinstance(group["lr"], Tensor) for group in groups):
        return EachItsOwn(rows, optimizers)
    return Together(rows, optimizers, formula)


class Descent:
    """Makes a step of all slices' optimisers; abstract."""

    def __init__(self, rows: Rows, optimizers: Sequence[Optimizer]) -> None:
        self.rows = rows
        self.optimizers = list(optimizers)

    def step(self, gradients: Tensor, losses: Tensor) -> None:
        """Change the rows along gradients of shape (K, P), which it may overwrite; losses have the shape (K,)."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Take note of hyperparameters that a scheduler has changed."""

    def put(self, k: int, optimizer: Optimizer) -> None:
        """Another optimiser takes the place of slice k."""
        self.optimizers[k] = optimizer

    def leave(self, k: int) -> None:
        """The place of slice k is empty from now on."""

    def state_of(self, k: int) -> dict[str, Any]:
        """The state of slice k's optimiser, as if it had made the steps itself."""
        return self.optimizers[k].state_dict()

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these slices, in this order."""
        self.optimizers = [self.optimizers[k] for k in kept]


class EachItsOwn(Descent):
    """Every slice's optimiser steps by itself: for any that computes gradients once, at the price of K calls."""

    def __init__(self, rows: Rows, optimizers: Sequence[Optimizer]) -> None:
        super().__init__(rows, optimizers)
        self._empty: set[int] = set()

    def step(self, gradients: Tensor, losses: Tensor) -> None:
        """Hand each optimiser its gradients.

        Raises:
            NotFusable: an optimiser does more with its closure than to call it once, and first.
        """
        for k, optimizer in enumerate(self.optimizers):
            if k in self._empty:
                continue
            parameters = dict(self.rows.modules[k].named_parameters())
            for name, gradient in self.rows.parameters_of(gradients[k]).items():
                parameters[name].grad = gradient
            if type(optimizer).__module__.startswith("torch.optim.") and type(optimizer) is not LBFGS:
                optimizer.step()
            else:
                self._step(optimizer, self.rows.trained[k], losses[k])
            optimizer.zero_grad(set_to_none=True)

    @staticmethod
    def _step(optimizer: Any, row: Tensor, loss: Tensor) -> None:
        """Step an optimiser that may ask for loss and gradients as it likes."""
        before = row.clone()
        asked: list[bool] = []

        def closure() -> Tensor:
            if asked or not torch.equal(row, before):
                raise NotFusable("its optimiser computes gradients more than once, or not first")
            asked.append(True)
            return loss

        try:
            optimizer.step(closure)
        except Exception as error:  # somebody's own code
            raise NotFusable(f"its optimiser raised {type(error).__name__}: {error}") from error
        if not asked:
            raise NotFusable("its optimiser did not call the closure")

    def leave(self, k: int) -> None:
        """The place of slice k is empty, and its optimiser steps no more."""
        self._empty.add(k)

    def put(self, k: int, optimizer: Optimizer) -> None:
        """Another optimiser takes the place of slice k."""
        super().put(k, optimizer)
        self._empty.discard(k)

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these slices, in this order."""
        super().keep(kept)
        self._empty = {place for place, k in enumerate(kept) if k in self._empty}


class Together(Descent):
    """One formula for all slices.

    Args:
        formula: changes rows in place.
    """

    def __init__(self, rows: Rows, optimizers: Sequence[Optimizer], formula: Formula) -> None:
        super().__init__(rows, optimizers)
        self._formula = formula
        self._steps = [_made(optimizer) for optimizer in optimizers]
        self._state: dict[str, Tensor] = {
            name: torch.stack([self._begun(optimizer, name) for optimizer in optimizers])
            for name in _STATES[type(optimizers[0])]
        }
        self._begins_empty = [not optimizer.state for optimizer in optimizers]
        for optimizer in optimizers:
            _called(optimizer)
        self.refresh()

    def step(self, gradients: Tensor, losses: Tensor) -> None:
        """One step of every slice."""
        self._steps = [steps + 1 for steps in self._steps]
        self._change(self.rows.trained, gradients, self._state, self._steps)

    def refresh(self) -> None:
        """Read every optimiser's hyperparameters."""
        read: dict[str, list[list[float]]] = {}  # (K, G) each
        for optimizer in self.optimizers:
            for name in ("betas", *_HYPERPARAMETERS):
                if name not in optimizer.param_groups[0]:
                    continue
                values = [group[name] for group in optimizer.param_groups]
                if name == "betas":
                    read.setdefault("beta1", []).append([float(b) for b, _ in values])
                    read.setdefault("beta2", []).append([float(b) for _, b in values])
                else:
                    read.setdefault(name, []).append([float(value) for value in values])
        decay = self._decay(read.pop("weight_decay"))
        columns = {name: self._column(values) for name, values in read.items()}
        columns["begins_empty"] = self._column([[float(empty)] for empty in self._begins_empty])
        self._change = self._formula(columns, decay, self.rows.trained.dtype)

    def put(self, k: int, optimizer: Optimizer) -> None:
        """Another optimiser takes the place of slice k."""
        super().put(k, optimizer)
        for name, state in self._state.items():
            state[k] = self._begun(optimizer, name)
        self._steps[k], self._begins_empty[k] = _made(optimizer), not optimizer.state
        _called(optimizer)
        self.refresh()

    def keep(self, kept: Sequence[int]) -> None:
        """Keep these slices, in this order."""
        super().keep(kept)
        chosen = torch.tensor(list(kept), device=self.rows.trained.device)
        self._state = {name: state.index_select(0, chosen) for name, state in self._state.items()}
        self._steps = [self._steps[k] for k in kept]
        self._begins_empty = [self._begins_empty[k] for k in kept]
        self.refresh()

    def state_of(self, k: int) -> dict[str, Any]:
        """The state of slice k's optimiser, as if it had made the steps itself."""
        optimizer, before = self.optimizers[k], self.optimizers[k].state
        optimizer.state = defaultdict(dict, self._entries(k))
        try:
            return optimizer.state_dict()
        finally:
            optimizer.state = before

    def _entries(self, k: int) -> dict[Tensor, dict[str, Any]]:
        """What torch's optimiser would keep for each parameter of slice k."""
        optimizer, start = self.optimizers[k], 0
        entries: dict[Tensor, dict[str, Any]] = {}
        for group in optimizer.param_groups:
            for parameter in filter(lambda p: p.requires_grad, group["params"]):
                end = start + parameter.numel()
                if not (type(optimizer) is SGD and group["momentum"] == 0):
                    parts = {name: rows[k, start:end].clone() for name, rows in self._state.items()}
                    entries[parameter] = {name: part.view(parameter.shape) for name, part in parts.items()}
                    if type(optimizer) is not SGD:
                        entries[parameter]["step"] = torch.tensor(float(self._steps[k]))
                start = end
        return entries

    def _column(self, values: list[list[float]]) -> Tensor:
        """(K, G) numbers as float64 columns: (K, 1) where the groups agree, else (K, P)."""
        if all(value == row[0] for row in values for value in row):
            return torch.tensor([row[:1] for row in values], dtype=torch.float64, device=self.rows.trained.device)
        widths = torch.tensor([b - a for a, b in pairwise([0, *self.rows.ends])])
        full = torch.tensor(values, dtype=torch.float64).repeat_interleave(widths, dim=1)
        return full.to(self.rows.trained.device)

    def _decay(self, values: list[list[float]]) -> Decay:
        """(K, G) strengths by their columns, those left out that have none."""
        parts: list[tuple[int, int, tuple[float, ...]]] = []
        for (start, end), strengths in zip(pairwise([0, *self.rows.ends]), zip(*values, strict=True), strict=True):
            if parts and parts[-1][1:] == (start, strengths):
                start = parts.pop()[0]
            if any(strengths):
                parts.append((start, end, strengths))
        device = self.rows.trained.device
        return [(a, b, torch.tensor(each, dtype=torch.float64, device=device).unsqueeze(1)) for a, b, each in parts]

    def _begun(self, optimizer: Optimizer, name: str) -> Tensor:
        """A state of an optimiser as it was when its slice came, shape (P,)."""
        parts = []
        for group in optimizer.param_groups:
            for parameter in filter(lambda p: p.requires_grad, group["params"]):
                begun = optimizer.state.get(parameter, {}).get(name)
                parts.append(torch.zeros_like(parameter).flatten() if begun is None else begun.flatten())
        return torch.cat(parts)


_STATES: Mapping[type[Optimizer], tuple[str, ...]] = {
    SGD: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq"),
    AdamW: ("exp_avg", "exp_avg_sq"),
    RMSprop: ("square_avg",),
    Adagrad: ("sum",),
}
_HYPERPARAMETERS = (
    "lr", "momentum", "dampening", "nesterov", "weight_decay", "eps", "alpha", "lr_decay", "decoupled_weight_decay",
)  # fmt: skip
_UNUSUAL = ("maximize", "amsgrad", "centered", "capturable", "differentiable")


def _made(optimizer: Optimizer) -> int:
    """How many steps an optimiser has made, where its formula asks for that."""
    return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)


def _called(optimizer: Optimizer) -> None:
    """Tell schedulers that the optimiser steps, so that they do not warn that it never does."""
    optimizer._opt_called = True  # type: ignore[attr-defined]


def clip(gradients: Tensor, norms: Tensor | None = None, values: Tensor | None = None) -> Tensor:
    """Clip each slice's gradients, in place.

    Args:
        gradients: shape (K, P).
        norms: to which norm, shape (K,); infinity is none.
        values: to which absolute value, shape (K,); infinity is none.
    """
    if values is not None:
        limit = values.to(gradients.dtype).unsqueeze(1)
        gradients = torch.clamp(gradients, -limit, limit)
    if norms is not None:
        found = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        gradients.mul_((norms.to(gradients.dtype).unsqueeze(1) / (found + 1e-6)).clamp_(max=1.0))
    return gradients
