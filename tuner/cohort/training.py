"""Trains trials in one pass where they share a shape and it pays, and one by one where not; says which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tuner.cohort.cohort import COHORTS, Cohort
from tuner.cohort.errors import NotFusable, OutOfMemoryTogether, TooBig
from tuner.cohort.job import Job, Judge, More
from tuner.cohort.recording import Recordings
from tuner.cohort.shape import groups_of, shape_of
from tuner.cohort.size import Sizes
from tuner.cohort.slice import Slice
from tuner.cohort.template import Template
from tuner.errors import TrialInterrupted
from tuner.space import Choice, Space
from tuner.space.grammar import FloatRange
from tuner.training import NotLean, Pace, SingleTraining, Snapshot, SnapshotUnusable, exhausted, trained_by
from tuner.trial import Report, TrialResult, Verdict

log = logging.getLogger("tuner")

Trained = tuple[Job, TrialResult]


@dataclass(frozen=True)
class Left:
    """A trial that is trained alone after all.

    Attributes:
        reason: why, or None where its result will say so itself.
        known: epochs that it has reported from a cohort, which it does not report again.
    """

    job: Job
    reason: str | None = None
    known: int = 0


UNSHAPED = frozenset({"model.lr_schedule", "model.lr_step", "model.nesterov", "model.mc_samples"})
"""Hyperparameters of tuner's networks that are no numbers with a point, and that no step reads."""


BIG = 0.02
"""Seconds of a step alone above which nothing is to be won, to begin with; what is measured lowers it."""


@dataclass
class Known:
    """What earlier cohorts of a shape have taught.

    Attributes:
        against: why trials of this shape are not trained together, or None.
        sizes: how fast cohorts of which size were, and which did not fit into memory.
        recorded: recordings, with the template that each was made with.
    """

    against: str | None = None
    sizes: Sizes = field(default_factory=Sizes)
    recorded: list[tuple[Template, Recordings]] = field(default_factory=list)


class CohortTraining:
    """Trains trials, several at once where that is faithful and faster.

    Args:
        single: trains a trial alone.
        space: what is searched.
        mode: `cohort` trains together whatever can be; `auto` only where it is faster; the others, never.
        size: how many together, at most; `auto` by what was measured.
        trials: of the study's budget, or None; a study is never trained in fewer than four cohorts.
        pace: says when trials are written down.
    """

    def __init__(
        self,
        single: SingleTraining,
        space: Space,
        mode: Literal["auto", "lightning", "lean", "cohort"] = "auto",
        size: int | Literal["auto"] = "auto",
        trials: int | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.single, self.mode = single, mode
        self.pace = pace or Pace()
        self._most = size
        self._trials = trials
        self._searched = frozenset(
            path.removeprefix("model.") for path, p in space.parameters.items() if isinstance(p.range, FloatRange)
        )
        self.shape = frozenset(
            path for path, p in space.parameters.items() if not isinstance(p.range, FloatRange) and path not in UNSHAPED
        )
        self._agreed = frozenset(
            path.removeprefix("model.")
            for path, p in space.parameters.items()
            if isinstance(p.range, Choice) and all(type(v) is float for v in p.range.values) and path in self.shape
        )
        self._known: dict[Hashable, Known] = {}
        self._checked: dict[type, set[str]] = {}
        self._never: str | None = None
        self._bigger_than = BIG

    @property
    def size(self) -> int:
        """How many trials are best asked for at once."""
        if self.mode in ("lightning", "lean") or self._most == 1 or self._against is not None:
            return 1
        if self._most != "auto":
            return self._most
        wanted = max((known.sizes.best for known in self._known.values() if known.against is None), default=8)
        return wanted if self._trials is None else max(1, min(wanted, self._trials // COHORTS))

    def train(self, jobs: Sequence[Job], judge: Judge, more: More = lambda _job, _count: ()) -> Iterator[Trained]:
        """Train trials; yields each as it ends. One that is given back is not yielded, nor one that must begin anew.

        Args:
            jobs: the trials.
            judge: told what trials say after an epoch.
            more: gives new trials for places that have become free.

        Raises:
            TrialInterrupted: somebody asked to stop.
            StudyStopped: the study itself is wrong.
        """
        left: list[Left] = []
        if len(jobs) == 1 or self.size == 1:
            left += [Left(job, self._against or None) for job in jobs]
        else:
            for group in self._grouped(jobs, left):
                yield from self._together(group, judge, more, left)
        for one in left:
            yield from self._alone(one, judge)

    @property
    def _against(self) -> str | None:
        """Why trials are not trained together any more, "" where every result says so itself; None if they are."""
        reasons = [known.against for known in self._known.values()]
        return reasons[0] if reasons and all(reasons) else self._never

    # Alone

    def _alone(self, one: Left, judge: Judge) -> Iterator[Trained]:
        job, verdict = one.job, Verdict.GO_ON

        def on_report(report: Report) -> Verdict:
            nonlocal verdict
            if report.epoch > one.known:
                (verdict,) = judge([(job, report)])
            return verdict

        def keep(snapshot: Callable[[], Snapshot]) -> None:
            if self.pace.epoch_ended() or verdict is Verdict.STOP:
                with self.pace.writing():
                    job.write(snapshot)

        self.pace.begin()
        try:
            result = self.single.train(job.config, on_report, job.keep_weights, job.snapshot, keep)
        except SnapshotUnusable as error:
            _begins_anew(job, error)
            return
        except TrialInterrupted:
            if verdict is Verdict.GIVE_BACK and not self.single.interrupted():
                return
            raise
        if one.reason is not None:
            result = replace(result, trained=f"{result.trained}; not in a cohort: {one.reason}")
        yield job, result

    # Together

    def _grouped(self, jobs: Sequence[Job], left: list[Left]) -> list[tuple[Hashable, list[Slice]]]:
        """Begin every trial, and sort them by shape; those that must be trained alone are left."""
        groups: dict[Hashable, list[Slice]] = {}
        against: list[str] = []
        for job in jobs:
            try:
                one = Slice(job, self.single.begin(job.config, job.snapshot))
                one.check()
                groups.setdefault(self._shape(one), []).append(one)
            except NotFusable as error:
                left.append(Left(job, error.reason))
                against.append(error.reason)
            except NotLean:
                left.append(Left(job))
                against.append("")
            except SnapshotUnusable as error:
                _begins_anew(job, error)
            except Exception:  # noqa: BLE001 - the user's code runs here; alone, the trial tells what is wrong
                left.append(Left(job))
        if 1 < len(jobs) == len(against):
            self._never = against[0]
        return list(groups.items())

    def _shape(self, one: Slice) -> Hashable:
        loader = one.lean.trainer.train_dataloader
        return shape_of(one.module, one.optimizer, loader, one.job.config.get("trainer", {}), self._agreed)

    def _together(
        self,
        group: tuple[Hashable, list[Slice]],
        judge: Judge,
        more: More,
        left: list[Left],
    ) -> Iterator[Trained]:
        """Train slices of one shape."""
        shape, slices = group
        known = self._known.setdefault(shape, Known())
        if len(slices) == 1 or known.against is not None:
            left += [Left(one.job, known.against) for one in slices]
            return
        if len(slices) > (limit := known.sizes.limit):  # it may be another one after the first part
            yield from self._together((shape, slices[:limit]), judge, more, left)
            yield from self._together((shape, slices[limit:]), judge, more, left)
            return
        in_it, size = list(slices), len(slices)
        again: list[Job] = []
        try:
            yield from self._fused(shape, in_it, judge, more, left)
        except TooBig as error:
            self._note(known, error)
            left += [Left(one.job, error.reason) for one in in_it]
        except (OutOfMemoryTogether, MemoryError, RuntimeError) as error:
            if not (isinstance(error, OutOfMemoryTogether) or exhausted(error)):
                raise
            known.sizes.too_many(size)
            again = [one.job for one in in_it if not one.has_reported]  # the others go back to where they came from
        except NotFusable as error:
            if error.attribute is not None and error.attribute not in self._agreed:
                self._agreed |= {error.attribute}
                self.shape |= {f"model.{error.attribute}"}
                again = [one.job for one in in_it if not one.has_reported]
            else:
                known.against = error.reason
                left += [Left(one.job, error.reason, one.reported) for one in in_it]
                if lost := [one.job.number for one in in_it if one.has_reported]:
                    log.warning("trials %s begin again, one by one: %s", lost, error.reason)
        slices.clear()  # others need the memory
        in_it.clear()
        for regrouped in self._grouped(again, left):
            yield from self._together(regrouped, judge, more, left)

    def _fused(
        self, shape: Hashable, in_it: list[Slice], judge: Judge, more: More, left: list[Left]
    ) -> Iterator[Trained]:
        """Train slices of one shape in a cohort; those that are in it are kept in the list."""
        known, size = self._known[shape], len(in_it)
        self.pace.begin()
        cohort = self._cohort(known, in_it)

        def refill(like: Slice, count: int) -> list[Slice]:
            fresh: list[Slice] = []
            known.sizes.measured(size, cohort.step_seconds)
            if self._most == "auto" and self.size > size:
                return fresh  # let this one run out, and begin a larger one
            for new_shape, some in self._grouped(more(like.job, count), left):
                if new_shape == shape:
                    fresh += some
                else:
                    left.extend(Left(one.job) for one in some)
            in_it.extend(fresh)
            return fresh

        for one in cohort.train(judge, refill):
            in_it.remove(one)
            if one.refused:
                left.append(Left(one.job, "it differs in what its step reads"))
            elif isinstance(one.error, NotLean):
                left.append(Left(one.job, None, one.reported))
            elif one.verdict is not Verdict.GIVE_BACK:
                told, kept = trained_by(cohort.told, one.job.snapshot), one.job.keep_weights
                yield one.job, self.single.ended(one.begun, _raised(one), one.seconds, told, kept)
        known.sizes.measured(size, cohort.step_seconds)
        if cohort.slower is not None:
            self._note(known, cohort.slower)

    def _note(self, known: Known, slower: TooBig) -> None:
        """Trials of this shape are not trained together any more, and others only where a step is quicker."""
        known.against = slower.reason
        self._bigger_than = min(self._bigger_than, max(0.9 * slower.alone_seconds, 0.3 * self._bigger_than))

    def _cohort(self, known: Known, slices: Sequence[Slice]) -> Cohort:
        template = Template([one.module for one in slices], self._searched)
        groups = groups_of(slices[0].module, slices[0].optimizer)
        recordings = next((made for other, made in known.recorded if template.does_as(other)), None)
        if recordings is None:
            recordings = Recordings(self._checked.setdefault(type(slices[0].module), set()))
            known.recorded.append((template, recordings))
        bigger_than = self._bigger_than if self.mode == "auto" else None
        return Cohort(slices, groups, template, recordings, self.single.interrupted, bigger_than, self.pace)


def _begins_anew(job: Job, error: SnapshotUnusable) -> None:
    """Its reports are of no use then, so that whoever holds it must return it to the queue."""
    log.warning("trial %d begins anew, since its snapshot cannot be used: %s", job.number, error)
    job.forget()


def _raised(one: Slice) -> Exception | None:
    """What ended a slice; what is no ordinary error rises."""
    if one.error is None or isinstance(one.error, Exception):
        return one.error
    raise one.error
