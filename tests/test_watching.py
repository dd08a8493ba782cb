"""What a person sees of a study that runs, over all its workers and from the storage alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tuner.cli import app as commands
from tuner.cli.progress import panel
from tuner.report.words import counted
from tuner.service.standing import Follower, so_far
from tuner.spec import read_study
from tuner.storage import STOPPED, Database, Lease, Store, initialise
from tuner.trial import Objective, Report, Trial, TrialResult, TrialState

HERE, THERE = "here/boot/ns|11|1", "there/boot/ns|12|1"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The storage of a home of its own."""
    monkeypatch.setenv("TUNER_HOME", str(tmp_path))
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    database = Database(f"sqlite:///{tmp_path / 'tuner.db'}", create=True)
    initialise(database)
    yield Store(database)
    database.close()


@pytest.fixture
def running(store: Store, study: dict[str, Any]) -> tuple[Store, int, list[Lease]]:
    """A study of which two trials are complete, one has failed, and two run on two machines."""
    spec = read_study(study, [("search.trials", 10)])
    row = store.create(spec.study, spec.document(), spec.seed_everything).id
    leases = [lease for owner in (HERE, HERE, HERE, HERE, THERE) if (lease := store.claim(row, owner)) is not None]
    for number, lease in enumerate(leases):
        store.propose(lease, {"model.learning_rate": 0.01 * (number + 1), "data.batch_size": 64})
    for lease, value in zip(leases[:2], (0.5, 0.25), strict=True):
        store.report(lease, Report(1, {"val_loss": value, "val_acc": 0.9}, value))
        result = TrialResult(TrialState.COMPLETE, value, {"val_loss": value, "val_acc": 0.9}, 1, 2, config={})
        store.finish(lease, result)
    store.finish(leases[2], TrialResult(TrialState.FAILED, reason="ValueError: odd"))
    return store, row, leases


# One look


def test_a_look_tells_of_all_workers_wherever_they_are(running: tuple[Store, int, list[Lease]]) -> None:
    store, _, _ = running
    standing = Follower(store, "small").look()
    assert dict(standing.workers) == {"here": 1, "there": 1}
    assert standing.best is not None
    assert (standing.best.number, standing.best.value, standing.best.outcome.metrics["val_acc"]) == (1, 0.25, 0.9)
    assert list(standing.history) == [0.5, 0.25]
    assert list(standing.failures) == [(2, "ValueError: odd")]
    assert standing.done == 3
    assert standing.seconds_left is not None
    assert standing.epochs_per_second > 0


def test_a_later_look_reads_only_what_has_changed(
    running: tuple[Store, int, list[Lease]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, leases = running
    follower = Follower(store, "small")
    follower.look()
    monkeypatch.setattr(store, "trials", None)  # reading a trial whole is for a new best only
    assert follower.look().history == [0.5, 0.25]
    store.finish(leases[3], TrialResult(TrialState.COMPLETE, 0.75, {"val_loss": 0.75}, 1, 2, config={}))
    assert follower.look().history == [0.5, 0.25, 0.25]


def test_a_study_that_does_not_run_has_no_pace(running: tuple[Store, int, list[Lease]]) -> None:
    store, row, _ = running
    store.set_state(row, STOPPED)
    standing = Follower(store, "small").look()
    assert (standing.epochs_per_second, standing.seconds_left) == (0.0, None)
    out = io.StringIO()
    Console(file=out, width=80).print(panel(standing, ""))
    assert "small · stopped" in out.getvalue()
    assert not {"pace", "workers", "searching"} & set(out.getvalue().split())


def test_the_best_so_far_is_none_of_a_confirming_run() -> None:
    def trial(number: int, value: float, confirms: int | None = None) -> Trial:
        result = TrialResult(TrialState.COMPLETE, value)
        return Trial(number, {}, 0, TrialState.COMPLETE, confirms, result=result, finished=float(number))

    best, history = so_far([trial(0, 2.0), trial(1, 1.0, confirms=0), trial(2, 3.0)], Objective("val_loss"))
    assert (best.number if best else None, history) == (0, [2.0, 2.0])


# What is printed


def test_the_panel_has_all_of_it_on_eighty_columns(running: tuple[Store, int, list[Lease]]) -> None:
    store, _, _ = running
    out = io.StringIO()
    Console(file=out, width=80).print(panel(Follower(store, "small").look(), "Ctrl-C leaves it alone"))
    told = out.getvalue()
    for line in (
        "small · running",
        "3 of 10",
        "2 complete, 1 failed, 2 running",
        "val_loss 0.25  val_acc 0.9  trial 1 ",
        "so far  █▁",
        "2 workers: 1 on here, 1 on there",
        "epochs/s, about",
        "4 epochs in",
        "failed  trial 2: ValueError: odd",
        "Ctrl-C leaves it alone",
    ):
        assert line in told, told


def test_things_are_counted_as_people_do() -> None:
    assert [counted(1, "worker"), counted(2, "worker"), counted(4000, "run")] == ["1 worker", "2 workers", "4,000 runs"]


def test_watching_ends_with_the_study_and_changes_nothing(
    running: tuple[Store, int, list[Lease]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, row, _ = running
    before = [(trial.number, trial.revision) for trial in store.trials(row)]
    looks: list[float] = []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            store.set_state(row, STOPPED)

    monkeypatch.setattr(commands, "sleep", pause)
    commands.show("small", watch=True)
    told = capsys.readouterr().out
    assert len(looks) == 2
    assert "small: 2 complete, 1 failed, 2 running; new best val_loss 0.25 in trial 1" in told
    assert "Leaders" in told
    assert [(trial.number, trial.revision) for trial in store.trials(row)] == before


def test_ctrl_c_ends_the_watching_only(
    running: tuple[Store, int, list[Lease]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _, _ = running

    def pause(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "sleep", pause)
    commands.show("small", watch=True)
    assert "Leaders" in capsys.readouterr().out
    assert store.study("small").state == "running"


def test_watching_ends_when_nobody_works_on_the_study_any_more(
    store: Store, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_study(study)
    store.create(spec.study, spec.document(), spec.seed_everything)
    looks: list[float] = []
    monkeypatch.setattr(commands, "sleep", looks.append)
    commands.show("small", watch=True)
    assert len(looks) == commands.ALONE_LOOKS - 1
