"""The courier: what the storage knows arrives in MLflow, once, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from tuner.home import Home
from tuner.service.courier import Courier, Route
from tuner.service.entry import enter, open_storage, spec_of
from tuner.spec import read_study
from tuner.storage import Store, StudyRow
from tuner.tracking.local_store import create_local_store
from tuner.trial import Report, TrialResult, TrialState

PARAMS = {"model.learning_rate": 0.1, "data.batch_size": 64}


@pytest.fixture
def store(home: Home, study: dict[str, Any]) -> Iterator[Store]:
    with open_storage(home, create=True) as opened:
        enter(opened, read_study(study))
        yield opened


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
    store.report(lease, Report(1, {"val_loss": 1.0, "val_acc@5": 0.5}, 1.0))
    courier.go(last=False)
    courier.close()
    (run,) = children(home)
    assert run.data.metrics["val_acc_5"] == 0.5
    assert store.count_untracked(row.id) == 0
