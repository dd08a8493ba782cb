"""The commands that say what a study taught: diagnose, ablate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.reuse import INTERRUPTED
from tuner.home import Home

Named = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def diagnose(
    name: Named,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Diagnose this trial alone, from its own curves.", show_default=False)
    ] = None,
    next_: Annotated[
        Path | None,
        typer.Option(
            "--next", help="Write the next study: its space moved as advised, begun with this best.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what limits a study, from its numbers, and what to change.

    Does its best underfit, overfit or diverge, do gradients vanish, was nothing learned, or is it fine? Learning curves
    and what sets trials apart say so, with the thresholds. Docs: docs/insight.md.
    """
    from tuner.service.diagnosing import diagnosis_of, next_study
    from tuner.service.entry import open_storage
    from tuner.space.yaml import read_yaml

    if next_ is not None and trial is not None:
        raise typer.BadParameter("follows a study, not one trial: leave --trial out.", param_hint="--next")
    if next_ is not None and next_.exists():
        raise typer.BadParameter(f"{next_} exists already. Name another file.", param_hint="--next")
    _check_folder(next_, "--next")
    home, follower = Home.from_environment(), ""
    with open_storage(home) as store:
        row = store.study(name)
        found = diagnosis_of(store, row, trial=trial)
        if next_ is not None:
            from tuner.engine.crew import Crew

            text = next_study(store, row, found, Crew(home).inspect)
            next_.write_text(text, "utf-8")
            follower = read_yaml(text)[0]["study"]
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    typer.echo("\n".join(found.lines))
    if next_ is not None:
        typer.echo(f"The next study is in {next_}, each change with its reason. Run it: tuner run {next_}")
        typer.echo(f"What it has brought, then: tuner compare {name} {follower}")


def ablate(
    study: Annotated[
        str,
        typer.Argument(help="A stored study, kept at its best; else a study file or an example, kept at its defaults."),
    ],
    over: Annotated[
        str, typer.Option(help="What to vary, such as model.norm=none,batch,layer.", metavar="PATH=V1,V2,…")
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each value; the seeds are the same for all values.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")] = 1,
    to: Annotated[
        Path | None, typer.Option(help="Also write the picture, as FILE.svg or FILE.html.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a value of the study by its path; study=NAME names the ablation.",
            metavar="PATH=VALUE",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
) -> None:
    """Train with and without: one choice, several seeds, everything else fixed; say whether they can be told apart.

    It is a study of its own (NAME-CHOICE) and goes on when asked again, also with more seeds. Values are compared seed
    by seed with a paired t test. The learning curves with their spread are an artifact of its run in MLflow.
    """
    from tuner.cli.progress import progress
    from tuner.engine import ablate as run_ablation
    from tuner.insight import page
    from tuner.spec import parse_override

    if to is not None and to.suffix not in (".svg", ".html"):
        raise typer.BadParameter(f"must end in .svg or .html, but got {to}.", param_hint="--to")
    _check_folder(to, "--to")
    overrides = [parse_override(text) for text in set_ or []]
    home = Home.from_environment()
    with progress(quiet=quiet, as_json=as_json) as shown:
        try:
            done = run_ablation(study, over, seeds, overrides=overrides, workers=workers, home=home, watch=shown.watch)
        except KeyboardInterrupt as error:
            typer.echo("Interrupted; the state is saved. The same command goes on.", err=True)
            raise typer.Exit(INTERRUPTED) from error
    found = done.ablation
    if to is not None:
        to.write_text(page(found, done.picture) if to.suffix == ".html" else done.picture, "utf-8")
    if as_json:
        typer.echo(json.dumps(found.to_json() | {"fixed_at": done.base}, indent=2))
    else:
        typer.echo("\n".join([*found.lines, f"Everything else is as in {done.base}."]))
        typer.echo(f"curves: {to if to is not None else 'tuner ui, artifact ablation.svg of ' + found.study}")
    raise typer.Exit(0 if found.levels[0].mean is not None else 1)


def _check_folder(file: Path | None, option: str) -> None:
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.absolute().parent}. Make it first.", param_hint=option)
