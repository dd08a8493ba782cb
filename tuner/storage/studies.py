"""Studies: created, found, moved from state to state; and their trials, for those who look."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tuner.errors import StudyNotFound, did_you_mean
from tuner.storage.database import Database, now
from tuner.storage.feed import Feed
from tuner.storage.rows import (
    COMPLETE,
    INTERRUPTED,
    PAUSED,
    QUEUED,
    RUNNING,
    StudyRow,
    Summary,
    Unfinished,
    read_trials,
    unfinished,
)
from tuner.storage.tables import ReportTable, StudyTable, TrialTable, WorkerTable
from tuner.trial import Report, Trial, TrialState


class Studies:
    """Reads and writes of studies."""

    def __init__(self, database: Database) -> None:
        self.database = database

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

    def create(
        self, name: str, document: dict[str, Any], seed: int, facts: Mapping[str, Any] | None = None
    ) -> StudyRow:
        """Create the study, or return the one that somebody else has just created."""
        try:
            with self.database.write() as session:
                created = session.execute(sa.select(now())).scalar_one()
                session.add(
                    StudyTable(
                        name=name,
                        document=document,
                        state=RUNNING,
                        seed=seed,
                        created_at=created,
                        facts=dict(facts or {}),
                        tracked={"uid": uuid.uuid4().hex},
                    )
                )
        except sa.exc.IntegrityError:
            pass  # two runs of a new study began at once, and the other was first: continue its study
        return self.study(name)

    def replace(
        self, study_id: int, document: dict[str, Any], seed: int, facts: Mapping[str, Any] | None = None
    ) -> bool:
        """Put another document in a study's place, if nothing of it has succeeded or runs; say whether it was."""
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            begun = session.scalar(
                sa.select(sa.func.count()).where(
                    TrialTable.study_id == study_id,
                    TrialTable.state.in_([TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED]),
                )
            )
            if begun:
                return False
            session.execute(sa.delete(TrialTable).where(TrialTable.study_id == study_id))
            study.document, study.seed, study.state, study.reason = document, seed, RUNNING, None
            study.submitted_at = None
            study.facts, study.tracked = dict(facts or {}), {"uid": uuid.uuid4().hex}
            return True

    def go_on(self, study_id: int, document: dict[str, Any]) -> None:
        """Set a study running, with this document (its budgets may have changed); one in the queue stays there."""
        kept = sa.case((StudyTable.state.in_([RUNNING, PAUSED]), StudyTable.submitted_at), else_=None)
        self._update_study(study_id, document=document, state=RUNNING, reason=None, submitted_at=kept)

    def set_state(self, study_id: int, state: str, reason: str | None = None) -> None:
        """Say where the study stands."""
        self._update_study(study_id, state=state, reason=reason)

    def complete(self, study_id: int, reason: str | None = None, believed: Mapping[str, Any] | None = None) -> None:
        """Call a running study complete, if nothing of it is waiting or running any more.

        Args:
            study_id: the study.
            reason: why it ends before its budget is spent.
            believed: the document by which it is done: another one, with a larger budget, may be there by now.
        """
        with self.database.write() as session:
            study = session.get(StudyTable, study_id, with_for_update=True)
            if study is None or (believed is not None and study.document != believed):
                return
            if unfinished(session, study_id) == Unfinished(0, 0):
                session.execute(
                    sa.update(StudyTable)
                    .where(StudyTable.id == study_id, StudyTable.state == RUNNING)
                    .values(state=COMPLETE, reason=reason)
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

    def trials(self, study_id: int, known: Mapping[int, int] | None = None) -> list[Trial]:
        """The trials of a study by number; with `known` (number → revision) only those that changed since."""
        with self.database.read() as session:
            return read_trials(session, study_id, known or {})

    def curves(self, study_id: int, numbers: Collection[int] | None = None) -> dict[int, list[Report]]:
        """What trials said after each epoch, with every metric that was logged, by the number of the trial.

        Args:
            study_id: the study.
            numbers: only these trials; by default all.
        """
        wanted = sa.true() if numbers is None else TrialTable.number.in_(numbers)
        with self.database.read() as session:
            rows = session.execute(
                sa.select(TrialTable.number, ReportTable.epoch, ReportTable.metrics, ReportTable.value)
                .join(TrialTable, TrialTable.id == ReportTable.trial_id)
                .where(TrialTable.study_id == study_id, wanted)
                .order_by(TrialTable.number, ReportTable.epoch)
            ).all()
        found: dict[int, list[Report]] = {}
        for row in rows:
            metrics = {name: value for name, value in row.metrics.items() if value is not None}
            found.setdefault(row.number, []).append(Report(row.epoch, metrics, row.value))
        return found

    def feed(self, study_id: int) -> Feed:
        """What changes in the trials of a study, for a worker that follows them."""
        return Feed(self.database, study_id)

    def owners(self, study_id: int) -> list[str]:
        """Who works on the study's running trials."""
        with self.database.read() as session:
            owners = session.scalars(
                sa.select(TrialTable.owner).where(
                    TrialTable.study_id == study_id, TrialTable.state == TrialState.RUNNING
                )
            )
            return sorted({owner for owner in owners if owner})

    def holders(self, study_id: int, gone: Callable[[str], bool]) -> list[str]:
        """Who holds a trial of the study, and may still write about it."""
        with self.database.read() as session:
            held = sa.select(TrialTable.owner).where(
                TrialTable.study_id == study_id, TrialTable.state == TrialState.RUNNING, TrialTable.lease_until >= now()
            )
            return sorted({owner for owner in session.scalars(held) if owner and not gone(owner)})

    def remove(self, study_id: int) -> None:
        """Delete a study with its trials and their reports; nobody may hold one of them."""
        with self.database.write() as session:
            # The workers' rows before the study's, as everywhere, so that none waits for another.
            session.execute(sa.update(WorkerTable).where(WorkerTable.study_id == study_id).values(study_id=None))
            session.execute(sa.delete(StudyTable).where(StudyTable.id == study_id))

    def summary(self, study_id: int) -> Summary:
        """Counts and costs."""
        columns = (
            TrialTable.state,
            TrialTable.confirms.is_not(None).label("confirms"),
            sa.func.count().label("trials"),
            sa.func.sum(TrialTable.epochs + TrialTable.wasted_epochs).label("epochs"),
            sa.func.sum(
                sa.func.coalesce(
                    TrialTable.spent_seconds, TrialTable.finished_at - TrialTable.started_at, TrialTable.kept_seconds
                )
            ).label("spent"),
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

    def _row(self, session: Session, study: StudyTable) -> StudyRow:
        state = study.state
        if state == RUNNING:
            moment = session.execute(sa.select(now())).scalar_one()
            leased = sa.select(sa.func.max(TrialTable.lease_until)).where(
                TrialTable.study_id == study.id, TrialTable.state == TrialState.RUNNING
            )
            alone = (session.scalar(leased) or 0.0) < moment
            if alone and study.submitted_at is not None:
                state = QUEUED
            elif alone and study.courier_until < moment:
                state = INTERRUPTED
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
            priority=study.priority,
            submitted=study.submitted_at,
        )

    def _update_study(self, study_id: int, **values: Any) -> None:
        with self.database.write() as session:
            session.execute(sa.update(StudyTable).where(StudyTable.id == study_id).values(**values))
