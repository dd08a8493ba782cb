"""The one callback of a trial: it reports every epoch, keeps the best weights, and ends the trial when told to."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import lightning as L
from torch import Tensor

from tuner.errors import MissingMetric, TrialDiverged, TrialInterrupted
from tuner.trial import Objective, OnReport, Report, Verdict

RETURNED = "train_loss"
"""The objective that every module has: where it does not log it, the mean over the batches of what its steps return."""


class Observer(L.Callback):
    """Watches one trial.

    Args:
        objective: the metric that decides which epoch is best.
        patience: epochs without improvement after which the trial stops early; None is never.
        on_report: told of every epoch's validation; answers whether to go on.
        interrupted: asked at every batch; True drops the trial at once.
        known: epochs that were reported before, by a run that was given up; they are not reported again.

    Attributes:
        best: the report of the best epoch so far.
        last: the latest report.
        weights: the module's state at the best epoch, on the CPU.
        epochs: epochs trained, the one in which the trial diverged included.
        pruned: whether the answer to a report was to prune.
        reason: why the trial ended before its last epoch, or None.
        report_seconds: time spent in `on_report`.
        earlier_seconds: what the epochs took that another run has trained.
        stopping: whether the answer to a report was to stop after the epoch.
        returned: whether the objective is the loss that `training_step` returns, because the module logs none.
        without: whether the latest validation has not logged the objective, which training then must have.
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
        self,
        objective: Objective,
        patience: int | None,
        on_report: OnReport,
        interrupted: Callable[[], bool],
        known: int = 0,
    ) -> None:
        self.objective = objective
        self.patience = patience
        self.on_report = on_report
        self.interrupted = interrupted
        self.known = known
        self.best: Report | None = None
        self.last: Report | None = None
        self.weights: dict[str, Any] = {}
        self.epochs = 0
        self.pruned = False
        self.reason: str | None = None
        self.report_seconds = self.earlier_seconds = 0.0
        self.stopping = self.without = self.returned = False
        self._losses: list[Tensor] = []
        self._began = time.perf_counter()
        self._validated: tuple[float, dict[str, float]] | None = None  # the best validation of this epoch
        self._at_validation: dict[str, float] = {}  # every metric as it stood at the latest validation

    def agreed(self, metrics: dict[str, float]) -> dict[str, float]:
        """What all processes of a trial say of its metrics: there is one."""
        return metrics

    def logged(self, trainer: L.Trainer) -> dict[str, float]:
        """The metrics as they stand now."""
        return {name: float(metric) for name, metric in trainer.callback_metrics.items()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule | None = None, outputs: Any = None, *_: Any
    ) -> None:
        """Drop the trial between two batches when somebody asked to stop; note the loss that nobody may have logged."""
        if self.interrupted():
            raise TrialInterrupted("asked to stop")
        if self.objective.metric == RETURNED and outputs is not None and outputs.get("loss") is not None:
            self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the weights if this validation is the best so far."""
        if trainer.sanity_checking:
            return
        self.without = self.objective.metric not in logged_by_the_loop(trainer)
        if not self.without:
            self._note(self.logged(trainer), trainer, pl_module)

    def _note(self, logged: dict[str, float], trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metrics as they stand, and keep the weights if they are the best so far."""
        self.epochs = trainer.current_epoch + 1
        value = logged[self.objective.metric]
        if not math.isfinite(value):
            raise TrialDiverged(f"diverged: {self.objective.metric} is {value} at epoch {trainer.current_epoch + 1}")
        self._at_validation = logged
        if self._validated is not None and not self.objective.better(value, self._validated[0]):
            return  # an earlier validation of this epoch was better
        self._validated = value, self._at_validation
        if self.objective.better(value, self.best.value if self.best else self.objective.worst):
            self.weights = {name: _kept(entry) for name, entry in pl_module.state_dict().items()}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch, if it was validated: by now its training metrics are complete, too."""
        self._note_training(trainer, pl_module)
        report = self.drafted(trainer)
        if report is None:
            return
        self.last, self._validated = report, None
        if self.best is None or self.objective.better(report.value, self.best.value):
            self.best, self.reason = report, None
        started = time.perf_counter()
        verdict = self.on_report(report) if report.epoch > self.known else Verdict.GO_ON
        self.report_seconds += time.perf_counter() - started
        if verdict is Verdict.GIVE_BACK:
            raise TrialInterrupted("asked to stop")
        self.stopping = verdict is Verdict.STOP
        if verdict is Verdict.PRUNE:
            self.pruned, self.reason = True, f"pruned at epoch {report.epoch}: other trials were better there"
        elif verdict is Verdict.HALT:
            self.reason = f"a time or epoch budget was spent at epoch {report.epoch}"
        elif self.patience is not None and report.epoch - self.best.epoch >= self.patience:
            self.reason = f"stopped early: no improvement in {self.patience} epochs, best was epoch {self.best.epoch}"
        if verdict in (Verdict.PRUNE, Verdict.HALT):  # these outrank the user's min_epochs; early stopping does not
            trainer.fit_loop.min_epochs = None
            trainer.fit_loop.epoch_loop.min_steps = None
        if self.reason is not None:
            trainer.should_stop = True

    def _note_training(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the objective from training where validation does not log it, or where there is none."""
        if self._validated is not None or (trainer.enable_validation and not self.without):
            return
        logged = self.logged(trainer)
        if self.objective.metric not in logged and self._losses:
            logged = self.agreed({**logged, RETURNED: float(sum(self._losses) / len(self._losses))})
            self.returned = True
        self._losses.clear()
        if self.objective.metric in logged:
            self._note(logged, trainer, pl_module)
        elif self.without:
            raise MissingMetric(self.objective.metric, logged)
        self.without = False

    def drafted(self, trainer: L.Trainer) -> Report | None:
        """What it will report of the epoch at hand; None if that was not validated."""
        if self._validated is None:
            return None
        value, validated = self._validated
        # What has changed since the latest validation are the epoch's training metrics; the rest stays as validated.
        now = self.logged(trainer).items()
        trained = {name: metric for name, metric in now if self._at_validation.get(name) != metric}
        return Report(trainer.current_epoch + 1, validated | trained, value, time.perf_counter() - self._began)

    def anew(self) -> Observer:
        """An observer for a run that starts the same trial again."""
        known = max(self.known, self.last.epoch if self.last else 0)
        other = type(self)(self.objective, self.patience, self.on_report, self.interrupted, known)
        other.report_seconds = self.report_seconds
        return other

    def remember(self) -> dict[str, Any]:
        """What it knows between two epochs. Lightning would write a `state_dict` into a user's files."""
        best, last = (None if report is None else vars(report) for report in (self.best, self.last))
        seconds = time.perf_counter() - self._began
        known = {"weights": self.weights, "epochs": self.epochs, "reason": self.reason, "seconds": seconds}
        return {"best": best, "last": last, **known}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Go on from what another observer remembers."""
        self.best, self.last = (None if state[key] is None else Report(**state[key]) for key in ("best", "last"))
        self.weights, self.epochs, self.reason = state["weights"], state["epochs"], state["reason"]
        self.earlier_seconds = state["seconds"]
        self._began -= self.earlier_seconds


def logged_by_the_loop(trainer: Any) -> Collection[str]:
    """The names that the training or the validation at hand has logged, of all that the trainer shows."""
    lean: Any = getattr(type(trainer), "_logged_by_the_loop", None)
    if lean is not None:
        return cast("Collection[str]", lean(trainer))
    names: set[str] = set()
    for meta in (result.meta for result in trainer._results.values() if result.meta.on_epoch):
        loader = meta.dataloader_idx if meta.add_dataloader_idx else None
        suffix = "" if loader is None else f"/dataloader_idx_{loader}"
        names |= {meta.name + suffix, meta.forked_name(on_step=False) + suffix}
    return names


def _kept(entry: Any) -> Any:
    """A copy of an entry of a state_dict; modules may keep other things than tensors there."""
    return entry.detach().to("cpu", copy=True) if isinstance(entry, Tensor) else copy.deepcopy(entry)
