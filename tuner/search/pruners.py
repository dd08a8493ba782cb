"""Pruners by name: which trials stop early because others were better (documented.md §6: pruning is early stopping)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from tuner.search.history import History


class MedianPruner(optuna.pruners.MedianPruner):
    """Optuna's median rule, which reads every finished trial once instead of at each report.

    Args:
        epochs: of a whole trial.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(n_startup_trials=5, n_warmup_steps=max(1, epochs // 10))

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the best that the trial reported is worse than the median of what others reported at this step."""
        history = History.of(study)
        step = trial.last_step
        if step is None or step < self._n_warmup_steps or history.complete < self._n_startup_trials:
            return False
        others, _ = history.at(step)
        others = others[~np.isnan(others)]
        own = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
        if not own:
            return True
        if len(others) == 0:
            return False
        if study.direction == optuna.study.StudyDirection.MAXIMIZE:
            return max(own) < float(np.percentile(others, 50))
        return min(own) > float(np.percentile(others, 50))


class NumberedHyperbandPruner(optuna.pruners.HyperbandPruner):
    """Optuna's Hyperband, with the bracket that belongs to a trial's number in our study.

    The study in memory counts otherwise: proposals drawn again and trials that came back have numbers there, too.

    Attributes:
        numbers: our number by the number in memory.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(min_resource=max(1, epochs // 10), max_resource=epochs, reduction_factor=3)
        self.numbers: dict[int, int] = {}
        self._brackets: dict[int, int] = {}

    def halving(self, study: optuna.Study, number: int) -> optuna.pruners.SuccessiveHalvingPruner:
        """The successive halving of the bracket of our trial of this number."""
        if not self._pruners:
            self._try_initialization(study)
        return self._pruners[self._bracket(study, number)]

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return self._bracket(study, self.numbers.get(trial.number, trial.number))

    def _bracket(self, study: optuna.Study, number: int) -> int:
        if number not in self._brackets:
            ours: Any = SimpleNamespace(number=number)
            self._brackets[number] = super()._get_bracket_id(study, ours)
        return self._brackets[number]


def remembers(pruner: BasePruner) -> bool:
    """Whether what a pruner answers depends on what it was asked before, which it notes on the trials."""
    return isinstance(pruner, optuna.pruners.SuccessiveHalvingPruner | NumberedHyperbandPruner)


def remembered(pruner: BasePruner, study: optuna.Study, number: int, values: Mapping[int, float]) -> dict[str, float]:
    """What a pruner has noted on a trial once it was asked after each of these epochs: the values at its rungs.

    Without asking again, which takes a look at every other trial for each epoch.

    Args:
        pruner: one of PRUNERS.
        study: the study in memory.
        number: our number of the trial.
        values: what it reported, by epoch, in their order.
    """
    if not remembers(pruner):
        return {}
    halving: Any = pruner.halving(study, number) if isinstance(pruner, NumberedHyperbandPruner) else pruner
    noted: dict[str, float] = {}
    for epoch, value in values.items():
        rung = len(noted)
        next_at = halving._min_resource * halving._reduction_factor ** (halving._min_early_stopping_rate + rung)
        if epoch >= next_at and not math.isnan(value):
            noted[f"completed_rung_{rung}"] = value
    return noted


PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "none": lambda _: optuna.pruners.NopPruner(),
    "median": MedianPruner,
    "asha": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=max(1, epochs // 10), reduction_factor=2
    ),
    "hyperband": NumberedHyperbandPruner,
    "patience": lambda epochs: optuna.pruners.PatientPruner(None, patience=max(2, epochs // 10)),
}
"""By name: from the epochs of a whole trial to a pruner."""
