"""Lightning has two names, `lightning.pytorch` and `pytorch_lightning`, and each has classes of its own.

A module is trained by the Trainer of the package that it comes from. Data modules, and tuner's own callbacks, may come
from the other one: they are given to that Trainer in an object of its package, which passes its hooks on.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from inspect import getattr_static
from typing import Any

import lightning as L

from tuner.errors import Problem
from tuner.training.borrowed import MisconfigurationException

LIGHTNING, PYTORCH_LIGHTNING = "lightning.pytorch", "pytorch_lightning"


def package_of(owner: type) -> str:
    """The package that a class of modules, data modules, callbacks or trainers comes from."""
    ancestors = {kind.__module__.partition(".")[0] for kind in owner.__mro__}
    return PYTORCH_LIGHTNING if PYTORCH_LIGHTNING in ancestors and not issubclass(owner, _BASES) else LIGHTNING


_BASES = (L.LightningModule, L.LightningDataModule, L.Callback, L.Trainer)


def either(base: type) -> tuple[type, ...]:
    """A class of Lightning, and the one of that name in the other package if somebody has imported that."""
    twin = getattr(sys.modules.get(PYTORCH_LIGHTNING), base.__name__, None)
    return (base,) if twin is None else (base, twin)


def class_of(package: str, name: str) -> type:
    """A class by its name, such as `Trainer`."""
    found: type = getattr(importlib.import_module(package), name)
    return found


def part_of(package: str, module: str, name: str) -> Any:
    """What a package has somewhere inside, such as `cli.instantiate_module`."""
    return getattr(importlib.import_module(f"{package}.{module}"), name)


def misconfigured(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What the trainers raise whose arguments do not go together, and others."""
    name = "lightning_fabric.utilities.exceptions"
    twin = getattr(sys.modules.get(name), "MisconfigurationException", None)
    found: list[type[Exception]] = [MisconfigurationException, *others]
    return tuple(found if twin is None else [*found, twin])


def mixed(trainer: Mapping[str, Any], package: str) -> list[Problem]:
    """What a study gives a Trainer that comes from the other package, which nobody can use.

    Args:
        trainer: the Trainer's arguments, as the study file has them.
        package: the one that the model comes from.
    """
    other = PYTORCH_LIGHTNING if package == LIGHTNING else LIGHTNING
    problems = []
    for name, value in trainer.items():
        for each in value if isinstance(value, list) else [value]:
            path = each.get("class_path") if isinstance(each, Mapping) else each
            if isinstance(path, str) and (owner := _owner(path)) is not None and package_of(owner) != package:
                rule = (
                    f"must come from {package}, as the model does, but {path} comes from {other}, whose classes are "
                    f"others. Name the one of {package}, or import {other} in the model's module."
                )
                problems.append(Problem(f"trainer.{name}", rule))
    return problems


def _owner(path: str) -> type | None:
    """The class at a path, if it is one of Lightning's family."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:  # the check of its own says so
        return None
    bases = tuple(twin for base in _BASES for twin in either(base))
    return found if isinstance(found, type) and issubclass(found, bases) else None


def adapted(inner: Any, kind: str, package: str) -> Any:
    """An object that may be given to a package's Trainer: itself where it comes from there, else one that passes on.

    Args:
        inner: a callback or a data module.
        kind: `Callback` or `LightningDataModule`.
        package: of the Trainer.
    """
    if inner is None or isinstance(inner, class_of(package, kind)):
        return inner
    owner: Any = type(inner)
    theirs: Any = class_of(package_of(owner), kind)
    base: Any = class_of(package, kind)
    own = (name for name in dir(base) if hasattr(theirs, name) and not name.startswith("_"))
    hooks = tuple(name for name in own if getattr_static(inner, name) is not getattr_static(theirs, name))
    return _adapter(owner, base, hooks)(inner)


@lru_cache(maxsize=64)
def _adapter(owner: Any, base: Any, hooks: tuple[str, ...]) -> type:
    """A package's class with the hooks that a class of the other package has of its own."""

    def begin(self: Any, inner: Any) -> None:
        self.__dict__["inner"] = inner
        base.__init__(self)

    def inherited(self: Any, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)

    def trainer_of(self: Any) -> Any:
        return self.inner.trainer

    def begin_with(self: Any, trainer: Any) -> None:
        self.inner.trainer = trainer

    def passing(name: str) -> Any:
        if getattr(owner, name) is None:  # a hook that is switched off
            return None
        return lambda self, *args, **kwargs: getattr(self.inner, name)(*args, **kwargs)

    members = {name: passing(name) for name in hooks}
    extra = {"trainer": property(trainer_of, begin_with)} if issubclass(owner, either(L.LightningDataModule)) else {}
    own = {"__init__": begin, "__getattr__": inherited, "__module__": __name__, "__doc__": f"Passes on to {owner}."}
    return type(owner.__name__, (base,), members | extra | own)
