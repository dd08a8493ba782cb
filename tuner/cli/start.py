"""The commands that a new project begins with: init, and what other studies have taught (prior)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.reuse import import_from_here
from tuner.errors import Problem, SpecError
from tuner.home import Home

prior = typer.Typer(no_args_is_help=True, help="What studies have taught, as a file that goes from project to project.")

Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


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
    force: Force = False,
) -> None:
    """Draft a study file for your own module: its space guessed from the arguments, with reasons.

    Arguments with usual names (lr, hidden_dim, dropout, weight_decay, batch_size, …) get a range around their own
    default and a priority; the others are listed as comments. The metric is read from what the module logs. Docs:
    docs/reuse.md.
    """
    import_from_here()
    from tuner.service.drafting import draft

    printed = to == "-"
    drafted = draft(model, data, name, to, _not_free(to, force))
    _write(drafted.text, to)
    if not printed:
        typer.echo(f"{to} searches {', '.join(drafted.searched) or 'nothing yet'}.", err=True)
    for note in drafted.notes:
        typer.echo(f"look at {note}", err=True)
    if drafted.problems:
        typer.echo("It does not run yet; it needs from you:", err=True)
        for problem in drafted.problems:
            typer.echo(f"  {problem.path}  {problem.message}", err=True)
    elif not printed:
        typer.echo(f"Read it, then: tuner run {to} --trials 0    checks it; tuner run {to}    runs it", err=True)


@prior.command("export")
def export_prior(
    names: Annotated[list[str], typer.Argument(help="The studies to learn from.", metavar="NAME…")],
    to: Annotated[str, typer.Option(help="The file to write; - is stdout.", metavar="FILE")] = "prior.yaml",
    force: Force = False,
) -> None:
    """Write what studies have taught: the bests of each hyperparameter, and what lies around them.

    The file names nothing of this machine. A study begins with it by `space: {use: mlp, from: prior.yaml}`.
    """
    from tuner.service.learning import learn

    learnt = learn(names, Home.from_environment(), _not_free(to, force))
    _write(learnt.text(), to)
    if to != "-":
        counts = f"{len(learnt.hyperparameters)} hyperparameters of {len(learnt.studies)} studies"
        typer.echo(f"{to} has {counts}.", err=True)
        typer.echo(f"Begin another with it: tuner run STUDY --set search.start={to}", err=True)


@prior.command("import")
def import_prior(
    file: Annotated[str, typer.Argument(help="A file of `tuner prior export`.", metavar="FILE")],
    space: Annotated[
        str | None,
        typer.Option(
            help="A documented space, or the file of a space or a study, to begin where they ended.",
            metavar="NAME|FILE",
            show_default=False,
        ),
    ] = None,
    to: Annotated[str, typer.Option(help="The space to write; - is stdout.", metavar="FILE")] = "-",
    force: Force = False,
) -> None:
    """Read and check what studies have taught; with --space, lay it over a space, as a file to read and to edit.

    Defaults move to what was found, and `why` says where it comes from; ranges stay as they are. Of the same class the
    values are taken as they are; of another, as far from its default as they lay from theirs.
    """
    from tuner.service.learning import laid_over, summary
    from tuner.space.prior import read_prior

    if wrong := _not_free(to, force):
        raise SpecError("tuner prior import", wrong)
    read = read_prior(file)
    if space is None:
        typer.echo("\n".join(summary(read)))
        return
    _write(laid_over(read, space), to)
    if to != "-":
        typer.echo(f"{to} is a space: write `space: {to}` into a study, or see it with: tuner space {to}", err=True)


def _not_free(to: str, force: bool) -> list[Problem]:
    """What stands against writing a file: nothing is overwritten unless that is asked for."""
    if to == "-":
        return []
    if Path(to).is_dir():
        return [Problem(f"--to {to}", "must be a file, but is a folder.")]
    if Path(to).exists() and not force:
        return [Problem(f"--to {to}", "must not exist yet, but it does. Name another, or overwrite it with --force.")]
    return []


def _write(text: str, to: str) -> None:
    """Write a text into a file, or on stdout."""
    if to == "-":
        typer.echo(text, nl=False)
        return
    Path(to).parent.mkdir(parents=True, exist_ok=True)
    Path(to).write_text(text, "utf-8")
