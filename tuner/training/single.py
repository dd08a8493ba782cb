"""One trial: in the lean loop where that is known to give the Trainer's numbers, else on Lightning's own Trainer."""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from tuner.errors import StudyStopped, TrialFailed, TrialInterrupted, TrialOutOfMemory
from tuner.training.between import BetweenEpochs
from tuner.training.blueprint import Blueprint, Parts
from tuner.training.borrowed import SIGTERMException
from tuner.training.checkpoint import checkpoint_of
from tuner.training.covered import uncovered
from tuner.training.fault import fault_of
from tuner.training.interruption import noticing_sigterm
from tuner.training.lean import Lean
from tuner.training.observer import Observer
from tuner.training.package import adapted, package_of
from tuner.training.plain import Marks, marks
from tuner.training.ranks import task_of, train_on_ranks
from tuner.training.rng import random_state, restore_random
from tuner.training.settings import Settings
from tuner.training.shadow import disagreement
from tuner.training.snapshot import Snapshot, SnapshotUnusable, go_on_from, known_epochs, trained_by
from tuner.training.stand_in import NotLean
from tuner.training.strategy import on_one_device, unshared
from tuner.trial import Objective, OnReport, Report, TrialResult, TrialState, Verdict

log = logging.getLogger("tuner")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")

Mode = Literal["auto", "lean", "lightning"]
"""Who trains: `auto` and `lean` are the lean loop where it is faithful and else the Trainer; `lightning` is that."""

KeepWeights = Callable[[TrialResult], Path | None]
"""Given a complete result, says where to save its weights, or None when others are better."""

KeepSnapshot = Callable[[Callable[[], dict[str, Any]]], None]
"""Called after an epoch with what makes a snapshot, which it may call, write down, or leave alone.

Who gives one also looks after SIGTERM.
"""


@dataclass
class Run:
    """What is known of a trial while it runs.

    Attributes:
        began: when training began, the trial being built.
        snapshot: where it goes on from.
        trained: who trains it, and why.
        save: writes a Lightning checkpoint of the module as it is.
    """

    config: Mapping[str, Any]
    observer: Observer
    began: float
    snapshot: Snapshot | None = None
    parts: Parts | None = None
    trained: str | None = None
    save: Callable[[Path], None] | None = None

    def begin(self, trained: str, save: Callable[[Path], None]) -> None:
        """Somebody begins to train it, perhaps after another one gave up."""
        if self.trained is None:
            self.began = time.perf_counter()
        self.trained, self.save = trained, save


@dataclass
class Begun:
    """A trial whose steps somebody else makes.

    Attributes:
        run: what is known of it.
        lean: its loop, before the first epoch, or the first after a snapshot.
        fresh: the module's plain attributes before the first epoch.
        seconds: what building it took.
    """

    run: Run
    lean: Lean
    fresh: Marks
    seconds: float

    @property
    def module(self) -> L.LightningModule:
        """The module that is trained."""
        return self.lean.module

    @property
    def observer(self) -> Observer:
        """What watches it."""
        return self.lean.observer


class SingleTraining:
    """Trains configurations one after the other, each to the numbers that LightningCLI's `fit` gives.

    Args:
        example: any valid configuration of the study, to prepare the parser with.
        objective: decides which epoch's weights are kept.
        patience: epochs without improvement after which a trial stops early; None is never.
        interrupted: asked at every batch; True drops the trial at once.
        mode: who trains.
    """

    observer: type[Observer] = Observer

    def __init__(
        self,
        example: Mapping[str, Any],
        objective: Objective,
        patience: int | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        mode: Mode = "auto",
    ) -> None:
        self.blueprint = Blueprint(example)
        self.objective = objective
        self.patience = patience
        self.interrupted = interrupted
        self.mode = mode
        self._said: set[str] = set()

    def train(
        self,
        config: Mapping[str, Any],
        on_report: OnReport,
        keep_weights: KeepWeights = lambda _: None,
        snapshot: Snapshot | None = None,
        keep_snapshot: KeepSnapshot | None = None,
    ) -> TrialResult:
        """Train one configuration to its end.

        Args:
            config: `seed_everything`, `model`, `data` and `trainer`, as LightningCLI reads them.
            on_report: told of every epoch; answers whether to go on.
            keep_weights: asked when the trial is complete.
            snapshot: where an interrupted run of this configuration was; its epochs are not reported again.
            keep_snapshot: called after every epoch but the last.

        Returns:
            The result; a trial that diverges or runs out of memory is PRUNED and infeasible, one whose code raises
            anything else is FAILED.

        Raises:
            TrialInterrupted: somebody asked to stop.
            StudyStopped: the study itself is wrong (the objective's metric is not logged).
            SnapshotUnusable: the snapshot does not fit the trial, or who trains it now.
        """
        if (count := self.devices(config)) > 1:
            return self._on_ranks(config, count, on_report, keep_weights, snapshot)
        unreported: list[Exception] = []

        def reported(report: Report) -> Verdict:
            try:
                return on_report(report)
            except Exception as error:
                unreported.append(error)  # not the trial's fault: it rises below, whatever Lightning does with it
                raise

        started = time.perf_counter()
        observer = self.observer(self.objective, self.patience, reported, self.interrupted, known_epochs(snapshot))
        run = Run(config, observer, started, snapshot)
        try:
            self._run(run, keep_snapshot)
            outcome: dict[str, Any] = _finished(run.observer)
        except (TrialInterrupted, StudyStopped, SnapshotUnusable):
            raise
        except SystemExit as error:  # of either package
            if type(error).__name__ != SIGTERMException.__name__:
                raise
            raise TrialInterrupted("asked to stop") from error
        except Exception as error:  # the user's code runs here and may raise anything
            if unreported:
                raise unreported[0] from error
            outcome = failure_of(error)
        ended = time.perf_counter()
        reporting = run.observer.report_seconds
        result = TrialResult(
            **outcome,
            epochs=run.observer.epochs,
            config=run.parts.config if run.parts else dict(config),
            trained=_told(run),
            seconds={
                "build": run.began - started,
                "train": ended - run.began - reporting + run.observer.earlier_seconds,
                "report": reporting,
            },
        )
        return _saved(run, result, keep_weights(result)) if result.state is TrialState.COMPLETE else result

    def begin(self, config: Mapping[str, Any], snapshot: Snapshot | None = None) -> Begun:
        """Build a trial and begin its lean loop, for whoever makes the steps himself.

        Args:
            config: as `train` takes it.
            snapshot: where an interrupted run of this configuration was.

        Raises:
            NotLean: the lean loop does not cover it.
            SnapshotUnusable: the snapshot does not fit it.
        """
        started = time.perf_counter()
        observer = Observer(
            self.objective, self.patience, lambda _: Verdict.GO_ON, self.interrupted, known_epochs(snapshot)
        )
        run = Run(config, observer, started, snapshot)
        run.parts = self.blueprint.parts(config)
        if (reason := self._against_lean(run)) is not None:
            raise NotLean(reason)
        loop = self._lean(run)
        loop.begin()
        fresh = marks(loop.module)
        if snapshot is not None:
            go_on_from(loop, snapshot)
        return Begun(run, loop, fresh, time.perf_counter() - started)

    def ended(
        self, begun: Begun, error: Exception | None, seconds: float, trained: str, keep_weights: KeepWeights
    ) -> TrialResult:
        """The result of such a trial, whose weights are saved if they are to be kept.

        Args:
            begun: the trial.
            error: what its code has raised, if that ended it.
            seconds: what its training took.
            trained: how it was trained.
            keep_weights: asked when the trial is complete.

        Raises:
            StudyStopped: the study itself is wrong (the objective's metric is not logged).
        """
        run = begun.run
        if isinstance(error, StudyStopped | TrialInterrupted):
            raise error
        try:
            if error is not None:
                begun.lean.abandon(error)
                raise error
            begun.lean.end()
            outcome = _finished(run.observer)
        except StudyStopped:
            raise
        except Exception as raised:  # noqa: BLE001 - the user's code ran there and may have raised anything
            outcome = failure_of(raised)
        result = TrialResult(
            **outcome,
            epochs=run.observer.epochs,
            config=_built(run).config,
            trained=trained,
            seconds={"build": begun.seconds, "train": seconds, "report": 0.0},
        )
        return _saved(run, result, keep_weights(result)) if result.state is TrialState.COMPLETE else result

    def devices(self, config: Mapping[str, Any]) -> int:
        """How many processes a trial is trained in, one for each device: 1 is this one.

        Raises:
            StudyStopped: it is to be trained in a way that several processes of one machine cannot.
        """
        _, arguments = self.blueprint.parsed_trainer(config.get("trainer", {}))
        if arguments["devices"] in (1, "1") and arguments["strategy"] == "auto" and arguments["num_nodes"] == 1:
            return 1
        trainer = self.trainer(config, [])
        if (wrong := unshared(trainer)) is not None:
            raise StudyStopped(f"{wrong.path}: {wrong.message}")
        return 1 if on_one_device(trainer) else trainer.world_size

    def trainer(self, config: Mapping[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        """Lightning's Trainer for a configuration."""
        return self.blueprint.trainer_for(config, callbacks)

    def save(self, trainer: L.Trainer, path: Path) -> None:
        """Write a Lightning checkpoint of the module as it is."""
        trainer.save_checkpoint(path, weights_only=True)

    def _on_ranks(
        self,
        config: Mapping[str, Any],
        count: int,
        on_report: OnReport,
        keep_weights: KeepWeights,
        snapshot: Snapshot | None,
    ) -> TrialResult:
        if snapshot is not None:
            raise SnapshotUnusable("a trial on several devices goes on from none")
        self._say(f"trials are trained by Lightning's Trainer in {count} processes, one for each device")
        task = task_of(config, self.objective, self.patience, count)
        with noticing_sigterm() as terminated:
            return train_on_ranks(task, on_report, keep_weights, lambda: self.interrupted() or terminated())

    def _against_lean(self, run: Run) -> str | None:
        """Why the lean loop does not train a trial, as far as that is known before."""
        parts = _built(run)
        reason = uncovered(parts.module, parts.datamodule, parts.arguments)
        return reason or disagreement(self.blueprint, run.config, parts)

    def _run(self, run: Run, keep_snapshot: KeepSnapshot | None) -> None:
        """Build the trial and train it by whoever may."""
        random = random_state()
        run.parts = self.blueprint.parts(run.config)
        if self.mode == "lightning":
            return self._run_lightning(run, "lightning", keep_snapshot)
        reason = self._against_lean(run)
        if reason is None:
            try:
                return self._run_lean(run, keep_snapshot)
            except NotLean as refused:
                reason = str(refused)
            run.snapshot, run.observer = None, run.observer.anew()
            restore_random(random)
            run.parts = self.blueprint.parts(run.config)
        self._say(f"trials are left to Lightning's Trainer: {reason}")
        return self._run_lightning(run, f"lightning: {reason}", keep_snapshot)

    def _say(self, told: str) -> None:
        """Tell the log how trials are trained, each way once."""
        if told not in self._said:
            self._said.add(told)
            log.info("%s", told)

    def _run_lean(self, run: Run, keep_snapshot: KeepSnapshot | None) -> None:
        loop = self._lean(run)
        if keep_snapshot is not None:
            loop.fit(run.snapshot, keep_snapshot)
            return
        with noticing_sigterm() as terminated:
            run.observer.interrupted = lambda: self.interrupted() or terminated()
            loop.fit(run.snapshot)

    def _lean(self, run: Run) -> Lean:
        parts = _built(run)
        loop = Lean(parts.module, parts.datamodule, Settings.of(parts.arguments), run.observer)

        def save(path: Path) -> None:
            trainer = loop.trainer
            torch.save(checkpoint_of(parts.module, parts.datamodule, trainer.current_epoch, trainer.global_step), path)

        run.begin("lean", save)
        return loop

    def _run_lightning(self, run: Run, why: str, keep_snapshot: KeepSnapshot | None) -> None:
        parts = _built(run)
        between = BetweenEpochs(run.observer, trained_by(why, run.snapshot), run.snapshot, keep_snapshot)
        trainer = self.trainer(run.config, [run.observer])
        package = package_of(type(trainer))
        first = adapted(between, "Callback", package)  # no other one has begun the next epoch then
        trainer.callbacks.insert(0, first)  # type: ignore[attr-defined]
        run.begin(why, partial(self.save, trainer))
        trainer.fit(parts.module, datamodule=adapted(parts.datamodule, "LightningDataModule", package))


def _told(run: Run) -> str | None:
    """How a trial was trained, in words."""
    if run.trained is None:
        return None
    mean = "; the objective is the mean of what its training_step returns, because it logs none"
    return trained_by(run.trained, run.snapshot) + (mean if run.observer.returned else "")


def _built(run: Run) -> Parts:
    assert run.parts is not None  # noqa: S101
    return run.parts


def _finished(observer: Observer) -> dict[str, Any]:
    if observer.best is None:
        raise StudyStopped(
            "no epoch was validated, so nothing can be compared. "
            "Give the module a validation_step, the data a val_dataloader, and trainer.max_epochs at least 1; or name "
            "a metric of training as the objective."
        )
    return {
        "state": TrialState.PRUNED if observer.pruned else TrialState.COMPLETE,
        "value": observer.best.value,
        "metrics": observer.best.metrics,
        "best_epoch": observer.best.epoch,
        "reason": observer.reason,
    }


def _saved(run: Run, result: TrialResult, path: Path | None) -> TrialResult:
    """Save the best epoch's weights as a Lightning checkpoint; a result is not lost because its weights are."""
    if path is None or run.save is None:
        return result
    try:
        _built(run).module.load_state_dict(run.observer.weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        run.save(unfinished)
        unfinished.replace(path)
    except (OSError, RuntimeError, NotLean) as error:
        log.warning("the weights of a trial could not be saved at %s: %s", path, error)
        told = f"its weights could not be saved: {error}"
        return replace(result, reason=f"{result.reason}; {told}" if result.reason else told)
    return result


def failure_of(error: Exception) -> dict[str, Any]:
    """How a trial ends that raised: bad for the search when the configuration is to blame, FAILED otherwise."""
    told = _as_trial_error(error)
    if told is None:
        return {
            "state": TrialState.FAILED,
            "reason": f"{type(error).__name__}: {error}{_place(error)}",
            "detail": "".join(traceback.format_exception(error)),
            "fault": fault_of(error),
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
    text = str(error)
    return TrialOutOfMemory(f"out of memory: {text.splitlines()[0] if text else 'host'}") if exhausted(error) else None


def exhausted(error: Exception) -> bool:
    """Whether an error says that there is not enough memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)
    )
