"""A table of names and a range of numbers, each with one error for what is not in it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Raises:
        ValueError: there is no such name; the error lists the names and suggests the closest.
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{what} must be one of {', '.join(table)}, but got {name!r}.{hint}")


def check_range(name: str, value: float, low: float, high: float = math.inf, *, low_included: bool = True) -> None:
    """Check a number against a range that does not include `high`.

    Raises:
        ValueError: it lies outside, or is no number.
    """
    if (low <= value if low_included else low < value) and value < high:
        return
    upper = "" if high == math.inf else f" and below {high:g}"
    raise ValueError(f"{name} must be {'at least' if low_included else 'above'} {low:g}{upper}, but got {value}.")
