"""How a study stands while it runs, over all its workers, from the storage alone: for whoever watches it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.spec import StudySpec
from tuner.storage import RUNNING, Store, StudyRow, Summary
from tuner.trial import Objective, Trial, TrialState

RECENT_SECONDS = 600.0
"""Trials that ended within this time tell the pace of a study that one has only begun to watch."""

FAILURES = 3

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


@dataclass(frozen=True)
class Standing:
    """One look at a study.

    Attributes:
        best: the best complete proposal, before any is confirmed.
        history: the best value after each complete proposal, in the order they ended.
        confirming: runs with new seeds that are still to end.
        searching: what proposes configurations, and which priorities it moves now.
        epochs_per_second: over all workers.
        seconds_left: until the first budget is spent, or None.
        workers: how many workers are training, by machine.
        failures: the last failed trials, with their reasons.
    """

    row: StudyRow
    summary: Summary
    best: Trial | None
    history: Sequence[float]
    confirming: int
    searching: str
    epochs_per_second: float
    seconds_left: float | None
    workers: Mapping[str, int]
    failures: Sequence[tuple[int, str]]

    @property
    def running(self) -> bool:
        """Whether somebody works on it now."""
        return self.row.state == RUNNING

    @property
    def done(self) -> int:
        """How many proposals of the search have ended."""
        return sum(self.summary.count(state) for state in _DONE)

    def to_json(self) -> dict[str, Any]:
        """What `tuner show --json` says beside the result."""
        return {
            "searching": self.searching,
            "history": list(self.history),
            "confirming": self.confirming,
            "epochs_per_second": round(self.epochs_per_second, 3),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left, 1),
            "workers": dict(self.workers),
            "failures": [{"trial": number, "reason": reason} for number, reason in self.failures],
        }


class Follower:
    """Looks at a study again and again; each look reads what has changed since the last.

    Args:
        store: where it is.
        name: the study's.

    Raises:
        StudyNotFound: there is no such study.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._feed = store.feed(store.study(name).id)
        self._trials: dict[int, Trial] = {}
        self._best: Trial | None = None
        self._epochs: deque[tuple[float, int]] = deque(maxlen=60)
        self._began = time.monotonic()
        self._spec: StudySpec | None = None

    def look(self) -> Standing:
        """How the study stands now."""
        row = self._store.study(self._name)
        self._trials |= {trial.number: trial for trial in self._feed.changes()}
        summary = self._store.summary(row.id)
        self._epochs.append((time.monotonic(), summary.epochs))
        best, history = so_far(list(self._trials.values()), row.objective)
        running = row.state == RUNNING
        failed = [t for t in self._trials.values() if t.state is TrialState.FAILED]
        failed.sort(key=lambda trial: trial.finished or 0.0)
        return Standing(
            row=row,
            summary=summary,
            best=self._whole(best, row.id),
            history=history,
            confirming=sum(t.confirms is not None and not t.state.finished for t in self._trials.values()),
            searching=self._searching(row, summary),
            epochs_per_second=self._speed() if running else 0.0,
            seconds_left=self._seconds_left(row, summary) if running else None,
            workers=Counter(owner.partition("|")[0].partition("/")[0] for owner in self._store.owners(row.id)),
            failures=[(trial.number, trial.outcome.reason or "") for trial in failed[-FAILURES:]],
        )

    def _whole(self, best: Trial | None, study_id: int) -> Trial | None:
        """The best with its metrics, which the feed leaves out; read once."""
        if best is None or (self._best is not None and self._best.number == best.number):
            return self._best if best is not None else None
        known = {number: trial.revision for number, trial in self._trials.items() if number != best.number}
        found = [trial for trial in self._store.trials(study_id, known) if trial.number == best.number]
        self._best = found[0] if found else best
        return self._best

    def _searching(self, row: StudyRow, summary: Summary) -> str:
        from tuner.service.entry import spec_of
        from tuner.service.result import searching

        if self._spec is None:
            self._spec = spec_of(row)  # it does not change while it runs
        return searching(self._spec, sum(summary.count(state) for state in _DONE))

    def _speed(self) -> float:
        """Epochs a second over the last half minute; at the first look, of the trials that ended recently."""
        (earlier, before), (later, after) = self._epochs[0], self._epochs[-1]
        if later - earlier >= 1.0:
            return max(0.0, (after - before) / (later - earlier))
        recent, span = self._recent()
        return sum(trial.outcome.epochs for trial in recent) / span if recent else 0.0

    def _recent(self) -> tuple[list[Trial], float]:
        """Proposals that ended recently, and in how many seconds that many end."""
        now = time.time()
        ended = [t for t in self._trials.values() if t.state.finished and t.confirms is None]
        recent = [t for t in ended if (t.finished or 0.0) >= now - RECENT_SECONDS]
        return recent, max(1.0, now - min((t.started or now for t in recent), default=now))

    def _seconds_left(self, row: StudyRow, summary: Summary) -> float | None:
        """How long the search will still take: by its trials, its epochs or its time, whichever ends first."""
        search = row.document["search"]
        recent, span = self._recent()
        left = []
        if search["trials"] is not None and recent:
            ended = sum(t.state.finished and t.confirms is None for t in self._trials.values())
            left.append((search["trials"] - ended) * span / len(recent))
        if search["epochs"] is not None and (speed := self._speed()):
            left.append((search["epochs"] - summary.epochs) / speed)
        if search["time"] is not None:
            left.append(search["time"] - row.active_seconds - (time.monotonic() - self._began))
        return max(0.0, min(left)) if left else None


def so_far(trials: Sequence[Trial], objective: Objective) -> tuple[Trial | None, list[float]]:
    """The best complete proposal, and the best value after each of them in the order they ended."""
    best, history = None, []
    done = [t for t in trials if t.confirms is None and t.state is TrialState.COMPLETE]
    for trial in sorted(done, key=lambda t: t.finished or 0.0):
        if best is None or objective.better(trial.score, best.score):
            best = trial
        history.append(best.score)
    return best, history
