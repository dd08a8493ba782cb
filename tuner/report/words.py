"""Numbers, durations and names as people say them."""

from __future__ import annotations

import math
from typing import Any


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def number(value: Any) -> str:
    """A value of a hyperparameter or a metric, with the digits that a reader compares."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.5g}"
    return str(value)


def without_root(path: str) -> str:
    """A parameter's path without its root: `learning_rate` for `model.learning_rate`."""
    return path.partition(".")[2] or path


def counted(count: int, what: str) -> str:
    """`1 trial`, `3 trials`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def unit_of_time(seconds: float) -> tuple[float, str]:
    """The unit in which so long a time is read: its seconds and its name."""
    return (3600.0, "h") if seconds >= 3 * 3600 else (60.0, "min") if seconds >= 180 else (1.0, "s")
