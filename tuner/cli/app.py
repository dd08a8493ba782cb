"""The commands. Nothing heavy is imported here: each command imports what it calls."""

from __future__ import annotations

import json
import os
import socket
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner import __version__
from tuner.errors import StudyStopped, TunerError
from tuner.home import Home, silence_telemetry

if TYPE_CHECKING:
    from tuner.service.result import StudyResult

INTERRUPTED = 130

app = typer.Typer(
    name="tuner",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hyperparameter tuning for PyTorch Lightning, in the order of stated priorities.",
    epilog="Exit codes: 0 done; 1 it ran and failed; 2 wrong input, nothing ran; 130 interrupted, state saved.",
)


class Engine(StrEnum):
    """Where workers run."""

    local = "local"
    ray = "ray"


class BestFormat(StrEnum):
    """How a best config is written."""

    yaml = "yaml"
    json = "json"


StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")]
Trials = Annotated[
    int | None, typer.Option(min=0, help="How many configurations to try, those of earlier runs counted.")
]
Time = Annotated[str | None, typer.Option(help="Wall-clock limit, such as 90s, 10m or 1h30m.")]


def main() -> None:
    """Run the command line; every error of ours is one message and an exit code."""
    silence_telemetry()
    try:
        app()
    except TunerError as error:
        typer.echo(f"tuner: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tuner {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def run(
    study: Annotated[str, typer.Argument(help="A study file, or the name of a shipped example.", metavar="STUDY")],
    trials: Trials = None,
    time: Time = None,
    workers: Workers = 1,
    engine: Annotated[Engine, typer.Option(help="Where workers run.")] = Engine.local,
    seed: Annotated[int | None, typer.Option(min=0, help="The study's seed (seed_everything).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Replace a value of the study file by its path; may be repeated.", metavar="PATH=VALUE"
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create or continue a study, and end with its best config.

    Running the same command again goes on where it stopped. Ctrl-C returns running trials to the queue and saves the
    state; `tuner resume NAME` goes on.
    """
    _only_local(engine)
    overrides = _overrides(set_, ("search.trials", trials), ("search.time", time), ("seed_everything", seed))
    _work(None, as_json, quiet, study=study, overrides=overrides, workers=workers)


@app.command()
def resume(
    name: StudyName,
    trials: Trials = None,
    time: Time = None,
    workers: Workers = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a budget (search.epochs=900) or the space (space.model.momentum.float.high=0.99); may be "
            "repeated.",
            metavar="PATH=VALUE",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a stored study, also past its first budget, also in a narrower or wider space.

    Trials outside the new space still inform the search, and the change is recorded.
    """
    overrides = _overrides(set_, ("search.trials", trials), ("search.time", time))
    _work(name, as_json, quiet, study=name, resume=True, overrides=overrides, workers=workers)


def _overrides(texts: list[str] | None, *options: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Values by path, from --set and from the options that stand for a path."""
    from tuner.spec import parse_override

    return [parse_override(text) for text in texts or []] + [item for item in options if item[1] is not None]


def _work(name: str | None, as_json: bool, quiet: bool, **what: Any) -> None:
    """Run a study with progress, print its result, and exit as it ended."""
    from tuner.cli.progress import progress
    from tuner.engine import run as run_study

    home = Home.from_environment()
    result: StudyResult | None = None
    with progress(quiet=quiet, as_json=as_json) as shown:
        try:
            result = run_study(**what, home=home, watch=shown.watch)
        except KeyboardInterrupt:
            pass
        except StudyStopped:
            if as_json and shown.study:
                _print_json(_result(shown.study, home))
            raise
    if result is None:
        _say_interrupted(name or shown.study, home, as_json)
        raise typer.Exit(INTERRUPTED)
    _print_result(result, as_json)
    tried = sum(result.trials.values())
    raise typer.Exit(1 if tried and result.best is None else 0)


def _say_interrupted(name: str | None, home: Home, as_json: bool) -> None:
    if name is None:
        typer.echo("Interrupted before anything had run.", err=True)
        return
    if as_json:
        _print_json(_result(name, home))
    typer.echo(f"Interrupted; the state is saved. Go on with: tuner resume {name}", err=True)


def _only_local(engine: Engine) -> None:
    if engine is Engine.ray:
        raise typer.BadParameter("ray is not in this version yet. Use local.", param_hint="--engine")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the studies of the storage: state, counts, best, cost."""
    from tuner.cli.tables import studies_table
    from tuner.service.entry import open_storage
    from tuner.service.result import result_of

    home = Home.from_environment()
    with open_storage(home) as store:
        results = [result_of(store, study.name, home) for study in store.studies()]
    if as_json:
        typer.echo(json.dumps([result.to_json() for result in results], indent=2))
    else:
        _print(studies_table(results))


@app.command()
def show(name: StudyName, as_json: Json = False) -> None:
    """Show a study: state, cost, leaderboard, and trials that came to nothing."""
    from tuner.cli.tables import study_page
    from tuner.service.entry import open_storage
    from tuner.service.result import result_of

    home = Home.from_environment()
    with open_storage(home) as store:
        row = store.study(name)
        trials = store.trials(row.id)
        result = result_of(store, name, home, trials)
    if as_json:
        _print_json(result)
    else:
        _print(study_page(row, result, trials))


@app.command()
def best(
    name: StudyName,
    format: Annotated[BestFormat, typer.Option(help="How to write it.")] = BestFormat.yaml,  # noqa: A002
) -> None:
    """Print the best config of a study on stdout, nothing else.

    The YAML is what LightningCLI reads: `python main.py fit --config best.yaml`.
    """
    from tuner.service.entry import open_storage
    from tuner.service.result import best_of

    home = Home.from_environment()
    with open_storage(home) as store:
        found = best_of(store, name, home)
    if format is BestFormat.json:
        typer.echo(json.dumps(found.config, indent=2))
    else:
        typer.echo(found.to_yaml(), nl=False)


@app.command()
def stop(name: StudyName) -> None:
    """Stop a study cleanly: its running trials go back to the queue."""
    from tuner.service.entry import open_storage
    from tuner.service.identity import gone
    from tuner.storage import RUNNING, STOPPED

    with open_storage(Home.from_environment()) as store:
        row = store.study(name)
        if row.state not in (RUNNING, "interrupted"):
            typer.echo(f"{name} is {row.state}; there is nothing to stop.", err=True)
            return
        store.set_state(row.id, STOPPED)
        store.reclaim(row.id, gone)
    typer.echo(f"{name} stops at the next epoch of its running trials. Go on with: tuner resume {name}", err=True)


@app.command()
def space(name: Annotated[str, typer.Argument(help="A documented space or a YAML file.", metavar="NAME|FILE")]) -> None:
    """Describe a search space: every parameter with its range, default, priority and reason."""
    from tuner.cli.tables import space_table
    from tuner.errors import SpecError
    from tuner.space import read_space

    found, problems = read_space(name)
    if found is None:
        raise SpecError(name, problems)
    _print(space_table(name, found))


@app.command()
def models() -> None:
    """List the models that tuner brings, with their hyperparameters."""
    from tuner.cli.tables import models_table

    _print(models_table())


@app.command()
def examples() -> None:
    """List the shipped studies that `tuner run NAME` finds from anywhere."""
    from tuner.cli.tables import examples_table

    _print(examples_table())


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000) -> None:
    """Open the MLflow UI on the tracking store, reachable from this machine only."""
    home = Home.from_environment()
    if home.tracking.startswith(("http://", "https://")):
        from tuner.home import shown

        typer.echo(f"MLflow is a server already: {shown(home.tracking)}")
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise typer.BadParameter(f"{port} is taken on this machine. Choose another.", param_hint="--port")
    from tuner.tracking.local_store import create_local_store

    home.artifacts.mkdir(parents=True, exist_ok=True)
    create_local_store(home.tracking, home.artifacts)
    typer.echo(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)", err=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--default-artifact-root", home.artifacts.as_uri()]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = home.tracking  # not an argument: `ps` would show its password
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(sys.executable, command)  # noqa: S606 - this process becomes the server, so that Ctrl-C reaches it


@app.command()
def doctor() -> None:
    """Check storage, tracking, devices and versions; each failure comes with its remedy."""
    from tuner.cli.doctor import examine

    findings = examine(Home.from_environment())
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL"
        typer.echo(f"{mark}  {finding.subject:<10} {finding.text}")
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command("init-db")
def init_db() -> None:
    """Create or migrate the schemas at TUNER_STORAGE; safe to run twice and at once."""
    from tuner.home import shown
    from tuner.service.entry import open_storage

    home = Home.from_environment()
    with open_storage(home, create=True, migrate=True):
        typer.echo(f"{shown(home.storage)} is ready.")


def _result(name: str, home: Home) -> StudyResult:
    from tuner.service.entry import open_storage
    from tuner.service.result import result_of

    with open_storage(home) as store:
        return result_of(store, name, home)


def _print_result(result: StudyResult, as_json: bool) -> None:
    from tuner.cli.tables import result_page

    if as_json:
        _print_json(result)
    else:
        _print(result_page(result))


def _print_json(result: StudyResult) -> None:
    typer.echo(json.dumps(result.to_json(), indent=2))


def _print(renderable: Any) -> None:
    """Print on stdout; piped output is as wide as it needs to be, without colours."""
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(renderable)
