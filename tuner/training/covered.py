"""What the lean loop covers; all that is not named here goes to Lightning's Trainer, with the reason in words."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils._pytree import SUPPORTED_NODES
from torch.utils.data import IterableDataset

from tuner.training.blueprint import LEAN_TRAINER
from tuner.training.borrowed import is_overridden, is_param_in_hook_signature, select_auto_accelerator
from tuner.training.package import LIGHTNING, package_of


def uncovered(
    module: L.LightningModule, datamodule: L.LightningDataModule | None, arguments: Mapping[str, Any]
) -> str | None:
    """Why the lean loop does not cover a trial, or None. What shows only when it runs, it says itself.

    Args:
        module: the model.
        datamodule: the data, or None where the module has its own.
        arguments: all arguments of the Trainer.
    """
    return (
        _in_package(module, datamodule)
        or _in_process()
        or in_arguments(arguments)
        or _in_module(module)
        or _in_data(module, datamodule)
    )


# The Trainer's arguments

_FREE = frozenset(
    {
        "benchmark",
        "default_root_dir",
        "enable_autolog_hparams",  # without a logger
        "inference_mode",  # `fit` validates without it
        "limit_predict_batches",
        "limit_test_batches",
        "log_every_n_steps",
        "use_distributed_sampler",  # on one device
    }
)
"""Those that may have any value: they are passed on, or change nothing here."""

_SAME: Mapping[str, tuple[Any, ...]] = {
    "callbacks": ([],),
    "devices": ("1", "auto"),
    "plugins": ([],),
    "precision": (32, "32", "32-true"),
}
"""Values that mean the default."""


@lru_cache(maxsize=1)
def _auto_accelerator() -> str:
    return select_auto_accelerator()


def _limit(value: Any) -> bool:
    return type(value) is int and (value == -1 or value > 0)


def _share(value: Any) -> bool:
    """A part in (0, 1], or a whole number of batches."""
    return type(value) in (int, float) and (0 < value <= 1 or (value > 1 and value == int(value)))


_HEEDED: Mapping[str, Callable[[Any], bool]] = {
    "accelerator": lambda value: value == "cpu" or (value == "auto" and _auto_accelerator() == "cpu"),
    "check_val_every_n_epoch": lambda value: type(value) is int and value >= 1,
    "deterministic": lambda value: value in (True, False, "warn"),
    "gradient_clip_algorithm": lambda value: isinstance(value, str) and value.lower() in ("norm", "value"),
    "gradient_clip_val": lambda value: type(value) in (int, float) and math.isfinite(value),
    "limit_train_batches": _share,
    "limit_val_batches": _share,
    "max_epochs": _limit,
    "max_steps": _limit,
    "min_epochs": lambda value: type(value) is int and value >= 0,
    "min_steps": lambda value: type(value) is int and value >= 0,
    "val_check_interval": _share,
}
"""Those that the loop heeds, and for which values; where it has a default, for that as well."""


def in_arguments(arguments: Mapping[str, Any]) -> str | None:
    """Which of the Trainer's arguments the lean loop does not cover."""
    for name, value in arguments.items():
        if name in _FREE or (name in _HEEDED and _HEEDED[name](value)):
            continue
        if name == "accelerator" or not (value == _defaults()[name] or value in _SAME.get(name, ())):
            return f"trainer.{name} is {value!r}"
    return None


@lru_cache(maxsize=1)
def _defaults() -> Mapping[str, Any]:
    signature = inspect.signature(L.Trainer).parameters
    return {name: LEAN_TRAINER.get(name, parameter.default) for name, parameter in signature.items()}


# The process


def _in_process() -> str | None:
    """What around the trial changes what a Trainer does."""
    if any(name.startswith("PL_TRAINER_") for name in os.environ):
        return "the environment has variables PL_TRAINER_… for the Trainer"
    if _external_callbacks():
        return "an installed package adds callbacks to every Trainer"
    if SLURMEnvironment.detect():
        return "it runs in a SLURM job"
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "torch.distributed is initialised"
    if torch.get_default_dtype() is not torch.float32 or torch.get_default_device().type != "cpu":
        return f"torch's defaults are {torch.get_default_dtype()} and {torch.get_default_device()}"
    return None


@lru_cache(maxsize=1)
def _external_callbacks() -> bool:
    return bool(entry_points(group="lightning.pytorch.callbacks_factory"))


# The module and its data


def _in_package(module: L.LightningModule, datamodule: L.LightningDataModule | None) -> str | None:
    for what, each in (("module", module), ("data module", datamodule)):
        if each is not None and package_of(type(each)) != LIGHTNING:
            return f"its {what} is one of {package_of(type(each))}"
    return None


_NOT_OVERRIDDEN = ("log", "configure_callbacks", "configure_sharded_model", "trainer")
_NEEDED = ("training_step", "validation_step", "configure_optimizers")
_LEGACY = ("training_epoch_end", "validation_epoch_end")


def _in_module(module: L.LightningModule) -> str | None:
    if not module.automatic_optimization:
        return "it optimises manually"
    for name in _NEEDED:
        if not is_overridden(name, module):
            return f"it has no {name}"
    for name in _LEGACY:
        if callable(getattr(module, name, None)):
            return f"it has a {name}, which Lightning refuses"
    for name in _redefined(module):
        if name in _NOT_OVERRIDDEN or (name.startswith("_") and not name.endswith("__")):
            return f"it overrides {name}"
    for name in ("training_step", "validation_step"):
        if is_param_in_hook_signature(getattr(module, name), "dataloader_iter", explicit=True):
            return f"its {name} takes a dataloader_iter"
    if _is_compiled(module):
        return "it is compiled with torch.compile"
    return None if module._fabric is None else "it is used with Fabric"


def _redefined(module: L.LightningModule) -> Iterable[str]:
    """What the module defines that is Lightning's own; torch's own it may."""
    kinds = type(module).__mro__
    lightnings = kinds[kinds.index(L.LightningModule) :]
    known = {name for kind in lightnings if kind.__module__.startswith("lightning.") for name in vars(kind)}
    theirs = kinds[: kinds.index(L.LightningModule)]
    return [name for owner in (*theirs, module) for name in vars(owner) if name in known]


def _is_compiled(module: L.LightningModule) -> bool:
    steps = (getattr(module, name) for name in ("training_step", "validation_step", "forward"))
    return (
        module._compiler_ctx is not None
        or any(type(each).__name__ == "OptimizedModule" for each in module.modules())
        or any(hasattr(step, "_torchdynamo_orig_callable") for step in steps)
    )


def _in_data(module: L.LightningModule, datamodule: L.LightningDataModule | None) -> str | None:
    for name in ("train_dataloader", "val_dataloader"):
        if not is_overridden(name, module if datamodule is None else datamodule):
            return f"there is no {name}"
    return None


def in_loader(loader: Any, name: str) -> str | None:
    """Why the lean loop does not iterate over a loader, or None.

    Args:
        loader: one that a hook gave.
        name: of the hook.
    """
    if isinstance(loader, CombinedLoader | Mapping | list | tuple) or type(loader) in SUPPORTED_NODES:
        return f"its {name} gives a {type(loader).__name__} of loaders"
    try:
        length = len(loader)
    except (TypeError, NotImplementedError):
        return f"its {name} gives a loader without a length"
    if length == 0:
        return f"its {name} gives no batches"
    if isinstance(getattr(loader, "dataset", None), IterableDataset):
        return f"its {name} reads an IterableDataset"
    if getattr(loader, "num_workers", 0):
        return f"its {name} reads in worker processes"
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return f"its {name} gives a loader that keeps a state"
    return None
