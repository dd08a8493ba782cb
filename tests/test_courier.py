"""The courier: what the storage knows arrives in MLflow, once, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from mlflow.entities import Run
from mlflow.exceptions import BAD_REQUEST, MlflowException
from mlflow_server import MlflowServer

from tuner.engine import local
from tuner.engine.local import _finish
from tuner.errors import TrackingDoubtful, TrackingUnavailable
from tuner.home import Home
from tuner.search import create_optuna_tables
from tuner.service.courier import MOST_DOUBTS, Courier, Route
from tuner.service.couriers import Couriers
from tuner.service.entry import enter, open_storage, spec_of
from tuner.spec import read_study
from tuner.storage import COMPLETE, STOPPED, Database, OptunaTables, Store, StudyRow, initialise
from tuner.tracking import MLflowTracker
from tuner.tracking.local_store import create_local_store
from tuner.trial import Report, TrialResult, TrialState

PATIENCE = 240.0  # seconds that only a broken test takes
FIRST = "NEW.run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'tuner.trial' AND value = '0')"
PARAMS = {"model.learning_rate": 0.1, "data.batch_size": 64}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs, to be copied: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    create_local_store(f"sqlite:///{path}", path.parent / "artifacts")
    return path


@pytest.fixture
def store(home: Home, study: dict[str, Any], empty: Path) -> Iterator[Store]:
    home.folder.mkdir()
    shutil.copy(empty, home.folder / "mlflow.db")
    with open_storage(home, create=True) as opened:
        enter(opened, read_study(study))
        yield opened


@pytest.fixture
def place(url: str, home: Home) -> Home:
    """A home whose storage is on either database, with its tables."""
    database = Database(url, create=True)
    initialise(database, create_optuna_tables)
    database.close()
    return replace(home, storage=url)


def route(store: Store, home: Home) -> tuple[Route, StudyRow]:
    row = store.study("small")
    return Route(store, row, spec_of(row), home), row


def children(home: Home) -> list[Run]:
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'trial'"))


def steps(home: Home, run: Run) -> list[int]:
    return [m.step for m in mlflow.MlflowClient(home.tracking).get_metric_history(run.info.run_id, "val_loss")]


def copied(home: Home) -> list[optuna.trial.FrozenTrial]:
    """The trials in Optuna's tables."""
    storage = optuna.storages.RDBStorage(home.storage, skip_table_creation=True)
    trials = optuna.load_study(study_name="small", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return trials


def test_a_trial_that_starts_again_shows_only_its_last_attempt(store: Store, home: Home) -> None:
    courier, row = route(store, home)
    lease = store.claim(row.id, "first")
    assert lease is not None
    store.propose(lease, PARAMS)
    for epoch in (1, 2, 3):
        store.report(lease, Report(epoch, {"val_loss": 1.0}, 1.0))
    courier.go(last=False)
    assert [run.info.status for run in children(home)] == ["RUNNING"]
    store.reclaim(row.id, gone=lambda _: True)
    courier.go(last=False)
    assert [run.info.status for run in children(home)] == ["KILLED"], "nobody trains it now"
    lease = store.claim(row.id, "second")
    assert lease is not None
    store.begin_after(lease, 0)
    store.report(lease, Report(1, {"val_loss": 0.5}, 0.5))
    courier.go(last=False)
    store.finish(lease, TrialResult(TrialState.COMPLETE, value=0.5, metrics={"val_loss": 0.5}, best_epoch=1, epochs=1))
    courier.go(last=True)
    courier.close()
    (run,) = children(home)
    assert run.info.status == "FINISHED"
    assert steps(home, run) == [1]
    assert run.data.metrics["val_loss"] == 0.5
    assert run.data.tags["tuner.attempts"] == "2"


def test_a_second_courier_finds_everything_sent_and_sends_nothing_twice(store: Store, home: Home) -> None:
    first, row = route(store, home)
    lease = store.claim(row.id, "worker")
    assert lease is not None
    store.propose(lease, PARAMS)
    store.report(lease, Report(1, {"val_loss": 1.0}, 1.0))
    first.go(last=False)
    first.close()
    store.mark_tracked(row.id, {0: (-1, None)})  # as if it had died between MLflow's answer and the storage's
    store.report(lease, Report(2, {"val_loss": 0.9}, 0.9))
    second, _ = route(store, home)
    second.go(last=False)
    second.close()
    (run,) = children(home)
    assert steps(home, run) == [1, 2]
    assert store.count_untracked(row.id) == 0


def test_a_courier_ends_when_told_and_lets_another_begin(store: Store, home: Home) -> None:
    Courier("small", home).start().finish()
    row = store.study("small")
    assert store.become_courier(row.id, "another", gone=lambda _: False)


def test_a_local_store_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.with_name("mlflow.db.part").write_bytes(b"what a killed process left behind")
    create_local_store(f"sqlite:///{path}", tmp_path / "artifacts")
    assert sorted(p.name for p in tmp_path.glob("mlflow.db*")) == ["mlflow.db", "mlflow.db.init"]
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    assert [experiment.name for experiment in client.search_experiments()] == ["Default"]


def test_a_metric_s_name_that_mlflow_does_not_take_is_changed_a_little(store: Store, home: Home) -> None:
    courier, row = route(store, home)
    lease = store.claim(row.id, "worker")
    assert lease is not None
    store.propose(lease, PARAMS)
    named = {"val_acc@5": 0.5, "../../up": 0.25, "/etc//x": 2.0, "a/./b/": 3.0, "..": 4.0, "x" * 300: 5.0}
    store.report(lease, Report(1, {"val_loss": 1.0, **named}, 1.0))
    courier.go(last=False)
    courier.close()
    (run,) = children(home)
    assert run.data.metrics == {
        "val_loss": 1.0,
        "val_acc_5": 0.5,
        "up": 0.25,
        "etc/x": 2.0,
        "a/b": 3.0,
        "_": 4.0,
        "x" * 250: 5.0,
    }
    assert store.count_untracked(row.id) == 0


# Answers of MLflow's that get lost


def complete(store: Store, study_id: int, value: float) -> None:
    """A trial of two epochs that ends well."""
    lease = store.claim(study_id, "worker")
    assert lease is not None
    store.propose(lease, {**PARAMS, "model.learning_rate": value})
    for epoch in (1, 2):
        store.report(lease, Report(epoch, {"val_loss": value}, value))
    metrics = {"val_loss": value}
    store.finish(lease, TrialResult(TrialState.COMPLETE, value=value, metrics=metrics, best_epoch=1, epochs=2))


def parent(home: Home) -> Run:
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'study'")
    return run


def progress(home: Home) -> list[int]:
    """How many trials had completed each time that the parent run told the best value."""
    history = mlflow.MlflowClient(home.tracking).get_metric_history(parent(home).info.run_id, "best_val_loss")
    return sorted(point.step for point in history)


@pytest.mark.parametrize(
    ("request_", "which"),
    [("create_run", 1), ("create_run", 2), ("log_batch", 3), ("log_batch", 4), ("set_terminated", 1)],
    ids=["the study's run", "a trial's run", "its metrics", "the progress", "its end"],
)
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_request_without_an_answer_is_neither_lost_nor_done_twice(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch, request_: str, which: int, done: bool
) -> None:
    """The server was killed before its answer had arrived: after it had done what was asked, or before."""
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    complete(store, row.id, 0.25)
    really, retries = getattr(mlflow.MlflowClient, request_), []

    def unanswered(*arguments: Any, **named: Any) -> Any:
        retries.append(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
        answer = really(*arguments, **named) if done or len(retries) != which else None
        if len(retries) == which:
            raise ConnectionError("the connection was closed")
        return answer

    monkeypatch.setattr(mlflow.MlflowClient, request_, unanswered)
    with pytest.raises(TrackingUnavailable, match="the connection was closed"):
        courier.go(last=False)
    courier.go(last=False)
    courier.go(last=True)
    courier.close()
    assert sorted(run.data.metrics["val_loss"] for run in children(home)) == [0.25, 0.5]
    assert [sorted(steps(home, run)) for run in children(home)] == [[1, 2], [1, 2]]
    assert progress(home) == [1, 2]
    assert store.count_untracked(row.id) == 0
    if request_ == "create_run":
        assert set(retries) == {"0"}, "MLflow's own second try would make a second run"


def test_a_run_that_was_made_late_is_deleted(store: Store, home: Home) -> None:
    """MLflow made it after it had been asked again, so the trial has two."""
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    (run,) = children(home)
    late = {key: value for key, value in run.data.tags.items() if key != "tuner.state"}
    mlflow.MlflowClient(home.tracking).create_run(run.info.experiment_id, tags=late)
    assert len(children(home)) == 2
    again, _ = route(store, home)
    again.go(last=True)
    assert [found.info.run_id for found in children(home)] == [run.info.run_id]
    for each in (courier, again):
        each.close()


def test_a_new_mlflow_gets_everything(
    store: Store, home: Home, tmp_path: Path, empty: Path, caplog: pytest.LogCaptureFixture
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    complete(store, row.id, 0.25)
    courier.go(last=True)
    courier.close()
    shutil.copy(empty, tmp_path / "new.db")
    elsewhere = replace(home, tracking=f"sqlite:///{tmp_path}/new.db")
    other, _ = route(store, elsewhere)
    other.go(last=True)
    other.close()
    assert "MLflow has lost 2 trials that it had" in caplog.text
    assert sorted(run.data.metrics["val_loss"] for run in children(elsewhere)) == [0.25, 0.5]
    assert progress(elsewhere) == [1, 2]
    assert store.count_untracked(row.id) == 0
    assert store.tracked_runs(row.id) == {
        int(run.data.tags["tuner.trial"]): run.info.run_id for run in children(elsewhere)
    }


@pytest.mark.parametrize("written", [True, False])
def test_optuna_s_tables_get_what_was_to_be_copied_while_they_were_away(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    really, away = OptunaTables.add, iter([True])

    def add(*arguments: Any) -> None:
        gone = next(away, False)
        if written or not gone:
            really(*arguments)
        if gone:
            raise ConnectionError("the database is being restarted")

    monkeypatch.setattr(OptunaTables, "add", add)
    with pytest.raises(ConnectionError):
        courier.go(last=False)
    complete(store, row.id, 0.25)
    courier.go(last=True)
    courier.close()
    assert [trial.value for trial in copied(home)] == [0.5, 0.25]


def test_what_mlflow_has_is_in_optuna_s_tables_too_even_if_the_courier_dies_there(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    there: list[float | None] = []

    def die(*_: Any) -> None:
        assert store.count_untracked(row.id) == 0, "so no courier will come for it"
        there.extend(trial.value for trial in copied(home))
        raise KeyboardInterrupt

    monkeypatch.setattr(Route, "_tell_facts", die)
    with pytest.raises(KeyboardInterrupt):
        courier.go(last=False)
    assert there == [0.5]
    courier.close()


def test_a_courier_that_is_to_end_tries_again_until_mlflow_knows_how_the_study_ended(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(store, store.study("small").id, 0.5)
    really, away = Route._tell_how_it_stands, iter([True])

    def tell(courier: Route, tracker: MLflowTracker) -> None:
        if next(away, False):
            raise TrackingUnavailable("MLflow is being restarted.")
        really(courier, tracker)

    monkeypatch.setattr(Route, "_tell_how_it_stands", tell)
    courier = Courier("small", home, tick=0.01).start()
    courier.end()
    courier._thread.join(60.0)
    assert not courier.alive
    assert courier.problem is None
    assert parent(home).info.status == "KILLED", "the study was not complete"


def test_a_round_of_a_slow_mlflow_ends_while_the_courier_s_lease_lasts(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.service.courier.LONGEST_ROUND_SECONDS", -1.0)
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    assert store.count_untracked(row.id) == 1
    courier.go(last=True)
    courier.close()
    assert store.count_untracked(row.id) == 0


# A database of MLflow's that raises what is no OperationalError, which MLflow tells as BAD_REQUEST


def refusing(home: Home, trigger: str) -> None:
    """Change a trigger in MLflow's database."""
    with closing(sqlite3.connect(home.folder / "mlflow.db", isolation_level=None)) as connection:
        connection.execute(trigger)


def test_what_mlflow_s_database_does_not_take_is_sent_again(store: Store, home: Home) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    refusing(home, f"CREATE TRIGGER no BEFORE UPDATE ON runs WHEN {FIRST} BEGIN SELECT RAISE(ABORT, 'not now'); END")
    complete(store, row.id, 0.25)
    for _ in range(MOST_DOUBTS - 1):
        with pytest.raises(TrackingDoubtful, match="does not take this now"):
            courier.go(last=False)
    assert store.count_untracked(row.id) == 1, "the other one is there"
    assert progress(home) == [1, 2], "and so is all else"
    assert "trial 0 at" in parent(home).data.tags["tuner.not_taken"]
    refusing(home, "DROP TRIGGER no")
    courier.go(last=False)
    courier.close()
    assert store.count_untracked(row.id) == 0
    assert {run.info.status for run in children(home)} == {"FINISHED"}
    assert [sorted(steps(home, run)) for run in children(home)] == [[1, 2], [1, 2]]


def test_what_mlflow_s_database_never_takes_keeps_nothing_else_from_it(
    store: Store, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    refusing(home, f"CREATE TRIGGER no BEFORE UPDATE ON runs WHEN {FIRST} BEGIN SELECT RAISE(ABORT, 'never'); END")
    for _ in range(MOST_DOUBTS - 1):
        with pytest.raises(TrackingDoubtful):
            courier.go(last=True)
    courier.go(last=True)
    courier.close()
    assert "trial 0 is not in MLflow: " in caplog.text
    assert store.count_untracked(row.id) == 0
    assert parent(home).info.status == "KILLED", "the study's end is told"


def test_a_trial_is_not_doubted_while_mlflow_takes_nothing(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    complete(store, row.id, 0.25)

    def busy(*_: Any, **__: Any) -> None:
        raise MlflowException("QueuePool limit of size 5 overflow 10 reached", error_code=BAD_REQUEST)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", busy)
        for _ in range(MOST_DOUBTS + 1):
            with pytest.raises(TrackingUnavailable, match="QueuePool"):
                courier.go(last=False)
    assert store.count_untracked(row.id) == 1
    courier.go(last=True)
    courier.close()
    assert store.count_untracked(row.id) == 0
    assert progress(home) == [1, 2]


NOTE = "mlflow.note.content"


def artifacts(home: Home) -> set[str]:
    return {item.path for item in mlflow.MlflowClient(home.tracking).list_artifacts(parent(home).info.run_id)}


def test_the_study_s_run_tells_the_answer_and_has_the_report(store: Store, home: Home) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    assert "## 0.5" in parent(home).data.tags[NOTE], "while it runs"
    assert "report.html" not in artifacts(home)
    complete(store, row.id, 0.25)
    courier.go(last=True)
    courier.close()
    run = parent(home)
    told = run.data.tags[NOTE]
    assert "## 0.25" in told
    assert "tuner.load_best('small')" in told
    assert run.info.start_time == int(row.created_at * 1000)
    assert run.data.metrics.keys() >= {"best_val_loss", "epochs", "seconds", "wasted_seconds"}
    (page,) = home.artifacts.rglob("report.html")
    assert "0.25" in page.read_text("utf-8")
    notes = {child.data.tags["tuner.trial"]: child.data.tags[NOTE] for child in children(home)}
    assert notes["1"] == "a proposal of the search; complete with 0.25 at epoch 1 after 2 epochs"


def test_the_note_and_the_report_follow_a_study_that_runs_on(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    complete(store, row.id, 0.25)
    courier.go(last=False)
    assert "## 0.5" in parent(home).data.tags[NOTE], "not at every round"
    monkeypatch.setattr("tuner.service.courier.NOTE_SECONDS", 0.0)
    monkeypatch.setattr("tuner.service.courier.PAGE_SECONDS", 0.0)
    courier.go(last=False)
    courier.close()
    assert "## 0.25" in parent(home).data.tags[NOTE]
    assert "report.html" in artifacts(home)


def test_the_note_keeps_the_latest_diagnosis_and_says_of_how_many_trials_it_is(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.service.courier.NOTE_SECONDS", 0.0)
    courier, row = route(store, home)
    complete(store, row.id, 0.5)
    courier.go(last=False)
    assert "Diagnosis" not in parent(home).data.tags[NOTE], "nothing has been measured yet"
    with monkeypatch.context() as now:
        now.setattr("tuner.service.courier.PAGE_SECONDS", 0.0)
        courier.go(last=False)
    measured = parent(home).data.tags[NOTE]
    assert "**Diagnosis.** small " in measured
    courier.go(last=False)
    assert parent(home).data.tags[NOTE] == measured, "nothing has ended since"
    complete(store, row.id, 0.25)
    courier.go(last=False)
    told = parent(home).data.tags[NOTE]
    assert "## 0.25" in told
    assert "**Diagnosis after 1 trial.** small " in told
    with monkeypatch.context() as many:
        many.setattr("tuner.service.courier.PAGE_SECONDS", 0.0)
        many.setattr("tuner.service.courier.MOST_READ", 3)
        courier.go(last=False)
    assert "**Diagnosis after 1 trial.** small " in parent(home).data.tags[NOTE], "too much to read for another"
    (page,) = home.artifacts.rglob("report.html")
    assert "This is the diagnosis after 1 trial." in page.read_text("utf-8")
    courier.go(last=True)
    courier.close()
    assert "**Diagnosis.** small " in parent(home).data.tags[NOTE]


def test_a_report_that_cannot_be_drawn_keeps_nothing_else_from_mlflow(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> str:
        raise ZeroDivisionError("a mistake in a picture")

    monkeypatch.setattr("tuner.service.courier.study_page", fails)
    complete(store, store.study("small").id, 0.5)
    courier = Courier("small", home, tick=0.01).start()
    courier.end()
    courier._thread.join(60.0)
    assert courier.problem is None
    assert "the report of small could not be drawn" in caplog.text
    assert "## 0.5" in parent(home).data.tags[NOTE]
    assert artifacts(home) == {"study.yaml", "space.yaml", "best.yaml"}


def test_it_is_said_that_only_the_end_is_missing(
    store: Store, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = store.study("small")
    complete(store, row.id, 0.5)

    def closed(*_: Any) -> None:
        raise TrackingUnavailable("MLflow is gone.")

    monkeypatch.setattr("tuner.tracking.MLflowTracker.close", closed)
    _finish(Courier("small", home).start(), Couriers(home), store, row)
    assert "how the study ended is not in MLflow yet (MLflow is gone.); the next `tuner run`" in caplog.text


def test_how_a_study_ended_is_told_by_whatever_has_a_courier_once_mlflow_is_back(
    place: Home, tmp_path: Path, study: dict[str, Any]
) -> None:
    """MLflow is killed before it has heard of the end; the process that ran the study is gone when it is back."""
    server = MlflowServer(tmp_path)
    server.start()
    away = replace(place, tracking=server.url)
    with open_storage(away, create=True) as store:
        try:
            for name in ("first", "second", "other"):
                enter(store, read_study({**study, "study": name}))
            first, second, other = store.studies()
            for row in (first, second):
                complete(store, row.id, 0.5)
                brought = Route(store, row, spec_of(row), away)
                brought.go(last=False)
                brought.close()
            assert store.behind() == [], "they run"
            server.signal(signal.SIGKILL)
            for row in (first, second):
                store.set_state(row.id, COMPLETE)
                Courier(row.name, away).start().finish()
            assert store.behind() == ["first", "second"]
            server.start()
            assert status(away, "first") == status(away, "second") == "RUNNING"

            couriers = Couriers(away)  # of a service that begins now, and may end before it has looked twice
            assert couriers.settle(store, PATIENCE) == []
            assert store.behind() == []
            assert status(away, "first") == status(away, "second") == "FINISHED"
            assert couriers.settle(store, PATIENCE) == [], "nothing is left to do"

            store.set_state(second.id, STOPPED)  # as after `tuner resume` and Ctrl-C
            assert store.behind() == ["second"]
            courier, others = local._couriers("other", away)  # `tuner run` of another study
            until(lambda: store.behind() == [])
            _finish(courier, others, store, other)
            assert status(away, "second") == "KILLED"
        finally:
            server.close()


def status(home: Home, study: str) -> str:
    """How MLflow believes that a study stands."""
    client = mlflow.MlflowClient(home.tracking)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'study'")
    return str(run.info.status)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
