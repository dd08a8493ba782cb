"""From a file, an example's name or a mapping to a StudySpec; all its problems at once."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import Problem, SpecError, StudyNotFound, did_you_mean
from tuner.space import Space, read_space, removed_values, short, without_values
from tuner.space.problems import problems_of
from tuner.space.yaml import read_yaml
from tuner.spec.config import at_path, place
from tuner.spec.study_spec import StudySpec

Inspect = Callable[[Mapping[str, Any], Space | None], list[Problem]]
"""Checks what needs the user's classes: given the document and the space, its further problems."""


def example_names() -> list[str]:
    """The studies shipped in examples/."""
    folder = importlib.resources.files("tuner.examples")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_study(
    study: str | Path | Mapping[str, Any],
    overrides: Sequence[tuple[str, Any]] = (),
    inspect: Inspect | None = None,
    *,
    stored: bool = False,
) -> StudySpec:
    """Read a study whole and check it whole.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        overrides: values that replace what the file says, by path (`search.trials`, `model.init_args.norm`, …).
        inspect: checks the classes that the file names; without it they are believed.
        stored: the document has been read before; its space may have changed since it began.

    Raises:
        StudyNotFound: there is no such file or example.
        SpecError: the study has problems; the error carries all of them.
    """
    source, document, problems = _document(study)
    if document is None:
        raise SpecError(source, problems)
    if document.get("data", ...) is None:
        del document["data"]
    _spell_out(document)
    for path, value in overrides:
        problems += _override(document, path, value)
    _spell_out(document)
    problems += _start_from(document)

    space: Space | None = None
    if "space" in document:
        space, space_problems = read_space(document["space"])
        problems += space_problems
    spec: StudySpec | None = None
    try:
        spec = StudySpec.model_validate(document)
    except ValidationError as error:
        problems += problems_of(error, StudySpec)
    if space is not None:
        space = space.without(_fixed(document, space, [path for path, _ in overrides]))
    if space is not None and spec is not None and not stored:
        problems += _start_problems(spec.search.start, space)
    if inspect is not None:
        wrong = {problem.path.split(".")[0] for problem in problems}
        found = inspect({key: value for key, value in document.items() if key not in wrong}, space)
        problems += [problem for problem in found if problem.path.removeprefix("space.").split(".")[0] not in wrong]
    mistakes = [problem for problem in dict.fromkeys(problems) if not problem.warning]
    if mistakes or spec is None or space is None:
        raise SpecError(source, mistakes)
    return spec.noticing(space, (f"{problem.path}: {problem.message}" for problem in problems if problem.warning))


def parse_override(text: str) -> tuple[str, Any]:
    """Read one `--set PATH=VALUE`; the value is YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise SpecError("--set", [Problem(text, "must be PATH=VALUE, such as search.trials=20.")])
    parsed, problems = read_yaml(value, f"--set {path}")
    if problems:
        raise SpecError("--set", problems)
    return path, parsed


def _document(study: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any] | None, list[Problem]]:
    if isinstance(study, Mapping):
        return "the study", _copy(study), []
    path = Path(study)
    if path.is_file():
        source, data = str(study), path.read_bytes()
    elif str(study) in example_names():
        source = f"example {study}"
        data = importlib.resources.files("tuner.examples").joinpath(f"{study}.yaml").read_bytes()
    else:
        known = example_names()
        hint = did_you_mean(str(study), known) or f" Shipped examples: {', '.join(known)}."
        raise StudyNotFound(f"no file {str(study)!r}, and no shipped example of that name.{hint}")
    document, problems = read_yaml(data)
    if document is None and problems:
        return source, None, problems
    if not isinstance(document, dict):
        return (
            source,
            None,
            [Problem("(the file)", f"must be a mapping with study, model and space, got {document!r}.")],
        )
    return source, document, problems


def _spell_out(document: dict[str, Any]) -> None:
    """`model: package.Class` is short for `model: {class_path: package.Class}`, as for LightningCLI."""
    for part in ("model", "data"):
        if isinstance(document.get(part), str):
            document[part] = {"class_path": document[part]}


def _start_from(document: dict[str, Any]) -> list[Problem]:
    """`space: {use: mlp, from: NAME}` is short for `space: {use: mlp}` and `search: {start: [NAME]}`."""
    space = document.get("space")
    if not isinstance(space, dict) or not {"use", "from"} <= space.keys():
        return []
    origins = space.pop("from")
    origins = origins if isinstance(origins, list) else [origins]
    if not origins or not all(isinstance(origin, str) and origin for origin in origins):
        rule = "must be a study's name, a config's file or an exported folder, or a list of such"
        return [Problem("space.from", f"{rule}, but got {origins if len(origins) != 1 else origins[0]!r}.")]
    search = document.get("search") or {}
    if isinstance(search, dict):
        start = search.get("start") or []
        document["search"] = {**search, "start": [*origins, *(start if isinstance(start, list) else [start])]}
    return []


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value


def _override(document: dict[str, Any], path: str, value: Any) -> list[Problem]:
    """Set one path, in LightningCLI's short or long form."""
    root, _, rest = path.partition(".")
    try:
        if root == "space" and rest:
            _override_space(document, rest, value)
        elif isinstance(value, str) and (stated := _class_with_arguments(document, path)):
            return [] if stated["class_path"] == value else [_unclear(path, value, stated["init_args"])]
        else:
            place(document, path, value)
    except (AttributeError, TypeError, KeyError):
        return [Problem(f"--set {path}", "something on the way to it is not a mapping.")]
    return []


def _class_with_arguments(document: Mapping[str, Any], path: str) -> dict[str, Any] | None:
    """The class at a path, if the study gives it arguments, which another class's name alone would drop."""
    stated = at_path(document, path)
    described = isinstance(stated, dict) and "class_path" in stated and stated.get("init_args")
    return stated if described else None


def _unclear(path: str, value: str, arguments: Mapping[str, Any]) -> Problem:
    keep, drop = f"--set {path}.class_path={value}", f"--set '{path}={{class_path: {value}}}'"
    unclear = f"leaves open what becomes of the study's {', '.join(arguments)}."
    return Problem(f"--set {path}", f"{unclear} Keep them with: {keep}   Drop them with: {drop}")


def _override_space(document: dict[str, Any], path: str, value: Any) -> None:
    """Change a parameter: `model.momentum.float.high=0.99`, or `model.momentum=null` to drop it."""
    if isinstance(document["space"], str):
        document["space"] = {"use": document["space"]}
    space = document["space"]
    if path in ("use", "from"):
        space[path] = value
        return
    named = "use" in space
    if named and not space.get("change"):
        space["change"] = {}
    parameters = space["change"] if named else space
    path = short(path.removeprefix("change.") if named else path)
    match = re.fullmatch(r"(.+?)\.((?:float|int|choice|when|default_when|priority|what|why)(?:\..+)?)", path)
    parameter, keys = (match[1], _heading(match[2])) if match else (path, [])
    before = _copy(parameters.get(parameter))
    if keys:
        node = parameters.setdefault(parameter, {})
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = value
    elif value is None and not named:
        parameters.pop(parameter, None)
    else:
        parameters[parameter] = value
    whole = keys == ["float"] and isinstance(value, dict) and "default" in value
    if not named and (whole or keys == ["float", "default"]):
        parameters[parameter].pop("default_when", None)  # who states a default states it for all
    if not named:  # a space that is spelt out; a shipped one is changed when it is read
        document["space"] = without_values(parameters, parameter, removed_values(before, parameters.get(parameter)))


def _heading(path: str) -> list[str]:
    """The keys of a path within a parameter; what stands behind `when` is a config path and stays whole."""
    return path.split(".", 1) if path.startswith(("when.", "default_when.")) else path.split(".")


def _start_problems(start: Sequence[str | Mapping[str, Any]], space: Space) -> list[Problem]:
    """What is wrong with the configurations that `search.start` spells out."""
    problems = []
    for number, entry in enumerate(start):
        for path, value in entry.items() if isinstance(entry, Mapping) else ():
            at = f"search.start.{number}.{path}"
            if path not in space.parameters:
                problems.append(Problem(at, f"is not searched.{did_you_mean(path, list(space.parameters))}"))
            elif not space.parameters[path].range.contains(value):
                problems.append(Problem(at, f"{value!r} lies outside what the space has for it."))
    return problems


def _fixed(document: Mapping[str, Any], space: Space, overridden: Sequence[str]) -> dict[str, Any]:
    """The paths that are not searched: those the file sets beside a shipped space, and those that --set names."""
    absent = object()
    named = {short(path) for path in overridden}
    searched = space.stated - named
    values = {path: at_path(document, path, absent) for path in space.parameters if path not in searched}
    return {path: value for path, value in values.items() if value is not absent}
