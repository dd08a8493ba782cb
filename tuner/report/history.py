"""The best so far, and every trial, against what had been spent by then."""

from __future__ import annotations

from typing import Any

from tuner.report.course import Moment, course
from tuner.report.figure import Figure, axis, drawn, left_out, rounded, value_axis
from tuner.report.record import StudyRecord
from tuner.report.traces import Groups
from tuner.report.words import counted, duration, number, unit_of_time
from tuner.trial import TrialState


def history(record: StudyRecord) -> Figure | None:
    """The value of each trial and the best so far, over the training time spent by then."""
    moments = course(record.trials, record.objective)
    ended = [moment.trial for moment in moments]
    shown = drawn(ended, record.objective)
    known = {trial.number for trial in shown}
    valued = [m for m in moments if m.trial.value is not None and m.trial.number in known]
    steps = [m for m in moments if m.best is not None and (m.improved or m is moments[-1])]
    if not steps:
        return None
    unit, name = unit_of_time(moments[-1].seconds)
    metric = record.objective.metric

    def x(moment: Moment) -> float:
        return rounded(moment.seconds / unit)

    groups: Groups = (
        ("pruned", "@pruned", "x", lambda t: t.confirms is None and t.state is not TrialState.COMPLETE),
        ("complete", "@complete", "circle", lambda t: t.confirms is None and t.state is TrialState.COMPLETE),
        ("confirming", "@confirm", "diamond-open", lambda t: t.confirms is not None),
    )
    data: list[dict[str, Any]] = []
    for kind, colour, symbol, belongs in groups:
        there = [m for m in valued if belongs(m.trial)]
        if there:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [x(m) for m in there],
                    "y": [rounded(m.trial.score) for m in there],
                    "customdata": [[m.trial.number, m.epochs] for m in there],
                    "marker": {"color": colour, "symbol": symbol, "size": 7},
                    "hovertemplate": f"trial %{{customdata[0]}}: %{{y}}<br>after %{{x}} {name}, "
                    f"%{{customdata[1]}} epochs<extra>{kind}</extra>",
                }
            )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [x(m) for m in steps],
            "y": [rounded(m.best or 0.0) for m in steps],
            "line": {"shape": "hv", "color": "@best", "width": 3},
            "hovertemplate": "best %{y}<extra></extra>",
        }
    )
    first, last = steps[0], steps[-1]
    improved = [m for m in moments if m.improved]
    says = (
        f"The best {metric} went from {number(first.best)} after {duration(first.seconds)} of training to "
        f"{number(last.best)} after {duration(improved[-1].seconds)}, in {counted(len(improved), 'step')}; "
        f"{duration(moments[-1].seconds)} were spent in all.{left_out(shown, ended)}"
    )
    layout = {
        "xaxis": axis(f"training time, {name}", rangemode="tozero"),
        "yaxis": value_axis([m.trial.score for m in valued], record.objective),
    }
    return Figure("history", "Best against cost", says, data, layout)
