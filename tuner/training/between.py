"""Between two epochs of Lightning's Trainer: all of a trial is written down there, or brought back to where it was.

Lightning's own checkpoints keep no random state, no metrics that schedules follow, and go through a restart of its
loops that differs from a run that was never interrupted. So everything is taken at one point, when an epoch is over and
nothing of the next has begun, and put back at that point: a fresh run is led to the start of its first epoch, and goes
on as another one. What cannot be brought back to the last bit is named.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import IterableDataset

from tuner.errors import TrialInterrupted
from tuner.training import plain
from tuner.training.borrowed import is_overridden, set_sampler_epoch
from tuner.training.observer import Observer
from tuner.training.package import class_of, package_of
from tuner.training.rng import random_state, restore_random
from tuner.training.snapshot import FORMAT, Snapshot, SnapshotUnusable, generators_of
from tuner.training.strategy import on_one_device

log = logging.getLogger("tuner")

_HPARAMS = (
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
    "datamodule_hyper_parameters",
    "datamodule_hparams_name",
)
"""What a checkpoint has to rebuild a module from, which a trial's configuration does."""

_NOT_EXACT = "; going on, not to the last bit: "


class BetweenEpochs(L.Callback):
    """The first of a Trainer's callbacks, so that no other one has begun the next epoch.

    Args:
        observer: the trial's.
        trained: how it is trained, in words.
        snapshot: where an interrupted run was.
        keep: called after every epoch but the last, with what makes a snapshot.
    """

    def __init__(
        self,
        observer: Observer,
        trained: str,
        snapshot: Snapshot | None,
        keep: Callable[[Callable[[], dict[str, Any]]], None] | None,
    ) -> None:
        self._observer, self._trained = observer, trained
        self._snapshot, self._keep = snapshot, keep
        self._fresh: plain.Marks | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Whoever keeps snapshots stops trials between two epochs; Lightning would drop them in the middle of one."""
        if self._keep is not None:
            _leave_sigterm_to_others(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot, or go on from one."""
        if self._fresh is None:
            self._fresh, self._silent = plain.marks(pl_module), _silent(trainer)
            if self._snapshot is not None:
                self._restore(trainer, pl_module, self._snapshot)
                self._snapshot = None
            return
        if self._keep is not None and on_one_device(trainer):  # others begin anew
            self._keep(partial(self._taken, trainer, pl_module, self._fresh))
        if self._observer.stopping:
            raise TrialInterrupted("the study is being stopped")

    def _taken(self, trainer: L.Trainer, module: L.LightningModule, fresh: plain.Marks) -> dict[str, Any]:
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        for name in _HPARAMS:
            checkpoint.pop(name, None)
        inexact = "; ".join(_inexact(trainer, self._silent))
        if inexact and _NOT_EXACT not in self._trained:
            self._trained = f"{self._trained}{_NOT_EXACT}{inexact}"
        return {
            "format": FORMAT,
            "trained": self._trained,
            "epoch": trainer.current_epoch,
            "lightning": checkpoint,
            "learns": {name: parameter.requires_grad for name, parameter in module.named_parameters()},
            "attributes": plain.changed(module, fresh),
            "validated": trainer.val_dataloaders is not None,
            "should_stop": trainer.should_stop,
            "metrics": [dict(metrics) for metrics in _metrics(trainer)],
            "generators": [generator.get_state() for generator in generators_of(_loaders(trainer))],
            "observer": self._observer.remember(),
            "random": random_state(),
            "devices": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def _restore(self, trainer: L.Trainer, module: L.LightningModule, snapshot: Snapshot) -> None:
        try:
            if snapshot["format"] != FORMAT:
                raise ValueError(f"its format is {snapshot['format']}, not {FORMAT}")
            _restore(trainer, module, snapshot)
            self._observer.recall(snapshot["observer"])
            restore_random(snapshot["random"])
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise SnapshotUnusable(f"{type(error).__name__}: {error}") from error


def _restore(trainer: Any, module: L.LightningModule, snapshot: Snapshot) -> None:
    if snapshot["validated"] and trainer.val_dataloaders is None:
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.training = True
    connector = trainer._checkpoint_connector
    connector._loaded_checkpoint = dict(snapshot["lightning"])
    connector.restore_model()
    connector.restore_datamodule()
    connector.restore_callbacks()
    connector.restore_training_state()
    connector._loaded_checkpoint = {}
    for loop in _loops(trainer.fit_loop):  # nothing is restarted: the run is where the other one was
        loop.restarting = loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(snapshot["learns"][name])
    plain.restore(module, snapshot["attributes"])
    for metrics, known in zip(_metrics(trainer), snapshot["metrics"], strict=True):
        metrics.update(known)
    trainer.should_stop = snapshot["should_stop"]
    for loader in _training_loaders(trainer):
        set_sampler_epoch(loader, trainer.fit_loop.epoch_progress.current.processed)
    for generator, state in zip(generators_of(_loaders(trainer)), snapshot["generators"], strict=True):
        generator.set_state(state)
    if snapshot["devices"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(snapshot["devices"])


def _leave_sigterm_to_others(trainer: Any) -> None:
    """Let a handler alone that was there before Lightning's."""
    before = trainer._signal_connector._original_handlers.get(signal.SIGTERM)
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _inexact(trainer: Any, silent: Mapping[L.Callback, Mapping[str, bytes] | None]) -> Iterator[str]:
    """What a run that goes on cannot bring back to the last bit."""
    loaders = _loaders(trainer)
    if any(getattr(loader, "num_workers", 0) and getattr(loader, "persistent_workers", False) for loader in loaders):
        yield "its loaders' workers persist and draw random numbers of their own"
    if any(isinstance(getattr(loader, "dataset", None), IterableDataset) for loader in loaders):
        yield "it reads an IterableDataset"
    if any(hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict") for loader in loaders):
        yield "its loader keeps a state"
    if trainer.reload_dataloaders_every_n_epochs:
        yield "trainer.reload_dataloaders_every_n_epochs is set"
    for callback, before in silent.items():
        if before is None or plain.marks_of(callback) != before:
            yield f"its callback {type(callback).__name__} has no state_dict"


def _silent(trainer: Any) -> dict[L.Callback, Mapping[str, bytes] | None]:
    """The callbacks that have no way to tell their state, with their attributes as they are."""
    return {
        callback: plain.marks_of(callback)
        for callback in trainer.callbacks
        if not type(callback).__module__.startswith(("lightning.", "pytorch_lightning.", "tuner."))
        and not is_overridden("state_dict", callback, parent=class_of(package_of(type(trainer)), "Callback"))
    }


def _metrics(trainer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    connector = trainer._logger_connector
    return connector._callback_metrics, connector._logged_metrics


def _loaders(trainer: Any) -> list[Any]:
    validation = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return _training_loaders(trainer) + ([] if validation is None else list(validation.flattened))


def _training_loaders(trainer: Any) -> list[Any]:
    return list(trainer.fit_loop._combined_loader.flattened)


def _loops(loop: Any) -> Iterator[Any]:
    """A loop and those within."""
    yield loop
    for inner in vars(loop).values():
        if hasattr(inner, "_loaded_from_state_dict"):
            yield from _loops(inner)
