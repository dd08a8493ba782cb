"""Gradient norms by layer, where LayerStatistics logged them."""

from __future__ import annotations

from typing import Any

from tuner.report.figure import Figure, axis, label, log_axis
from tuner.report.record import StudyRecord
from tuner.report.traces import points_of, strung
from tuner.report.words import counted, number

GRADIENT = "grad_norm/"


def layers(record: StudyRecord) -> Figure | None:
    """The gradient norm of every layer by epoch in the best trial, where LayerStatistics was switched on."""
    if record.chosen is None:
        return None
    trial = record.chosen.trial
    logged = record.curves.get(trial.number, ())
    names = list(dict.fromkeys(name for report in logged for name in report.metrics if name.startswith(GRADIENT)))
    names.sort(key=_by_depth)
    found = {name: points_of(logged, name) for name in names}
    found = {name: points for name, points in found.items() if points and any(v > 0 for _, v in points)}
    if not found:
        return None
    data = []
    for index, (name, points) in enumerate(found.items()):
        x, y, _ = strung([(trial.number, points)])
        layer = label(name.removeprefix(GRADIENT))
        colour = f"@ramp{round(4 * index / max(1, len(found) - 1))}"
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(points) < 10 else "lines",
                "name": layer,
                "x": x,
                "y": y,
                "line": {"color": colour, "width": 2},
                "hovertemplate": f"{layer}, epoch %{{x}}: %{{y:.3g}}<extra></extra>",
            }
        )
    first, last = (list(found)[i] for i in (0, -1))
    norms = [found[name][-1][1] for name in (first, last)]
    told = ""
    if min(norms) > 0 and len(found) > 1:
        times = norms[0] / norms[1]
        told = (
            f" In the last epoch the norm at {first.removeprefix(GRADIENT)} is {number(norms[0])}, at "
            f"{last.removeprefix(GRADIENT)} {number(norms[1])}: {times:.3g} times as large at the first layer."
        )
    says = f"Norm of the gradient of {counted(len(found), 'layer')} by epoch in the best trial, {trial.number}.{told}"
    layout = {
        "xaxis": axis("epoch", rangemode="tozero"),
        "yaxis": axis("gradient norm", **log_axis(v for points in found.values() for _, v in points)),
    }
    return Figure("layers", "Gradient norms by layer", says, data, layout)


def _by_depth(name: str) -> list[Any]:
    """Layers in the order of the numbers in their paths: `net.2` before `net.10`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.replace("/", ".").split(".")]
