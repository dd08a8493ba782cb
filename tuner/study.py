"""The sentence in code: the search picks, training trains, the storage keeps, and the best is confirmed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.best import confirmations, leading
from tuner.errors import LeaseLost, StudyStopped, TrialInterrupted
from tuner.search import Search
from tuner.spec import StudySpec, trial_config
from tuner.storage import Lease, Store
from tuner.training import LightningTraining
from tuner.trial import Report, Trial, TrialResult, TrialState, Verdict

MAX_FAILURES_IN_A_ROW = 3
LOOK_SECONDS = 2.0


@dataclass
class Work:
    """What one worker needs to work on one study.

    Attributes:
        store: the truth; `study_id` and `owner` say which study in it, and who works.
        search: proposes and prunes.
        training: trains.
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
    training: LightningTraining
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

    def run(self) -> None:
        """Try configurations until the budget is spent, or somebody asks to stop."""
        while (lease := self._next()) is not None:
            with self.holding(lease):
                try:
                    asked = time.perf_counter()
                    trial = self._proposed(lease)
                    if trial is None:
                        continue
                    asked = time.perf_counter() - asked
                    result = self._train(lease, trial)
                    self.store.finish(lease, replace(result, seconds={"ask": asked, **result.seconds}))
                except TrialInterrupted:
                    self.store.give_back(lease)
                    return
                except LeaseLost:
                    continue  # somebody else has the trial now; the next one is ours
                except BaseException:
                    self.store.give_back(lease)
                    raise
            self._keep_only_leaders()
            self._stop_if_hopeless(result)

    def _next(self) -> Lease | None:
        """The next trial: a waiting one, a new one, or a confirming run; None when there is nothing left to do."""
        while not self.stopped():
            open_new = not self._late(searching=True) and not self._exhausted()
            lease = self.store.claim(self.study_id, self.owner, open_new=open_new)
            if lease is not None:
                return lease
            unfinished = self.store.plan(self.study_id, self._confirmations)
            if unfinished is None:
                return None
            if not (unfinished.waiting or unfinished.running):
                every = "every configuration of the space has been tried"
                self.store.complete(self.study_id, every if self._exhausted() else None)
                return None
            if unfinished.waiting:
                continue
            self.store.reclaim(self.study_id, self.gone)
            self.pause(0.5)  # other workers are on the last trials, which may come back or need confirming
        return None

    def _exhausted(self) -> bool:
        """Whether every configuration of the space has been tried, so that another trial would repeat one."""
        if not self.search.finite:
            return False
        self._look_around()
        return self.search.exhausted

    def _proposed(self, lease: Lease) -> Trial | None:
        """The trial with its values; None if another worker has just taken the last that were left to try."""
        trial = lease.trial
        if trial.params is None:
            while True:
                self._look_around()
                if self.search.exhausted:
                    self.store.withdraw(lease)
                    return None
                params = self.search.propose(trial.number)
                if self.store.propose(lease, params):
                    return trial.with_params(params)
                self.search.refuse(trial.number)
        if trial.confirms is None:
            self._look_around()
            self.search.see([trial])
        return trial

    def _train(self, lease: Lease, trial: Trial) -> TrialResult:
        began = time.monotonic()

        def on_report(report: Report) -> Verdict:
            wanted = self.store.report(lease, report)
            if self.stopped() or not wanted:
                return Verdict.GIVE_BACK
            others = any(t.state is TrialState.RUNNING and t.number != trial.number for t in self.seen.values())
            if others or time.monotonic() - self.looked > LOOK_SECONDS:
                self._look_around(besides=trial.number)
            if trial.confirms is not None:  # a run cut short confirms nothing, so it does not count
                return Verdict.PRUNE if self._late(searching=False) else Verdict.GO_ON
            if self.search.should_prune(trial.number, report.epoch, report.value):
                return Verdict.PRUNE
            limit = self.spec.search.trial_time
            if self._late(searching=True) or (limit and time.monotonic() - began >= limit):
                return Verdict.HALT
            left = self.store.epochs_left(self.study_id) if self.spec.search.epochs else None
            return Verdict.HALT if left is not None and left <= 0 else Verdict.GO_ON

        def keep_weights(result: TrialResult) -> Path | None:
            if trial.confirms is not None:
                return None
            this = replace(trial, state=result.state, result=result)
            numbers = [t.number for t in leading([*self.seen.values(), this], self.spec.goal)]
            return self.checkpoints / f"trial-{trial.number:04d}.ckpt" if trial.number in numbers else None

        config = trial_config(self.spec.base_config, trial.params or {}, trial.seed)
        result = self.training.train(config, on_report, keep_weights)
        if trial.confirms is not None and result.state is TrialState.PRUNED and not result.infeasible:
            return replace(result, reason="the time budget was spent before this confirming run had ended")
        return result

    def _look_around(self, besides: int | None = None) -> None:
        """Tell the search what has changed in the storage."""
        known = {number: trial.revision for number, trial in self.seen.items()}
        changed = [t for t in self.store.trials(self.study_id, known) if t.number != besides]
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
