"""YAML as people write it: 1e-4 is a number, a key given twice is an error."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tuner.errors import Problem


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with YAML 1.2's floats."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[tuple[str, int]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self.twice.append((key.value, key.start_mark.line + 1))
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes a text that our loader would read as a number."""


# PyYAML reads 1e-4 as text, because YAML 1.1 wants 1.0e-4 there.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
        list("-+0123456789."),
    )


def read_yaml(text: str | bytes, at: str = "(the file)") -> tuple[Any, list[Problem]]:
    """Read one YAML document in UTF-8; a syntax error or a key given twice is a problem with its line."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, [
            Problem(at, f"must be UTF-8, but byte {error.start} is {error.object[error.start]:#04x}. Save it as UTF-8.")
        ]
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        return None, [Problem(at, f"is not valid YAML: {str(error).splitlines()[0]}.")]
    try:
        document = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return None, [Problem(at, f"is not valid YAML: {where}{error.problem}.")]
    except yaml.YAMLError as error:
        return None, [Problem(at, f"is not valid YAML: {error}.")]
    finally:
        loader.dispose()
    return document, [Problem(at, f"line {line}: key {key!r} is given twice. Keep one.") for key, line in loader.twice]


def write_yaml(document: Any, *, short: bool = False) -> str:
    """Write a document so that any YAML reader, PyYAML included, reads the same values back.

    Args:
        document: mappings, lists and plain values.
        short: whether innermost mappings and lists stand on one line, as people write them.
    """
    flow = None if short else False
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=flow
    )
    return text


def in_line(value: Any) -> str:
    """Write a value as YAML in one line, as people write it who will edit it."""
    style: dict[str, Any] = {"default_flow_style": True, "width": 10_000}
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **style)
    return text.removesuffix("\n").removesuffix("\n...")
