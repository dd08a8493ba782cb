"""All of a trial between two epochs, from which another process goes on to the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tuner.training import plain
from tuner.training.rng import random_state, restore_random

if TYPE_CHECKING:
    from tuner.training.lean import Lean

Snapshot = Mapping[str, Any]
"""What `torch.save` writes and `torch.load(weights_only=True)` reads back."""

FORMAT = 2


class SnapshotUnusable(Exception):
    """A snapshot does not fit the trial."""


def known_epochs(snapshot: Snapshot | None) -> int:
    """The last epoch that was reported before a snapshot, or 0."""
    last = None if snapshot is None else snapshot["observer"]["last"]
    return 0 if last is None else int(last["epoch"])


def seconds_of(snapshot: Snapshot | None) -> float:
    """What the epochs up to a snapshot took."""
    return 0.0 if snapshot is None else float(snapshot["observer"]["seconds"])


def trained_by(trained: str, snapshot: Snapshot | None) -> str:
    """How a trial was trained, in words, if that has changed at a snapshot."""
    if snapshot is None or snapshot["trained"] == trained:
        return trained
    return f"{trained}; up to epoch {snapshot['epoch']}: {snapshot['trained']}"


def snapshot_of(loop: Lean, before: plain.Marks, trained: str = "lean") -> dict[str, Any]:
    """A loop's state after an epoch. It shares tensors with the loop, so write it down before that goes on.

    Args:
        loop: the one.
        before: the module's plain attributes as they were before the first epoch; those that have changed are kept.
        trained: how the epochs were trained up to here, in words.
    """
    checkpoint = {"state_dict": loop.module.state_dict()}
    loop.hooks.call("on_save_checkpoint", checkpoint)
    return {
        "format": FORMAT,
        "trained": trained,
        "epoch": loop.trainer.current_epoch,
        "processed": loop.processed,
        "global_step": loop.trainer.global_step,
        "checkpoint": checkpoint,
        "learns": {name: parameter.requires_grad for name, parameter in loop.module.named_parameters()},
        "attributes": plain.changed(loop.module, before),
        "data": loop.hooks.call_data("state_dict") or {},
        "optimizer": loop.optimisation.optimizer.state_dict(),
        "schedules": [config.scheduler.state_dict() for config in loop.optimisation.schedules],
        "validated": bool(loop.validation.loaders),
        "should_stop": loop.trainer.should_stop,
        "generators": [generator.get_state() for generator in _generators(loop)],
        "metrics": loop.recorder.state_dict(),
        "observer": loop.observer.remember(),
        "random": random_state(),
    }


def go_on_from(loop: Lean, snapshot: Snapshot) -> None:
    """Bring a loop that has not trained yet to where another one was.

    Raises:
        SnapshotUnusable: it does not fit. The loop cannot be used after that.
    """
    try:
        if snapshot["format"] != FORMAT:
            raise ValueError(f"its format is {snapshot['format']}, not {FORMAT}")
        _restore(loop, snapshot)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise SnapshotUnusable(f"{type(error).__name__}: {error}") from error


def _restore(loop: Lean, snapshot: Snapshot) -> None:
    if snapshot["validated"]:
        loop.validation.load()
    loop.hooks.call("on_load_checkpoint", snapshot["checkpoint"])
    loop.module.load_state_dict(snapshot["checkpoint"]["state_dict"])
    for name, parameter in loop.module.named_parameters():
        parameter.requires_grad_(snapshot["learns"][name])
    plain.restore(loop.module, snapshot["attributes"])
    if snapshot["data"]:
        loop.hooks.call_data("load_state_dict", snapshot["data"])
    loop.optimisation.optimizer.load_state_dict(snapshot["optimizer"])
    for config, state in zip(loop.optimisation.schedules, snapshot["schedules"], strict=True):
        config.scheduler.load_state_dict(state)
    for generator, state in zip(_generators(loop), snapshot["generators"], strict=True):
        generator.set_state(state)
    loop.recorder.load_state_dict(snapshot["metrics"])
    loop.observer.recall(snapshot["observer"])
    loop.processed = snapshot["processed"]
    counted = {"current_epoch": "epoch", "global_step": "global_step", "should_stop": "should_stop"}
    vars(loop.trainer).update({name: snapshot[key] for name, key in counted.items()})
    restore_random(snapshot["random"])


def _generators(loop: Lean) -> list[torch.Generator]:
    return generators_of([loop.trainer.train_dataloader, *loop.validation.loaders])


def generators_of(loaders: Iterable[Any]) -> list[torch.Generator]:
    """The generators that loaders have for themselves."""
    owners = [owner for loader in loaders for owner in (loader, getattr(loader, "sampler", None))]
    found = {
        id(each): each for owner in owners if isinstance(each := getattr(owner, "generator", None), torch.Generator)
    }
    return list(found.values())
