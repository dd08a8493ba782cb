"""What sets the trials of a study apart: what got better along a hyperparameter, where the best lies in its range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tuner.insight.importance import rank_correlation
from tuner.insight.outcome import counts, kind, values_of
from tuner.space import Choice, FloatRange, Parameter, Space
from tuner.trial import Objective, Trial

EDGE = 0.05
"""A best within so much of the range, on its scale, from an end of it is at the edge."""

MIN_TRIALS = 6
"""With fewer trials nothing is said about what sets them apart."""

CLEAR = 0.4
"""A rank correlation below this says little, however many trials there are."""

ELSEWHERE = 0.15
"""So far from the best's place in the range a value is another one."""

BEST_PART = 0.25
"""The share of the trials that counts as the best ones."""

Side = Literal["low", "high"]


@dataclass(frozen=True)
class Trend:
    """How the objective goes with one hyperparameter, over the trials that did not diverge.

    Attributes:
        path: the hyperparameter.
        correlation: Spearman's, of its place in the range with how good the trial was: above 0, more is better.
        trials: in how many it was seen.
    """

    path: str
    correlation: float
    trials: int

    @property
    def threshold(self) -> float:
        """What the correlation must exceed to be said: two standard errors of one by chance, and `CLEAR`."""
        return max(CLEAR, 2.0 / math.sqrt(self.trials - 1))

    @property
    def better(self) -> Side | None:
        """Where it is better, if that is beyond chance."""
        if abs(self.correlation) <= self.threshold:
            return None
        return "high" if self.correlation > 0 else "low"


def trends(space: Space, objective: Objective, trials: Sequence[Trial]) -> dict[str, Trend]:
    """The trend along every parameter that has an order and was seen at three values at least."""
    counted = [t for t in trials if counts(t) and kind(t) != "infeasible"]
    values = values_of(counted, objective)
    found: dict[str, Trend] = {}
    for path, parameter in space.parameters.items():
        seen = [(place(parameter, (t.params or {}).get(path)), v) for t, v in zip(counted, values, strict=True)]
        pairs = [(at, value) for at, value in seen if at is not None]
        if len(pairs) < MIN_TRIALS or len({at for at, _ in pairs}) < 3:
            continue
        correlation = rank_correlation([at for at, _ in pairs], [-value for _, value in pairs])
        if correlation is not None:
            found[path] = Trend(path, correlation, len(pairs))
    return found


def place(parameter: Parameter, value: Any) -> float | None:
    """Where a value lies in the range, from 0 to 1 along its scale; None for words, or outside."""
    values = parameter.range
    if value is None or not values.contains(value):
        return None
    if isinstance(values, Choice):
        return values.values.index(value) / max(1, len(values.values) - 1) if values.ordered else None
    return values.to_unit(value)


def edge(parameter: Parameter, value: Any) -> Side | None:
    """At which end of its range a value lies, if at one."""
    at = place(parameter, value)
    values = parameter.range
    if at is None:
        return None
    if isinstance(values, FloatRange):
        return "low" if at <= EDGE else "high" if at >= 1 - EDGE else None
    if isinstance(values, Choice):
        return None if len(values.values) == 1 else "low" if at == 0 else "high" if at == 1 else None
    return "low" if value == values.low else "high" if value == values.high else None


def explored(path: str, parameter: Parameter, value: Any, trials: Sequence[Trial]) -> bool:
    """Whether a quarter of the trials had it elsewhere than the best: else they say nothing about it."""
    seen = [(t.params or {})[path] for t in trials if t.confirms is None and path in (t.params or {})]
    at = place(parameter, value)
    away = [v for v in seen if v != value]
    if at is not None:
        away = [v for v in away if (there := place(parameter, v)) is not None and abs(there - at) > ELSEWHERE]
    return bool(seen) and len(away) >= BEST_PART * len(seen)


def best_ones(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """The best quarter of the trials, best first; at least three, where there are as many."""
    counted = [t for t in trials if counts(t) and kind(t) != "infeasible"]
    ranked = sorted(
        zip(values_of(counted, objective), counted, strict=True), key=lambda pair: (pair[0], pair[1].number)
    )
    return [trial for _, trial in ranked[: max(3, math.ceil(BEST_PART * len(ranked)))]]
