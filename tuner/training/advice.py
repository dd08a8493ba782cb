"""What a study may do and seldom should: warnings of the check (documented.md §5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuner.errors import Problem
from tuner.models import LanguageModel
from tuner.space import Choice, Space
from tuner.spec.config import at_path

SMALL_BATCH = 8


def advise(
    document: Mapping[str, Any], space: Space, module: L.LightningModule, data: L.LightningDataModule | None
) -> list[Problem]:
    """Warn of batch normalisation in small batches and in recurrent networks, and of steps that never come.

    Args:
        document: the study file as read.
        space: what is searched.
        module: the model of the default configuration.
        data: the data of the default configuration.
    """
    return [*_of_batch_norm(document, space, module, data), *_of_steps(document, space, module)]


def _of_steps(document: Mapping[str, Any], space: Space, module: L.LightningModule) -> list[Problem]:
    """A learning rate that would be lowered after the last epoch only."""
    chosen = [at for at, value in _possible("model.lr_schedule", document, space, module) if value == "step"]
    epochs = at_path(document, "trainer.max_epochs")
    (_, stair), *_ = _possible("model.lr_step", document, space, module)
    if not chosen or not _is_number(epochs) or not _is_number(stair) or not 0 < epochs <= stair:
        return []
    advice = (
        f"'step' lowers the rate every {stair} epochs, but a trial has {epochs}. Set model.init_args.lr_step lower."
    )
    return [Problem(chosen[0], advice, warning=True)]


def _of_batch_norm(
    document: Mapping[str, Any], space: Space, module: L.LightningModule, data: L.LightningDataModule | None
) -> list[Problem]:
    at = next((at for at, value in _possible("model.norm", document, space, module) if value == "batch"), None)
    if at is None and any(isinstance(layer, _BatchNorm) for layer in module.modules()):
        at = "model"
    if at is None:
        return []
    warnings = []
    if isinstance(module, LanguageModel) or any(isinstance(layer, nn.RNNBase) for layer in module.modules()):
        advice = "batch normalisation in a recurrent network mixes sequences and steps. Use layer normalisation."
        warnings.append(Problem(at, advice, warning=True))
    sizes = [(size, where) for where, size in _possible("data.batch_size", document, space, data) if _is_number(size)]
    smallest, where = min(sizes, default=(SMALL_BATCH, ""))
    if smallest < SMALL_BATCH:
        advice = (
            f"batch normalisation with batches of {smallest} has poor statistics (below {SMALL_BATCH}). "
            f"Use layer or group normalisation, or larger batches."
        )
        warnings.append(Problem(where, advice, warning=True))
    return warnings


def _possible(path: str, document: Mapping[str, Any], space: Space, owner: Any) -> list[tuple[str, Any]]:
    """The values that a trial may have at a path, each with the place in the study file that says so."""
    if path in space.parameters:
        ranged = space.parameters[path].range
        values = ranged.values if isinstance(ranged, Choice) else [ranged.low, ranged.high]
        return [(f"space.{path}", value) for value in values]
    given = at_path(document, path)
    if given is not None:
        return [(path, given)]
    name = path.rpartition(".")[2]
    hyperparameters: Mapping[str, Any] = getattr(owner, "hparams", {})
    return [(path, hyperparameters[name] if name in hyperparameters else getattr(owner, name, None))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
