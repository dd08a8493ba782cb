"""The objective of all trials by epoch."""

from __future__ import annotations

import math

from tuner.report.figure import Figure, axis, drawn, left_out, value_axis
from tuner.report.record import StudyRecord
from tuner.report.traces import came_to_nothing, strung
from tuner.trial import TrialState

CURVES = 300
"""At most so many are drawn."""


def curves(record: StudyRecord) -> Figure | None:
    """The objective of every trial by epoch, the pruned ones faded, the best in front."""
    there = [t for t in record.proposals if t.values]
    shown = drawn(there, record.objective, CURVES)
    if not shown:
        return None
    best = record.chosen.trial.number if record.chosen else None
    groups = (
        ("pruned", "@pruned", 1.0, 0.55, lambda t: t.state is TrialState.PRUNED and not came_to_nothing(t)),
        ("came to nothing", "@failed", 1.0, 0.8, lambda t: t.state is TrialState.FAILED or came_to_nothing(t)),
        ("running", "@second", 1.2, 0.9, lambda t: not t.state.finished),
        ("complete", "@complete", 1.2, 0.8, lambda t: t.state is TrialState.COMPLETE and t.number != best),
        ("best", "@best", 3.0, 1.0, lambda t: t.number == best),
    )
    data, counts = [], []
    for kind, colour, width, opacity, belongs in groups:
        lines = [trial for trial in shown if belongs(trial)]
        if not lines:
            continue
        counts.append(f"{len(lines)} {kind}")
        x, y, who = strung([(t.number, sorted(t.values.items())) for t in lines])
        data.append(
            {
                "type": "scatter",
                "mode": "lines" if any(len(t.values) > 1 for t in lines) else "lines+markers",
                "name": f"{kind} (trial {best})" if kind == "best" else kind,
                "x": x,
                "y": y,
                "customdata": who,
                "line": {"color": colour, "width": width},
                "opacity": opacity,
                "hovertemplate": f"trial %{{customdata}}, epoch %{{x}}: %{{y}}<extra>{kind}</extra>",
            }
        )
    every = [v for t in shown for v in t.values.values() if math.isfinite(v)]
    pruned = any(trial.state is TrialState.PRUNED for trial in shown)
    faded = " Pruned trials are faded; they end where others had overtaken them." if pruned else ""
    says = f"{record.objective.metric} by epoch: {', '.join(counts)}.{faded}{left_out(shown, there)}"
    layout = {"xaxis": axis("epoch", rangemode="tozero"), "yaxis": value_axis(every, record.objective)}
    return Figure("curves", "Learning curves", says, data, layout)
