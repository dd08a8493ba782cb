"""The outbox: what of a study MLflow has not seen, and who brings it there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from tuner.storage.database import Database, now
from tuner.storage.queue import LEASE_SECONDS
from tuner.storage.rows import RUNNING, Untracked, to_trial
from tuner.storage.tables import ReportTable, StudyTable, TrialTable
from tuner.trial import TrialState

RUN, ENDED = "run_id", "ended"
"""What is kept of a study in MLflow, among others: its run, and the state in which that was told to have ended."""


class Outbox:
    """Reads and writes of the courier."""

    database: Database

    def become_courier(self, study_id: int, owner: str, gone: Callable[[str], bool]) -> bool:
        """Become, or stay, the one who brings this study to MLflow; False while somebody else is."""
        with self.database.write() as session:
            study = session.get(StudyTable, study_id, with_for_update=True)
            if study is None:
                return False
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

    def untracked(self, study_id: int, *, running: bool = True) -> list[Untracked]:
        """The trials of which MLflow has not seen everything; those that are being trained only if asked for."""
        asked = sa.true() if running else TrialTable.state != TrialState.RUNNING
        with self.database.read() as session:
            waiting = sa.select(TrialTable).where(_waiting(study_id), asked)
            rows = session.scalars(waiting.order_by(TrialTable.number)).all()
            found = []
            for row in rows:
                reports = session.execute(
                    sa.select(ReportTable.epoch, ReportTable.at, ReportTable.metrics, ReportTable.value)
                    .where(ReportTable.trial_id == row.id)
                    .order_by(ReportTable.epoch)
                ).all()
                trial = to_trial(row, {report.epoch: report.value for report in reports})
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

    def tracked_runs(self, study_id: int) -> dict[int, str]:
        """Where MLflow keeps the trials of which it has seen something: run ids by trial number."""
        with self.database.read() as session:
            rows = session.execute(
                sa.select(TrialTable.number, TrialTable.run_id).where(
                    TrialTable.study_id == study_id, TrialTable.run_id.is_not(None)
                )
            )
            return {number: str(run) for number, run in rows}

    def count_untracked(self, study_id: int) -> int:
        """How many trials wait to be brought to MLflow."""
        with self.database.read() as session:
            return session.execute(sa.select(sa.func.count()).where(_waiting(study_id))).scalar_one()

    def behind(self) -> list[str]:
        """The names of the studies that do not run any more, and of which MLflow lacks a trial, or how they ended."""
        unheard = sa.exists().where(_waiting(StudyTable.id))
        run, ended = (StudyTable.tracked[key].as_string() for key in (RUN, ENDED))
        untold = sa.and_(run.is_not(None), sa.func.coalesce(ended, "") != StudyTable.state)
        wanted = sa.and_(StudyTable.state != RUNNING, sa.or_(untold, unheard))
        with self.database.read() as session:
            return list(session.scalars(sa.select(StudyTable.name).where(wanted).order_by(StudyTable.id)))

    def set_tracked(self, study_id: int, tracked: Mapping[str, Any]) -> None:
        """Remember where MLflow keeps the study, and what has been sent of it."""
        with self.database.write() as session:
            session.execute(sa.update(StudyTable).where(StudyTable.id == study_id).values(tracked=dict(tracked)))


def _waiting(study_id: int | sa.orm.InstrumentedAttribute[int]) -> sa.ColumnElement[bool]:
    """Whether MLflow is to be told of a trial.

    It takes no metric back, so not while the trial's owner has yet to say after which epoch it goes on.
    """
    return sa.and_(
        TrialTable.study_id == study_id,
        TrialTable.params.is_not(None),
        TrialTable.token > 0,
        TrialTable.revision != TrialTable.tracked_revision,
        sa.or_(TrialTable.began_after.is_not(None), TrialTable.state != TrialState.RUNNING),
    )
