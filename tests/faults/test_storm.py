"""A service in a storm: workers killed every few seconds, MLflow killed, the database restarted; nothing is lost.

The bar by hand, with eight workers, two hundred trials and a table:

    TUNER_STORM=full python -m pytest -s tests/faults/test_storm.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
import sqlalchemy as sa
from falling import value_after
from mlflow_server import Arrived, MlflowServer, arrived
from own_postgres import OwnPostgres
from storm import Storm, lock_for, processes_of

from tuner.home import Home
from tuner.search import create_optuna_tables
from tuner.service.entry import open_storage
from tuner.storage import Database, Store, initialise
from tuner.storage.tables import ReportTable, TrialTable
from tuner.trial import Trial, TrialState

HERE = Path(__file__).parent
STUDY = "storm"
PATIENCE = 600.0  # seconds that only a broken test takes
LOCK_SECONDS = 3.0


@dataclass(frozen=True)
class Size:
    """How large the storm is; `every` seconds a worker is killed, `most` times; an epoch takes `pause` seconds."""

    workers: int
    trials: int
    epochs: int
    pause: float
    every: float
    most: int


SMALL = Size(workers=3, trials=24, epochs=6, pause=0.15, every=1.0, most=3)
FULL = Size(workers=8, trials=200, epochs=8, pause=0.25, every=4.0, most=40)
SIZE = FULL if os.environ.get("TUNER_STORM") == "full" else SMALL


@dataclass
class Place:
    """Where a study is, and how its database is away once."""

    home: Home
    server: MlflowServer
    strike: Callable[[], None]
    struck: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, server: MlflowServer, tmp_path: Path) -> Iterator[Place]:
    """A storage with its tables; PostgreSQL is one of the test's own, since it is to crash."""
    with ExitStack() as closing:
        folder = tmp_path / ".tuner"
        if request.param == "sqlite":
            url, struck = f"sqlite:///{folder}/tuner.db", "locked"
            strike = partial(lock_for, folder / "tuner.db", LOCK_SECONDS)
        else:
            postgres = OwnPostgres(uuid.uuid4().hex)
            closing.callback(postgres.close)
            url = f"postgresql+psycopg://postgres@127.0.0.1:{postgres.port}/postgres"
            strike, struck = postgres.restart, "restarted"
        database = Database(url, create=True)
        initialise(database, create_optuna_tables)
        database.close()
        yield Place(Home(folder, url, server.url), server, strike, struck)


class Service:
    """`tuner submit` and `tuner worker`, as a user starts them."""

    def __init__(self, home: Home, study: str) -> None:
        self._home, self._log = home, home.folder.parent / "worker.log"
        document = {
            "study": study,
            "model": {"class_path": "falling.Falling", "init_args": {"pause": SIZE.pause}},
            "trainer": {"max_epochs": SIZE.epochs, "accelerator": "cpu"},
            "space": {"model.rate": {"float": {"low": 0.01, "high": 0.1, "default": 0.05}, "priority": 1}},
            "search": {
                "trials": SIZE.trials,
                "sampler": "random",
                "pruner": "none",
                "confirm": 0,
                "training": "lean",
                "patience": None,
            },
        }
        (self._log.parent / "study.yaml").write_text(json.dumps(document))
        with self._start("submit", "study.yaml") as submitting:
            assert submitting.wait(PATIENCE) == 0, self.said()
        self.workers = self._start("worker", "--devices", f"cpu:{SIZE.workers}")

    def said(self) -> str:
        """What both have said so far."""
        return self._log.read_text()

    def alive(self) -> None:
        """See that it has not died."""
        assert self.workers.poll() is None, self.said()

    def stop(self) -> None:
        """Stop the workers as an administrator does, and see that nothing of them is left."""
        self.workers.terminate()
        assert self.workers.wait(PATIENCE) == 0, self.said()
        until(lambda: processes_of(self.workers.pid) == [])

    def kill(self) -> None:
        """End what is left of it when a test has failed."""
        for process in processes_of(self.workers.pid):
            os.kill(process, signal.SIGKILL)
        self.workers.wait()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TUNER_", "MLFLOW_"))}
        with self._log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tuner", *arguments],
                cwd=self._log.parent,
                env={
                    **kept,
                    "PYTHONPATH": str(HERE),
                    "TUNER_STORAGE": self._home.storage,
                    "MLFLOW_TRACKING_URI": self._home.tracking,
                    "OMP_NUM_THREADS": "1",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def told(store: Store, study: str, url: str) -> bool:
    """Whether MLflow says that the study has ended, which is said last."""
    row = store.study(study)
    if row.state != "complete" or store.count_untracked(row.id):
        return False
    run = mlflow.MlflowClient(url).get_run(str(row.tracked["run_id"]))
    return bool(run.info.status == "FINISHED")


def test_a_storm_loses_nothing_and_counts_nothing_twice(place: Place) -> None:
    study = f"{STUDY}-{place.struck}"
    began = time.monotonic()
    with open_storage(place.home) as store:
        service = Service(place.home, study)
        try:
            row = store.study(study)
            storm = Storm(store, row.id, SIZE.trials, place.server, place.strike, every=SIZE.every, most=SIZE.most)
            storm.rage(service.alive)
            until(lambda: service.alive() or told(store, study, place.server.url))
            service.stop()
        finally:
            service.kill()
        trials, sums = store.trials(row.id), spent(store, row.id)
        found = arrived(place.home, study, place.server.url)
        print(table(storm, place, trials, sums, found, time.monotonic() - began))
        assert store.workers() == [], "nobody is left in the roster"
        assert store.study(study).state == "complete"
    check_every_trial(trials)
    check_optuna(place.home, study)
    assert sums["unfinished"] == 0
    assert sums["epochs"] == SIZE.trials * SIZE.epochs == sums["reports"]
    assert found.differences == []
    assert (found.trials, found.runs) == (SIZE.trials, SIZE.trials)
    assert found.points == found.logged >= sums["reports"]
    assert storm.kills >= min(SIZE.most, 3), "it was a storm"
    assert sum(trial.attempt - 1 for trial in trials) > 0, "trials have lost their workers"
    assert not list(place.home.checkpoints(study).glob("*.resume.*")), "nothing of finished trials is left"


def check_every_trial(trials: list[Trial]) -> None:
    """Each is there once, complete, with each epoch once, and with the values of a trial that nobody disturbed."""
    assert [trial.number for trial in trials] == list(range(SIZE.trials))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}, [trial.outcome.reason for trial in trials]
    for trial in trials:
        rate = (trial.params or {})["model.rate"]
        undisturbed = {epoch: value_after(epoch, rate) for epoch in range(1, SIZE.epochs + 1)}
        assert trial.values == pytest.approx(undisturbed, rel=1e-5), f"trial {trial.number}"
        assert trial.value == trial.values[SIZE.epochs]
        assert trial.outcome.epochs == SIZE.epochs
        assert trial.outcome.trained == "lean", "who goes on from another one's checkpoint trains as he did"


def check_optuna(home: Home, study: str) -> None:
    """Optuna's tables have every trial once, too, in the order of their ends."""
    storage = optuna.storages.RDBStorage(home.storage, skip_table_creation=True)
    copied = optuna.load_study(study_name=study, storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    assert sorted(trial.user_attrs["tuner.trial"] for trial in copied) == list(range(SIZE.trials))
    assert {trial.state.name for trial in copied} == {"COMPLETE"}


def spent(store: Store, study: int) -> Mapping[str, float]:
    """What the storage has counted."""
    sums = {
        "epochs": sa.func.sum(TrialTable.epochs),
        "wasted": sa.func.sum(TrialTable.wasted_epochs),
        "wasted_seconds": sa.func.sum(TrialTable.wasted_seconds),
        "unfinished": sa.func.count().filter(TrialTable.state.in_([TrialState.WAITING, TrialState.RUNNING])),
    }
    mine = TrialTable.study_id == study
    with store.database.read() as session:
        row = session.execute(sa.select(*(column.label(name) for name, column in sums.items())).where(mine)).one()
        reports = sa.select(sa.func.count()).select_from(ReportTable).join(TrialTable).where(mine)
        return {**row._mapping, "reports": session.execute(reports).scalar_one()}


def table(
    storm: Storm, place: Place, trials: list[Trial], sums: Mapping[str, float], found: Arrived, seconds: float
) -> str:
    """What happened, and what came of it."""
    again = [trial for trial in trials if trial.attempt > 1]
    lines = {
        "workers": SIZE.workers,
        "workers killed": storm.kills,
        f"database {place.struck}": f"{storm.database_seconds:.1f} s",
        "MLflow away": f"{storm.mlflow_seconds:.1f} s",
        "trials complete": f"{sum(trial.state is TrialState.COMPLETE for trial in trials)} of {SIZE.trials}",
        "trials failed": sum(trial.state is TrialState.FAILED for trial in trials),
        "times a trial went back": sum(trial.attempt - 1 for trial in again),
        "went on from a checkpoint": sum(bool(trial.began_after) for trial in again),
        "began anew": sum(not trial.began_after for trial in again),
        "epochs": f"{sums['epochs']} of {SIZE.trials * SIZE.epochs}",
        "epochs wasted": sums["wasted"],
        "seconds wasted": f"{sums['wasted_seconds']:.1f} s",
        "runs in MLflow": f"{found.runs} of {found.trials}",
        "metrics in MLflow": f"{found.logged} of {found.points}",
        "differences": len(found.differences),
        "seconds": f"{seconds:.0f} s",
    }
    return "\n" + "\n".join(f"{name:28}{value:>14}" for name, value in lines.items())
