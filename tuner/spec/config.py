"""From searched values to the configuration of one trial, in LightningCLI's form.

A config path is LightningCLI's short form: `model.learning_rate` stands for `model.init_args.learning_rate`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


def place(config: dict[str, Any], path: str, value: Any) -> None:
    """Set `path` in `config`, going through `init_args` wherever a class is described."""
    *parents, last = path.split(".")
    node = config
    for part in parents:
        arguments = _arguments(node, part)
        if arguments is not node and isinstance(arguments.get(part), str):
            arguments[part] = {"class_path": arguments[part]}  # a class without arguments, written short
        node = arguments.setdefault(part, {})
    _arguments(node, last)[last] = value


def at_path(config: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """The value at a short or long path, or `missing`."""
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping):
            return missing
        if part not in node and isinstance(node.get("init_args"), Mapping):
            node = node["init_args"]
        if part not in node:
            return missing
        node = node[part]
    return node


def trial_config(base: Mapping[str, Any], params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The configuration of one trial: what all have in common, the searched values, and its seed."""
    config = copy.deepcopy(dict(base))
    for path in sorted(params, key=lambda path: not path.endswith(".class_path")):  # classes before their arguments
        above = at_path(config, path.removesuffix(".class_path"))
        if path.endswith(".class_path") and isinstance(above, dict) and above.get("class_path") != params[path]:
            above.clear()  # the arguments were another class's
        place(config, path, params[path])
    config["seed_everything"] = seed
    return config


def _arguments(node: dict[str, Any], part: str) -> dict[str, Any]:
    if "class_path" in node and part not in ("class_path", "init_args", "dict_kwargs"):
        arguments: dict[str, Any] = node.setdefault("init_args", {})
        return arguments
    return node
