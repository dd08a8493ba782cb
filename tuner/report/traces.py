"""Parts that several pictures are drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tuner.report.figure import rounded
from tuner.trial import Report, Trial

Groups = Sequence[tuple[str, str, str, Callable[[Trial], bool]]]
"""Kinds of trials: name, colour, symbol, and which belong to it."""

POINTS = 60
"""Of a curve, at most so many epochs are drawn."""


def mark(x: float) -> dict[str, Any]:
    """A dotted vertical line."""
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def points_of(logged: Iterable[Report], name: str) -> list[tuple[int, float]]:
    """A metric by epoch."""
    found = [(report.epoch, report.metrics.get(name, math.nan)) for report in logged]
    return [(epoch, value) for epoch, value in found if math.isfinite(value)]


def strung(lines: Sequence[tuple[int, Sequence[tuple[int, float]]]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Several curves as one trace with gaps: epochs, values, and whose they are."""
    x: list[Any] = []
    y: list[Any] = []
    who: list[Any] = []
    for trial, points in lines:
        step = max(1, math.ceil(len(points) / POINTS))
        kept = [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]
        x += [*(epoch for epoch, _ in kept), None]
        y += [*(rounded(value) if math.isfinite(value) else None for _, value in kept), None]
        who += [*(trial for _ in kept), None]
    return x[:-1], y[:-1], who[:-1]


def came_to_nothing(trial: Trial) -> bool:
    """Whether a trial diverged or ran out of memory: its configuration itself is bad."""
    return trial.result is not None and trial.result.infeasible
