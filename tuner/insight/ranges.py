"""Ranges moved: further up or down from the best, narrowed around the best ones, and told in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.insight.across import Side
from tuner.space import Choice, FloatRange, IntRange, Parameter

LIMITS: Mapping[str, tuple[float, float]] = {
    "learning_rate": (1e-7, 10.0),
    "lr": (1e-7, 10.0),
    "dropout": (0.0, 0.8),
    "momentum": (0.0, 0.9999),
    "lr_decay": (0.1, 0.999),
    "adam_beta1": (0.0, 0.9999),
    "adam_beta2": (0.5, 0.99999),
    "adam_eps": (1e-12, 1e-2),
    "weight_decay": (1e-9, 1.0),
    "clip_norm": (1e-3, 100.0),
    "gradient_clip_val": (1e-3, 100.0),
    "hidden_units": (1, 4096),
    "channels": (1, 1024),
    "depth": (1, 30),
}
"""How far a range of these may be moved; others go as far below 1, or above 0, as they began."""

FACTOR = 8.0
"""How far beyond the best a range is moved on a logarithmic scale."""

MARGIN = 0.15
"""How much of the old range stays on both sides of the best ones."""

WORTH = 0.7
"""A range is narrowed if what is left is at most so much of it."""


def moved(name: str, parameter: Parameter, value: Any, side: Side) -> Parameter | None:
    """The parameter searched from the trial's value on, and far beyond it; None where there is nowhere to go.

    Args:
        name: the last part of its path, by which limits are known.
        parameter: as it is searched now.
        value: what the trial has.
        side: where to go.
    """
    values = parameter.range
    if not values.contains(value):  # the space was changed since
        return None
    if isinstance(values, Choice):
        return _choice(parameter, values, value, side)
    lowest, highest = _limits(name, values)
    # A little of what lies behind the value stays: the value may have been lucky.
    if side == "high":
        low, high = _behind(values, value, "low"), max(values.high, _beyond(values, value, "high"))
    else:
        low, high = min(values.low, _beyond(values, value, "low")), _behind(values, value, "high")
    return _ranged(parameter, max(low, lowest), min(high, highest), value)


def holding(parameter: Parameter, value: Any) -> Parameter:
    """The parameter in a range that holds the value, too."""
    values = parameter.range
    if values.contains(value):
        return parameter
    if isinstance(values, Choice):
        made = Choice(values=sorted([*values.values, value]) if values.ordered else [value, *values.values])
        return parameter.model_copy(update={"choice": made})
    return _ranged(parameter, min(values.low, value), max(values.high, value), value) or parameter


def widened(name: str, parameter: Parameter, value: Any, side: Side) -> Parameter | None:
    """The parameter with more room at the end where the trial's value lies; None where there is none."""
    values = parameter.range
    if not values.contains(value):  # the space was changed since
        return None
    if isinstance(values, Choice):
        return _choice(parameter, values, value, side)
    lowest, highest = _limits(name, values)
    low = max(_beyond(values, value, "low"), lowest) if side == "low" else values.low
    high = min(_beyond(values, value, "high"), highest) if side == "high" else values.high
    return _ranged(parameter, min(low, values.low), max(high, values.high), value)


def narrowed(parameter: Parameter, seen: Sequence[Any], value: Any) -> Parameter | None:
    """The parameter around the values that good trials have; None if that is not much narrower."""
    values = parameter.range
    if isinstance(values, Choice):
        return None
    places = [values.to_unit(v) for v in (*seen, value) if values.contains(v)]
    low, high = max(0.0, min(places) - MARGIN), min(1.0, max(places) + MARGIN)
    if high - low > WORTH:
        return None
    made = _ranged(parameter, values.from_unit(low), values.from_unit(high), value)
    if made is None or isinstance(made.range, Choice):
        return None
    return made if values.to_unit(made.range.high) - values.to_unit(made.range.low) <= WORTH else None


def in_words(parameter: Parameter) -> str:
    """A range as a reader writes it."""
    values = parameter.range
    if isinstance(values, Choice):
        return ", ".join(str(v) for v in values.values)
    scale = "" if values.scale == "linear" else f" ({values.scale})"
    return f"{values.low:g} … {values.high:g}{scale}"


def document(parameter: Parameter) -> dict[str, Any]:
    """The parameter as the mapping that reads back to it."""
    dumped = parameter.model_dump(by_alias=True, exclude_unset=True)
    return {heading: value for heading, value in dumped.items() if value not in ({}, None)}


def _limits(name: str, values: FloatRange | IntRange) -> tuple[float, float]:
    if name in LIMITS:
        low, high = LIMITS[name]
        return min(low, values.low), max(high, values.high)
    if isinstance(values, IntRange):
        return (min(1, values.low) if values.low > 0 else values.low), math.inf
    lowest = values.low if values.low in (0.0, 1.0) else 1e-12 if values.low > 0 else -math.inf
    return lowest, values.high if 0.5 <= values.high <= 1 else math.inf


def _beyond(values: FloatRange | IntRange, value: float, side: Side) -> float:
    """A number well beyond the value."""
    if values.scale == "log":
        return value * FACTOR if side == "high" else value / FACTOR
    if values.scale == "log_complement":
        gap = (1 - value) / FACTOR if side == "high" else (1 - value) * FACTOR
        return 1 - gap
    width = max(values.high - values.low, 2 if isinstance(values, IntRange) else 0)
    return value + width / 2 if side == "high" else value - width / 2


def _behind(values: FloatRange | IntRange, value: float, side: Side) -> float:
    """A number a little behind the value, within the old range."""
    at = values.from_unit(values.to_unit(value) + (MARGIN if side == "high" else -MARGIN))
    return float(at)


def _ranged(parameter: Parameter, low: float, high: float, default: Any) -> Parameter | None:
    values = parameter.range
    if isinstance(values, IntRange):
        step = values.step
        below = math.floor((default - low) / step)
        above = math.floor((high - default) / step)
        low, high = default - below * step, default + above * step
        if low >= high:
            return None
        made = values.model_copy(update={"low": int(low), "high": int(high), "default": default})
        return parameter.model_copy(update={"int_": IntRange.model_validate(made.model_dump(exclude_unset=True))})
    if isinstance(values, Choice):
        return None
    low, high = _short(low, down=True), _short(high, down=False)
    if values.scale == "log_complement":
        high = min(high, 0.9999)
    kept = [default, *(rate for words in parameter.default_when.values() for rate in words.values())]
    low, high = min(low, *kept), max(high, *kept)
    if low >= high:
        return None
    given = values.model_dump() | {"low": low, "high": high, "default": default}
    made_float = FloatRange.model_validate(given)
    if made_float == values.model_copy(update={"default": default}):
        return None
    return parameter.model_copy(update={"float_": made_float})


def _short(value: float, *, down: bool) -> float:
    """The number with two digits, rounded outwards."""
    if value == 0 or not math.isfinite(value):
        return value
    if 0.9 <= value < 1:  # digits count from 1 down
        return 1 - _short(1 - value, down=not down)
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    rounded = (math.floor(value / step + 1e-9) if down else math.ceil(value / step - 1e-9)) * step
    return float(f"{rounded:.3g}")


def _choice(parameter: Parameter, values: Choice, value: Any, side: Side) -> Parameter | None:
    """An ordered choice, from the value on and with further values of the same steps."""
    if not values.ordered or len(values.values) < 2:
        return None
    numbers: list[Any] = list(values.values)
    at = numbers.index(value)
    step = numbers[-1] / numbers[-2] if side == "high" and numbers[-2] else numbers[1] / numbers[0] if numbers[0] else 0
    whole = all(isinstance(n, int) for n in numbers)
    if side == "high":
        further = [numbers[-1] * step**i for i in (1, 2)]
        kept = [*numbers[max(0, at - 1) :], *further]
    else:
        further = [numbers[0] / step**i for i in (2, 1)] if step > 1 else []
        kept = [*further, *numbers[: at + 2]]
    kept = [int(n) if whole else float(f"{n:.3g}") if isinstance(n, float) else n for n in kept if not whole or n >= 1]
    kept = list(dict.fromkeys(kept))
    if len(kept) < 2 or kept == numbers:
        return None
    made = Choice(values=kept, default=value)
    return parameter.model_copy(update={"choice": made})
