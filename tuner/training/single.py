"""One trial on Lightning's own Trainer."""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from tuner.errors import StudyStopped, TrialFailed, TrialInterrupted, TrialOutOfMemory
from tuner.training.blueprint import Blueprint, Built
from tuner.training.observer import Observer
from tuner.trial import Objective, OnReport, Report, TrialResult, TrialState, Verdict

log = logging.getLogger("tuner")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")

KeepWeights = Callable[[TrialResult], Path | None]
"""Given a complete result, says where to save its weights, or None when others are better."""


class LightningTraining:
    """Trains configurations one after the other, each exactly as LightningCLI's `fit` would.

    Args:
        example: any valid configuration of the study, to prepare the parser with.
        objective: decides which epoch's weights are kept.
        patience: epochs without improvement after which a trial stops early; None is never.
        interrupted: asked at every batch; True drops the trial at once.
    """

    def __init__(
        self,
        example: Mapping[str, Any],
        objective: Objective,
        patience: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.blueprint = Blueprint(example)
        self.objective = objective
        self.patience = patience
        self.interrupted = interrupted

    def train(
        self, config: Mapping[str, Any], on_report: OnReport, keep_weights: KeepWeights = lambda _: None
    ) -> TrialResult:
        """Train one configuration to its end.

        Args:
            config: `seed_everything`, `model`, `data` and `trainer`, as LightningCLI reads them.
            on_report: told of every epoch; answers whether to go on.
            keep_weights: asked when the trial is complete.

        Returns:
            The result; a trial that diverges or runs out of memory is PRUNED and infeasible, one whose code raises
            anything else is FAILED.

        Raises:
            TrialInterrupted: somebody asked to stop.
            StudyStopped: the study itself is wrong (the objective's metric is not logged).
        """
        unreported: list[Exception] = []

        def reported(report: Report) -> Verdict:
            try:
                return on_report(report)
            except Exception as error:
                unreported.append(error)  # not the trial's fault: it rises below, whatever Lightning does with it
                raise

        observer = Observer(self.objective, self.patience, reported, self.interrupted)
        started = time.perf_counter()
        built_at = started
        built: Built | None = None
        try:
            built = self.blueprint.build(config, [observer])
            built_at = time.perf_counter()
            built.trainer.fit(built.module, datamodule=built.datamodule)
            outcome: dict[str, Any] = self._finished(observer)
        except (TrialInterrupted, StudyStopped):
            raise
        except SIGTERMException as error:
            raise TrialInterrupted("asked to stop") from error
        except Exception as error:  # the user's code runs here and may raise anything
            if unreported:
                raise unreported[0] from error
            outcome = _failure(error)
        ended = time.perf_counter()
        result = TrialResult(
            **outcome,
            epochs=observer.epochs,
            config=built.config if built else dict(config),
            seconds={
                "build": built_at - started,
                "train": ended - built_at - observer.report_seconds,
                "report": observer.report_seconds,
            },
        )
        if built is not None and result.state is TrialState.COMPLETE:
            result = self._saved(built, observer, result, keep_weights(result))
        return result

    @staticmethod
    def _finished(observer: Observer) -> dict[str, Any]:
        if observer.best is None:
            raise StudyStopped(
                "no epoch was validated, so nothing can be compared. "
                "Give the module a validation_step, the data a val_dataloader, and trainer.max_epochs at least 1."
            )
        return {
            "state": TrialState.PRUNED if observer.pruned else TrialState.COMPLETE,
            "value": observer.best.value,
            "metrics": observer.best.metrics,
            "best_epoch": observer.best.epoch,
            "reason": observer.reason,
        }

    @staticmethod
    def _saved(built: Built, observer: Observer, result: TrialResult, path: Path | None) -> TrialResult:
        """Save the best epoch's weights as a Lightning checkpoint; a result is not lost because its weights are."""
        if path is None:
            return result
        try:
            LightningTraining._save(built, observer, path)
        except (OSError, RuntimeError) as error:
            log.warning("the weights of a trial could not be saved at %s: %s", path, error)
            told = f"its weights could not be saved: {error}"
            return replace(result, reason=f"{result.reason}; {told}" if result.reason else told)
        return result

    @staticmethod
    def _save(built: Built, observer: Observer, path: Path) -> None:
        built.module.load_state_dict(observer.weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        built.trainer.save_checkpoint(unfinished, weights_only=True)
        unfinished.replace(path)


def _failure(error: Exception) -> dict[str, Any]:
    """How a trial ends that raised: bad for the search when the configuration is to blame, FAILED otherwise."""
    told = _as_trial_error(error)
    if told is None:
        return {
            "state": TrialState.FAILED,
            "reason": f"{type(error).__name__}: {error}{_place(error)}",
            "detail": "".join(traceback.format_exception(error)),
        }
    if isinstance(told, TrialOutOfMemory):
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {"state": TrialState.PRUNED, "infeasible": True, "reason": str(told)}


def _place(error: Exception) -> str:
    """Where the error was raised, for a reader who has only this line."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""


def _as_trial_error(error: Exception) -> TrialFailed | None:
    if isinstance(error, TrialFailed):
        return error
    text = str(error).lower()
    exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)
    )
    return TrialOutOfMemory(f"out of memory: {str(error).splitlines()[0] if text else 'host'}") if exhausted else None
