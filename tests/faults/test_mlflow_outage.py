"""MLflow killed, frozen and back in the middle of a study: training goes on, and everything arrives once.

The bar by hand, with a minute's outage and a table:

    TUNER_OUTAGE_SECONDS=60 python -m pytest -s tests/faults/test_mlflow_outage.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow_server import MlflowServer, arrived

from tuner.errors import StorageUnavailable, StudyNotFound, TrackingUnavailable
from tuner.home import Home
from tuner.service.courier import Route
from tuner.service.entry import open_storage, spec_of
from tuner.storage.tables import ReportTable

TESTS = Path(__file__).parent.parent
OUTAGE_SECONDS = float(os.environ.get("TUNER_OUTAGE_SECONDS", "0"))
EPOCHS, PAUSE = 5, 0.1 if OUTAGE_SECONDS else 0.02
LONGEST_WAIT_SECONDS = 2.0  # the bar


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.close()


class Run:
    """`tuner run` as a process of its own, watched through the storage."""

    def __init__(self, folder: Path, tracking: str, trials: int) -> None:
        self._hold = folder / "hold"
        self.home = Home(folder / ".tuner", f"sqlite:///{folder}/.tuner/tuner.db", tracking)
        document = {
            "study": "paced",
            "model": {"class_path": "paced.Paced", "init_args": {"pause": PAUSE}},
            "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu"},
            "space": {"model.rate": {"float": {"low": 0.1, "high": 0.9, "default": 0.5}, "priority": 1}},
            "search": {
                "trials": trials,
                "sampler": "random",
                "pruner": "none",
                "confirm": 0,
                "training": "lean",
                "patience": None,
            },
        }
        (folder / "study.yaml").write_text(json.dumps(document))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("TUNER_", "MLFLOW_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tuner", "run", "study.yaml", "--json"],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(TESTS), "MLFLOW_TRACKING_URI": tracking},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finished(self) -> int:
        """How many trials have ended."""
        return sum(trial.state.finished for trial in self._trials())

    def waiting(self) -> int:
        """How many trials are not all in MLflow."""
        with open_storage(self.home) as store:
            return store.count_untracked(store.study("paced").id)

    def moments(self) -> list[float]:
        """When epochs ended, in seconds since 1970."""
        with open_storage(self.home) as store, store.database.read() as session:
            return list(session.scalars(sa.select(ReportTable.at).order_by(ReportTable.at)))

    def hold(self) -> None:
        """Let the next epoch wait, and MLflow get all that there is."""
        self._hold.touch()
        self.until(lambda: self.waiting() == 0)

    def go_on(self) -> None:
        """Let the epochs go on."""
        self._hold.unlink()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the study runs."""
        deadline = time.monotonic() + 400 + OUTAGE_SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.2)

    def trains_on(self, trials: int) -> tuple[float, float]:
        """Go on until so many more trials have ended, and the outage has lasted; return from when to when."""
        before, began = self.finished(), time.time()
        self.go_on()
        self.until(lambda: self.finished() >= before + trials and time.time() - began >= OUTAGE_SECONDS)
        ended = time.time()
        self._hold.touch()
        return began, ended

    def result(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=400)
        assert self.process.returncode == 0, err
        printed: dict[str, Any] = json.loads(out)
        return printed

    def _trials(self) -> list[Any]:
        try:
            with open_storage(self.home) as store:
                return store.trials(store.study("paced").id)
        except (StudyNotFound, StorageUnavailable):  # not yet made
            return []


def longest_wait(moments: list[float], since: float, until: float) -> float:
    """The longest time between two epochs of a stretch of time, in seconds."""
    inside = [moment for moment in moments if since <= moment <= until]
    return max((later - earlier for earlier, later in pairwise(inside)), default=float("inf"))


def test_mlflow_killed_and_frozen_in_mid_study(server: MlflowServer, tmp_path: Path) -> None:
    trials = 30 + int(2 * OUTAGE_SECONDS / (EPOCHS * PAUSE))
    run = Run(tmp_path, server.url, trials)
    try:
        run.until(lambda: run.finished() >= 3)
        run.hold()
        server.signal(signal.SIGKILL)
        killed = run.trains_on(8)
        server.start()
        run.hold()
        server.signal(signal.SIGSTOP)  # it still accepts connections, and never answers
        frozen = run.trains_on(5)
        server.signal(signal.SIGCONT)
        run.hold()
        run.go_on()
        printed = run.result()
    finally:
        run.process.kill()
    assert printed["trials"] == {"complete": trials, "pruned": 0, "failed": 0, "running": 0}
    found = arrived(run.home, "paced", server.url)
    moments = run.moments()
    print(f"\n{'':24}storage   MLflow")
    print(f"{'trials':24}{found.trials:7}  {found.runs:7}")
    print(f"{'metrics of epochs':24}{found.points:7}  {found.logged:7}")
    waits = []
    for what, (since, until) in {"killed": killed, "frozen": frozen}.items():
        waits.append(longest_wait(moments, since, until))
        print(f"MLflow {what} for {until - since:.1f} s: the longest time between two epochs is {waits[-1]:.2f} s")
    assert found.differences == []
    assert run.waiting() == 0
    check_that_a_new_database_gets_everything(run.home, server)
    if OUTAGE_SECONDS:  # a bar for a machine that does nothing else
        assert max(waits) <= LONGEST_WAIT_SECONDS


def check_that_a_new_database_gets_everything(home: Home, server: MlflowServer) -> None:
    """The server comes back without its database, while a courier believes that it knows what is there."""
    with open_storage(home) as store:
        row = store.study("paced")
        courier = Route(store, row, spec_of(row), home)
        courier.go(last=False)
        server.signal(signal.SIGKILL)
        server.forget()
        server.start()
        assert MlflowClient(server.url).get_experiment_by_name("paced") is None
        for _ in range(2):
            with suppress(TrackingUnavailable):
                courier.go(last=True)
        courier.close()
    assert arrived(home, "paced", server.url).differences == []
