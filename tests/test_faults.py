"""Ctrl-C, kill -9 and stop in the middle of a run: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest

from tuner.errors import StorageUnavailable, StudyNotFound
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.trial import Trial, TrialState

TRIALS, EPOCHS = 6, 15


EAGER = """
import tuner.models
import tuner.training.pace as pace

pace.EVERY_SECONDS, pace.SHARE = 0.0, 1.0


class Net(tuner.models.MLP):
    '''A user's network; importing it has every epoch written down.'''
"""


def prepared(folder: Path, study: dict[str, Any]) -> Home:
    """A folder with a study whose trials take half a second or so, and are written down all the time."""
    (folder / "eager.py").write_text(EAGER)
    study["model"]["class_path"] = "eager.Net"
    study["trainer"]["max_epochs"] = EPOCHS
    study["search"] |= {"trials": TRIALS, "pruner": "none", "patience": None}
    (folder / "study.yaml").write_text(json.dumps(study))
    home = folder / ".tuner"
    return Home(home, f"sqlite:///{home}/tuner.db", f"sqlite:///{home}/mlflow.db")


@pytest.fixture
def place(tmp_path: Path, study: dict[str, Any]) -> Home:
    return prepared(tmp_path, study)


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "MLFLOW_TRACKING"))}


def start(place: Home, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuner", *(arguments or ("run", "study.yaml", "--json"))]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        command, cwd=place.folder.parent, env=environment(), text=True, start_new_session=True, **pipes
    )


def trials(place: Home) -> list[Trial]:
    try:
        with open_storage(place) as store:
            return store.trials(store.study("small").id)
    except (StudyNotFound, StorageUnavailable):  # not yet made, or being made
        return []


def until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
    """Wait for a condition, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def some_done_and_one_running(place: Home) -> bool:
    """One trial is some epochs old and written down, and others are finished."""
    found = trials(place)
    reported = any(t.state is TrialState.RUNNING and len(t.values) >= 3 for t in found)
    written = any(place.checkpoints("small").glob("*.resume.pt"))
    return reported and written and sum(t.state.finished for t in found) >= 2


_UNDISTURBED: list[Any] = []


@pytest.fixture
def undisturbed(tmp_path: Path, study: dict[str, Any]) -> list[Any]:
    """What the study gives when nothing happens; found out once."""
    if not _UNDISTURBED:
        folder = tmp_path / "undisturbed"
        folder.mkdir()
        quiet = prepared(folder, copy.deepcopy(study))
        finish(quiet, "run", "study.yaml", "--json")
        _UNDISTURBED.extend(what(quiet))
    return _UNDISTURBED


def what(place: Home) -> list[tuple[Any, ...]]:
    return [(t.number, t.seed, t.params, t.value, dict(t.values)) for t in trials(place)]


def finish(place: Home, *arguments: str) -> dict[str, Any]:
    process = start(place, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    printed: dict[str, Any] = json.loads(out)
    return printed


def check_nothing_lost(place: Home, printed: dict[str, Any], undisturbed: list[Any]) -> None:
    assert any(t.began_after for t in trials(place)), "what was interrupted went on from where it was"
    assert not list(place.checkpoints("small").glob("*.resume.*")), "nothing of finished trials is left"
    assert printed["trials"] == {"complete": TRIALS, "pruned": 0, "failed": 0, "running": 0}
    assert what(place) == undisturbed, "the interruption changed a result"
    copied = optuna.load_study(study_name="small", storage=place.storage)
    assert [t.user_attrs["tuner.trial"] for t in copied.trials] == list(range(TRIALS))
    assert {t.state.name for t in copied.trials} == {"COMPLETE"}
    copied._storage.remove_session()
    client = mlflow.MlflowClient(place.tracking)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`tuner.kind` = 'trial'", max_results=100)
    assert sorted(int(run.data.tags["tuner.trial"]) for run in runs) == list(range(TRIALS))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")]
        assert sorted(steps) == list(range(1, EPOCHS + 1)), "an epoch is missing or there twice"


def test_ctrl_c_returns_trials_to_the_queue_and_resume_goes_on(place: Home, undisturbed: list[Any]) -> None:
    process = start(place)
    until(lambda: some_done_and_one_running(place), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert "tuner resume small" in err
    assert json.loads(out)["state"] == "stopped"
    assert json.loads(out)["trials"]["running"] == 0
    assert TrialState.WAITING in {t.state for t in trials(place)}
    check_nothing_lost(place, finish(place, "resume", "small", "--json"), undisturbed)


def test_kill_9_of_everything_and_the_same_command_goes_on(place: Home, undisturbed: list[Any]) -> None:
    process = start(place)
    until(lambda: some_done_and_one_running(place), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=90)
    assert TrialState.RUNNING in {t.state for t in trials(place)}
    check_nothing_lost(place, finish(place), undisturbed)


def test_kill_9_of_a_worker_is_noticed_and_another_takes_over(place: Home, undisturbed: list[Any]) -> None:
    process = start(place)
    until(lambda: some_done_and_one_running(place), process)
    with open_storage(place) as store:
        victim = store.owners(store.study("small").id)[0]
    os.kill(int(victim.split("|")[1]), signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    check_nothing_lost(place, json.loads(out), undisturbed)


def test_workers_stop_when_their_parent_is_killed(place: Home) -> None:
    process = start(place)
    until(lambda: some_done_and_one_running(place), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=90)
    deadline = time.monotonic() + 90
    while any(t.state is TrialState.RUNNING for t in trials(place)):
        assert time.monotonic() < deadline, "an orphan goes on training"
        time.sleep(0.05)


def test_stop_from_another_terminal_ends_the_run(place: Home, undisturbed: list[Any]) -> None:
    process = start(place)
    until(lambda: some_done_and_one_running(place), process)
    stopping = start(place, "stop", "small")
    stopping.communicate(timeout=90)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert json.loads(out)["state"] == "stopped"
    check_nothing_lost(place, finish(place, "resume", "small", "--json"), undisturbed)
