"""The commands that tell others what studies found: report, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.home import Home

Named = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Names = Annotated[list[str], typer.Argument(help="Two studies or more of one objective.", metavar="NAME NAME…")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def report(
    name: Named,
    to: Annotated[Path, typer.Option(help="The file to write; one that is there is replaced.", metavar="FILE.html")],
) -> None:
    """Write one self-contained page on a study: the answer, the pictures, the table of trials.

    It needs no network and no other file, so it can be sent as it is. MLflow has the same page as the artifact
    `report.html` of the study's run. Docs: docs/report.md.
    """
    from tuner.report import study_page
    from tuner.service.entry import open_storage
    from tuner.service.reporting import record_of

    with open_storage(Home.from_environment()) as store:
        page = study_page(record_of(store, store.study(name)))
    _write(page, to)


def compare(
    names: Names,
    to: Annotated[Path | None, typer.Option(help="Also write a page to this file.", metavar="FILE.html")] = None,
    as_json: Json = False,
) -> None:
    """Put studies of one objective side by side: the best of each against what it cost.

    All of them are read at the same training times, so a longer study has no advantage there. Docs: docs/report.md.
    """
    from tuner.cli.tables import comparison_page as shown
    from tuner.cli.tables import print_wide
    from tuner.errors import SpecError
    from tuner.report import compare as compared
    from tuner.report import comparison_page, problems
    from tuner.service.entry import open_storage
    from tuner.service.reporting import record_of

    with open_storage(Home.from_environment()) as store:
        records = [record_of(store, store.study(name), measured=False) for name in dict.fromkeys(names)]
    if found := problems(records):
        raise SpecError("tuner compare", found)
    comparison = compared(records)
    if to is not None:
        _write(comparison_page(comparison), to)
    if as_json:
        typer.echo(json.dumps(comparison.to_json(), indent=2))
    else:
        print_wide(shown(comparison))


def _write(page: str, to: Path) -> None:
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(page, "utf-8")
    except OSError as error:
        raise typer.BadParameter(
            f"{to} cannot be written: {error.strerror}. Choose another file.", param_hint="--to"
        ) from error
    typer.echo(f"{to} ({len(page.encode()) / 1e6:.1f} MB)", err=True)
