"""What a person sees while a study runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.insight.reading import ENTROPY
from tuner.report.words import counted, duration
from tuner.trial import TrialState

if TYPE_CHECKING:
    from tuner.service.standing import Follower, Standing
    from tuner.storage import Store, Summary

PLAIN_SECONDS = 60.0
BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def progress(*, quiet: bool, as_json: bool, leaving: str = "Ctrl-C stops and saves") -> Iterator[Progress]:
    """Show progress while the body runs: on stderr when stdout is for JSON, nowhere when `quiet`."""
    stream: TextIO = sys.stderr if as_json else sys.stdout
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if quiet:
        yield Progress()
    elif stream.isatty():
        console = Console(file=stream)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield Panelled(live, leaving)
    else:
        yield Lines(stream)


class Progress:
    """Follows a study and shows nothing; the base of those that do."""

    def __init__(self) -> None:
        self.study: str | None = None
        self._follower: Follower | None = None

    def watch(self, store: Store, study: str) -> Standing:
        """Look at the study and show how it stands."""
        from tuner.service.standing import Follower

        self.study = study
        self._follower = self._follower or Follower(store, study)
        standing = self._follower.look()
        self.show(standing)
        return standing

    def show(self, standing: Standing) -> None:
        """Show a look."""


class Lines(Progress):
    """A line at each new best and one a minute."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._told = -1
        self._last = time.monotonic()

    def show(self, standing: Standing) -> None:
        """Print a line when there is something to say."""
        row, best = standing.row, standing.best
        new_best = best is not None and best.number != self._told
        if not new_best and time.monotonic() - self._last < PLAIN_SECONDS:
            return
        self._last = time.monotonic()
        line = f"{row.name}: {_counts(standing.summary)}"
        if best is not None:
            self._told = best.number
            line += f"; {'new best' if new_best else 'best'} {row.document['objective']['metric']} "
            line += f"{best.value:.6g} in trial {best.number}"
        line += f"; searching {standing.searching}"
        print(line, file=self._stream, flush=True)


class Panelled(Progress):
    """A panel that is redrawn in place."""

    def __init__(self, live: Live, leaving: str = "Ctrl-C stops and saves") -> None:
        super().__init__()
        self._live, self._leaving = live, leaving
        live.update(Text("Checking the study and starting workers…", style="dim"))

    def show(self, standing: Standing) -> None:
        """Redraw the panel."""
        self._live.update(panel(standing, self._leaving))


def panel(standing: Standing, leaving: str) -> Panel:
    """A look at a study.

    Args:
        standing: the look.
        leaving: what Ctrl-C does.
    """
    row, summary, best = standing.row, standing.summary, standing.best
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column()
    if budget := row.document["search"]["trials"]:
        table.add_row(f"{standing.done} of {budget}", ProgressBar(total=budget, completed=min(standing.done, budget)))
    table.add_row("trials", _counts(summary))
    if best is not None:
        metric = row.objective.metric
        validated = {
            k: v for k, v in best.outcome.metrics.items() if k.startswith("val_") and k not in (metric, ENTROPY)
        }
        others = [f"{k} {v:.4g}" for k, v in validated.items()]
        told = Text(f"{metric} {best.value:.6g}", style="bold green")
        told.append("  ".join(["", *others, f"trial {best.number}"]), style="not bold default")
        table.add_row("best", told)
        table.add_row("so far", Text(sparkline(list(standing.history)), style="cyan"))
    if standing.running:
        table.add_row("searching", standing.searching)
        table.add_row("workers", _workers(standing))
        table.add_row("pace", _pace(standing))
    cost = f"{counted(summary.epochs, 'epoch')} in {duration(summary.seconds)} of training"
    if summary.wasted_seconds >= 1:
        cost += f", {duration(summary.wasted_seconds)} of them for nothing"
    table.add_row("cost", cost)
    for number, reason in standing.failures:
        table.add_row("failed", Text(f"trial {number}: {reason}", style="red"))
    return Panel(table, title=f"[bold]{row.name}[/bold] · {row.state}", subtitle=leaving)


def _workers(standing: Standing) -> str:
    if not standing.workers:
        return "none is training"
    if len(standing.workers) == 1:
        ((machine, count),) = standing.workers.items()
        return f"{counted(count, 'worker')} on {machine}"
    places = ", ".join(f"{count} on {machine}" for machine, count in sorted(standing.workers.items()))
    return f"{counted(sum(standing.workers.values()), 'worker')}: {places}"


def _pace(standing: Standing) -> str:
    pace = f"{standing.epochs_per_second:.1f} epochs/s"
    if confirming := standing.confirming:
        return f"{pace}; confirming the leaders with new seeds ({counted(confirming, 'run')})"
    left = standing.seconds_left
    return pace if not left else f"{pace}, about {duration(left)} left"


def sparkline(values: list[float], width: int = 60) -> str:
    """Values as a row of bars, the latest last."""
    recent = values[-width:]
    if not recent:
        return ""
    low, high = min(recent), max(recent)
    if high == low:
        return BARS[0] * len(recent)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in recent)


def _counts(summary: Summary) -> str:
    names = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAILED: "failed",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }
    told = [f"{summary.count(state)} {name}" for state, name in names.items() if summary.count(state)]
    return ", ".join(told) or "none yet"
