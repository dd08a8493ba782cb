"""The commands that say what a study taught: diagnose, ablate."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tuner.home import Home

Named = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def diagnose(
    name: Named,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Diagnose this trial alone, from its own curves.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what limits a study, from its numbers, and what to change.

    Does its best underfit, overfit or diverge, do gradients vanish, was nothing learned, or is it fine? Learning curves
    and what sets trials apart say so, with the thresholds. Docs: docs/insight.md.
    """
    from tuner.service.diagnosing import diagnosis_of
    from tuner.service.entry import open_storage

    with open_storage(Home.from_environment()) as store:
        found = diagnosis_of(store, store.study(name), trial=trial)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    typer.echo("\n".join(found.lines))
