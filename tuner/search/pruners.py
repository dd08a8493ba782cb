"""Pruners by name: which trials stop early because others were better (documented.md §6: pruning is early stopping)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial


class NumberedHyperbandPruner(optuna.pruners.HyperbandPruner):
    """Optuna's Hyperband, with the bracket that belongs to a trial's number in our study.

    The study in memory counts otherwise: proposals drawn again and trials that came back have numbers there, too.

    Attributes:
        numbers: our number by the number in memory.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(min_resource=max(1, epochs // 10), max_resource=epochs, reduction_factor=3)
        self.numbers: dict[int, int] = {}

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        ours = copy.copy(trial)
        ours.number = self.numbers.get(trial.number, trial.number)
        return super()._get_bracket_id(study, ours)


PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "none": lambda _: optuna.pruners.NopPruner(),
    "median": lambda epochs: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 10)),
    "asha": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 10), reduction_factor=2
    ),
    "hyperband": NumberedHyperbandPruner,
    "patience": lambda epochs: optuna.pruners.PatientPruner(None, patience=max(2, epochs // 10)),
}
"""By name: from the epochs of a whole trial to a pruner."""
