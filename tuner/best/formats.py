"""A configuration in the forms that other programs read: LightningCLI's, and Hydra's."""

from __future__ import annotations

import copy
import importlib
import inspect
import types
from collections.abc import Callable as Called
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

ONE_DEVICE = {"devices": 1}
"""A trial trains on one device; Lightning's own default is all of them, which would multiply the batch."""


def lightning_cli(config: Mapping[str, Any], *, fixed_classes: bool = False) -> dict[str, Any]:
    """A configuration for `python main.py fit --config`.

    Args:
        config: `seed_everything`, `model`, `data` and `trainer`, complete.
        fixed_classes: leave `class_path` out, for a program that names its classes itself.
    """
    made = copy.deepcopy(dict(config))
    made["trainer"] = {**ONE_DEVICE, **made.get("trainer", {})}
    for part in ("model", "data") if fixed_classes else ():
        if described := made.get(part):
            made[part] = {**described.get("init_args", {}), **described.get("dict_kwargs", {})}
    return made


def hydra(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as a tree of `_target_`, which `hydra.utils.instantiate` makes module, data and trainer of.

    The classes are imported, because only their signatures say which arguments are built later, by the module itself
    (an optimiser, which needs the parameters): those are `_partial_`.

    Args:
        config: `seed_everything`, `model`, `data` and `trainer`, complete.
    """
    trainer = {"class_path": "lightning.Trainer", "init_args": {**ONE_DEVICE, **config.get("trainer", {})}}
    parts = {part: config[part] for part in ("model", "data") if config.get(part)}
    tree: dict[str, Any] = {"seed_everything": config.get("seed_everything", 0)}
    for name, described in {**parts, "trainer": trainer}.items():
        target, *arguments = _target(described).items()
        tree[name] = dict([target, ("_convert_", "all"), *arguments])  # lists as lists: checkpoints keep them
    return tree


def _target(described: Mapping[str, Any], later: bool = False) -> dict[str, Any]:
    """The node of a class: an object, or with `later` what makes one."""
    owner = imported(described["class_path"])
    given = {**described.get("init_args", {}), **described.get("dict_kwargs", {})}
    node: dict[str, Any] = {"_target_": described["class_path"]}
    if later:
        node["_partial_"] = True
    return node | {name: _value(value, _hint(owner, name)) for name, value in given.items()}


def _value(value: Any, hint: Any) -> Any:
    """An argument, as Hydra passes it on as the type that its hint asks for."""
    if isinstance(value, Mapping) and "class_path" in value:
        return _target(value, later=_is_made_later(value, hint))
    if isinstance(value, Mapping):
        return {key: _value(inner, None) for key, inner in value.items()}
    if isinstance(value, list):
        inside = [_value(inner, _inner(hint)) for inner in value]
        return {"_target_": "builtins.tuple", "_args_": [inside]} if _asks_for(hint, tuple) else inside
    if isinstance(value, str):
        if (_asks_for(hint, Called) or _asks_for(hint, type)) and callable(found := _found(value)):
            return {"_target_": f"hydra.utils.get_{'class' if isinstance(found, type) else 'method'}", "path": value}
        if _asks_for(hint, Path):
            return {"_target_": "pathlib.Path", "_args_": [value]}
        return value.replace("${", "\\${")  # an interpolation otherwise
    return value


def _is_made_later(described: Mapping[str, Any], hint: Any) -> bool:
    """Whether a class is described for the module to make objects of, rather than one to be given."""
    owner = imported(described["class_path"])
    if not isinstance(owner, type) or not _asks_for(hint, Called):
        return False
    return not any(isinstance(kind, type) and issubclass(owner, kind) for kind in _kinds(hint))


def imported(path: str) -> Any:
    """What a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _found(path: str) -> Any:
    """What a dotted path names, or None."""
    try:
        return imported(path)
    except (ImportError, AttributeError, ValueError):
        return None


def _hint(owner: Any, name: str) -> Any:
    """The type hint of an argument of a class, whichever of its bases takes it; or of a function."""
    for base in owner.__mro__ if isinstance(owner, type) else (owner,):
        takes = base.__dict__.get("__init__") if isinstance(base, type) else base
        if callable(takes) and name in inspect.signature(takes).parameters:
            try:
                return get_type_hints(takes).get(name)
            except (NameError, TypeError):  # a hint that cannot be read says nothing
                return None
    return None


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _inner(hint: Any) -> Any:
    """The hint of a list's entries."""
    lists = [kind for kind in _kinds(hint) if get_origin(kind) is list]
    return get_args(lists[0])[0] if lists else None


def _asks_for(hint: Any, kind: Any) -> bool:
    """Whether a hint, or one of its alternatives, is a kind of type."""
    return any(alternative is kind or get_origin(alternative) is kind for alternative in _kinds(hint))
