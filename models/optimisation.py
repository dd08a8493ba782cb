"""Optimisers and learning-rate decay by name, on torch's own classes (documented.md §2, §3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tuner.models.layers.lookup import check_range, lookup
from tuner.models.regularisation import decays


@dataclass(frozen=True)
class OptimiserSettings:
    """The hyperparameters of a descent.

    Attributes:
        optimizer: `sgd`, `adagrad`, `rmsprop`, `adam` or `adamw`.
        learning_rate: α, the step size, above 0.
        momentum: β of `sgd`, as a filter: v ← β v + (1-β) g, θ ← θ - α v, in [0, 1). In this form the size of a step
            does not change with β, so the two can be tuned one after the other. torch's default form v ← β v + g takes
            steps 1/(1-β) times as large: α(torch) = α (1-β). v starts at 0; torch's `dampening` alone would start it at
            the first gradient, which then counts 1/(1-β) times as much as any other.
        nesterov: look ahead along v, as Sutskever et al. (2013): θ ← θ - α ((1-β) g + β v), with v from 0. The
            rate that the optimiser itself shows is then α (1-β).
        weight_decay: θ ← (1 - α · weight_decay) θ - …, at least 0; for all but `adamw` it enters the gradient, as L2.
        adam_beta1: decay of Adam's mean of gradients, in [0, 1).
        adam_beta2: decay of Adam's and RMSprop's mean of squared gradients, in [0, 1).
        adam_eps: the ε under Adam's and RMSprop's fraction, above 0.

    Raises:
        ValueError: an unknown name, or a number outside its range.
    """

    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    nesterov: bool = False

    def __post_init__(self) -> None:
        lookup(OPTIMIZERS, self.optimizer, "optimizer")
        check_range("learning_rate", self.learning_rate, 0, low_included=False)
        check_range("momentum", self.momentum, 0, 1)
        check_range("weight_decay", self.weight_decay, 0)
        check_range("adam_beta1", self.adam_beta1, 0, 1)
        check_range("adam_beta2", self.adam_beta2, 0, 1)
        check_range("adam_eps", self.adam_eps, 0, low_included=False)


Groups = list[dict[str, object]]


def _sgd(groups: Groups, s: OptimiserSettings) -> torch.optim.Optimizer:
    if s.nesterov and s.momentum > 0:
        # torch's Nesterov wants its own form of momentum, whose steps are 1/(1-β) times as large.
        return torch.optim.SGD(groups, s.learning_rate * (1 - s.momentum), momentum=s.momentum, nesterov=True)
    optimizer = torch.optim.SGD(groups, s.learning_rate, momentum=s.momentum, dampening=s.momentum)
    if s.momentum > 0:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


OPTIMIZERS: Mapping[str, Callable[[Groups, OptimiserSettings], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adagrad": lambda groups, s: torch.optim.Adagrad(groups, s.learning_rate),
    "rmsprop": lambda groups, s: torch.optim.RMSprop(groups, s.learning_rate, alpha=s.adam_beta2, eps=s.adam_eps),
    "adam": lambda groups, s: torch.optim.Adam(groups, s.learning_rate, (s.adam_beta1, s.adam_beta2), s.adam_eps),
    "adamw": lambda groups, s: torch.optim.AdamW(groups, s.learning_rate, (s.adam_beta1, s.adam_beta2), s.adam_eps),
}

# Each takes the coefficient lr_decay, the epoch t = 0, 1, 2, … and the stair s, and returns the factor on α0.
DECAYS: Mapping[str, Callable[[float, int, int], float]] = {
    "inverse": lambda rate, t, _: 1 / (1 + rate * t),
    "exponential": lambda gamma, t, _: gamma**t,
    "sqrt": lambda k, t, _: k / math.sqrt(t + 1),
    "step": lambda gamma, t, s: gamma ** (t // s),
    "none": lambda _k, _t, _s: 1.0,
}


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Split the parameters: weights decay; biases, normalisers' γ and β and PReLU slopes (all vectors) do not."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in trained if not decays(p)], "weight_decay": 0.0},
    ]


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Build the optimiser that the settings name."""
    build = lookup(OPTIMIZERS, settings.optimizer, "optimizer")
    groups = [group for group in parameter_groups(parameters, settings.weight_decay) if group["params"]]
    return build(groups, settings)


def decay_factor(form: str, coefficient: float, stair: int = 10) -> Callable[[int], float] | None:
    """The factor on the learning rate by epoch, or None when it never changes.

    Args:
        form: `inverse`, `exponential`, `sqrt`, `step` or `none`.
        coefficient: r, γ, k or γ of the form.
        stair: s of `step`, the epochs between two steps.

    Raises:
        ValueError: an unknown form, or a number outside its range.
    """
    factor = lookup(DECAYS, form, "lr_schedule")
    check_range("lr_step", stair, 1)
    if form == "none" or (form == "inverse" and coefficient == 0):
        return None
    above_zero = form != "inverse"
    at_most_one = form in ("exponential", "step")
    in_range = (coefficient > 0 if above_zero else coefficient >= 0) and (coefficient <= 1 or not at_most_one)
    if not (in_range and math.isfinite(coefficient)):
        allowed = ("above 0" if above_zero else "at least 0") + (" and at most 1" if at_most_one else "")
        raise ValueError(f"lr_decay must be {allowed} for lr_schedule {form!r}, but got {coefficient}.")
    return lambda t: factor(coefficient, t, stair)
