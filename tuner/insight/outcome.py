"""What a trial counts as when importance is measured: its objective, or what that would have become."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.trial import Objective, Trial, TrialState


def counts(trial: Trial) -> bool:
    """Whether the trial is measured: a finished proposal of the search that did not fail."""
    ended = trial.result is not None and trial.result.state is not TrialState.FAILED
    return ended and trial.confirms is None and trial.params is not None


def kind(trial: Trial) -> str:
    """`complete`, `pruned`, or `infeasible` when it never had a value to keep."""
    if trial.outcome.infeasible or trial.value is None:
        return "infeasible"
    return trial.outcome.state.value


def values_of(trials: Sequence[Trial], objective: Objective) -> list[float]:
    """What each trial counts as, smaller is better; infinite for one that never had a value to keep.

    A pruned trial counts with the best it had reached times the median growth from that epoch on of the complete
    trials (plus it, where values are not all above 0), and never as better than the best of them.
    """
    complete = [t for t in trials if kind(t) == "complete"]
    best = min((objective.key(t.score) for t in complete), default=-math.inf)
    growths: dict[int, _Growth] = {}
    values = []
    for trial in trials:
        value = math.inf if kind(trial) == "infeasible" else objective.key(trial.score)
        if kind(trial) == "pruned" and trial.values:
            epoch = max(trial.values)
            if epoch not in growths:
                growths[epoch] = _Growth.after(epoch, complete, objective)
            value = max(best, growths[epoch].of(value))
        values.append(value)
    return values


def _reached(trial: Trial, epoch: int, objective: Objective) -> float:
    """The best value up to an epoch, smaller is better; infinite without one."""
    return min((objective.key(v) for e, v in trial.values.items() if e <= epoch and math.isfinite(v)), default=math.inf)


@dataclass(frozen=True)
class _Growth:
    """What values become in the end: the medians over other trials of (final / that at the epoch), of final - that."""

    ratio: float | None
    difference: float

    @classmethod
    def after(cls, epoch: int, others: Sequence[Trial], objective: Objective) -> _Growth:
        """From an epoch on; the ratio is None where values are not all above 0."""
        pairs = [(_reached(t, epoch, objective), objective.key(t.score)) for t in others]
        pairs = [(at, final) for at, final in pairs if math.isfinite(at)]
        if not pairs:
            return cls(None, 0.0)
        positive = all(at > 0 and final > 0 for at, final in pairs)
        ratio = statistics.median(final / at for at, final in pairs) if positive else None
        return cls(ratio, statistics.median(final - at for at, final in pairs))

    def of(self, value: float) -> float:
        """What a value becomes."""
        return value * self.ratio if self.ratio is not None and value > 0 else value + self.difference


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, 1 for the smallest; equal values share the mean of their ranks."""
    counts, before, below = Counter(values), 0, {}
    for value in sorted(counts):
        below[value] = before
        before += counts[value]
    return [below[value] + (counts[value] + 1) / 2 for value in values]
