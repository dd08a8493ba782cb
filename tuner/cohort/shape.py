"""What trials must have in common to be trained in one pass: their shape."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any

import lightning as L
from torch import nn
from torch.optim import Optimizer

from tuner.cohort.rows import Groups

_PLAIN = (bool, int, str, type(None))


def groups_of(module: nn.Module, optimizer: Optimizer) -> Groups:
    """The names of the parameters that an optimiser trains, by its groups; without those that are frozen."""
    names = {id(parameter): name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return tuple(tuple(names[id(p)] for p in group["params"] if id(p) in names) for group in optimizer.param_groups)


def shape_of(
    module: L.LightningModule, optimizer: Optimizer, loader: Any, trainer: Mapping[str, Any], agreed: frozenset[str]
) -> Hashable:
    """Equal for trials that may be trained in one pass.

    Layers agree in their kinds, whole numbers, words and switches; other numbers of a layer, and whatever the module
    itself keeps, may differ until a step is found to read it (`agreed`).

    Args:
        module: the trial's, built.
        optimizer: its own.
        loader: its training batches.
        trainer: its trainer arguments.
        agreed: attributes and hyperparameters of the module that a step reads and that are no numbers.
    """
    layers = tuple(
        (path, type(layer), _plain(layer) if path else None)
        for path, layer in module.named_modules(remove_duplicate=False)
    )
    tensors = tuple(
        (name, tensor.shape, tensor.dtype, tensor.requires_grad)
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    )
    said = tuple(sorted((name, repr(_said(module, name))) for name in agreed))
    batches = (type(loader), len(loader), *(getattr(loader, name, None) for name in ("batch_size", "rows", "steps")))
    asked = json.dumps({k: v for k, v in trainer.items() if k != "gradient_clip_val"}, sort_keys=True, default=repr)
    return type(module), layers, tensors, type(optimizer), groups_of(module, optimizer), said, batches, asked


def _plain(layer: nn.Module) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, value)
        for name, value in sorted(layer.__dict__.items())
        if isinstance(value, _PLAIN) and name != "training"
    )


def _said(module: L.LightningModule, name: str) -> Any:
    return module.hparams[name] if name in module.hparams else getattr(module, name, None)
