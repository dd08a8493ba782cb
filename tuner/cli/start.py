"""The commands that a new project begins with: init, and what others have learnt (prior)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.reuse import import_from_here


def init(
    model: Annotated[str, typer.Argument(help="Your LightningModule.", metavar="MODULE:CLASS")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Your LightningDataModule; leave it out if the module has its loaders.", metavar="MODULE:CLASS"
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="The file to write; - is stdout.", metavar="FILE")] = "study.yaml",
    name: Annotated[
        str | None, typer.Option(help="The study's name; by default the class's.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Draft a study file for your own module: its space guessed from the arguments, with reasons.

    Arguments with usual names (lr, hidden_dim, dropout, weight_decay, batch_size, …) get a range around their own
    default and a priority; the others are listed as comments. The metric is read from what the module logs. Docs:
    docs/reuse.md.
    """
    import_from_here()
    from tuner.service.drafting import draft, not_free

    printed = to == "-"
    wrong = [] if printed else not_free(Path(to), force=force)
    drafted = draft(model, data, name, to, wrong)
    if printed:
        typer.echo(drafted.text, nl=False)
    else:
        Path(to).parent.mkdir(parents=True, exist_ok=True)
        Path(to).write_text(drafted.text, "utf-8")
        typer.echo(f"{to} searches {', '.join(drafted.searched) or 'nothing yet'}.", err=True)
    for note in drafted.notes:
        typer.echo(f"look at {note}", err=True)
    if drafted.problems:
        typer.echo("It does not run yet; it needs from you:", err=True)
        for problem in drafted.problems:
            typer.echo(f"  {problem.path}  {problem.message}", err=True)
    elif not printed:
        typer.echo(f"Read it, then: tuner run {to} --trials 0    checks it; tuner run {to}    runs it", err=True)
