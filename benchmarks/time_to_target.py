"""How long until the target is reached: tuner beside four peers, from the start of the process and from the first step.

The task is a plain MLP on scikit-learn's digits: 20 epochs of SGD with momentum, and the eight hyperparameters that
`search_spaces/mlp.yaml` has once the rest is fixed (no normaliser: with one the documented defaults are there at once,
and nothing would be searched). The target is reached at the first moment at which a trial has a validation loss of at
most 0.08 and a validation accuracy of at least 0.98 at the same epoch. All sides have the same network, data, division,
ranges and scales, a process of their own and its children on one core with one thread each, and note every epoch in a
file. One that is not there within `--limit` seconds of its first training step counts as the limit.

- `tuner`: `tuner run` with one worker: the study below with the documented priorities and defaults, `training: auto`.
- `lightning`: Optuna, Lightning and MLflow as their users put them together.
- `hyperband`: Optuna's TPE and Hyperband over a bare torch loop.
- `priorband`: NePS's PriorBand, told the same defaults, over a bare loop that continues promoted trials.
- `asha`: Ray Tune's ASHA over a bare loop, with one actor that is reused.
- `random`: random search over a bare loop; needs no environment of its own.

The first training step is when the first trial asks for its first batch; imports, checks, databases and, of tuner, the
proposal of the first cohort come before it. The test accuracy is that of the weights at the moment of success; tuner
has thrown these away, so that trial is trained again up to that epoch, by Lightning, from its own seed. Dropout draws
other masks there than in a cohort, so its validation may differ, too: `again_…` in the results says by how much.

    python benchmarks/time_to_target.py --prepare             # the peers' environments, in .peers/
    python benchmarks/time_to_target.py                       # ten seeds: an hour on an idle core
    python benchmarks/time_to_target.py --sides tuner priorband --seeds 3
    python benchmarks/time_to_target.py --report              # runs nothing: the table of what is kept
    python benchmarks/time_to_target.py --check               # the peers' network, descent and data are tuner's
    python benchmarks/time_to_target.py --quick               # tuner and random search, an easy target, nothing kept
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "time_to_target.jsonl"
PEERS = HERE.parent / ".peers"
OURS = "tuner"
START_SECONDS = 180.0
"""At most so long from the start of a process to its first step."""

END_SECONDS = 60.0
"""At most so long from the target to the end of the process."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A side that is not tuner.

    Attributes:
        script: in `peers/`.
        environment: its virtual environment, with `requirements-….txt` of that name; None is the one that runs this.
        bar: how many times tuner's time from the first step it must take, in the median over seeds.
    """

    script: str
    environment: str | None
    bar: float | None = None


SIDES: dict[str, Peer] = {
    "lightning": Peer("optuna_lightning_mlflow.py", "lightning", bar=10),
    "hyperband": Peer("optuna_hyperband.py", "optuna", bar=3),
    "priorband": Peer("neps_priorband.py", "neps", bar=2),
    "asha": Peer("ray_asha.py", "ray", bar=4),
    "random": Peer("random_search.py", None),
}


@dataclass(frozen=True)
class Target:
    """What is to be reached, and within which limits.

    Attributes:
        loss: the validation loss, at most.
        accuracy: the validation accuracy at the same epoch of the same trial, at least.
        epochs: of a whole trial.
        limit: seconds after the first training step at which a side is stopped.
    """

    loss: float = 0.08
    accuracy: float = 0.98
    epochs: int = 20
    limit: float = 180.0


FIXED = {
    "activation": "relu",
    "lr_schedule": "exponential",
    "nesterov": False,
    "norm": "none",
    "optimizer": "sgd",
    "penalty": 0.0,
}
"""What of the documented space is not searched."""


def document(seed: int, target: Target) -> dict[str, Any]:
    """The study file: the documented space without what is fixed, more trials than anybody needs, all else by default.

    500 trials are as many as the priority sampler models well.
    """
    return {
        "study": "target",
        "model": {"class_path": "tuner.models.MLP", "init_args": FIXED},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {"max_epochs": target.epochs},
        "seed_everything": seed,
        "space": "mlp",
        "search": {"trials": 500},
    }


# ---- what the peers are told -----------------------------------------------------------------------------------------


def told_space() -> dict[str, dict[str, Any]]:
    """The space by the names that the peers use."""
    from tuner.spec import read_study

    parameters = read_study(document(0, Target())).searched.parameters
    return {
        path.rpartition(".")[2]: {"kind": p.kind, "scale": "linear"} | p.range.model_dump()
        for path, p in parameters.items()
    }


def told_parts() -> list[list[int]]:
    """Indices of the samples that `tuner.data.Digits` trains on, validates and tests with."""
    import torch
    from sklearn.datasets import load_digits

    from tuner.data import Digits
    from tuner.data.division import stratified

    data = Digits()
    labels = torch.tensor(load_digits().target)
    return [part.tolist() for part in stratified(labels, (data.val_share, data.test_share), data.seed)]


def told(seed: int, target: Target, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is in `task.json`."""
    kept = {"seed": seed, "epochs": target.epochs, "loss": target.loss, "accuracy": target.accuracy}
    return kept | given


def same_task() -> None:
    """Check that what the peers train is what tuner trains.

    Raises:
        AssertionError: it is not.
    """
    sys.path.insert(0, str(HERE / "peers"))
    import torch
    from digits_mlp import Going, Task
    from torch.nn import functional as F

    from tuner.data import Digits
    from tuner.models import MLP

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"space": told_space(), "parts": told_parts()}
        (folder / "task.json").write_text(json.dumps(told(0, Target(), given)))
        task = Task.of(folder)
        splits = Digits().splits()
        for theirs, ours in zip(task.data, (splits.train, splits.val, splits.test), strict=True):
            assert torch.equal(theirs[0], ours[0]), "the inputs differ"
            assert torch.equal(theirs[1], ours[1]), "the labels differ"
        config = {name: asked["default"] for name, asked in task.space.items()}
        theirs = Going.begin(config, seed=0)
        torch.manual_seed(0)
        ours = MLP(**FIXED, **{name: value for name, value in config.items() if name != "batch_size"})
        ours.take_shapes(Digits())
        pairs = list(zip(theirs.network.parameters(), ours.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs), "the first weights differ"
        (optimizer,), (schedule,) = ours.configure_optimizers()
        x, y = splits.train
        for _ in range(3):  # epochs of three steps, dropout included
            for network, descent, decay in (
                (theirs.network, theirs.optimizer, theirs.schedule),
                (ours, optimizer, schedule),
            ):
                torch.manual_seed(1)
                for _ in range(3):
                    loss = F.cross_entropy(network(x), y)
                    descent.zero_grad()
                    loss.backward()
                    descent.step()
                decay.step()
        assert all(torch.equal(a, b) for a, b in pairs), "the weights after some steps differ"
        assert torch.equal(theirs.network.eval()(x), ours.eval()(x)), "the answers differ"


# ---- tuner -----------------------------------------------------------------------------------------------------------

NOTING = '''"""Notes when the first trial asks for its first batch. The server that forks workers preloads it."""
import json, multiprocessing, time
from tuner.data.loader import TensorLoader

def orders(loader, original=TensorLoader.orders):
    if loader.shuffle and multiprocessing.current_process().name.startswith("tuner-worker"):
        TensorLoader.orders = original
        with open({events!r}, "a") as events:
            events.write(json.dumps({{"kind": "step", "at": time.time()}}) + "\\n")
    return original(loader)

TensorLoader.orders = orders
'''

NEW_REPORTS = """
    select r.rowid, r.at, t.number, r.epoch, r.metrics, t.params, t.seed
    from tuner_report r join tuner_trial t on t.id = r.trial_id where r.rowid > ? order by r.rowid
"""


class Watch:
    """Brings what tuner's trials report into the events; interrupts the study when the target is reached.

    Attributes:
        winner: the trial and its epoch, values and seed at that moment.
    """

    def __init__(self, database: Path, events: Path, target: Target) -> None:
        self.database, self.events, self.target = database, events, target
        self.winner: tuple[int, int, dict[str, Any], int] | None = None
        self._seen = 0

    def __call__(self, *_: Any) -> None:
        """Look, as the command's own progress does twice a second."""
        if self.winner is not None:
            return
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            rows = connection.execute(NEW_REPORTS, (self._seen,)).fetchall()
        finally:
            connection.close()
        with self.events.open("a") as events:
            for self._seen, at, trial, epoch, text, params, seed in rows:
                metrics = json.loads(text)
                loss, accuracy = (metrics[name] for name in ("val_loss", "val_acc"))
                what = {"trial": trial, "epoch": epoch, "val_loss": loss, "val_acc": accuracy}
                events.write(json.dumps({"kind": "epoch", "at": at} | what) + "\n")
                if reached(what, self.target):
                    self.winner = trial, epoch, json.loads(params), seed
                    break
        if self.winner is not None:
            raise KeyboardInterrupt


def ours(folder: Path) -> None:
    """`tuner run` on the study in the folder, until the target is reached; then the test of the winner."""
    from multiprocessing import forkserver

    given = json.loads((folder / "task.json").read_text())
    target, events = Target(**given["target"]), folder / "events.jsonl"
    (folder / "noting.py").write_text(NOTING.format(events=str(events)))
    study = folder / "study.yaml"
    study.write_text(json.dumps(document(given["seed"], target)))  # JSON is YAML

    from tuner.engine import run
    from tuner.home import Home, silence_telemetry

    silence_telemetry()
    forkserver.set_forkserver_preload(["tuner.engine.warm", "noting"])
    forkserver.ensure_running()
    watch = Watch(Home.from_environment().folder / "tuner.db", events, target)
    try:
        run(study, workers=1, watch=watch)
    except KeyboardInterrupt:
        if watch.winner is None:
            raise
    if watch.winner is not None:
        trial, epoch, params, seed = watch.winner
        with events.open("a") as file:
            what = {"trial": trial, "epoch": epoch} | tested(study, params, seed, epoch)
            file.write(json.dumps({"kind": "test", "at": time.time()} | what) + "\n")


def tested(study: Path, params: Mapping[str, Any], seed: int, epochs: int) -> dict[str, float]:
    """Train a trial again up to an epoch, by Lightning, and test it."""
    from tuner.spec import read_study, trial_config
    from tuner.training import Blueprint

    config = trial_config(read_study(study).base_config, params, seed)
    config["trainer"]["max_epochs"] = epochs
    built = Blueprint(config).build(config, [])
    built.trainer.fit(built.module, datamodule=built.datamodule)
    validated = {name: float(built.trainer.callback_metrics[name]) for name in ("val_loss", "val_acc")}
    (scores,) = built.trainer.test(built.module, datamodule=built.datamodule, verbose=False)
    return {
        "test_acc": scores["test_acc"],
        "again_val_loss": validated["val_loss"],
        "again_val_acc": validated["val_acc"],
    }


# ---- running ---------------------------------------------------------------------------------------------------------


def reached(event: Mapping[str, Any], target: Target) -> bool:
    """Whether a report is what all are after."""
    loss, accuracy = event["val_loss"], event["val_acc"]
    return loss is not None and loss <= target.loss and accuracy >= target.accuracy


def command(side: str, folder: Path, peers: Path) -> list[str]:
    """What starts a side."""
    if side == OURS:
        return [sys.executable, str(Path(__file__).resolve()), "--side", str(folder)]
    peer = SIDES[side]
    python = sys.executable if peer.environment is None else str(peers / peer.environment / "bin" / "python")
    return [python, str(HERE / "peers" / peer.script), str(folder)]


def measure(side: str, seed: int, target: Target, given: Mapping[str, Any], peers: Path) -> Row:
    """Run a side in a folder of its own until it reaches the target, or the time is over.

    Raises:
        RuntimeError: it failed before it had reached the target, or never made a step.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name).resolve()
        task = told(seed, target, given) if side != OURS else {"seed": seed, "target": asdict(target)}
        (folder / "task.json").write_text(json.dumps(task))
        (folder / "events.jsonl").touch()
        kept = {k: v for k, v in os.environ.items() if k not in ("TUNER_STORAGE", "MLFLOW_TRACKING_URI")}
        kept |= {"TUNER_HOME": str(folder), "PYTHONPATH": str(folder)} if side == OURS else {"PYTHONPATH": ""}
        kept |= {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}
        with (folder / "output.txt").open("w") as output:
            born = time.time()
            process = subprocess.Popen(
                command(side, folder, peers),
                cwd=folder,
                env=kept,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                events, late = wait(process, folder / "events.jsonl", born, target)
            finally:
                end(process)
        found = row(events, born, target)
        if found is None or (process.returncode and found["from_step"] is None and not late):
            raise RuntimeError(f"{side} failed:\n{(folder / 'output.txt').read_text()[-4000:]}")
        return {"side": side, "seed": seed} | asdict(target) | {"when": time.strftime("%F %T")} | found


def wait(process: subprocess.Popen[bytes], file: Path, born: float, target: Target) -> tuple[list[Row], bool]:
    """The events of a process once it has ended by itself, or has had its time; and whether it has had that."""
    while True:
        ended = process.poll() is not None
        events = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
        first = next((event["at"] for event in events if event["kind"] == "step"), None)
        won = next((e["at"] for e in events if e["kind"] == "epoch" and reached(e, target)), None)
        until = won + END_SECONDS if won else first + target.limit if first else born + START_SECONDS
        if ended or time.time() > until:
            return events, not ended
        time.sleep(0.25)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, if it has not ended by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)  # its children may outlive it
            process.wait(20)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def row(events: Sequence[Mapping[str, Any]], born: float, target: Target) -> Row | None:
    """What a side's events come to; None if it never made a step."""
    first = next((event["at"] for event in events if event["kind"] == "step"), None)
    if first is None:
        return None
    epochs = [event for event in events if event["kind"] == "epoch"]
    won = next((event for event in epochs if reached(event, target)), None)
    test = next((event for event in events if event["kind"] == "test"), {})
    counted = [event for event in epochs if won is None or event["at"] <= won["at"]]
    return {
        "start": first - born,
        "from_start": won["at"] - born if won else None,
        "from_step": won["at"] - first if won else None,
        "trials": len({event["trial"] for event in counted}),
        "trained_epochs": len(counted),
        "first_report": counted[0]["at"] - first if counted else None,
        "best": min((event["val_loss"] for event in counted if event["val_loss"] is not None), default=None),
        "won": {key: won[key] for key in ("trial", "epoch", "val_loss", "val_acc")} if won else None,
        "test": {key: value for key, value in test.items() if key not in ("kind", "at", "trial", "epoch")},
        "load": os.getloadavg()[0],
    }


def prepare(peers: Path) -> None:
    """Make the peers' virtual environments: torch first, so that nothing brings another one along."""
    base = HERE / "peers" / "requirements-base.txt"
    for name in sorted({peer.environment for peer in SIDES.values() if peer.environment}):
        python = peers / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(peers / name)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "-r", str(base)], check=True)
        own = HERE / "peers" / f"requirements-{name}.txt"
        subprocess.run([*install, "-r", str(own), "-c", str(base)], check=True)
        print(f"{name}: ready in {peers / name}", file=sys.stderr, flush=True)


# ---- figures ---------------------------------------------------------------------------------------------------------


def report(rows: Sequence[Row], sides: Sequence[str], bars: bool = True) -> dict[str, float]:
    """Print the table, and whether it meets its bars; the figures by name."""
    by = {side: {r["seed"]: r for r in rows if r["side"] == side} for side in sides}
    some = next(iter(rows))
    print(
        f"\nseconds to a validation loss of {some['loss']} and an accuracy of {some['accuracy']}: median [quartiles]; "
        f"> is cut off at {some['limit']:.0f} s after the first step"
    )
    head = ("side", "seeds", "missed", "start", "from first step", "from process start", "trials", "epochs", "test acc")
    line = "{:<10}{:>6}{:>7}{:>8}{:>24}{:>24}{:>8}{:>8}{:>10}"
    print(line.format(*head))
    for side, found in by.items():
        if not found:
            continue
        each = list(found.values())
        tests = [r["test"]["test_acc"] for r in each if r["test"]]
        print(
            line.format(
                side,
                len(each),
                sum(r["from_step"] is None for r in each),
                f"{statistics.median(r['start'] for r in each):.1f}",
                spread([seconds(r, "from_step") for r in each], [r["limit"] for r in each]),
                spread([seconds(r, "from_start") for r in each], [r["limit"] + r["start"] for r in each]),
                f"{statistics.median(r['trials'] for r in each):g}",
                f"{statistics.median(r['trained_epochs'] for r in each):g}",
                f"{statistics.median(tests):.4f}" if tests else "",
            )
        )
    return judged(by, bars)


def judged(by: Mapping[str, Mapping[int, Row]], bars: bool) -> dict[str, float]:
    """Print how many times tuner's seconds each peer needs, seed by seed; the medians by name."""
    figures: dict[str, float] = {}
    missed = 0
    for side, found in by.items():
        seeds = sorted(found.keys() & by.get(OURS, {}).keys())
        if side == OURS or not seeds:
            continue
        told = []
        for key in ("from_step", "from_start"):
            ratios = [seconds(found[s], key) / seconds(by[OURS][s], key) for s in seeds]
            least, most = (sum(rows[s][key] is None for s in seeds) for rows in (found, by[OURS]))
            bounds = f" ({least} at least, {most} at most)" if least or most else ""
            told.append(f"{spread(ratios)} {key.replace('_', ' ')}{bounds}")
            figures[f"{side} {key.replace('_', ' ')}"] = float(f"{statistics.median(ratios):.3g}")
        print(f"  {side} takes {', '.join(told)} times as long as tuner; {len(seeds)} seeds")
        bar = SIDES[side].bar
        if bars and bar is not None:
            met = figures[f"{side} from step"] >= bar
            missed += not met
            print(f"    {'met' if met else 'MISSED'}: from the first step at least {bar:g}")
    for side, found in by.items():
        tests = [r["test"]["test_acc"] for r in found.values() if r["test"]]
        if tests:
            figures[f"{side} test accuracy"] = round(statistics.median(tests), 4)
    return figures | ({"bars missed": missed} if bars else {})


def seconds(found: Row, key: str) -> float:
    """Seconds to the target; of a side that was not there in time, those that it had."""
    if found[key] is not None:
        return float(found[key])
    return float(found["limit"] + (found["start"] if key == "from_start" else 0.0))


def spread(values: Sequence[float], limits: Sequence[float] | None = None) -> str:
    """The median and the quartiles; > before one that is cut off."""
    ordered = sorted(zip(values, limits or [float("inf")] * len(values), strict=True))
    three = [statistics.median(values)]
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        three += [low, high]
    least = min((limit for value, limit in ordered if value >= limit), default=float("inf"))
    words = [f"{'>' if value >= least else ''}{value:.3g}" for value in three]
    return words[0] if len(words) == 1 else f"{words[0]} [{words[1]}, {words[2]}]"


def main() -> None:
    """Run what is missing, print the table, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tuner and random search, an easy target, nothing kept")
    parser.add_argument("--prepare", action="store_true", help="make the peers' environments, and run nothing")
    parser.add_argument("--check", action="store_true", help="compare the peers' task with tuner's, and run nothing")
    parser.add_argument("--report", action="store_true", help="run nothing, only print what is kept")
    parser.add_argument("--peers", type=Path, default=PEERS, help="the folder of the peers' environments")
    parser.add_argument(
        "--sides", nargs="+", choices=[OURS, *SIDES], default=[OURS, *(s for s in SIDES if SIDES[s].bar)]
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--limit", type=float, default=Target.limit, help="seconds from the first step")
    parser.add_argument("--core", type=int, help="which core; the last that this process may use")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--side", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return ours(given.side)
    if given.prepare:
        return prepare(given.peers.resolve())
    if given.check or given.quick:
        same_task()
        print("the peers' network, descent and data are tuner's", file=sys.stderr)
        if given.check:
            return None
    target = Target(limit=given.limit)
    if given.quick:
        target, given.sides, given.seeds = Target(0.9, 0.7, epochs=3, limit=30), [OURS, "random"], 1
    rows = kept(given.results) if not given.quick else []
    if not given.report:
        rows += missing(given, target, rows)
    rows = [r for r in rows if aims_at(r, target) and r["side"] in given.sides and r["seed"] < given.seeds]
    if not rows:
        raise SystemExit(f"nothing is kept in {given.results} for this target and limit.")
    figures = report(rows, given.sides, bars=not given.quick)
    print()
    print(json.dumps(figures))
    return None


def kept(results: Path) -> list[Row]:
    """The rows of earlier runs."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def aims_at(row: Row, target: Target) -> bool:
    """Whether a row is of this target and limit."""
    return all(row[key] == value for key, value in asdict(target).items())


def missing(given: argparse.Namespace, target: Target, rows: Sequence[Row]) -> list[Row]:
    """Run what is not kept: seed by seed all sides, each seed beginning with another one."""
    core = given.core
    if hasattr(os, "sched_setaffinity"):
        core = max(os.sched_getaffinity(0)) if core is None else core
        os.sched_setaffinity(0, {core})  # what is started inherits it
    peers = given.peers.resolve()
    for side in given.sides:
        python = Path(command(side, HERE, peers)[0])
        if not python.exists():
            raise SystemExit(f"{side} needs {python}, which is not there. Run --prepare --peers {given.peers} first.")
    told = {"space": told_space(), "parts": told_parts()}
    done = {(r["side"], r["seed"]) for r in rows if aims_at(r, target)}
    fresh = []
    for seed in range(given.seeds):
        turn = seed % len(given.sides)
        for side in (*given.sides[turn:], *given.sides[:turn]):
            if (side, seed) in done:
                continue
            found = measure(side, seed, target, told, peers)
            fresh.append(found)
            print(f"{side}, seed {seed}: {words(found)}", file=sys.stderr, flush=True)
            if not given.quick:
                given.results.parent.mkdir(exist_ok=True)
                with given.results.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    return fresh


def words(found: Row) -> str:
    """A row in words."""
    if found["from_step"] is None:
        return f"not there after {found['limit']:.0f} s; best loss {found['best']}, {found['trials']} trials"
    return (
        f"{found['from_step']:.2f} s from the first step, {found['from_start']:.2f} s from the start, "
        f"{found['trials']} trials, test accuracy {found['test'].get('test_acc', float('nan')):.4f}"
    )


if __name__ == "__main__":
    main()
