"""A search space: parameters by config path, read from a shipped file, a mapping, or a file with changes."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import Problem, did_you_mean
from tuner.space.grammar import Parameter, Scalar
from tuner.space.problems import problems_of
from tuner.space.yaml import read_yaml

ROOTS = ("model", "data", "trainer")


@dataclass(frozen=True)
class Space:
    """Parameters by config path, every one after those that its `when` names.

    Attributes:
        parameters: what is searched. The path (`model.learning_rate`) is the Optuna parameter's name.
        stated: the paths that the study file itself spells out, as opposed to those of a shipped space it names.
    """

    parameters: Mapping[str, Parameter]
    stated: frozenset[str] = frozenset()

    @cached_property
    def priorities(self) -> dict[str, int]:
        """The stated priority of each parameter that has one; 1 is searched first."""
        return {path: p.priority for path, p in self.parameters.items() if p.priority is not None}

    @cached_property
    def defaults(self) -> dict[str, Scalar]:
        """The value of each parameter that the search starts from."""
        return {path: parameter.default for path, parameter in self.parameters.items()}

    @cached_property
    def conditions(self) -> dict[str, dict[str, list[Scalar]]]:
        """For each conditional parameter, the values of other parameters under which it applies."""
        return {path: dict(parameter.when) for path, parameter in self.parameters.items() if parameter.when}

    @cached_property
    def defaults_when(self) -> dict[str, tuple[str, dict[str, Scalar]]]:
        """For each parameter with other defaults: the parameter that decides, and the default by its word."""
        return {
            path: (parent, {word: p.default_for({parent: word}) for word in words})
            for path, p in self.parameters.items()
            for parent, words in p.default_when.items()
        }

    def active(self, path: str, params: Mapping[str, Any]) -> bool:
        """Whether the parameter applies, given the values of those before it."""
        return all(
            parent in params and params[parent] in values for parent, values in self.parameters[path].when.items()
        )

    def configurations(
        self, most: int, among: Mapping[str, Sequence[Any]] | None = None
    ) -> list[dict[str, Any]] | None:
        """Every configuration, without what does not apply in it; None if there are more than `most`.

        `among` says which values count of each parameter; by default all.
        """
        found: list[dict[str, Any]] = [{}]
        for path, parameter in self.parameters.items():
            values = among[path] if among is not None else parameter.range.listed
            if values is None or len(found) > most:
                return None
            found = [
                params | extra
                for params in found
                for extra in ([{path: value} for value in values] if self.active(path, params) else [{}])
            ]
        return found if len(found) <= most else None

    def divide(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values that the space still has, and those outside it, of a trial from before it was changed."""
        inside: dict[str, Any] = {}
        outside: dict[str, Any] = {}
        for path, value in params.items():
            if path in self.parameters:
                (inside if self.parameters[path].range.contains(value) else outside)[path] = value
        return inside, outside

    def default_params(self) -> dict[str, Scalar]:
        """The default configuration, without the parameters that do not apply in it."""
        params: dict[str, Scalar] = {}
        for path, parameter in self.parameters.items():
            if self.active(path, params):
                params[path] = parameter.default_for(params)
        return params

    def complete(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration of these values, the defaults for the others, and none for what does not apply."""
        found: dict[str, Any] = {}
        for path, parameter in self.parameters.items():
            if self.active(path, found):
                found[path] = params.get(path, parameter.default_for(found))
        return found

    def starting_at(self, params: Mapping[str, Any]) -> Space:
        """The same space with these values as its defaults."""
        moved = dict(self.parameters)
        for path, value in params.items():
            parameter = moved[path]
            parent = next(iter(parameter.default_when), "")
            if (word := params.get(parent)) in parameter.default_when.get(parent, {}):
                words = parameter.default_when[parent] | {word: value}
                moved[path] = parameter.model_copy(update={"default_when": {parent: words}})
                continue
            field = "choice" if parameter.kind == "choice" else f"{parameter.kind}_"
            moved[path] = parameter.model_copy(update={field: parameter.range.model_copy(update={"default": value})})
        return Space(moved, self.stated)

    def without(self, fixed: Mapping[str, Any]) -> Space:
        """The space left when some paths are fixed; conditions on them are decided, not asked again."""
        left: dict[str, Parameter] = {}
        dropped: set[str] = set()
        for path, parameter in self.parameters.items():
            holds = all(fixed[k] in v for k, v in parameter.when.items() if k in fixed)
            if path in fixed:
                continue
            if not holds or dropped & parameter.when.keys():
                dropped.add(path)
                continue
            when = {k: v for k, v in parameter.when.items() if k not in fixed}
            left[path] = parameter.model_copy(update={"when": when})
            if parameter.float_ is not None and parameter.default_when.keys() & fixed.keys():
                decided = parameter.float_.model_copy(update={"default": parameter.default_for(fixed)})
                left[path] = left[path].model_copy(update={"float_": decided, "default_when": {}})
        return Space(left, self.stated & left.keys())

    def document(self) -> dict[str, Any]:
        """The space as the mapping that reads back to it."""
        return {
            path: parameter.model_dump(by_alias=True, exclude_unset=True) for path, parameter in self.parameters.items()
        }


def shipped_spaces() -> list[str]:
    """The names of the documented spaces (search_spaces/*.yaml)."""
    folder = importlib.resources.files("tuner.search_spaces")
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_space(value: Any, at: str = "space") -> tuple[Space | None, list[Problem]]:
    """Read a space: a shipped name, a YAML file, a mapping of parameters, or `{use: NAME, change: {...}}`.

    A file holds either of the last two, so spaces can share what they have in common.

    Args:
        value: what the study file says under `space`.
        at: its path in the study file, for the problems.

    Returns:
        The space, or None when it has problems, and all the problems.
    """
    document, problems = _document(value, at)
    if document is None or problems:
        return None, problems
    space, problems = _space(document, at)
    if space is None:
        return None, problems
    changed = value.get("change", {}) if isinstance(value, dict) and "use" in value else value
    spelt_out = map(short, map(str, changed)) if isinstance(changed, dict) else ()
    return Space(space.parameters, frozenset(spelt_out) & space.parameters.keys()), []


def short(path: str) -> str:
    """The short form of a config path: `model.optimizer.lr` for `model.init_args.optimizer.init_args.lr`."""
    return path.replace(".init_args.", ".")


def _shortened(document: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Parameters with their paths, and those in their conditions, in the short form; and what is there twice."""
    made: dict[Any, Any] = {}
    twice = []
    for key, value in document.items():
        path = short(key) if isinstance(key, str) else key
        twice += [path] if path in made else []
        made[path] = value
        for heading in ("when", "default_when"):
            conditions = value.get(heading) if isinstance(value, dict) else None
            if isinstance(conditions, dict):
                renamed = {short(k) if isinstance(k, str) else k: v for k, v in conditions.items()}
                made[path] = {**made[path], heading: renamed}
    return made, twice


def _document(value: Any, at: str, inside: tuple[str, ...] = ()) -> tuple[dict[Any, Any] | None, list[Problem]]:
    """The parameters of a space by path, as they are written, with all that it uses.

    Args:
        value: a name, a mapping of parameters, or `{use: ..., change: ...}`.
        at: its path in the study file.
        inside: the files that lead here.
    """
    if isinstance(value, str):
        if value in inside:
            return None, [Problem(at, f"the spaces {', '.join(inside)} use each other. Drop one `use`.")]
        document, problems = _named(value, at)
        return _document(document, at, (*inside, value)) if document is not None else (None, problems)
    if not isinstance(value, dict):
        return None, [Problem(at, f"must be a name, a mapping or {{use: ..., change: ...}}, but got {value!r}.")]
    if "use" not in value:
        value, twice = _shortened(value)
        return value, [Problem(f"{at}.{path}", "is there twice, in the short and in the long form.") for path in twice]
    unknown = [
        Problem(f"{at}.{key}", f"unknown key.{did_you_mean(str(key), ['use', 'change'])}")
        for key in sorted(map(str, value.keys() - {"use", "change"}))
    ]
    used = value["use"]
    if isinstance(used, str):
        base, problems = _document(used, f"{at}.use", inside)
    else:
        base, problems = None, [Problem(f"{at}.use", f"must be the name of a space, but got {used!r}.")]
    changes = value.get("change") or {}
    if not isinstance(changes, dict):
        problems.append(Problem(f"{at}.change", f"must be a mapping of parameters, but got {changes!r}."))
        changes = {}
    changes, twice = _shortened(changes)
    problems += [Problem(f"{at}.change.{path}", "is there twice, in the short and in the long form.") for path in twice]
    if base is None or problems or unknown:
        return None, [*unknown, *problems]
    problems = [
        Problem(f"{at}.change.{path}", f"the space {used} has no such parameter.{did_you_mean(str(path), base)}")
        for path, change in changes.items()
        if path not in base and not _is_whole(change)
    ]
    if problems:
        return None, problems
    merged = {path: _merge(base.get(path), changes[path]) if path in changes else base[path] for path in base}
    removed = {path: removed_values(base[path], merged[path]) for path in base if path in changes}
    for path, values in removed.items():
        merged = without_values(merged, path, values)
    lost = [path for path in changes if path in base and changes[path] is not None and path not in merged]
    if lost:
        hint = "it only applies to values that the changes take away. Drop this change too."
        return None, [Problem(f"{at}.change.{path}", hint) for path in lost]
    merged |= {path: change for path, change in changes.items() if path not in base}
    return {path: parameter for path, parameter in merged.items() if parameter is not None}, []


def without_values(document: Mapping[Any, Any], path: Any, removed: Sequence[Any]) -> dict[Any, Any]:
    """A space as it is written, without the conditions on values that a choice has lost.

    What could apply under those values alone is dropped.
    """
    left: dict[Any, Any] = {}
    for other, parameter in document.items():
        left[other] = parameter
        if not isinstance(parameter, dict) or not removed:
            continue
        for key in ("when", "default_when"):
            conditions = parameter.get(key)
            if not isinstance(conditions, dict) or path not in conditions:
                continue
            values = conditions[path]
            if isinstance(values, dict):
                kept: Any = {word: default for word, default in values.items() if word not in removed}
            else:
                kept = [value for value in (values if isinstance(values, list) else [values]) if value not in removed]
            if not kept and key == "when":
                left.pop(other, None)
                break
            left[other] = {**left[other], key: {**conditions, path: kept}}
    return left


def removed_values(before: Any, after: Any) -> list[Any]:
    """The values that a choice had before and has no more; none for what is no choice."""

    def values(parameter: Any) -> list[Any]:
        choice = parameter.get("choice") if isinstance(parameter, dict) else None
        found = choice.get("values") if isinstance(choice, dict) else choice
        return found if isinstance(found, list) else []

    return [value for value in values(before) if value not in values(after)] if values(after) else []


def _named(name: str, at: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    known = shipped_spaces()
    if name in known:
        data = importlib.resources.files("tuner.search_spaces").joinpath(f"{name}.yaml").read_bytes()
    elif name.endswith((".yaml", ".yml")) and Path(name).is_file():
        data = Path(name).read_bytes()
    else:
        hint = did_you_mean(name, known) or f" Shipped: {', '.join(known)}."
        return None, [Problem(at, f"no space {name!r}, neither shipped nor a YAML file here.{hint}")]
    document, problems = read_yaml(data, at)
    if problems:
        return None, problems
    if not isinstance(document, dict):
        return None, [Problem(at, f"{name} must hold a mapping of parameters.")]
    return document, []


def _merge(base: Any, change: Any) -> Any:
    """Lay a change over a parameter: mappings are merged, another kind of range replaces the old one, null removes."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    kinds = {"float", "int", "choice"}
    if "default" in (change.get("float") or {}) and "default_when" not in change:
        base = {k: v for k, v in base.items() if k != "default_when"}  # who states a default states it for all
    if (kinds & change.keys()) - base.keys():
        base = {k: v for k, v in base.items() if k not in kinds}
    return base | {key: _merge(base.get(key), value) for key, value in change.items()}


def _is_whole(change: Any) -> bool:
    """Whether a change could stand as a parameter of its own, rather than being laid over one."""
    if not isinstance(change, dict):
        return False
    try:
        Parameter.model_validate(change)
    except ValidationError as error:
        return not any(detail["type"] == "missing" for detail in error.errors())
    return True


def _space(document: Mapping[Any, Any], at: str) -> tuple[Space | None, list[Problem]]:
    parameters: dict[str, Parameter] = {}
    problems: list[Problem] = []
    for key, value in document.items():
        path, here = str(key), f"{at}.{key}"
        root, _, rest = path.partition(".")
        if root not in ROOTS or not rest:
            hint = did_you_mean(root, ROOTS) or f" Did you mean 'model.{path}'?"
            problems.append(Problem(here, f"must be a config path below model, data or trainer.{hint}"))
        try:
            parameters[path] = Parameter.model_validate(value)
        except ValidationError as error:
            problems += problems_of(error, Parameter, here)
    for path, parameter in parameters.items():
        for heading, conditions in (("when", parameter.when), ("default_when", parameter.default_when)):
            for parent, values in conditions.items():
                here = f"{at}.{path}.{heading}.{parent}"
                if parent == path or parent not in {str(key) for key in document}:
                    problems.append(Problem(here, f"no such parameter in the space.{did_you_mean(parent, parameters)}"))
                    continue
                if parent not in parameters:  # its own mistakes are told already
                    continue
                awaited = parameters[parent]
                problems += [
                    Problem(here, f"{parent} never is {value!r}.")
                    for value in values
                    if not awaited.range.contains(value)
                ]
                if heading == "default_when" and awaited.when:
                    problems.append(Problem(here, f"{parent} does not always apply. Name a parameter without `when`."))
    if problems:
        return None, problems
    ordered: dict[str, Parameter] = {}
    left = dict(parameters)
    while left:
        ready = next((p for p, q in left.items() if q.when.keys() | q.default_when.keys() <= ordered.keys()), None)
        if ready is None:
            circle = ", ".join(left)
            return None, [Problem(at, f"the conditions of {circle} wait for each other. Drop one `when`.")]
        ordered[ready] = left.pop(ready)
    return Space(ordered), []
