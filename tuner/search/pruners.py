"""Pruners by name: which trials stop early because others were better (documented.md §6: pruning is early stopping)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import optuna
from optuna.pruners import BasePruner

PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "auto": lambda epochs: _median(epochs),
    "none": lambda _: optuna.pruners.NopPruner(),
    "median": lambda epochs: _median(epochs),
    "asha": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 10), reduction_factor=2
    ),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(
        min_resource=max(1, epochs // 10), max_resource=epochs, reduction_factor=3
    ),
    "patience": lambda epochs: optuna.pruners.PatientPruner(None, patience=max(2, epochs // 10)),
}
"""By name: from the epochs of a whole trial to a pruner. `auto` is the median, the safe choice at any budget."""


def _median(epochs: int) -> BasePruner:
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 10))
