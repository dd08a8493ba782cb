"""The commands. Nothing heavy is imported here: each command imports what it calls."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner import __version__
from tuner.cli import insight, reporting, reuse, start
from tuner.cli.reuse import INTERRUPTED
from tuner.errors import StudyStopped, TunerError
from tuner.home import Home, silence_telemetry

if TYPE_CHECKING:
    from tuner.service.result import StudyResult
    from tuner.storage import Store

WATCH_SECONDS, ALONE_LOOKS = 1.0, 5
"""A study is looked at so often while it is watched, and so many times in a row after nobody works on it any more."""

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
    """Where workers run: processes on this machine, or in a Ray cluster."""

    local = "local"
    ray = "ray"


StudyFile = Annotated[str, typer.Argument(help="A study file, or the name of a shipped example.", metavar="STUDY")]
Seed = Annotated[int | None, typer.Option(min=0, help="The study's seed (seed_everything).")]
Replaced = Annotated[
    list[str] | None,
    typer.Option("--set", help="Replace a value of the study file by its path; may be repeated.", metavar="PATH=VALUE"),
]
StudyName = Annotated[str, typer.Argument(help="The study's name.", metavar="NAME")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")]
Where = Annotated[Engine, typer.Option(help="Where workers run: on this machine, or in a Ray cluster (docs/scale.md).")]
Trials = Annotated[
    int | None, typer.Option(min=0, help="How many configurations to try, those of earlier runs counted.")
]
Priority = Annotated[
    int | None,
    typer.Option(
        min=-1_000_000,
        max=1_000_000,
        help="The higher, the earlier it is served; 0 at first.",
        show_default=False,
    ),
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
    study: StudyFile,
    trials: Trials = None,
    time: Time = None,
    workers: Annotated[int, typer.Option(min=1, help="How many workers train.")] = 1,
    engine: Where = Engine.local,
    seed: Seed = None,
    set_: Replaced = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Create or continue a study, and end with its best config.

    Running the same command again goes on where it stopped. Ctrl-C returns running trials to the queue and saves the
    state; `tuner resume NAME` goes on. With --engine ray it runs in the cluster of RAY_ADDRESS, or else in one that
    is started here and ends with the study.
    """
    overrides = _overrides(set_, ("search.trials", trials), ("search.time", time), ("seed_everything", seed))
    _work(None, as_json, quiet, engine, study=study, overrides=overrides, workers=workers)


@app.command()
def submit(
    study: StudyFile,
    priority: Priority = None,
    trials: Trials = None,
    time: Time = None,
    seed: Seed = None,
    set_: Replaced = None,
    as_json: Json = False,
) -> None:
    """Queue a study for the workers of a service (`tuner worker`), and return at once.

    It is checked as `tuner run` checks it. Submitting it again changes its priority or budget, and puts one that was
    stopped at the end of the queue. Docs: docs/service.md.
    """
    overrides = _overrides(set_, ("search.trials", trials), ("search.time", time), ("seed_everything", seed))
    _submit(as_json, study=study, overrides=overrides, priority=priority)


@app.command()
def worker(
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left to do.")] = False,
    study: Annotated[
        str | None, typer.Option(help="Work on this study alone.", metavar="NAME", show_default=False)
    ] = None,
    devices: Annotated[
        str,
        typer.Option(
            help="Who gets what: auto (a worker for each GPU, else cpu), cpu (one for every four cores), cpu:N "
            "(N workers), or the numbers of GPUs such as 0,1."
        ),
    ] = "auto",
    engine: Where = Engine.local,
    address: Annotated[
        str | None,
        typer.Option(
            help="With ray, its cluster: auto (the one on this machine), host:port, or ray://host:port. By default "
            "RAY_ADDRESS, else auto.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="With ray, how many; by default as many as the cluster has room for.", show_default=False
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="With ray, each worker's share of a GPU, such as 0.25; by default 1 if the cluster has any.",
            show_default=False,
        ),
    ] = None,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(help="With ray, each worker's CPUs, by Ray's count; by default 1.", show_default=False),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="With ray, a folder of code that Ray sends to every node; by default the code is there.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Take work from the queue (`tuner submit`) with worker processes on this machine, until stopped.

    SIGTERM or Ctrl-C return running trials to the queue and end within ten seconds. Start it where the code of the
    studies is, or install that: each worker imports the classes that a study names. With --engine ray the workers run
    in a Ray cluster, and this process watches them. Docs: docs/service.md, docs/scale.md.
    """
    from tuner.engine import Places, serve, serve_on_ray

    given = {
        "--address": address,
        "--workers": workers,
        "--gpus-per-worker": gpus_per_worker,
        "--cpus-per-worker": cpus_per_worker,
        "--working-dir": working_dir,
    }
    common: dict[str, Any] = {"only": study, "once": once, "home": Home.from_environment()}
    common["say"] = lambda line: typer.echo(line, err=True)
    if engine is Engine.ray:
        if devices != "auto":
            raise typer.BadParameter("is for this machine. With ray: --gpus-per-worker.", param_hint="--devices")
        cpus = 1.0 if cpus_per_worker is None else cpus_per_worker
        places = Places(workers, cpus, gpus_per_worker, working_dir)
        done = serve_on_ray(address=address, places=places, **common)
    else:
        for option, value in given.items():
            if value is not None:
                raise typer.BadParameter("goes with --engine ray.", param_hint=option)
        done = serve(devices=devices, **common)
    raise typer.Exit(0 if done else 1)


@app.command()
def resume(
    name: StudyName,
    trials: Trials = None,
    time: Time = None,
    workers: Workers = 1,
    queue: Annotated[
        bool, typer.Option("--queue", help="Hand it to the workers of a service; return at once.")
    ] = False,
    priority: Priority = None,
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

    Trials outside the new space still inform the search, and the change is recorded. With --queue it goes back to where
    `tuner submit` put it: a paused one to its place, another one to the end.
    """
    overrides = _overrides(set_, ("search.trials", trials), ("search.time", time))
    if queue:
        _submit(as_json, study=name, resume=True, overrides=overrides, priority=priority)
        return
    if priority is not None:
        raise typer.BadParameter("goes with --queue: only studies in the queue have one.", param_hint="--priority")
    _work(name, as_json, quiet, Engine.local, study=name, resume=True, overrides=overrides, workers=workers)


def _overrides(texts: list[str] | None, *options: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Values by path, from --set and from the options that stand for a path."""
    from tuner.spec import parse_override

    return [parse_override(text) for text in texts or []] + [item for item in options if item[1] is not None]


def _work(name: str | None, as_json: bool, quiet: bool, engine: Engine, **what: Any) -> None:
    """Run a study with progress, print its result, and exit as it ended."""
    from tuner.cli.progress import progress
    from tuner.engine import run, run_on_ray

    run_study: Callable[..., StudyResult] = run_on_ray if engine is Engine.ray else run
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


def _submit(as_json: bool, **what: Any) -> None:
    """Put a study into the queue, and say what to do next."""
    from tuner.engine import submit as submit_study
    from tuner.report.words import counted
    from tuner.service.entry import open_storage
    from tuner.storage import RUNNING

    home = Home.from_environment()
    result = submit_study(**what, home=home)
    if as_json:
        _print_json(result)
        return
    with open_storage(home) as store:
        priority = store.study(result.study).priority
        free = [worker for worker in store.workers() if not (worker.left or worker.trouble)]
    typer.echo(f"{result.study} is {result.state if result.state == RUNNING else 'queued'} with priority {priority}.")
    if free:
        serve = f"{counted(len(free), 'worker')} {'serves' if len(free) == 1 else 'serve'} this storage"
        typer.echo(f"{serve}. See how it goes with: tuner show {result.study} --watch")
    else:
        typer.echo("No worker serves this storage yet. Start some where the study's code is: tuner worker")


def _say_interrupted(name: str | None, home: Home, as_json: bool) -> None:
    if name is None:
        typer.echo("Interrupted before anything had run.", err=True)
        return
    if as_json:
        _print_json(_result(name, home))
    typer.echo(f"Interrupted; the state is saved. Go on with: tuner resume {name}", err=True)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the studies of the storage: state, counts, best, cost."""
    from tuner.cli.tables import studies_table
    from tuner.service.entry import open_storage
    from tuner.service.result import result_of

    home = Home.from_environment()
    with open_storage(home) as store:
        rows = store.studies()
        results = [result_of(store, row.name, home) for row in rows]
        workers = store.workers()
    if as_json:
        typer.echo(json.dumps([result.to_json() for result in results], indent=2))
    else:
        _print(studies_table(results, rows, workers))


@app.command()
def show(
    name: StudyName,
    as_json: Json = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until it ends; Ctrl-C only ends the watching.")
    ] = False,
) -> None:
    """Show a study: state, cost, leaderboard, importance, and trials that came to nothing."""
    from tuner.best import leading
    from tuner.cli.leaders import LEADERS, leaders_json
    from tuner.cli.tables import importance_part, study_page
    from tuner.service.entry import open_storage
    from tuner.service.result import result_of
    from tuner.service.standing import Follower

    home = Home.from_environment()
    with open_storage(home) as store:
        if watch:
            _follow(store, name, as_json)
        row = store.study(name)
        trials = store.trials(row.id)
        result = result_of(store, name, home, trials)
        workers = store.workers()
        now = Follower(store, name).look() if as_json else None
    if now is not None:
        leaders = leaders_json(leading(trials, row.objective, LEADERS))
        typer.echo(json.dumps({**result.to_json(), "now": now.to_json() | {"leaders": leaders}}, indent=2))
        return
    _print(study_page(row, result, trials, workers))
    sys.stdout.flush()  # measuring importance takes seconds
    _print(importance_part(row, trials))


def _follow(store: Store, name: str, as_json: bool) -> None:
    """Show a study until it ends, or Ctrl-C; neither is anything to the study."""
    from tuner.cli.progress import progress
    from tuner.storage import COMPLETE, FAILED, STOPPED
    from tuner.storage import INTERRUPTED as ALONE

    alone = 0
    with suppress(KeyboardInterrupt), progress(quiet=False, as_json=as_json, leaving="Ctrl-C leaves it alone") as shown:
        while (state := shown.watch(store, name).row.state) not in (COMPLETE, FAILED, STOPPED):
            alone = alone + 1 if state == ALONE else 0  # so it looks for a moment when a run has just begun, too
            if alone == ALONE_LOOKS:
                return
            sleep(WATCH_SECONDS)


app.add_typer(start.prior, name="prior")
for _command in (
    start.init,
    reuse.best,
    reuse.train,
    reuse.export,
    insight.diagnose,
    insight.ablate,
    reporting.report,
    reporting.compare,
):
    app.command()(_command)
app.command("test")(reuse.score)


@app.command()
def stop(name: StudyName) -> None:
    """Stop a study cleanly: its running trials go back to the queue."""
    from tuner.service.entry import open_storage
    from tuner.service.identity import gone
    from tuner.storage import COMPLETE, FAILED, STOPPED

    with open_storage(Home.from_environment()) as store:
        row = store.study(name)
        if row.state in (COMPLETE, FAILED, STOPPED):
            typer.echo(f"{name} is {row.state}; there is nothing to stop.", err=True)
            return
        store.set_state(row.id, STOPPED)
        store.reclaim(row.id, gone)
    back = f"tuner resume {name}" + ("" if row.submitted is None else " --queue")
    typer.echo(f"{name} stops at the next epoch of its running trials. Go on with: {back}", err=True)


@app.command()
def pause(name: StudyName) -> None:
    """Pause a study in the queue: its running trials go back, and it keeps its place."""
    from tuner.service.entry import open_storage
    from tuner.service.identity import gone
    from tuner.storage import PAUSED, QUEUED, RUNNING

    with open_storage(Home.from_environment()) as store:
        row = store.study(name)
        if row.submitted is None or row.state not in (QUEUED, RUNNING):
            told = f"is {row.state}" if row.submitted is not None else "is not in the queue; `tuner stop` stops it"
            typer.echo(f"{name} {told}. There is nothing to pause.", err=True)
            return
        store.set_state(row.id, PAUSED)
        store.reclaim(row.id, gone)
    typer.echo(
        f"{name} pauses at the next epoch of its running trials. Go on with: tuner resume {name} --queue", err=True
    )


@app.command()
def delete(
    name: StudyName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keep_mlflow: Annotated[bool, typer.Option("--keep-mlflow", help="Leave its runs in MLflow as they are.")] = False,
) -> None:
    """Delete a study: its trials, Optuna's copy of them, its weights and its logs.

    Its runs in MLflow are marked as deleted, so they can be restored there until `mlflow gc` is run; registered models
    stay. A study that is being worked on must be stopped first. Nothing is deleted while MLflow does not answer.
    """
    from tuner.service.deletion import delete as delete_study
    from tuner.service.entry import open_storage

    home = Home.from_environment()
    with open_storage(home) as store:
        row = store.study(name)
        trials = sum(store.summary(row.id).states.values())
        kept = "" if keep_mlflow else ", and mark its runs in MLflow as deleted"
        question = f"Delete {name} ({row.state}) with its {trials} trials, weights and logs{kept}? [y/N] "
        if not (yes or _agreed(question)):
            typer.echo("Nothing was deleted.", err=True)
            raise typer.Exit(1)
        delete_study(store, home, name, keep_mlflow=keep_mlflow)
    typer.echo(f"{name} is deleted.", err=True)


def _agreed(question: str) -> bool:
    """Ask on the terminal.

    Raises:
        BadParameter: nobody can answer.
    """
    typer.echo(question, nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        raise typer.BadParameter("is needed where nobody can answer.", param_hint="--yes")
    return answer.strip().lower() in ("y", "yes")


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
    from tuner.tracking.experiments import newest_pages
    from tuner.tracking.local_store import create_local_store

    home.artifacts.mkdir(parents=True, exist_ok=True)
    create_local_store(home.tracking, home.artifacts)
    address = f"http://127.0.0.1:{port}"
    typer.echo(f"MLflow UI: {address}  (Ctrl-C ends it)", err=True)
    for study, page in newest_pages(home.tracking):
        typer.echo(f"  {study}: {address}{page}", err=True)
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
    """Create or migrate the schemas at TUNER_STORAGE; safe to run twice and at once.

    Where MLFLOW_BACKEND_STORE_URI names the database of an MLflow server, that one, too (as `mlflow db upgrade`).
    Where MLFLOW_AUTH_CONFIG_PATH names its users, the account of MLFLOW_TRACKING_USERNAME is made there, for workers.
    """
    from tuner.home import shown
    from tuner.service.entry import open_storage
    from tuner.storage import one_initialiser

    home = Home.from_environment()
    with open_storage(home, create=True, migrate=True) as store:
        typer.echo(f"{shown(home.storage)} is ready.")
        if server_store := os.environ.get("MLFLOW_BACKEND_STORE_URI"):
            from tuner.tracking.server_store import migrate_server_store

            with one_initialiser(store.database):
                migrate_server_store(server_store)
            typer.echo(f"{shown(server_store)} is ready.")
        account = os.environ.get("MLFLOW_TRACKING_USERNAME")
        if account and "MLFLOW_AUTH_CONFIG_PATH" in os.environ:
            from tuner.tracking.server_users import provide_account

            with one_initialiser(store.database):
                provide_account(account, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
            typer.echo(f"MLflow's account {account} is ready.")


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
    from tuner.cli.tables import print_wide

    print_wide(renderable)
