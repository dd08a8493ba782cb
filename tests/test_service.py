"""The service: studies as queue entries, workers that share them, and what happens when a worker fails, dies or stops.

Workers are threads here, each with a database of its own and a training that costs nothing; what only processes can
show is shown by processes at the end. For PostgreSQL see test_storage.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

import tuner
from tuner.cli.app import app
from tuner.cohort import Job
from tuner.engine import local
from tuner.engine.devices import Share, shares
from tuner.engine.serving import serve
from tuner.errors import (
    SpecError,
    StorageUnavailable,
    StudyNotFound,
    StudyRefused,
    StudyStopped,
    TrialInterrupted,
    WorkerUnfit,
)
from tuner.home import Home
from tuner.search import Search
from tuner.service import shift as shift_module
from tuner.service.couriers import Couriers
from tuner.service.desk import Worker
from tuner.service.entry import enter, open_storage, spec_of
from tuner.service.health import Health
from tuner.service.leases import Leases
from tuner.service.shift import Shift
from tuner.spec import read_study
from tuner.storage import PAUSED, QUEUED, RUNNING, STOPPED, Database, Store, StudyRow, initialise
from tuner.storage.feed import Feed
from tuner.storage.tables import StudyTable, TrialTable, WorkerTable
from tuner.study import Work
from tuner.training import fault_of, inspect
from tuner.trial import Fault, Report, Trial, TrialResult, TrialState, Verdict

PATIENCE = 240.0  # seconds that only a broken test takes
COMPLETE = TrialState.COMPLETE


# A storage, and studies in its queue


@pytest.fixture
def place(url: str, tmp_path: Path) -> Home:
    """A home whose storage has its tables."""
    database = Database(url, create=True)
    initialise(database)
    database.close()
    return Home(tmp_path / "home", url, f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def embedded(tmp_path: Path) -> Home:
    """The same on SQLite, for what does not depend on the database."""
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path}/home/tuner.db", f"sqlite:///{tmp_path}/mlflow.db")
    database = Database(home.storage, create=True)
    initialise(database)
    database.close()
    return home


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    name = "place" if "place" in request.fixturenames else "embedded"
    with open_storage(request.getfixturevalue(name)) as opened:
        yield opened


def submitted(store: Store, study: dict[str, Any], name: str, priority: int | None = None, **search: Any) -> StudyRow:
    settings = {**study["search"], "sampler": "random", "pruner": "none", **search}
    row = enter(store, read_study({**study, "study": name, "search": settings}))
    store.submit(row.id, priority)
    return store.study(name)


def proposals(store: Store, name: str) -> list[Trial]:
    return [trial for trial in store.trials(store.study(name).id) if trial.confirms is None]


def change(store: Store, table: Any, **values: Any) -> None:
    """Set columns behind the store's back."""
    with store.database.write() as session:
        session.execute(sa.update(table).values(**values))


def nobody_is_gone(owner: str) -> bool:
    return False


# Workers whose training costs nothing


Train = Callable[[Job], TrialResult | None]


class NoTraining:
    """Reports an epoch or two and is done, by the answers that it gets; `told` may say otherwise of a trial."""

    size = 1
    shape: frozenset[str] = frozenset()

    def __init__(self, epochs: int, told: Train) -> None:
        self._epochs, self._told = epochs, told

    def train(self, jobs: Sequence[Job], judge: Any, more: Any) -> Iterator[tuple[Job, TrialResult]]:
        for job in jobs:
            if (result := self._told(job)) is not None:
                yield job, result
                continue
            for epoch in range(1, self._epochs + 1):
                (verdict,) = judge([(job, Report(epoch, {"val_loss": 0.5}, 0.5))])
                if verdict is Verdict.STOP:
                    raise TrialInterrupted("asked to stop")
                if verdict is not Verdict.GO_ON:
                    break
            if verdict is not Verdict.GIVE_BACK:
                yield job, TrialResult(COMPLETE, value=0.5, best_epoch=1, epochs=epoch, config=dict(job.config))


class Opened:
    """Stands for the opening of desks; remembers each."""

    def __init__(self, told: Train) -> None:
        self.told, self.names = told, list[str]()

    def __call__(self, worker: Worker, row: StudyRow) -> Work:
        self.names.append(row.name)
        spec = spec_of(row)
        search = Search(spec.searched, spec.goal, "random", "none", spec.seed_everything, spec.max_epochs)
        return Work(
            spec=spec,
            store=worker.store,
            study_id=row.id,
            owner=worker.owner,
            search=search,
            training=NoTraining(spec.max_epochs, self.told),  # type: ignore[arg-type]
            checkpoints=worker.home.checkpoints(row.name),
            stopped=worker.stopped,
            pause=worker.pause,
            holding=worker.holding,
            gone=nobody_is_gone,
        )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Desks at which nothing is trained."""
    desks = Opened(lambda job: None)
    monkeypatch.setattr(shift_module, "open_desk", desks)
    monkeypatch.setattr(shift_module, "SHORTEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(shift_module, "LONGEST_WAIT_SECONDS", 0.05)
    return desks


def test_a_program_queues_a_study_as_the_command_does(
    embedded: Home, store: Store, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_HOME", str(embedded.folder))
    monkeypatch.setattr("tuner.engine.submission.Crew.inspect", lambda *_: [])  # in this process it would cost seconds
    result = tuner.submit(study, trials=7, seed=3, set={"search.sampler": "random"}, priority=2)
    row = store.study("small")
    assert (result.study, row.state, row.priority) == ("small", QUEUED, 2)
    assert (row.document["search"]["trials"], row.seed) == (7, 3)
    with pytest.raises(SpecError, match=r"search\.trials"):
        tuner.submit(study, trials=-1)


def a_shift(home: Home, owner: str = "a", stop: threading.Event | None = None, **more: Any) -> Shift:
    return Shift(home, stop or threading.Event(), once=True, owner=owner, **more)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def order(store: Store) -> list[str]:
    """The names of the studies, in the order in which their trials were begun."""
    begun = [(trial.started or 0.0, row.name) for row in store.studies() for trial in store.trials(row.id)]
    return [name for _, name in sorted(begun)]


# Budgets


def test_many_workers_spend_every_budget_exactly(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "by-trials", trials=12, confirm=2)
    submitted(store, study, "by-epochs", trials=None, epochs=13)
    crowd = [a_shift(place, f"worker-{number}", turn_seconds=0.05) for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(shift.run) for shift in crowd]:
            done.result(PATIENCE)
    assert [row.state for row in store.studies()] == ["complete", "complete"]
    by_trials = proposals(store, "by-trials")
    assert [trial.number for trial in by_trials] == list(range(12))
    assert {trial.state for trial in by_trials} == {COMPLETE}
    confirming = [t.confirms for t in store.trials(store.study("by-trials").id) if t.confirms is not None]
    assert confirming
    assert max(Counter(confirming).values()) == 2, "a leader is confirmed as often as it should be, and not more"
    assert sum(trial.outcome.epochs for trial in proposals(store, "by-epochs")) == 13


def test_the_time_of_a_study_is_counted_once_however_many_work_on_it(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    row = submitted(store, study, "s")
    for owner in "abc":
        store.sign_in(owner, machine="m", device="cpu", threads=1, folder="/")
        assert store.turn(owner) is not None
    with store.database.write() as session:  # five seconds ago
        session.execute(sa.update(StudyTable).values(active_at=StudyTable.active_at - 5.0, active_seconds=0.0))
    for owner in "abc":
        store.beat(owner)
    counted = store.study("s").active_seconds
    assert 5.0 <= counted < 10.0
    for owner in "abc":
        store.leave(owner)
    assert store.turn("a") is not None, "after a time in which nobody worked on it"
    assert store.study("s").active_seconds - counted < 4.0
    change(store, StudyTable, active_at=1.0)  # it was worked on by somebody who was killed long ago
    store.beat("a")
    assert store.study("s").active_seconds - counted < 4.0
    assert row.active_seconds == 0.0


def test_a_budget_that_grows_while_the_study_is_worked_on_is_spent_by_those_who_work_on_it(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "s", trials=2)

    def extends(job: Job) -> None:
        if job.number == 1:
            submitted(store, study, "s", trials=5)

    opened.told = extends
    a_shift(embedded).run()
    assert len(proposals(store, "s")) == 5


def test_a_study_is_not_complete_by_a_document_that_it_no_longer_has(
    place: Home, store: Store, study: dict[str, Any]
) -> None:
    row = submitted(store, study, "s", trials=2)
    larger = submitted(store, study, "s", trials=5)
    store.complete(row.id, None, row.document)
    assert store.study("s").state == QUEUED
    store.complete(row.id, None, larger.document)
    assert store.study("s").state == "complete"


# Who is served


def test_the_higher_priority_is_served_first_and_then_the_others(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "low", trials=3)
    submitted(store, study, "high", priority=5, trials=3)
    submitted(store, study, "negative", priority=-1, trials=3)
    a_shift(embedded).run()
    assert order(store) == ["high"] * 3 + ["low"] * 3 + ["negative"] * 3


def test_a_higher_priority_takes_over_at_the_end_of_a_trial(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift_module, "LOOK_SECONDS", 0.0)
    submitted(store, study, "first", trials=4)

    def interrupts(job: Job) -> None:
        if job.number == 1 and store.find("urgent") is None:
            submitted(store, study, "urgent", priority=1, trials=2)

    opened.told = interrupts
    a_shift(embedded).run()
    assert order(store) == ["first"] * 2 + ["urgent"] * 2 + ["first"] * 2


def test_equals_take_turns_and_what_a_worker_knows_of_each_is_kept(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    for name in ("a", "b", "c"):
        submitted(store, study, name, trials=3)
    a_shift(embedded, turn_seconds=0.0).run()
    assert order(store) == ["a", "b", "c"] * 3
    assert opened.names == ["a", "b", "c"]


def test_workers_that_start_together_are_shared_out_equally(place: Home, store: Store, study: dict[str, Any]) -> None:
    for name in ("a", "b", "c"):
        submitted(store, study, name)

    def comes(owner: str) -> str:
        with open_storage(place) as own:
            own.sign_in(owner, machine="m", device="cpu", threads=1, folder="/")
            turn = own.turn(owner)
            assert turn is not None
            return turn.name

    with ThreadPoolExecutor(6) as threads:
        assert Counter(threads.map(comes, [f"w{number}" for number in range(6)])) == {"a": 2, "b": 2, "c": 2}
    submitted(store, study, "new")
    here = next(worker.owner for worker in store.workers() if worker.study == "a")
    following = store.next_in_queue(here)
    assert following is not None
    assert following.name == "new", "nobody is there yet"
    change(store, WorkerTable, last_seen=1.0)
    following = store.next_in_queue("another")
    assert following is not None
    assert following.name != "", "those who fell silent do not count"


def test_a_worker_that_serves_one_study_leaves_the_others(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "other", priority=9)
    submitted(store, study, "mine", trials=2)
    a_shift(embedded, only="mine").run()
    assert order(store) == ["mine"] * 2


def test_a_study_that_is_only_run_here_is_left_alone_by_workers(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    enter(store, read_study(study))
    a_shift(embedded).run()
    assert store.trials(store.study("small").id) == []
    assert store.study("small").state == "interrupted"


# States of a queue entry


def test_a_paused_study_gives_its_trial_back_and_keeps_its_place(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    first = submitted(store, study, "first", trials=3)
    second = submitted(store, study, "second", trials=1)
    assert (first.state, first.submitted is not None) == (QUEUED, True)

    def pauses(job: Job) -> None:
        if job.number == 1 and store.study("first").state == RUNNING:
            store.set_state(first.id, PAUSED)

    opened.told = pauses
    a_shift(place).run()
    assert [trial.state.value for trial in proposals(store, "first")] == ["complete", "waiting"]
    assert store.study("second").state == "complete"
    assert store.study("first").state == PAUSED
    opened.told = lambda job: None
    again = submitted(store, study, "first", trials=3)
    assert again.submitted == first.submitted
    assert (again.submitted or 0.0) < (second.submitted or 0.0)
    a_shift(place).run()
    assert [trial.state.value for trial in proposals(store, "first")] == ["complete"] * 3


def test_a_stopped_study_goes_back_to_the_end_of_the_queue_with_its_priority(
    place: Home, store: Store, study: dict[str, Any]
) -> None:
    first = submitted(store, study, "first", priority=3)
    second = submitted(store, study, "second")
    store.set_state(first.id, STOPPED)
    store.go_on(first.id, first.document)
    assert store.study("first").submitted is None, "who goes on with it here does not call the workers"
    again = submitted(store, study, "first")
    assert (again.submitted or 0.0) > (second.submitted or 0.0)
    assert again.priority == 3


def test_ctrl_c_of_a_run_stops_a_study_only_if_no_workers_have_it(
    embedded: Home, store: Store, study: dict[str, Any]
) -> None:
    queued, own = submitted(store, study, "queued"), enter(store, read_study(study))
    for row in (queued, own):
        local._stopped(store, row)
    assert (store.study("queued").state, store.study("small").state) == (QUEUED, STOPPED)


# Workers that fail


def failed(fault: Fault | None) -> TrialResult:
    return TrialResult(TrialState.FAILED, reason="OSError: something", fault=fault)


def sick() -> None:
    raise OSError(28, "No space left on device")


def test_a_worker_whose_disk_is_full_stops_and_its_trial_goes_to_another(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "s", trials=3)
    full = a_shift(place, "full")
    full.health = Health("m1", "cpu", [], {})
    begins = threading.Event()

    def fills_up(job: Job) -> TrialResult | None:
        if job.number < 1 or begins.is_set():
            return None
        full.health._probes[Fault.DISK] = sick
        return failed(Fault.DISK)

    opened.told = fills_up
    with pytest.raises(WorkerUnfit, match=r"disk does not work.*No space left.*Make room"):
        full.run()
    assert [trial.state.value for trial in proposals(store, "s")] == ["complete", "waiting"]
    (told,) = store.workers()
    assert told.left
    assert "No space left" in (told.trouble or "")
    begins.set()
    a_shift(place, "well").run()
    assert [trial.state.value for trial in proposals(store, "s")] == ["complete"] * 3
    assert {trial.attempt for trial in proposals(store, "s")} == {1}, "the full disk counts against no trial"


def test_a_worker_that_lacks_a_module_leaves_the_study_to_others_and_serves_another(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "needs-it", trials=4)
    submitted(store, study, "other", trials=2)
    lacking = a_shift(place, "lacking")

    def lacks(job: Job) -> TrialResult | None:
        here = store.study("needs-it").state == RUNNING
        return failed(Fault.IMPORT) if here else None

    opened.told = lacks
    lacking.run()
    assert store.study("other").state == "complete"
    assert [trial.state.value for trial in proposals(store, "needs-it")] == ["waiting"]
    assert list(lacking.refused.values()) == [store.workers()[0].refused["needs-it"]]
    assert "3 trials in a row" in store.workers()[0].refused["needs-it"]
    opened.told = lambda job: None
    a_shift(place, "has-it").run()
    assert [trial.state.value for trial in proposals(store, "needs-it")] == ["complete"] * 4


def test_a_trial_that_fails_so_on_two_well_workers_is_a_failed_trial(
    place: Home, store: Store, study: dict[str, Any]
) -> None:
    row = submitted(store, study, "s")
    for owner, went_back in (("one", True), ("two", False)):
        lease = store.claim(row.id, owner)
        assert lease is not None
        assert lease.trial.number == 0
        assert store.set_back(lease, place=owner, reason="device-side assert") is went_back
    lease = store.claim(row.id, "one", only_new=True)
    assert lease is not None
    for expected in (True, True, False):  # it alone fails there, again and again, while others get through
        assert store.set_back(lease, place="one", reason="device-side assert") is expected
        lease = store.claim(row.id, "one") if expected else lease
        assert lease is not None


def test_a_study_whose_own_code_raises_is_given_up_and_the_worker_goes_on(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "broken", priority=1, trials=9)
    submitted(store, study, "sound", trials=2)
    opened.told = lambda job: failed(None) if store.study("broken").state == RUNNING else None
    a_shift(embedded).run()
    assert store.study("broken").state == "failed"
    assert "3 trials failed one after the other" in (store.study("broken").reason or "")
    assert store.study("sound").state == "complete"
    assert store.workers() == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), Fault.DISK),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed: No space left on device"), Fault.DISK),
        (ModuleNotFoundError("No module named 'timm'"), Fault.IMPORT),
        (FileNotFoundError(2, "No such file", "/data/train.csv"), Fault.FILES),
        (ValueError("the shapes do not fit"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (OSError("something else"), None),
    ],
)
def test_errors_that_may_be_the_worker_s_own_are_told_from_the_others(error: Exception, expected: Fault | None) -> None:
    assert fault_of(error) == expected
    wrapped = ValueError("loading failed")
    wrapped.__cause__ = error
    assert fault_of(wrapped) == expected


def test_a_condition_looks_at_once_and_counts_what_comes_in_a_row(tmp_path: Path) -> None:
    health = Health("m", "cuda:0", [tmp_path])
    assert health.blame(failed(Fault.FILES)) == "m"
    assert health.blame(failed(Fault.DISK)) == "m", "the disk takes a megabyte"
    health.well()
    health.blame(failed(Fault.FILES))
    health.blame(failed(Fault.IMPORT))
    with pytest.raises(StudyRefused, match=r"3 trials in a row failed there.*Install what is missing"):
        health.blame(failed(Fault.IMPORT))
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    with pytest.raises(WorkerUnfit, match="disk does not work"):
        Health("m", "cpu", [nowhere]).check()


def test_a_worker_that_cannot_open_a_study_says_why_and_does_not_fail_it(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(store, {**study, "model": {"class_path": "not_installed_here.Net"}}, "elsewhere", trials=1)
    submitted(store, study, "other-data", trials=1)

    def opens(worker: Worker, row: StudyRow) -> Work:
        raise StudyStopped("the data are not those that the study began with")

    monkeypatch.setattr(shift_module, "open_desk", opens)
    worker = a_shift(embedded)
    worker.run()
    assert sorted(store.workers()[0].refused) == ["elsewhere", "other-data"]
    assert "no module 'not_installed_here'" in store.workers()[0].refused["elsewhere"]
    assert {row.state for row in store.studies()} == {QUEUED}


def test_an_error_that_nobody_expects_gives_the_trials_back_and_ends_a_worker_at_the_third(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    submitted(store, study, "s", trials=1)

    def breaks(job: Job) -> TrialResult:
        raise ZeroDivisionError("a mistake of ours")

    opened.told = breaks
    with pytest.raises(WorkerUnfit, match="3 errors in a row, the last on s: ZeroDivisionError"):
        a_shift(embedded).run()
    assert [(trial.state.value, trial.attempt) for trial in proposals(store, "s")] == [("waiting", 0)]


def test_a_study_that_is_deleted_between_a_turn_and_its_work_is_no_worker_s_fault(
    place: Home,
    store: Store,
    opened: Opened,
    study: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    submitted(store, study, "deleted", priority=1)
    submitted(store, study, "stays", trials=2)
    shift = a_shift(place)
    turn = shift._store.turn

    def turn_and_delete(*arguments: Any) -> Any:
        queued = turn(*arguments)
        if queued is not None and queued.name == "deleted":
            store.remove(queued.id)
        return queued

    monkeypatch.setattr(shift._store, "turn", turn_and_delete)
    shift.run()
    assert store.study("stays").state == "complete"
    assert "nobody expected" not in caplog.text


# Workers that die or fall silent


def test_what_a_dead_worker_held_is_found_by_one_that_is_busy(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    row = submitted(store, study, "s", trials=2)
    lost = store.claim(row.id, "on another machine")
    assert lost is not None
    submitted(store, study, "long", priority=1, trials=1)

    def long(job: Job) -> None:
        with store.database.write() as session:
            session.execute(sa.update(TrialTable).where(TrialTable.id == lost.trial_id).values(lease_until=1.0))
        until(lambda: proposals(store, "s")[0].state is TrialState.WAITING)

    opened.told = long
    a_shift(place, heartbeat=0.05, only="long").run()
    assert store.study("long").state == "complete"
    assert [trial.state.value for trial in proposals(store, "s")] == ["waiting"]


def test_what_a_dead_worker_held_is_found_by_the_next_one_to_start(
    place: Home, store: Store, opened: Opened, study: dict[str, Any]
) -> None:
    row = submitted(store, study, "s", trials=2)
    store.sign_in("dead", machine="m", device="cpu", threads=1, folder="/")
    store.turn("dead")
    assert store.claim(row.id, "dead") is not None
    change(store, TrialTable, lease_until=1.0)
    change(store, WorkerTable, last_seen=1.0)
    a_shift(place).run()
    assert [(t.state.value, t.attempt) for t in proposals(store, "s")] == [("complete", 2), ("complete", 1)]
    assert store.workers() == []


@pytest.mark.parametrize(
    "call", ["turn", "next_in_queue", "claim", "propose", "report_together", "changes", "finish", "plan"]
)
@pytest.mark.parametrize("written", [False, True])
def test_a_storage_that_is_away_for_a_while_costs_nothing_but_time(
    embedded: Home,
    store: Store,
    opened: Opened,
    study: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    written: bool,
) -> None:
    monkeypatch.setattr("tuner.study.SHORTEST_WAIT_SECONDS", 0.01)
    submitted(store, study, "s", trials=3)
    shift = a_shift(embedded, turn_seconds=0.0)
    asked = Feed if call == "changes" else shift._store
    times = [True] if call in ("turn", "plan") else [False, True, True]
    away = lose_answers(monkeypatch, asked, call, times, written=written)
    if (call, written) == ("claim", True):  # a trial that nobody knows to be his; the lease runs out
        monkeypatch.setattr("tuner.storage.queue.LEASE_SECONDS", 0.2)
        monkeypatch.setattr(shift, "_heartbeat", 0.05)
    shift.run()
    assert [trial.state.value for trial in proposals(store, "s")] == ["complete"] * 3
    assert {len(trial.values) for trial in proposals(store, "s")} == {2}
    assert next(away, None) is None, "it was away"


def lose_answers(
    monkeypatch: pytest.MonkeyPatch, asked: Any, call: str, times: Iterable[bool], *, written: bool
) -> Iterator[bool]:
    """Let those answers to a call be lost that are True here, the question too unless it was written; what is left."""
    answers, away = getattr(asked, call), iter(times)

    def ask(*arguments: Any, **more: Any) -> Any:
        gone = next(away, False)
        answer = None if gone and not written else answers(*arguments, **more)
        if gone:
            raise StorageUnavailable("the storage does not answer: it is being restarted.")
        return answer

    monkeypatch.setattr(asked, call, ask)
    return away


@pytest.mark.parametrize("call", ["give_back", "set_back", "withdraw"])
@pytest.mark.parametrize("written", [False, True])
def test_a_trial_is_returned_as_soon_as_the_storage_is_back(
    place: Home,
    store: Store,
    opened: Opened,
    study: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    written: bool,
) -> None:
    """Not when its lease has run out, which would count against it."""
    monkeypatch.setattr("tuner.study.SHORTEST_WAIT_SECONDS", 0.01)
    if call == "withdraw":  # another worker has taken the last value of two while this one was opening its trial
        study["space"] = {"model.norm": {"choice": {"values": ["none", "batch"], "default": "none"}, "priority": 1}}
        seen = iter([False] * 3)
        monkeypatch.setattr(Work, "_exhausted", lambda _: next(seen, True))
    row = submitted(store, study, "s", trials=3)
    shift = a_shift(place)
    shift.health = Health("m1", "cpu", [], {})
    away = lose_answers(monkeypatch, shift._store, call, [True, True], written=written)
    troubles = {"give_back": RuntimeError("nobody expects this"), "set_back": failed(Fault.DISK)}
    trouble = iter([troubles[call]] if call in troubles else [])

    def told(job: Job) -> TrialResult | None:
        match next(trouble, None):
            case Exception() as error:
                raise error
            case result:
                return result

    opened.told = told
    shift.run()
    assert next(away, None) is None, "it was away"
    found = store.trials(row.id)
    assert [trial.state.value for trial in found] == ["complete"] * (2 if call == "withdraw" else 3)
    assert {trial.attempt for trial in found} == {1}
    assert store.study("s").state == "complete"


def test_an_outage_is_as_long_as_it_is_however_many_questions_it_leaves_open(
    embedded: Home, store: Store, opened: Opened, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that has waited for an hour to write a result does not wait for another to give the trial back."""
    monkeypatch.setattr("tuner.study.SHORTEST_WAIT_SECONDS", 1.0)
    monkeypatch.setattr("tuner.study.LONGEST_WAIT_SECONDS", 1.0)
    submitted(store, study, "s", trials=1)
    work, clock = (
        opened(Worker(store, embedded, "a", lambda: False, lambda _: None, nullcontext), store.study("s")),
        0.0,
    )

    def pause(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    def gone(*_: Any) -> None:
        raise StorageUnavailable("the storage does not answer.")

    work.pause, work.outage_seconds = pause, 60.0
    monkeypatch.setattr("tuner.study.time", SimpleNamespace(monotonic=lambda: clock, perf_counter=time.perf_counter))
    monkeypatch.setattr(store, "finish", gone)
    monkeypatch.setattr(store, "give_back", gone)
    with pytest.raises(StorageUnavailable):
        work.run()
    assert clock == 60.0


def test_a_heartbeat_leaves_the_random_numbers_of_the_training_alone(store: Store) -> None:
    beats = threading.Semaphore(0)
    before = random.getstate()
    leases = Leases(store, beats.release, seconds=0.01)
    for _ in range(3):
        assert beats.acquire(timeout=PATIENCE)
    leases.close()
    assert random.getstate() == before


def test_a_worker_that_was_thought_dead_signs_in_again(embedded: Home, store: Store, opened: Opened) -> None:
    shift = a_shift(embedded)
    shift._sign_in()
    store.sign_out("a")
    shift._beat()
    assert [worker.owner for worker in store.workers()] == ["a"]
    shift._database.close()


def test_another_courier_takes_over_when_the_elected_one_has_died(
    embedded: Home, store: Store, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = threading.Event()

    class Route:
        def __init__(self, *_: Any) -> None: ...

        def go(self, *, last: bool) -> None:
            brought.set()

        def close(self) -> None: ...

    monkeypatch.setattr("tuner.service.courier.Route", Route)
    monkeypatch.setattr("tuner.service.couriers.STANDBY_SECONDS", 0.02)
    row = submitted(store, study, "s")
    couriers = Couriers(embedded)
    couriers.look(store)
    assert store.become_courier(row.id, "elected", nobody_is_gone), "nothing has begun, so nobody follows it"
    lease = store.claim(row.id, "w")
    assert lease is not None
    couriers.look(store)
    time.sleep(0.2)
    assert not brought.is_set(), "another one is elected"
    change(store, StudyTable, courier_until=1.0)
    assert brought.wait(PATIENCE)
    assert not store.become_courier(row.id, "elected", nobody_is_gone)
    assert couriers.finish(PATIENCE) == []
    assert store.study("s").active_seconds == 0.0, "workers count the time, not couriers"


# How a machine is shared out


def test_a_machine_is_shared_out_among_workers() -> None:
    assert shares("auto", gpus=0, cores=2) == [Share("cpu", 1, "")]
    assert shares("auto", gpus=0, cores=16) == [Share("cpu", 4, "")] * 4
    assert shares("cpu:3", gpus=8, cores=16) == [Share("cpu", 5, "")] * 3
    assert shares("auto", gpus=2, cores=9) == [Share("cuda:0", 4, "0"), Share("cuda:1", 4, "1")]
    assert shares("1", gpus=2, cores=9, visible="4,7") == [Share("cuda:1", 8, "7")]


@pytest.mark.parametrize("asked", ["gpu", "cpu:0", "0,", "-1", "2"])
def test_a_share_that_cannot_be_had_is_refused(asked: str) -> None:
    with pytest.raises(SpecError, match="--devices"):
        shares(asked, gpus=2, cores=4)


def test_a_worker_makes_no_schema_on_a_server(postgres_url: str, tmp_path: Path) -> None:
    home = Home(tmp_path, postgres_url, f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StorageUnavailable, match="Run once: tuner init-db"):
        serve(home=home, devices="cpu")
    engine = sa.create_engine(postgres_url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


def test_a_worker_on_an_embedded_storage_makes_it_and_knows_no_study(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", f"sqlite:///{tmp_path}/home/tuner.db", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(StudyNotFound, match="no study 'absent'"):
        serve(home=home, devices="cpu", only="absent")


# The commands


@pytest.fixture
def command(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process, in which the classes of a study are imported already."""

    class Here:
        def __init__(self, home: Home) -> None:
            self.inspect = inspect

    monkeypatch.setattr("tuner.engine.submission.Crew", Here)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


def test_submit_refuses_what_run_refuses(command: Callable[..., Result], home: Home, study: dict[str, Any]) -> None:
    study["model"]["init_args"]["wdith"] = 3
    study["search"]["trials"] = -1
    Path("study.yaml").write_text(json.dumps(study))
    refused = command("submit", "study.yaml").exception
    assert isinstance(refused, SpecError)
    assert refused.exit_code == 2
    assert {problem.path for problem in refused.problems} == {"model.init_args.wdith", "search.trials"}
    assert not home.folder.exists()


def test_a_study_is_submitted_paused_resumed_stopped_and_told_of(
    command: Callable[..., Result], home: Home, study: dict[str, Any], tmp_path: Path
) -> None:
    Path("study.yaml").write_text(json.dumps(study))
    told = command("submit", "study.yaml", "--priority", "3", "--trials", "7").output
    assert "small is queued with priority 3." in told
    assert "tuner worker" in told
    printed = json.loads(command("submit", "study.yaml", "--trials", "9", "--json").stdout)
    assert (printed["state"], printed["trials"]["running"]) == (QUEUED, 0)
    with open_storage(home) as store:
        row = store.study("small")
        assert (row.priority, row.document["search"]["trials"]) == (3, 9)
        store.sign_in("host/x|17|3", machine="host", device="cuda:0 H200", threads=5, folder="/code")
        store.turn("host/x|17|3")
        store.sign_in("sick|1|3", machine="sick", device="cpu", threads=1, folder="/code")
        store.note_trouble("sick|1|3", "its disk does not work")
        store.sign_in("poor|1|3", machine="poor", device="cpu", threads=1, folder="/code")
        store.refuse("poor|1|3", "small", "no module 'timm'")
    assert "3" in command("list").output.splitlines()[1].split()
    page = command("show", "small").output
    for text in ("priority 3", f"from {tmp_path}", "host:17", "cuda:0 H200", "its disk does not work", "'timm'"):
        assert text in page
    examined = command("doctor")
    assert examined.exit_code == 1
    for text in ("works on small", "takes no work: its disk", "does not work on small: no module 'timm'"):
        assert text in examined.output
    assert "2 workers serve this storage" in command("submit", "study.yaml").output
    assert "tuner resume small --queue" in command("pause", "small").output
    assert "is paused. There is nothing to pause" in command("pause", "small").output
    assert json.loads(command("show", "small", "--json").stdout)["state"] == PAUSED
    command("resume", "small", "--queue", "--priority", "4", "--trials", "11")
    with open_storage(home) as store:
        again = store.study("small")
        assert (again.state, again.priority, again.submitted) == (QUEUED, 4, row.submitted)
        assert again.document["search"]["trials"] == 11
    assert "tuner resume small --queue" in command("stop", "small").output
    assert json.loads(command("show", "small", "--json").stdout)["state"] == STOPPED
    assert "there is nothing to stop" in command("stop", "small").output
    assert command("resume", "small", "--priority", "4").exit_code == 2


# Real processes


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "MLFLOW_TRACKING"))}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command; one that still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tuner", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment(), text=True, start_new_session=True, **pipes)
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out, err


def test_a_service_is_killed_stopped_and_ends_with_everything_done_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, study: dict[str, Any]
) -> None:
    study["trainer"]["max_epochs"] = 40
    study["search"] |= {"trials": 5000, "pruner": "none", "patience": None, "training": "lean", "sampler": "random"}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    home = Home(tmp_path / ".tuner", f"sqlite:///{tmp_path}/.tuner/tuner.db", f"sqlite:///{tmp_path}/.tuner/mlflow.db")
    out, _ = ended(start("submit", "study.yaml", "--priority", "2", "--json"))
    assert json.loads(out)["state"] == QUEUED

    service = start("worker", "--devices", "cpu:2")
    with open_storage(home) as store:
        row = store.study("small")

        def working() -> set[str]:
            assert service.poll() is None, service.communicate()
            return {worker.owner for worker in store.workers() if worker.study == "small"}

        def trained_by_both() -> bool:
            return len(working()) == 2 and len(store.owners(row.id)) == 2

        until(trained_by_both)
        victim = store.owners(row.id)[0]
        os.kill(int(victim.split("|")[1]), signal.SIGKILL)
        until(lambda: victim not in store.owners(row.id))
        until(lambda: trained_by_both() and victim not in working())
        os.kill(service.pid, signal.SIGTERM)
        _, err = ended(service)
        assert "died (exit code -9)" in err
        trials = store.trials(row.id)
        assert {trial.state.value for trial in trials} <= {"complete", "waiting"}
        assert max(trial.attempt for trial in trials) <= 2, "to be told to stop is not to die"
        assert store.workers() == []
        assert store.study("small").state == QUEUED

        enter(store, spec_of(row, [("search.trials", len(trials) + 1)]))
        ended(start("worker", "--once", "--devices", "cpu:1"))
        numbers = list(range(len(trials) + 1))
        assert [(t.number, t.state.value) for t in store.trials(row.id)] == [(n, "complete") for n in numbers]
        assert store.study("small").state == "complete"
        assert store.count_untracked(row.id) == 0
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'trial'", max_results=5000)
    assert sorted(int(run.data.tags["tuner.trial"]) for run in runs) == numbers
    assert {run.info.status for run in runs} == {"FINISHED"}
    parent = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'study'")
    assert [run.info.status for run in parent] == ["FINISHED"]
