"""Plain attributes of a module, such as counters: what a snapshot keeps beside the module's state."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tuner.training.package import class_of, package_of

Marks = Mapping[tuple[str, str], bytes]
"""By path of the submodule and name, what an attribute was at some time."""


def marks(module: nn.Module) -> Marks:
    """Mark the plain attributes as they are now."""
    return {(path, name): _mark(value) for path, name, value in _plain(module)}


def changed(module: nn.Module, before: Marks) -> list[tuple[str, str, Any]]:
    """The plain attributes that are others than before: path, name and value.

    What has not changed may belong to the process, such as the path of a temporary folder.
    """
    found = _plain(module)
    return [(path, name, value) for path, name, value in found if before.get((path, name)) != _mark(value)]


def restore(module: nn.Module, attributes: list[tuple[str, str, Any]]) -> None:
    """Give attributes the values they had; tensors in place, since others may look at them."""
    for path, name, value in attributes:
        owner = vars(module.get_submodule(path))
        now = owner.get(name)
        if isinstance(now, Tensor) and isinstance(value, Tensor) and now.shape == value.shape:
            with torch.no_grad():
                now.copy_(value)
        else:
            owner[name] = value


def marks_of(owner: object) -> Mapping[str, bytes] | None:
    """Mark the attributes of an object that is no module, or None if they are more than plain values."""
    found = vars(owner)
    return {name: _mark(value) for name, value in found.items()} if all(map(_is_plain, found.values())) else None


def _plain(module: nn.Module) -> Iterator[tuple[str, str, Any]]:
    internal = _internal(package_of(type(module)))
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if name not in internal and _is_plain(value):
                yield path, name, value


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is Tensor:
        return not value.requires_grad
    if kind in (list, tuple):
        return all(map(_is_plain, value))
    if kind is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return value is None or kind in (bool, int, float, str)


def _mark(value: Any) -> bytes:
    return pickle.dumps(value)


@lru_cache(maxsize=2)
def _internal(package: str) -> frozenset[str]:
    """What every module has, apart from its mode."""
    return frozenset(vars(class_of(package, "LightningModule")())) - {"training"} | {
        "_hparams",
        "_hparams_initial",
        "_hparams_name",
    }
