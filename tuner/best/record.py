"""What is known of a best beside its configuration and its weights: the facts of a model card."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tuner.best.best import Best


@dataclass(frozen=True)
class Record:
    """The facts.

    Attributes:
        best: the configuration and its figures.
        confirming: every metric of each confirming run, in the order of `best.seeds`.
        test: `metrics` on the test split, and `at` which time it was scored; None if it was not.
        data: `class_path`, `hash`, `sizes` of the parts, `classes` and `preparation`, as far as the data module says.
        cost: of the study: `epochs`, `seconds`, `wasted_seconds`, and `trials` by state.
        space: what was searched: a parameter's `range`, `default` and `priority` by path.
        origin: `versions`, `git_commit`, `git_dirty`, `platform`, as they were when the study ran.
        notes: what a reader must know besides.
    """

    best: Best
    confirming: Sequence[Mapping[str, float]] = ()
    test: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def expected(self) -> float | None:
        """The value to expect: the mean over the confirming seeds, else the trial's own."""
        seeds = [value for _, value in self.best.seeds]
        return statistics.fmean(seeds) if seeds else self.best.value

    def spread(self, metric: str) -> tuple[float, float | None] | None:
        """Mean and deviation (None with fewer than two) of a metric over the confirming seeds; None without any."""
        values = [run[metric] for run in self.confirming if metric in run]
        if not values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """The facts as plain values, for programs."""
        best = self.best
        return {
            "study": best.study,
            "trial": best.trial,
            "value": best.value,
            "epoch": best.epoch,
            "objective": asdict(best.objective) if best.objective else None,
            "params": dict(best.params),
            "metrics": dict(best.metrics),
            "seeds": [{"seed": seed, "value": value} for seed, value in best.seeds],
            "confirming": [dict(run) for run in self.confirming],
            "test": dict(self.test) if self.test else None,
            "data": dict(self.data),
            "cost": dict(self.cost),
            "space": {path: dict(parameter) for path, parameter in self.space.items()},
            "origin": dict(self.origin),
            "notes": list(self.notes),
        }
