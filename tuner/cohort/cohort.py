"""K trials trained in one pass, epoch after epoch: their steps together, all else each by itself."""

# Shapes: K = slices, P = trained parameters of one, S = steps of an epoch.

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort.check import check, clock
from tuner.cohort.descent import clip, descent_of
from tuner.cohort.draws import Draws
from tuner.cohort.errors import NotFusable, TooBig
from tuner.cohort.job import Judge
from tuner.cohort.loading import batches_of
from tuner.cohort.recording import Recordings
from tuner.cohort.rows import Groups, Rows
from tuner.cohort.slice import Slice
from tuner.cohort.step import Batches, Outcome, Step
from tuner.cohort.template import Logged, Place, Template
from tuner.errors import TrialInterrupted
from tuner.training import Pace
from tuner.training.recorder import means
from tuner.trial import Report, Verdict, trial_seed

COHORTS = 4
"""A study is never trained in fewer cohorts than this, so that the search can learn."""

_PROBED = 5
"""Recorded steps after which the decision is made."""

_PAYS = 1.1
"""How many times as fast a cohort must be to be worth it."""

_RECORDED = 600
"""Steps of all places that cost what new recordings do, roughly. A clock would tell better, but not twice the same."""

Said = tuple[Sequence[tuple[Logged, Tensor | float]], int]
"""What a step has logged, and the size of its batch."""

Refill = Callable[[Slice, int], Sequence[Slice]]
"""Asked for so many new slices of the shape of one; gives as many as there are."""


def _none_left(_slice: Slice, _count: int) -> Sequence[Slice]:
    """Give nobody a free place."""
    return ()


class Cohort:
    """Trains slices of one shape.

    Args:
        slices: K of them, begun.
        groups: the parameters that their optimisers train.
        template: stands for all of them.
        recordings: of steps of this shape.
        interrupted: asked at every step; True drops all.
        bigger_than: give up where training each slice alone would be as fast; it is where a step alone takes so many
            seconds or more. None is never.
        pace: says when the slices are written down.

    Attributes:
        validates_alone: why each slice is validated by itself, or None.
        step_seconds: what a training step takes once it is recorded, or None as long as none is.
        slower: that the slices would be as fast one by one; found after the first epoch, it is advice for others.
    """

    def __init__(
        self,
        slices: Sequence[Slice],
        groups: Groups,
        template: Template,
        recordings: Recordings,
        interrupted: Callable[[], bool],
        bigger_than: float | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.slices = list(slices)
        self.pace = pace or Pace()
        self.template, self.recordings, self.interrupted = template, recordings, interrupted
        self.rows = Rows([s.module for s in slices], groups)
        self.descent = descent_of(self.rows, [s.optimizer for s in slices])
        self.training = Step(template, self.rows, "training_step", trains=True, recordings=recordings)
        self.validating: Step | None = Step(template, self.rows, "validation_step", trains=False, recordings=recordings)
        self.validates_alone: str | None = None
        self.step_seconds: float | None = None
        self.slower: TooBig | None = None
        self._replayed = self._epochs = 0
        self.alone_seconds = 0.0
        self._bigger_than = bigger_than
        self._checked: set[str] = set()
        seed = trial_seed(slices[0].job.config["seed_everything"], len(slices))
        self._draws = Draws(torch.Generator().manual_seed(seed).get_state(), None, None, host=False)
        self._clips()

    def train(self, judge: Judge, refill: Refill = _none_left) -> Iterator[Slice]:
        """Train until every slice is over; yields each when it is.

        Args:
            judge: told what the slices say after an epoch.
            refill: gives others for the places of slices that are over.

        Raises:
            NotFusable: their steps cannot be made together.
            TrialInterrupted: somebody asked to stop.
        """
        try:
            while self.going:
                started = time.perf_counter()
                with self._draws.going_on():
                    self._epoch(judge)
                self._epochs += 1
                going = self.going
                passed = time.perf_counter() - started
                for one in going:
                    one.seconds += passed / len(going)
                stopping = any(one.verdict is Verdict.STOP for one in going)
                if self.pace.epoch_ended() or stopping:
                    self._write(going)
                yield from self._renewed([one for one in going if one.over], _none_left if stopping else refill)
                if stopping and self.going:
                    raise TrialInterrupted("the study is being stopped")
        finally:
            for k in range(len(self.rows)):
                self.rows.release(k)

    @property
    def going(self) -> list[Slice]:
        """The slices that are being trained. The place of one that is over may stay empty for a while."""
        return [one for one in self.slices if not one.gone]

    @property
    def told(self) -> str:
        """How the slices are trained, in words."""
        alone = f"; validated alone: {self.validates_alone}" if self.validates_alone else ""
        return f"cohort of {len(self.slices)}{alone}"

    def _write(self, going: Sequence[Slice]) -> None:
        """Write down where the slices are that go on."""
        with self.pace.writing():
            for one in going:
                if not one.over:
                    optimizer = self.descent.state_of(self.slices.index(one))
                    with one.alone():
                        one.job.write(partial(one.snapshot, self.told, optimizer))

    # One epoch

    def _epoch(self, judge: Judge) -> None:
        self.recordings.calls_left = COHORTS * max(one.epochs_left for one in self.going)
        for one in self.going:
            with one.alone():
                one.lean.begin_epoch()
                one.check_hooks()
        self.descent.refresh()  # schedules, and hooks, may have changed the learning rate
        steps = self._train_batches()
        due: set[Slice] = set()
        for one in self._healthy():
            with one.alone():
                one.lean.stepped(0 if one.lean.optimisation.schedules_steps else steps)
                if one.lean.is_validated():
                    one.lean.begin_validation()
                    due.add(one)
        if due:
            self._validate([one for one in self.slices if one in due])
        said: dict[Slice, Report] = {}
        for one in self._healthy():
            with one.alone():
                if one in due:
                    one.lean.end_validation()
                one.lean.end_batches()
                if (report := one.observer.drafted(one.lean.trainer)) is not None:
                    said[one] = report
        if said:
            verdicts = judge([(one.job, report) for one, report in said.items()])
            for one, verdict in zip(said, verdicts, strict=True):
                one.verdict = verdict
        for one in self._healthy():
            if one.verdict is not Verdict.GIVE_BACK:
                with one.alone():
                    one.lean.end_epoch()
        if not any(one.draws.used for one in self.slices):
            for one in self.slices:
                one.draws.host = False

    def _healthy(self) -> list[Slice]:
        """The slices that are being trained and have raised nothing."""
        return [one for one in self.slices if one.healthy]

    def _train_batches(self) -> int:
        """Train an epoch's batches; how many those were."""
        if not self._healthy():
            return 0
        self._look()
        self.template.like(self._healthy()[0].module)
        count = self._healthy()[0].lean.trainer.num_training_batches
        stepwise = [one for one in self._healthy() if one.lean.optimisation.schedules_steps]
        logged: list[Said] = []
        for index, batches in enumerate(self._batches(lambda one: one.lean.batches, count)):
            if self.interrupted():
                raise TrialInterrupted("asked to stop")
            if index == 0:
                self._gather(self.training)
                self._check(self.training, batches)
            started = clock()
            out = self.training(batches)
            if out.gradients is None or out.loss is None:
                raise RuntimeError("a training step must give gradients")
            self.descent.step(self._clipped(out.gradients), out.loss)
            self._weigh(out, clock() - started)
            logged.append((out.logged, self._size(out, batches)))
            for one in stepwise:
                if one.error is None:
                    with one.alone():
                        vars(one.lean.trainer)["global_step"] += 1
                        one.lean.optimisation.schedule("step", index)
            if stepwise:
                self.descent.refresh()
        self._scatter(self.training)
        self._record("training_step", logged)
        return len(logged)

    def _weigh(self, out: Outcome, seconds: float) -> None:
        """Note how long a recorded step takes; give up if the slices would be as fast one by one."""
        if not out.replayed or self._replayed == _PROBED:
            return
        self.step_seconds = seconds if self.step_seconds is None else min(seconds, self.step_seconds)
        self._replayed += 1
        if self._bigger_than is None or self._replayed != _PROBED:
            return
        each = self.step_seconds / len(self.slices)
        if self.alone_seconds < _PAYS * each:
            self.slower = TooBig(
                f"a step takes {1e3 * each:.2f} ms a trial in a cohort of {len(self.slices)} and "
                f"{1e3 * self.alone_seconds:.2f} ms alone",
                self.alone_seconds,
            )
            if self._epochs == 0:
                raise self.slower

    def _validate(self, due: Sequence[Slice]) -> None:
        """Validate slices on their batches, in one pass if that can be."""
        if len(due) < len(self._healthy()) or not self._validated_together():
            for one in due:
                with one.alone():
                    one.lean.validation.run_batches()

    def _validated_together(self) -> bool:
        """Validate all slices in one pass; False if that cannot be, and then nothing has happened."""
        step = self.validating
        if step is None or not self._healthy():
            return False
        first, draws = self._healthy()[0], [replace(one.draws) for one in self.slices]
        logged: list[Said] = []
        try:
            first.check_validation()
            self.template.like(first.module)
            self._look()
            self._gather(step)
            for batches in self._batches(lambda one: one.lean.validation.passed, first.lean.validation.sizes[0]):
                self._check(step, batches)
                out = step(batches)
                logged.append((out.logged, self._size(out, batches)))
        except NotFusable as reason:
            if logged:
                raise
            self.validates_alone, self.validating = reason.reason, None
            for one, before in zip(self.slices, draws, strict=True):
                if one.healthy:
                    with one.alone():
                        one.lean.validation.rewind()
                    one.draws = before  # what beginning a pass draws was drawn before
            return False
        self._scatter(step)
        self._record("validation_step", logged)
        return True

    def _batches(self, passed: Callable[[Slice], Any], count: int) -> Iterator[Batches]:
        """So many batches of all slices."""
        passes = [passed(one) if one.healthy else None for one in self.slices]
        given = 0
        for batches in islice(batches_of(passes, [one.draws for one in self.slices]), count):
            given += 1
            yield batches
        if given < count:
            raise NotFusable("its loader gives fewer batches than it says")

    # What slices keep between steps

    @property
    def _may_change(self) -> bool:
        """Whether hooks may change more of a module than its steps do. tuner's own do not; to look takes its time."""
        return self._epochs < 2 or not type(self.slices[0].module).__module__.startswith("tuner.models.")

    def _gather(self, step: Step) -> None:
        """Stack the attributes of the slices' modules that hold tensors; an empty place takes another's."""
        some = self._healthy()[0].module
        modules = [one.module if one.healthy else some for one in self.slices]
        step.state = self.template.state_of(modules, step.method, search=self._may_change)

    def _look(self) -> None:
        """Take over what hooks have changed in the slices' modules since the last step."""
        if not self._may_change:
            return
        modules = {k: one.module for k, one in enumerate(self.slices) if one.healthy}
        for k in modules:
            self.rows.look(k)
        if self.template.look(modules):
            self._checked.clear()

    def _scatter(self, step: Step) -> None:
        """Give every slice's module its own part of what the steps have left."""
        for k, one in enumerate(self.slices):
            for place, value in step.state.items() if one.healthy else ():
                self._set(
                    one, place, pytree.tree_map(lambda t, k=k: t[k].clone() if isinstance(t, Tensor) else t, value)
                )

    @staticmethod
    def _set(one: Slice, place: Place, value: Any) -> None:
        path, name = place
        one.module.get_submodule(path).__dict__[name] = value

    def _record(self, hook: str, steps: Sequence[Said]) -> None:
        """Tell every slice's recorder what its steps have logged."""
        gathered_values: dict[Any, tuple[list[Any], list[int]]] = {}
        for said, size in steps:
            for call, value in said:
                options = {name: option for name, option in call.options.items() if name != "batch_size"}
                key = (call.name, tuple(sorted(options.items(), key=lambda item: item[0])))
                values, counts = gathered_values.setdefault(key, ([], []))
                values.append(value)
                counts.append(call.options.get("batch_size") or size)
        for (name, options_), (values, counts) in gathered_values.items():
            double = any(isinstance(v, Tensor) and v.dtype == torch.float64 for v in values)
            kind = torch.float64 if double else torch.float32
            columns = torch.stack(
                [
                    v.to(kind) if isinstance(v, Tensor) else torch.full((len(self.slices),), v, dtype=kind)
                    for v in values
                ]
            )  # (S, K)
            averages = torch.from_numpy(means(columns.numpy(force=True), counts)).unbind()
            for one, numbers, average in zip(self.slices, columns.T.tolist(), averages, strict=True):
                if one.healthy:
                    with one.answerable():
                        one.lean.recorder.take(hook, name, dict(options_), numbers, counts, average.clone())

    def _size(self, out: Outcome, batches: Batches) -> int:
        """How much a batch counts where `self.log` is not told."""
        if all("batch_size" in call.options for call, _ in out.logged):
            return 1
        leaves = [tensor if batches.shared else tensor[0] for tensor in batches.tensors]
        return self.slices[0].size_of(pytree.tree_unflatten(leaves, batches.spec))

    # Clipping and checking

    def _clips(self) -> None:
        norms = torch.tensor([one.norms() for one in self.slices], dtype=torch.float64)  # (K, 2)
        bounds = torch.tensor([one.bound() for one in self.slices], dtype=torch.float64)
        self._norms = [column for column in norms.T if bool(column.isfinite().any())]
        self._bounds = bounds if bool(bounds.isfinite().any()) else None

    def _clipped(self, gradients: Tensor) -> Tensor:
        if self._bounds is not None:
            gradients = clip(gradients, values=self._bounds)
        for norms in self._norms:
            gradients = clip(gradients, norms=norms)
        return gradients

    def _check(self, step: Step, batches: Batches) -> None:
        """The shadow check, once for each method."""
        if step.method not in self._checked:
            healthy = [k for k, one in enumerate(self.slices) if one.healthy]
            alone = check(step, self.rows, batches, {healthy[0], healthy[-1]})
            self._gather(step)  # now it is known what the step carries
            if step.trains and self._epochs == 0:
                self.alone_seconds = alone
                if self._bigger_than is not None and alone >= self._bigger_than:
                    raise TooBig(f"a step takes {1e3 * alone:.1f} ms alone, which is arithmetic, not overhead", alone)
            self._checked.add(step.method)

    # Places

    def _renewed(self, over: Sequence[Slice], refill: Refill) -> Iterator[Slice]:
        """Yield slices that are over, and put others into their places, or leave those empty, or close the ranks."""
        if not over:
            return
        for one in over:
            place = self.slices.index(one)
            self.rows.release(place)
            self.descent.leave(place)
            one.gone = True
            yield one
        empty = [k for k, one in enumerate(self.slices) if one.gone]
        fresh = list(refill(self.going[0], len(empty))) if self.going else []
        while fresh and empty:
            new = fresh.pop(0)
            if self.template.accept(empty[0], new.module):
                self._put(empty.pop(0), new)
            else:
                new.refused = True
                yield new
        if empty and self.going and self._closing_pays():
            self._close([k for k, one in enumerate(self.slices) if not one.gone])
        self._clips()

    def _put(self, k: int, new: Slice) -> None:
        self.rows.put(k, new.module)
        self.descent.put(k, new.optimizer)
        self.slices[k] = new

    def _closing_pays(self) -> bool:
        """Whether the steps that are left would save more without empty places than new recordings cost."""
        empty = 1 - len(self.going) / len(self.slices)
        return empty * max(one.steps_left for one in self.going) > _RECORDED

    def _close(self, kept: Sequence[int]) -> None:
        self.slices = [self.slices[k] for k in kept]
        self.rows.keep(kept)
        self.template.keep(kept)
        self.descent.keep(kept)
