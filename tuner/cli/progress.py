"""What a person sees while a study runs: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.report.words import duration
from tuner.trial import Objective, Trial, TrialState

if TYPE_CHECKING:
    from tuner.spec import StudySpec
    from tuner.storage import Store, StudyRow, Summary

PLAIN_SECONDS = 60.0
BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def progress(*, quiet: bool, as_json: bool) -> Iterator[Progress]:
    """Show progress while the body runs: on stderr when stdout is for JSON, nowhere when `quiet`."""
    stream: TextIO = sys.stderr if as_json else sys.stdout
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    if quiet:
        yield Progress()
    elif stream.isatty():
        console = Console(file=stream)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield Panelled(live)
    else:
        yield Lines(stream)


class Progress:
    """Follows a study and shows nothing; the base of those that do."""

    def __init__(self) -> None:
        self.study: str | None = None
        self._trials: dict[int, Trial] = {}
        self._epochs: deque[tuple[float, int]] = deque(maxlen=60)
        self._began = time.monotonic()
        self._spec: StudySpec | None = None

    def watch(self, store: Store, study: str) -> None:
        """Look at the study and show how it stands."""
        self.study = study
        row = store.study(study)
        known = {number: trial.revision for number, trial in self._trials.items()}
        self._trials |= {trial.number: trial for trial in store.trials(row.id, known)}
        summary = store.summary(row.id)
        self._epochs.append((time.monotonic(), summary.epochs))
        self.show(row, summary)

    def show(self, row: StudyRow, summary: Summary) -> None:
        """Show a look."""

    def searching(self, row: StudyRow, summary: Summary) -> str:
        """What proposes configurations, and which priorities it moves now."""
        from tuner.service.entry import spec_of
        from tuner.service.result import searching

        if self._spec is None:
            self._spec = spec_of(row)  # it does not change while it runs
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)
        return searching(self._spec, sum(summary.count(state) for state in states))

    def best_so_far(self, row: StudyRow) -> tuple[Trial | None, list[float]]:
        """The best complete proposal, and the best value after each of them in the order they ended."""
        objective = Objective(row.document["objective"]["metric"], row.document["objective"]["direction"])
        best, history = None, []
        done = [t for t in self._trials.values() if t.confirms is None and t.state is TrialState.COMPLETE]
        for trial in sorted(done, key=lambda t: t.finished or 0.0):
            if best is None or objective.better(trial.score, best.score):
                best = trial
            history.append(best.score)
        return best, history

    def speed(self) -> float:
        """Epochs a second over the last half minute."""
        if len(self._epochs) < 2:
            return 0.0
        (earlier, before), (later, after) = self._epochs[0], self._epochs[-1]
        return max(0.0, (after - before) / (later - earlier)) if later > earlier else 0.0

    def seconds_left(self, row: StudyRow, summary: Summary) -> float | None:
        """How long the search will still take: by its trials, its epochs or its time, whichever ends first."""
        search = row.document["search"]
        elapsed = time.monotonic() - self._began
        finished = [t for t in self._trials.values() if t.state.finished and t.confirms is None]
        left = []
        here = [t for t in finished if (t.finished or 0.0) >= time.time() - elapsed]
        if search["trials"] is not None and here:
            left.append((search["trials"] - len(finished)) * elapsed / len(here))
        if search["epochs"] is not None and self.speed():
            left.append((search["epochs"] - summary.epochs) / self.speed())
        if search["time"] is not None:
            left.append(search["time"] - row.active_seconds - elapsed)
        return max(0.0, min(left)) if left else None


class Lines(Progress):
    """A line at each new best and one a minute."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._told = -1
        self._last = time.monotonic()

    def show(self, row: StudyRow, summary: Summary) -> None:
        """Print a line when there is something to say."""
        best, _ = self.best_so_far(row)
        new_best = best is not None and best.number != self._told
        if not new_best and time.monotonic() - self._last < PLAIN_SECONDS:
            return
        self._last = time.monotonic()
        line = f"{row.name}: {_counts(summary)}"
        if best is not None:
            self._told = best.number
            line += f"; {'new best' if new_best else 'best'} {row.document['objective']['metric']} "
            line += f"{best.value:.6g} in trial {best.number}"
        line += f"; searching {self.searching(row, summary)}"
        print(line, file=self._stream, flush=True)


class Panelled(Progress):
    """A panel that is redrawn in place."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live
        live.update(Text("Checking the study and starting workers…", style="dim"))

    def show(self, row: StudyRow, summary: Summary) -> None:
        """Redraw the panel."""
        best, history = self.best_so_far(row)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", justify="right")
        table.add_column()
        budget = row.document["search"]["trials"]
        if budget:
            done = sum(summary.count(s) for s in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED))
            table.add_row(f"{done} of {budget}", ProgressBar(total=budget, completed=done))
        table.add_row("trials", _counts(summary))
        if best is not None:
            metric = row.document["objective"]["metric"]
            others = [f"{k} {v:.4g}" for k, v in best.outcome.metrics.items() if k.startswith("val_") and k != metric]
            told = Text(f"{metric} {best.value:.6g}", style="bold green")
            told.append(f"  {'  '.join(others)}  trial {best.number}  ", style="not bold default")
            told.append(sparkline(history), style="cyan")
            table.add_row("best", told)
        table.add_row("searching", self.searching(row, summary))
        left = self.seconds_left(row, summary)
        pace = f"{self.speed():.1f} epochs/s"
        if summary.confirming:
            pace += f"; confirming the leaders with new seeds ({summary.confirming} runs)"
        elif left is not None:
            pace += f", about {duration(left)} left"
        table.add_row("pace", pace)
        failed = [t for t in self._trials.values() if t.state is TrialState.FAILED]
        if failed:
            table.add_row("failed", Text(f"trial {failed[-1].number}: {failed[-1].outcome.reason}", style="red"))
        self._live.update(Panel(table, title=f"[bold]{row.name}", subtitle="Ctrl-C stops and saves"))


def sparkline(values: list[float], width: int = 30) -> str:
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
