"""The roster: which studies wait for workers, who works, where, on which of them, and who cannot and why.

Workers serve the study of the highest priority; among equals the one with the fewest workers, and among those the one
that has waited longest for one. Everything is measured by the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tuner.storage.database import Database, now
from tuner.storage.queue import LEASE_SECONDS
from tuner.storage.rows import RUNNING, WorkerRow
from tuner.storage.tables import StudyTable, TrialTable, WorkerTable

REMEMBERED_SECONDS = 86400.0
"""How long a worker that could not do its work is shown after it was last seen."""

_TURNS = 0x7475726E  # "turn": the key of PostgreSQL's advisory lock under which workers are shared out
_PULSE_SECONDS = 30.0  # a study whose workers have been silent for longer was not worked on meanwhile


@dataclass(frozen=True)
class Queued:
    """A study that waits for workers, or has some; equal as long as what a worker has made ready for it still holds.

    Attributes:
        id: the study.
        name: its name.
        priority: the higher, the earlier it is served.
        document: what it says now.
        submitted: when it entered the queue.
        uid: another one when the study was replaced by a new one of its name.
    """

    id: int
    name: str
    priority: int = field(compare=False)
    document: Mapping[str, Any]
    submitted: float
    uid: str


class Roster:
    """Reads and writes of the service's workers, and of the studies as they queue for them."""

    database: Database

    # Studies

    def submit(self, study_id: int, priority: int | None = None, facts: Mapping[str, Any] | None = None) -> None:
        """Hand a running study to the workers; one that is in the queue already keeps its place.

        Args:
            study_id: the study.
            priority: the higher, the earlier it is served; None leaves it as it is.
            facts: what to remember about the submission.
        """
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            if study.submitted_at is None:
                study.submitted_at = session.execute(sa.select(now())).scalar_one()
            if priority is not None:
                study.priority = priority
            study.facts = {**study.facts, **(facts or {})}

    def next_in_queue(self, owner: str, only: str | None = None, besides: Collection[int] = ()) -> Queued | None:
        """The study that a worker should serve next, or None; arguments as for `turn`."""
        with self.database.read() as session:
            return self._next(session, owner, only, besides)

    def turn(self, owner: str, only: str | None = None, besides: Collection[int] = ()) -> Queued | None:
        """Give a worker its next study; None when there is none for it.

        Workers are shared out one after the other, so that those who start together do not all go to one study.

        Args:
            owner: the worker, which must have signed in.
            only: the name of the one study that it serves, or None.
            besides: ids of studies that it does not serve now.
        """
        if self.next_in_queue(owner, only, besides) is None:
            return None  # as most often while a worker waits, and costs no lock
        with self.database.write() as session:
            if not self.database.is_sqlite:
                session.execute(sa.select(sa.func.pg_advisory_xact_lock(_TURNS)))
            chosen = self._next(session, owner, only, besides)
            if chosen is not None:  # the worker's row before the study's, as everywhere, so that none waits for another
                session.execute(
                    sa.update(WorkerTable).where(WorkerTable.owner == owner).values(study_id=chosen.id, last_seen=now())
                )
                self._count_time(session, chosen.id)
                session.execute(sa.update(StudyTable).where(StudyTable.id == chosen.id).values(served_at=now()))
            return chosen

    def in_queue(self) -> list[str]:
        """The names of the studies in the queue of which trials have begun."""
        begun = sa.exists().where(TrialTable.study_id == StudyTable.id, TrialTable.token > 0)
        wanted = sa.and_(StudyTable.submitted_at.is_not(None), StudyTable.state == RUNNING, begun)
        with self.database.read() as session:
            return list(session.scalars(sa.select(StudyTable.name).where(wanted)))

    # Workers

    def sign_in(self, owner: str, *, machine: str, device: str, threads: int, folder: str) -> None:
        """Enter a worker into the roster."""
        with self.database.write() as session:
            moment = session.execute(sa.select(now())).scalar_one()
            outdated = sa.or_(
                WorkerTable.owner == owner,
                WorkerTable.last_seen < moment - REMEMBERED_SECONDS,
                sa.and_(  # what kept the last one here from working is told anew, if it still does
                    WorkerTable.left_at.is_not(None), WorkerTable.machine == machine, WorkerTable.device == device
                ),
            )
            session.execute(sa.delete(WorkerTable).where(outdated))
            session.add(
                WorkerTable(
                    owner=owner,
                    machine=machine,
                    device=device,
                    threads=threads,
                    folder=folder,
                    since=moment,
                    last_seen=moment,
                    refused={},
                )
            )

    def beat(self, owner: str) -> bool:
        """Say that a worker is alive; False if the roster has it no more (it was silent for too long)."""
        with self.database.write() as session:
            seen = session.execute(
                sa.update(WorkerTable)
                .where(WorkerTable.owner == owner)
                .values(last_seen=now())
                .returning(WorkerTable.study_id)
            ).one_or_none()
            if seen is not None and seen.study_id is not None:
                self._count_time(session, seen.study_id)
            return seen is not None

    def leave(self, owner: str) -> None:
        """A worker's turn at its study is over."""
        with self.database.write() as session:
            self._leave(session, owner)

    def sign_out(self, owner: str) -> None:
        """Take a worker off the roster; one that could not do its work stays there for a day, to be seen."""
        with self.database.write() as session:
            self._leave(session, owner)
            worker = session.scalar(sa.select(WorkerTable).where(WorkerTable.owner == owner).with_for_update())
            if worker is None:
                return
            if worker.trouble is not None or worker.refused:
                worker.left_at = session.execute(sa.select(now())).scalar_one()
            else:
                session.delete(worker)

    def note_trouble(self, owner: str, reason: str) -> None:
        """Remember why a worker takes no work any more."""
        with self.database.write() as session:
            session.execute(sa.update(WorkerTable).where(WorkerTable.owner == owner).values(trouble=reason))

    def refuse(self, owner: str, study: str, reason: str | None) -> None:
        """Remember why a worker does not work on a study, or with None that it does again."""
        with self.database.write() as session:
            worker = session.scalar(sa.select(WorkerTable).where(WorkerTable.owner == owner).with_for_update())
            if worker is not None and worker.refused.get(study) != reason:
                others = {name: why for name, why in worker.refused.items() if name != study}
                worker.refused = others if reason is None else {**others, study: reason}

    def workers(self) -> list[WorkerRow]:
        """Every worker of which something is to be told, the longest serving first."""
        with self.database.read() as session:
            moment = session.execute(sa.select(now())).scalar_one()
            rows = session.execute(
                sa.select(WorkerTable, StudyTable.name)
                .join(StudyTable, StudyTable.id == WorkerTable.study_id, isouter=True)
                .order_by(WorkerTable.since, WorkerTable.id)
            ).all()
            return [
                WorkerRow(
                    owner=worker.owner,
                    machine=worker.machine,
                    device=worker.device,
                    threads=worker.threads,
                    folder=worker.folder,
                    since=worker.since,
                    last_seen=worker.last_seen,
                    silent=max(0.0, moment - worker.last_seen),
                    study=study,
                    trouble=worker.trouble,
                    refused=worker.refused,
                    left=worker.left_at is not None,
                )
                for worker, study in rows
            ]

    def forget_workers(self, gone: Callable[[str], bool]) -> None:
        """Take those off the roster who have died or fallen silent."""
        with self.database.read() as session:
            moment = session.execute(sa.select(now())).scalar_one()
            known = session.execute(
                sa.select(WorkerTable.owner, WorkerTable.last_seen).where(WorkerTable.left_at.is_(None))
            ).all()
        for owner in [owner for owner, seen in known if seen < moment - LEASE_SECONDS or gone(owner)]:
            self.sign_out(owner)

    # What several of them share

    @staticmethod
    def _next(session: Session, owner: str, only: str | None, besides: Collection[int]) -> Queued | None:
        others = (
            sa.select(sa.func.count())
            .where(
                WorkerTable.study_id == StudyTable.id,
                WorkerTable.owner != owner,
                WorkerTable.last_seen > now() - LEASE_SECONDS,
            )
            .scalar_subquery()
        )
        found = (
            sa.select(StudyTable)
            .where(
                StudyTable.state == RUNNING, StudyTable.submitted_at.is_not(None), StudyTable.id.not_in(list(besides))
            )
            .order_by(StudyTable.priority.desc(), others, StudyTable.served_at, StudyTable.submitted_at, StudyTable.id)
            .limit(1)
        )
        study = session.scalar(found if only is None else found.where(StudyTable.name == only))
        if study is None or study.submitted_at is None:
            return None
        uid = str(study.tracked.get("uid"))
        return Queued(study.id, study.name, study.priority, study.document, study.submitted_at, uid)

    @staticmethod
    def _count_time(session: Session, study_id: int) -> None:
        """Add to a study's time what has passed since it was last counted, if it was worked on meanwhile."""
        passed = now() - StudyTable.active_at
        spent = sa.case((passed.between(0.0, _PULSE_SECONDS), passed), else_=0.0)
        session.execute(
            sa.update(StudyTable)
            .where(StudyTable.id == study_id)
            .values(active_seconds=StudyTable.active_seconds + spent, active_at=now())
        )

    def _leave(self, session: Session, owner: str) -> None:
        study_id = session.scalar(sa.select(WorkerTable.study_id).where(WorkerTable.owner == owner))
        if study_id is None:
            return
        session.execute(sa.update(WorkerTable).where(WorkerTable.owner == owner).values(study_id=None))
        self._count_time(session, study_id)
        left = session.scalar(
            sa.select(sa.func.count()).where(
                WorkerTable.study_id == study_id, WorkerTable.last_seen > now() - LEASE_SECONDS
            )
        )
        if not left:  # nobody works on it until the next turn
            session.execute(sa.update(StudyTable).where(StudyTable.id == study_id).values(active_at=0.0))
