"""What the storage hands out, and the reads that several of its writes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tuner.storage.tables import ReportTable, TrialTable
from tuner.trial import Objective, Trial, TrialResult, TrialState

RUNNING, STOPPED, COMPLETE, FAILED, PAUSED = "running", "stopped", "complete", "failed", "paused"
INTERRUPTED, QUEUED = "interrupted", "queued"  # running, as it looks while nobody works on it


@dataclass(frozen=True)
class StudyRow:
    """A study as it stands in the storage.

    Attributes:
        document: the study file, complete; reads back to its StudySpec.
        state: running, paused, stopped, complete or failed; when it is running and nobody works on it, queued if it
            was submitted to the workers, else interrupted.
        reason: why it failed, in words.
        active_seconds: wall-clock seconds that it has been worked on.
        facts: what is known about where it ran (versions, git commit, hash of the data).
        tracked: where MLflow keeps it, and what has been sent of it.
        priority: the higher, the earlier workers serve it.
        submitted: when it was submitted to the workers; None if it was not, or has left the queue.
    """

    id: int
    name: str
    document: dict[str, Any]
    state: str
    reason: str | None
    seed: int
    created_at: float
    active_seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
    tracked: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    submitted: float | None = None

    @property
    def objective(self) -> Objective:
        """What the study optimises."""
        stated = self.document["objective"]
        return Objective(stated["metric"], stated["direction"])


@dataclass(frozen=True)
class WorkerRow:
    """A worker of the service.

    Attributes:
        owner: its process, as leases name it.
        machine: the host.
        device: what it trains on: `cpu`, or `cuda:0` with the card's name.
        threads: torch threads it is pinned to.
        folder: where it was started, so where it finds the users' modules.
        since: when it started, in seconds since 1970 on the database's clock, like `last_seen`.
        silent: seconds since it was last seen.
        study: the name of the study it works on now.
        trouble: why it takes no work any more, in words.
        refused: why it does not work on a study, by the study's name.
        left: whether it has ended.
    """

    owner: str
    machine: str
    device: str
    threads: int
    folder: str
    since: float
    last_seen: float
    silent: float
    study: str | None
    trouble: str | None
    refused: Mapping[str, str]
    left: bool


@dataclass(frozen=True)
class Lease:
    """The right to write about one trial."""

    trial: Trial
    study_id: int
    trial_id: int
    token: int


@dataclass(frozen=True)
class Heard:
    """The answer to reports of several trials.

    Attributes:
        running: whether the study still runs.
        lost: the ids of trials that belong to other workers now, whose reports were not written.
    """

    running: bool
    lost: frozenset[int]


@dataclass(frozen=True)
class Unfinished:
    """How many trials of a study wait for a worker, and how many run."""

    waiting: int
    running: int


@dataclass(frozen=True)
class Untracked:
    """A trial of which MLflow has not seen everything: the trial, all its reports with their times, its run if any."""

    trial: Trial
    reports: list[tuple[int, float, dict[str, Any]]]
    run_id: str | None


@dataclass(frozen=True)
class Summary:
    """A study's counts and costs. Proposals of the search are counted by state; confirming runs apart."""

    states: Mapping[str, int]
    confirming: int
    epochs: int
    seconds: float
    wasted_seconds: float

    def count(self, state: TrialState) -> int:
        """How many proposals are in a state."""
        return self.states.get(state.value, 0)


def unfinished(session: Session, study_id: int) -> Unfinished:
    """Count the trials of a study that are not finished."""
    counts = dict(
        session.execute(
            sa.select(TrialTable.state, sa.func.count())
            .where(
                TrialTable.study_id == study_id,
                TrialTable.state.in_([TrialState.WAITING, TrialState.RUNNING]),
            )
            .group_by(TrialTable.state)
        ).all()
    )
    return Unfinished(counts.get(TrialState.WAITING, 0), counts.get(TrialState.RUNNING, 0))


def read_trials(session: Session, study_id: int, known: Mapping[int, int]) -> list[Trial]:
    """Read the trials that changed since the revisions in `known`, with the objective by epoch."""
    revisions = session.execute(
        sa.select(TrialTable.id, TrialTable.number, TrialTable.revision).where(TrialTable.study_id == study_id)
    ).all()
    changed = [row.id for row in revisions if known.get(row.number) != row.revision]
    if not changed:
        return []
    some = TrialTable.id.in_(changed) if len(changed) < 500 else TrialTable.study_id == study_id
    wanted = set(changed)
    rows = session.scalars(sa.select(TrialTable).where(some).order_by(TrialTable.number)).all()
    values: dict[int, dict[int, float]] = {}
    for trial_id, epoch, value in session.execute(
        sa.select(ReportTable.trial_id, ReportTable.epoch, ReportTable.value)
        .join(TrialTable, TrialTable.id == ReportTable.trial_id)
        .where(some)
        .order_by(ReportTable.trial_id, ReportTable.epoch)
    ):
        values.setdefault(trial_id, {})[epoch] = value
    return [to_trial(row, values.get(row.id, {})) for row in rows if row.id in wanted]


def epochs_spent(session: Session, study_id: int) -> int:
    """Epochs that proposals of the search have trained, given back ones included."""
    return session.execute(
        sa.select(sa.func.coalesce(sa.func.sum(TrialTable.epochs + TrialTable.wasted_epochs), 0)).where(
            TrialTable.study_id == study_id, TrialTable.confirms.is_(None)
        )
    ).scalar_one()


def running_proposals(session: Session, study_id: int) -> int:
    """How many proposals of the search are being trained."""
    return session.execute(
        sa.select(sa.func.count()).where(
            TrialTable.study_id == study_id,
            TrialTable.confirms.is_(None),
            TrialTable.state == TrialState.RUNNING,
        )
    ).scalar_one()


def next_number(session: Session, study_id: int) -> int:
    """The number of the next trial."""
    highest = session.scalar(sa.select(sa.func.max(TrialTable.number)).where(TrialTable.study_id == study_id))
    return 0 if highest is None else highest + 1


def to_outline(row: Any, values: Mapping[int, float]) -> Trial:
    """The noun for a row, with its objective by epoch, but without what only people read."""
    state = TrialState(row.state)
    result = None
    if state.finished:
        result = TrialResult(
            state=state,
            value=row.value,
            best_epoch=row.best_epoch,
            epochs=row.epochs,
            reason=row.reason,
            infeasible=row.infeasible,
        )
    return Trial(
        number=row.number,
        params=row.params,
        seed=row.seed,
        state=state,
        confirms=row.confirms,
        attempt=row.attempt,
        values=dict(values),
        result=result,
        revision=row.revision,
        token=row.token,
        started=row.started_at,
        finished=row.finished_at,
    )


def to_trial(row: TrialTable, values: Mapping[int, float]) -> Trial:
    """The noun for a row, with its objective by epoch."""
    outline = to_outline(row, values)
    result = outline.result
    if result is not None:
        result = replace(
            result,
            metrics={name: v for name, v in (row.metrics or {}).items() if v is not None},
            config=row.config,
            trained=row.trained,
            seconds=row.seconds or {},
            detail=row.detail,
        )
    return replace(outline, result=result, wasted_seconds=row.wasted_seconds, began_after=row.began_after)
