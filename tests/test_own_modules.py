"""Other people's modules in a study, unmodified: their steps, optimisers, package of Lightning, and late changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import test_cohort
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

import tuner
from tuner.cohort import CohortTraining, Job
from tuner.errors import MissingMetric
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.service.reuse import score
from tuner.space import read_space
from tuner.training import SingleTraining, inspect
from tuner.training.covered import uncovered
from tuner.training.package import LIGHTNING, PYTORCH_LIGHTNING, adapted, class_of, either, package_of
from tuner.trial import Objective, Report, TrialResult, TrialState, Verdict

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
    # What the demos do, and Lightning's own transformer.
    pytest.mark.filterwarnings("ignore:.*nested tensors.*"),
]

EPOCHS = 5


def config(
    model: str, data: str | None = "foreign.Blobs", trainer: Mapping[str, Any] | None = None, **arguments: Any
) -> dict[str, Any]:
    described = {"data": {"class_path": data}} if data else {}
    return {
        "seed_everything": 3,
        "model": {"class_path": model, "init_args": arguments},
        **described,
        "trainer": {"accelerator": "cpu", "max_epochs": EPOCHS, **(trainer or {})},
    }


def train(config: Mapping[str, Any], metric: str = "val_loss", mode: Any = "auto") -> tuple[TrialResult, list[Any]]:
    """How a trial ends, and its reports."""
    reports: list[tuple[int, float, dict[str, float]]] = []

    def hear(report: Report) -> Verdict:
        reports.append((report.epoch, report.value, dict(report.metrics)))
        return Verdict.GO_ON

    return SingleTraining(config, Objective(metric), mode=mode).train(config, hear), reports


# Whatever is quicker gives Lightning's numbers

SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.5}}
SCHEDULES = "torch.optim.lr_scheduler"
PLATEAU = {
    "class_path": "lightning.pytorch.cli.ReduceLROnPlateau",
    "init_args": {"monitor": "val_loss", "patience": 0},
}
CALLABLES: dict[str, dict[str, Any]] = {
    "default": {},
    "LBFGS": {"optimizer": {"class_path": "torch.optim.LBFGS", "init_args": {"lr": 0.1, "max_iter": 4}}},
    "steps twice": {"optimizer": {"class_path": "foreign.Twice", "init_args": {"lr": 0.1}}},
    "cyclic": {
        "optimizer": SGD,
        "scheduler": {"class_path": f"{SCHEDULES}.CyclicLR", "init_args": {"base_lr": 0.01, "max_lr": 0.1}},
        "interval": "step",
    },
    "plateau": {"scheduler": PLATEAU},
}


@pytest.mark.parametrize("arguments", CALLABLES.values(), ids=CALLABLES)
def test_an_optimiser_and_a_schedule_may_be_given_as_callables(arguments: dict[str, Any]) -> None:
    given = config("foreign.Callables", **arguments)
    result, reports = train(given)
    assert result.trained == "lean"
    assert reports == train(given, mode="lightning")[1]


LATE = {
    "manual": "lightning: it optimises manually from some epoch on",
    "frozen": "lean",
    "rate": "lean",
    "step": "lean",
    "hook": "lean",
    "optimizer": "lean",
    "layer": "lean",
    "swapped": "lightning: it sets trainer.optimizers",
    "fewer": "lightning: it sets trainer.fit_loop.max_epochs",
}


@pytest.mark.parametrize("what", LATE)
def test_what_changes_in_a_late_epoch_changes_as_under_lightning(what: str) -> None:
    given = config("foreign.Late", what=what)
    result, reports = train(given)
    assert result.trained == LATE[what]
    assert reports == train(given, mode="lightning")[1]


def test_a_hook_that_appears_within_an_epoch_is_not_overlooked() -> None:
    given = config("foreign.Within", what="nothing before")
    result, reports = train(given)
    assert result.trained == "lightning: its hooks change within an epoch"
    assert reports == train(given, mode="lightning")[1]


@pytest.mark.parametrize(
    ("what", "trained"),
    [
        ("rate", "cohort of 2"),
        ("hook", "lean; not in a cohort: it has a hook at every batch, on_after_backward"),
        ("optimizer", "lean; not in a cohort: it has a hook at every batch, optimizer_step"),
        ("layer", "lean; not in a cohort: it changes which of its parameters are trained"),
        ("manual", "lightning: it optimises manually from some epoch on"),
    ],
)
def test_cohorts_do_not_overlook_it_either(what: str, trained: str) -> None:
    jobs = [Job(k, config("foreign.Late", what=what, lr=0.1 * (k + 1)), lambda _: None) for k in range(2)]
    single = SingleTraining(jobs[0].config, Objective("val_loss"))
    together: dict[int, list[float]] = {0: [], 1: []}

    def judge(said: Any) -> list[Verdict]:
        for job, report in said:
            together[job.number].append(report.value)
        return [Verdict.GO_ON] * len(said)

    results = dict(CohortTraining(single, test_cohort.SEARCHED, "cohort", 2).train(jobs, judge))
    assert {result.trained for result in results.values()} == {trained}
    for job in jobs:
        _, reports = train(job.config, mode="lightning")
        assert together[job.number] == pytest.approx([value for _, value, _ in reports], rel=1e-5)


def test_a_generator_and_a_discriminator_are_left_to_lightning() -> None:
    result, reports = train(config("foreign.Adversaries"), "val_distance")
    assert result.trained == "lightning: it optimises manually"
    assert len(reports) == EPOCHS
    assert {"g_loss", "d_loss", "val_distance"} <= result.metrics.keys()


# The objective may be one of training


@pytest.mark.parametrize(
    ("metric", "trained", "first"),
    [
        ("loss", "lean", 0.8**5),
        ("both", "lightning: its validation does not log both", sum(0.8 ** (2 * k) for k in range(5)) / 5),
        ("last", "lightning: its validation does not log last", 4.0),
    ],
)
def test_the_objective_is_validation_s_where_it_logs_it_and_else_training_s(
    metric: str, trained: str, first: float
) -> None:
    """The weight begins at 1, and each of five steps takes a fifth of it; its square is the loss."""
    result, reports = train(config("foreign.Noisy"), metric)
    assert result.trained == trained
    assert reports[0][1] == pytest.approx(first, rel=1e-5)
    assert metric == "loss" or reports[0][1] == reports[0][2][metric]


def test_a_module_without_validation_is_compared_by_its_training(tmp_path: Path) -> None:
    given = config("foreign.Unvalidated", None)
    result = SingleTraining(given, Objective("train_loss")).train(
        given, lambda _: Verdict.GO_ON, lambda _: tmp_path / "weights.ckpt"
    )
    assert (result.state, result.best_epoch) == (TrialState.COMPLETE, 3)
    weights = torch.load(tmp_path / "weights.ckpt", weights_only=True)["state_dict"]
    assert weights["epochs"] == 3, "of the best epoch"


def test_a_metric_that_neither_logs_stops_the_study() -> None:
    with pytest.raises(MissingMetric, match=r"on validation or in training, but got 'val_los'; logged: .*train_loss"):
        train(config("foreign.Callables"), "val_los")


# The space


def test_a_space_may_use_the_long_form_of_a_path() -> None:
    lr = {"float": {"low": 1e-3, "high": 0.1}, "when": {"model.init_args.optimizer.class_path": ["torch.optim.SGD"]}}
    kind = {"choice": ["torch.optim.SGD", "torch.optim.Adam"]}
    space, problems = read_space(
        {"model.init_args.optimizer.init_args.lr": lr, "model.init_args.optimizer.class_path": kind}
    )
    assert problems == []
    assert space is not None
    assert set(space.parameters) == {"model.optimizer.lr", "model.optimizer.class_path"} == space.stated
    assert space.conditions == {"model.optimizer.lr": {"model.optimizer.class_path": ["torch.optim.SGD"]}}


def test_a_path_in_both_forms_is_a_problem() -> None:
    dropout = {"float": {"low": 0.0, "high": 0.5}}
    space, problems = read_space({"model.init_args.dropout": dropout, "model.dropout": dropout})
    assert space is None
    assert [(p.path, p.message) for p in problems] == [
        ("space.model.dropout", "is there twice, in the short and in the long form.")
    ]


# Lightning's other name

THEIRS = {"model": "theirs.LitAutoEncoder", "data": "theirs.Rows"}


def test_classes_know_their_package() -> None:
    import theirs
    from lightning.pytorch.demos.boring_classes import BoringModel

    assert package_of(theirs.LitAutoEncoder) == package_of(theirs.Rows) == PYTORCH_LIGHTNING
    assert package_of(BoringModel) == package_of(tuner.models.MLP) == LIGHTNING
    assert either(L.LightningModule) == (L.LightningModule, class_of(PYTORCH_LIGHTNING, "LightningModule"))


def test_a_module_of_pytorch_lightning_is_trained_by_its_own_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result, reports = train(config(**THEIRS))
    assert result.trained == "lightning: its module is one of pytorch_lightning"

    from pytorch_lightning.cli import LightningCLI  # noqa: TID251 - the one that its author would use

    given = config(**THEIRS, trainer={"logger": False, "enable_progress_bar": False, "enable_model_summary": False})
    monkeypatch.setattr("sys.argv", ["program"])
    cli = LightningCLI(
        args=given, run=False, save_config_callback=None, subclass_mode_model=True, subclass_mode_data=True
    )
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    assert float(cli.trainer.callback_metrics["val_loss"]) == reports[-1][1]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, tuner.StudyResult]]:
    """A study of a module of `pytorch_lightning` on tuner's digits."""
    folder = tmp_path_factory.mktemp("theirs")
    document = {
        **config("theirs.LitAutoEncoder", "tuner.data.Digits", {"max_epochs": 2}),
        "study": "theirs",
        "objective": {"metric": "val_loss"},
        "space": {"model.learning_rate": {"float": {"low": 1e-3, "high": 0.1, "scale": "log"}, "priority": 1}},
        "search": {"trials": 2, "confirm": 0},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TUNER_HOME", str(folder))
        patch.delenv("TUNER_STORAGE", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Home.from_environment(), tuner.run(document)


def test_it_is_tuned_and_tested_unmodified_also_on_data_of_the_other_package(
    studied: tuple[Home, tuner.StudyResult],
) -> None:
    home, result = studied
    assert (result.state, result.trials["complete"]) == ("complete", 2)
    with open_storage(home) as store:
        trials = store.trials(store.study("theirs").id)
    assert {t.outcome.trained for t in trials} == {"lightning: its module is one of pytorch_lightning"}
    module = tuner.load_best("theirs").trained_module()
    assert package_of(type(module)) == PYTORCH_LIGHTNING
    assert module.hparams["learning_rate"] == result.best.params["model.learning_rate"]  # type: ignore[union-attr]
    assert set(score("theirs", home).metrics) == {"test_loss"}


def test_the_two_packages_do_not_mix_in_the_trainer_and_the_check_says_so() -> None:
    stopping = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val_loss"}}
    (problem,) = inspect(config(**THEIRS, trainer={"callbacks": [stopping]}), None)
    assert problem.path == "trainer.callbacks"
    assert problem.message.startswith(
        "must come from pytorch_lightning, as the model does, but lightning.pytorch.callbacks.EarlyStopping comes from "
    )
    stopping["class_path"] = "pytorch_lightning.callbacks.EarlyStopping"
    assert inspect(config(**THEIRS, trainer={"callbacks": [stopping]}), None) == []
    (problem,) = inspect(config("foreign.Callables", trainer={"callbacks": stopping}), None)
    assert "must come from lightning.pytorch" in problem.message


def test_data_of_one_package_pass_their_hooks_to_a_trainer_of_the_other() -> None:
    import theirs

    rows = theirs.Rows(batch_size=16)
    given = adapted(rows, "LightningDataModule", LIGHTNING)
    assert isinstance(given, L.LightningDataModule)
    given.setup("fit")
    assert given.rows is rows.rows
    assert len(given.train_dataloader()) == 2
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    given.trainer = trainer
    assert rows.trainer is trainer
    with pytest.raises(MisconfigurationException, match="predict_dataloader"):
        given.predict_dataloader()
    assert adapted(rows, "LightningDataModule", PYTORCH_LIGHTNING) is rows
    assert uncovered(L.LightningModule(), rows, {}) == "its data module is one of pytorch_lightning"  # type: ignore[arg-type]


# Lightning's demos


def test_the_demo_of_a_transformer_is_tuned_unmodified(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "sat", "on", "the", "cat"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wikitext-2.txt").write_text("\n".join(" ".join(words) for _ in range(12)))
    document = {
        **config("lightning.pytorch.demos.transformer.LightningTransformer", None, {"max_epochs": 1}, vocab_size=9),
        "study": "words",
        "objective": {"metric": "train_loss"},
        "space": {"trainer.gradient_clip_val": {"float": {"low": 0.01, "high": 1.0, "scale": "log"}}},
        "search": {"trials": 2, "confirm": 0},
    }
    result = tuner.run(document)
    assert (result.state, result.trials["complete"]) == ("complete", 2)
    assert set(result.best.metrics) == {"train_loss"}  # type: ignore[union-attr]
    with open_storage(home) as store:
        (trained,) = {t.outcome.trained for t in store.trials(store.study("words").id)}
    assert trained == (
        "lightning: it has no validation_step; the objective is the mean of what its training_step returns, "
        "because it logs none"
    )


def test_the_boring_demo_is_compared_by_the_loss_that_it_returns() -> None:
    """Of a linear layer, summed; with gradients of rows of random numbers, its loss falls without end."""
    given = config("lightning.pytorch.demos.boring_classes.BoringModel", None, {"max_epochs": 2})
    result, reports = train(given, "train_loss")
    assert result.trained.startswith("lightning: its validation does not log train_loss")  # type: ignore[union-attr]
    losses: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    built = SingleTraining(given, Objective("train_loss")).blueprint.build(given, [Watch()])
    built.trainer.fit(built.module)
    half = len(losses) // 2
    assert [value for _, value, _ in reports] == pytest.approx(
        [sum(losses[:half]) / half, sum(losses[half:]) / half], rel=1e-6
    )


def test_a_demo_that_logs_nothing_on_validation_says_so() -> None:
    with pytest.raises(MissingMetric, match=r"logged: none at all\. Log it with self\.log"):
        train(config("lightning.pytorch.demos.boring_classes.BoringModel", None))
