"""The leading trials as a table that is never wider than where it is printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table
from rich.text import Text

from tuner.report.words import number, without_root
from tuner.trial import Objective, Trial

LEADERS = 10
PADDING = 2  # cells that a column takes beside what is in it


class Leaders:
    """The leading trials, with those parameters in which they differ, in the order of their stated priorities.

    As many parameters have a column as fit; a line names the others. Where that makes room, headings are folded after
    an underscore, a dot or a slash. Values never are.

    Args:
        study: its name.
        leaders: the trials, best first.
        objective: whose value they have.
        space: the parameters, as the study file has them.
    """

    def __init__(self, study: str, leaders: Sequence[Trial], objective: Objective, space: Mapping[str, Any]) -> None:
        ranked = sorted(space, key=lambda path: space[path].get("priority") or 99)
        values = {path: [number((trial.params or {}).get(path, "–")) for trial in leaders] for path in ranked}
        self._study = study
        self._always = (
            ("trial", [str(trial.number) for trial in leaders]),
            (objective.metric, [number(trial.score) for trial in leaders]),
            ("epoch", [str(trial.outcome.best_epoch) for trial in leaders]),
        )
        self._parameters = [(without_root(path), told) for path, told in values.items() if len(set(told)) > 1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """The table, and what it leaves out."""
        whole = [*self._always, *self._parameters]
        fold = sum(_width(name, told) for name, told in whole) > options.max_width
        table, room = Table(box=None, header_style="bold"), options.max_width
        columns, left_out = [], []
        for index, (name, told) in enumerate(whole):
            heading = _folded(name, max(map(cell_len, told))) if fold else name
            width = _width(heading, told)
            if index >= len(self._always) and width > room:
                left_out.append(name)
                continue
            room -= width
            table.add_column(Text(heading), justify="right", vertical="bottom", no_wrap=True)
            columns.append(told)
        for line in zip(*columns, strict=True):
            table.add_row(*map(Text, line))
        yield table
        if left_out:
            yield Text(f"no room for {', '.join(left_out)}", style="dim")
            yield Text(f"all of them: tuner show {self._study} --json", style="dim")


def leaders_json(leaders: Sequence[Trial]) -> list[dict[str, Any]]:
    """The leading trials with all their parameters, as `tuner show --json` has them."""
    return [
        {"trial": t.number, "value": t.score, "epoch": t.outcome.best_epoch, "params": dict(t.params or {})}
        for t in leaders
    ]


def _width(heading: str, values: Sequence[str]) -> int:
    """The cells that a column takes."""
    return max(map(cell_len, (*heading.splitlines(), *values))) + PADDING


def _folded(name: str, width: int) -> str:
    """A name in lines of so many cells, or of as many as its longest part."""
    parts = [part for part in re.split(r"(?<=[_./])", name) if part]
    width = max(width, *map(cell_len, parts))
    lines = [""]
    for part in parts:
        if cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
