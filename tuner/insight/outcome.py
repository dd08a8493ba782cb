"""What a trial counts as when importance is measured: its objective, or what that would have become."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

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
    values = []
    for trial in trials:
        value = math.inf if kind(trial) == "infeasible" else objective.key(trial.score)
        if kind(trial) == "pruned" and trial.values:
            epoch = max(trial.values)
            grown = [(_reached(c, epoch, objective), objective.key(c.score)) for c in complete]
            value = max(best, _grown(value, [(at, final) for at, final in grown if math.isfinite(at)]))
        values.append(value)
    return values


def _reached(trial: Trial, epoch: int, objective: Objective) -> float:
    """The best value up to an epoch, smaller is better; infinite without one."""
    return min((objective.key(v) for e, v in trial.values.items() if e <= epoch and math.isfinite(v)), default=math.inf)


def _grown(value: float, others: Sequence[tuple[float, float]]) -> float:
    """What a value becomes in the end, judged by (value at the same epoch, final value) of other trials."""
    if not others:
        return value
    if value > 0 and all(at > 0 and final > 0 for at, final in others):
        return value * statistics.median(final / at for at, final in others)
    return value + statistics.median(final - at for at, final in others)


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, 1 for the smallest; equal values share the mean of their ranks."""
    ordered = sorted(values)
    counts = Counter(values)
    return [ordered.index(value) + (counts[value] + 1) / 2 for value in values]
