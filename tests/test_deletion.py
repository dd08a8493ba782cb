"""A study deleted: what the storage, Optuna's tables, MLflow and the folders had of it, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
import sqlalchemy as sa
from click.testing import Result
from mlflow.entities import ViewType
from typer.testing import CliRunner

from tuner.cli.app import app
from tuner.errors import StudyInUse, StudyNotFound, TrackingUnavailable
from tuner.home import Home
from tuner.search import create_optuna_tables
from tuner.service.courier import Route
from tuner.service.deletion import delete
from tuner.service.entry import enter, open_storage, spec_of
from tuner.service.identity import identity
from tuner.spec import read_study
from tuner.storage import QUEUED, STOPPED, Database, Lease, Store, StudyRow, initialise
from tuner.storage.tables import ReportTable, StudyTable, TrialTable
from tuner.trial import Report, TrialResult, TrialState

PARAMS = {"model.learning_rate": 0.1, "data.batch_size": 64}


@pytest.fixture
def place(url: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose storage has its tables and Optuna's; commands find it, too."""
    database = Database(url, create=True)
    initialise(database, create_optuna_tables)
    database.close()
    monkeypatch.setenv("TUNER_STORAGE", url)
    return replace(home, storage=url)


@pytest.fixture
def store(place: Home) -> Iterator[Store]:
    with open_storage(place) as opened:
        yield opened


def claimed(store: Store, row: StudyRow) -> Lease:
    """A trial that a worker on another machine has begun."""
    lease = store.claim(row.id, "far/0/0|1|2")
    assert lease is not None
    store.propose(lease, PARAMS)
    store.report(lease, Report(1, {"val_loss": 0.5}, 0.5))
    return lease


def ended(store: Store, study: dict[str, Any], place: Home, name: str) -> StudyRow:
    """A stopped study with one complete trial, of which everything is everywhere."""
    row = enter(store, read_study({**study, "study": name}))
    result = TrialResult(TrialState.COMPLETE, value=0.5, metrics={"val_loss": 0.5}, best_epoch=1, epochs=1)
    store.finish(claimed(store, row), result)
    store.set_state(row.id, STOPPED)
    route = Route(store, store.study(name), spec_of(row), place)
    route.go(last=True)
    route.close()
    for folder in (place.checkpoints(name), place.logs(name)):
        folder.mkdir(parents=True)
        (folder / "something").touch()
    return store.study(name)


def rows(store: Store) -> list[int]:
    """How many studies, trials and reports there are."""
    with store.database.read() as session:
        tables = (StudyTable, TrialTable, ReportTable)
        return [session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables]


def in_optuna(place: Home) -> list[str]:
    storage = optuna.storages.RDBStorage(place.storage, skip_table_creation=True)
    names: list[str] = optuna.get_all_study_names(storage)
    storage.remove_session()
    storage.engine.dispose()
    return names


def in_mlflow(place: Home, name: str) -> list[str]:
    """The lifecycle stages of a study's runs."""
    client = mlflow.MlflowClient(place.tracking)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    assert experiment.lifecycle_stage == "active", "another study of this name finds its place"
    return [run.info.lifecycle_stage for run in client.search_runs([experiment.experiment_id], "", ViewType.ALL)]


def folders(place: Home) -> set[str]:
    return {path.name for kind in ("checkpoints", "logs") for path in (place.folder / kind).iterdir()}


def command(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, ["delete", *arguments], input=answer)


def test_a_study_is_gone_from_everywhere_and_its_name_is_free(store: Store, place: Home, study: dict[str, Any]) -> None:
    for name in ("a", "b"):
        ended(store, study, place, name)
    assert (rows(store), in_optuna(place), folders(place)) == ([2, 2, 2], ["a", "b"], {"a", "b"})
    done = command("a", "--yes")
    assert done.exit_code == 0, done.output
    assert "a is deleted." in done.output
    assert (rows(store), in_optuna(place), folders(place)) == ([1, 1, 1], ["b"], {"b"})
    assert in_mlflow(place, "a") == ["deleted", "deleted"]
    assert in_mlflow(place, "b") == ["active", "active"]
    ended(store, study, place, "a")
    assert sorted(in_mlflow(place, "a")) == ["active", "active", "deleted", "deleted"]
    assert command("a", "--yes", "--keep-mlflow").exit_code == 0
    assert sorted(in_mlflow(place, "a")) == ["active", "active", "deleted", "deleted"]
    assert rows(store) == [1, 1, 1]


def test_a_study_that_is_worked_on_is_refused_until_it_is_stopped_and_then_waited_for(
    store: Store, place: Home, study: dict[str, Any]
) -> None:
    row = enter(store, read_study({**study, "study": "s"}))
    lease = claimed(store, row)
    refused = CliRunner().invoke(app, ["delete", "s", "--yes"])
    assert isinstance(refused.exception, StudyInUse)
    assert refused.exception.exit_code == 2
    assert str(refused.exception) == "s is in use on far. Stop it first: tuner stop s"
    store.set_state(row.id, STOPPED)
    with pytest.raises(StudyInUse, match="still in use on far"):
        delete(store, place, "s", keep_mlflow=False, patience=0.0)
    assert rows(store) == [1, 1, 1]
    worker = threading.Timer(0.3, lambda: store.give_back(lease))
    worker.start()
    delete(store, place, "s", keep_mlflow=False)
    worker.join()
    assert rows(store) == [0, 0, 0]


def test_a_queued_study_is_no_longer_served(store: Store, place: Home, study: dict[str, Any]) -> None:
    row = enter(store, read_study({**study, "study": "s"}))
    store.submit(row.id)
    assert store.study("s").state == QUEUED
    store.sign_in("w", machine="m", device="cpu", threads=1, folder="/")
    assert store.turn("w") is not None
    delete(store, place, "s", keep_mlflow=False)
    assert store.claim(row.id, "w") is None
    assert store.plan(row.id, lambda _: []) is None
    store.complete(row.id)
    assert not store.become_courier(row.id, identity(), lambda _: False)
    assert store.turn("w") is None
    assert [worker.study for worker in store.workers()] == [None]


def test_nothing_is_deleted_while_mlflow_is_away(store: Store, place: Home, study: dict[str, Any]) -> None:
    ended(store, study, place, "s")
    Path(place.tracking.removeprefix("sqlite:///")).write_bytes(b"no database" * 100)
    failed = command("s", "--yes")
    assert isinstance(failed.exception, TrackingUnavailable)
    assert failed.exception.exit_code == 1
    assert (rows(store), in_optuna(place), folders(place)) == ([1, 1, 1], ["s"], {"s"})
    assert command("s", "--yes", "--keep-mlflow").exit_code == 0
    assert (rows(store), in_optuna(place), folders(place)) == ([0, 0, 0], [], set())


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("", 2), ("y\n", 0)])
def test_it_asks_first(store: Store, place: Home, study: dict[str, Any], answer: str, code: int) -> None:
    enter(store, read_study({**study, "study": "s"}))
    asked = command("s", answer=answer)
    assert asked.exit_code == code, asked.output
    assert "Delete s (interrupted) with its 0 trials, weights and logs" in asked.output
    assert rows(store)[0] == (0 if code == 0 else 1)


def test_what_was_never_in_mlflow_needs_none(store: Store, place: Home, study: dict[str, Any]) -> None:
    enter(store, read_study({**study, "study": "s"}))
    delete(store, place, "s", keep_mlflow=False)
    assert not Path(place.tracking.removeprefix("sqlite:///")).exists()


def test_a_study_that_is_not_there_is_told(store: Store, place: Home, study: dict[str, Any]) -> None:
    enter(store, read_study({**study, "study": "digits"}))
    missing = command("digts", "--yes")
    assert isinstance(missing.exception, StudyNotFound)
    assert missing.exception.exit_code == 2
    assert "Did you mean 'digits'?" in str(missing.exception)
