"""Trials on several devices: a process for each, whose numbers agree, and which end together whatever happens."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy

import tuner
from tuner.errors import SpecError, StudyStopped, TrialInterrupted
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.training import SingleTraining
from tuner.training.rank import agree
from tuner.training.strategy import unshared
from tuner.trial import Objective, Report, TrialResult, TrialState, Verdict

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 3
BY_HAND = [1.5, 2.25, 2.625]
"""The weight after each epoch: from 0, each time half of the way to 3."""


def config(strategy: str = "ddp", **arguments: Any) -> dict[str, Any]:
    return {
        "seed_everything": 3,
        "model": {"class_path": "spread.Mean", "init_args": arguments},
        "data": {"class_path": "spread.Targets"},
        "trainer": {"accelerator": "cpu", "max_epochs": EPOCHS, "devices": 2, "strategy": strategy},
    }


def train(
    config: dict[str, Any], answer: Any = lambda _: Verdict.GO_ON, metric: str = "val_loss", **given: Any
) -> TrialResult:
    return SingleTraining(config, Objective(metric), **given).train(config, answer)


# Numbers


def test_ranks_agree_on_the_mean_of_what_differs_and_on_all_that_any_of_them_logged() -> None:
    agreed, differing = agree([{"same": 0.1, "other": 1.0, "first": 5.0}, {"same": 0.1, "other": 4.0}])
    assert agreed == {"same": 0.1, "other": 2.5, "first": 5.0}
    assert differing == ["other"]


def test_what_is_not_a_number_on_one_rank_is_none_on_any() -> None:
    agreed, _ = agree([{"val_loss": 1.0}, {"val_loss": float("nan")}])
    assert agreed["val_loss"] != agreed["val_loss"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuner.StudyResult, list[Any], torch.Tensor]:
    """A study of three trials, of which all but the best are pruned."""
    folder = tmp_path_factory.mktemp("studied")
    document = {
        **config(),
        "study": "spread",
        "objective": {"metric": "val_loss"},
        "space": {"model.level": {"choice": {"values": [1.0, 2.0, 3.0], "default": 1.0}}},
        "search": {"trials": 3, "confirm": 0, "pruner": "asha"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_HOME", str(folder))
        patch.delenv("TUNER_STORAGE", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = tuner.run(document)
        with open_storage(Home.from_environment()) as store:
            trials = store.trials(store.study("spread").id)
        weight = tuner.load_best("spread").trained_module().state_dict()["weight"]
    return result, trials, weight


def test_a_study_on_two_devices_prunes_and_ends(studied: tuple[Any, list[Any], torch.Tensor]) -> None:
    result, trials, _ = studied
    assert result.state == "complete"
    assert [trial.state for trial in trials] == ["complete", "pruned", "pruned"]
    assert dict(trials[0].values) == {1: 1.5, 2: 1.5, 3: 1.5}
    assert all(trial.outcome.epochs == 1 for trial in trials[1:])
    assert multiprocessing.active_children() == []


def test_the_gradients_are_those_of_the_whole_batch(studied: tuple[Any, list[Any], torch.Tensor]) -> None:
    _, (first, *_), weight = studied
    assert first.outcome.metrics["val_weight"] == BY_HAND[first.outcome.best_epoch - 1]
    assert weight.item() == BY_HAND[first.outcome.best_epoch - 1]


def test_a_trial_says_in_how_many_processes_and_of_what_a_mean_was_taken(
    studied: tuple[Any, list[Any], torch.Tensor],
) -> None:
    _, (first, *_), _ = studied
    told = "lightning: in 2 processes, one for each device; the mean over them is taken of val_loss"
    assert first.outcome.trained == f"{told}: log it with sync_dist=True"
    assert first.outcome.config["trainer"]["strategy"] == "ddp"


def test_ddp_spawn_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tuner")
    reports: list[Report] = []

    def answer(report: Report) -> Verdict:
        reports.append(report)
        return Verdict.HALT if report.epoch == 2 else Verdict.GO_ON

    result = train(config("ddp_spawn"), answer, "val_weight")
    assert [report.value for report in reports] == BY_HAND[:2]
    assert (result.state, result.epochs, result.reason) == (
        TrialState.COMPLETE,
        2,
        "a time or epoch budget was spent at epoch 2",
    )
    assert result.trained == (
        "lightning: in 2 processes, one for each device; the mean over them is taken of val_loss: "
        "log it with sync_dist=True"
    )
    assert [r.message for r in caplog.records if "in 2 processes" in r.message] == [
        "trials are trained by Lightning's Trainer in 2 processes, one for each device"
    ]


# What goes wrong on one of them


@pytest.mark.parametrize(
    ("wrong", "state", "infeasible", "reason"),
    [
        ("killed", TrialState.FAILED, False, "the process of device 1 died, killed by SIGKILL, perhaps for want"),
        ("raises", TrialState.FAILED, False, "ValueError: the last device has had enough"),
        ("out of memory", TrialState.PRUNED, True, "out of memory: CUDA out of memory"),
        ("diverges", TrialState.PRUNED, True, "diverged: val_loss is nan at epoch 2"),
    ],
)
def test_all_ranks_end_with_the_one_that_does(wrong: str, state: TrialState, infeasible: bool, reason: str) -> None:
    result = train(config(wrong=wrong))
    assert (result.state, result.infeasible) == (state, infeasible)
    assert (result.reason or "").startswith(reason)
    assert multiprocessing.active_children() == []


def test_a_trial_that_hangs_is_dropped_when_somebody_asks_to_stop() -> None:
    asked: list[float] = []

    def answer(report: Report) -> Verdict:
        asked.append(time.monotonic() + 0.3)
        return Verdict.GO_ON

    with pytest.raises(TrialInterrupted):
        train(config(wrong="hangs"), answer, interrupted=lambda: bool(asked) and time.monotonic() > asked[0])
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("verdict", [Verdict.STOP, Verdict.GIVE_BACK])
def test_a_trial_that_is_asked_back_is_dropped(verdict: Verdict) -> None:
    with pytest.raises(TrialInterrupted):
        train(config(), lambda _: verdict)


def test_sigterm_drops_the_trial() -> None:
    def answer(_: Report) -> Verdict:
        os.kill(os.getpid(), signal.SIGTERM)
        return Verdict.GO_ON

    with pytest.raises(TrialInterrupted):
        train(config(wrong="hangs"), answer)


def test_a_metric_that_is_not_logged_stops_the_study() -> None:
    with pytest.raises(StudyStopped, match="val_los"):
        train(config(), metric="val_los")


def test_an_error_while_a_report_is_answered_rises() -> None:
    def answer(_: Report) -> Verdict:
        raise ConnectionError("the storage is gone")

    with pytest.raises(ConnectionError):
        train(config(), answer)
    assert multiprocessing.active_children() == []


# What is not possible


def test_what_divides_the_module_or_needs_machines_is_refused_in_words() -> None:
    assert unshared(SimpleNamespace(num_nodes=1, strategy=DDPStrategy())) is None  # type: ignore[arg-type]
    divided = unshared(SimpleNamespace(num_nodes=1, strategy=FSDPStrategy()))  # type: ignore[arg-type]
    assert divided is not None
    assert divided.path == "trainer.strategy"
    assert "FSDPStrategy" in divided.message


def test_several_machines_are_refused_before_anything_runs(home: Home) -> None:
    space = {"model.level": {"choice": [1.0, 2.0]}}
    document = {**config(), "study": "wide", "objective": {"metric": "val_loss"}, "space": space}
    with pytest.raises(SpecError, match=r"trainer.num_nodes +must be 1, but got 2"):
        tuner.run(document, set={"trainer.num_nodes": 2})
