"""Trying values on tuner's own classes, which check their arguments at birth: all the wrong ones at once.

A user's class is not tried out: nobody knows what its constructor does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.data import InMemory
from tuner.errors import DataError, Problem, SpecError, TunerError
from tuner.models import Network
from tuner.space import Choice, Space

Arguments = Mapping[str, Any]


def refused(owner: type, given: Arguments, at: str) -> list[Problem]:
    """The given arguments that the class refuses, each tried without the others.

    Args:
        owner: the class.
        given: its arguments.
        at: their path in the study file.
    """
    if not issubclass(owner, Network | InMemory):
        return []
    needed = _needed(owner, given)
    if (wrong := _refusal(owner, needed)) is not None:
        return [Problem(at, wrong)]
    problems = []
    for name, value in given.items():
        if name not in needed and (wrong := _refusal(owner, needed | {name: value})) is not None:
            problems.append(Problem(f"{at}.{name}", wrong))
    return problems


def refused_by_space(owners: Mapping[str, type], given: Mapping[str, Arguments], space: Space) -> list[Problem]:
    """The values of a space that the class refuses whose argument they are, with the others at their defaults.

    Args:
        owners: the classes, by `model` and `data`.
        given: the arguments that the study file gives them.
        space: what is searched.
    """
    problems = []
    for path, values in _tried(space):
        root, _, name = path.partition(".")
        owner = owners.get(root)
        if owner is None or "." in name or not issubclass(owner, Network | InMemory):
            continue
        for value, params in values:
            searched = {at.partition(".")[2]: v for at, v in params.items() if at.startswith(f"{root}.")}
            wrong = _refusal(owner, {**given.get(root, {}), **searched, name: value})
            if wrong is not None:
                problems.append(Problem(f"space.{path}", f"{value!r} is among its values: {wrong}"))
    return problems


def _tried(space: Space) -> Iterator[tuple[str, list[tuple[Any, dict[str, Any]]]]]:
    """For each parameter, the values of a choice or the ends of a range, each in a configuration where it applies."""
    defaults = space.default_params()
    for path, parameter in space.parameters.items():
        ranged = parameter.range
        params = defaults | {parent: values[0] for parent, values in parameter.when.items()}
        values = ranged.values if isinstance(ranged, Choice) else [ranged.low, ranged.high]
        yield path, [(value, params) for value in values]


def _needed(owner: type, given: Arguments) -> dict[str, Any]:
    """The given arguments that have no default."""
    parameters = inspect.signature(owner).parameters
    return {
        name: value
        for name, value in given.items()
        if name in parameters and parameters[name].default is inspect.Parameter.empty
    }


def _refusal(owner: type, arguments: Arguments) -> str | None:
    """What the constructor says against the arguments, or None."""
    try:
        owner(**arguments)
    except (DataError, SpecError) as error:
        return "; ".join(f"{error.source}: {problem.message}" for problem in error.problems)
    except (ValueError, TunerError) as error:
        return str(error)
    except TypeError:  # something is missing or of another type, which the parser tells
        return None
    return None
