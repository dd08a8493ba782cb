"""Which trial is the best, and which must be run again before one may say so.

A winner of one seed is partly luck. The leading configurations are run again with new seeds, one seed at a time, and
after each the last of them drops out (successive rejects), so that clear losers cost one seed.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuner.trial import Objective, Trial, TrialState, trial_seed

CONTENDERS = 3


_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Student's t at 97.5 % for 1 to 10 degrees of freedom; 2.0 beyond."""


@dataclass(frozen=True)
class Chosen:
    """The best trial and the runs that confirm it.

    Attributes:
        trial: the proposal of the search; its value belongs to its own seed.
        seeds: the confirming runs of the same configuration: (seed, value), in the order they were run.
        second: the next best configuration, or None if there is no other.
        second_seeds: its confirming runs.
    """

    trial: Trial
    seeds: tuple[tuple[int, float], ...] = ()
    second: Trial | None = None
    second_seeds: tuple[tuple[int, float], ...] = ()

    @property
    def mean(self) -> float | None:
        """Mean over the confirming seeds, or None without any."""
        return statistics.fmean(value for _, value in self.seeds) if self.seeds else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the confirming seeds, or None with fewer than two."""
        return statistics.stdev(value for _, value in self.seeds) if len(self.seeds) > 1 else None

    @property
    def told_apart(self) -> bool | None:
        """Whether the confirming seeds tell the best from the second (two-sided t test, 5 %); None if they are too few.

        The variance is pooled over both, so it takes three runs at least.
        """
        own, other = [v for _, v in self.seeds], [v for _, v in self.second_seeds]
        freedom = len(own) + len(other) - 2
        if not own or not other or freedom < 1:
            return None
        squares = sum(sum((v - statistics.fmean(vs)) ** 2 for v in vs) for vs in (own, other))
        error = math.sqrt(squares / freedom * (1 / len(own) + 1 / len(other)))
        apart = abs(statistics.fmean(own) - statistics.fmean(other))
        return apart > (_T[freedom - 1] if freedom <= len(_T) else 2.0) * error

    @property
    def confirmed(self) -> str:
        """In words what the confirming seeds say; nothing without any."""
        if self.mean is None:
            return ""
        spread = f" ± {self.deviation:.2g}" if self.deviation is not None else ""
        return f"{self.mean:.4g}{spread} over {len(self.seeds)} new seed{'s' * (len(self.seeds) > 1)}"

    @property
    def in_words(self) -> str:
        """The value to expect, where it was found, and whether another is as good.

        With confirming seeds that is their mean: the trial's own value was picked for being low, so it is partly luck.
        """
        own = f"{self.trial.score:.6g} in trial {self.trial.number}"
        if self.mean is None:
            return own
        told = f"{self.confirmed} (trial {self.trial.number}; {self.trial.score:.6g} with its own seed)"
        if self.second is not None and self.told_apart is False:
            told += f"; cannot be told from #2, trial {self.second.number}"
        return told


def leading(trials: Iterable[Trial], objective: Objective, count: int = CONTENDERS) -> list[Trial]:
    """The best complete proposals of the search, best first."""
    complete = [t for t in trials if t.confirms is None and t.state is TrialState.COMPLETE and t.value is not None]
    return heapq.nsmallest(count, complete, key=lambda t: (objective.key(t.value or 0.0), t.number))


def confirmations(trials: Sequence[Trial], objective: Objective, seeds: int, study_seed: int) -> list[tuple[int, int]]:
    """The confirming runs still needed: (number of the trial to repeat, seed).

    Args:
        trials: all trials of the study, none of them unfinished.
        objective: which way is better.
        seeds: new seeds the winner gets.
        study_seed: the new seeds follow from it.
    """
    contenders = leading(trials, objective)
    for chosen_seed in _seeds(study_seed, seeds):
        runs = {t.confirms: t for t in trials if t.confirms is not None and t.seed == chosen_seed}
        missing = [(t.number, chosen_seed) for t in contenders if t.number not in runs]
        if missing:
            return missing
        contenders = _ranked(contenders, trials, objective)[: max(1, len(contenders) - 1)]
    return []


def choose(trials: Sequence[Trial], objective: Objective) -> Chosen | None:
    """The best so far: by mean over the confirming seeds among those that have most of them, else by its own value."""
    contenders = leading(trials, objective)
    if not contenders:
        return None
    runs = {t.number: _runs(t, trials) for t in contenders}
    by_mean = _ranked(contenders, trials, objective)
    # Those that have more runs have survived those that have fewer.
    order = sorted(by_mean, key=lambda t: -len(runs[t.number])) if any(runs.values()) else contenders
    values = [tuple((run.seed, run.score) for run in runs[trial.number]) for trial in order]
    if len(order) == 1 or any(t.confirms == order[1].number and not _cut_short(t) and t.value is None for t in trials):
        return Chosen(order[0], values[0])  # a second that diverged with a new seed is no second
    return Chosen(order[0], values[0], order[1], values[1])


def _seeds(study_seed: int, count: int) -> list[int]:
    return [trial_seed(study_seed, -1 - i) for i in range(count)]


def _runs(trial: Trial, trials: Iterable[Trial]) -> list[Trial]:
    return [t for t in trials if t.confirms == trial.number and t.state is TrialState.COMPLETE]


def _cut_short(run: Trial) -> bool:
    """Whether a confirming run was ended by a budget: it says nothing."""
    return run.state is TrialState.PRUNED and run.result is not None and not run.result.infeasible


def _ranked(contenders: Sequence[Trial], trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Contenders by the mean of their confirming runs, best first; a run that did not complete counts as the worst."""

    def score(trial: Trial) -> tuple[float, int]:
        repeats = [t for t in trials if t.confirms == trial.number and not _cut_short(t)]
        values = [
            objective.worst if t.value is None or t.state is not TrialState.COMPLETE else t.value for t in repeats
        ]
        mean = statistics.fmean(values) if values else objective.worst
        return objective.key(mean), trial.number

    return sorted(contenders, key=score)
