"""HTML in which whatever is not markup is escaped: a name or a value of the user's cannot become a script."""

from __future__ import annotations

import html
import json
from typing import Any

VOID = frozenset({"meta", "br", "hr"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, /, *children: Any, **attributes: Any) -> Markup:
    """An element; children that are no Markup are escaped, attributes always.

    Args:
        tag: its name.
        children: texts, numbers, Markup; None is nothing.
        attributes: `class_` is class, `aria_label` is aria-label; True stands alone, None is left out.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if tag in VOID:
        return Markup(f"<{tag}{told}>")
    return Markup(f"<{tag}{told}>{joined(*children)}</{tag}>")


def joined(*children: Any) -> Markup:
    """Children side by side."""
    return Markup(
        "".join(
            child if isinstance(child, Markup) else html.escape(str(child)) for child in children if child is not None
        )
    )


def data(value: Any) -> Markup:
    """JSON that stays inside its script element whatever its texts say."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def with_code(text: str) -> Markup:
    """A sentence in which `backquotes` are code."""
    parts = text.split("`")
    return joined(
        *(element("code", part) if index % 2 and index < len(parts) - 1 else part for index, part in enumerate(parts))
    )


def _attribute(key: str, value: Any) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
