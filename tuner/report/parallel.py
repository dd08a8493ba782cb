"""Parallel coordinates: every configuration as a line across the hyperparameters."""

from __future__ import annotations

import math
from typing import Any

from tuner.report.figure import Figure, axis, drawn, label, left_out
from tuner.report.record import StudyRecord, heading
from tuner.report.scale import place, ticks
from tuner.report.words import number

LINES = 150
"""At most so many are drawn."""


def parallel(record: StudyRecord) -> Figure | None:
    """Every configuration as a line across the hyperparameters, coloured by how good it was."""
    ranked = [(path, p) for path, p in record.ranked if any(path in (t.params or {}) for t in record.proposals)]
    finished = [t for t in record.proposals if t.value is not None and t.params]
    if len(ranked) < 2 or len(finished) < 2:
        return None
    ordered = sorted(drawn(finished, record.objective, LINES), key=lambda t: -record.objective.key(t.score))
    size = math.ceil(len(ordered) / 5)
    names = ("last fifth", "fourth fifth", "third fifth", "second fifth", "best fifth")
    data = []
    for fifth in range(5):
        group = ordered[fifth * size : (fifth + 1) * size]
        x: list[Any] = []
        y: list[Any] = []
        who: list[Any] = []
        for trial in group:
            for index, (path, parameter) in enumerate(ranked):
                there = place(parameter, (trial.params or {})[path]) if path in (trial.params or {}) else None
                x.append(index)
                y.append(None if there is None else round(min(max(there, -0.03), 1.03), 3))
                who.append(f"trial {trial.number}: {number(trial.score)}")
            x.append(None)
            y.append(None)
            who.append(None)
        if group:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": names[fifth] if len(ordered) >= 5 else number(group[0].score),
                    "x": x,
                    "y": y,
                    "text": who,
                    "line": {"color": f"@ramp{fifth}", "width": 1 + 0.25 * fifth},
                    "marker": {"size": 4},
                    "opacity": 0.45 + 0.12 * fifth,
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    annotations = [
        {"x": i, "y": at, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4, "font": {"size": 10},
         "bgcolor": "@veil"}
        for i, (_, parameter) in enumerate(ranked)
        for at, text in ticks(parameter)
    ]  # fmt: skip
    lines = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"color": "@muted", "width": 1}}
        for i in range(len(ranked))
    ]
    layout = {
        "xaxis": axis(
            tickvals=list(range(len(ranked))),
            ticktext=[label(heading(path, p)) for path, p in ranked],
            range=[-0.25, len(ranked) - 0.4],
            showgrid=False,
            side="top",
            tickangle=-30,
        ),
        "yaxis": axis(visible=False, range=[-0.06, 1.06]),
        "annotations": annotations,
        "shapes": lines,
        "hovermode": "closest",
    }
    says = (
        "Each line is a trial, across the hyperparameters in the order of their priorities, each on its own scale; the "
        "best fifth of the trials is drawn last and strongest. A line breaks where a hyperparameter does not apply."
        f"{left_out(ordered, finished)}"
    )
    return Figure("parallel", "All configurations", says, data, layout, 460, 84 * len(ranked))
