"""With and without: one choice, several seeds, and whether the seeds can tell its values apart (documented.md §10)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.insight.finding import Curves
from tuner.trial import Objective, Trial, TrialState

CONFIDENCE = 0.95
TEST = "paired t test over the seeds, two-sided, corrected by Holm"


@dataclass(frozen=True)
class Level:
    """One value of the choice.

    Attributes:
        value: of the hyperparameter.
        seeds: (seed, objective) of the runs that came to an end, in the order of the seeds.
        lost: runs that diverged or failed.
        trials: the numbers of the trials, for their curves.
    """

    value: Any
    seeds: tuple[tuple[int, float], ...]
    lost: int
    trials: tuple[int, ...]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None without any."""
        return statistics.fmean(v for _, v in self.seeds) if self.seeds else None

    @property
    def deviation(self) -> float | None:
        """Over the seeds; None with fewer than two."""
        return statistics.stdev(v for _, v in self.seeds) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Pair:
    """Two values compared, seed by seed.

    Attributes:
        better: the value with the better mean.
        worse: the other.
        difference: how much better, mean over the seeds that both have; at least 0.
        low: lower end of its 95 % confidence interval, without a correction.
        high: upper end.
        seeds: how many both have.
        p: of the paired t test; None with fewer than two seeds.
        corrected: the same by Holm, over all pairs.
    """

    better: Any
    worse: Any
    difference: float
    low: float | None
    high: float | None
    seeds: int
    p: float | None
    corrected: float | None = None

    @property
    def apart(self) -> bool:
        """Whether the seeds tell the two apart, at 5 %."""
        return self.corrected is not None and self.corrected < 1 - CONFIDENCE


@dataclass(frozen=True)
class Ablation:
    """What with-and-without taught.

    Attributes:
        study: its name in the storage.
        over: the path of the choice.
        objective: what was measured.
        levels: the values, the best mean first, those without a run that ended last.
        pairs: every two of them that have seeds in common.
    """

    study: str
    over: str
    objective: Objective
    levels: tuple[Level, ...]
    pairs: tuple[Pair, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """In plain sentences, the answer first."""
        best = self.levels[0]
        if best.mean is None:
            return (f"No run of {self.study} came to an end, so nothing can be compared.",)
        name, metric = self.over.partition(".")[2], self.objective.metric
        beaten = [p for p in self.pairs if p.better == best.value and p.apart]
        told = {True: "is the best", False: "has the best mean, but is not told apart from every other"}
        answer = f"{name} = {best.value} {told[len(beaten) == len(self.levels) - 1]}: {metric} {_spread(best)}."
        return (answer, *map(self._compared, self._against_the_best()), *self._lost(), *self._others())

    def _against_the_best(self) -> list[Pair]:
        best = self.levels[0].value
        return [p for p in self.pairs if _same(p.better, best) or _same(p.worse, best)]

    def _compared(self, pair: Pair) -> str:
        level = next(level for level in self.levels if _same(level.value, pair.worse))
        said = f"{pair.worse} has {_spread(level)}, worse by {pair.difference:.3g}"
        if pair.low is not None and pair.high is not None:
            said += f" (95 % interval {pair.low:.2g} to {pair.high:.2g})"
        if pair.corrected is None:
            return f"{said}; one seed says nothing about chance."
        verdict = "told apart" if pair.apart else "not told apart"
        return f"{said}: {verdict} by {pair.seeds} seeds, p = {pair.corrected:.2g} ({TEST})."

    def _lost(self) -> list[str]:
        return [
            f"{level.value}: {level.lost} of {level.lost + len(level.seeds)} runs diverged or failed and are left out."
            for level in self.levels
            if level.lost
        ]

    def _others(self) -> list[str]:
        shown = self._against_the_best()
        return [
            f"{p.better} and {p.worse} are told apart, too: {p.difference:.3g}, p = {p.corrected:.2g}."
            for p in self.pairs
            if p not in shown and p.apart
        ]

    def to_json(self) -> dict[str, Any]:
        """As `tuner ablate --json` prints it."""
        return {
            "study": self.study,
            "over": self.over,
            "objective": {"metric": self.objective.metric, "direction": self.objective.direction},
            "test": TEST,
            "levels": [
                {
                    "value": level.value,
                    "mean": level.mean,
                    "deviation": level.deviation,
                    "seeds": [{"seed": seed, "value": value} for seed, value in level.seeds],
                    "lost": level.lost,
                    "trials": list(level.trials),
                }
                for level in self.levels
            ],
            "pairs": [{**vars(p), "apart": p.apart} for p in self.pairs],
            "lines": list(self.lines),
        }


def compare(study: str, over: str, values: Sequence[Any], objective: Objective, trials: Sequence[Trial]) -> Ablation:
    """Compare the values of a choice by the runs of a study.

    Args:
        study: its name.
        over: the path of the choice.
        values: its values.
        objective: which way is better.
        trials: the runs, the same seeds for every value.
    """
    levels = [_level(value, over, trials) for value in values]
    levels.sort(key=lambda level: math.inf if level.mean is None else objective.key(level.mean))
    pairs = [pair for a, b in itertools.combinations(levels, 2) if (pair := _pair(a, b, objective)) is not None]
    return Ablation(study, over, objective, tuple(levels), tuple(_corrected(pairs)))


def curves_of(ablation: Ablation, curves: Curves, metric: str) -> dict[str, list[tuple[int, float, float]]]:
    """A metric's learning curve of each value, by its words: (epoch, mean, deviation) over the seeds."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for level in ablation.levels:
        by_epoch: dict[int, list[float]] = {}
        for number in level.trials:
            for report in curves.get(number, ()):
                value = report.value if metric == ablation.objective.metric else report.metrics.get(metric)
                if value is not None and math.isfinite(value):
                    by_epoch.setdefault(report.epoch, []).append(value)
        found[str(level.value)] = [
            (epoch, statistics.fmean(vs), statistics.stdev(vs) if len(vs) > 1 else 0.0)
            for epoch, vs in sorted(by_epoch.items())
        ]
    return found


def _level(value: Any, over: str, trials: Sequence[Trial]) -> Level:
    runs = sorted((t for t in trials if _same((t.params or {}).get(over), value)), key=lambda t: t.number)
    done = [t for t in runs if t.state is TrialState.COMPLETE and t.value is not None]
    lost = [t for t in runs if t.state.finished and t not in done]
    return Level(value, tuple((t.seed, t.score) for t in done), len(lost), tuple(t.number for t in done))


def _pair(one: Level, other: Level, objective: Objective) -> Pair | None:
    """The comparison of two values, if they have a seed in common."""
    by_seed, others = dict(one.seeds), dict(other.seeds)
    common = [seed for seed in by_seed if seed in others]
    if not common:
        return None
    differences = [objective.key(others[seed]) - objective.key(by_seed[seed]) for seed in common]
    mean = statistics.fmean(differences)
    better, worse = (one.value, other.value) if mean >= 0 else (other.value, one.value)
    differences = differences if mean >= 0 else [-d for d in differences]
    low, high, p = _t_test(differences)
    return Pair(better, worse, abs(mean), low, high, len(common), p)


def _t_test(differences: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The 95 % confidence interval of their mean, and the p of its being 0."""
    count = len(differences)
    if count < 2:
        return None, None, None
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(count)
    if error == 0:  # every seed says the same: equal values are not apart, others are for sure
        return mean, mean, 1.0 if mean == 0 else 0.0
    from scipy.stats import t as student  # half a second of imports that only a comparison is worth

    width = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return mean - width, mean + width, float(2 * student.sf(abs(mean) / error, count - 1))


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with their p corrected by Holm's method: the chance that any of them is wrong stays at 5 %."""
    tested = sorted((p for p in pairs if p.p is not None), key=lambda p: p.p or 0.0)
    corrected: dict[int, float] = {}
    highest = 0.0
    for rank, pair in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * (pair.p or 0.0)))
        corrected[id(pair)] = highest
    return [Pair(**{**vars(p), "corrected": corrected.get(id(p))}) for p in pairs]


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a choice are the same: 1 is not True."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _spread(level: Level) -> str:
    spread = f" ± {level.deviation:.2g}" if level.deviation is not None else ""
    return f"{level.mean:.4g}{spread} over {len(level.seeds)} seed{'s' * (len(level.seeds) != 1)}"
