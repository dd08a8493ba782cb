"""The sentence in code: the search picks, training trains, the storage keeps, and the best is confirmed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tuner.best import confirmations, leading
from tuner.cohort import Job, Judge, More
from tuner.errors import LeaseLost, StorageUnavailable, StudyStopped, TrialInterrupted
from tuner.search import Search
from tuner.spec import StudySpec, trial_config
from tuner.storage import Heard, Lease, Store
from tuner.training import Bookmark, Snapshot, known_epochs, left, seconds_of, sweep
from tuner.trial import Report, Trial, TrialResult, TrialState, Verdict

T = TypeVar("T")
log = logging.getLogger("tuner")

MAX_FAILURES_IN_A_ROW = 3
LOOK_SECONDS = 2.0
LOOK_SHARE = 0.1
"""The share of a trial's time that looking at what other workers report may take."""

SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0


class Condition(Protocol):
    """What a worker knows of its own condition."""

    def well(self) -> None:
        """A trial has got through."""

    def blame(self, result: TrialResult) -> str:
        """Look into a failure that may be the worker's own.

        Returns:
            By what name it is to be remembered that the trial failed here.

        Raises:
            WorkerUnfit, StudyRefused: it is the worker's own.
        """


class Training(Protocol):
    """Whoever trains trials."""

    @property
    def size(self) -> int:
        """How many are best asked for at once."""

    @property
    def shape(self) -> Collection[str]:
        """The parameters in which trials that are trained together agree."""

    def train(self, jobs: Sequence[Job], judge: Judge, more: More) -> Iterator[tuple[Job, TrialResult]]:
        """Train trials; yields each as it ends, but those that are given back.

        Raises:
            TrialInterrupted: somebody asked to stop.
            StudyStopped: the study itself is wrong.
        """


@dataclass
class Held:
    """A trial that this worker has taken.

    Attributes:
        lease: that it is ours.
        trial: with its values.
        ask_seconds: what proposing them took.
        snapshot: where an earlier owner has left it.
    """

    lease: Lease
    trial: Trial
    ask_seconds: float = 0.0
    snapshot: Snapshot | None = None


@dataclass
class Work:
    """What one worker needs to work on one study.

    Attributes:
        store: the truth; `study_id` and `owner` say which study in it, and who works.
        search: proposes and prunes.
        training: trains, several trials in one pass where it can.
        checkpoints: where the leading trials' weights are kept, and what running trials go on from.
        stopped: whether somebody asked to stop; `pause` waits some seconds or until then.
        holding: a context in which a lease is renewed while its trial trains.
        gone: whether a worker of this name is known to be dead.
        seconds_left: wall-clock seconds of the study's time budget left when the work begins, or None.
        elsewhere: whether this worker is wanted at another study. It then takes no more trials of this one.
        patient: whether it waits while others are on the last trials, which may come back or need confirming.
        condition: whether this worker is fit to work; None counts every failure as the trial's.
        document: what the study must still say when it is called complete, or None.
        outage_seconds: how long it waits, training held, for a storage that does not answer, before what it has in hand
            is dropped.
    """

    spec: StudySpec
    store: Store
    study_id: int
    owner: str
    search: Search
    training: Training
    checkpoints: Path
    stopped: Callable[[], bool]
    pause: Callable[[float], object]
    holding: Callable[[Lease], AbstractContextManager[object]]
    gone: Callable[[str], bool]
    seconds_left: float | None = None
    elsewhere: Callable[[], bool] = lambda: False
    patient: bool = True
    condition: Condition | None = None
    document: Mapping[str, Any] | None = None
    outage_seconds: float = 0.0
    seen: dict[int, Trial] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    failures: int = 0
    looked: float = 0.0
    _look_seconds: float = 0.0
    _away_since: float | None = None
    _others: set[int] = field(default_factory=set)
    _leaders: list[Trial] = field(default_factory=list)
    _held: dict[int, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._feed = self.store.feed(self.study_id)

    def run(self) -> bool:
        """Try configurations until the budget is spent, the worker is wanted elsewhere, or somebody asks to stop.

        Returns:
            Whether there was anything to train.
        """
        self._sweep()
        trained = self._work()
        self._sweep()
        return trained

    def _work(self) -> bool:
        trained = False
        while not (trained and self.elsewhere()) and (leases := self._next()):
            trained = True
            with ExitStack() as holding, self._unfinished_go_back():
                try:
                    jobs = self._taken(leases, holding)
                    for job, result in self.training.train(jobs, self._judge, partial(self._more, holding)):
                        self._finish(job, result)
                except TrialInterrupted:
                    return trained
        return trained

    def _next(self) -> list[Lease]:
        """The next trials: waiting ones, new ones, or confirming runs; none when there is nothing left to do."""
        while not self.stopped():
            leases: list[Lease] = []
            most = min(self.training.size, max(1, self._room()))
            while len(leases) < most and (lease := self._claim()) is not None:
                leases.append(lease)
            if leases:
                return leases
            unfinished = self._insisting(lambda _: self.store.plan(self.study_id, self._confirmations))
            if unfinished is None:
                return []
            if not (unfinished.waiting or unfinished.running):
                every = "every configuration of the space has been tried"
                self.store.complete(self.study_id, every if self._exhausted() else None, self.document)
                return []
            if unfinished.waiting:
                continue
            if not self.patient:
                return []
            self._insisting(lambda _: self.store.reclaim(self.study_id, self.gone))
            self.pause(0.5)  # other workers are on the last trials, which may come back or need confirming
        return []

    def _room(self) -> int:
        """How many whole trials the budget of epochs has left; without one, more than anybody asks for."""
        left = self._epochs_left()
        return sys.maxsize if left is None else left // self.spec.max_epochs

    def _epochs_left(self) -> int | None:
        if self.spec.search.epochs is None:
            return None
        return self._insisting(lambda _: self.store.epochs_left(self.study_id))

    def _insisting(self, ask: Callable[[bool], T]) -> T:
        """Ask the storage, and ask again while it is away; `ask` is told whether it has been asked before.

        Raises:
            StorageUnavailable: it was away for too long, over this question and those before it that it did not answer,
                or somebody asked to stop meanwhile.
        """
        wait, again = SHORTEST_WAIT_SECONDS, False
        while True:
            try:
                answer = ask(again)
            except StorageUnavailable as error:
                if self._away_since is None:
                    self._away_since = time.monotonic()
                if self.stopped() or time.monotonic() + wait > self._away_since + self.outage_seconds:
                    raise
                log.warning("%s Trying again in %.1f s.", error, wait)
                self.pause(wait)
                wait, again = min(2 * wait, LONGEST_WAIT_SECONDS), True
            else:
                self._away_since = None
                return answer

    def _claim(self, *, only_new: bool = False) -> Lease | None:
        open_new = not self._late(searching=True) and not self._exhausted()
        return self._insisting(
            lambda _: self.store.claim(self.study_id, self.owner, open_new=open_new, only_new=only_new)
        )

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
                self._give_back(held.lease)
        if returned:
            self._look_around()  # the search forgets what they have reported

    def _give_back(self, lease: Lease) -> None:
        """Return a trial to the queue; one that another worker has now stays with him."""
        self._insisting(lambda _: self.store.give_back(lease))

    def _taken(self, leases: Sequence[Lease], holding: ExitStack, like: Trial | None = None) -> list[Job]:
        """Hold leases, and make jobs of their trials: propose values for those that have none."""
        for lease in leases:
            holding.enter_context(self.holding(lease))
            self._held[lease.trial.number] = Held(lease, lease.trial)
            if lease.trial.began_after is None:
                self._take_up(self._held[lease.trial.number])
        leases = [lease for lease in leases if lease.trial.number in self._held]
        self._propose([lease for lease in leases if lease.trial.params is None], like)
        self._look_around()
        taken = [self._held[lease.trial.number] for lease in leases if lease.trial.number in self._held]
        self.search.see([held.trial for held in taken if held.trial.confirms is None])
        return [self._job(held) for held in taken]

    def _take_up(self, held: Held) -> None:
        """Find out where an earlier owner has left a trial, and say that it goes on there."""
        if held.trial.params is not None:
            held.snapshot = self._bookmark(held, self._config(held.trial)).find(held.trial.values)
        try:
            epoch, seconds = known_epochs(held.snapshot), seconds_of(held.snapshot)
            held.trial = self._insisting(lambda _: self.store.begin_after(held.lease, epoch, seconds))
        except LeaseLost:  # reading took longer than the lease
            del self._held[held.trial.number]

    def _bookmark(self, held: Held, config: Mapping[str, Any]) -> Bookmark:
        return Bookmark(self.checkpoints, held.trial.number, held.lease.token, config)

    def _config(self, trial: Trial) -> dict[str, Any]:
        return trial_config(self.spec.base_config, trial.params or {}, trial.seed)

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
                self._withdraw(lease)
                del self._held[lease.trial.number]
            else:
                held = self._held[lease.trial.number]
                held.trial = held.trial.with_params(found)
        for lease in leases:
            if lease.trial.number in self._held:
                self._held[lease.trial.number].ask_seconds = (time.perf_counter() - asked) / len(leases)

    def _withdraw(self, lease: Lease) -> None:
        self._insisting(lambda _: self.store.withdraw(lease))

    def _found(self, lease: Lease, params: dict[str, Any] | None) -> dict[str, Any] | None:
        """Values for a trial that no other running one has: these, or others; None if all have been tried."""
        while params is None or not self._proposed(lease, params):
            if params is not None:  # another worker has just got the same
                self.search.refuse(lease.trial.number)
            self._look_around()
            if self.search.exhausted:
                return None
            params = self.search.propose(lease.trial.number)
        return params

    def _proposed(self, lease: Lease, params: dict[str, Any]) -> bool:
        return self._insisting(lambda _: self.store.propose(lease, params))

    def _job(self, held: Held) -> Job:
        trial = held.trial

        def keep_weights(result: TrialResult) -> Path | None:
            if trial.confirms is not None:
                return None
            this = replace(trial, state=result.state, result=result)
            numbers = [t.number for t in leading([*self._leaders, this], self.spec.goal)]
            return self._weights(trial.number) if trial.number in numbers else None

        config = self._config(trial)
        return Job(trial.number, config, keep_weights, self._bookmark(held, config), held.snapshot)

    def _weights(self, number: int) -> Path:
        """Where a trial's best weights are kept while it is among the leading ones."""
        return self.checkpoints / f"trial-{number:04d}.ckpt"

    def _more(self, holding: ExitStack, like: Job, count: int) -> list[Job]:
        """New trials to take free places beside one that is being trained."""
        leases: list[Lease] = []
        if self.elsewhere():
            return []
        count = min(count, self._room() - len(self._held))
        while len(leases) < count and (lease := self._claim(only_new=True)) is not None:
            leases.append(lease)
        return self._taken(leases, holding, self._held[like.number].trial)

    def _judge(self, said: Sequence[tuple[Job, Report]]) -> list[Verdict]:
        """Write what trials say after an epoch, and answer each."""
        own = {job.number: self._held[job.number] for job, _ in said}
        reports = [(own[job.number].lease, report) for job, report in said]
        heard = self._insisting(lambda again: self.store.report_together(reports, again))
        if self.stopped() or not heard.running:
            return [self._stopped(own[job.number], heard) for job, _ in said]
        others = bool(self._others - self._held.keys())
        if time.monotonic() - self.looked > (self._look_seconds / LOOK_SHARE if others else LOOK_SECONDS):
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

    def _stopped(self, held: Held, heard: Heard) -> Verdict:
        """The answer to a trial when the study is being stopped; all that wait for their turn go back, too."""
        if held.lease.trial_id not in heard.lost:
            return Verdict.STOP
        del self._held[held.trial.number]
        return Verdict.GIVE_BACK

    def _verdict(self, trial: Trial, report: Report, pruned: bool) -> Verdict:
        if trial.confirms is not None:  # a run cut short confirms nothing, so it does not count
            return Verdict.PRUNE if self._late(searching=False) else Verdict.GO_ON
        if pruned:
            return Verdict.PRUNE
        limit = self.spec.search.trial_time
        if self._late(searching=True) or (limit and report.seconds >= limit):
            return Verdict.HALT
        left = self._epochs_left()
        return Verdict.HALT if left is not None and left <= 0 else Verdict.GO_ON

    def _finish(self, job: Job, result: TrialResult) -> None:
        """Write how a trial ended."""
        held = self._held[job.number]
        if result.fault is not None and self._set_back(held, result):
            return
        if result.state is not TrialState.FAILED and self.condition is not None:
            self.condition.well()
        if held.trial.confirms is not None and result.state is TrialState.PRUNED and not result.infeasible:
            result = replace(result, reason="the time budget was spent before this confirming run had ended")
        told = replace(result, seconds={"ask": held.ask_seconds, **result.seconds})
        try:
            self._insisting(lambda _: self.store.finish(held.lease, told))
        except LeaseLost:
            return  # somebody else has the trial now, or the answer to an earlier try was lost, and not the result
        finally:
            del self._held[job.number]
        job.forget()
        self._keep_only_leaders(job.number)
        self._stop_if_hopeless(result)

    def _set_back(self, held: Held, result: TrialResult) -> bool:
        """Return a trial to the queue that failed for reasons of its worker; False if it is the trial after all.

        Raises:
            WorkerUnfit, StudyRefused: it is certain that the worker is to blame; all that it has taken goes back.
        """
        if self.condition is None:
            return False
        place, reason = self.condition.blame(result), result.reason or "no reason was told"
        if not self._insisting(lambda _: self.store.set_back(held.lease, place, reason)):
            return False
        del self._held[held.trial.number]
        self._look_around()  # the search forgets what it has reported
        return True

    def _look_around(self) -> None:
        """Tell the search what has changed in the storage, but for our own trials, of which it knows."""
        began = time.monotonic()
        changed = self._insisting(lambda _: self._feed.changes(without=self._held))
        self.seen |= {trial.number: trial for trial in changed}
        self._others -= {trial.number for trial in changed}
        self._others |= {trial.number for trial in changed if trial.state is TrialState.RUNNING}
        self._leaders = leading([*self._leaders, *changed], self.spec.goal)  # what is complete stays so
        self.search.see(changed)
        self.looked = time.monotonic()
        self._look_seconds = self.looked - began

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
            if not self._leaders:
                raise StudyStopped(f"{self.failures} trials failed one after the other; the last: {result.reason}")

    def _keep_only_leaders(self, ended: int) -> None:
        """Delete the weights of trials that others have overtaken, if the one that has ended may be such another."""
        if not self._weights(ended).exists():
            return
        self._look_around()
        leaders = {trial.number for trial in self._leaders}
        for path in self.checkpoints.glob("trial-*.ckpt"):
            number = int(path.stem.removeprefix("trial-"))
            trial = self.seen.get(number)
            if trial and trial.state.finished and number not in leaders:  # one that runs may just have saved its own
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what finished trials could have gone on from, where their owners did not."""
        if left(self.checkpoints):
            self._look_around()
            sweep(self.checkpoints, {number for number, trial in self.seen.items() if trial.state.finished})
