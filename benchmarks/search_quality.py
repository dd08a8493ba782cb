"""How good the search is: real trainings, many seeds, beside Optuna's samplers on the same spaces and epochs.

Every method's first trial is the default configuration. What is compared is the best validation loss so far, after 5,
10, 25 and 50 trials, as the difference of its logarithm to that of Optuna's TPE on the same seed, with a 95 % interval
from the bootstrap over seeds; and how many trials a method needs to reach what TPE has at 50. Trainings run in a bare
loop on the shipped networks, one thread each, so that thousands of them take an hour. Results are kept in a file, line
by line, and what is there is not trained again.

    python benchmarks/search_quality.py                  # four tasks, 16 seeds, 50 trials: hours on two cores
    python benchmarks/search_quality.py --tasks mlp-digits --methods tpe priority --seeds 4
    python benchmarks/search_quality.py --report         # trains nothing: the tables of what is kept
    python benchmarks/search_quality.py --quick          # one task, two seeds, 8 trials, nothing kept
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import torch
from torch.nn import functional as F

from tuner.data import Digits, SklearnTable, Text
from tuner.data.in_memory import InMemory
from tuner.data.streams import Streams
from tuner.models import MLP, LeNet, RNNLanguageModel
from tuner.models.network import Network
from tuner.search import PrioritySampler, search_space
from tuner.search.search import Search
from tuner.space import Space, read_space
from tuner.trial import Objective, Trial, TrialResult, TrialState

RESULTS = Path(__file__).parent / "results" / "search_quality.jsonl"
BUDGETS = (5, 10, 25, 50)
COHORT = 8
SHAPED = ("data.batch_size", "model.hidden_units", "model.channels", "model.depth", "model.norm", "model.activation")
"""On what the trials of a cohort must agree."""


@dataclass(frozen=True)
class Task:
    """A network, its data and its space."""

    network: type[Network]
    data: Callable[[], InMemory]
    space: Mapping[str, Any]
    epochs: int


SMALL_BATCHES = {"choice": {"values": [16, 32, 64, 128, 256], "default": 32}}

TASKS: dict[str, Task] = {
    "mlp-digits": Task(
        MLP,
        lambda: Digits(),
        {
            "use": "mlp",
            "change": {
                "model.hidden_units": {"int": {"low": 8, "high": 128, "default": 32}},
                "model.depth": {"int": {"high": 3}},
                "data.batch_size": SMALL_BATCHES,
            },
        },
        epochs=10,
    ),
    "mlp-cancer": Task(
        MLP,
        lambda: SklearnTable("breast_cancer"),
        {
            "use": "mlp",
            "change": {
                "model.hidden_units": {"int": {"low": 4, "high": 64, "default": 16}},
                "model.depth": {"int": {"high": 3}},
                "data.batch_size": SMALL_BATCHES,
            },
        },
        epochs=12,
    ),
    "lenet-digits": Task(
        LeNet,
        lambda: Digits(flat=False),
        {
            "use": "lenet",
            "change": {
                "model.channels": {"int": {"low": 2, "high": 16, "default": 6}},
                "model.hidden_units": {"int": {"low": 8, "high": 64, "default": 32}},
                "data.batch_size": SMALL_BATCHES,
            },
        },
        epochs=6,
    ),
    "rnn-topics": Task(
        RNNLanguageModel,
        lambda: Text(val_share=0.02, test_share=0.02),
        {
            "use": "rnn",
            "change": {
                "model.hidden_units": {"int": {"low": 16, "high": 96, "default": 48}},
                "model.depth": None,
                "model.cell": None,
                "model.activation": None,
                "data.steps": {"choice": {"values": [16, 32, 64], "default": 32}},
            },
        },
        epochs=3,
    ),
}
_TEXT = 20_000  # characters that an epoch of the text task reads


def spaces(task: Task) -> dict[str, Space]:
    """The task's space as it is, with its priorities reversed, and with its defaults two scale-widths off."""
    space, problems = read_space(dict(task.space))
    assert space is not None, problems
    highest = max(space.priorities.values())
    turned, off = {}, {}
    for path, parameter in space.parameters.items():
        turned[path] = parameter.model_copy(update={"priority": highest + 1 - (parameter.priority or highest)})
        ranged = parameter.range
        if hasattr(ranged, "to_unit"):
            unit = ranged.to_unit(ranged.default)
            moved = ranged.model_copy(update={"default": ranged.from_unit(unit + (0.3 if unit < 0.5 else -0.3))})
            kind = "float_" if parameter.kind == "float" else "int_"
            off[path] = parameter.model_copy(update={kind: moved})
        else:
            off[path] = parameter
    return {"stated": space, "reversed": Space(turned), "shifted": Space(off)}


def train(
    task: Task, params: Mapping[str, Any], seed: int, prune: Callable[[int, float], bool] | None = None
) -> tuple[float, float, list[float]]:
    """Best validation loss, the test loss at that epoch, and the validation loss by epoch; inf if it diverges."""
    torch.manual_seed(seed)
    data = task.data()
    arguments = {path.removeprefix("model."): value for path, value in params.items() if path.startswith("model.")}
    network = task.network(**arguments)
    network.take_shapes(data)
    configured: Any = network.configure_optimizers()
    optimizer, schedulers = (configured[0][0], configured[1]) if isinstance(configured, tuple) else (configured, [])
    clip = network.hyperparameter("clip_norm")
    best, at_best, curve = float("inf"), float("inf"), []
    for _ in range(task.epochs):
        network.train()
        state = None
        for x, y in batches(data, params):
            logits, state = outputs(network, x, state)
            loss = network.penalised(F.cross_entropy(logits, y.flatten()))
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
        value = evaluate(network, data.val_dataloader())
        curve.append(value)
        if not np.isfinite(value):
            return best, at_best, curve
        if value < best:
            best, at_best = value, evaluate(network, data.test_dataloader())
        if prune is not None and prune(len(curve), value):
            break
    return best, at_best, curve


def batches(data: InMemory, params: Mapping[str, Any]) -> Iterator[Any]:
    """One epoch of training batches."""
    if isinstance(data, Text):
        part = data.corpus.train[:_TEXT]
        yield from Streams(part, params["data.batch_size"], params["data.steps"], shift=True)
        return
    data.batch_size = params["data.batch_size"]
    yield from data.train_dataloader()


def outputs(network: Network, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    """Logits, one row a prediction, and the state to carry."""
    if not isinstance(network, RNNLanguageModel):
        return network(x), None
    logits, state = network.unroll(x, state)
    return logits.flatten(0, 1), [s.detach() for s in state]


@torch.no_grad()
def evaluate(network: Network, loader: Any) -> float:
    """Mean cross-entropy."""
    network.eval()
    total, count, state = 0.0, 0, None
    for x, y in loader:
        logits, state = outputs(network, x, state)
        total += float(F.cross_entropy(logits, y.flatten(), reduction="sum"))
        count += y.numel()
    return total / count


# ---- methods -------------------------------------------------------------------------------------------------------

Evaluate = Callable[[Mapping[str, Any]], tuple[float, float]]


def searched(sampler: str, which: str = "stated") -> Callable[..., None]:
    """A sampler of `search/`, as a study uses it."""

    def run(task: Task, seed: int, trials: int, evaluate: Evaluate) -> None:
        space = spaces(task)[which]
        search = Search(space, Objective("val_loss"), sampler, "none", seed, task.epochs)
        for number in range(trials):
            params = dict(space.default_params()) if number == 0 else search.propose(number)
            value, _ = evaluate(params)
            search.see([finished(number, params, value)])

    return run


def finished(number: int, params: Mapping[str, Any], value: float) -> Trial:
    """A trial as the storage has it."""
    if np.isfinite(value):
        result = TrialResult(TrialState.COMPLETE, value, {"val_loss": value}, best_epoch=1, epochs=1)
    else:
        result = TrialResult(TrialState.PRUNED, infeasible=True, reason="diverged")
    return Trial(number, params, 0, result.state, result=result)


def stages(task: Task, seed: int, trials: int, evaluate: Evaluate) -> None:
    """One priority after the other, all else fixed at the best so far; TPE within a stage."""
    space = spaces(task)["stated"]
    best, best_value = dict(space.defaults), np.inf
    ranks = sorted(set(space.priorities.values()))
    distributions = search_space(dict(task.space)).distributions()
    value, _ = evaluate(space.default_params())
    best_value, done = value, 1
    for i, rank in enumerate(ranks):
        share = (trials - done) // (len(ranks) - i)
        here = {path: distributions[path] for path, priority in space.priorities.items() if priority == rank}
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed + i, n_startup_trials=5))
        for _ in range(share):
            trial = study.ask(here)
            config = best | trial.params
            active = {path: config[path] for path in config if space.active(path, config)}
            value, _ = evaluate(active)
            done += 1
            study.tell(trial, value if np.isfinite(value) else 1e3)
            if value < best_value:
                best, best_value = config, value


def cohorts(task: Task, seed: int, trials: int, evaluate: Evaluate) -> None:
    """The priority sampler in cohorts of 8 that agree on a shape."""
    space = spaces(task)["stated"]
    distributions = search_space(dict(task.space)).distributions()
    study = optuna.create_study()
    for _ in range(trials // COHORT):
        sampler = PrioritySampler.from_space(space, seed=seed)
        for config in sampler.cohort(study, distributions, COHORT, SHAPED):
            active = {path: config[path] for path in space.parameters if space.active(path, config)}
            value, _ = evaluate(active)
            state = optuna.trial.TrialState.COMPLETE if np.isfinite(value) else optuna.trial.TrialState.PRUNED
            study.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    value=value if np.isfinite(value) else None,
                    params=active,
                    distributions={path: distributions[path] for path in active},
                )
            )


METHODS: dict[str, Callable[..., None]] = {
    "tpe": searched("tpe"),
    "priority": searched("priority"),
    "cohorts": cohorts,
    "random": searched("random"),
    "stages": stages,
    "reversed": searched("priority", "reversed"),
    "shifted": searched("priority", "shifted"),
    "gp": searched("gp"),
}


HALF = ("reversed", "shifted")
"""They are compared with random at 25 trials, so that is what they get."""


def job(asked: tuple[str, str, int, int]) -> dict[str, Any]:
    """One study: the losses of its trials in their order."""
    task_name, method, seed, trials = asked
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = TASKS[task_name]
    validation: list[float] = []
    test: list[float] = []
    spent = {"train": 0.0}

    def evaluate_(params: Mapping[str, Any]) -> tuple[float, float]:
        started = time.process_time()
        value, tested, _ = train(task, params, seed=1000 * seed + len(validation))
        spent["train"] += time.process_time() - started
        validation.append(value)
        test.append(tested)
        return value, tested

    started = time.process_time()
    METHODS[method](task, seed, trials, evaluate_)
    search = time.process_time() - started - spent["train"]
    return {
        "task": task_name, "method": method, "seed": seed, "trials": trials,
        "val": _short(validation), "test": _short(test),
        "train_s": round(spent["train"], 1), "search_s": round(search, 2),
    }  # fmt: skip


def _short(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


# ---- waste ---------------------------------------------------------------------------------------------------------


def wasted(method: str, seed: int, trials: int) -> int:
    """Trials out of so many that run into a memory wall or a NaN region of the digits space; nothing is trained.

    Out of memory: more than 12,000 weights times samples of a batch (about a quarter of the space). NaN: learning rates
    above 0.6 without a normaliser, above 1.5 with one. Beyond that the loss falls with width, up to the wall.
    """
    space = spaces(TASKS["mlp-digits"])["stated"]
    search = Search(space, Objective("val_loss"), method, "none", seed, 10)
    bad = 0
    for number in range(trials):
        params = search.propose(number)
        weights = params["model.hidden_units"] * (64 + params["model.hidden_units"] * params["model.depth"])
        memory = weights * params["data.batch_size"] > 400_000
        rate = params["model.learning_rate"]
        diverges = rate > (0.6 if params["model.norm"] == "none" else 1.5)
        bad += memory or diverges
        value = np.inf if memory or diverges else abs(np.log(rate / 0.5)) + 100 / params["model.hidden_units"]
        search.see([finished(number, params, float(value))])
    return bad


# ---- figures -------------------------------------------------------------------------------------------------------

Curves = dict[int, np.ndarray]
"""By seed: a logarithm by trial."""


def curves(rows: list[dict[str, Any]], task: str, method: str) -> tuple[Curves, Curves]:
    """Log of the best validation loss so far, and log of the test loss of that trial, by trial."""
    best, tested = {}, {}
    for row in rows:
        if (row["task"], row["method"]) == (task, method):
            values, tests = (_log(row[key]) for key in ("val", "test"))
            best[row["seed"]] = np.minimum.accumulate(values)
            leader = [int(np.argmin(values[: i + 1])) for i in range(len(values))]
            tested[row["seed"]] = tests[leader]
    return best, tested


def _log(losses: list[float]) -> np.ndarray:
    return np.log(np.clip(np.nan_to_num(np.array(losses, dtype=float), nan=1e3, posinf=1e3), 1e-9, 1e3))


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The mean and its 95 % interval."""
    draw = np.random.default_rng(0).integers(len(differences), size=(4000, len(differences)))
    means = differences[draw].mean(axis=1)
    return float(differences.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def difference(own: Curves, other: Curves, trials: int) -> np.ndarray | None:
    """By seed, how much lower or higher one is than the other after so many trials; None if either was not run."""
    seeds = [s for s in sorted(own.keys() & other.keys()) if min(len(own[s]), len(other[s])) >= trials]
    return np.array([own[s][trials - 1] - other[s][trials - 1] for s in seeds]) if seeds else None


def report(rows: list[dict[str, Any]], trials: int) -> dict[str, Any]:
    """Print the tables; the figures are geometric means over the tasks."""
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    budgets = [b for b in BUDGETS if b <= trials] or [trials]
    needed: dict[str, list[float]] = {method: [] for method in methods}
    won: dict[str, list[float]] = {method: [] for method in methods}
    worse: dict[str, list[str]] = {"than the best": [], "reversed than random": [], "shifted than random": []}
    for task in tasks:
        found = {method: curves(rows, task, method) for method in methods}
        if "tpe" not in found:
            continue
        tpe, tpe_tested = found["tpe"]
        print(f"\n{task}: log loss minus TPE's, mean [95 %] (share of seeds below TPE), {len(tpe)} seeds")
        for method in methods:
            own, tested = found[method]
            for what, mine, its in (("val", own, tpe), ("test", tested, tpe_tested)):
                told = []
                for budget in budgets:
                    differences = difference(mine, its, budget)
                    if differences is None:
                        continue
                    mean, low, high = interval(differences)
                    told.append(f"{budget}: {mean:+.3f} [{low:+.2f}, {high:+.2f}] ({(differences < 0).mean():.2f})")
                    if budget == budgets[0] and what == "val":
                        won[method].append(float((differences < 0).mean()))
                print(f"  {method:<9} {what:<5} {'  '.join(told)}")
            whole = trials // COHORT * COHORT if method == "cohorts" else trials
            if _whole(own, whole):
                needed[method].append(reaches(own, tpe))
                print(f"  {method:<9} reaches TPE's end after {needed[method][-1]:.0f}")
        ends = {
            m: np.mean([c[trials - 1] for c in own.values()]) for m, (own, _) in found.items() if _whole(own, trials)
        }
        best = min(ends, key=lambda method: ends[method])
        if "priority" in ends and _worse(found["priority"][0], found[best][0], trials):
            worse["than the best"].append(f"{task}: {best}")
        for which in ("reversed", "shifted"):
            if "random" in found and which in found and _worse(found[which][0], found["random"][0], budgets[-2]):
                worse[f"{which} than random"].append(task)
    figures: dict[str, Any] = {}
    for method in methods:
        if needed[method] and method == "cohorts":
            passes = np.ceil(np.array(needed[method]) / COHORT)
            figures["cohorts passes"] = round(float(np.exp(np.mean(np.log(passes)))), 1)
        if needed[method]:
            figures[f"{method} trials"] = round(float(np.exp(np.mean(np.log(needed[method])))), 1)
        if won[method]:
            figures[f"{method} wins at {budgets[0]}"] = round(float(np.mean(won[method])), 2)
    print()
    for what, where in worse.items():
        print(f"priority significantly worse, {what}: {', '.join(where) or 'nowhere'}")
        figures[f"worse {what}"] = len(where)
    return figures


def _whole(own: Curves, trials: int) -> bool:
    return bool(own) and min(len(curve) for curve in own.values()) >= trials


def _worse(own: Curves, other: Curves, trials: int) -> bool:
    differences = difference(own, other, trials)
    return differences is not None and interval(differences)[1] > 0


def reaches(own: Curves, tpe: Curves) -> float:
    """After how many trials the mean curve is as low as TPE's is in the end; one more than there are if never."""
    seeds = sorted(own.keys() & tpe.keys())
    length = min(len(own[s]) for s in seeds)
    mean = np.mean([own[s][:length] for s in seeds], axis=0)
    goal = np.mean([tpe[s][-1] for s in seeds])
    below = np.flatnonzero(mean <= goal)
    return float(below[0] + 1) if len(below) else float(length + 1)


def main() -> None:
    """Train what is missing, print the tables, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task, two seeds, 8 trials, nothing kept")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="train nothing, only print what is kept")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if asked.quick:
        asked.tasks, asked.methods, asked.seeds, asked.trials = ["mlp-cancer"], ["tpe", "priority", "cohorts"], 2, 8
    elif asked.results.exists():
        rows = [json.loads(line) for line in asked.results.read_text().splitlines()]
    done = {(row["task"], row["method"], row["seed"]) for row in rows if row["trials"] >= asked.trials}
    done |= {(row["task"], row["method"], row["seed"]) for row in rows if row["method"] in HALF}
    todo = [
        (t, m, s, min(asked.trials, 25) if m in HALF else asked.trials)
        for s in range(0 if asked.report else asked.seeds)
        for t in asked.tasks
        for m in asked.methods
        if (t, m, s) not in done
    ]
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for row in pool.imap_unordered(job, todo):
            rows.append(row)
            if not asked.quick:
                asked.results.parent.mkdir(exist_ok=True)
                with asked.results.open("a") as kept:
                    kept.write(json.dumps(row) + "\n")
    figures = report([row for row in rows if row["task"] in asked.tasks], asked.trials)
    trials, seeds = (15, 1) if asked.quick else (60, 15)
    print(f"\ntrials of {trials} that ran into a memory wall or a NaN region: median and worst seed")
    for method in ("priority", "tpe", "random"):
        counts = [wasted(method, seed, trials=trials) for seed in range(seeds)]
        print(f"  {method:<9} {np.median(counts):.0f}, {max(counts)}")
        figures[f"{method} wasted of {trials}"] = max(counts)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
