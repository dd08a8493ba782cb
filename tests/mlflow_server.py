"""A real MLflow server on HTTP that can be killed, frozen and started again, and what of a study has arrived there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import mlflow
import sqlalchemy as sa
from own_postgres import free_port

from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.storage.tables import ReportTable, TrialTable
from tuner.trial import TrialState

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAILED: "FAILED"}


class MlflowServer:
    """A server with an SQLite file in a folder, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [f"--port={self.port}", "--host=127.0.0.1", "--workers=1"]
        places = [
            f"--backend-store-uri=sqlite:///{self.folder}/server.db",
            f"--artifacts-destination={self.folder}/served",
        ]
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, *places],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 300
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, "MLflow does not start"
            time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes; after SIGKILL, wait for its end."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        if number is signal.SIGKILL:
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Delete its database, while it does not run."""
        for file in self.folder.glob("server.db*"):
            file.unlink()

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self.signal(signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):  # noqa: S310 - http
                return True
        except (urllib.error.URLError, OSError):
            return False


@dataclass(frozen=True)
class Arrived:
    """What of a study is in the storage, and what in MLflow.

    Attributes:
        trials, points: in the storage; a point is a metric of an epoch.
        runs, logged: the same in MLflow.
        differences: in words, everything in which they differ.
    """

    trials: int
    runs: int
    points: int
    logged: int
    differences: list[str]


def arrived(home: Home, study: str, url: str) -> Arrived:
    """Compare MLflow with the storage, trial by trial and point by point."""
    client = mlflow.MlflowClient(url)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=5000))
    children = [run for run in runs if "tuner.trial" in run.data.tags]
    differences = []
    parents = [run for run in runs if "tuner.trial" not in run.data.tags]
    if len(parents) != 1:
        differences.append(f"{len(parents)} parent runs")
    numbers = Counter(int(run.data.tags["tuner.trial"]) for run in children)
    differences += [f"trial {number} has {count} runs" for number, count in numbers.items() if count > 1]
    points = logged = 0
    with open_storage(home) as store, store.database.read() as session:
        row = store.study(study)
        if parents and row.state == "complete" and parents[0].info.status != "FINISHED":
            differences.append(f"the parent run is {parents[0].info.status}")
        trials = store.trials(row.id)
        kept = {trial.number: [] for trial in trials}
        for number, epoch, at, metrics in session.execute(
            sa.select(TrialTable.number, ReportTable.epoch, ReportTable.at, ReportTable.metrics)
            .join(TrialTable, TrialTable.id == ReportTable.trial_id)
            .where(TrialTable.study_id == row.id)
        ):
            kept[number] += [(name, epoch, int(at * 1000), value) for name, value in metrics.items()]
    for trial in trials:
        run = next((run for run in children if run.data.tags["tuner.trial"] == str(trial.number)), None)
        points += len(kept[trial.number])
        if run is None:
            differences.append(f"trial {trial.number} has no run")
            continue
        if run.info.status != STATUS.get(trial.state, "RUNNING"):
            differences.append(f"trial {trial.number} is {trial.state}, its run {run.info.status}")
        if {name: run.data.params.get(name) for name in trial.params or {}} != {
            name: str(value) for name, value in (trial.params or {}).items()
        }:
            differences.append(f"trial {trial.number} has other values: {run.data.params}")
        names = {name for name, *_ in kept[trial.number]}
        there = [
            (name, point.step, point.timestamp, point.value)
            for name in sorted(names)
            for point in client.get_metric_history(run.info.run_id, name)
        ]
        logged += len(there)
        if sorted(there) != sorted(kept[trial.number]):
            differences.append(f"trial {trial.number} has other metrics: {there} for {kept[trial.number]}")
        if trial.result is not None and run.data.metrics.get("best_epoch") != float(trial.result.best_epoch or 0):
            differences.append(f"trial {trial.number} lacks its result")
    return Arrived(len(trials), len(children), points, logged, differences)
