"""pydantic's errors, told as problems: the rule, the value, the next step."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from tuner.errors import Problem, did_you_mean

_TYPES = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
}
_TAGS = {"bool", "int", "float", "str", "none"}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Problem]:
    """Translate every error of one validation; `prefix` is the path of the validated mapping."""
    problems: dict[str, Problem] = {}
    # Of a union's errors, that of a literal says least: it comes last, and the first at each path is told.
    for detail in sorted(error.errors(include_url=False), key=lambda d: d["type"] == "literal_error"):
        loc = _path(detail["loc"], model)
        path = ".".join([prefix, *loc] if prefix else loc) or "(the file)"
        problems.setdefault(path, Problem(path, _message(dict(detail), model, loc)))
    return list(problems.values())


def _path(loc: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    """The path in the file: pydantic also names the member of a union that it tried, which is in no file."""
    path: list[str] = []
    for part in loc:
        is_tag = (
            isinstance(part, str)
            and (part in _TAGS or "[" in part or part.startswith("constrained-"))
            and part not in _keys(model, path)
        )
        if not is_tag:
            path.append(str(part))
    return path


def _message(detail: dict[str, Any], model: type[BaseModel], loc: Sequence[str]) -> str:
    kind, context, value = detail["type"], detail.get("ctx") or {}, detail.get("input")
    if kind == "extra_forbidden":
        known = _keys(model, loc[:-1])
        listed = f" Known here: {', '.join(known)}." if known else ""
        return f"unknown key.{did_you_mean(loc[-1], known) or listed}"
    if kind == "missing":
        return "is required."
    if kind == "literal_error":
        choices = str(context["expected"]).replace(" or ", ", ").replace("'", "")
        return f"{value!r} is not one of: {choices}.{did_you_mean(str(value), choices.split(', '))}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context[key]}, but got {value}."
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"must have at least {context['min_length']} value, but got {value}."
    if kind in _TYPES:
        hint = " YAML reads it as text: drop the quotes?" if isinstance(value, str) and _is_number(value) else ""
        return f"must be {_TYPES[kind]}, but got {value!r}.{hint}"
    return f"{detail['msg']}, but got {value!r}."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _keys(model: type[BaseModel], loc: Sequence[str]) -> list[str]:
    """The keys that a mapping at `loc` below `model` may have."""
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = next(_models(field.annotation), None) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]
