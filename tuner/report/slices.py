"""The objective against one hyperparameter at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.report.figure import DRAWN, Figure, axis, drawn, label, rounded, value_axis
from tuner.report.record import StudyRecord, heading
from tuner.report.scale import place, scale_in_words, ticks
from tuner.report.traces import Groups, mark
from tuner.report.words import number, without_root
from tuner.space import Choice
from tuner.trial import Trial, TrialState


def slices(record: StudyRecord) -> list[Figure]:
    """The objective against each hyperparameter on its own scale, in the order of the stated priorities."""
    finished = [t for t in record.proposals if t.value is not None and t.params]
    shown = drawn(finished, record.objective, DRAWN // 2)
    best = record.chosen.trial.number if record.chosen else None
    figures: list[Figure] = []
    values = value_axis([t.score for t in shown], record.objective)
    for path, parameter in record.ranked:
        there = [(t, place(parameter, (t.params or {})[path])) for t in shown if path in (t.params or {})]
        placed = [(t, at) for t, at in there if at is not None]
        if not placed:
            continue
        groups: Groups = (
            ("pruned", "@pruned", "x", lambda t: t.state is not TrialState.COMPLETE),
            ("complete", "@complete", "circle", lambda t: t.state is TrialState.COMPLETE and t.number != best),
            ("best", "@best", "star", lambda t: t.number == best),
        )
        data = []
        for kind, colour, symbol, belongs in groups:
            some = [(t, at) for t, at in placed if belongs(t)]
            if some:
                data.append(
                    {
                        "type": "scatter",
                        "mode": "markers",
                        "name": kind,
                        "x": [round(at, 4) for _, at in some],
                        "y": [rounded(t.score) for t, _ in some],
                        "text": [f"trial {t.number}: {label(number((t.params or {})[path]))}" for t, _ in some],
                        "marker": {"color": colour, "symbol": symbol, "size": 13 if kind == "best" else 6},
                        "hovertemplate": "%{text}<br>%{y}<extra></extra>",
                        "showlegend": False,
                    }
                )
        named = ticks(parameter)
        places = [at for _, at in placed]
        layout: dict[str, Any] = {
            "xaxis": axis(
                scale_in_words(parameter),
                tickvals=[round(at, 4) for at, _ in named],
                ticktext=[text for _, text in named],
                range=[min(-0.04, *places) - 0.01, max(1.04, *places) + 0.01],
                showgrid=not isinstance(parameter.range, Choice),
            ),
            "yaxis": values,
            "margin": {"t": 8, "r": 8, "l": 40, "b": 40},
        }
        default = place(parameter, parameter.default)
        if default is not None:
            layout["shapes"] = [mark(default)]
        figures.append(
            Figure(
                f"slice-{len(figures)}", heading(path, parameter), _of_slice(record, path, placed), data, layout, 240
            )
        )
    return figures


def _of_slice(record: StudyRecord, path: str, placed: Sequence[tuple[Trial, float]]) -> str:
    """A slice in words: where the best trials lie."""
    objective = record.objective
    best = sorted((t for t, _ in placed), key=lambda t: objective.key(t.score))[:5]
    values = [(t.params or {})[path] for t in best]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and min(numbers) < max(numbers):
        told = f"between {number(min(numbers))} and {number(max(numbers))}"
    else:
        told = "at " + ", ".join(dict.fromkeys(number(v) for v in values))
    finished = sum(t.value is not None for t in record.proposals)
    where = "" if len(placed) == finished else f" It applied in {len(placed)} of the {finished} trials."
    if finished > DRAWN // 2:
        where = ""
    return f"The best {len(best)} trials have {without_root(path)} {told}.{where}"
