"""Optimisers and learning-rate decay by name, on torch's own classes (documented.md §2, §3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from tuner.models.layers.lookup import lookup


@dataclass(frozen=True)
class OptimiserSettings:
    """The hyperparameters of a descent.

    Attributes:
        optimizer: `sgd`, `adagrad`, `rmsprop`, `adam` or `adamw`.
        learning_rate: α, the step size.
        momentum: β of `sgd`, as a filter: v ← β v + (1-β) g, θ ← θ - α v. In this form the size of a step does not
            change with β, so the two can be tuned one after the other. torch's default form v ← β v + g takes steps
            1/(1-β) times as large: α(torch) = α (1-β). (torch starts the filter at the first gradient, not at 0.)
        weight_decay: θ ← (1 - α · weight_decay) θ - …; for all but `adamw` it enters the gradient as L2 does.
        adam_beta1: decay of Adam's mean of gradients.
        adam_beta2: decay of Adam's and RMSprop's mean of squared gradients.
        adam_eps: the ε under Adam's root.
    """

    optimizer: str
    learning_rate: float
    momentum: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float


Groups = list[dict[str, object]]

OPTIMIZERS: Mapping[str, Callable[[Groups, OptimiserSettings], torch.optim.Optimizer]] = {
    "sgd": lambda groups, s: torch.optim.SGD(groups, s.learning_rate, momentum=s.momentum, dampening=s.momentum),
    "adagrad": lambda groups, s: torch.optim.Adagrad(groups, s.learning_rate),
    "rmsprop": lambda groups, s: torch.optim.RMSprop(groups, s.learning_rate, alpha=s.adam_beta2, eps=s.adam_eps),
    "adam": lambda groups, s: torch.optim.Adam(groups, s.learning_rate, (s.adam_beta1, s.adam_beta2), s.adam_eps),
    "adamw": lambda groups, s: torch.optim.AdamW(groups, s.learning_rate, (s.adam_beta1, s.adam_beta2), s.adam_eps),
}

# Each takes the coefficient lr_decay and the epoch t = 0, 1, 2, … and returns the factor on α0.
DECAYS: Mapping[str, Callable[[float, int], float]] = {
    "inverse": lambda rate, t: 1 / (1 + rate * t),
    "exponential": lambda gamma, t: gamma**t,
    "sqrt": lambda k, t: k / math.sqrt(t + 1),
    "step": lambda gamma, t: gamma ** (t // 10),
    "none": lambda _, _t: 1.0,
}


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> Groups:
    """Split the parameters: weights decay; biases, normalisers' γ and β and PReLU slopes (all vectors) do not."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Build the optimiser that the settings name."""
    build = lookup(OPTIMIZERS, settings.optimizer, "optimizer")
    groups = [group for group in parameter_groups(parameters, settings.weight_decay) if group["params"]]
    return build(groups, settings)


def decay_factor(form: str, coefficient: float) -> Callable[[int], float] | None:
    """The factor on the learning rate by epoch, or None when it never changes.

    Raises:
        ValueError: an unknown form, or a coefficient outside its range.
    """
    factor = lookup(DECAYS, form, "lr_schedule")
    if form == "none" or (form == "inverse" and coefficient == 0):
        return None
    above_zero = form != "inverse"
    at_most_one = form in ("exponential", "step")
    if coefficient < 0 or (above_zero and coefficient == 0) or (at_most_one and coefficient > 1):
        allowed = ("above 0" if above_zero else "at least 0") + (" and at most 1" if at_most_one else "")
        raise ValueError(f"lr_decay must be {allowed} for lr_schedule {form!r}, but got {coefficient}.")
    return lambda t: factor(coefficient, t)
