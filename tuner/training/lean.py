"""The lean loop: one trial without `L.Trainer`, to the same numbers and with the same hooks in the same order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch

from tuner.errors import TrialInterrupted
from tuner.training.batches import gathered
from tuner.training.borrowed import (
    RunningStage,
    TrainerFn,
    TrainerStatus,
    clean_namespace,
    is_overridden,
    is_param_in_hook_signature,
    set_sampler_epoch,
    set_torch_flags,
)
from tuner.training.hooks import RUNNING, Hooks
from tuner.training.observer import Observer
from tuner.training.optimisation import Optimisation
from tuner.training.plain import marks
from tuner.training.recorder import Recorder
from tuner.training.settings import Settings
from tuner.training.snapshot import Snapshot, SnapshotUnusable, go_on_from, snapshot_of, trained_by
from tuner.training.stand_in import NotLean, StandIn
from tuner.training.validation import Validation, taken, usable

_CPU = torch.device("cpu")
_LOADER = "train_dataloader"


class Lean:
    """Trains a module on its data as `L.Trainer(...).fit(module, datamodule)` does, on one CPU.

    Args:
        module: of which `uncovered` says nothing.
        datamodule: likewise; None where the module has its own data.
        settings: how long, and on how much of the data.
        observer: the one callback.

    Attributes:
        trainer: what the module sees as its trainer; it also holds how far training is.
        processed: epochs whose batches are trained; `trainer.current_epoch` is those whose hooks have run as well.
        batches: the training batches of the epoch at hand that are left; None before there is one.
    """

    def __init__(
        self,
        module: L.LightningModule,
        datamodule: L.LightningDataModule | None,
        settings: Settings,
        observer: Observer,
    ) -> None:
        self.module, self.datamodule, self.settings, self.observer = module, datamodule, settings, observer
        self.refusals: list[str] = []
        self.trainer: Any = StandIn(self)
        self.hooks = Hooks(module, datamodule)
        self.recorder = Recorder(module)
        self.optimisation = Optimisation(self)
        self.validation = Validation(self)
        self.processed = 0
        self._seen = vars(self.trainer)
        self.batches: Any = None

    def fit(
        self,
        snapshot: Snapshot | None = None,
        keep_snapshot: Callable[[Callable[[], dict[str, Any]]], None] | None = None,
    ) -> None:
        """Train.

        Args:
            snapshot: go on from there.
            keep_snapshot: called after every epoch but the last, with what makes a snapshot.

        Raises:
            NotLean: it turns out that the loop does not cover this trial.
            SnapshotUnusable: the snapshot does not fit it.
        """
        try:
            self._begin()
            self._train(snapshot, keep_snapshot)
            self._end()
            self._check_refusals()
        except (NotLean, SnapshotUnusable):
            raise
        except BaseException as error:
            self.abandon(error)
            raise
        finally:
            self.recorder.detach()

    # Before and after

    def _begin(self) -> None:
        """What comes before training: the data, the model, its optimiser."""
        module, datamodule, hooks = self.module, self.datamodule, self.hooks
        set_torch_flags(deterministic=self.settings.deterministic, benchmark=self.settings.benchmark)
        if datamodule is not None:
            datamodule.trainer = self.trainer
        module.trainer = self.trainer
        clean_namespace(module.hparams)
        if datamodule is not None and is_overridden("prepare_data", datamodule):
            hooks.call_data("prepare_data")
        if is_overridden("prepare_data", module):
            hooks.call("prepare_data")
        hooks.call_data("setup", stage=TrainerFn.FITTING)
        hooks.call("setup", stage=TrainerFn.FITTING)
        if is_overridden("configure_model", module):
            with _CPU:
                hooks.call("configure_model")
        module.to(_CPU)
        self.optimisation.configure()
        hooks.call("on_fit_start")
        module.zero_grad()

    def load_training_data(self) -> None:
        """Ask for the training loader and its first iterator, if nobody has."""
        if self.batches is not None:
            return
        loader = self.hooks.source(_LOADER)
        size = usable(loader, _LOADER, self.settings.limit_train_batches)
        self.batches = iter(gathered(loader))
        self._seen.update(train_dataloader=loader, num_training_batches=size)

    def _end(self) -> None:
        self.module.cpu()
        self.hooks.call("on_fit_end")
        self.hooks.call_data("teardown", stage=TrainerFn.FITTING)
        self.hooks.call("teardown", stage=TrainerFn.FITTING)
        self.hooks.running[RUNNING] = None
        self.trainer.state.status, self.trainer.state.stage = TrainerStatus.FINISHED, None

    # Training

    def _train(
        self,
        snapshot: Snapshot | None,
        keep_snapshot: Callable[[Callable[[], dict[str, Any]]], None] | None,
    ) -> None:
        self.load_training_data()
        if self.done():
            return
        torch.set_grad_enabled(True)
        with torch.autograd.set_detect_anomaly(False):
            self._start()
            fresh = marks(self.module) if keep_snapshot else {}
            if snapshot is not None:
                go_on_from(self, snapshot)
            while not self.done():
                self._epoch()
                if keep_snapshot is not None and not self.done():
                    keep_snapshot(partial(snapshot_of, self, fresh, trained_by("lean", snapshot)))
                if self.observer.stopping and not self.done():
                    raise TrialInterrupted("the study is being stopped")
            self.hooks.call("on_train_end")

    def _start(self) -> None:
        if self.is_validated():
            self.trainer.state.stage = RunningStage.VALIDATING
            self.validation.load()
            self.trainer.state.stage = RunningStage.TRAINING
        self.hooks.call("on_train_start")

    def _epoch(self) -> None:
        """One epoch: its batches, its validation, and the hooks around."""
        self.begin_epoch()
        self._train_batches()
        self.end_batches()
        self.end_epoch()

    # The parts of `fit`, for whoever makes the steps himself

    def begin(self) -> None:
        """All that comes before the first epoch."""
        self._begin()
        self.load_training_data()
        torch.set_grad_enabled(True)
        if not self.done():
            self._start()

    def begin_epoch(self) -> None:
        """What comes before an epoch's batches."""
        loader = self.trainer.train_dataloader
        set_sampler_epoch(loader, self.processed)
        self.hooks.call("on_train_epoch_start")
        self.hooks.look()
        self._check_manual()
        self.optimisation.look()
        if self._seen["current_epoch"] > 0:
            self.batches = iter(gathered(loader))
        self._seen["is_last_batch"] = False

    def stepped(self, steps: int) -> None:
        """All of an epoch's steps have been made by somebody else."""
        self._seen["global_step"] += steps
        self._seen["is_last_batch"] = True
        self.optimisation.schedule("epoch", self._seen["current_epoch"])

    def end_batches(self) -> None:
        """An epoch's batches, and its validation, are over."""
        self.recorder.end_batches()
        self._check_refusals()
        self._check_manual()
        if self.hooks.changed:
            raise NotLean("its hooks change within an epoch")
        self.processed += 1

    def end_epoch(self) -> None:
        """The hooks after an epoch, ours before the module's."""
        self.observer.on_train_epoch_end(self.trainer, self.module)
        self.hooks.call("on_train_epoch_end")
        self.recorder.end_epoch()
        if self._seen["is_last_batch"]:
            self.optimisation.schedule("epoch", self._seen["current_epoch"], on_plateau=True)
        self.recorder.reset()
        self._seen["current_epoch"] += 1

    def end(self) -> None:
        """All that comes after the last epoch."""
        try:
            self.hooks.call("on_train_end")
            self._end()
            self._check_refusals()
        finally:
            self.recorder.detach()

    def abandon(self, error: BaseException) -> None:
        """The trial ends because its code raised."""
        self.recorder.detach()
        self.trainer.state.status = TrainerStatus.INTERRUPTED
        self.hooks.call_data("on_exception", error)

    def begin_validation(self) -> None:
        """What comes before a validation's batches."""
        self._first = self._to_validation()
        self.validation.begin()

    def end_validation(self) -> None:
        """What comes after a validation's batches."""
        self.validation.end()
        self._to_training(self._first)

    def _train_batches(self) -> None:
        """Train batch after batch, with validations where they are due, until the last one or a reason to stop."""
        seen, count = self._seen, self.trainer.num_training_batches
        interval = self._validation_interval(count)
        with_index = is_param_in_hook_signature(self.module.training_step, "batch_idx", min_args=2)
        for index in range(count):
            if self._is_last_step() or self._may_stop():
                return
            batch = taken(self.batches, _LOADER)
            seen["is_last_batch"] = index == count - 1
            if not self._train_batch(batch, index, with_index):
                return
            if ((index + 1) % interval == 0 or self._may_stop()) and self.is_validated():
                self._validate()
            self.optimisation.schedule("step", index, on_plateau=True)

    def _train_batch(self, batch: Any, index: int, with_index: bool) -> bool:
        """Train a batch; whether the epoch goes on, which the module's `on_train_batch_start` may deny."""
        hooks, recorder, own = self.hooks, self.recorder, self.hooks.own
        batch = hooks.transferred(batch, 0)
        if batch is None:
            raise NotLean(f"its {_LOADER} gives None for a batch")
        recorder.begin_batch(batch)
        if "on_train_batch_start" in own and hooks.call("on_train_batch_start", batch, index) == -1:
            self._seen["is_last_batch"] = True
            self._schedule(index)
            recorder.first = None  # what was logged for this batch by step is never shown
            return False
        self.optimisation.step((batch, index) if with_index else (batch,), index)
        self._schedule(index)
        self.observer.on_train_batch_end(self.trainer)
        if "on_train_batch_end" in own:
            hooks.call("on_train_batch_end", self.optimisation.outputs, batch, index)
        recorder.end_batch()
        if "on_train_batch_start" in own:
            recorder.settle()  # now, because the next batch may be left out
        return True

    def _schedule(self, index: int) -> None:
        if not self.optimisation.schedules:
            return
        self.optimisation.schedule("step", index)
        if self._seen["is_last_batch"]:
            self.optimisation.schedule("epoch", self._seen["current_epoch"])

    def _validate(self) -> None:
        """Validate between two batches."""
        self.begin_validation()
        self.validation.run_batches()
        self.end_validation()

    def _to_validation(self) -> bool | None:
        self.recorder.settle()
        self.trainer.state.stage, first = RunningStage.VALIDATING, self.recorder.first
        self.recorder.switch(validating=True)
        self.hooks.call("on_validation_model_zero_grad")
        return first

    def _to_training(self, first: bool | None) -> None:
        self.recorder.switch(validating=False)
        self.trainer.state.stage, self.recorder.first = RunningStage.TRAINING, first

    def _check_refusals(self) -> None:
        """Look for a `NotLean` that the user's code has swallowed."""
        if self.refusals:
            raise NotLean(self.refusals[0])

    def _check_manual(self) -> None:
        """Look whether the module still leaves its optimiser to the loop, which it may change at any time."""
        if not self.module.automatic_optimization:
            raise NotLean("it optimises manually from some epoch on")

    # When to do what

    def _validation_interval(self, count: int) -> int:
        interval = self.settings.val_check_interval
        if isinstance(interval, float):
            return max(1, int(count * interval))
        if interval > count:
            raise NotLean(f"trainer.val_check_interval is above its {count} batches")
        return interval

    def is_validated(self) -> bool:
        """Whether the epoch at hand is one of those that are validated."""
        epoch: int = self._seen["current_epoch"] + 1
        return epoch % self.settings.check_val_every_n_epoch == 0

    def _is_last_step(self) -> bool:
        limit = self.settings.max_steps
        return bool(limit != -1 and self._seen["global_step"] >= limit)

    def _may_stop(self) -> bool:
        """Whether somebody asked to stop, and no minimum forbids it."""
        if not self._seen["should_stop"]:
            return False
        epochs, steps = self.trainer.min_epochs, self.trainer.min_steps
        return not (epochs and self.processed < epochs) and not (steps and self._seen["global_step"] < steps)

    def done(self) -> bool:
        """Whether there are no more epochs to train."""
        limit = self.settings.max_epochs
        return self._is_last_step() or (limit != -1 and self.processed >= limit) or self._may_stop()
