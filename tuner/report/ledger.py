"""What the training time went into."""

from __future__ import annotations

from tuner.report.course import spent
from tuner.report.figure import Figure, axis, rounded
from tuner.report.record import StudyRecord
from tuner.report.traces import came_to_nothing
from tuner.report.words import counted, duration
from tuner.trial import TrialState


def ledger(record: StudyRecord) -> Figure | None:
    """What the training time went into: trials of use, pruned ones, those that came to nothing, confirming runs."""
    total = dict.fromkeys(("complete", "pruned", "came to nothing", "interrupted", "confirming"), 0.0)
    count = dict.fromkeys(total, 0)
    for trial in record.trials:
        if trial.result is None:
            kind = None
        elif trial.confirms is not None:
            kind = "confirming"
        elif trial.state is TrialState.FAILED or came_to_nothing(trial):
            kind = "came to nothing"
        else:
            kind = trial.state.value
        if kind is not None:
            total[kind] += spent(trial) - trial.wasted_seconds
            count[kind] += 1
        total["interrupted"] += trial.wasted_seconds
        count["interrupted"] += trial.wasted_seconds > 0
    time = sum(total.values())
    if not time:
        return None
    colours = {
        "complete": "@complete", "pruned": "@pruned", "came to nothing": "@failed", "interrupted": "@lost",
        "confirming": "@confirm",
    }  # fmt: skip
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": kind,
            "y": ["time"],
            "x": [rounded(100 * seconds / time)],
            "text": [f"{100 * seconds / time:.0f} %"],
            "textposition": "inside",
            "textangle": 0,
            "insidetextanchor": "middle",
            "insidetextfont": {"color": "@ink"},
            "marker": {"color": colours[kind]},
            "hovertemplate": f"{kind}: {duration(seconds)}, {counted(count[kind], 'trial')}<extra></extra>",
        }
        for kind, seconds in total.items()
        if seconds > 0
    ]
    told = "; ".join(
        f"{kind} {duration(seconds)} ({100 * seconds / time:.0f} %, {counted(count[kind], 'trial')})"
        for kind, seconds in total.items()
        if seconds > 0
    )
    layout = {
        "barmode": "stack",
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
            "traceorder": "normal",
        },
        "xaxis": axis(ticksuffix=" %", range=[0, 100]),
        "yaxis": axis(visible=False),
    }
    return Figure("ledger", "Where the time went", f"{duration(time)} of training: {told}.", data, layout, 170)
