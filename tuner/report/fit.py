"""How the best trial fits the training data, and the validation data."""

from __future__ import annotations

from typing import Any

from tuner.report.figure import Figure, axis, log_axis
from tuner.report.record import StudyRecord
from tuner.report.traces import mark, points_of, strung
from tuner.report.words import number


def fit(record: StudyRecord) -> Figure | None:
    """Training and validation loss of the best trial by epoch: how well it fits, and how well that carries over."""
    if record.chosen is None:
        return None
    trial = record.chosen.trial
    logged = record.curves.get(trial.number, ())
    pairs = (("train_loss", "@second"), ("val_loss", "@best"))
    data: list[dict[str, Any]] = []
    losses: list[float] = []
    for name, colour in pairs:
        points = points_of(logged, name)
        losses += [value for _, value in points]
        if points:
            x, y, _ = strung([(trial.number, points)])
            line = {"color": colour, "width": 2}
            hover = f"epoch %{{x}}: %{{y}}<extra>{name}</extra>"
            data.append({"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line})
            data[-1]["hovertemplate"] = hover
    if len(data) < 2:
        return None
    epoch = trial.outcome.best_epoch
    at_best = [dict(points_of(logged, name)).get(epoch or 0) for name, _ in pairs]
    told = ""
    if None not in at_best:
        losses_there = f"the training loss is {number(at_best[0])}, the validation loss {number(at_best[1])}"
        told = f" At its best epoch, {epoch}, {losses_there}."
    layout: dict[str, Any] = {"xaxis": axis("epoch", rangemode="tozero"), "yaxis": axis("loss", **log_axis(losses))}
    if epoch:
        layout["shapes"] = [mark(epoch)]
    return Figure(
        "fit", f"How trial {trial.number} fits", f"Training and validation loss of the best trial.{told}", data, layout
    )
