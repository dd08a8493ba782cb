"""The finished trials of a study in memory, each read once: they never change, and thousands are slow to read again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

Array = NDArray[np.float64]

OUTSIDE = "tuner.outside"
"""The user attribute of a trial that holds its values from before the space was changed, which Optuna would refuse."""


class History:
    """What the complete and the pruned trials of a study have come to.

    Attributes:
        trials: complete and pruned trials, in the order in which they were found finished.
        running: trials that are not finished.
    """

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self._told: list[bool] = []
        self._positions: list[int] = []
        self._finals: list[float] = []  # of complete trials; not a number for pruned ones
        self._pruned: list[int] = []
        self._complete: list[FrozenTrial] = []
        self._at: dict[int, _AtStep] = {}
        self._read = 0
        self._unfinished: list[int] = []

    @classmethod
    def of(cls, study: optuna.Study) -> History:
        """The history of this study, up to now."""
        history = _HISTORIES.setdefault(study, cls())
        history.read(study.get_trials(deepcopy=False))
        return history

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Read those of a study's trials, all of them by number, that have finished since."""
        unfinished = []
        for position in (*self._unfinished, *range(self._read, len(trials))):
            trial = trials[position]
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._take(trial, position)
            elif trial.state is not TrialState.FAIL:
                unfinished.append(position)
        self._unfinished, self._read = unfinished, len(trials)
        self.running = [trials[i] for i in unfinished if trials[i].state is TrialState.RUNNING]

    def _take(self, trial: FrozenTrial, position: int) -> None:
        if trial.state is TrialState.COMPLETE:
            self._complete.append(trial)
            self._finals.append(trial.values[0])
        else:
            self._pruned.append(len(self.trials))
            self._finals.append(math.nan)
        self.trials.append(trial)
        self._told.append(bool(trial.params) or OUTSIDE in trial.user_attrs)
        self._positions.append(position)

    @property
    def complete(self) -> int:
        """How many trials are complete."""
        return len(self._complete)

    @property
    def order(self) -> NDArray[np.int64]:
        """The indices of `trials`, those that have values of parameters, in the order of their numbers."""
        order = np.argsort(np.array(self._positions, dtype=np.int64), kind="stable")
        told: NDArray[np.int64] = order[np.array(self._told, dtype=bool)[order]]
        return told

    def at(self, step: int) -> tuple[Array, Array]:
        """What complete trials reported at a step, and their values; of those that reported one there."""
        if step not in self._at:
            self._at[step] = _AtStep(step)
        return self._at[step].of(self._complete)

    def values(self, sign: float) -> Array:
        """What `trials` count as, smaller is better; always finite.

        A pruned trial counts with its last value times the median ratio of final to that step's value among complete
        trials (plus the median difference, where values are not all above 0), and never as better than the best of
        them. One without any value counts as the worst.

        Args:
            sign: 1 to minimise, -1 to maximise.
        """
        values: Array = sign * np.array(self._finals, dtype=np.float64)
        finals = values[np.isfinite(values)]
        best = float(finals.min()) if len(finals) else -math.inf
        grown: dict[int, tuple[float | None, float]] = {}
        for i in self._pruned:
            trial = self.trials[i]
            step = trial.last_step
            if step is None or not math.isfinite(last := sign * trial.intermediate_values[step]):
                continue
            if step not in grown:
                grown[step] = self._growth(step, sign)
            ratio, difference = grown[step]
            values[i] = max(best, last * ratio if ratio is not None and last > 0 else last + difference)
        known = values[np.isfinite(values)]
        return np.where(np.isfinite(values), values, known.max() if len(known) else 0.0)

    def _growth(self, step: int, sign: float) -> tuple[float | None, float]:
        """The medians of (final value / that at the step), unless some are not above 0, and of their difference."""
        there, finals = (sign * values for values in self.at(step))
        finite = np.isfinite(there) & np.isfinite(finals)
        there, finals = there[finite], finals[finite]
        if len(there) == 0:
            return None, 0.0
        positive = bool((there > 0).all() and (finals > 0).all())
        return float(np.median(finals / there)) if positive else None, float(np.median(finals - there))


class _AtStep:
    """What complete trials reported at a step, read as far as they were needed."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._read = 0
        self._values, self._finals = np.empty(0), np.empty(0)

    def of(self, complete: Sequence[FrozenTrial]) -> tuple[Array, Array]:
        """Both arrays, for these trials, of which earlier ones have been read."""
        if new := [t for t in complete[self._read :] if self._step in t.intermediate_values]:
            values = np.array([t.intermediate_values[self._step] for t in new], dtype=np.float64)
            finals = np.array([t.values[0] for t in new], dtype=np.float64)
            self._values = np.concatenate([self._values, values])
            self._finals = np.concatenate([self._finals, finals])
        self._read = len(complete)
        return self._values, self._finals


_HISTORIES: WeakKeyDictionary[optuna.Study, History] = WeakKeyDictionary()
