"""Workers in a Ray cluster: three nodes on this machine, PostgreSQL, one node killed in mid-study.

The cluster's processes are real, and so are the commands; who does what is read from the storage and from /proc.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tuner.cli.app import app
from tuner.engine.on_ray import Places, room_for, run_on_ray, serve_on_ray, storage_problem
from tuner.errors import SpecError
from tuner.home import Home
from tuner.service.entry import enter, open_storage
from tuner.service.identity import machine
from tuner.spec import read_study
from tuner.storage import COMPLETE, Database, Store, initialise
from tuner.storage import RUNNING as STUDY_RUNS
from tuner.trial import Trial, TrialState

PATIENCE = 240.0  # seconds that only a broken test takes
TRIALS = 9
PASSWORD = "not-for-ray"  # noqa: S105 - the test server asks for none, so any will do


# What is refused before there is a cluster


@pytest.mark.parametrize(
    ("places", "path"),
    [
        (Places(workers=0), "--workers"),
        (Places(cpus=0.0), "--cpus-per-worker"),
        (Places(cpus=1.5), "--cpus-per-worker"),
        (Places(gpus=2.0), "--gpus-per-worker"),
        (Places(gpus=-0.1), "--gpus-per-worker"),
        (Places(working_dir=Path("absent")), "--working-dir"),
    ],
)
def test_what_a_worker_cannot_get_is_refused(places: Places, path: str, home: Home) -> None:
    with pytest.raises(SpecError) as refused:
        serve_on_ray(places=places, home=home)
    assert [problem.path for problem in refused.value.problems] == [path]
    assert refused.value.exit_code == 2
    assert not home.folder.exists()


def test_fractions_and_whole_numbers_are_taken() -> None:
    for places in (Places(), Places(workers=3, cpus=0.5, gpus=0.25), Places(cpus=4.0, gpus=1.0), Places(gpus=0.0)):
        assert places.problems() == []


def test_a_missing_ray_is_told_with_the_command_that_installs_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for start in (lambda: serve_on_ray(home=home), lambda: run_on_ray("digits-mlp", home=home)):
        with pytest.raises(SpecError, match=r"pip install 'tuner\[ray\]'"):
            start()
    assert not home.folder.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "auto"],
        ["--workers", "2"],
        ["--gpus-per-worker", "0.5"],
        ["--cpus-per-worker", "2"],
        ["--working-dir", "."],
        ["--engine", "ray", "--devices", "cpu"],
    ],
)
def test_an_option_of_another_engine_is_refused(arguments: list[str], home: Home) -> None:
    refused = CliRunner().invoke(app, ["worker", *arguments])
    assert refused.exit_code == 2
    assert "ray" in refused.output
    assert not home.folder.exists()


def test_a_file_is_a_storage_for_one_machine(tmp_path: Path) -> None:
    embedded = Home(tmp_path, f"sqlite:///{tmp_path}/tuner.db", "")
    assert storage_problem(embedded, [machine()]) is None
    for machines, told in (([machine(), "b"], "has 2 nodes"), (["b"], "is on b")):
        problem = storage_problem(embedded, machines)
        assert problem is not None
        assert told in problem.message
        assert "PostgreSQL" in problem.message
        assert "tuner init-db" in problem.message
    assert storage_problem(Home(tmp_path, "postgresql+psycopg://db/tuner", ""), [machine(), "b"]) is None


def test_a_cluster_that_is_not_there_is_told_at_once(home: Home) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(SpecError, match=f"no Ray cluster at {address}: nobody listens there"):
            serve_on_ray(address=address, home=home)


def test_room_is_counted_as_ray_counts_it() -> None:
    assert room_for({"CPU": 8.0}, 1.0, 0.0) == 8
    assert room_for({"CPU": 1.0}, 0.1, 0.0) == 10
    assert room_for({"CPU": 8.0, "GPU": 1.0}, 1.0, 0.25) == 4
    assert room_for({"CPU": 2.0, "GPU": 1.0}, 1.0, 0.25) == 2
    assert room_for({"CPU": 8.0}, 1.0, 0.25) == 0
    assert room_for({}, 1.0, 0.0) == 0


# A cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes: one CPU at the head, and more than two workers need even if one of the others is lost."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024}
    quick = {"health_check_period_ms": 1000, "health_check_initial_delay_ms": 0}  # a dead node is known in seconds
    head = {**small, "include_dashboard": False, "_system_config": quick}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.add_node(**small)
        nodes.add_node(**{**small, "num_cpus": 2})
        yield nodes
    finally:
        nodes.shutdown()


@pytest.fixture
def place(postgres_url: str, home: Home) -> Home:
    """A home whose storage is on PostgreSQL, with its tables."""
    url = sa.make_url(postgres_url).set(password=PASSWORD).render_as_string(hide_password=False)
    database = Database(url)
    initialise(database)
    database.close()
    return Home(home.folder, url, home.tracking)


@pytest.fixture
def store(place: Home) -> Iterator[Store]:
    with open_storage(place) as opened:
        yield opened


@pytest.fixture
def paced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A study of trials that cost nothing and wait while there is a file `hold`; its code is in the test's folder."""
    code = Path(__file__).with_name("paced.py")
    (tmp_path / "paced.py").write_text(code.read_text())
    monkeypatch.chdir(tmp_path)
    return {
        "study": "paced",
        "model": {"class_path": "paced.Paced"},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "objective": {"metric": "val_loss", "direction": "minimize"},
        "space": {"model.rate": {"float": {"low": 0.1, "high": 0.9}, "priority": 1}},
        "search": {"trials": TRIALS, "sampler": "random", "pruner": "none", "confirm": 0, "training": "lean"},
    }


@pytest.fixture
def tuner(cluster: Any, place: Home, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in the test's folder; what it writes is in `said`."""
    own = {
        "TUNER_HOME": str(place.folder),
        "TUNER_STORAGE": place.storage,
        "MLFLOW_TRACKING_URI": place.tracking,
        "RAY_ADDRESS": cluster.address,
    }
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        with (tmp_path / "said").open("a") as said:
            command = [sys.executable, "-m", "tuner", *arguments]
            everything = {**os.environ, **own, **environment}
            started.append(subprocess.Popen(command, env=everything, text=True, stdout=said, stderr=said))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(condition: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None, Path("said").read_text()
        assert time.monotonic() < deadline, Path("said").read_text()
        time.sleep(0.1)
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what happens although the command has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, Path("said").read_text()
        time.sleep(0.1)


def submitted(store: Store, document: dict[str, Any]) -> int:
    row = enter(store, read_study(document))
    store.submit(row.id, None)
    return row.id


def running(store: Store, study: int) -> list[Trial]:
    return [trial for trial in store.trials(study) if trial.state is TrialState.RUNNING]


def working(store: Store) -> dict[int, str]:
    """The process numbers of those at work."""
    return {int(w.owner.split("|")[1]): w.owner for w in store.workers() if not w.left}


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def test_all_trials_finish_once_when_a_node_is_killed(
    cluster: Any, tuner: Callable[..., subprocess.Popen[str]], store: Store, place: Home, paced: dict[str, Any]
) -> None:
    study = submitted(store, paced)
    Path("hold").touch()
    service = tuner("worker", "--engine", "ray", "--workers", "2", "--once")
    until(lambda: len(running(store, study)) == 2, service)
    before = working(store)
    assert len(before) == 2
    node, lost = next(
        (node, pids)
        for node in cluster.worker_nodes
        if (pids := [pid for pid in before if raylet(node) in ancestors(pid)])
    )

    for pid in lost:  # a machine that loses its power gives nothing back
        os.kill(pid, signal.SIGSTOP)
    cluster.remove_node(node, allow_graceful=False)
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(working(store).keys() - before.keys()) == len(lost), service)
    until(lambda: len(running(store, study)) == 2, service)
    assert not working(store).keys() & set(lost)
    Path("hold").unlink()
    assert service.wait(PATIENCE) == 0, Path("said").read_text()

    trials = store.trials(study)
    assert store.study("paced").state == COMPLETE
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert {trial.outcome.epochs for trial in trials} == {2}
    mlflow.set_tracking_uri(place.tracking)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    children = Counter(run.info.run_name for run in runs if "mlflow.parentRunId" in run.data.tags)
    assert len(children) == TRIALS
    assert set(children.values()) == {1}
    assert_no_password(cluster)


def test_a_stop_gives_the_trials_back_and_run_ends_the_study(
    cluster: Any, tuner: Callable[..., subprocess.Popen[str]], store: Store, paced: dict[str, Any]
) -> None:
    study = submitted(store, {**paced, "trainer": {"max_epochs": 2000}, "search": {**paced["search"], "trials": 1}})
    Path("code").mkdir()
    Path("paced.py").rename("code/paced.py")
    service = tuner("worker", "--engine", "ray", "--workers", "1", "--cpus-per-worker", "0.5", "--working-dir", "code")
    until(lambda: running(store, study), service)
    assert {Path(worker.folder) for worker in store.workers()}.isdisjoint({Path.cwd(), Path("code").resolve()})
    service.terminate()
    assert service.wait(PATIENCE) == 0, Path("said").read_text()
    # One that this machine was too busy to let end in time has lost its actor, and gives its trial back by itself.
    eventually(lambda: {trial.state for trial in store.trials(study)} == {TrialState.WAITING})
    assert {trial.attempt for trial in store.trials(study)} == {0}, "a stop counts against no trial"
    eventually(lambda: working(store) == {})

    Path("code/paced.py").rename("paced.py")
    other = {**paced, "study": "run", "search": {**paced["search"], "trials": 1}}
    Path("run.yaml").write_text(json.dumps(other))
    run = tuner("run", "run.yaml", "--engine", "ray")
    assert run.wait(PATIENCE) == 0, Path("said").read_text()
    assert store.study("run").state == COMPLETE
    assert store.study("paced").state != STUDY_RUNS


def test_a_cluster_of_several_nodes_needs_more_than_a_file(
    tuner: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    refused = tuner("worker", "--engine", "ray", TUNER_STORAGE=f"sqlite:///{tmp_path}/tuner.db")
    assert refused.wait(PATIENCE) == 2
    said = (tmp_path / "said").read_text()
    assert "which one machine alone can use, but the Ray cluster has" in said
    assert "PostgreSQL" in said


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def assert_no_password(cluster: Any) -> None:
    """Nothing that Ray wrote, and no command line of its, has the storage's password."""
    logs = [path for path in Path(cluster.head_node.get_session_dir_path()).rglob("*") if path.is_file()]
    assert logs
    for path in [*logs, *Path("/proc").glob("[0-9]*/cmdline")]:
        try:
            assert PASSWORD.encode() not in path.read_bytes(), path
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
