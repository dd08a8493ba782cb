"""One configuration trained outright, also on the validation part; and a trained module scored on the test split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError

from tuner.errors import Problem, SpecError, TrialDiverged, TunerError
from tuner.training.blueprint import LEAN_TRAINER, Blueprint
from tuner.training.borrowed import is_overridden
from tuner.training.check import inspect
from tuner.training.package import adapted, class_of, package_of
from tuner.training.single import SingleTraining
from tuner.training.strategy import on_one_device
from tuner.trial import Objective, Report, TrialResult, TrialState, Verdict

Told = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with its number, from 1, and the metrics."""


def check_config(config: Mapping[str, Any], source: str) -> None:
    """Check that a configuration's classes exist and take its arguments.

    Args:
        config: `seed_everything`, `model`, `data` and `trainer`.
        source: where it comes from, for the error.

    Raises:
        SpecError: they do not; the error carries every problem.
    """
    problems = [problem for problem in inspect(config, None) if not problem.warning]
    if not problems:
        try:
            Blueprint(config)
        except (ArgumentError, ValueError, TypeError) as error:  # an argument that is missing, above all
            told = " ".join(line.strip(" -") for line in str(error).splitlines() if line.strip())
            problems = [Problem("(the file)", told[:500])]
    if problems:
        raise SpecError(source, problems)


def train_outright(config: Mapping[str, Any], objective: Objective, save: Path, told: Told) -> TrialResult:
    """Train on the training part; keep the epoch that is best on the validation part.

    Args:
        config: `seed_everything`, `model`, `data` and `trainer`, as LightningCLI reads them.
        objective: which epoch is the best.
        save: where the weights go, as a Lightning checkpoint.
        told: called after each epoch.

    Raises:
        TunerError: it could not be trained to its end.
        StudyStopped: the objective's metric is not logged on validation.
    """

    def on_report(report: Report) -> Verdict:
        told(report.epoch, report.metrics)
        return Verdict.GO_ON

    result = SingleTraining(config, objective).train(config, on_report, lambda _: save)
    if result.state is not TrialState.COMPLETE:
        raise TunerError(f"the training ended without a result: {result.reason}\n{result.detail or ''}".rstrip())
    if not save.is_file():
        raise TunerError(f"the training went to its end, but {result.reason}")
    return result


def train_on_all(config: Mapping[str, Any], save: Path, told: Told) -> TrialResult:
    """Train on the training and the validation part together, for all of `max_epochs`; the last weights are kept.

    Args:
        config: `seed_everything`, `model`, `data` and `trainer`, as LightningCLI reads them.
        save: where the weights go, as a Lightning checkpoint.
        told: called after each epoch, with the training metrics.

    Raises:
        SpecError: the data module cannot join the two.
        TrialDiverged: the weights became NaN or infinite.
    """
    blueprint = Blueprint(config)
    whole = {**config, "trainer": {**config.get("trainer", {}), "limit_val_batches": 0}}
    built = blueprint.build(whole, callbacks=[_Telling(told)])
    join: Callable[[], None] | None = getattr(built.datamodule, "join_validation", None)
    if join is None:
        described = config.get("data", {}).get("class_path", "the module's own data")
        raise SpecError(
            "--on train+validation",
            [
                Problem(
                    "data.class_path",
                    f"must be a data module with join_validation(), but {described} has none. The data modules of "
                    "tuner.data have it; give yours one, after which train_dataloader() gives both parts.",
                )
            ],
        )
    if not on_one_device(built.trainer):
        rule = "must be 1 to train on both parts, which one process does: --set trainer.devices=1"
        raise SpecError("--on train+validation", [Problem("trainer.devices", f"{rule} --set trainer.strategy=auto")])
    join()
    data = adapted(built.datamodule, "LightningDataModule", package_of(type(built.module)))
    built.trainer.fit(built.module, datamodule=data)
    if not all(bool(parameter.isfinite().all()) for parameter in built.module.parameters()):
        raise TrialDiverged("diverged: the weights are not finite. Lower the learning rate.")
    built.trainer.save_checkpoint(save, weights_only=True)
    epochs = built.trainer.current_epoch
    metrics = {name: float(value) for name, value in built.trainer.callback_metrics.items()}
    value = metrics.get("train_loss", 0.0)
    config = {**built.config, "trainer": {k: v for k, v in built.config["trainer"].items() if k != "limit_val_batches"}}
    return TrialResult(TrialState.COMPLETE, value, metrics, epochs, epochs, config=config, trained="lightning")


def score_test(
    module: L.LightningModule, datamodule: L.LightningDataModule | None, config: Mapping[str, Any]
) -> dict[str, float]:
    """The metrics that a module logs on the test split.

    Args:
        module: trained.
        datamodule: gives the test split; None where the module does.
        config: whose trainer settings apply.

    Raises:
        TunerError: there is no `test_step`, or there are no test data.
    """
    name = type(module).__name__
    package = package_of(type(module))
    if not is_overridden("test_step", module, parent=class_of(package, "LightningModule")):
        raise TunerError(f"{name} must have a test_step for the test split to be scored. Give it one.")
    owner: Any = datamodule if datamodule is not None else module
    kind = "LightningModule" if datamodule is None else "LightningDataModule"
    if not is_overridden("test_dataloader", owner, parent=class_of(package_of(type(owner)), kind)):
        raise TunerError(f"{type(owner).__name__} must have a test_dataloader to score the test split by. Give it one.")
    asked = {
        k: v for k, v in config.get("trainer", {}).items() if k in ("accelerator", "precision", "limit_test_batches")
    }
    with torch.random.fork_rng():
        trainer: Any = class_of(package, "Trainer")(**{**LEAN_TRAINER, **asked})
        data = adapted(datamodule, "LightningDataModule", package)
        (metrics, *more) = trainer.test(module, datamodule=data, verbose=False) or [{}]
    for other in more:
        metrics = {**metrics, **other}
    if not metrics:
        raise TunerError(f"{name} must log something in its test_step. Use self.log there.")
    return {key: float(value) for key, value in metrics.items()}


class _Telling(L.Callback):
    """Tells of each epoch."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._told(trainer.current_epoch + 1, {name: float(value) for name, value in trainer.callback_metrics.items()})
