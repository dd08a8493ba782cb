"""What can only be checked with the user's classes at hand: do they exist, and do they take these arguments?"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect as inspection
import pkgutil
import re
import traceback
from collections.abc import Mapping
from typing import Any

import lightning as L
from jsonargparse import ArgumentError, ArgumentParser

from tuner.data import InMemory
from tuner.errors import DataError, Problem, TunerError, did_you_mean
from tuner.models import Network
from tuner.space import Choice, Parameter, Space
from tuner.spec import FUNCTION, trial_config
from tuner.training.advice import advise
from tuner.training.blueprint import Blueprint, quiet_lightning
from tuner.training.package import LIGHTNING, class_of, either, misconfigured, mixed, package_of
from tuner.training.strategy import unshared
from tuner.training.trying import refused, refused_by_space

_TOLD = 10
"""Problems of a data file that are told one by one."""

_REQUIRED = "the following arguments are required"
_BASES: Mapping[str, type] = {"model": L.LightningModule, "data": L.LightningDataModule}


def inspect(document: Mapping[str, Any], space: Space | None) -> list[Problem]:
    """Check a study's classes, their arguments, and that the space names arguments they have.

    Args:
        document: the study file as read, which may have other problems.
        space: the space, unless it has problems itself.

    Returns:
        Every problem found, each with its path; if there is none, what to be warned of.
    """
    quiet_lightning()
    if (document.get("search") or {}).get("training") == FUNCTION:
        from tuner.training.function import inspect_function  # which needs what is here

        return inspect_function(document)
    problems: list[Problem] = []
    signatures: dict[str, Signature] = {}
    for part, base in _BASES.items():
        described = document.get(part)
        if not isinstance(described, dict) or not isinstance(described.get("class_path"), str):
            continue
        found, wrong = import_class(described["class_path"], base, f"{part}.class_path")
        problems += wrong
        if found is not None:
            signatures[part] = Signature(found)
            given = described.get("init_args") or {}
            if isinstance(given, dict):
                problems += signatures[part].problems(given, f"{part}.init_args")
    package = package_of(signatures["model"].owner) if "model" in signatures else LIGHTNING
    signatures["trainer"] = Signature(class_of(package, "Trainer"))
    if isinstance(document.get("trainer"), dict):
        foreign = mixed(document["trainer"], package)
        problems += foreign
        told = {problem.path for problem in foreign}
        asked = {name: value for name, value in document["trainer"].items() if f"trainer.{name}" not in told}
        problems += signatures["trainer"].problems(asked, "trainer")
    if space is not None:
        for path, parameter in space.parameters.items():
            problems += _searched(path, parameter, signatures, document)
    built = {part: signature.owner for part, signature in signatures.items()}
    if problems:
        return problems
    given = {part: document.get(part, {}).get("init_args") or {} for part in _BASES}
    for part in _BASES.keys() & built.keys():
        problems += refused(built[part], given[part], f"{part}.init_args")
    if space is not None and not problems:
        problems += refused_by_space(built, given, space)
    return problems or _as_a_whole(document, space, built)


def import_class(class_path: str, base: type, at: str) -> tuple[type | None, list[Problem]]:
    """Import the class at a dotted path; a mistake is a problem with a suggestion."""
    found, problems = import_named(class_path, at)
    if problems:
        return None, problems
    if not (isinstance(found, type) and issubclass(found, either(base))):
        hint = " A plain function wants search.training: function." if inspection.isroutine(found) else ""
        rule = f"{class_path} must be a lightning {base.__name__}, but it is {_kind(found)}.{hint}"
        return None, [Problem(at, rule)]
    return found, []


def import_named(class_path: str, at: str) -> tuple[Any, list[Problem]]:
    """Import what a dotted path names in a module; a mistake is a problem with a suggestion."""
    module_name, _, name = class_path.rpartition(".")
    if not module_name or "" in class_path.split("."):
        return None, [Problem(at, f"must be package.module.Class, but got {class_path!r}.")]
    try:
        missing = _first_missing(module_name)
        if missing is not None:
            hint = did_you_mean(missing, _neighbours(missing))
            more = hint or " Run tuner from the folder that holds it, or install it."
            return None, [Problem(at, f"no module {missing!r}.{more}")]
        module = importlib.import_module(module_name)
    except Exception as error:  # noqa: BLE001 - the user's module runs here and may raise anything
        return None, [Problem(at, f"importing {module_name} raised {type(error).__name__}: {error}")]
    found = getattr(module, name, None)
    if found is None and _is_module(class_path):
        return None, [Problem(at, f"{class_path} is a module. Name a class in it: {class_path}.ClassName")]
    if found is None:
        return None, [Problem(at, f"{module_name} has no {name!r}.{did_you_mean(name, dir(module))}")]
    return found, []


class Signature:
    """The arguments a class takes, with their types, as LightningCLI sees them."""

    def __init__(self, owner: type) -> None:
        self.owner = owner
        self._parser = ArgumentParser(exit_on_error=False)
        added = self._parser.add_class_arguments(owner, "of", fail_untyped=False, sub_configs=True)
        self.names = [name.removeprefix("of.").split(".")[0] for name in added]

    def problems(self, arguments: Mapping[str, Any], at: str) -> list[Problem]:
        """The problems of some arguments: unknown names, values of another type."""
        return [problem for name, value in arguments.items() for problem in self.check(name, value, f"{at}.{name}")]

    def check(self, name: str, value: Any, at: str) -> list[Problem]:
        """The problems of one argument."""
        if name not in self.names:
            more = did_you_mean(name, self.names) or f" It takes: {', '.join(self.names)}."
            return [Problem(at, f"{self.owner.__name__} has no argument {name!r}.{more}")]
        try:
            self._parser.parse_object({"of": {name: copy.deepcopy(value)}})  # the parser writes into what it is given
        except (ArgumentError, ValueError, TypeError) as error:
            if _REQUIRED not in str(error):  # the others are not given here on purpose
                return [Problem(at, _reason(error, value))]
        return []


def _searched(
    path: str, parameter: Parameter, signatures: Mapping[str, Signature], document: Mapping[str, Any]
) -> list[Problem]:
    root, *names = path.split(".")
    at = f"space.{path}"
    if root not in signatures:
        missing = root == "data" and "data" not in document
        return [Problem(at, "the study has no `data` to set this on.")] if missing else []
    if names[0] in ("init_args", "dict_kwargs"):
        return [Problem(at, f"leave {names[0]} out: write {'.'.join([root, *names[1:]])}.")]
    choice = parameter.range
    values = choice.values if isinstance(choice, Choice) else [choice.low, choice.high]
    if len(names) > 1:
        return [] if names[0] in signatures[root].names else signatures[root].check(names[0], None, at)
    for value in values:
        if problems := signatures[root].check(names[0], value, at):
            return problems
    return []


def _as_a_whole(document: Mapping[str, Any], space: Space | None, built: Mapping[str, type]) -> list[Problem]:
    """Build the default configuration as a trial will: finds what single arguments cannot show."""
    if space is None or not isinstance(document.get("model"), dict) or "class_path" not in document["model"]:
        return []
    base = {key: document[key] for key in ("model", "data", "trainer") if key in document}
    config = trial_config(base, space.default_params(), 0)
    try:
        blueprint = Blueprint(config)
    except (ArgumentError, ValueError, TypeError) as error:
        return [Problem(_named_in(str(error), built), _reason(error, None))]
    try:
        default = blueprint.build(config, callbacks=[])
        if isinstance(default.module, Network) and isinstance(default.datamodule, InMemory):
            default.module.take_shapes(default.datamodule)
    except misconfigured(ValueError, TypeError) as error:
        cause = _origin(error)
        if isinstance(cause, DataError):
            return _of_data(cause)
        return [Problem(_raised_by(cause, built), str(cause))]
    if (wrong := unshared(default.trainer)) is not None:
        return [wrong]
    return advise(document, space, default.module, default.datamodule)


def _of_data(error: DataError) -> list[Problem]:
    """The first problems of a data file, and how many more there are: a whole column may be wrong."""
    told = [Problem("data", f"{error.source}: {p.path}: {p.message}") for p in error.problems[:_TOLD]]
    more = len(error.problems) - len(told)
    return [*told, Problem("data", f"{error.source}: {more} more problems like these.")] if more else told


def _named_in(text: str, built: Mapping[str, type]) -> str:
    """The part of the study that jsonargparse complains of, by its key or by its class."""
    for part, owner in built.items():
        if f'Parser key "{part}' in text or owner.__name__ in text:
            return part
    return "(the file)"


def _origin(error: BaseException) -> BaseException:
    """The error that a constructor raised, below those that jsonargparse wrapped around it."""
    while not isinstance(error, TunerError) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _raised_by(error: BaseException, built: Mapping[str, type]) -> str:
    """The part of the study whose constructor raised the error."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = type(frame.f_locals.get("self"))
        for part, found in built.items():
            if owner is found:
                return part
    return "trainer" if isinstance(error, misconfigured()) else _named_in(str(error), built)


def _reason(error: Exception, value: Any) -> str:
    """One sentence from jsonargparse's paragraph."""
    text = str(error)
    expected = re.search(r"Expected an? <class '(?!NoneType)([\w.]+)'>", text)
    if expected and value is not None:
        return f"must be {expected[1].replace('str', 'text')}, but got {value!r}."
    if _REQUIRED in text:
        names = text.partition(_REQUIRED)[2].strip(": ").splitlines()[0]
        return f"needs {names}. Set it under init_args, or search it in the space."
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "not accepted" in line or "Problem" in line), lines[0] if lines else text)
    return f"{told} (got {value!r})." if value is not None else told


def _first_missing(module_name: str) -> str | None:
    """The shortest prefix of a dotted module name that cannot be found."""
    parts = module_name.split(".")
    for end in range(1, len(parts) + 1):
        prefix = ".".join(parts[:end])
        try:
            found = importlib.util.find_spec(prefix)
        except ModuleNotFoundError:  # what is above it is a module, not a package
            return prefix
        if found is None:
            return prefix
    return None


def _neighbours(module_name: str) -> list[str]:
    parent, _, _ = module_name.rpartition(".")
    path = getattr(importlib.import_module(parent), "__path__", []) if parent else None
    return [f"{parent}.{m.name}" if parent else m.name for m in pkgutil.iter_modules(path)]


def _is_module(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except ModuleNotFoundError:
        return False


def _kind(found: Any) -> str:
    return f"the class {found.__qualname__}" if isinstance(found, type) else f"a {type(found).__name__}"
