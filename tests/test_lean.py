"""The lean loop: the Trainer's numbers bit for bit, its hooks in its order, and a reason wherever it is not used."""

from __future__ import annotations

import io
import math
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lively
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tuner.data import TensorLoader
from tuner.errors import TrialInterrupted
from tuner.training import SingleTraining, shadow
from tuner.training.batches import IndexedLoader, gathered
from tuner.training.blueprint import Blueprint
from tuner.training.covered import in_arguments
from tuner.training.lean import Lean
from tuner.training.rng import random_state, restore_random
from tuner.training.settings import Settings
from tuner.training.shadow import Probe, _bits, _difference
from tuner.training.snapshot import SnapshotUnusable
from tuner.trial import Objective, Report, TrialResult, TrialState, Verdict

pytestmark = pytest.mark.usefixtures("one_thread")

LOSS = Objective("val_loss")


def trial(
    model: str = "lively.Net", data: str | None = "lively.Points", trainer: Any = None, of: Any = None, **arguments: Any
) -> dict[str, Any]:
    """A configuration.

    Args:
        model: its class.
        data: its class, or None for the module's own.
        trainer: arguments of the trainer.
        of: arguments of the data.
        arguments: of the model.
    """
    config = {
        "seed_everything": 3,
        "model": {"class_path": model, "init_args": arguments},
        "trainer": {"accelerator": "cpu", "max_epochs": 3, **(trainer or {})},
    }
    return config | ({"data": {"class_path": data, "init_args": of or {}}} if data else {})


def by_lean(config: dict[str, Any]) -> Probe:
    """What the lean loop logs, and the weights and random numbers it ends with."""
    parts, probe = Blueprint(config).parts(config), Probe()
    Lean(parts.module, parts.datamodule, Settings.of(parts.arguments), probe).fit()
    probe.end(parts.module)
    return probe


def by_trainer(config: dict[str, Any]) -> Probe:
    """What the Trainer logs, and the weights and random numbers it ends with."""
    probe = Probe()
    built = Blueprint(config).build(config, [probe])
    built.trainer.fit(built.module, datamodule=built.datamodule)
    probe.end(built.module)
    return probe


def assert_same(config: dict[str, Any]) -> None:
    """The lean loop and the Trainer agree in every metric after every validation and epoch, in weights and draws."""
    lean, trainer = by_lean(config), by_trainer(config)
    assert _difference(lean, trainer) is None
    assert len(trainer.seen) > 2, "something was validated"


SMALL = {"hidden_units": 4, "depth": 1, "dropout": 0.3, "norm": "batch", "clip_norm": 0.05, "learning_rate": 0.05}
IMAGES = {"data": "tuner.data.Digits", "of": {"flat": False, "batch_size": 300}}
NETWORKS = {
    "MLP, sgd": trial(
        "tuner.models.MLP", "tuner.data.Digits", of={"batch_size": 200}, **SMALL, lr_schedule="step", lr_step=1
    ),
    "MLP, nesterov": trial(
        "tuner.models.MLP",
        "tuner.data.Digits",
        of={"batch_size": 200},
        **SMALL,
        nesterov=True,
        penalty=1e-3,
        penalty_p=1.5,
    ),
    "MLP, whole batch": trial("tuner.models.MLP", "tuner.data.Digits", of={"batch_size": "full"}, **SMALL),
    "MLPRegressor, adagrad": trial(
        "tuner.models.MLPRegressor",
        "tuner.data.SklearnTable",
        of={"name": "diabetes"},
        **SMALL,
        optimizer="adagrad",
        lr_schedule="sqrt",
    ),
    "LeNet, rmsprop": trial(
        "tuner.models.LeNet", **IMAGES, **SMALL, channels=2, optimizer="rmsprop", lr_schedule="inverse", lr_decay=0.1
    ),
    "ResNet, adam": trial(
        "tuner.models.ResNet",
        **IMAGES,
        **SMALL,
        stages=2,
        optimizer="adam",
        lr_schedule="exponential",
        weight_decay=0.01,
    ),
    "DenseNet, adamw": trial(
        "tuner.models.DenseNet", **IMAGES, **SMALL, blocks=2, optimizer="adamw", lr_schedule="none"
    ),
    "RNNLanguageModel, gru": trial(
        "tuner.models.RNNLanguageModel",
        "tuner.data.Text",
        {"limit_train_batches": 5, "limit_val_batches": 3, "max_epochs": 2},
        of={"batch_size": 16, "steps": 8},
        **{**SMALL, "norm": "layer", "cell": "gru", "optimizer": "adam", "lr_schedule": "exponential"},
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_of_networks_trains_to_the_trainers_numbers(name: str) -> None:
    assert_same(NETWORKS[name])


OPTIMISERS = [
    "list",
    "dict",
    "dict with schedule",
    "dict with step schedule",
    "two lists",
    "two lists with dicts",
    "list of dicts",
    "plateau",
    "plateau of steps",
    "plateau of nothing",
    "one cycle",
    "lbfgs",
    "hooked",
    "patched",
    "own",
    "groups",
]


@pytest.mark.filterwarnings("ignore:.*ReduceLROnPlateau:RuntimeWarning", "ignore:.*ReduceLROnPlateau:UserWarning")
@pytest.mark.parametrize("form", OPTIMISERS)
def test_every_form_of_one_optimiser_and_its_schedules_is_read(form: str) -> None:
    assert_same(trial("lively.Optimised", form=form))


MODULES = [
    trial(),
    trial(model="lively.Returning"),
    trial(model="lively.LeavingOut"),
    trial(model="lively.LeavingOut", trainer={"check_val_every_n_epoch": 2, "max_epochs": 5}),
    trial(model="lively.Stopping", trainer={"max_epochs": 4}),
    trial(model="lively.Stopping", trainer={"max_epochs": 4, "min_epochs": 3}),
    trial(model="lively.Stopping", trainer={"max_epochs": 4, "min_steps": 14}),
    trial(model="lively.Tampering"),
    trial(model="lively.StoppingBetween", trainer={"max_epochs": 4}),
    trial(model="lively.Random"),
    trial(model="lively.Several", of={"validations": 3}),
    trial(model="lively.Several", of={"validations": 2, "shuffle_validation": True}),
    trial(model="lively.Measured"),
    trial(model="lively.Clipping"),
    trial(model="lively.Clipping", trainer={"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}),
    trial(model="lively.Overriding"),
    trial(model="lively.Modes"),
    trial(model="lively.ModesOfItsOwn"),
    trial(model="lively.Late", data=None),
    trial(model="lively.Logging", trainer={"limit_train_batches": 3, "max_epochs": 2}),
    trial(model="lively.Logging", trainer={"limit_train_batches": 1, "limit_val_batches": 2, "max_epochs": 2}),
]
ORDERED = [
    trial("tuner.models.MLP", "tuner.data.Digits", of={"batch_size": 200, "order_seed": 7}, **SMALL),
    trial(
        "tuner.models.RNNLanguageModel",
        "tuner.data.Text",
        {"limit_train_batches": 5, "limit_val_batches": 3},
        of={"batch_size": 16, "steps": 8, "order_seed": 7},
        **{**SMALL, "norm": "layer", "cell": "gru"},
    ),
]
"""The order of the batches is the data's own, and another in each epoch."""


DATA = [
    *ORDERED,
    trial(of={"drop_last": True}),
    trial(of={"batch_size": 11}),
    trial(of={"batch_size": 33, "drop_last": True}),
    trial(of={"shuffle_validation": True}),
    trial(of={"own_generator": True}),
    trial(of={"own_generator": True, "batch_size": 11}),
    trial(of={"dataset": "subset"}),
    trial(of={"dataset": "items"}),
    trial(of={"dataset": "strided"}),
    *(trial(data="lively.CachedBatches", of={"kind": kind}) for kind in lively.CONTAINERS),
    trial(model="lively.Popping", data="lively.CachedBatches", of={"kind": "list"}),
    trial(model="lively.Popping", data="lively.CachedBatches", of={"kind": "dict"}),
    trial(data="lively.Augmented"),
    trial(data="lively.Sampled"),
    trial("lively.Thawing", "lively.Sampled", {"check_val_every_n_epoch": 2, "max_epochs": 4}),
    trial(model="lively.Random", data="lively.Augmented"),
]
TRAINERS = [
    trial(trainer=arguments)
    for arguments in (
        {"max_epochs": 1},
        {"check_val_every_n_epoch": 2, "max_epochs": 5},
        {"limit_train_batches": 4},
        {"limit_train_batches": 0.5, "limit_val_batches": 0.34},
        {"limit_val_batches": 1},
        {"val_check_interval": 0.5},
        {"val_check_interval": 2},
        {"val_check_interval": 2, "check_val_every_n_epoch": 2},
        {"max_epochs": -1, "max_steps": 9},
        {"max_steps": 9},
        {"max_epochs": None, "max_steps": 12},
        {"gradient_clip_val": 0.05},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"gradient_clip_val": 0.0},
        {"deterministic": False},
        {"precision": 32, "log_every_n_steps": 1},
    )
]


def named(config: dict[str, Any]) -> str:
    trainer = {k: v for k, v in config["trainer"].items() if k != "accelerator"}
    data = config.get("data", {"class_path": "-", "init_args": {}})
    return f"{config['model']['class_path']} {data['class_path']} {data['init_args']} {trainer}"


quietly = pytest.mark.filterwarnings(
    "ignore:You called `self.log:UserWarning",
    "ignore:Found 1 module:UserWarning",
    "ignore:.*training_step. returned .None:UserWarning",
    "ignore:Your .val_dataloader.*shuffling:UserWarning",
    "ignore:You have overridden:UserWarning",
    "ignore:Attribute 'activation' removed from hparams:UserWarning",
    "ignore:ReduceLROnPlateau:RuntimeWarning",
    "ignore:ReduceLROnPlateau:UserWarning",
    "ignore:Trying to infer the .batch_size. from an ambiguous:UserWarning",
)


@quietly
@pytest.mark.parametrize("config", MODULES, ids=named)
def test_whatever_a_module_does_it_trains_to_the_trainers_numbers(config: dict[str, Any]) -> None:
    assert_same(config)


@quietly
@pytest.mark.parametrize("config", DATA, ids=named)
def test_whatever_the_data_are_they_train_to_the_trainers_numbers(config: dict[str, Any]) -> None:
    assert_same(config)


@quietly
@pytest.mark.parametrize("config", TRAINERS, ids=named)
def test_whatever_the_trainer_is_asked_for_gives_its_numbers(config: dict[str, Any]) -> None:
    assert_same(config)


# ---- hooks -----------------------------------------------------------------------------------------------------------


def seen_by(train: Callable[[dict[str, Any]], Probe], config: dict[str, Any]) -> list[Any]:
    lively.SEEN.clear()
    train(config)
    return list(lively.SEEN)


@quietly
@pytest.mark.parametrize(
    "config",
    [
        trial("lively.Diarist", "lively.DiaristData"),
        trial("lively.Diarist", "lively.DiaristData", {"check_val_every_n_epoch": 2, "max_epochs": 4}),
        trial("lively.Diarist", "lively.DiaristData", {"val_check_interval": 2, "gradient_clip_val": 0.1}),
        trial("lively.Diarist", "lively.DiaristData", {"max_steps": 8}),
        trial("lively.Curious"),
        trial("lively.Curious", trainer={"max_epochs": 1, "min_steps": 2}),
        trial("lively.Optimised", form="hooked"),
        trial("lively.Optimised", form="patched"),
        trial("lively.Curious", trainer={"max_steps": 8, "min_epochs": 1, "limit_train_batches": 3}),
    ],
    ids=named,
)
def test_every_hook_is_called_in_the_trainers_order_and_sees_what_it_would_see_there(config: dict[str, Any]) -> None:
    lean, trainer = seen_by(by_lean, config), seen_by(by_trainer, config)
    assert lean == trainer
    assert len(trainer) > 15


def test_all_that_the_stand_in_shows_is_what_the_trainer_shows() -> None:
    lively.NAMES.clear()
    lean = seen_by(by_lean, trial("lively.Listing"))
    assert len(lean) > 60
    assert lean == seen_by(by_trainer, trial("lively.Listing"))


@quietly
def test_hooks_compute_gradients_where_they_do_with_the_trainer_whatever_was_switched_off_before() -> None:
    config = trial("lively.Diarist", "lively.DiaristData", {"max_epochs": 1})
    seen = []
    for train in (by_lean, by_trainer):
        with torch.no_grad():
            seen.append(seen_by(train, config))
    assert seen[0] == seen[1]


# ---- trials ----------------------------------------------------------------------------------------------------------


class Trial:
    """A trial that was trained, and all that it said.

    Args:
        config: what is trained.
        mode: by whom.
        answers: the answer to the report of an epoch, if it is not to go on.
        keep: where its weights are saved.
        options: more arguments of `SingleTraining`.
        snapshot: where it goes on from.
    """

    def __init__(
        self,
        config: dict[str, Any],
        mode: Any,
        answers: Mapping[int, Verdict] | None = None,
        keep: Path | None = None,
        snapshot: Any = None,
        **options: Any,
    ) -> None:
        self.reports: list[Report] = []
        self.snapshots: list[bytes] = []

        def answer(report: Report) -> Verdict:
            self.reports.append(report)
            return (answers or {}).get(report.epoch, Verdict.GO_ON)

        def keep_snapshot(make: Callable[[], dict[str, Any]]) -> None:
            written = io.BytesIO()
            torch.save(make(), written)
            self.snapshots.append(written.getvalue())

        training = SingleTraining(config, **{"objective": LOSS, **options}, mode=mode)
        self.result = training.train(config, answer, lambda _: keep, snapshot, keep_snapshot)

    @property
    def told(self) -> tuple[list[Report], TrialResult]:
        """What it said, apart from who trained it and how long that took."""
        return self.reports, replace(self.result, seconds={}, trained=None, detail=None)


def saved(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    loaded.pop("loops", None)  # counters of Lightning's loops, which nothing needs to load a module
    loaded["state_dict"] = {name: _bits(value) for name, value in loaded["state_dict"].items()}
    return loaded


@quietly
@pytest.mark.parametrize(
    "config",
    [
        NETWORKS["MLP, sgd"],
        NETWORKS["RNNLanguageModel, gru"],
        trial("lively.Optimised", form="plateau"),
        trial("lively.Random"),
        trial("lively.Late", data=None),
        trial("lively.Several", of={"validations": 2}),
        trial("scripted.Remembering", data=None, losses=[0.5, 0.25, 0.75]),
        trial("lively.Thawing"),
        trial("lively.Unpicklable", width=3),
    ],
    ids=named,
)
def test_reports_results_and_saved_weights_are_those_of_the_trainer(config: dict[str, Any], tmp_path: Path) -> None:
    lean = Trial(config, "lean", keep=tmp_path / "lean.ckpt")
    trainer = Trial(config, "lightning", keep=tmp_path / "trainer.ckpt")
    assert (lean.result.trained, trainer.result.trained) == ("lean", "lightning")
    assert lean.told == trainer.told
    assert len(lean.reports) == config["trainer"]["max_epochs"]
    assert saved(tmp_path / "lean.ckpt") == saved(tmp_path / "trainer.ckpt")


def test_the_saved_weights_rebuild_the_module_and_the_data(tmp_path: Path) -> None:
    lean = Trial(trial(width=5, of={"batch_size": 11}), "lean", keep=tmp_path / "best.ckpt")
    module = lively.Net.load_from_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    data = lively.Points.load_from_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    assert (module.hparams["width"], data.batch_size, lean.result.trained) == (5, 11, "lean")


def script(*losses: float, trainer: Any = None, **arguments: Any) -> dict[str, Any]:
    trainer = {"max_epochs": len(losses), **(trainer or {})}
    return trial("scripted.Scripted", None, trainer, losses=list(losses), **arguments)


ENDINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "patience": (script(1.0, 0.5, 0.75, 0.75, 0.25), {"patience": 2}),
    "patience and min_epochs": (script(0.25, 0.5, 0.5, 0.5, 0.5, trainer={"min_epochs": 4}), {"patience": 1}),
    "patience and min_steps": (script(0.25, 0.5, 0.5, 0.5, 0.5, trainer={"min_steps": 8}), {"patience": 1}),
    "pruned": (script(1.0, 0.5, 0.75), {"answers": {2: Verdict.PRUNE}}),
    "pruned in spite of min_epochs": (script(1.0, 0.5, trainer={"min_epochs": 2}), {"answers": {1: Verdict.PRUNE}}),
    "halted": (script(1.0, 0.5, 0.75), {"answers": {2: Verdict.HALT}}),
    "diverged": (script(1.0, math.nan, 0.75), {}),
    "diverged to infinity": (script(1.0, math.inf, 0.75), {"objective": Objective("val_loss", "maximize")}),
    "failed": (trial("lively.Failing", at=7), {}),
    "out of memory": (script(1.0, 0.5, raises="allocator", raises_at=7), {}),
    "max_steps": (script(1.0, 0.5, 0.75, trainer={"max_steps": 6}), {}),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_trial_ends_as_with_the_trainer(name: str) -> None:
    config, options = ENDINGS[name]
    lean, trainer = Trial(config, "lean", **options), Trial(config, "lightning", **options)
    assert lean.result.trained == "lean"
    assert lean.told == trainer.told


def test_an_interruption_is_noticed_at_the_same_batch_as_by_the_trainer() -> None:
    asked: dict[str, int] = {}
    for mode in ("lean", "lightning"):
        heard: list[bool] = []

        def interrupted(heard: list[bool] = heard) -> bool:
            heard.append(len(heard) == 7)
            return heard[-1]

        with pytest.raises(TrialInterrupted):
            Trial(trial("tuner.models.MLP", "tuner.data.Digits", **SMALL), mode, interrupted=interrupted)
        asked[mode] = len(heard)
    assert asked == {"lean": 8, "lightning": 8}


def test_sigterm_gives_the_trial_back_and_the_handler_that_was_there_still_runs() -> None:
    heard: list[int] = []
    config = script(1.0, 0.5, 0.75)
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        reports = 0

        def answer(report: Report) -> Verdict:
            nonlocal reports
            reports += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return Verdict.GO_ON

        with pytest.raises(TrialInterrupted):
            SingleTraining(config, LOSS, mode="lean").train(config, answer)
    finally:
        assert signal.signal(signal.SIGTERM, before) is not signal.SIG_DFL
    assert (heard, reports) == ([signal.SIGTERM], 1)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> dict[Any, str | None]:
    """Nothing has been tried out in this process."""
    known: dict[Any, str | None] = {}
    monkeypatch.setattr(shadow, "_KNOWN", known)
    monkeypatch.setattr(shadow, "_REFUSED", Counter())
    return known


# ---- what is not covered ---------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "accumulation": (trial(trainer={"accumulate_grad_batches": 2}), "trainer.accumulate_grad_batches is 2"),
    "precision": (trial(trainer={"precision": "bf16-mixed"}), "trainer.precision is 'bf16-mixed'"),
    "sanity check": (trial(trainer={"num_sanity_val_steps": 1}), "trainer.num_sanity_val_steps is 1"),
    "callbacks": (trial(trainer={"callbacks": [{"class_path": "lively.Lowering"}]}), "trainer.callbacks is "),
    "no epochs checked": (
        trial(trainer={"check_val_every_n_epoch": None, "val_check_interval": 4}),
        "trainer.check_val_every_n_epoch is None",
    ),
    "fast_dev_run": (trial(trainer={"fast_dev_run": 2}), "trainer.fast_dev_run is 2"),
    "overfit": (trial(trainer={"overfit_batches": 2}), "trainer.overfit_batches is 2"),
    "reloading": (
        trial(trainer={"reload_dataloaders_every_n_epochs": 1}),
        "trainer.reload_dataloaders_every_n_epochs is",
    ),
    "manual": (trial("lively.Manual"), "it optimises manually"),
    "own log": (trial("lively.OwnLog"), "it overrides log"),
    "something else": (trial("lively.OwnLogger"), "it overrides log"),
    "own callbacks": (trial("lively.OwnCallbacks"), "it overrides configure_callbacks"),
    "no optimiser": (trial("lively.Idle"), "its configure_optimizers gives nothing"),
    "iterator": (trial("lively.WithIterator"), "its training_step takes a dataloader_iter"),
    "dict of loaders": (
        trial("lively.Containing", "lively.Odd", of={"kind": "dict"}),
        "its train_dataloader gives a dict",
    ),
    "list of loaders": (
        trial("lively.Containing", "lively.Odd", of={"kind": "list"}),
        "its train_dataloader gives a list",
    ),
    "combined loader": (
        trial("lively.Containing", "lively.Odd", of={"kind": "combined"}),
        "its train_dataloader gives a CombinedLoader",
    ),
    "unsized": (
        trial(data="lively.Odd", of={"kind": "unsized"}),
        "its train_dataloader gives a loader without a length",
    ),
    "stream": (
        trial(data="lively.Odd", of={"kind": "endless"}),
        "its train_dataloader gives a loader without a length",
    ),
    **{
        f"reads {what}": (trial("lively.Reading", what=what), "it ")
        for what in lively.READ
        if not what.startswith("log") or what == "log outside"
    },
    "logs twice": (trial("lively.Reading", what="log twice"), "it logs 'twice' twice"),
    "two precisions": (trial("lively.Reading", what="log precision"), "it logs 'mixed' in two precisions"),
    "share": (trial("lively.Reading", what="log share"), "it logs with a batch_size that is a float"),
}
"""What the lean loop leaves to the Trainer, and the reason it gives."""


@quietly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_trained_by_the_trainer_for_a_reason_and_reported_once(
    name: str, untried: dict[Any, str | None]
) -> None:
    config, reason = REFUSED[name]
    lean, trainer = Trial(config, "auto"), Trial(config, "lightning")
    assert (lean.result.trained or "").startswith(f"lightning: {reason}")
    assert lean.told == trainer.told
    assert lean.reports or lean.result.state is TrialState.FAILED


@quietly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", lively.READ)
def test_a_trial_that_is_refused_late_begins_anew_and_reports_nothing_twice(
    what: str, untried: dict[Any, str | None]
) -> None:
    config = trial("lively.Reading", what=what, epoch=2, trainer={"max_epochs": 4})
    late, trainer = Trial(config, "auto"), Trial(config, "lightning")
    assert list(untried.values()) == [None], "it was not found by trying"
    assert (late.result.trained or "").startswith("lightning: it ")
    assert late.told == trainer.told
    assert [report.epoch for report in late.reports] == [1, 2, 3, 4]


def test_a_trial_that_is_refused_late_begins_anew_even_if_nothing_is_seeded(untried: dict[Any, str | None]) -> None:
    config = {**trial("lively.Reading", what="callbacks", epoch=2), "seed_everything": False}
    state = random_state()
    late = Trial(config, "auto")
    restore_random(state)
    assert (late.result.trained or "").startswith("lightning: it reads")
    assert late.told == Trial(config, "lightning").told


def test_arguments_of_the_trainer_are_covered_by_name_and_any_other_is_not() -> None:
    arguments = Blueprint(trial()).parts(trial()).arguments
    assert in_arguments(arguments) is None
    refused = {
        "strategy": "ddp",
        "devices": 2,
        "num_nodes": 2,
        "logger": True,
        "enable_checkpointing": None,
        "enable_progress_bar": True,
        "enable_model_summary": True,
        "max_time": "00:01:00:00",
        "profiler": "simple",
        "detect_anomaly": True,
        "barebones": True,
        "sync_batchnorm": True,
        "accelerator": "gpu",
        "max_epochs": 0,
        "limit_val_batches": 0,
        "limit_train_batches": 1.5,
        "val_check_interval": "00:00:01:00",
        "gradient_clip_algorithm": "fancy",
        "model_registry": "mine",
        "plugins": [{"class_path": "x.Y"}],
    }
    for name, value in refused.items():
        assert in_arguments({**arguments, name: value}) == f"trainer.{name} is {value!r}"


def test_deterministic_algorithms_are_switched_on_as_by_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        lean = Trial(trial(trainer={"deterministic": True}), "lean")
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(before)
    assert (lean.result.trained, before) == ("lean", False)


def test_variables_of_the_environment_for_the_trainer_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_TRAINER_GRADIENT_CLIP_VAL", "0.01")
    clipped, trainer = Trial(trial(), "auto"), Trial(trial(), "lightning")
    assert (clipped.result.trained or "").startswith("lightning: the environment has")
    assert clipped.told == trainer.told


@pytest.mark.parametrize("workers", [1])
def test_loaders_with_workers_are_not_covered(workers: int) -> None:
    from tuner.training.covered import in_loader

    loader: Any = DataLoader(lively.points(8), 2, num_workers=workers)
    assert in_loader(loader, "val_dataloader") == "its val_dataloader reads in worker processes"


# ---- trying it out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "where"), [("Watched", "after validation: val_loss"), ("WatchedInWeights", "in the weights: layers.")]
)
def test_a_module_that_the_lean_loop_would_train_otherwise_is_found_by_trying(
    model: str, where: str, untried: dict[Any, str | None]
) -> None:
    lean, trainer = Trial(trial(f"lively.{model}"), "auto"), Trial(trial(f"lively.{model}"), "lightning")
    assert (lean.result.trained or "").startswith(f"lightning: tried out, it differed from the Trainer {where}")
    assert lean.told == trainer.told
    assert len(untried) == 1


def test_a_module_that_never_gives_the_same_numbers_is_left_to_the_trainer(untried: dict[Any, str | None]) -> None:
    trained = Trial(trial("lively.Restless"), "auto").result.trained
    assert trained == "lightning: it does not give the same numbers twice"


def test_a_kind_of_trials_is_tried_once_and_every_other_one_anew(
    untried: dict[Any, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    compared = shadow._compared
    monkeypatch.setattr(shadow, "_compared", lambda *args: (tried.append(args[1]), compared(*args))[1])
    for config in (trial(), trial(width=7), trial("lively.Random"), trial(data="lively.Augmented"), trial()):
        assert Trial(config, "auto").result.trained == "lean"
    assert len(tried) == 3
    assert Trial(trial(trainer={"gradient_clip_val": 0.1}), "auto").result.trained == "lean"
    assert len(tried) == 4
    own = trial("tuner.models.MLP", "tuner.data.Digits", **SMALL)
    assert Trial(own, "auto").result.trained == "lean"
    assert len(tried) == 4, "our tests try our own"


def test_trying_changes_no_number_of_the_trial_even_if_nothing_is_seeded(untried: dict[Any, str | None]) -> None:
    config = {**trial("lively.Random"), "seed_everything": False}
    state = random_state()
    first = Trial(config, "auto")
    restore_random(state)
    again = Trial(config, "auto")
    restore_random(state)
    trainer = Trial(config, "lightning")
    assert first.told == again.told == trainer.told


def test_what_a_trial_does_is_held_against_its_kind_only_after_some_of_them(untried: dict[Any, str | None]) -> None:
    refused = [Trial(trial("lively.Reading", what=what), "auto").result.trained for what in ("callbacks", "set")]
    assert refused == ["lightning: it reads trainer.callbacks", "lightning: it sets trainer.max_epochs_seen"]
    assert untried == {}
    assert Trial(trial("lively.Reading", what="callbacks"), "auto").result.trained == refused[0]
    assert Trial(trial("lively.Reading", what="current_epoch"), "auto").result.trained == refused[0]


def test_an_error_while_trying_is_told_by_the_trainer(untried: dict[Any, str | None]) -> None:
    lean, trainer = Trial(trial("lively.Failing", at=1), "auto"), Trial(trial("lively.Failing", at=1), "lightning")
    assert (lean.result.trained or "").startswith("lightning: trying it out raised ValueError: the shapes do not fit")
    assert lean.told == trainer.told
    assert Trial(trial("lively.Failing", at=99), "auto").result.trained == "lean", "it is not held against the others"


# ---- going on --------------------------------------------------------------------------------------------------------

RESUMED = [
    trial("lively.Random", trainer={"max_epochs": 4}),
    trial("lively.Thawing", trainer={"max_epochs": 4}),
    trial("lively.Optimised", form="two lists with dicts", trainer={"max_epochs": 4}),
    trial("lively.Optimised", form="plateau", trainer={"max_epochs": 4}),
    trial("lively.Measured"),
    trial("lively.Modes"),
    trial(of={"own_generator": True, "shuffle_validation": True}),
    trial(data="lively.Sampled"),
    trial(trainer={"check_val_every_n_epoch": 2, "max_epochs": 5}),
    trial("lively.Late", data=None),
    trial("scripted.Scripted", None, {"max_epochs": 4}, losses=[0.5, 0.25, 0.75, 0.5]),
    NETWORKS["MLP, sgd"],
    NETWORKS["ResNet, adam"],
    NETWORKS["RNNLanguageModel, gru"],
    *ORDERED,
]


def loaded(snapshot: bytes) -> Any:
    return torch.load(io.BytesIO(snapshot), weights_only=True)


EARLY = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss", "patience": 9}}
BY_TRAINER = [
    *RESUMED,
    trial("lively.Manual"),
    trial(trainer={"accumulate_grad_batches": 4}),
    trial(trainer={"precision": "bf16-mixed"}),
    trial(trainer={"callbacks": [EARLY], "min_epochs": 3}),
    trial(trainer={"val_check_interval": 0.5}),
]


@quietly
@pytest.mark.parametrize("config", RESUMED, ids=named)
def test_a_run_that_goes_on_from_a_snapshot_ends_as_if_it_had_never_stopped(
    config: dict[str, Any], tmp_path: Path
) -> None:
    assert_goes_on("lean", config, tmp_path)


@quietly
@pytest.mark.parametrize("config", BY_TRAINER, ids=named)
def test_a_run_by_the_trainer_that_goes_on_ends_as_if_it_had_never_stopped(
    config: dict[str, Any], tmp_path: Path
) -> None:
    assert_goes_on("lightning", config, tmp_path)


def assert_goes_on(mode: str, config: dict[str, Any], folder: Path) -> None:
    whole = Trial(config, mode, keep=folder / "whole.ckpt")
    assert len(whole.snapshots) == config["trainer"]["max_epochs"] - 1
    for epoch, snapshot in enumerate(whole.snapshots, 1):
        torch.manual_seed(epoch)
        random.seed(epoch)
        np.random.seed(epoch)
        rest = Trial(config, mode, keep=folder / "rest.ckpt", snapshot=loaded(snapshot))
        assert rest.result.trained == mode
        assert rest.told == ([report for report in whole.reports if report.epoch > epoch], whole.told[1])
        assert saved(folder / "rest.ckpt") == saved(folder / "whole.ckpt")
        assert len(rest.snapshots) == len(whole.snapshots) - epoch


def test_another_process_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    """With dropout, shuffled batches, batch normalisation, a schedule and patience."""
    config = NETWORKS["MLP, sgd"]
    for mode in ("lean", "lightning"):
        whole = Trial(config, mode, keep=tmp_path / f"{mode}.ckpt", patience=2)
        (tmp_path / mode).write_bytes(whole.snapshots[0])
    code = f"""
import sys, torch
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
torch.set_num_threads(1)
from test_lean import Trial
folder = Path({str(tmp_path)!r})
for mode in ("lean", "lightning"):
    snapshot = torch.load(folder / mode, weights_only=True)
    rest = Trial({config!r}, mode, keep=folder / f"{{mode}}-rest.ckpt", patience=2, snapshot=snapshot)
    print([report.epoch for report in rest.reports])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[2, 3]\n[2, 3]\n"), done.stderr
    for mode in ("lean", "lightning"):
        assert saved(tmp_path / f"{mode}-rest.ckpt") == saved(tmp_path / f"{mode}.ckpt")
    assert saved(tmp_path / "lightning-rest.ckpt") == saved(tmp_path / "lean.ckpt")


def test_patience_remembers_across_a_snapshot() -> None:
    config = script(0.5, 0.75, 0.75, 0.75, 0.75)
    whole = Trial(config, "lean", patience=3)
    rest = Trial(config, "lean", patience=3, snapshot=loaded(whole.snapshots[1]))
    assert rest.told[1] == whole.told[1]
    assert (rest.result.epochs, rest.result.best_epoch) == (4, 1)


@pytest.mark.parametrize("mode", ["lean", "lightning"])
@pytest.mark.parametrize("other", [trial(width=9), trial("lively.Optimised", form="list")])
def test_a_snapshot_that_does_not_fit_is_refused(mode: str, other: dict[str, Any]) -> None:
    snapshot = loaded(Trial(trial(), mode).snapshots[0])
    with pytest.raises(SnapshotUnusable):
        Trial(other, mode, snapshot=snapshot)


@pytest.mark.parametrize(("taken", "given"), [("lean", "lightning"), ("lightning", "lean")])
def test_who_trains_otherwise_refuses_a_snapshot(taken: str, given: str) -> None:
    with pytest.raises(SnapshotUnusable):
        Trial(trial(), given, snapshot=loaded(Trial(trial(), taken).snapshots[0]))


@pytest.mark.parametrize("mode", ["lean", "lightning"])
def test_a_trial_that_is_stopped_ends_its_epoch_and_is_written_down(mode: str) -> None:
    heard: list[int] = []
    kept: list[dict[str, Any]] = []

    def answer(report: Report) -> Verdict:
        heard.append(report.epoch)
        return Verdict.STOP if report.epoch == 2 else Verdict.GO_ON

    training = SingleTraining(trial(), LOSS, mode=mode)  # type: ignore[arg-type]
    with pytest.raises(TrialInterrupted, match="being stopped"):
        training.train(trial(), answer, keep_snapshot=lambda make: kept.append(make()))
    assert (heard, [snapshot["epoch"] for snapshot in kept]) == ([1, 2], [1, 2])


@pytest.mark.parametrize("mode", ["lean", "lightning"])
def test_whoever_keeps_snapshots_looks_after_sigterm(mode: str) -> None:
    """It arrives in the first epoch, and what was there before hears it; the trial is not dropped."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    reports = 0

    def report(_: Report) -> Verdict:
        nonlocal reports
        if not reports:
            os.kill(os.getpid(), signal.SIGTERM)
        reports += 1
        return Verdict.GO_ON

    try:
        training = SingleTraining(trial(), LOSS, mode=mode)  # type: ignore[arg-type]
        result = training.train(trial(), report, keep_snapshot=lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (heard, reports, result.state) == ([signal.SIGTERM], 3, TrialState.COMPLETE)


def test_the_trainer_says_what_it_cannot_bring_back_to_the_last_bit() -> None:
    diary = {"class_path": "scripted.Diary", "init_args": {"name": "going on"}}
    config = trial(trainer={"callbacks": [diary], "max_epochs": 3})
    whole = Trial(config, "lightning")
    assert whole.result.trained == "lightning"
    rest = Trial(config, "lightning", snapshot=loaded(whole.snapshots[0]))
    assert rest.result.trained == (
        "lightning; up to epoch 1: lightning; going on, not to the last bit: its callback Diary has no state_dict"
    )
    assert rest.told == (whole.reports[1:], whole.told[1])


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"shuffle": True, "drop_last": True}, {"drop_last": True}])
@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_gathered_batches_are_those_of_the_dataloader_with_the_same_draws(options: dict[str, Any], size: int) -> None:
    dataset = TensorDataset(torch.randn(20, 3), torch.arange(20), torch.randn(20, 2, 2, dtype=torch.float64))
    loader: Any = DataLoader(dataset, size, **options)
    indexed = gathered(loader)
    assert isinstance(indexed, IndexedLoader)
    assert len(indexed) == len(loader)
    seen = []
    for each in (loader, indexed):
        torch.manual_seed(1)
        batches, between = (
            iter(each),
            [torch.rand(()).item()],
        )  # the seed of workers is drawn by iter, the order by next
        listed = [_parts(batch, between) for batch in batches]
        seen.append((listed, between, [_parts(batch, between) for batch in each], torch.rand(()).item()))
    assert seen[0] == seen[1]
    torch.manual_seed(1)
    chosen = list(indexed.orders())
    torch.manual_seed(1)
    assert [list(map(_bits, batch)) for batch in loader] == [list(map(_bits, indexed.gather(each))) for each in chosen]


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_orders_of_a_tensor_loader_are_those_of_its_batches(shuffle: bool) -> None:
    loader = TensorLoader((torch.randn(21, 3), torch.arange(21)), 4, shuffle)
    torch.manual_seed(1)
    chosen, drawn = list(loader.orders()), torch.rand(())
    torch.manual_seed(1)
    batches = list(loader)
    assert [y.tolist() for _, y in batches] == [each.tolist() for each in chosen]
    assert torch.equal(drawn, torch.rand(()))


@pytest.mark.parametrize(
    "options",
    [
        {"generator": torch.Generator()},
        {"sampler": [3, 1, 2]},
        {"collate_fn": lambda each: each},
        {"batch_sampler": [[0, 1], [2]]},
        {"batch_size": None},
        {"dataset": TensorDataset(torch.randn(2, 6).t())},
        {"dataset": TensorDataset(torch.randn(6, 2, requires_grad=True))},
        {"dataset": lively.Items(6)},
    ],
)
def test_a_loader_with_anything_of_its_own_is_iterated_as_it_is(options: dict[str, Any]) -> None:
    loader: Any = DataLoader(**{"dataset": TensorDataset(torch.randn(6, 2)), **options})
    assert gathered(loader) is loader


def _parts(batch: Any, between: list[float]) -> tuple[type, list[Any]]:
    between.append(torch.rand(()).item())
    return type(batch), [_bits(part) for part in batch]
