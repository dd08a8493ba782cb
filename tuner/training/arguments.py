"""What a class says of itself: the arguments that it takes, and the metrics that its source logs."""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser

from tuner.space.documented import REQUIRED, Argument
from tuner.training.check import Signature

_FOREIGN = ("lightning", "pytorch_lightning", "torch", "torchmetrics", "builtins")
"""Packages whose sources log nothing of the user's."""

_LONG = 60


@dataclass(frozen=True)
class Logged:
    """A metric that a class logs.

    Attributes:
        name: as it is logged.
        on_validation: whether it can be an objective.
    """

    name: str
    on_validation: bool


def arguments(owner: type) -> list[Argument]:
    """The arguments of a class, as LightningCLI sees them, with types, defaults and what the docstrings say."""
    told = _docstrings(owner)
    return [_argument(owner, name, told.get(name, "")) for name in Signature(owner).names]


def _argument(owner: type, name: str, what: str) -> Argument:
    for base in owner.__mro__:
        init = base.__dict__.get("__init__")
        if init is None or name not in (takes := inspect.signature(init).parameters):
            continue
        annotation, default = takes[name].annotation, takes[name].default
        with suppress(NameError, TypeError):  # a hint that cannot be read is told as it is written
            annotation = get_type_hints(init).get(name, annotation)
        words = _words(annotation)
        default = REQUIRED if default is inspect.Parameter.empty else default
        default = default.name if isinstance(default, enum.Enum) else default
        return Argument(name, default, _type_name(annotation), words, what)
    return Argument(name, what=what)


def _words(hint: Any) -> tuple[Any, ...]:
    """All that a type allows, if it lists that."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if hint is bool:
        return (False, True)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return tuple(hint.__members__)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return _words(kinds[0]) if len(kinds) == 1 else ()
    return ()


def _type_name(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _docstrings(owner: type) -> dict[str, str]:
    """What docstrings of a class and of its `__init__` say of each argument, the first sentence on one line."""
    told: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        if base.__module__.partition(".")[0] in _FOREIGN:
            continue
        for text in (base.__doc__, base.__dict__.get("__init__", base).__doc__):
            for parameter in docstring_parser.parse(text or "").params:
                if parameter.description:
                    sentence = re.split(r"(?<=[^.])\.(?:\s|$)|\n\n", parameter.description.strip())[0]
                    told[parameter.arg_name.partition(" ")[0]] = " ".join(sentence.split()).rstrip(".;,")
    return told


def logged(owner: type) -> list[Logged]:
    """The metrics that a class logs by `self.log` and `self.log_dict`, as far as its source tells.

    A name in which a word is put (`f"{stage}_loss"`) is followed to the methods that hand that word over.
    """
    methods = _methods(owner)
    found: dict[str, bool] = {}
    for name, method in methods.items():
        for text, words in _names(method):
            for metric, caller in _filled(text, words, name, method, methods):
                on_validation = "valid" in caller or "val" in re.split(r"[^a-z]+", metric.lower())
                found[metric] = found.get(metric, False) or on_validation
    return [Logged(name, on_validation) for name, on_validation in found.items()]


def _methods(owner: type) -> dict[str, ast.FunctionDef]:
    """The methods of a class by name, the user's bases included."""
    methods: dict[str, ast.FunctionDef] = {}
    for base in reversed(owner.__mro__):
        if base.__module__.partition(".")[0] in _FOREIGN:
            continue
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):  # there is no source
            continue
        if isinstance(node, ast.ClassDef):
            methods |= {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    return methods


def _names(method: ast.FunctionDef) -> Iterator[tuple[str, list[str]]]:
    """What a method logs: the name with `{}` for what is put in, and the variables that are."""
    for call in ast.walk(method):
        if not (isinstance(call, ast.Call) and _of_self(call) in ("log", "log_dict")):
            continue
        given = call.args[:1] or [keyword.value for keyword in call.keywords if keyword.arg in ("name", "dictionary")]
        for node in given:
            node = _assigned(node, method) if isinstance(node, ast.Name) else node
            for key in node.keys if isinstance(node, ast.Dict) else [node]:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.value, []
                elif isinstance(key, ast.JoinedStr):
                    yield _template(key)


def _assigned(name: ast.Name, method: ast.FunctionDef) -> ast.expr:
    """The dictionary that a method has given this name, or the name again."""
    for node in ast.walk(method):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
            continue
        if any(isinstance(target, ast.Name) and target.id == name.id for target in node.targets):
            return node.value
    return name


def _of_self(call: ast.Call) -> str | None:
    """The method's name, if a call is one of `self`."""
    function = call.func
    is_own = (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "self"
    )
    return function.attr if is_own and isinstance(function, ast.Attribute) else None


def _template(text: ast.JoinedStr) -> tuple[str, list[str]]:
    told, words = "", []
    for part in text.values:
        if isinstance(part, ast.Constant):
            told += str(part.value)
        else:
            named = part.value if isinstance(part, ast.FormattedValue) else None
            told += "{}"
            words.append(named.id if isinstance(named, ast.Name) else "")
    return told, words


def _filled(
    text: str, words: list[str], name: str, method: ast.FunctionDef, methods: Mapping[str, ast.FunctionDef]
) -> Iterator[tuple[str, str]]:
    """A name with its words put in, and the method that is behind it; nothing where more than one is missing."""
    if not words:
        yield text, name
    takes = [argument.arg for argument in method.args.args[1:]]
    if len(words) != 1 or words[0] not in takes:
        return
    position = takes.index(words[0])
    for caller, body in methods.items():
        for call in ast.walk(body):
            if isinstance(call, ast.Call) and _of_self(call) == name:
                given = [k.value for k in call.keywords if k.arg == words[0]] or call.args[position : position + 1]
                for node in given:
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield text.format(node.value), caller
