"""Training one trial: what is reported, when it ends and how, which weights are kept, and that it is LightningCLI's."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import scripted
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI

from tuner.errors import MissingMetric, StudyStopped, TrialInterrupted
from tuner.training import Blueprint, SingleTraining
from tuner.trial import Objective, Report, TrialResult, TrialState, Verdict

LOSS, ACCURACY = Objective("val_loss"), Objective("val_loss", "maximize")

pytestmark = pytest.mark.usefixtures("one_thread", "mode")

MODE: dict[str, Any] = {}


@pytest.fixture(params=["auto", "lightning"])
def mode(request: pytest.FixtureRequest) -> None:
    """Who trains: all that is said here holds for the lean loop and for the Trainer."""
    MODE["mode"] = request.param


def config(*losses: float, class_path: str = "scripted.Scripted", trainer: Any = None, **arguments: Any) -> Any:
    """A trial of so many epochs as there are losses."""
    return {
        "seed_everything": 3,
        "model": {"class_path": class_path, "init_args": {"losses": list(losses), **arguments}},
        "trainer": {"accelerator": "cpu", "max_epochs": len(losses), **(trainer or {})},
    }


def net(trainer: Any = None, model: str = "scripted.Net", data: str = "scripted.Points", **arguments: Any) -> Any:
    """A trial that really learns."""
    return {
        "seed_everything": 3,
        "model": {"class_path": model, "init_args": arguments},
        "data": {"class_path": data},
        "trainer": {"accelerator": "cpu", "max_epochs": 3, **(trainer or {})},
    }


class Listener:
    """Writes down every report and answers by a script: epoch → verdict."""

    def __init__(self, answers: dict[int, Verdict] | None = None) -> None:
        self.reports: list[Report] = []
        self._answers = answers or {}

    def __call__(self, report: Report) -> Verdict:
        self.reports.append(report)
        return self._answers.get(report.epoch, Verdict.GO_ON)

    @property
    def epochs(self) -> list[int]:
        return [report.epoch for report in self.reports]

    @property
    def values(self) -> list[float]:
        return [report.value for report in self.reports]


def trainer_of(
    config: Any,
    objective: Objective = LOSS,
    patience: int | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> SingleTraining:
    return SingleTraining(config, objective, patience, interrupted, mode=MODE["mode"])


def train(
    config: Any,
    listener: Callable[[Report], Verdict] | None = None,
    objective: Objective = LOSS,
    patience: int | None = None,
    keep: Path | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrialResult:
    training = trainer_of(config, objective, patience, interrupted)
    return training.train(config, listener or Listener(), lambda _: keep)


def ended(result: TrialResult) -> tuple[TrialState, float | None, int | None, int]:
    return result.state, result.value, result.best_epoch, result.epochs


# Reports


def test_every_epoch_is_reported_once_with_its_training_and_validation_metrics() -> None:
    heard = Listener()
    result = train(config(0.75, 0.5, 0.625), heard)
    assert heard.epochs == [1, 2, 3]
    assert heard.values == [0.75, 0.5, 0.625]
    assert [dict(report.metrics) for report in heard.reports] == [
        {"train_loss": 100.0, "train_batch": 1.0, "val_loss": 0.75, "val_twice": 1.5},
        {"train_loss": 200.0, "train_batch": 1.0, "val_loss": 0.5, "val_twice": 1.0},
        {"train_loss": 300.0, "train_batch": 1.0, "val_loss": 0.625, "val_twice": 1.25},
    ]
    assert ended(result) == (TrialState.COMPLETE, 0.5, 2, 3)
    assert result.metrics == {"train_loss": 200.0, "train_batch": 1.0, "val_loss": 0.5, "val_twice": 1.0}
    assert (result.reason, result.detail, result.infeasible) == (None, None, False)


def test_the_first_of_equal_epochs_is_the_best() -> None:
    assert train(config(0.75, 0.5, 0.5)).best_epoch == 2


def test_the_best_is_the_largest_when_maximising() -> None:
    result = train(config(0.5, 0.75, 0.625), objective=ACCURACY)
    assert ended(result) == (TrialState.COMPLETE, 0.75, 2, 3)


def test_sanity_checking_is_not_reported() -> None:
    heard = Listener()
    result = train(config(0.75, 0.5, trainer={"num_sanity_val_steps": 2}), heard)
    assert heard.values == [0.75, 0.5]
    assert result.value == 0.5


def test_a_validation_every_second_epoch_is_reported_at_its_own_epoch() -> None:
    heard = Listener()
    result = train(config(0.75, 0.5, trainer={"max_epochs": 5, "check_val_every_n_epoch": 2}), heard)
    assert (heard.epochs, heard.values) == ([2, 4], [0.75, 0.5])
    assert ended(result)[:3] == (TrialState.COMPLETE, 0.5, 4)


@pytest.mark.parametrize("better_first", [True, False])
def test_two_validations_an_epoch_make_one_report_with_the_better_of_them(better_first: bool, tmp_path: Path) -> None:
    pair = (0.25, 0.5) if better_first else (0.5, 0.25)
    heard = Listener()
    path = tmp_path / "best.ckpt"
    halves = {"max_epochs": 2, "val_check_interval": 0.5, "limit_train_batches": 2}
    result = train(config(1.0, 0.75, *pair, trainer=halves), heard, keep=path)
    assert (heard.epochs, heard.values) == ([1, 2], [0.75, 0.25])
    assert ended(result) == (TrialState.COMPLETE, 0.25, 2, 2)
    assert batches_seen(path) == (3 if better_first else 4)


def test_the_metrics_of_a_report_all_come_from_the_validation_that_it_reports() -> None:
    heard = Listener()
    train(config(0.25, 0.5, trainer={"max_epochs": 1, "val_check_interval": 0.5, "limit_train_batches": 2}), heard)
    [report] = heard.reports
    assert (report.metrics["val_loss"], report.metrics["val_twice"]) == (0.25, 0.5)


def test_a_metric_under_any_name_can_be_the_objective() -> None:
    result = train(config(0.5, 0.75, metric="val_f1/macro"), objective=Objective("val_f1/macro", "maximize"))
    assert ended(result) == (TrialState.COMPLETE, 0.75, 2, 2)


def test_time_spent_answering_reports_is_counted_apart_from_training() -> None:
    def busy(report: Report) -> Verdict:
        until = time.perf_counter() + 0.2
        while time.perf_counter() < until:
            pass
        return Verdict.GO_ON

    started = time.perf_counter()
    result = train(config(0.75, 0.5), busy)
    assert set(result.seconds) == {"build", "train", "report"}
    assert result.seconds["report"] >= 0.4
    assert sum(result.seconds.values()) <= time.perf_counter() - started


# Weights


def batches_seen(checkpoint: Path) -> int:
    loaded = scripted.Scripted.load_from_checkpoint(checkpoint, weights_only=True)
    return int(loaded.seen)


@pytest.mark.parametrize(
    ("objective", "losses", "best"),
    [(LOSS, (0.75, 0.25, 0.5, 0.5), 2), (ACCURACY, (0.25, 0.5, 0.75, 0.5), 3), (LOSS, (0.75, 0.5, 0.25), 3)],
)
def test_the_checkpoint_holds_the_weights_of_the_best_epoch(
    objective: Objective, losses: tuple[float, ...], best: int, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "folder" / "trial-0000.ckpt"
    train(config(*losses), objective=objective, keep=path)
    assert batches_seen(path) == best * scripted.BATCHES
    assert [file.name for file in path.parent.iterdir()] == ["trial-0000.ckpt"]


def test_the_checkpoint_rebuilds_the_module_from_its_hyperparameters_without_unpickling_code(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    result = train(net(width=5, dropout=0.0), keep=path)
    module = scripted.Net.load_from_checkpoint(path, weights_only=True).eval()
    assert module.hparams["width"] == 5
    points = scripted.Points()
    points.setup("fit")
    x, y = next(iter(points.val_dataloader()))
    with torch.no_grad():
        assert float(torch.nn.functional.cross_entropy(module.layers(x), y)) == result.value


def test_the_checkpoint_holds_weights_and_hyperparameters_and_no_state_of_the_training(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    train(net(), keep=path)
    loaded = torch.load(path, weights_only=True)
    assert {"state_dict", "hyper_parameters"} <= set(loaded)
    assert not {"optimizer_states", "lr_schedulers", "callbacks"} & set(loaded)


def test_a_module_whose_state_is_not_only_tensors_is_trained_and_saved(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    result = train(config(0.75, 0.25, 0.5, class_path="scripted.Remembering"), keep=path)
    assert (result.state, result.detail) == (TrialState.COMPLETE, None)
    assert scripted.Remembering.load_from_checkpoint(path, weights_only=True).epochs_seen == {"epochs": 2}


def test_whether_weights_are_kept_is_asked_once_with_the_complete_result_and_no_is_taken() -> None:
    asked: list[TrialResult] = []
    result = trainer_of(config(0.5)).train(config(0.5), Listener(), asked.append)  # type: ignore[arg-type]
    assert asked == [result]


def test_nobody_is_asked_to_keep_the_weights_of_a_pruned_trial() -> None:
    heard = Listener({1: Verdict.PRUNE})
    training = trainer_of(config(0.5, 0.5))
    result = training.train(config(0.5, 0.5), heard, lambda _: pytest.fail("it is not complete"))
    assert result.state is TrialState.PRUNED


# Endings


def test_patience_ends_the_trial_so_many_epochs_after_the_best_one(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    heard = Listener()
    result = train(config(1.0, 0.5, 0.75, 0.5, 0.625, 0.25), heard, patience=3, keep=path)
    assert heard.epochs == [1, 2, 3, 4, 5]
    assert ended(result) == (TrialState.COMPLETE, 0.5, 2, 5)
    assert "no improvement in 3 epochs, best was epoch 2" in (result.reason or "")
    assert batches_seen(path) == 2 * scripted.BATCHES


def test_patience_starts_anew_at_each_improvement() -> None:
    result = train(config(1.0, 1.5, 0.75, 1.5, 0.5, 1.5, 1.5, 0.25), patience=2)
    assert ended(result) == (TrialState.COMPLETE, 0.5, 5, 7)


def test_without_patience_a_trial_trains_all_its_epochs() -> None:
    assert train(config(0.25, 0.5, 0.75, 1.0)).epochs == 4


def test_the_users_min_epochs_are_trained_although_patience_ran_out() -> None:
    result = train(config(0.25, 0.5, 0.5, 0.5, 0.5, 0.5, trainer={"min_epochs": 4}), patience=1)
    assert ended(result) == (TrialState.COMPLETE, 0.25, 1, 4)
    assert "best was epoch 1" in (result.reason or "")


def test_the_reason_of_an_early_stop_never_contradicts_the_best_epoch() -> None:
    result = train(config(1.0, 2.0, 0.5, 0.375, 0.25, 0.125, trainer={"min_epochs": 4}), patience=1)
    assert result.best_epoch == result.epochs
    assert "best was epoch 1" not in (result.reason or "")


def test_a_pruned_trial_ends_at_that_epoch_with_its_reason_and_what_it_had() -> None:
    heard = Listener({2: Verdict.PRUNE})
    result = train(config(0.5, 0.75, 0.25), heard)
    assert heard.epochs == [1, 2]
    assert ended(result) == (TrialState.PRUNED, 0.5, 1, 2)
    assert result.reason == "pruned at epoch 2: other trials were better there"
    assert not result.infeasible


def test_a_halted_trial_is_complete_with_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    result = train(config(0.5, 0.75, 0.25), Listener({2: Verdict.HALT}), keep=path)
    assert ended(result) == (TrialState.COMPLETE, 0.5, 1, 2)
    assert "budget was spent at epoch 2" in (result.reason or "")
    assert batches_seen(path) == scripted.BATCHES


@pytest.mark.parametrize("verdict", [Verdict.PRUNE, Verdict.HALT])
def test_the_users_min_epochs_do_not_outlive_the_verdict_of_the_study(verdict: Verdict) -> None:
    heard = Listener({1: verdict})
    result = train(config(0.5, 0.75, 0.25, trainer={"min_epochs": 3}), heard)
    assert (heard.epochs, result.epochs) == ([1], 1)


def test_a_trial_that_is_given_back_is_interrupted() -> None:
    heard = Listener({2: Verdict.GIVE_BACK})
    with pytest.raises(TrialInterrupted):
        train(config(0.5, 0.75, 0.25), heard)
    assert heard.epochs == [1, 2]


def test_an_interruption_is_noticed_between_two_batches() -> None:
    calls: list[bool] = []

    def interrupted() -> bool:
        calls.append(len(calls) == 4)
        return calls[-1]

    heard = Listener()
    with pytest.raises(TrialInterrupted):
        train(config(0.5, 0.75, 0.25), heard, interrupted=interrupted)
    assert len(calls) == 5
    assert heard.epochs == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("objective", [LOSS, ACCURACY])
def test_a_trial_that_diverges_is_infeasible_with_no_value(value: float, objective: Objective, tmp_path: Path) -> None:
    heard = Listener()
    path = tmp_path / "best.ckpt"
    result = train(config(0.5, value, 0.25), heard, objective, keep=path)
    assert (result.state, result.infeasible, result.value) == (TrialState.PRUNED, True, None)
    assert result.reason == f"diverged: val_loss is {value} at epoch 2"
    assert result.detail is None
    assert heard.values == [0.5]
    assert not path.exists()


def test_the_epoch_in_which_a_trial_diverged_was_trained_too() -> None:
    """Or else a study with a budget of epochs only never ends where everything diverges at once."""
    assert train(config(math.nan, 0.5)).epochs == 1


@pytest.mark.parametrize("raises", ["torch.OutOfMemoryError", "MemoryError", "allocator", "CUDA error"])
def test_a_trial_that_runs_out_of_memory_is_infeasible_with_no_value(raises: str) -> None:
    heard = Listener()
    result = train(config(0.5, 0.5, 0.5, raises=raises, raises_at=4), heard)
    assert (result.state, result.infeasible, result.value) == (TrialState.PRUNED, True, None)
    assert (result.reason or "").startswith("out of memory: ")
    assert "\n" not in (result.reason or "")
    assert heard.epochs == [1]


@pytest.mark.parametrize("raises", ["ValueError", "RuntimeError"])
def test_a_trial_whose_code_raises_is_failed_with_the_traceback(raises: str) -> None:
    result = train(config(0.5, 0.5, raises=raises, raises_at=1))
    assert (result.state, result.infeasible, result.value) == (TrialState.FAILED, False, None)
    assert (result.reason or "").startswith(f"{raises}: {scripted.RAISED[raises]} (")
    assert "scripted.py:" in (result.reason or "")
    assert "Traceback (most recent call last)" in (result.detail or "")
    assert "in training_step" in (result.detail or "")


def test_a_module_that_cannot_be_built_is_a_failed_trial_that_keeps_its_configuration() -> None:
    unable = config(0.5, class_path="scripted.Unable")
    result = trainer_of(config(0.5)).train(unable, Listener())
    assert result.state is TrialState.FAILED
    assert "width must divide by 3" in (result.reason or "")
    assert result.config == unable


def test_the_next_trial_is_not_harmed_by_one_that_failed() -> None:
    training = trainer_of(config(0.5))
    assert training.train(config(0.5, raises="ValueError"), Listener()).state is TrialState.FAILED
    assert training.train(config(math.nan), Listener()).state is TrialState.PRUNED
    with pytest.raises(TrialInterrupted):
        training.train(config(0.5, 0.5), Listener({1: Verdict.GIVE_BACK}))
    assert ended(training.train(config(0.5), Listener())) == (TrialState.COMPLETE, 0.5, 1, 1)


def test_a_metric_that_is_not_logged_stops_the_study_and_names_those_there_are() -> None:
    with pytest.raises(MissingMetric) as raised:
        train(config(0.5, 0.5), objective=Objective("val_los"))
    message = str(raised.value)
    assert "got 'val_los'" in message
    assert "val_loss, val_twice" in message
    assert "Did you mean 'val_loss'?" in message


def test_a_missing_metric_without_a_likely_meaning_says_how_to_log_it() -> None:
    with pytest.raises(MissingMetric, match=r"logged: .*val_loss.*Log it with self\.log in validation_step"):
        train(config(0.5), objective=Objective("bleu"))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize(
    "without",
    [
        {"class_path": "scripted.Unvalidated"},
        {"class_path": "scripted.WithoutData"},
        {"trainer": {"limit_val_batches": 0}},
        {"trainer": {"max_epochs": 0}},
    ],
)
def test_a_study_whose_trials_never_validate_is_stopped(without: dict[str, Any]) -> None:
    with pytest.raises(StudyStopped, match="no epoch was validated"):
        train(config(0.5, 0.5, **without))


# The user's own trainer


def test_the_users_callbacks_run_beside_ours_and_those_of_the_trial_before_are_gone() -> None:
    scripted.DIARIES.clear()
    training = trainer_of(config(0.5))
    for name in ("first", "second"):
        diary = {"class_path": "scripted.Diary", "init_args": {"name": name}}
        heard = Listener()
        training.train(config(0.5, 0.5, trainer={"callbacks": [diary]}), heard)
        assert heard.epochs == [1, 2]
    training.train(config(0.5), Listener())
    assert scripted.DIARIES == {"first": [0, 1], "second": [0, 1]}


@pytest.mark.parametrize("short", ["scripted.Diary", ["scripted.Diary"], {"class_path": "scripted.Diary"}])
def test_a_callback_may_be_named_in_every_way_that_lightning_cli_reads(short: Any) -> None:
    scripted.DIARIES.clear()
    result = train(config(0.5, trainer={"callbacks": short}))
    assert result.state is TrialState.COMPLETE
    assert scripted.DIARIES == {"diary": [0]}


def test_the_users_own_early_stopping_is_honoured() -> None:
    stopping = {
        "class_path": "lightning.pytorch.callbacks.EarlyStopping",
        "init_args": {"monitor": "val_loss", "patience": 1},
    }
    result = train(config(0.5, 0.75, 0.25, 0.25, trainer={"callbacks": [stopping]}))
    assert ended(result) == (TrialState.COMPLETE, 0.5, 1, 2)


def test_a_trial_is_trained_without_what_costs_time_unless_the_user_asks_for_it(tmp_path: Path) -> None:
    lean = Blueprint(config(0.5)).build(config(0.5), []).trainer
    assert lean.loggers == []
    assert lean.checkpoint_callbacks == []
    assert lean.progress_bar_callback is None
    assert lean.num_sanity_val_steps == 0
    asked = config(
        0.5,
        trainer={
            "logger": {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": str(tmp_path / "logs")},
            },
            "enable_checkpointing": True,
            "enable_progress_bar": True,
            "num_sanity_val_steps": 1,
            "default_root_dir": str(tmp_path),
        },
    )
    rich = Blueprint(asked).build(asked, []).trainer
    assert [type(logger).__name__ for logger in rich.loggers] == ["CSVLogger"]
    assert len(rich.checkpoint_callbacks) == 1
    assert rich.progress_bar_callback is not None
    assert rich.num_sanity_val_steps == 1


# The blueprint


def test_a_built_configuration_has_every_argument_of_its_classes_and_of_the_trainer_what_was_asked() -> None:
    asked = net(width=7)
    assert Blueprint(asked).build(asked, []).config == {
        "seed_everything": 3,
        "model": {"class_path": "scripted.Net", "init_args": {"width": 7, "dropout": 0.25, "lr": 0.1}},
        "data": {"class_path": "scripted.Points", "init_args": {"batch_size": 6, "spread": 0.5}},
        "trainer": {"accelerator": "cpu", "max_epochs": 3},
    }


def test_a_configuration_without_data_stays_without() -> None:
    built = Blueprint(config(0.5)).build(config(0.5), [])
    assert built.datamodule is None
    assert set(built.config) == {"seed_everything", "model", "trainer"}


def test_a_build_changes_neither_the_configuration_nor_the_callbacks_it_is_given() -> None:
    asked, callbacks = net(width=7), [Callback()]
    blueprint = Blueprint(asked)
    blueprint.build(asked, callbacks)
    assert asked == net(width=7)
    assert len(callbacks) == 1


def test_arguments_are_not_carried_over_from_the_build_before() -> None:
    blueprint = Blueprint(net())
    first = net(width=7, lr=0.5, trainer={"gradient_clip_val": 0.5})
    first["data"]["init_args"] = {"batch_size": 3, "spread": 2.0}
    assert blueprint.build(first, []).trainer.gradient_clip_val == 0.5
    second = blueprint.build(net(model="scripted.WideNet", data="scripted.MorePoints"), [])
    assert second.config["model"] == {
        "class_path": "scripted.WideNet",
        "init_args": {"width": 9, "dropout": 0.0, "lr": 0.05},
    }
    assert second.config["data"]["init_args"] == {"batch_size": 10, "spread": 0.25}
    assert second.trainer.gradient_clip_val is None
    third = blueprint.build(net(dropout=0.5), [])
    assert third.config["model"]["init_args"] == {"width": 4, "dropout": 0.5, "lr": 0.1}
    assert isinstance(third.module, scripted.Net)
    assert third.module.layers[0].out_features == 4
    assert "gradient_clip_val" not in third.config["trainer"]


def test_each_build_makes_new_objects_seeded_alike() -> None:
    blueprint = Blueprint(net())
    first, second = blueprint.build(net(), []), blueprint.build(net(), [])
    assert first.module is not second.module
    assert first.trainer is not second.trainer
    weights = [built.module.layers[0].weight for built in (first, second)]
    assert torch.equal(*weights)
    other = {**net(), "seed_everything": 4}
    assert not torch.equal(weights[0], blueprint.build(other, []).module.layers[0].weight)


def test_small_numbers_keep_their_value_and_type_in_the_built_configuration() -> None:
    asked = net(lr=1e-5)
    assert Blueprint(asked).build(asked, []).config["model"]["init_args"]["lr"] == 1e-5


def test_a_mistyped_argument_is_refused() -> None:
    blueprint = Blueprint(net())
    with pytest.raises(Exception, match=re.compile("widht", re.DOTALL)):
        blueprint.build(net(widht=3), [])


# The same numbers again


def test_the_same_configuration_gives_the_same_numbers_to_the_last_bit() -> None:
    training = trainer_of(net())
    first, again, other, fresh = Listener(), Listener(), Listener(), Listener()
    training.train(net(), first)
    training.train({**net(), "seed_everything": 4}, other)
    training.train(net(), again)
    trainer_of(net()).train(net(), fresh)
    assert len(first.reports) == 3
    assert first.reports == again.reports == fresh.reports
    assert first.values != other.values


@pytest.mark.parametrize("model", ["scripted.Net", "tuner.models.MLP"])
def test_lightning_cli_trains_the_built_configuration_to_the_same_numbers(
    model: str, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if model == "scripted.Net":
        asked = net(width=7)
    else:
        asked = {key: study[key] for key in ("seed_everything", "model", "data", "trainer")}
    heard = Listener()
    result = train(asked, heard)
    losses: list[float] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            losses.append(float(trainer.callback_metrics["val_loss"]))

    monkeypatch.setattr("sys.argv", ["main.py"])
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    cli = LightningCLI(
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        trainer_defaults={**quiet, "callbacks": [Watch()]},
        args=dict(result.config or {}),
        run=False,
    )
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert losses == heard.values
    assert result.value == min(losses)
