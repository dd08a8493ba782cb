"""The course of a study: what it had spent when each trial ended, and the best by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.trial import Objective, Trial, TrialState


@dataclass(frozen=True)
class Moment:
    """The end of a trial.

    Attributes:
        trial: which.
        seconds: of training, spent on all trials by then, repeated and interrupted attempts included.
        epochs: trained by then.
        best: the best value of the search's complete proposals by then, or None before the first.
        improved: whether this trial is that best.
    """

    trial: Trial
    seconds: float
    epochs: int
    best: float | None
    improved: bool


def course(trials: Sequence[Trial], objective: Objective) -> list[Moment]:
    """The moments at which trials ended, in their order."""
    seconds, epochs, best = 0.0, 0, None
    moments = []
    for trial in sorted((t for t in trials if t.result is not None), key=lambda t: (t.finished or 0.0, t.number)):
        seconds += spent(trial)
        epochs += trial.outcome.epochs
        counts = trial.confirms is None and trial.state is TrialState.COMPLETE
        improved = counts and (best is None or objective.better(trial.score, best))
        best = trial.score if improved else best
        moments.append(Moment(trial, seconds, epochs, best, improved))
    return moments


def best_at(moments: Sequence[Moment], seconds: float) -> float | None:
    """The best value when so many seconds had been spent, or None."""
    return next((m.best for m in reversed(moments) if m.seconds <= seconds * (1 + 1e-9)), None)


def spent(trial: Trial) -> float:
    """Seconds of training that a trial took, its lost attempts included."""
    if trial.train_seconds:
        return trial.train_seconds + trial.wasted_seconds
    return max(0.0, (trial.finished or 0.0) - (trial.started or 0.0)) + trial.wasted_seconds
