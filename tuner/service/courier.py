"""The courier brings what the storage knows to MLflow and to Optuna's tables, beside the training, never in its way.

What has not been brought waits in the storage: a trial carries the revision that MLflow has seen. When MLflow is down,
the courier tries again, less and less often, and the next process that has a courier brings the rest.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuner.errors import StorageUnavailable, StudyNotFound, TrackingDoubtful, TrackingRefused, TrackingUnavailable
from tuner.home import Home, shown
from tuner.insight import Diagnosis, prepare
from tuner.report import StudyRecord, ended, note, study_page
from tuner.search import OptunaCopy
from tuner.service.entry import space_changes, spec_of
from tuner.service.identity import gone, identity
from tuner.service.reporting import record_of
from tuner.service.result import searching
from tuner.space.yaml import write_yaml
from tuner.spec import StudySpec
from tuner.storage import COMPLETE, ENDED, FAILED, RUN, Database, OptunaTables, Store, StudyRow, Untracked
from tuner.trial import Trial, TrialState

if TYPE_CHECKING:
    from tuner.tracking import MLflowTracker

log = logging.getLogger("tuner")

TICK_SECONDS = 1.0
RUNNING_SECONDS = 5.0
"""How often a trial that is being trained is brought up to date; one that has ended is brought at once. A write costs
more than many a trial's epoch, so short trials are written once, whole."""
NOTE = "mlflow.note.content"  # what MLflow shows as a run's description
NEVER = -1  # the revision of a trial of which MLflow has seen nothing
NOTE_SECONDS, PAGE_SECONDS = 30.0, 600.0
"""How often the study's description in MLflow, and its report, are brought up to date while it runs."""
MOST_DOUBTS = 5
"""So often a trial is sent that MLflow does not take, while it takes everything else, before it is left out."""
MOST_READ = 300_000
"""After more epochs than this no new diagnosis is made for the report in MLflow, which reads all of their curves: that
takes half a gigabyte, and ten seconds. `tuner diagnose` and `tuner report` read them all."""
LONGEST_WAIT_SECONDS = 30.0  # well within the courier's lease, which each round renews
LONGEST_ROUND_SECONDS = 20.0  # so is this, however slow MLflow is


@dataclass
class Courier:
    """A thread that follows one study.

    Args:
        study: its name in the storage.
        home: where the storage and MLflow are.
        tick: seconds between two looks.
        standby: seconds between two looks whether another courier of the study has gone.
        counts_time: whether its time is the study's; workers of the service count that themselves.
        ahead: whether a core is free, so that what the report takes is imported beside the training, not after it.
        beside: called with the storage after each round, if MLflow has answered.
    """

    study: str
    home: Home
    tick: float = TICK_SECONDS
    standby: float = TICK_SECONDS
    counts_time: bool = True
    ahead: bool = False
    beside: Callable[[Store], object] = lambda _: None

    def __post_init__(self) -> None:
        self.problem: str | None = None
        self.in_charge = False  # whether this is the one courier of the study, so its process the one that runs it
        self._end, self._give_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="tuner-courier", daemon=True)

    def start(self) -> Courier:
        """Begin to follow the study."""
        self._thread.start()
        return self

    @property
    def alive(self) -> bool:
        """Whether it still follows the study."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Let it bring what is left, however long that takes, and end; do not wait for it."""
        self._end.set()

    def finish(self, patience: float = 30.0) -> None:
        """Bring what is left and end; give MLflow one try, and at most `patience` seconds, for it."""
        self._give_up.set()
        self.end()
        self._thread.join(patience)
        if self._thread.is_alive():
            self.problem = f"MLflow at {shown(self.home.tracking)} takes longer than {patience:.0f} s"

    def _run(self) -> None:
        database = Database(self.home.storage)
        store, owner = Store(database), identity()
        route: Route | None = None
        ledger = {"courier": 0.0, "courier_cpu": 0.0}
        wait, spent_until = self.tick, time.monotonic()
        while True:
            last = self._end.is_set()
            began, cpu = time.perf_counter(), time.thread_time()
            try:
                row = store.study(self.study)
                was_in_charge, self.in_charge = self.in_charge, store.become_courier(row.id, owner, gone)
                elapsed, spent_until = time.monotonic() - spent_until, time.monotonic()
                if not self.in_charge:
                    wait = self.standby
                else:
                    if self.counts_time:
                        store.spend(row.id, elapsed)  # only the one in charge counts the study's time
                    if route is None or not was_in_charge:  # what another courier sent meanwhile is not in its memory
                        route = Route(store, row, spec_of(row), self.home)
                    route.go(last=last)
                    self.problem, wait = None, self.tick
                    if self.ahead:
                        prepare()
                    self.beside(store)
            except StudyNotFound:  # it was deleted, and with it what could be brought
                self.in_charge = False
                break
            except Exception as error:  # noqa: BLE001 - whatever fails here must end neither tracking nor training
                if self.problem is None:
                    log.warning("%s Training goes on; what is missing there waits and is sent later.", error)
                self.problem = str(error)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            ledger["courier"] += time.perf_counter() - began
            ledger["courier_cpu"] += time.thread_time() - cpu
            if last and (self.problem is None or self._give_up.is_set()):
                break
            (self._give_up if last else self._end).wait(wait)
        try:
            if self.in_charge:
                store.add_ledger(row.id, ledger)
                store.leave_courier(row.id, owner)
        except StorageUnavailable as error:
            log.warning("%s", error)
        finally:
            if route is not None:
                route.close()
            database.close()


class Route:
    """What the courier does at each round."""

    def __init__(self, store: Store, row: StudyRow, spec: StudySpec, home: Home) -> None:
        self._store = store
        self._row = row
        self._spec = spec
        self._home = home
        self._trials: dict[int, Trial] = {}
        self._optuna: OptunaCopy | None = None
        self._uncopied: dict[int, Trial] = {}  # of which Optuna's tables may lack the latest
        self._tracker: MLflowTracker | None = None
        self._doubts: Counter[int] = Counter()  # by trial, how often MLflow would take everything else
        self._troubled = False  # whether an answer of MLflow's was lost, and with it perhaps a run that it has made
        self._told_progress: set[int] = set()
        self._told_facts = False
        self._told_running = -math.inf
        self._told_open = ""
        self._told_note, self._told_page = (
            -math.inf,
            time.monotonic(),
        )  # the first report waits until there is something
        self._diagnosis: tuple[Diagnosis, int] | None = None  # the latest, and of how many ended proposals it is

    def go(self, *, last: bool) -> None:
        """Bring what is new; on the `last` round also how the study stands."""
        running = last or time.monotonic() - self._told_running >= RUNNING_SECONDS
        if running:
            self._told_running = time.monotonic()
        # Read first: what came before them is then known below.
        waiting = self._store.untracked(self._row.id, running=running)
        known = {number: trial.revision for number, trial in self._trials.items()}
        changed = self._store.trials(self._row.id, known)
        self._trials |= {trial.number: trial for trial in changed}
        self._uncopied |= {trial.number: trial for trial in changed}
        try:  # first, because what MLflow has got is marked, and then no later courier asks what Optuna has not
            self._copy_to_optuna()
        finally:  # neither waits for the other
            try:
                self._bring_to_mlflow(waiting, last=last)
            except TrackingUnavailable:
                self._tracker = None  # what MLflow has got of this round is found out when it answers again
                self._troubled = True
                raise

    def close(self) -> None:
        """Let go of the connections."""
        if self._optuna is not None:
            self._optuna.close()
            self._optuna = None

    def _copy_to_optuna(self) -> None:
        if self._optuna is None:
            spec = self._spec
            self._optuna = OptunaCopy(self._home.storage, OptunaTables, spec.study, spec.goal, spec.searched)
        try:
            self._optuna.write(self._uncopied.values())
        except Exception:
            self.close()  # what was written before the answer was lost is found out when the tables are opened again
            raise
        self._uncopied.clear()

    def _bring_to_mlflow(self, waiting: Sequence[Untracked], *, last: bool) -> None:
        if last and self._troubled:
            self._tracker = None  # opening another finds runs that were made late
        tracker = self._tracker
        if tracker is None:
            tracker = self._open()  # which may find that MLflow has lost what it had
            waiting = [item for item in self._store.untracked(self._row.id) if item.trial.number in self._trials]
        sent: dict[int, tuple[int, str | None]] = {}
        doubtful: TrackingDoubtful | None = None
        until = math.inf if last else time.monotonic() + LONGEST_ROUND_SECONDS
        try:
            for item in waiting:
                if time.monotonic() > until:
                    break
                try:
                    run = tracker.write(item.trial, item.reports, item.run_id, self._about(item.trial))
                except (TrackingRefused, TrackingDoubtful) as error:
                    if isinstance(error, TrackingDoubtful) and self._may_pass(item.trial.number, tracker, error):
                        doubtful = error
                        continue
                    log.warning("trial %d is not in MLflow: %s", item.trial.number, error)
                    run = item.run_id
                sent[item.trial.number] = (item.trial.revision, run)
        finally:
            if sent:
                self._store.mark_tracked(self._row.id, sent)
        tracker.progress(self._new_progress())
        self._tell_facts(tracker)
        self._tell_what_is_open(tracker)
        if last:
            self._tell_how_it_stands(tracker)
        else:
            self._tell_how_it_goes(tracker)
        if doubtful is not None:
            raise doubtful

    def _may_pass(self, number: int, tracker: MLflowTracker, error: TrackingDoubtful) -> bool:
        """Whether a trial that MLflow did not take is to be sent again.

        Raises:
            TrackingUnavailable: MLflow takes nothing else, either: the trouble is its own.
        """
        # The time makes it another value, which MLflow must write.
        tracker.tag({"tuner.not_taken": f"trial {number} at {time.time():.0f}: {error}"})
        self._doubts[number] += 1
        return self._doubts[number] < MOST_DOUBTS

    def _open(self) -> MLflowTracker:
        from tuner.tracking import MLflowTracker  # a second of imports, beside the training and not before it

        spec, row = self._spec, self._row
        uid = row.tracked.get("uid")
        tracker = MLflowTracker(self._home.tracking, self._home.artifacts, spec.study, spec.goal, uid)
        tags = {"mlflow.source.name": "tuner", "tuner.sampler": str(spec.sampler), "tuner.pruner": str(spec.pruner)}
        params = {
            "model": spec.model.class_path,
            "data": spec.data.class_path if spec.data else "",
            "objective": f"{spec.goal.direction} {spec.goal.metric}",
            "seed_everything": spec.seed_everything,
        }
        if row.tracked.get(ENDED) is not None:  # before MLflow is told that the study runs
            row = self._track(ended=None)
        run = tracker.open(tags, params, row.tracked.get(RUN), row.created_at)
        changes = space_changes(row)
        if row.tracked.get(RUN) != run or row.tracked.get("space_changes", 0) != len(changes):
            tracker.attach(
                {"study.yaml": write_yaml(spec.document()), "space.yaml": write_yaml(spec.searched.document())}
            )
            if changes:
                tracker.tag({"tuner.space_changes": "\n".join(changes)})
            row = self._track(run_id=run, space_changes=len(changes))
        if missing := tracker.missing(self._store.tracked_runs(row.id)):
            log.warning("MLflow has lost %d trials that it had; they are sent again.", len(missing))
            self._store.mark_tracked(row.id, dict.fromkeys(missing, (NEVER, None)))
        self._told_progress, self._told_facts, self._told_open = set(), False, ""
        self._tracker = tracker
        return tracker

    def _track(self, **known: Any) -> StudyRow:
        """Remember more of the study in MLflow; returns its row."""
        self._store.set_tracked(self._row.id, {**self._row.tracked, **known})
        self._row = self._store.study(self._row.name)
        return self._row

    def _tell_facts(self, tracker: MLflowTracker) -> None:
        """Tag the parent run with where the study runs, as soon as its first worker has said so."""
        if self._told_facts:
            return
        facts = self._store.study(self._row.name).facts
        if "data_hash" not in facts:
            return
        tags = {f"tuner.version.{name}": number for name, number in facts["versions"].items()}
        tags |= {"tuner.data_hash": facts["data_hash"], "tuner.platform": facts["platform"]}
        if facts.get("git_commit"):
            tags |= {"mlflow.source.git.commit": facts["git_commit"], "tuner.git_dirty": str(facts["git_dirty"])}
        tracker.tag(tags)
        self._told_facts = True

    def _about(self, trial: Trial) -> dict[str, str]:
        """Tags of a trial's run: a line on what it was and how it ended, and how it was proposed."""
        return {NOTE: ended(trial), **self._proposed_how(trial)}

    def _proposed_how(self, trial: Trial) -> dict[str, str]:
        """What moved in the proposals of the time when this trial was made; nothing for confirming runs."""
        if trial.confirms is not None or trial.started is None:
            return {}
        if trial.number < len(self._row.facts.get("start", ())):
            return {"tuner.searching": "what search.start says"}
        before = sum(t.finished is not None and t.finished <= trial.started for t in self._proposals())
        return {"tuner.searching": searching(self._spec, before)}

    def _tell_what_is_open(self, tracker: MLflowTracker) -> None:
        """Tag the parent run with what moves in the next proposals."""
        told = searching(self._spec, sum(t.state.finished for t in self._proposals()))
        if told != self._told_open:
            tracker.tag({"tuner.searching": told})
            self._told_open = told

    def _proposals(self) -> list[Trial]:
        return [trial for trial in self._trials.values() if trial.confirms is None]

    def _new_progress(self) -> list[tuple[int, float, float]]:
        """The best value so far, at each complete proposal that it has not been told for, by their count."""
        complete = [t for t in self._proposals() if t.state is TrialState.COMPLETE]
        new, best = [], self._spec.goal.worst
        for count, trial in enumerate(sorted(complete, key=lambda t: (t.finished or 0.0, t.number)), start=1):
            best = trial.score if self._spec.goal.better(trial.score, best) else best
            if trial.number not in self._told_progress:
                new.append((count, trial.finished or 0.0, best))
        self._told_progress |= {trial.number for trial in complete}
        return new

    def _tell_how_it_goes(self, tracker: MLflowTracker) -> None:
        """Bring the description up to date, and more seldom the report, while the study runs."""
        moment = time.monotonic()
        if moment - self._told_note >= NOTE_SECONDS:
            self._told_note = moment
            tracker.tag({NOTE: note(self._record())})
        if moment - self._told_page >= PAGE_SECONDS:
            self._told_page = moment
            self._attach_page(tracker)

    def _tell_how_it_stands(self, tracker: MLflowTracker) -> None:
        record = self._record()
        tags = {"tuner.state": record.state, NOTE: note(record)}
        metrics = {
            "epochs": float(record.epochs),
            "seconds": record.seconds,
            "wasted_seconds": record.wasted_seconds,
        }
        if record.chosen is not None:
            best = record.chosen.trial
            others = {k: v for k, v in best.outcome.metrics.items() if k != self._spec.goal.metric}
            metrics |= tracker.results(others)
            tags["tuner.best_trial"] = str(best.number)
            tracker.attach({"best.yaml": write_yaml(dict(best.outcome.config or {}))})
        tracker.close({COMPLETE: "FINISHED", FAILED: "FAILED"}.get(record.state, "KILLED"), tags, metrics)
        self._attach_page(tracker)
        self._track(ended=record.state)

    def _attach_page(self, tracker: MLflowTracker) -> None:
        """Attach the report, and the description with what only the report's reading of all curves can tell."""
        try:
            record = self._record(measured=True)
            drawn = (study_page(record), note(record))
        except StorageUnavailable:
            raise
        except Exception:
            log.warning("the report of %s could not be drawn; all else is in MLflow.", self._row.name, exc_info=True)
            return
        tracker.attach({"report.html": drawn[0]})
        tracker.tag({NOTE: drawn[1]})

    def _record(self, *, measured: bool = False) -> StudyRecord:
        """The study as it stands; where it is not measured anew, with the latest diagnosis."""
        trials = [self._trials[number] for number in sorted(self._trials)]
        record = record_of(self._store, self._store.study(self._row.name), trials, measured=measured, most=MOST_READ)
        if record.diagnosis is not None:
            self._diagnosis = (record.diagnosis, record.ended)
        elif self._diagnosis is not None:
            diagnosis, diagnosed = self._diagnosis
            record = replace(record, diagnosis=diagnosis, diagnosed=diagnosed)
        return record
