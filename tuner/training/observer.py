"""The one callback of a trial: it reports every epoch, keeps the best weights, and ends the trial when told to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning as L
from torch import Tensor

from tuner.errors import MissingMetric, TrialDiverged, TrialInterrupted
from tuner.trial import Objective, OnReport, Report, Verdict


class Observer(L.Callback):
    """Watches one trial.

    Args:
        objective: the metric that decides which epoch is best.
        patience: epochs without improvement after which the trial stops early; None is never.
        on_report: told of every epoch's validation; answers whether to go on.
        interrupted: asked at every batch; True drops the trial at once.

    Attributes:
        best: the report of the best epoch so far.
        last: the latest report.
        weights: the module's state at the best epoch, on the CPU.
        pruned: whether the answer to a report was to prune.
        reason: why the trial ended before its last epoch, or None.
        report_seconds: time spent in `on_report`.
    """

    # Lightning does not enter a hook that is not callable; for steps of a millisecond the empty ones would be 3 %.
    on_train_batch_start = None  # type: ignore[assignment]
    on_before_zero_grad = None  # type: ignore[assignment]
    on_before_backward = None  # type: ignore[assignment]
    on_after_backward = None  # type: ignore[assignment]
    on_before_optimizer_step = None  # type: ignore[assignment]
    on_validation_batch_start = None  # type: ignore[assignment]
    on_validation_batch_end = None  # type: ignore[assignment]

    def __init__(
        self, objective: Objective, patience: int | None, on_report: OnReport, interrupted: Callable[[], bool]
    ) -> None:
        self.objective = objective
        self.patience = patience
        self.on_report = on_report
        self.interrupted = interrupted
        self.best: Report | None = None
        self.last: Report | None = None
        self.weights: dict[str, Tensor] = {}
        self.pruned = False
        self.reason: str | None = None
        self.report_seconds = 0.0
        self._validated: float | None = None

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Drop the trial between two batches when somebody asked to stop."""
        if self.interrupted():
            raise TrialInterrupted("asked to stop")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if this validation is the best so far."""
        if trainer.sanity_checking:
            return
        logged = trainer.callback_metrics
        if self.objective.metric not in logged:
            raise MissingMetric(self.objective.metric, logged)
        value = float(logged[self.objective.metric])
        if not math.isfinite(value):
            raise TrialDiverged(f"diverged: {self.objective.metric} is {value} at epoch {trainer.current_epoch + 1}")
        if self._validated is None or self.objective.better(value, self._validated):
            self._validated = value
        best = self.best.value if self.best else self.objective.worst
        if self.objective.better(value, best):
            self.weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in pl_module.state_dict().items()
            }

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch, if it was validated: by now its training metrics are complete, too."""
        if self._validated is None:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        report = Report(trainer.current_epoch + 1, metrics | {self.objective.metric: self._validated}, self._validated)
        self._validated = None
        self.last = report
        if self.best is None or self.objective.better(report.value, self.best.value):
            self.best = report
        started = time.perf_counter()
        verdict = self.on_report(report)
        self.report_seconds += time.perf_counter() - started
        if verdict is Verdict.GIVE_BACK:
            raise TrialInterrupted("asked to stop")
        if verdict is Verdict.PRUNE:
            self.pruned, self.reason = True, f"pruned at epoch {report.epoch}: other trials were better there"
        elif verdict is Verdict.HALT:
            self.reason = f"a time or epoch budget was spent at epoch {report.epoch}"
        elif self.patience is not None and report.epoch - self.best.epoch >= self.patience:
            self.reason = f"stopped early: no improvement in {self.patience} epochs, best was epoch {self.best.epoch}"
        if self.reason is not None:
            trainer.should_stop = True
