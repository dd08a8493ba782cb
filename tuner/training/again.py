"""Building from configurations that differ from one that was parsed in plain numbers only, without parsing again.

jsonargparse reads a configuration in tens of milliseconds, most of them to find that a number is one. Trials of a study
differ in little else.
"""

from __future__ import annotations

import copy
import inspect
import json
import types
from collections.abc import Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

import lightning as L

from tuner.training.package import package_of, part_of

PARTS = ("model", "data")
_PLAIN = (int, float, str, bool, type(None))
_NUMBERS = (int, float)


def form_of(config: Mapping[str, Any]) -> str | None:
    """What configurations have in common that differ in numbers only; None where numbers cannot be told apart.

    Args:
        config: `model`, `data` and others, as LightningCLI reads them.
    """
    if type(config.get("seed_everything")) is not int:
        return None
    form: dict[str, Any] = {k: v for k, v in config.items() if k not in (*PARTS, "trainer", "seed_everything")}
    for part in PARTS:
        described = config.get(part)
        if described is None:
            continue
        if not isinstance(described, Mapping) or not isinstance(described.get("init_args", {}), Mapping):
            return None
        arguments = described.get("init_args", {})
        marked = {
            name: type(value).__name__ if type(value) in _NUMBERS else [value] for name, value in arguments.items()
        }
        form[part] = {**described, "init_args": marked}
    return json.dumps(form, sort_keys=True, default=repr)


class Again:
    """Builds module and data from configurations of one form.

    Args:
        given: the one that was parsed.
        parsed: it, with every argument filled in.
        owners: the classes, by `model` and `data`.
    """

    def __init__(self, given: Mapping[str, Any], parsed: Mapping[str, Any], owners: Mapping[str, type]) -> None:
        self._parsed, self._owners = copy.deepcopy(dict(parsed)), owners
        self.works = all(self._is_plain(part, given[part]) for part in PARTS if given.get(part) is not None)

    def _is_plain(self, part: str, given: Mapping[str, Any]) -> bool:
        """Whether all arguments are plain values, and the numbers may be any number."""
        filled = self._parsed[part]
        arguments = filled.get("init_args", {})
        if filled.get("dict_kwargs") or part not in self._owners or not all(map(_plain, arguments.values())):
            return False
        numbers = {name: v for name, v in given.get("init_args", {}).items() if type(v) in _NUMBERS}
        return all(
            name in arguments and type(arguments[name]) is type(value) and arguments[name] == value
            for name, value in numbers.items()
        ) and all(_any_number(self._owners[part], name) for name in numbers)

    def filled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration of the form with every argument filled in."""
        filled = copy.deepcopy(self._parsed)
        filled["seed_everything"] = config["seed_everything"]
        for part in PARTS:
            if config.get(part) is not None:
                numbers = {n: v for n, v in config[part].get("init_args", {}).items() if type(v) in _NUMBERS}
                filled[part].get("init_args", {}).update(numbers)
        return filled

    def build(self, filled: Mapping[str, Any]) -> tuple[L.LightningModule, L.LightningDataModule | None]:
        """Module and data of a filled configuration, with hyperparameters as LightningCLI gives them."""
        built: dict[str, Any] = {}
        for part in PARTS:
            if filled.get(part) is None:
                continue
            arguments = filled[part].get("init_args", {})
            hparams = {"_class_path": filled[part]["class_path"], **arguments}
            package = package_of(self._owners[part])
            keeping = part_of(package, "core.mixins.hparams_mixin", "_given_hyperparameters_context")
            with keeping(hparams=hparams, instantiator=f"{package}.cli.instantiate_module"):
                built[part] = self._owners[part](**copy.deepcopy(arguments))
        return built["model"], built.get("data")


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    return type(value) in _PLAIN


def _any_number(owner: type, name: str) -> bool:
    """Whether an argument is annotated as taking any number of its type."""
    try:
        hint = get_type_hints(owner.__init__).get(name)  # type: ignore[misc]
    except (NameError, TypeError):
        return False
    if hint is None or name not in inspect.signature(owner).parameters:
        return False
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return all(kind in _PLAIN for kind in kinds)
