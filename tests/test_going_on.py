"""Trials that lost their worker: when they are written down, what of it is believed, and studies that go on from it."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tuner.cli.tables import study_page
from tuner.home import Home
from tuner.service.entry import enter, open_storage
from tuner.service.result import result_of
from tuner.service.worker import work_on
from tuner.spec import read_study
from tuner.storage import Store
from tuner.training import Bookmark, Pace, sweep
from tuner.training.pace import EVERY_SECONDS, GRACE_SECONDS, LONG_EPOCH_SECONDS, SHARE
from tuner.trial import Trial, TrialState

CONFIG = {"seed_everything": 1, "model": {"class_path": "a.B"}}


# When


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


def epochs(pace: Pace, clock: Clock, seconds: float, count: int, cost: float = 0.0) -> list[int]:
    """After which of so many epochs a trial is written down."""
    written = []
    for epoch in range(1, count + 1):
        clock.now += seconds
        if pace.epoch_ended():
            with pace.writing():
                clock.now += cost
            written.append(epoch)
    return written


def test_short_epochs_are_written_down_every_half_minute(pace: Pace, clock: Clock) -> None:
    assert epochs(pace, clock, EVERY_SECONDS / 10, 35) == [10, 20, 30]


def test_every_long_epoch_is_written_down(pace: Pace, clock: Clock) -> None:
    assert epochs(pace, clock, LONG_EPOCH_SECONDS, 4) == [1, 2, 3, 4]


@pytest.mark.parametrize("seconds", [1.0, 10.0, 100.0])
def test_writing_takes_two_parts_of_a_hundred_of_the_time_at_most(pace: Pace, clock: Clock, seconds: float) -> None:
    cost, count = 6.0, 2000
    written = epochs(pace, clock, seconds, count, cost)
    assert len(written) > 2
    assert (len(written) - 1) * cost <= SHARE * seconds * count


def test_another_trial_begins_its_own_half_minute(pace: Pace, clock: Clock) -> None:
    assert epochs(pace, clock, 1.0, 29) == []
    pace.begin()
    assert epochs(pace, clock, 1.0, 29) == []


def test_who_asks_for_a_stop_waits_for_a_short_epoch_and_not_for_a_long_one(pace: Pace, clock: Clock) -> None:
    assert not pace.may_end_epoch(), "nobody knows how long the first one takes"
    other = Pace(clock)
    epochs(other, clock, 1.0, 1)
    assert other.may_end_epoch()
    clock.now += GRACE_SECONDS
    assert not other.may_end_epoch(), "it takes longer than it did"
    long = Pace(clock)
    epochs(long, clock, 60.0, 1)
    assert not long.may_end_epoch()
    nearly_over = Pace(clock)
    epochs(nearly_over, clock, 60.0, 1)
    clock.now += 60.0 - GRACE_SECONDS / 2
    assert nearly_over.may_end_epoch()


# What is believed


def written(value: float, epoch: int = 3, **more: Any) -> dict[str, Any]:
    """A snapshot, as far as a bookmark looks into it."""
    last = {"epoch": epoch, "value": value, "metrics": {}, "seconds": 1.0}
    return {"observer": {"last": last, "seconds": 1.0}, "weights": torch.full((500,), value), **more}


def bookmark(folder: Path, token: int, number: int = 7, config: dict[str, Any] = CONFIG) -> Bookmark:
    return Bookmark(folder, number, token, config)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_owner_finds_what_the_last_one_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "made when it is needed"
    first = bookmark(folder, 1)
    first.write(written(0.5, epoch=2))
    first.write(written(0.25))
    bookmark(folder, 1, number=70).write(written(0.125))
    assert names(folder) == ["trial-0007.1.resume.pt", "trial-0070.1.resume.pt"]
    found = bookmark(folder, 3).find({2: 0.5, 3: 0.25})
    assert found is not None
    assert found["weights"][0] == 0.25
    assert bookmark(folder, 1).find({3: 0.25}) is None, "an owner goes on from nothing of its own"


def test_what_a_new_owner_writes_replaces_the_old_and_never_the_other_way_round(tmp_path: Path) -> None:
    stale, new = bookmark(tmp_path, 1), bookmark(tmp_path, 3)
    stale.write(written(0.5))
    new.write(written(0.25))
    assert names(tmp_path) == ["trial-0007.3.resume.pt"]
    stale.write(written(0.125, epoch=9))
    found = bookmark(tmp_path, 5).find({3: 0.25, 9: 0.125})
    assert found is not None
    assert found["weights"][0] == 0.25
    new.discard()
    assert names(tmp_path) == []


@pytest.mark.parametrize("reported", [{}, {1: 0.5, 2: 0.5}, {3: 0.5000001}])
def test_what_the_storage_does_not_know_of_is_not_believed(
    tmp_path: Path, reported: dict[int, float], caplog: pytest.LogCaptureFixture
) -> None:
    """A stale worker wrote it after its trial had gone on elsewhere."""
    bookmark(tmp_path, 1).write(written(0.5))
    assert bookmark(tmp_path, 3).find(reported) is None
    assert "what it reported after epoch 3 is not what the storage has" in caplog.text


def test_a_snapshot_before_the_first_validation_is_believed(tmp_path: Path) -> None:
    bookmark(tmp_path, 1).write({"observer": {"last": None, "seconds": 1.0}})
    assert bookmark(tmp_path, 3).find({}) is not None


@pytest.mark.parametrize("harm", ["cut off", "changed", "empty", "another format"])
def test_a_file_that_is_not_whole_is_left_alone_for_the_one_before(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    bookmark(tmp_path, 3).write(written(0.25))
    bookmark(tmp_path, 1).write(written(0.5))
    path = tmp_path / "trial-0007.3.resume.pt"
    data = bytearray(path.read_bytes())
    if harm == "changed":
        data[data.index(torch.full((500,), 0.25).numpy().tobytes()) + 400] ^= 1
    path.write_bytes({"cut off": data[:-100], "empty": b"", "another format": b"x" * 100}.get(harm, data))
    found = bookmark(tmp_path, 5).find({3: 0.5})
    assert found is not None
    assert found["weights"][0] == 0.5
    assert f"trial 7 does not go on from {path}: " in caplog.text


def test_a_snapshot_of_another_configuration_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bookmark(tmp_path, 1, config={**CONFIG, "seed_everything": 2}).write(written(0.5))
    assert bookmark(tmp_path, 3).find({3: 0.5}) is None
    assert "another configuration" in caplog.text


@pytest.mark.parametrize(
    "attribute", [threading.Event, lambda: None, threading.Lock()], ids=["a class", "a function", "a lock"]
)
def test_what_is_more_than_tensors_and_plain_values_is_not_written(
    tmp_path: Path, attribute: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """To read it would run somebody's code."""
    unsafe = bookmark(tmp_path, 1)
    unsafe.write(written(0.5, attribute=attribute))
    unsafe.write(written(0.5))
    assert names(tmp_path) == []
    assert caplog.text.count("it begins anew, since its state is more than tensors and plain values") == 1


def test_a_disk_that_takes_nothing_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").write_text("")
    bookmark(tmp_path / "no folder", 1).write(written(0.5))
    assert "trial 7 could not be written down" in caplog.text
    kept = bookmark(tmp_path / "full", 1)
    kept.write(written(0.5))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as later:
        later.setattr("tuner.training.bookmark._Summing.write", full)
        kept.write(written(0.25))
        later.undo()
        later.setattr("os.fsync", full)
        kept.write(written(0.25))
    assert caplog.text.count("No space left on device") == 2
    assert names(tmp_path / "full") == ["trial-0007.1.resume.pt"]
    found = bookmark(tmp_path / "full", 3).find({3: 0.5})
    assert found is not None, "the one before is still there"


def test_what_is_left_of_finished_trials_is_swept(tmp_path: Path) -> None:
    for number in (1, 2):
        bookmark(tmp_path, 1, number).write(written(0.5))
    (tmp_path / "trial-0001.3.resume.part").write_text("a worker died here")
    (tmp_path / "trial-0001.ckpt").write_text("weights of a leader")
    sweep(tmp_path, {1})
    assert names(tmp_path) == ["trial-0001.ckpt", "trial-0002.1.resume.pt"]


# Whole studies


class Studied:
    """A study of three trials of six epochs, and a worker on it that may be stopped."""

    def __init__(self, home: Home, study: dict[str, Any], training: str) -> None:
        self.home, self.document = home, study
        study["trainer"]["max_epochs"] = 6
        study["model"]["init_args"] |= {"dropout": 0.2, "norm": "batch", "lr_schedule": "step", "lr_step": 2}
        study["search"] |= {"trials": 3, "training": training, "patience": 4, "pruner": "median"}

    def work(self, stop: threading.Event | None = None) -> list[Trial]:
        with open_storage(self.home, create=True) as store:
            enter(store, read_study(self.document))
        work_on("small", self.home, stop or threading.Event())
        return self.trials()

    def trials(self) -> list[Trial]:
        with open_storage(self.home) as store:
            return store.trials(store.study("small").id)

    def left(self) -> list[str]:
        return [path.name for path in self.home.checkpoints("small").glob("*.resume.*")]

    def weights(self) -> dict[str, dict[str, bytes]]:
        """The saved weights of every leader, to the last bit."""
        return {
            path.name: {
                name: tensor.numpy().tobytes()
                for name, tensor in torch.load(path, weights_only=True)["state_dict"].items()
            }
            for path in self.home.checkpoints("small").glob("*.ckpt")
        }

    def page(self) -> str:
        with open_storage(self.home) as store:
            trials = self.trials()
            console = Console(width=200)
            with console.capture() as printed:
                console.print(study_page(store.study("small"), result_of(store, "small", self.home, trials), trials))
            return printed.get()


def what(trials: list[Trial]) -> list[Any]:
    return [(t.number, t.params, t.state, t.value, dict(t.values), t.outcome.epochs) for t in trials]


def after_reports(monkeypatch: pytest.MonkeyPatch, count: int, act: Callable[[], None]) -> None:
    """Do something once so many reports have been written."""
    original, calls = Store.report_together, iter(range(1, 10**6))

    def report(self: Store, said: Any, again: bool = False) -> Any:
        heard = original(self, said, again)
        if next(calls) == count:
            act()
        return heard

    monkeypatch.setattr(Store, "report_together", report)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("training", ["lean", "lightning"])
def test_a_study_that_was_stopped_goes_on_in_the_middle_of_its_trial_to_the_same_bits(
    home: Home, study: dict[str, Any], training: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    studied, stop = Studied(home, study, training), threading.Event()
    after_reports(monkeypatch, 9, stop.set)
    stopped = studied.work(stop)
    assert [(t.state, sorted(t.values)) for t in stopped[1:]] == [(TrialState.WAITING, [1, 2, 3])]
    assert studied.left() == ["trial-0001.1.resume.pt"]
    trials = studied.work()
    assert [t.began_after for t in trials] == [0, 3, 0]
    assert studied.left() == []
    assert "Interrupted, and gone on with: trial 1 after epoch 3 (attempt 1)" in studied.page()
    with open_storage(home) as store:
        summary = store.summary(store.study("small").id)
    assert summary.epochs == sum(t.outcome.epochs for t in trials), "no epoch was trained twice"
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "undisturbed"))
    undisturbed = Studied(Home.from_environment(), study, training)
    assert what(trials) == what(undisturbed.work())
    assert studied.weights() == undisturbed.weights()
    assert len(studied.weights()) >= 2


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("harm", ["lost", "of another shape"])
def test_a_trial_whose_snapshot_is_of_no_use_begins_anew(
    home: Home, study: dict[str, Any], harm: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    studied, stop = Studied(home, study, "lean"), threading.Event()
    after_reports(monkeypatch, 3, stop.set)
    studied.work(stop)
    [name] = studied.left()
    path = home.checkpoints("small") / name
    if harm == "lost":
        path.unlink()
    else:
        monkeypatch.setattr("tuner.training.snapshot.FORMAT", 0)
    with caplog.at_level(logging.WARNING):
        trials = studied.work()
    assert [(t.state.finished, t.began_after, sorted(t.values)[0]) for t in trials] == [(True, 0, 1)] * 3
    assert ("begins anew" in caplog.text) is (harm != "lost")
    with open_storage(home) as store:
        assert store.summary(store.study("small").id).epochs == sum(t.outcome.epochs for t in trials) + 3
    assert studied.left() == []
