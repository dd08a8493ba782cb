"""Learning curves with their spread over the seeds, as one SVG."""

from __future__ import annotations

import html
import io

from tuner.insight.ablation import Ablation, curves_of
from tuner.insight.finding import Curves

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart."""


def draw(ablation: Ablation, curves: Curves) -> str:
    """Draw the objective by epoch, and the training loss beside it where that is logged: a line and a band a value.

    Returns:
        An SVG.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # a second of imports, and only for a picture
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    logged = {name for reports in curves.values() for report in reports for name in report.metrics}
    metric = ablation.objective.metric
    beside = metric.replace("val", "train", 1)
    metrics = [metric, *([beside] if beside in logged and beside != metric else [])]
    figure = Figure(figsize=(5.2 * len(metrics), 4.0), layout="constrained")
    for number, name in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), number + 1)
        found = curves_of(ablation, curves, name)
        for colour, (value, curve) in zip(COLOURS * len(found), found.items(), strict=False):
            epochs = [epoch for epoch, _, _ in curve]
            axes.plot(epochs, [mean for _, mean, _ in curve], color=colour, label=value)
            low, high = [mean - d for _, mean, d in curve], [mean + d for _, mean, d in curve]
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        means = [mean for curve in found.values() for _, mean, _ in curve]
        if means and min(means) > 0 and max(means) > 10 * min(means):
            axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if number == 0:
            axes.legend(title=ablation.over.partition(".")[2], frameon=False)
    seeds = max(len(level.seeds) for level in ablation.levels)
    figure.suptitle(f"{ablation.study}: mean ± deviation over {seeds} seeds")
    written = io.StringIO()
    FigureCanvasSVG(figure).print_figure(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def page(ablation: Ablation, svg: str) -> str:
    """The picture and the sentences below it, as one HTML page that needs nothing else."""
    said = "".join(f"<p>{html.escape(line)}</p>" for line in ablation.lines)
    body = svg[svg.index("<svg") :]
    title = html.escape(ablation.study)
    style = "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}svg{max-width:100%;height:auto}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{title}</h1>{body}{said}</body></html>\n'
