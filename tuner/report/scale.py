"""Where the values of a hyperparameter lie along its own scale, and which of them are named there.

Places are in [0, 1] along the scale that the space states: linear, log, log of 1 - x, or one cell for each choice.
"""

from __future__ import annotations

import math
from typing import Any

from tuner.report.figure import label
from tuner.report.words import number
from tuner.space import Choice, FloatRange, IntRange, Parameter

MOST_TICKS = 6


def place(parameter: Parameter, value: Any) -> float | None:
    """The place of a value, outside [0, 1] if the space was narrowed since; None if the scale has no place for it."""
    values = parameter.range
    if isinstance(values, Choice):
        return (values.values.index(value) + 0.5) / len(values.values) if values.contains(value) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    if (values.scale == "log" and value <= 0) or (values.scale == "log_complement" and value >= 1):
        return None
    return values.to_unit(value)


def ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """Places with their names, a handful, the ends of the range among them where there is room."""
    values = parameter.range
    if isinstance(values, Choice):
        return [((i + 0.5) / len(values.values), label(number(v))) for i, v in enumerate(values.values)]
    if isinstance(values, IntRange):
        return [(values.to_unit(v), str(v)) for v in _whole(values)]
    return [(values.to_unit(v), f"{v:.4g}") for v in _named(values)]


def scale_in_words(parameter: Parameter) -> str:
    """The scale, as an axis says it; nothing for a linear one and for choices."""
    values = parameter.range
    if isinstance(values, Choice):
        return ""
    return {"log": "log scale", "log_complement": "log scale of 1 − x"}.get(values.scale, "")


def _whole(values: IntRange) -> list[int]:
    """All of a few; doubled from the lowest on a log scale; else evenly spread ones."""
    every = range(values.low, values.high + 1, values.step)
    if len(every) <= MOST_TICKS + 2:
        return list(every)
    if values.scale == "log":
        found = [values.low * 2**k for k in range(64) if values.low * 2**k <= values.high]
        return found if len(found) <= MOST_TICKS + 2 else found[::2]
    return sorted({values.from_unit((i + 0.5) / MOST_TICKS) for i in range(MOST_TICKS)})


def _named(values: FloatRange) -> list[float]:
    low, high = values.low, values.high
    if values.scale == "log":
        decades = [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
        found = decades if len(decades) > 1 else [values.from_unit(i / 3) for i in range(4)]
    elif values.scale == "log_complement":
        near = [1 - 10.0**-k for k in range(1, 12)]
        found = [low, *(v for v in [0.5, *near] if low < v < high)]
        if values.to_unit(found[-1]) < 0.9:
            found.append(high)
    else:
        found = [low + (high - low) * i / 4 for i in range(5)]
    while len(found) > MOST_TICKS:
        found = found[::2]
    return found
