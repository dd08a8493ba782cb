"""The first trial of a kind is tried out in miniature, by the lean loop and by the Trainer: are they alike?"""

from __future__ import annotations

import json
import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from tuner.training.blueprint import Blueprint, Parts
from tuner.training.checkpoint import checkpoint_of
from tuner.training.hooks import replaced
from tuner.training.lean import Lean
from tuner.training.observer import Observer
from tuner.training.rng import isolated_random, random_state, restore_random
from tuner.training.settings import Settings
from tuner.training.stand_in import NotLean
from tuner.trial import Objective, Verdict

MINIATURE: Mapping[str, Any] = {
    "max_epochs": 2,
    "min_epochs": None,
    "max_steps": -1,
    "min_steps": None,
    "limit_train_batches": 3,
    "limit_val_batches": 1,
    "val_check_interval": None,
    "check_val_every_n_epoch": 1,
}
"""Two epochs of three batches, each validated on one."""

_KNOWN: dict[Any, str | None] = {}
"""What was found for each kind of trial in this process: a reason against the lean loop, or None."""

_REFUSED: Counter[Any] = Counter()
"""How often trials of a kind were refused for what they do. Others of the kind may do without it, so they are tried."""

_PATIENCE = 3
"""After so many refusals the kind is not tried any more."""


def disagreement(blueprint: Blueprint, config: Mapping[str, Any], parts: Parts) -> str | None:
    """Why trials of this kind are not left to the lean loop, or None; found out once in a process.

    A kind is a class of modules with the hooks it has, a class of data, and what is asked of the trainer. tuner's own
    models on tuner's own data are not tried: tests do that.

    Args:
        blueprint: builds the miniatures.
        config: the trial's configuration.
        parts: what was built from it; they stay untouched, and so do the random generators.
    """
    if _is_ours(parts.module, "tuner.models.") and _is_ours(parts.datamodule, "tuner.data."):
        return None
    asked = config.get("trainer", {})
    kind = (
        type(parts.module),
        type(parts.datamodule),
        _hooks(parts.module, L.LightningModule),
        _hooks(parts.datamodule, L.LightningDataModule),
        json.dumps(asked, sort_keys=True, default=repr),
    )
    if kind not in _KNOWN:
        miniature = {**config, "trainer": {**asked, **MINIATURE}}
        try:
            with isolated_random(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _KNOWN[kind] = _compared(blueprint, miniature)
        except NotLean as refused:
            _REFUSED[kind] += 1
            if _REFUSED[kind] == _PATIENCE:
                _KNOWN[kind] = str(refused)
            return str(refused)
        except Exception as error:  # noqa: BLE001 - the user's code runs here; the Trainer will tell what is wrong
            return f"trying it out raised {type(error).__name__}: {error}"
    return _KNOWN[kind]


class Probe(Observer):
    """Notes what is logged when a validation and when an epoch ends, and reports nothing."""

    def __init__(self) -> None:
        super().__init__(Objective(""), None, lambda _: Verdict.GO_ON, lambda: False)
        self.seen: list[tuple[str, Any]] = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metrics."""
        self.note("after validation", trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metrics."""
        self.note("after an epoch", trainer.callback_metrics)

    def end(self, module: L.LightningModule) -> None:
        """Note the weights, and the random generators."""
        self.note("in the weights", module.state_dict())
        self.note("in the random numbers drawn", random_state())

    def note(self, where: str, values: Mapping[str, Any]) -> None:
        """Note values as they are now."""
        self.seen.append((where, {name: _bits(value) for name, value in values.items()}))


def _compared(blueprint: Blueprint, config: Mapping[str, Any]) -> str | None:
    """How the two ways differ in what they log, in weights, or in random numbers; None if they do not."""
    start = random_state()

    def run(train: Callable[[Probe], L.LightningModule]) -> Probe:
        restore_random(start)
        probe = Probe()
        probe.end(train(probe))
        return probe

    def lean(probe: Probe) -> L.LightningModule:
        parts = blueprint.parts(config)
        loop = Lean(parts.module, parts.datamodule, Settings.of(parts.arguments), probe)
        loop.fit()
        checkpoint_of(parts.module, parts.datamodule, 0, 0)  # its hook, too, may ask for more than is covered
        return parts.module

    def lightning(probe: Probe) -> L.LightningModule:
        built = blueprint.build(config, [probe])
        built.trainer.fit(built.module, datamodule=built.datamodule)
        return built.module

    ours = run(lean)
    difference = _difference(ours, run(lightning))
    if difference is None:
        return None
    if _difference(ours, run(lean)) is not None:
        return "it does not give the same numbers twice"
    return f"tried out, it differed from the Trainer {difference}"


def _difference(one: Probe, other: Probe) -> str | None:
    """Where two runs differ first."""
    if [where for where, _ in one.seen] != [where for where, _ in other.seen]:
        return "in the order of epochs and validations"
    for (where, ours), (_, theirs) in zip(one.seen, other.seen, strict=True):
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                return f"{where}: {name}"
    return None


def _bits(value: Any) -> Any:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return value.dtype, tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001 - a module may keep anything in its state
        return type(value)


def _is_ours(each: object, package: str) -> bool:
    return type(each).__module__.startswith(package)


def _hooks(owner: Any, base: type) -> frozenset[str]:
    """The methods of a base class that an instance has its own of."""
    names = (name for kind in base.__mro__ if kind.__module__.startswith("lightning.") for name in vars(kind))
    methods = {name for name in names if callable(getattr(base, name)) and not name.startswith("__")}
    return frozenset(name for name in methods if owner is not None and replaced(owner, base, name))
