"""Everything that is written about studies and trials, each in one transaction.

Who owns a trial is decided here: a claim hands out a lease with a fencing token, and every later write carries it. A
worker that lost its lease (it was thought dead, its trial went to another) cannot write any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tuner.errors import LeaseLost, StudyNotFound, did_you_mean
from tuner.storage.database import Database, now
from tuner.storage.tables import ReportTable, StudyTable, TrialTable
from tuner.trial import Report, Trial, TrialResult, TrialState, trial_seed

LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3

RUNNING, STOPPED, COMPLETE, FAILED = "running", "stopped", "complete", "failed"


@dataclass(frozen=True)
class StudyRow:
    """A study as it stands in the storage.

    Attributes:
        document: the study file, complete; reads back to its StudySpec.
        state: running, stopped, complete or failed; interrupted when it is running and nobody runs it.
        reason: why it failed, in words.
        active_seconds: wall-clock seconds that it has been worked on.
        facts: what is known about where it ran (versions, git commit, hash of the data).
        tracked: where MLflow keeps it, and what has been sent of it.
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


@dataclass(frozen=True)
class Lease:
    """The right to write about one trial."""

    trial: Trial
    study_id: int
    trial_id: int
    token: int


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


class Store:
    """Reads and writes of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # Studies

    def studies(self) -> list[StudyRow]:
        """Every study, oldest first."""
        with self.database.read() as session:
            return [self._row(session, study) for study in session.scalars(sa.select(StudyTable).order_by("id"))]

    def find(self, name: str) -> StudyRow | None:
        """The study of this name, or None."""
        with self.database.read() as session:
            study = session.scalar(sa.select(StudyTable).where(StudyTable.name == name))
            return self._row(session, study) if study else None

    def study(self, name: str) -> StudyRow:
        """The study of this name.

        Raises:
            StudyNotFound: there is none; the error suggests the closest.
        """
        found = self.find(name)
        if found is None:
            names = [study.name for study in self.studies()]
            listed = f" There are: {', '.join(names)}." if names else " There is none yet: `tuner run` makes one."
            raise StudyNotFound(f"no study {name!r} in this storage.{did_you_mean(name, names) or listed}")
        return found

    def create(self, name: str, document: dict[str, Any], seed: int) -> StudyRow:
        """Create the study, or return the one that somebody else has just created."""
        try:
            with self.database.write() as session:
                created = session.execute(sa.select(now())).scalar_one()
                session.add(
                    StudyTable(
                        name=name, document=document, state=RUNNING, seed=seed, created_at=created, facts={}, tracked={}
                    )
                )
        except sa.exc.IntegrityError:
            pass  # two runs of a new study began at once, and the other was first: continue its study
        return self.study(name)

    def go_on(self, study_id: int, document: dict[str, Any]) -> None:
        """Set a study running, with this document (its budgets may have changed)."""
        self._update_study(study_id, document=document, state=RUNNING, reason=None)

    def set_state(self, study_id: int, state: str, reason: str | None = None) -> None:
        """Say where the study stands."""
        self._update_study(study_id, state=state, reason=reason)

    def complete(self, study_id: int) -> None:
        """Call a running study complete, if nothing of it is waiting or running any more."""
        with self.database.write() as session:
            session.get_one(StudyTable, study_id, with_for_update=True)
            if self._unfinished(session, study_id) == Unfinished(0, 0):
                session.execute(
                    sa.update(StudyTable)
                    .where(StudyTable.id == study_id, StudyTable.state == RUNNING)
                    .values(state=COMPLETE)
                )

    def add_facts(self, study_id: int, facts: Mapping[str, Any]) -> None:
        """Remember more about where the study ran."""
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            study.facts = {**study.facts, **facts}

    def spend(self, study_id: int, seconds: float) -> None:
        """Add to the time that the study has been worked on."""
        self._update_study(study_id, active_seconds=StudyTable.active_seconds + seconds)

    def add_ledger(self, study_id: int, entries: Mapping[str, float]) -> None:
        """Add seconds to the study's ledger of what its running cost beside the trials, by name."""
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            ledger = dict(study.facts.get("ledger", {}))
            for name, seconds in entries.items():
                ledger[name] = ledger.get(name, 0.0) + seconds
            study.facts = {**study.facts, "ledger": ledger}

    # Trials, for those who work on them

    def claim(self, study_id: int, owner: str, open_new: bool = True) -> Lease | None:
        """Take a waiting trial, or open a new one if the budget allows; None when there is neither.

        Args:
            study_id: the study.
            owner: who takes it.
            open_new: whether a new trial may be opened at all.
        """
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            if study.state != RUNNING:
                return None
            trial = session.scalar(
                sa.select(TrialTable)
                .where(TrialTable.study_id == study_id, TrialTable.state == TrialState.WAITING)
                .order_by(TrialTable.number)
                .limit(1)
            )
            if trial is None:
                if not (open_new and self._budget_left(session, study)):
                    return None
                number = self._next_number(session, study_id)
                trial = self._new_trial(study, number, trial_seed(study.seed, number))
                session.add(trial)
            moment = session.execute(sa.select(now())).scalar_one()
            trial.state, trial.owner = TrialState.RUNNING, owner
            trial.token += 1
            trial.attempt += 1
            trial.revision += 1
            trial.started_at, trial.lease_until = moment, moment + LEASE_SECONDS
            session.flush()
            return Lease(_trial(trial, {}), study_id, trial.id, trial.token)

    def propose(self, lease: Lease, params: Mapping[str, Any]) -> None:
        """Write the values that the search proposes for a trial."""
        with self.database.write() as session:
            self._fenced(session, lease, params=dict(params))

    def report(self, lease: Lease, report: Report) -> bool:
        """Write what a trial says after an epoch; the answer says whether the study still runs.

        The one write that happens at every epoch, so it is three bare statements.
        """
        with self.database.connection() as connection:
            changed = connection.execute(
                _REPORTED, {"trial": lease.trial_id, "held": lease.token, "done": report.epoch}
            ).rowcount
            if changed != 1:
                raise _lost(lease)
            metrics = _json_numbers(report.metrics)
            connection.execute(
                _NEW_REPORT,
                {"trial_id": lease.trial_id, "epoch": report.epoch, "value": report.value, "metrics": metrics},
            )
            return bool(connection.execute(_STATE, {"study": lease.study_id}).scalar() == RUNNING)

    def epochs_left(self, study_id: int) -> int | None:
        """How many epochs a running proposal may still train, or None when they are not limited.

        Every other running proposal is in the midst of an epoch, which counts.
        """
        with self.database.read() as session:
            study = session.get_one(StudyTable, study_id)
            budget: int | None = study.document["search"]["epochs"]
            if budget is None:
                return None
            others = max(0, self._running_proposals(session, study_id) - 1)
            return budget - self._epochs(session, study_id) - others

    def finish(self, lease: Lease, result: TrialResult) -> None:
        """Write how a trial ended."""
        with self.database.write() as session:
            self._fenced(
                session,
                lease,
                state=result.state,
                value=result.value,
                metrics=_json_numbers(result.metrics),
                best_epoch=result.best_epoch,
                epochs=result.epochs,
                reason=result.reason,
                detail=result.detail,
                infeasible=result.infeasible,
                config=None if result.config is None else dict(result.config),
                seconds=dict(result.seconds),
                finished_at=now(),
                owner=None,
            )

    def give_back(self, lease: Lease) -> None:
        """Return a trial to the queue: it will be started again with the same values and the same seed."""
        with self.database.write() as session:
            trial = session.get_one(TrialTable, lease.trial_id, with_for_update=True)
            if trial.token == lease.token and trial.state == TrialState.RUNNING:
                self._requeue(session, trial, counts=False)

    def renew(self, leases: Iterable[Lease]) -> None:
        """Extend leases from a thread that beats while training is busy; a lost one is noticed at the next report."""
        with self.database.write() as session:
            for lease in leases:
                session.execute(
                    sa.update(TrialTable)
                    .where(TrialTable.id == lease.trial_id, TrialTable.token == lease.token)
                    .values(lease_until=now() + LEASE_SECONDS)
                )

    def reclaim(self, study_id: int, gone: Callable[[str], bool]) -> list[int]:
        """Return to the queue every running trial whose worker is gone or let its lease run out.

        A trial that lost three workers is FAILED: it may well be what kills them.

        Args:
            study_id: the study.
            gone: whether the owner of this name is known to be dead, however fresh its lease.

        Returns:
            The numbers of the trials found.
        """
        with self.database.write() as session:
            moment = session.execute(sa.select(now())).scalar_one()
            running = session.scalars(
                sa.select(TrialTable)
                .where(TrialTable.study_id == study_id, TrialTable.state == TrialState.RUNNING)
                .order_by(TrialTable.number)
                .with_for_update()
            ).all()
            lost = [t for t in running if t.lease_until < moment or gone(t.owner or "")]
            for trial in lost:
                self._requeue(session, trial, counts=True)
            return [trial.number for trial in lost]

    def plan(self, study_id: int, needed: Callable[[list[Trial]], list[tuple[int, int]]]) -> Unfinished | None:
        """Queue confirming runs, once no proposal is unfinished.

        Args:
            study_id: the study.
            needed: given every trial, says which (number, seed) must still be run.

        Returns:
            How many trials of the study wait or run now; None when the study is not to go on.
        """
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            if study.state != RUNNING:
                return None
            unfinished = self._unfinished(session, study_id)
            if unfinished.waiting or unfinished.running:
                return unfinished
            trials = self._trials(session, study_id, {})
            by_number = {trial.number: trial for trial in trials}
            wanted = needed(trials)
            number = self._next_number(session, study_id)
            for offset, (confirmed, seed) in enumerate(wanted):
                trial = self._new_trial(study, number + offset, seed)
                trial.confirms, trial.params = confirmed, dict(by_number[confirmed].params or {})
                session.add(trial)
            return Unfinished(waiting=len(wanted), running=0)

    # Trials, for those who look

    def trials(self, study_id: int, known: Mapping[int, int] | None = None) -> list[Trial]:
        """The trials of a study by number; with `known` (number → revision) only those that changed since."""
        with self.database.read() as session:
            return self._trials(session, study_id, known or {})

    def owners(self, study_id: int) -> list[str]:
        """Who works on the study's running trials."""
        with self.database.read() as session:
            owners = session.scalars(
                sa.select(TrialTable.owner).where(
                    TrialTable.study_id == study_id, TrialTable.state == TrialState.RUNNING
                )
            )
            return sorted({owner for owner in owners if owner})

    def summary(self, study_id: int) -> Summary:
        """Counts and costs."""
        columns = (
            TrialTable.state,
            TrialTable.confirms.is_not(None).label("confirms"),
            sa.func.count().label("trials"),
            sa.func.sum(TrialTable.epochs + TrialTable.wasted_epochs).label("epochs"),
            sa.func.sum(sa.func.coalesce(TrialTable.finished_at - TrialTable.started_at, 0.0)).label("spent"),
            sa.func.sum(TrialTable.wasted_seconds).label("wasted"),
        )
        with self.database.read() as session:
            rows: Sequence[Any] = session.execute(
                sa.select(*columns).where(TrialTable.study_id == study_id).group_by("state", "confirms")
            ).all()
        useless = (TrialState.PRUNED, TrialState.FAILED)
        return Summary(
            states={row.state: row.trials for row in rows if not row.confirms},
            confirming=sum(row.trials for row in rows if row.confirms),
            epochs=int(sum(row.epochs for row in rows)),
            seconds=float(sum(row.spent + row.wasted for row in rows)),
            wasted_seconds=float(sum(row.wasted + (row.spent if row.state in useless else 0.0) for row in rows)),
        )

    # The courier, who brings everything to MLflow

    def become_courier(self, study_id: int, owner: str, gone: Callable[[str], bool]) -> bool:
        """Become, or stay, the one who brings this study to MLflow; False while somebody else is."""
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            moment = session.execute(sa.select(now())).scalar_one()
            other = study.courier not in (None, owner)
            if other and study.courier_until > moment and not gone(study.courier or ""):
                return False
            study.courier, study.courier_until = owner, moment + LEASE_SECONDS
            return True

    def leave_courier(self, study_id: int, owner: str) -> None:
        """Stop being the courier."""
        with self.database.write() as session:
            session.execute(
                sa.update(StudyTable)
                .where(StudyTable.id == study_id, StudyTable.courier == owner)
                .values(courier=None, courier_until=0.0)
            )

    def untracked(self, study_id: int) -> list[Untracked]:
        """The trials of which MLflow has not seen everything."""
        with self.database.read() as session:
            rows = session.scalars(
                sa.select(TrialTable)
                .where(
                    TrialTable.study_id == study_id,
                    TrialTable.params.is_not(None),
                    TrialTable.token > 0,
                    TrialTable.revision != TrialTable.tracked_revision,
                )
                .order_by(TrialTable.number)
            ).all()
            found = []
            for row in rows:
                reports = session.execute(
                    sa.select(ReportTable.epoch, ReportTable.at, ReportTable.metrics, ReportTable.value)
                    .where(ReportTable.trial_id == row.id)
                    .order_by(ReportTable.epoch)
                ).all()
                trial = _trial(row, {report.epoch: report.value for report in reports})
                found.append(Untracked(trial, [(r.epoch, r.at, r.metrics) for r in reports], row.run_id))
            return found

    def mark_tracked(self, study_id: int, runs: Mapping[int, tuple[int, str | None]]) -> None:
        """Remember what MLflow has seen: by trial number, up to which revision and in which run."""
        with self.database.write() as session:
            for number, (revision, run_id) in runs.items():
                session.execute(
                    sa.update(TrialTable)
                    .where(TrialTable.study_id == study_id, TrialTable.number == number)
                    .values(tracked_revision=revision, run_id=run_id)
                )

    def count_untracked(self, study_id: int) -> int:
        """How many trials wait to be brought to MLflow."""
        with self.database.read() as session:
            return session.execute(
                sa.select(sa.func.count()).where(
                    TrialTable.study_id == study_id,
                    TrialTable.params.is_not(None),
                    TrialTable.token > 0,
                    TrialTable.revision != TrialTable.tracked_revision,
                )
            ).scalar_one()

    def set_tracked(self, study_id: int, tracked: Mapping[str, Any]) -> None:
        """Remember where MLflow keeps the study, and what has been sent of it."""
        self._update_study(study_id, tracked=dict(tracked))

    # Inside a transaction

    def _row(self, session: Session, study: StudyTable) -> StudyRow:
        state = study.state
        if state == RUNNING:
            moment = session.execute(sa.select(now())).scalar_one()
            leased = sa.select(sa.func.max(TrialTable.lease_until)).where(
                TrialTable.study_id == study.id, TrialTable.state == TrialState.RUNNING
            )
            if max(study.courier_until, session.scalar(leased) or 0.0) < moment:
                state = "interrupted"
        return StudyRow(
            id=study.id,
            name=study.name,
            document=study.document,
            state=state,
            reason=study.reason,
            seed=study.seed,
            created_at=study.created_at,
            active_seconds=study.active_seconds,
            facts=study.facts,
            tracked=study.tracked,
        )

    def _update_study(self, study_id: int, **values: Any) -> None:
        with self.database.write() as session:
            session.execute(sa.update(StudyTable).where(StudyTable.id == study_id).values(**values))

    def _fenced(self, session: Session, lease: Lease, **values: Any) -> None:
        changed = session.execute(
            sa.update(TrialTable)
            .where(
                TrialTable.id == lease.trial_id,
                TrialTable.token == lease.token,
                TrialTable.state == TrialState.RUNNING,
            )
            .values(revision=TrialTable.revision + 1, **values)
        )
        if changed.rowcount != 1:  # type: ignore[attr-defined]
            raise LeaseLost(
                f"trial {lease.trial.number} belongs to another worker now; this one's work on it is dropped"
            )

    @staticmethod
    def _requeue(session: Session, trial: TrialTable, *, counts: bool) -> None:
        moment = session.execute(sa.select(now())).scalar_one()
        trial.wasted_seconds += max(0.0, moment - (trial.started_at or moment))
        trial.wasted_epochs += trial.epochs
        trial.epochs, trial.owner = 0, None
        trial.token += 1
        trial.revision += 1
        if not counts:
            trial.attempt -= 1
        if counts and trial.attempt >= MAX_ATTEMPTS:
            trial.state, trial.finished_at = TrialState.FAILED, trial.started_at
            trial.reason = f"lost {trial.attempt} workers: they died or fell silent while training it"
        else:
            trial.state = TrialState.WAITING
        session.execute(sa.delete(ReportTable).where(ReportTable.trial_id == trial.id))

    @staticmethod
    def _new_trial(study: StudyTable, number: int, seed: int) -> TrialTable:
        return TrialTable(
            study_id=study.id,
            number=number,
            seed=seed,
            state=TrialState.WAITING,
            revision=0,
            token=0,
            attempt=0,
            epochs=0,
            infeasible=False,
            lease_until=0.0,
            wasted_seconds=0.0,
            wasted_epochs=0,
            tracked_revision=-1,
        )

    @staticmethod
    def _next_number(session: Session, study_id: int) -> int:
        highest = session.scalar(sa.select(sa.func.max(TrialTable.number)).where(TrialTable.study_id == study_id))
        return 0 if highest is None else highest + 1

    @staticmethod
    def _unfinished(session: Session, study_id: int) -> Unfinished:
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

    @staticmethod
    def _epochs(session: Session, study_id: int) -> int:
        return session.execute(
            sa.select(sa.func.coalesce(sa.func.sum(TrialTable.epochs + TrialTable.wasted_epochs), 0)).where(
                TrialTable.study_id == study_id, TrialTable.confirms.is_(None)
            )
        ).scalar_one()

    def _budget_left(self, session: Session, study: StudyTable) -> bool:
        search = study.document["search"]
        if search["trials"] is not None:
            opened = session.execute(
                sa.select(sa.func.count()).where(TrialTable.study_id == study.id, TrialTable.confirms.is_(None))
            ).scalar_one()
            if opened >= search["trials"]:
                return False
        if search["epochs"] is None:
            return True
        promised = self._epochs(session, study.id) + self._running_proposals(session, study.id)
        return bool(promised < search["epochs"])

    @staticmethod
    def _running_proposals(session: Session, study_id: int) -> int:
        return session.execute(
            sa.select(sa.func.count()).where(
                TrialTable.study_id == study_id,
                TrialTable.confirms.is_(None),
                TrialTable.state == TrialState.RUNNING,
            )
        ).scalar_one()

    @staticmethod
    def _trials(session: Session, study_id: int, known: Mapping[int, int]) -> list[Trial]:
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
        return [_trial(row, values.get(row.id, {})) for row in rows if row.id in wanted]


_REPORTED = (
    sa.update(TrialTable)
    .where(
        TrialTable.id == sa.bindparam("trial"),
        TrialTable.token == sa.bindparam("held"),
        TrialTable.state == TrialState.RUNNING,
    )
    .values(revision=TrialTable.revision + 1, epochs=sa.bindparam("done"), lease_until=now() + LEASE_SECONDS)
)
_NEW_REPORT = sa.insert(ReportTable).values(at=now())
_STATE = sa.select(StudyTable.state).where(StudyTable.id == sa.bindparam("study"))


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"trial {lease.trial.number} belongs to another worker now; this one's work on it is dropped")


def _trial(row: TrialTable, values: Mapping[int, float]) -> Trial:
    state = TrialState(row.state)
    result = None
    if state.finished:
        result = TrialResult(
            state=state,
            value=row.value,
            metrics={name: v for name, v in (row.metrics or {}).items() if v is not None},
            best_epoch=row.best_epoch,
            epochs=row.epochs,
            reason=row.reason,
            infeasible=row.infeasible,
            config=row.config,
            seconds=row.seconds or {},
            detail=row.detail,
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
        wasted_seconds=row.wasted_seconds,
    )


def _json_numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a secondary metric that is not finite is kept as null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
