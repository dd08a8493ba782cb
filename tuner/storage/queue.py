"""The queue: who may train which trial, and what they write about it.

A claim hands out a lease with a fencing token, and every later write carries it. A worker that lost its lease (it was
thought dead, its trial went to another) cannot write any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tuner.errors import LeaseLost
from tuner.storage.database import Database, now
from tuner.storage.feed import outlines
from tuner.storage.rows import (
    RUNNING,
    Heard,
    Lease,
    Unfinished,
    epochs_spent,
    next_number,
    running_proposals,
    to_trial,
    unfinished,
)
from tuner.storage.tables import ReportTable, StudyTable, TrialTable
from tuner.trial import Report, Trial, TrialResult, TrialState, trial_seed

LEASE_SECONDS = 60.0
MAX_ATTEMPTS = 3
MAX_SETBACKS = 2


class Queue:
    """Reads and writes of trials by those who work on them."""

    database: Database

    def claim(self, study_id: int, owner: str, open_new: bool = True, *, only_new: bool = False) -> Lease | None:
        """Take a waiting trial, or open a new one if the budget allows; None when there is neither.

        Args:
            study_id: the study.
            owner: who takes it.
            open_new: whether a new trial may be opened at all.
            only_new: whether waiting ones are left to others.
        """
        with self.database.write() as session:
            study = session.get(StudyTable, study_id, with_for_update=True)
            if study is None or study.state != RUNNING:  # it may have been deleted
                return None
            waiting = (
                sa.select(TrialTable)
                .where(TrialTable.study_id == study_id, TrialTable.state == TrialState.WAITING)
                .order_by(TrialTable.number)
                .limit(1)
            )
            trial = None if only_new else session.scalar(waiting)
            if trial is None:
                number = next_number(session, study_id)
                if not (open_new and self._budget_left(session, study, number)):
                    return None
                trial = self._new_trial(study, number, trial_seed(study.seed, number))
                session.add(trial)
            moment = session.execute(sa.select(now())).scalar_one()
            trial.state, trial.owner = TrialState.RUNNING, owner
            trial.token += 1
            trial.attempt += 1
            trial.revision += 1
            trial.started_at, trial.lease_until = moment, moment + LEASE_SECONDS
            session.flush()
            values = {} if trial.began_after is not None else _values(session, trial.id)
            return Lease(to_trial(trial, values), study_id, trial.id, trial.token)

    def begin_after(self, lease: Lease, epoch: int, seconds: float = 0.0) -> Trial:
        """Say after which epoch a trial goes on that was begun before; what it reported later was for nothing.

        Until this is said, the trial's reports are those of earlier owners, and nobody may add to them. Said again, it
        changes nothing.

        Args:
            lease: of a trial whose `began_after` is None.
            epoch: the last one of which everything is at hand; 0 to begin anew.
            seconds: what the epochs up to there took, over all attempts.

        Returns:
            The trial as it stands now.

        Raises:
            LeaseLost: the trial belongs to another worker now.
        """
        with self.database.write() as session:
            trial = session.scalar(sa.select(TrialTable).where(_held(lease)).with_for_update())
            if trial is None:
                raise _lost(lease)
            if trial.began_after is None:  # else the answer to an earlier call was lost
                later = sa.and_(ReportTable.trial_id == trial.id, ReportTable.epoch > epoch)
                session.execute(sa.delete(ReportTable).where(later))
                kept = min(epoch, trial.epochs)
                trial.wasted_epochs += trial.epochs - kept
                trial.kept_seconds = min(seconds, trial.wasted_seconds)
                trial.wasted_seconds -= trial.kept_seconds
                trial.epochs, trial.began_after = kept, epoch
                trial.revision += 1
            session.flush()
            return to_trial(trial, _values(session, trial.id))

    def propose(self, lease: Lease, params: Mapping[str, Any]) -> bool:
        """Write the values that the search proposes for a trial; False if another that runs has just got the same."""
        with self.database.write() as session:
            session.get_one(StudyTable, lease.study_id, with_for_update=True)
            others = session.scalars(
                sa.select(TrialTable.params).where(
                    TrialTable.study_id == lease.study_id,
                    TrialTable.state == TrialState.RUNNING,
                    TrialTable.confirms.is_(None),
                    TrialTable.id != lease.trial_id,
                )
            )
            if any(other == params for other in others):
                return False
            self._fenced(session, lease, params=dict(params))
            return True

    def withdraw(self, lease: Lease) -> None:
        """Take back a trial for which there is nothing left to propose, as if it had never been opened."""
        with self.database.write() as session:
            session.execute(
                sa.delete(TrialTable).where(
                    TrialTable.id == lease.trial_id, TrialTable.token == lease.token, TrialTable.params.is_(None)
                )
            )

    def report(self, lease: Lease, report: Report) -> bool:
        """Write what a trial says after an epoch; the answer says whether the study still runs.

        Raises:
            LeaseLost: the trial belongs to another worker now.
        """
        heard = self.report_together([(lease, report)])
        if heard.lost:
            raise _lost(lease)
        return heard.running

    def report_together(self, said: Sequence[tuple[Lease, Report]], again: bool = False) -> Heard:
        """Write what several trials of a study say, each after an epoch, in one transaction.

        The one write that happens at every epoch, so it is three bare statements if all are in the same epoch.

        Args:
            said: the trials and what they say.
            again: the same was said before, and it is not known whether it was written.
        """
        lost: set[int] = set()
        with self.database.connection() as connection:
            for epoch in sorted({report.epoch for _, report in said}):
                held = [(lease.trial_id, lease.token) for lease, report in said if report.epoch == epoch]
                ids = [trial_id for trial_id, _ in held]
                told = connection.execute(_REPORTED, {"at_epoch": epoch, "ids": ids, "held": held})
                lost |= set(ids) - set(told.scalars())
            rows = [
                {"trial_id": lease.trial_id, "epoch": r.epoch, "value": r.value, "metrics": _json_numbers(r.metrics)}
                for lease, r in said
                if lease.trial_id not in lost
            ]
            for row in rows if again else ():
                of = (ReportTable.trial_id == row["trial_id"], ReportTable.epoch == row["epoch"])
                connection.execute(sa.delete(ReportTable).where(*of))
            if rows:
                connection.execute(_NEW_REPORT, rows)
            running = connection.execute(_STATE, {"study": said[0][0].study_id}).scalar() == RUNNING
        return Heard(running, frozenset(lost))

    def epochs_left(self, study_id: int) -> int | None:
        """How many epochs a running proposal may still train, or None when they are not limited.

        Every other running proposal is in the midst of an epoch, which counts. So does one that is just being claimed:
        its worker may not have seen the epoch that this one has reported.
        """
        with self.database.read() as session:
            study = session.get_one(StudyTable, study_id)
            budget: int | None = study.document["search"]["epochs"]
            if budget is None:
                return None
            session.get_one(StudyTable, study_id, with_for_update={"read": True}, populate_existing=True)
            others = max(0, running_proposals(session, study_id) - 1)
            return budget - epochs_spent(session, study_id) - others

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
                trained=result.trained,
                seconds=dict(result.seconds),
                spent_seconds=sum(result.seconds.values()) or None,
                finished_at=now(),
                owner=None,
            )

    def give_back(self, lease: Lease) -> None:
        """Return a trial to the queue: it goes on with the same values and the same seed, as far as it was kept.

        Said again, or of a trial that is no longer this owner's, it changes nothing.
        """
        with self.database.write() as session:
            trial = session.scalar(sa.select(TrialTable).where(_held(lease)).with_for_update())
            if trial is not None:
                self._requeue(session, trial, counts=False)

    def set_back(self, lease: Lease, place: str, reason: str) -> bool:
        """Return to the queue a trial that failed for reasons that may be its worker's own.

        Args:
            lease: the trial.
            place: the worker, by what such a failure may come from: its machine, or the device.
            reason: what happened, in words.

        Returns:
            False, and nothing is written, if it has failed so at another place, or at this one again and again while
            others got through: then it is the trial that fails.
        """
        with self.database.write() as session:
            trial = session.scalar(sa.select(TrialTable).where(_held(lease)).with_for_update())
            if trial is None:
                return True  # somebody else has it now, or the answer to an earlier call was lost
            known = dict(trial.setbacks or {})
            told = known.get(place, [])
            if known.keys() - {place} or len(told) >= MAX_SETBACKS:
                return False
            trial.setbacks = {place: [*told, reason]}
            self._requeue(session, trial, counts=False)
            return True

    def forget_setbacks(self, study_id: int, places: Collection[str]) -> None:
        """Forget that trials failed at places of which it is known by now that they were at fault."""
        with self.database.write() as session:
            waiting = session.scalars(
                sa.select(TrialTable).where(TrialTable.study_id == study_id, TrialTable.state == TrialState.WAITING)
            ).all()
            for trial in waiting:
                if trial.setbacks and trial.setbacks.keys() <= set(places):
                    trial.setbacks = None

    def renew(self, leases: Iterable[Lease]) -> None:
        """Extend leases from a thread that beats while training is busy; a lost one is noticed at the next report."""
        with self.database.write() as session:
            for lease in leases:
                session.execute(
                    sa.update(TrialTable)
                    .where(TrialTable.id == lease.trial_id, TrialTable.token == lease.token)
                    .values(lease_until=now() + LEASE_SECONDS)
                )

    def reclaim(self, study_id: int, gone: Callable[[str], bool], *, counts: bool = True) -> list[int]:
        """Return to the queue every running trial whose worker is gone or let its lease run out.

        A trial that lost three workers is FAILED: it may well be what kills them.

        Args:
            study_id: the study.
            gone: whether the owner of this name is known to be dead, however fresh its lease.
            counts: whether a lost worker counts against its trial.

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
                self._requeue(session, trial, counts=counts)
            return [trial.number for trial in lost]

    def reclaim_everywhere(self, gone: Callable[[str], bool], *, counts: bool = True) -> dict[str, list[int]]:
        """Reclaim the trials of every study, and read only while nobody is missing.

        Args:
            gone: whether the owner of this name is known to be dead.
            counts: whether a lost worker counts against its trial; not if it was killed because it was told to stop.

        Returns:
            The numbers of the trials found, by study.
        """
        with self.database.read() as session:
            moment = session.execute(sa.select(now())).scalar_one()
            running = session.execute(
                sa.select(StudyTable.id, StudyTable.name, TrialTable.owner, sa.func.min(TrialTable.lease_until))
                .join(TrialTable, TrialTable.study_id == StudyTable.id)
                .where(TrialTable.state == TrialState.RUNNING)
                .group_by(StudyTable.id, StudyTable.name, TrialTable.owner)
            ).all()
        lost = {(study_id, name) for study_id, name, owner, until in running if until < moment or gone(owner or "")}
        found = {name: self.reclaim(study_id, gone, counts=counts) for study_id, name in sorted(lost)}
        return {name: numbers for name, numbers in found.items() if numbers}

    def retry_failed(self, study_id: int) -> None:
        """Return every FAILED trial to the queue: what made them fail may have been mended."""
        with self.database.write() as session:
            failed = session.scalars(
                sa.select(TrialTable).where(TrialTable.study_id == study_id, TrialTable.state == TrialState.FAILED)
            ).all()
            for trial in failed:
                trial.state, trial.attempt, trial.setbacks = TrialState.WAITING, 0, None
                trial.began_after, trial.lost = None, None
                trial.token += 1
                trial.revision += 1
                session.execute(sa.delete(ReportTable).where(ReportTable.trial_id == trial.id))

    def plant(self, study_id: int, wanted: Sequence[tuple[Mapping[str, Any], int]]) -> int:
        """Queue trials of given values and seeds, each once however often it is asked for; say how many are new."""
        with self.database.write() as session:
            study = session.get_one(StudyTable, study_id, with_for_update=True)
            rows = session.execute(
                sa.select(TrialTable.params, TrialTable.seed).where(TrialTable.study_id == study_id)
            ).all()
            known = [(row.params, row.seed) for row in rows]
            new = [(dict(params), seed) for params, seed in wanted if (dict(params), seed) not in known]
            number = next_number(session, study_id)
            for offset, (params, seed) in enumerate(new):
                trial = self._new_trial(study, number + offset, seed)
                trial.params = params
                session.add(trial)
            return len(new)

    def plan(self, study_id: int, needed: Callable[[list[Trial]], list[tuple[int, int]]]) -> Unfinished | None:
        """Queue confirming runs, once no proposal is unfinished.

        Args:
            study_id: the study.
            needed: given every trial without its reports, says which (number, seed) must still be run.

        Returns:
            How many trials of the study wait or run now; None when the study is not to go on.
        """
        with self.database.write() as session:
            study = session.get(StudyTable, study_id, with_for_update=True)
            if study is None or study.state != RUNNING:  # it may have been deleted
                return None
            left = unfinished(session, study_id)
            if left.waiting or left.running:
                return left
            trials = outlines(session, study_id)
            by_number = {trial.number: trial for trial in trials}
            wanted = needed(trials)
            number = next_number(session, study_id)
            for offset, (confirmed, seed) in enumerate(wanted):
                trial = self._new_trial(study, number + offset, seed)
                trial.confirms, trial.params = confirmed, dict(by_number[confirmed].params or {})
                session.add(trial)
            return Unfinished(waiting=len(wanted), running=0)

    def _fenced(self, session: Session, lease: Lease, **values: Any) -> None:
        changed = session.execute(
            sa.update(TrialTable).where(_held(lease)).values(revision=TrialTable.revision + 1, **values)
        )
        if changed.rowcount != 1:  # type: ignore[attr-defined]
            raise _lost(lease)

    @staticmethod
    def _requeue(session: Session, trial: TrialTable, *, counts: bool) -> None:
        """Return a trial to the queue with its reports, or fail it; its time is wasted until the next owner uses it."""
        moment = session.execute(sa.select(now())).scalar_one()
        together = session.scalar(  # trials of one cohort share their worker's time
            sa.select(sa.func.count()).where(
                TrialTable.study_id == trial.study_id,
                TrialTable.owner == trial.owner,
                TrialTable.state == TrialState.RUNNING,
            )
        )
        passed = max(0.0, moment - (trial.started_at or moment)) / max(1, together or 1)
        trial.wasted_seconds += passed + trial.kept_seconds
        trial.kept_seconds = 0.0
        if counts:
            trial.lost = [*(trial.lost or []), f"{_shown_owner(trial.owner)} in epoch {trial.epochs + 1}"]
        trial.owner = None
        trial.token += 1
        trial.revision += 1
        if not counts:
            trial.attempt -= 1
        if counts and trial.attempt >= MAX_ATTEMPTS:
            trial.state, trial.finished_at = TrialState.FAILED, trial.started_at
            told = "; ".join(trial.lost or [])
            trial.reason = f"lost {trial.attempt} workers, which died or fell silent while training it: {told}"
            trial.wasted_epochs += trial.epochs
            trial.epochs = 0
            session.execute(sa.delete(ReportTable).where(ReportTable.trial_id == trial.id))
        else:
            trial.state, trial.began_after = TrialState.WAITING, None

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
            began_after=0,
            kept_seconds=0.0,
            wasted_seconds=0.0,
            wasted_epochs=0,
            tracked_revision=-1,
        )

    def _budget_left(self, session: Session, study: StudyTable, number: int) -> bool:
        """Whether a trial of the next number may be opened; there are at most so many, so few need not be counted."""
        search = study.document["search"]
        if search["trials"] is not None and number >= search["trials"]:
            opened = session.execute(
                sa.select(sa.func.count()).where(TrialTable.study_id == study.id, TrialTable.confirms.is_(None))
            ).scalar_one()
            if opened >= search["trials"]:
                return False
        if search["epochs"] is None:
            return True
        promised = epochs_spent(session, study.id) + running_proposals(session, study.id)
        return bool(promised < search["epochs"])


_REPORTED = (
    sa.update(TrialTable)
    .values(epochs=sa.bindparam("at_epoch"), revision=TrialTable.revision + 1, lease_until=now() + LEASE_SECONDS)
    .where(
        TrialTable.id.in_(sa.bindparam("ids", expanding=True)),  # which the index answers; pairs alone it does not
        sa.tuple_(TrialTable.id, TrialTable.token).in_(sa.bindparam("held", expanding=True)),
        TrialTable.state == TrialState.RUNNING,
    )
    .returning(TrialTable.id)
)
"""Made once: to put such a statement together takes longer than to carry it out."""

_NEW_REPORT = sa.insert(ReportTable).values(at=now())
_STATE = sa.select(StudyTable.state).where(StudyTable.id == sa.bindparam("study"))


def _held(lease: Lease) -> sa.ColumnElement[bool]:
    """Whether a row is the lease's trial and still its owner's."""
    return sa.and_(
        TrialTable.id == lease.trial_id, TrialTable.token == lease.token, TrialTable.state == TrialState.RUNNING
    )


def _values(session: Session, trial_id: int) -> dict[int, float]:
    """A trial's objective by epoch."""
    told = sa.select(ReportTable.epoch, ReportTable.value).where(ReportTable.trial_id == trial_id)
    return {row.epoch: row.value for row in session.execute(told.order_by(ReportTable.epoch))}


def _shown_owner(owner: str | None) -> str:
    """A worker as a reader knows it: its machine and its process."""
    machine, _, process = (owner or "?").partition("|")
    number = process.partition("|")[0]
    return f"{machine.partition('/')[0]}, process {number}," if number else machine


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"trial {lease.trial.number} belongs to another worker now; this one's work on it is dropped")


def _json_numbers(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a secondary metric that is not finite is kept as null."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
