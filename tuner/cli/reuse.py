"""The commands that bring a best elsewhere: best, train, test, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.home import Home

INTERRUPTED = 130

Named = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


class BestFormat(StrEnum):
    """How a best config is written."""

    yaml = "yaml"
    json = "json"
    lightning_cli = "lightning-cli"
    hydra = "hydra"


class Parts(StrEnum):
    """What is trained on."""

    train = "train"
    both = "train+validation"


class Direction(StrEnum):
    """Which way is better."""

    minimize = "minimize"
    maximize = "maximize"


def best(
    name: Annotated[
        str, typer.Argument(help="The study's name, an exported folder, or models:/NAME@champion.", metavar="NAME")
    ],
    format: Annotated[BestFormat, typer.Option(help="How to write it.")] = BestFormat.yaml,  # noqa: A002
    fixed_classes: Annotated[
        bool, typer.Option(help="lightning-cli for a program that names its classes: LightningCLI(Model, Data).")
    ] = False,
) -> None:
    """Print the best config of a study on stdout, nothing else.

    yaml and json are the config alone; lightning-cli is for `python main.py fit --config best.yaml` in any program of
    LightningCLI; hydra is for `hydra.utils.instantiate`.
    """
    from tuner.service.reuse import load

    if fixed_classes and format is not BestFormat.lightning_cli:
        raise typer.BadParameter("belongs to --format lightning-cli.", param_hint="--fixed-classes")
    found = load(name)
    if format is BestFormat.json:
        typer.echo(json.dumps(found.config, indent=2))
    elif format is BestFormat.lightning_cli:
        typer.echo(found.to_lightning_cli(fixed_classes=fixed_classes), nl=False)
    elif format is BestFormat.hydra:
        import_from_here()
        typer.echo(found.to_hydra(), nl=False)
    else:
        typer.echo(found.to_yaml(), nl=False)


def train(
    config: Annotated[
        str, typer.Argument(help="A YAML file with a config; or what load_best takes.", metavar="CONFIG.yaml")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a value of the config by its path; may be repeated.", metavar="PATH=VALUE"),
    ] = None,
    on: Annotated[Parts, typer.Option(help="What to train on.")] = Parts.train,
    objective: Annotated[
        str | None,
        typer.Option(help="The metric by which the best epoch is kept; by default the study's, or val_loss."),
    ] = None,
    direction: Annotated[Direction, typer.Option(help="Which way that metric is better.")] = Direction.minimize,
    to: Annotated[
        Path | None, typer.Option(help="A new folder for the results; by default below TUNER_HOME/trained.")
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
) -> None:
    """Train one config outright, without a program of your own.

    It keeps the weights of the best epoch on the validation part. With --on train+validation it trains on both, for
    max_epochs (of a study: for as many epochs as its best had), and keeps the last.
    """
    import_from_here()
    from tuner.service.outright import train as train_config
    from tuner.spec import parse_override
    from tuner.trial import Objective

    def told(epoch: int, metrics: Mapping[str, float]) -> None:
        if not quiet:
            typer.echo(f"epoch {epoch}: {_figures(metrics)}", err=True)

    try:
        done = train_config(
            config,
            Home.from_environment(),
            overrides=[parse_override(text) for text in set_ or []],
            on=on.value,
            objective=Objective(objective, direction.value) if objective else None,
            to=to,
            told=told,
        )
    except (KeyboardInterrupt, SystemExit) as error:  # the second is what Lightning makes of the first
        typer.echo("Interrupted; nothing was written.", err=True)
        raise typer.Exit(INTERRUPTED) from error
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"to": str(done.to)}, indent=2))
        return
    typer.echo(f"trained on {done.on}: {done.epochs} epochs, the weights of epoch {done.kept} are kept")
    typer.echo(f"  {_figures(done.metrics)}")
    typer.echo(f"  in {done.to}: tuner.load_best({str(done.to)!r}).trained_module()")


def score(
    name: Named,
    again: Annotated[
        bool, typer.Option("--again", help="Score also if it was used for another trial; that is recorded, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score the best on the test split, once, at the end.

    No trial sees the test split. Once it has been used to choose, it is a validation split: so the figures are kept
    with the study, and the same command tells them again instead of scoring anew.
    """
    import_from_here()
    from tuner.service.reuse import score as score_best

    found = score_best(name, Home.from_environment(), again=again)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    if found.before:
        typer.echo(
            f"The test split of {name} was already used at {found.at}; it is not scored a second time.", err=True
        )
    else:
        typer.echo(f"The test split of {name} is used now; a second time tells these figures again.", err=True)
    typer.echo(f"{name}, trial {found.trial}: {_figures(found.metrics)}")


def export(
    name: Named,
    to: Annotated[Path, typer.Option(help="A new or empty folder.")],
    register: Annotated[
        str | None,
        typer.Option(help="Register it in MLflow under this name; champion if it is better.", metavar="MODEL"),
    ] = None,
    test: Annotated[
        bool, typer.Option(help="Score the test split for the card, if that has not been done (as `tuner test` does).")
    ] = True,
    as_json: Json = False,
) -> None:
    """Write the best as a folder for other projects: configs, weights, program, model card, checksums.

    The folder appears whole or not at all. What cannot be exported is said, with the reason, and the rest goes on.
    """
    import_from_here()
    from tuner.service.exporting import export as export_best

    done = export_best(name, to, Home.from_environment(), register=register, test=test)
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"to": str(done.to)}, indent=2))
        return
    typer.echo(f"{name} is in {done.to}: {', '.join(done.files)}")
    for what, why in done.left_out.items():
        typer.echo(f"not there: {what}: {why}", err=True)
    if done.test is not None:
        typer.echo(f"test split: {_figures(done.test.metrics)} (scored at {done.test.at})")
    if done.registered is not None:
        crowned = "is the champion now" if done.registered.champion else "is not the champion"
        typer.echo(f"{done.registered.model}, version {done.registered.version}, {crowned}: {done.registered.why}")


def import_from_here() -> None:
    """Find the user's modules in the folder tuner is started from, as `python` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _figures(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
