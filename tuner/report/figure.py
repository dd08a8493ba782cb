"""A picture as plain data: what plotly.js draws, and the words that say the same.

Colours are named by role (`@best`, `@pruned`); the page replaces them by those of its light or dark theme.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.trial import Objective, Trial

ROLES = (
    "@text", "@muted", "@grid", "@best", "@complete", "@pruned", "@failed", "@confirm", "@lost", "@second",
    "@ramp0", "@ramp1", "@ramp2", "@ramp3", "@ramp4",
)  # fmt: skip
DRAWN = 1000
"""At most so many trials are drawn in one picture: the page stays light however long a study runs."""


@dataclass(frozen=True)
class Figure:
    """One picture.

    Attributes:
        key: its name in the page.
        title: its heading.
        says: what it shows, in a sentence or two: the caption, and what a screen reader says.
        data: plotly's traces.
        layout: plotly's layout.
        height: in pixels.
        least_width: in pixels; on a narrower screen the picture scrolls sideways.
    """

    key: str
    title: str
    says: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 360
    least_width: int = 0

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {"data": list(self.data), "layout": {**self.layout, "height": self.height}}


def label(text: Any) -> str:
    """A text of the user's as plotly shows it: plotly reads some HTML in its texts."""
    return html.escape(str(text), quote=False)


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis in the page's colours."""
    told: dict[str, Any] = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "automargin": True}
    return {**told, **({"title": {"text": title}} if title else {}), **more}


def value_axis(values: Iterable[float], objective: Objective) -> dict[str, Any]:
    """The axis of the objective: logarithmic over decades, and not stretched by the worst tenth of the trials."""
    ordered = sorted(values, key=objective.key)
    told = axis(label(objective.metric))
    if not ordered:
        return told
    if objective.direction == "minimize" and ordered[0] > 0 and ordered[-1] / ordered[0] > 10:
        return {**told, **log_axis(ordered)}
    best, usual = ordered[0], ordered[min(len(ordered) - 1, round(0.9 * len(ordered)))]
    pad = 0.08 * abs(usual - best) or 0.05 * abs(best) or 0.5
    worst = usual + pad if objective.direction == "minimize" else usual - pad
    far = best - pad if objective.direction == "minimize" else best + pad
    return {**told, "range": sorted((far, worst))}


def log_axis(values: Iterable[float]) -> dict[str, Any]:
    """A logarithmic axis with every number of its ticks written out; plotly shortens 0.05 to a small 5."""
    found = [value for value in values if value > 0]
    if not found:
        return {"type": "log"}
    low, high = math.log10(min(found)), math.log10(max(found))
    digits = (1, 2, 5) if high - low < 2.5 else (1,)
    exponents = range(math.floor(low) - 1, math.ceil(high) + 2)
    step = max(1, round((high - low) / 6))
    named = [digit * 10.0**k for k in exponents for digit in digits if k % step == 0 or len(digits) > 1]
    pad = 0.05 * (high - low) or 0.1
    inside = [value for value in named if low - pad <= math.log10(value) <= high + pad]
    return {
        "type": "log",
        "range": [round(low - pad, 4), round(high + pad, 4)],
        "tickvals": inside,
        "ticktext": [f"{value:.3g}" for value in inside],
    }


def drawn(trials: Sequence[Trial], objective: Objective, most: int = DRAWN) -> list[Trial]:
    """At most so many trials: the best third of them, and an even share of the others."""
    if len(trials) <= most:
        return list(trials)
    scored = sorted((t for t in trials if t.value is not None), key=lambda t: objective.key(t.score))
    kept = scored[: most // 3]
    known = {trial.number for trial in kept}
    others = [trial for trial in trials if trial.number not in known]
    step = len(others) / (most - len(kept))
    kept += [others[int(i * step)] for i in range(most - len(kept))]
    return sorted(kept, key=lambda trial: trial.number)


def left_out(shown: Sequence[Trial], of: Sequence[Trial]) -> str:
    """In words, that not all trials are drawn; nothing when all are."""
    if len(shown) == len(of):
        return ""
    return f" {len(shown):,} of {len(of):,} trials are drawn: the best, and an even share of the others."


def rounded(value: float) -> float:
    """A number with five digits: more cannot be seen, and the page carries thousands."""
    return float(f"{value:.5g}")
