"""What has changed in a study's trials since one looked last, at a cost that does not grow with the study."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from tuner.storage.database import Database
from tuner.storage.rows import to_outline
from tuner.storage.tables import ReportTable, TrialTable
from tuner.trial import Trial, TrialState

_CLOSED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States that a trial never leaves; a FAILED one may be tried again."""

_MANY = 500
"""Up to so many trials are asked for one by one."""


class Feed:
    """Follows the trials of one study, for one reader.

    Only trials that are new or that may still change are asked about: numbers grow and a trial that is complete or
    pruned stays so. Trials come without what only people read: configuration, metrics, seconds, traceback.

    Args:
        database: where.
        study_id: the study.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id
        self._highest = -1
        self._open: dict[int, int | None] = {}  # by number, the revision last handed out of trials that may change

    def changes(self, without: Container[int] = ()) -> list[Trial]:
        """Trials that have changed since the last call, by number; all of them at the first.

        Args:
            without: numbers that are left out now, and come as soon as they are not.
        """
        with self._database.read() as session:
            wanted = self._changed(session, without)
            rows = _rows(session, self._study_id, wanted)
            values = _values(session, self._study_id, [row.id for row in rows])
        for row in rows:
            if row.state in _CLOSED:
                del self._open[row.number]
            else:
                self._open[row.number] = row.revision
        return [to_outline(row, values.get(row.id, {})) for row in rows]

    def _changed(self, session: Session, without: Container[int]) -> list[int]:
        """The ids of trials to hand out; a number that is seen for the first time is open from now on."""
        number = TrialTable.number
        new, open_ = number > self._highest, list(self._open)
        found = session.execute(
            sa.select(TrialTable.id, number, TrialTable.revision)
            .where(TrialTable.study_id == self._study_id, sa.or_(new, number.in_(open_)) if open_ else new)
            .order_by(number)
        ).all()
        for row in found:
            self._open.setdefault(row.number, None)
            self._highest = max(self._highest, row.number)
        return [row.id for row in found if row.number not in without and self._open[row.number] != row.revision]


_BRIEF = (
    TrialTable.id,
    TrialTable.number,
    TrialTable.params,
    TrialTable.seed,
    TrialTable.state,
    TrialTable.confirms,
    TrialTable.attempt,
    TrialTable.value,
    TrialTable.best_epoch,
    TrialTable.epochs,
    TrialTable.reason,
    TrialTable.infeasible,
    TrialTable.revision,
    TrialTable.token,
    TrialTable.started_at,
    TrialTable.finished_at,
)


def outlines(session: Session, study_id: int) -> list[Trial]:
    """Every trial of a study by number, as a feed tells it, but without its reports."""
    rows = session.execute(sa.select(*_BRIEF).where(TrialTable.study_id == study_id).order_by(TrialTable.number))
    return [to_outline(row, {}) for row in rows]


def _rows(session: Session, study_id: int, wanted: Sequence[int]) -> list[Any]:
    """These trials, by number."""
    if not wanted:
        return []
    query = sa.select(*_BRIEF).where(_among(TrialTable.id, study_id, wanted)).order_by(TrialTable.number)
    some = set(wanted)
    return [row for row in session.execute(query) if row.id in some]


def _values(session: Session, study_id: int, wanted: Sequence[int]) -> Mapping[int, dict[int, float]]:
    """What these trials have reported: by id, the objective by epoch."""
    if not wanted:
        return {}
    identity, epoch, value = ReportTable.trial_id, ReportTable.epoch, ReportTable.value
    among = _among(identity, study_id, wanted)
    if len(wanted) > _MANY and session.get_bind().dialect.name == "postgresql":
        # A worker that joins late reads them all: a row for each trial is five times as fast as one for each report.
        packed = sa.select(identity, sa.func.array_agg(epoch), sa.func.array_agg(value)).where(among)
        told = session.execute(packed.group_by(identity))
        return {trial: dict(sorted(zip(epochs, values, strict=True))) for trial, epochs, values in told}
    found: dict[int, dict[int, float]] = {}
    for row in session.execute(sa.select(identity, epoch, value).where(among).order_by(identity, epoch)):
        found.setdefault(row.trial_id, {})[row.epoch] = row.value
    return found


def _among(identity: InstrumentedAttribute[int], study_id: int, wanted: Sequence[int]) -> sa.ColumnElement[bool]:
    """Whether a trial's id is one of these; of many, at least whether it may be."""
    if len(wanted) <= _MANY:
        return identity.in_(wanted)
    return identity.in_(sa.select(TrialTable.id).where(TrialTable.study_id == study_id, TrialTable.id >= min(wanted)))
