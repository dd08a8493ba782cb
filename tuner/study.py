"""The sentence in code: the search picks, training trains, the storage keeps, and the best is confirmed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tuner.best import confirmations, leading
from tuner.cohort import CohortTraining, Job
from tuner.errors import LeaseLost, StudyStopped, TrialInterrupted
from tuner.search import Search
from tuner.spec import StudySpec, trial_config
from tuner.storage import Lease, Store
from tuner.trial import Report, Trial, TrialResult, TrialState, Verdict

MAX_FAILURES_IN_A_ROW = 3
LOOK_SECONDS = 2.0


@dataclass
class Held:
    """A trial that this worker has taken.

    Attributes:
        lease: that it is ours.
        trial: with its values.
        ask_seconds: what proposing them took.
    """

    lease: Lease
    trial: Trial
    ask_seconds: float = 0.0


@dataclass
class Work:
    """What one worker needs to work on one study.

    Attributes:
        store: the truth; `study_id` and `owner` say which study in it, and who works.
        search: proposes and prunes.
        training: trains, several trials in one pass where it can.
        checkpoints: where the leading trials' weights are kept.
        stopped: whether somebody asked to stop; `pause` waits some seconds or until then.
        holding: a context in which a lease is renewed while its trial trains.
        gone: whether a worker of this name is known to be dead.
        seconds_left: wall-clock seconds of the study's time budget left when the work begins, or None.
    """

    spec: StudySpec
    store: Store
    study_id: int
    owner: str
    search: Search
    training: CohortTraining
    checkpoints: Path
    stopped: Callable[[], bool]
    pause: Callable[[float], object]
    holding: Callable[[Lease], AbstractContextManager[object]]
    gone: Callable[[str], bool]
    seconds_left: float | None = None
    seen: dict[int, Trial] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    failures: int = 0
    looked: float = 0.0
    _held: dict[int, Held] = field(default_factory=dict)

    def run(self) -> None:
        """Try configurations until the budget is spent, or somebody asks to stop."""
        while leases := self._next():
            with self._unfinished_go_back(), ExitStack() as holding:
                try:
                    jobs = self._taken(leases, holding)
                    for job, result in self.training.train(jobs, self._judge, partial(self._more, holding)):
                        self._finish(job, result)
                except TrialInterrupted:
                    return

    def _next(self) -> list[Lease]:
        """The next trials: waiting ones, new ones, or confirming runs; none when there is nothing left to do."""
        while not self.stopped():
            leases: list[Lease] = []
            most = min(self.training.size, max(1, self._room()))
            while len(leases) < most and (lease := self._claim()) is not None:
                leases.append(lease)
            if leases:
                return leases
            unfinished = self.store.plan(self.study_id, self._confirmations)
            if unfinished is None:
                return []
            if not (unfinished.waiting or unfinished.running):
                every = "every configuration of the space has been tried"
                self.store.complete(self.study_id, every if self._exhausted() else None)
                return []
            if unfinished.waiting:
                continue
            self.store.reclaim(self.study_id, self.gone)
            self.pause(0.5)  # other workers are on the last trials, which may come back or need confirming
        return []

    def _room(self) -> int:
        """How many whole trials the budget of epochs has left; without one, more than anybody asks for."""
        left = self.store.epochs_left(self.study_id) if self.spec.search.epochs else None
        return sys.maxsize if left is None else left // self.spec.max_epochs

    def _claim(self, *, only_new: bool = False) -> Lease | None:
        open_new = not self._late(searching=True) and not self._exhausted()
        return self.store.claim(self.study_id, self.owner, open_new=open_new, only_new=only_new)

    def _exhausted(self) -> bool:
        """Whether every configuration of the space has been tried, so that another trial would repeat one."""
        if not self.search.finite:
            return False
        self._look_around()
        return self.search.exhausted

    @contextmanager
    def _unfinished_go_back(self) -> Iterator[None]:
        """Return to the queue what was taken and not finished, however it ends."""
        try:
            yield
        finally:
            returned = list(self._held.values())
            self._held.clear()
            for held in returned:
                self.store.give_back(held.lease)  # one that another worker has now stays with him
        if returned:
            self._look_around()  # the search forgets what they have reported

    def _taken(self, leases: Sequence[Lease], holding: ExitStack, like: Trial | None = None) -> list[Job]:
        """Hold leases, and make jobs of their trials: propose values for those that have none."""
        for lease in leases:
            holding.enter_context(self.holding(lease))
            self._held[lease.trial.number] = Held(lease, lease.trial)
        self._propose([lease for lease in leases if lease.trial.params is None], like)
        self._look_around()
        self.search.see([held.trial for held in self._held.values() if held.trial.confirms is None])
        taken = [self._held[lease.trial.number] for lease in leases if lease.trial.number in self._held]
        return [self._job(held) for held in taken]

    def _propose(self, leases: Sequence[Lease], like: Trial | None) -> None:
        """Propose values; a trial for which there is nothing left to try is withdrawn."""
        if not leases:
            return
        asked = time.perf_counter()
        self._look_around()
        numbers = [lease.trial.number for lease in leases]
        together: list[dict[str, Any] | None] = [None] * len(leases)
        if len(leases) > 1 and not self.search.finite:
            together = [*self.search.propose_together(numbers, self.training.shape, like.params if like else None)]
        for lease, params in zip(leases, together, strict=True):
            found = self._found(lease, params)
            if found is None:
                del self._held[lease.trial.number]
                self.store.withdraw(lease)
            else:
                self._held[lease.trial.number].trial = lease.trial.with_params(found)
        for lease in leases:
            if (held := self._held.get(lease.trial.number)) is not None:
                held.ask_seconds = (time.perf_counter() - asked) / len(leases)

    def _found(self, lease: Lease, params: dict[str, Any] | None) -> dict[str, Any] | None:
        """Values for a trial that no other running one has: these, or others; None if all have been tried."""
        while params is None or not self.store.propose(lease, params):
            if params is not None:  # another worker has just got the same
                self.search.refuse(lease.trial.number)
            self._look_around()
            if self.search.exhausted:
                return None
            params = self.search.propose(lease.trial.number)
        return params

    def _job(self, held: Held) -> Job:
        trial = held.trial

        def keep_weights(result: TrialResult) -> Path | None:
            if trial.confirms is not None:
                return None
            this = replace(trial, state=result.state, result=result)
            numbers = [t.number for t in leading([*self.seen.values(), this], self.spec.goal)]
            return self.checkpoints / f"trial-{trial.number:04d}.ckpt" if trial.number in numbers else None

        return Job(trial.number, trial_config(self.spec.base_config, trial.params or {}, trial.seed), keep_weights)

    def _more(self, holding: ExitStack, like: Job, count: int) -> list[Job]:
        """New trials to take free places beside one that is being trained."""
        leases: list[Lease] = []
        count = min(count, self._room() - len(self._held))
        while len(leases) < count and (lease := self._claim(only_new=True)) is not None:
            leases.append(lease)
        return self._taken(leases, holding, self._held[like.number].trial)

    def _judge(self, said: Sequence[tuple[Job, Report]]) -> list[Verdict]:
        """Write what trials say after an epoch, and answer each."""
        own = {job.number: self._held[job.number] for job, _ in said}
        heard = self.store.report_together([(own[job.number].lease, report) for job, report in said])
        if self.stopped() or not heard.running:
            return [Verdict.GIVE_BACK] * len(said)
        others = any(t.state is TrialState.RUNNING and t.number not in self._held for t in self.seen.values())
        if others or time.monotonic() - self.looked > LOOK_SECONDS:
            self._look_around()
        searching = [(job.number, r.epoch, r.value) for job, r in said if own[job.number].trial.confirms is None]
        pruned = {number for number, *_ in searching} & self.search.pruned_of(searching)
        verdicts = []
        for job, report in said:
            held = own[job.number]
            if held.lease.trial_id in heard.lost:
                del self._held[job.number]
                verdicts.append(Verdict.GIVE_BACK)
            else:
                verdicts.append(self._verdict(held.trial, report, job.number in pruned))
        return verdicts

    def _verdict(self, trial: Trial, report: Report, pruned: bool) -> Verdict:
        if trial.confirms is not None:  # a run cut short confirms nothing, so it does not count
            return Verdict.PRUNE if self._late(searching=False) else Verdict.GO_ON
        if pruned:
            return Verdict.PRUNE
        limit = self.spec.search.trial_time
        if self._late(searching=True) or (limit and report.seconds >= limit):
            return Verdict.HALT
        left = self.store.epochs_left(self.study_id) if self.spec.search.epochs else None
        return Verdict.HALT if left is not None and left <= 0 else Verdict.GO_ON

    def _finish(self, job: Job, result: TrialResult) -> None:
        """Write how a trial ended."""
        held = self._held[job.number]
        if held.trial.confirms is not None and result.state is TrialState.PRUNED and not result.infeasible:
            result = replace(result, reason="the time budget was spent before this confirming run had ended")
        try:
            self.store.finish(held.lease, replace(result, seconds={"ask": held.ask_seconds, **result.seconds}))
        except LeaseLost:
            return  # somebody else has the trial now
        finally:
            del self._held[job.number]
        self._keep_only_leaders()
        self._stop_if_hopeless(result)

    def _look_around(self) -> None:
        """Tell the search what has changed in the storage, but for our own trials, of which it knows."""
        known = {number: trial.revision for number, trial in self.seen.items()}
        changed = [t for t in self.store.trials(self.study_id, known) if t.number not in self._held]
        self.seen |= {trial.number: trial for trial in changed}
        self.search.see(changed)
        self.looked = time.monotonic()

    def _confirmations(self, trials: list[Trial]) -> list[tuple[int, int]]:
        seeds = 0 if self._late(searching=False) else self.spec.search.confirm
        return confirmations(trials, self.spec.goal, seeds, self.spec.seed_everything)

    def _late(self, *, searching: bool) -> bool:
        """Whether the time budget is spent; the search leaves its last fifth to confirming."""
        if self.seconds_left is None or self.spec.search.time is None:
            return False
        kept = 0.2 * self.spec.search.time if searching and self.spec.search.confirm else 0.0
        return time.monotonic() - self.began >= self.seconds_left - kept

    def _stop_if_hopeless(self, result: TrialResult) -> None:
        """Give the study up when trial after trial raises and none has ever got through: the fault is not theirs."""
        self.failures = self.failures + 1 if result.state is TrialState.FAILED else 0
        if self.failures >= MAX_FAILURES_IN_A_ROW:
            self._look_around()
            if not leading(self.seen.values(), self.spec.goal):
                raise StudyStopped(f"{self.failures} trials failed one after the other; the last: {result.reason}")

    def _keep_only_leaders(self) -> None:
        """Delete the weights of trials that others have overtaken."""
        if not self.checkpoints.is_dir():
            return
        self._look_around()
        leaders = {trial.number for trial in leading(self.seen.values(), self.spec.goal)}
        for path in self.checkpoints.glob("trial-*.ckpt"):
            number = int(path.stem.removeprefix("trial-"))
            trial = self.seen.get(number)
            if trial and trial.state.finished and number not in leaders:  # one that runs may just have saved its own
                path.unlink(missing_ok=True)
