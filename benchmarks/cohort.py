"""Whole studies under every way of training, beside Optuna + Lightning + MLflow as their users put them together.

A study is all that a user waits for: proposals, storage, building, steps and their recording, the validation of each
epoch, and MLflow. Shapes are fixed and four to five numbers are searched; nothing is pruned or stopped early, on either
side, so that all train the same epochs; seconds are compared per epoch trained. Every side is a process of its own on
one core and one thread, and the sides of a workload run one after the other, the second round in the reverse order.
Imports, data and the databases' tables are there before the clock starts, on all sides; `start` counts them too.

- `peer`: `study.optimize` with an SQLite storage, TPE, a pruner that is asked after every epoch and never prunes, and
  on the same module and data `L.Trainer` with an MLFlowLogger to SQLite. Its clock ends when `optimize` returns.
- `lightning`, `lean`, `cohort`, `auto`: that `search.training` under `tuner.run(study, workers=1)`, as `tuner run` does
  it. `trials` is from the first trial's start to the last one's end, by the storage; `study` goes on until the command
  is done, with everything in MLflow, and is what is compared. CPU seconds are the worker's and the courier's.

`big` is a network whose steps are arithmetic: there is nothing to be won, and `auto` must not lose. CPU seconds count
no other user of the machine: where it is shared, read those.

    python benchmarks/cohort.py                               # six workloads, 64 trials: an hour on an idle core
    python benchmarks/cohort.py --workloads lenet --modes cohort auto --peer-trials 8
    python benchmarks/cohort.py --report                      # trains nothing: the tables of what is kept
    python benchmarks/cohort.py --quick                       # one workload, 8 trials of 2 epochs, nothing kept
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "cohort.jsonl"
PEER = "peer"
MODES = ("lightning", "lean", "cohort", "auto")
AT_LEAST_OF_THE_BEST = 0.95
"""How fast `auto` must be, beside the fastest of the ways it may choose from."""

Row = dict[str, Any]


def number(low: float, high: float, scale: str = "linear") -> dict[str, Any]:
    """A searched number."""
    return {"float": {"low": low, "high": high, "scale": scale}}


SGD = {
    "model.learning_rate": number(0.01, 0.3, "log"),
    "model.momentum": number(0.5, 0.99, "log_complement"),
    "model.weight_decay": number(1e-6, 1e-2, "log"),
    "model.lr_decay": number(0.8, 0.99, "log_complement"),
    "model.dropout": number(0.05, 0.5),
}
ADAM = {
    "model.learning_rate": number(3e-4, 1e-2, "log"),
    "model.adam_beta1": number(0.8, 0.99, "log_complement"),
    "model.adam_beta2": number(0.9, 0.9999, "log_complement"),
    "model.weight_decay": number(1e-7, 1e-4, "log"),
    "model.lr_decay": number(0.8, 0.99, "log_complement"),
}


@dataclass(frozen=True)
class Workload:
    """A network, its data and what is searched.

    Attributes:
        bar: how many times as fast as the peer a study must be; None of `big`.
        trials: at most so many.
        cohort: `search.cohort`.
    """

    model: str
    arguments: Mapping[str, Any]
    data: str
    data_arguments: Mapping[str, Any]
    space: Mapping[str, Any]
    epochs: int
    bar: float | None = None
    trials: int | None = None
    cohort: int | str = "auto"


WORKLOADS: dict[str, Workload] = {
    "mlp-small": Workload(
        "MLP", {"hidden_units": 32, "depth": 1, "norm": "none"}, "Digits", {"batch_size": 16}, SGD, epochs=20, bar=20
    ),
    "mlp": Workload("MLP", {"hidden_units": 128, "depth": 2}, "Digits", {"batch_size": 64}, SGD, epochs=20, bar=8),
    "lenet": Workload(
        "LeNet",
        {"channels": 6, "hidden_units": 32},
        "Digits",
        {"batch_size": 16, "flat": False},
        SGD,
        epochs=10,
        bar=8,
    ),
    "rnn": Workload(
        "RNNLanguageModel",
        {"hidden_units": 64},
        "Text",
        {"path": "text.txt", "batch_size": 16, "steps": 32},
        ADAM,
        epochs=10,
        bar=4,
    ),
    "resnet": Workload(
        "ResNet",
        {"hidden_units": 8, "stages": 3},
        "Digits",
        {"batch_size": 32, "flat": False},
        SGD,
        epochs=10,
        bar=2,
    ),
    "big": Workload(
        "MLP",
        {"hidden_units": 512, "depth": 2},
        "Mnist",
        {"path": "images", "batch_size": 64, "flat": True},
        SGD,
        epochs=4,
        trials=3,
        cohort=3,
    ),
}


# ---- the study, for both sides -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a side is asked to run.

    Attributes:
        born: when its process was started.
    """

    workload: str
    side: str
    seed: int
    trials: int
    epochs: int
    cohort: int | str
    folder: str
    born: float = 0.0

    @property
    def document(self) -> dict[str, Any]:
        """The study file."""
        this = WORKLOADS[self.workload]
        return {
            "study": "cohort",
            "model": {"class_path": f"tuner.models.{this.model}", "init_args": dict(this.arguments)},
            "data": {"class_path": f"tuner.data.{this.data}", "init_args": self.data_arguments},
            "trainer": {"max_epochs": self.epochs, "accelerator": "cpu", "devices": 1},
            "seed_everything": self.seed,
            "space": dict(this.space),
            "search": {
                "training": self.side,
                "cohort": self.cohort,
                "trials": self.trials,
                "pruner": "none",
                "patience": None,
                "confirm": 0,
            },
        }

    @property
    def data_arguments(self) -> dict[str, Any]:
        """The data's arguments; a path is one in the folder."""
        given = dict(WORKLOADS[self.workload].data_arguments)
        return given | ({"path": f"{self.folder}/{given['path']}"} if "path" in given else {})


def prepare(workload: str, arguments: Mapping[str, Any]) -> None:
    """Import the workload's classes, and what fit, log and search import when first needed; read and cut the data."""
    for name in ("lightning", "optuna", "mlflow", "tuner.models", "tuner.tracking", "torch._dynamo", "scipy.stats"):
        import_module(name)
    getattr(import_module("tuner.data"), WORKLOADS[workload].data)(**arguments).splits()


def provide(folder: Path) -> None:
    """A text of 30,000 characters of Python's manual, and images in MNIST's format."""
    from pydoc_data.topics import topics

    import numpy as np

    (folder / "text.txt").write_text("\n".join(topics[name] for name in sorted(topics))[:30_000])
    images = folder / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    classes = random.normal(size=(10, 28, 28)) / 10  # so that there is something to learn for some epochs
    for part, count in (("train", 6000), ("t10k", 500)):
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels = 128 + 60 * (classes[labels] + random.normal(size=(count, 28, 28)))
        for what, shape, values in (
            ("labels-idx1", (count,), labels),
            ("images-idx3", (count, 28, 28), pixels.clip(0, 255).astype(np.uint8)),
        ):
            head = bytes((0, 0, 8, len(shape))) + b"".join(side.to_bytes(4, "big") for side in shape)
            (images / f"{part}-{what}-ubyte").write_bytes(head + values.tobytes())


# ---- the peer ------------------------------------------------------------------------------------------------------


def peer(asked: Asked) -> Row:
    """Optuna, Lightning, a pruning callback and MLflow's logger, as their users write it."""
    import logging
    import warnings

    import lightning as L
    import mlflow
    import optuna
    import torch
    from lightning.pytorch.loggers import MLFlowLogger

    from tuner import data, models

    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    this = WORKLOADS[asked.workload]
    tracking = f"sqlite:///{asked.folder}/mlflow.db"
    mlflow.MlflowClient(tracking).create_experiment("cohort")
    study = optuna.create_study(
        study_name="cohort",
        storage=f"sqlite:///{asked.folder}/optuna.db",
        sampler=optuna.samplers.TPESampler(seed=asked.seed),
        pruner=optuna.pruners.NopPruner(),
    )
    prepare(asked.workload, asked.data_arguments)
    epochs = 0

    class Pruning(L.Callback):
        def __init__(self, trial: optuna.Trial) -> None:
            self.trial = trial

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.sanity_checking:
                return
            self.trial.report(trainer.callback_metrics["val_loss"].item(), step=trainer.current_epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def objective(trial: optuna.Trial) -> float:
        nonlocal epochs
        L.seed_everything(1000 * asked.seed + trial.number, verbose=False)
        found = {path.removeprefix("model."): suggest(trial, path, p["float"]) for path, p in this.space.items()}
        module = getattr(models, this.model)(**this.arguments, **found)
        datamodule = getattr(data, this.data)(**asked.data_arguments)
        trainer = L.Trainer(
            max_epochs=asked.epochs,
            accelerator="cpu",
            devices=1,
            logger=MLFlowLogger("cohort", tracking_uri=tracking),
            callbacks=[Pruning(trial)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, datamodule=datamodule)
        epochs += trainer.current_epoch
        return trainer.callback_metrics["val_loss"].item()

    began, cpu = time.time(), time.process_time()
    study.optimize(objective, n_trials=asked.trials)
    ended, cpu = time.time(), time.process_time() - cpu
    logged = mlflow.MlflowClient(tracking).search_runs(["1"], max_results=1000)
    assert len(logged) == asked.trials, "every trial is in MLflow"
    finished = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    return {
        "seconds": ended - began,
        "trials_seconds": ended - began,
        "cpu": cpu,
        "start": ended - asked.born,
        "trained_epochs": epochs,
        "finished": len(study.trials),
        "complete": len(finished),
        "best": min((min(t.intermediate_values.values()) for t in finished), default=None),
        "how": {},
        "reasons": [],
        "phases": {},
    }


def suggest(trial: Any, path: str, ranged: Mapping[str, Any]) -> float:
    """Optuna's word for one of our ranges."""
    low, high, scale = ranged["low"], ranged["high"], ranged["scale"]
    if scale == "log_complement":
        return 1 - float(trial.suggest_float(path, 1 - high, 1 - low, log=True))
    return float(trial.suggest_float(path, low, high, log=scale == "log"))


# ---- tuner ---------------------------------------------------------------------------------------------------------


def ours(asked: Asked) -> Row:
    """The study under `tuner.run` with a worker, as `tuner run` has it."""
    from multiprocessing import forkserver

    folder = Path(asked.folder)
    # Workers are forked from a server that imports by name; this has it import and prepare what the peer's process has.
    (folder / "prepared.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        f"from cohort import prepare\nprepare({asked.workload!r}, {asked.data_arguments!r})\n"
    )
    forkserver.set_forkserver_preload(["tuner.engine.warm", "prepared"])
    forkserver.ensure_running()

    import mlflow

    import tuner
    import tuner.engine
    from tuner import insight
    from tuner.home import Home
    from tuner.service.entry import open_storage
    from tuner.tracking.local_store import create_local_store

    home = Home.from_environment()
    insight.prepare()  # for the report in which a study ends
    create_local_store(home.tracking, home.artifacts)
    mlflow.MlflowClient(home.tracking).search_experiments()
    path = folder / "study.yaml"
    path.write_text(json.dumps(asked.document))  # JSON is YAML
    with open_storage(home, create=True):
        pass
    tuner.run(path, workers=1)
    ended = time.time()
    with open_storage(home) as store:
        row = store.study("cohort")
        done = store.trials(row.id)
        waiting = store.count_untracked(row.id)
    assert not waiting, "every trial is in MLflow"
    began, ledger = min(t.started for t in done), row.facts["ledger"]
    hows = [t.outcome.trained or "unknown" for t in done]
    phases: collections.Counter[str] = collections.Counter()
    for trial in done:
        phases.update(trial.outcome.seconds)
    return {
        "seconds": ended - began,
        "trials_seconds": max(t.finished for t in done) - began,
        "cpu": ledger["worker_cpu"] + ledger["courier_cpu"],
        "start": ended - asked.born,
        "trained_epochs": sum(t.outcome.epochs for t in done),
        "finished": len(done),
        "complete": sum(t.state == "complete" for t in done),
        "best": min((t.score for t in done if t.state == "complete"), default=None),
        "how": dict(collections.Counter(re.split("[:;]", how)[0] for how in hows)),
        "reasons": sorted({how for how in hows if re.search("[:;]", how)} | {t.outcome.reason or "" for t in done}),
        "phases": phases | {"courier CPU": ledger["courier_cpu"], "worker CPU": ledger["worker_cpu"]},
    }


# ---- running -------------------------------------------------------------------------------------------------------


def run(asked: Asked, core: int | None) -> Row:
    """Run a side in a process of its own and a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        provide(folder)
        environment = {k: v for k, v in os.environ.items() if k not in ("TUNER_STORAGE", "MLFLOW_TRACKING_URI")}
        environment |= {
            "TUNER_HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        told = folder / "asked.json"
        told.write_text(json.dumps(vars(replace(asked, folder=str(folder), born=time.time())) | {"core": core}))
        command = [sys.executable, str(Path(__file__).resolve()), "--side", str(told)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{asked.workload} {asked.side} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        kept = {name: value for name, value in vars(asked).items() if name not in ("folder", "born")}
        return kept | {"when": time.strftime("%F %T")} | json.loads(done.stdout.splitlines()[-1])


def side(path: str) -> None:
    """Run the side that the file asks for; the last line printed is its row."""
    given = json.loads(Path(path).read_text())
    core = given.pop("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
    asked = Asked(**given)
    row = peer(asked) if asked.side == PEER else ours(asked)
    print(json.dumps(row))


def jobs(given: argparse.Namespace) -> list[Asked]:
    """All that is asked for, workload by workload and round by round."""
    found = []
    for name in given.workloads:
        this = WORKLOADS[name]
        trials = min(given.trials, this.trials or given.trials)
        peers = min(given.peer_trials or trials, trials)
        cohort = given.cohort or this.cohort
        for seed in range(given.rounds):
            sides = (PEER, *given.modes)
            for which in sides if seed % 2 == 0 else reversed(sides):
                count = peers if which == PEER else trials
                found.append(Asked(name, which, seed, count, given.epochs or this.epochs, cohort, ""))
    return found


def found(asked: Asked, rows: Sequence[Row]) -> Row | None:
    """The latest row that is what is asked for; cohorts do not matter to what trains one by one."""
    names = ["workload", "side", "seed", "trials", "epochs", *(["cohort"] if asked.side in ("cohort", "auto") else [])]
    alike = (row for row in reversed(rows) if all(row[name] == getattr(asked, name) for name in names))
    return next(alike, None)


def fresh(asked: Asked, core: int | None, results: Path | None) -> Row:
    """A row that was not kept; it is, unless there is nowhere to keep it."""
    row = run(asked, core)
    told = f"{row['seconds']:.1f} s, CPU {row['cpu']:.1f} s"
    print(f"{asked.workload} {asked.side}, round {asked.seed}: {told}", file=sys.stderr, flush=True)
    if results is not None:
        results.parent.mkdir(exist_ok=True)
        with results.open("a") as kept:
            kept.write(json.dumps(row) + "\n")
    return row


# ---- figures -------------------------------------------------------------------------------------------------------

CLOCKS = {"": "seconds", " trials": "trials_seconds", " CPU": "cpu"}
"""What is compared, by the word behind a figure's name: the whole study, its trials only, CPU seconds."""

By = Mapping[str, Mapping[int, Row]]
"""Rows by side and round."""


def report(name: str, rows: Sequence[Row], bars: bool = True) -> dict[str, float]:
    """Print the table of a workload, and whether it meets its bars; its figures by name."""
    by = {s: {r["seed"]: r for r in rows if r["side"] == s} for s in (PEER, *MODES)}
    ran = [s for s in by if by[s]]
    some = max(rows, key=lambda row: (row["side"] != PEER, row["trials"]))
    epochs = statistics.median(r["trained_epochs"] for r in rows if (r["side"] == PEER) is (some["side"] == PEER))
    print(f"\n{name}: {some['trials']} trials of {some['epochs']} epochs, {len(by[some['side']])} round(s)")
    if any(row["trials"] < some["trials"] for row in by[PEER].values()):
        few = min(row["trials"] for row in by[PEER].values())
        print(f"the peer ran {few} trials; its seconds are what the others' epochs would have taken it")
    head = ("side", "trials s", "study s", "start s", "CPU s", "ms/epoch", "CPU ms", "x peer", "x CPU")
    print(("{:<10}" + "{:>9}" * 8 + "  {}").format(*head, "best val_loss; how they were trained"))
    for s in ran:
        print(f"{s:<10}{cells(s, by, epochs)}  {words(list(by[s].values()))}")
    for s in ran:
        reasons = sorted({reason for r in by[s].values() for reason in r["reasons"] if reason})
        for reason in reasons[:5]:
            print(f"  {s}: {reason}")
        if len(reasons) > 5:
            print(f"  {s}: and {len(reasons) - 5} more reasons")
        phases = [{p: 1000 * v / r["finished"] for p, v in r["phases"].items()} for r in by[s].values()]
        if phases[0]:
            means = {p: statistics.fmean(each[p] for each in phases) for p in phases[0]}
            print(f"  {s}, ms a trial: " + ", ".join(f"{p} {ms:.1f}" for p, ms in means.items()))
    figures, met = judged(name, by)
    if not bars:
        return figures
    for what, is_met in met.items():
        print(f"  {'met' if is_met else 'MISSED'}: {what}")
    return figures | {f"{name} bars": len(met), f"{name} bars missed": sum(not is_met for is_met in met.values())}


def cells(s: str, by: By, epochs: float) -> str:
    """The numbers of a side's line, medians over the rounds; the peer's scaled to so many epochs."""
    found = list(by[s].values())
    scale = [epochs / r["trained_epochs"] if s == PEER else 1.0 for r in found]
    study, trials, cpu = (
        statistics.median(r[key] * x for r, x in zip(found, scale, strict=True)) for key in CLOCKS.values()
    )
    start = study + statistics.median(r["start"] - r["seconds"] for r in found)  # starting does not grow with trials
    each = [1000 * statistics.median(r[key] / r["trained_epochs"] for r in found) for key in ("seconds", "cpu")]
    ratios = [beside(by[PEER], by[s], key) if s != PEER else None for key in ("seconds", "cpu")]
    told = "".join(f"{x:>9.1f}" for x in (trials, study, start, cpu, *each))
    return told + "".join(f"{'' if ratio is None else f'{ratio:.1f}':>9}" for ratio in ratios)


def words(found: Sequence[Row]) -> str:
    """The words behind a side's numbers."""
    best = [r["best"] for r in found if r["best"] is not None]
    told = [f"{statistics.median(best):.4f}" if best else "none"]
    how: collections.Counter[str] = sum((collections.Counter(r["how"]) for r in found), collections.Counter())
    if how:
        told.append(", ".join(f"{count} {way}" for way, count in how.most_common()))
    if unlike := sum(r["finished"] - r["complete"] for r in found):
        told.append(f"{unlike} not complete")
    return "; ".join(told)


def judged(name: str, by: By) -> tuple[dict[str, float], dict[str, bool]]:
    """The figures of a workload, and whether its bars are met, in words."""
    bar, figures = WORKLOADS[name].bar, dict[str, float]()
    for s in MODES:
        ratios = {word: beside(by[PEER], by[s], key) for word, key in CLOCKS.items()}
        figures |= {f"{name} {s}{word}": float(f"{ratio:.3g}") for word, ratio in ratios.items() if ratio is not None}
    fastest = max((s for s in MODES if f"{name} {s}" in figures), key=lambda s: figures[f"{name} {s}"], default="")
    which = "auto" if f"{name} auto" in figures else fastest
    met: dict[str, bool] = {}
    if bar is not None and which:
        wall, cpu = (figures[f"{name} {which}{word}"] for word in ("", " CPU"))
        met[f"{which} is {wall:.1f} x the peer, by CPU {cpu:.1f}; at least {bar}"] = min(wall, cpu) >= bar
    for than, least in (("best", AT_LEAST_OF_THE_BEST), ("lightning", None if bar is not None else 1.0)):
        others = [s for s in MODES if s != "auto" and than in ("best", s)]
        ratios = {
            word: [ratio for s in others if (ratio := beside(by[s], by["auto"], key)) is not None]
            for word, key in CLOCKS.items()
        }
        if least is None or not ratios[""]:
            continue
        figures |= {f"{name} auto/{than}{word}": round(min(found), 3) for word, found in ratios.items()}
        wall, cpu = (figures[f"{name} auto/{than}{word}"] for word in ("", " CPU"))
        met[f"auto is {wall:.2f} as fast as {than}, by CPU {cpu:.2f}; at least {least:g} by either"] = (
            max(wall, cpu) >= least
        )
    return figures, met


def beside(them: Mapping[int, Row], us: Mapping[int, Row], key: str) -> float | None:
    """How many times as fast we are per epoch trained: the median over common rounds."""
    rounds = them.keys() & us.keys()
    found = [them[r][key] / them[r]["trained_epochs"] / (us[r][key] / us[r]["trained_epochs"]) for r in rounds]
    return statistics.median(found) if found else None


def main() -> None:
    """Run what is missing, print the tables, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one workload, 8 trials of 2 epochs, nothing kept")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--peer-trials", type=int, help="fewer are scaled by epochs; as --trials")
    parser.add_argument("--epochs", type=int, help="of a trial; as the workload says")
    parser.add_argument("--cohort", type=int, help="search.cohort; as the workload says")
    parser.add_argument("--rounds", type=int, default=1, help="studies of each side, with other seeds")
    parser.add_argument("--core", type=int, help="which core; the last that this process may use")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="train nothing, only print what is kept")
    parser.add_argument("--side", metavar="FILE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return side(given.side)
    rows: list[Row] = []
    if given.quick:
        given.workloads, given.modes = ["mlp-small"], ["cohort"]
        given.trials, given.peer_trials, given.epochs, given.cohort, given.rounds = 8, 2, 2, 4, 1
    elif given.results.exists():
        rows = [json.loads(line) for line in given.results.read_text().splitlines()]
    core = given.core
    if core is None and hasattr(os, "sched_getaffinity"):
        core = max(os.sched_getaffinity(0))
    if given.report:
        chosen = list({(row["workload"], row["side"], row["seed"]): row for row in rows}.values())
    else:
        chosen = [
            found(asked, rows) or fresh(asked, core, None if given.quick else given.results) for asked in jobs(given)
        ]
    figures: dict[str, float] = {}
    for name in given.workloads:
        if own := [row for row in chosen if row["workload"] == name and row["side"] in (PEER, *given.modes)]:
            figures |= report(name, own, bars=not given.quick)  # they are those of whole studies
    print()
    print(json.dumps(figures))
    return None


if __name__ == "__main__":
    main()
