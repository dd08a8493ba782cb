"""What momentum as a filter buys in a staged search: α first, β second, beside torch's form of momentum.

Stage 1 tunes the learning rate α at the default momentum, β = 0.9; stage 2 tunes β with that α. Three forms:

- filter: v ← β v + (1-β) g, θ ← θ - α v from v = 0, as the shipped networks train: the same steps as torch's form with
  the rate α (1-β);
- dampened: the same recurrence as torch's `dampening` alone has it, from v = the first gradient;
- torch: v ← β v + g, θ ← θ - α v, whose steps are 1/(1-β) times as large. Its α comes from the filter's values times
  1 - 0.9, so that stage 1 tries the same steps, and only stage 2 can differ.

By task and form: the validation loss after each stage, how it differs from torch's on the same seed (95 % interval from
the bootstrap over seeds), and that of the chosen α and β on fresh seeds; how the loss changes with β at the α of stage
1; and how far the best α moves from β = 0.5 to β = 0.98 when it is tuned at both. The last compares the same steps in
all forms, so torch's optimum moves by log10(0.02/0.5) = -1.40 decades more than that of the filter, by identity.
A loss above that of a guess, log(classes), counts as the guess.

    python benchmarks/momentum_filter.py            # three tasks, 8 seeds: about ten minutes on one core
    python benchmarks/momentum_filter.py --quick    # one task, two seeds, few values
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.nn import functional as F

from tuner.data import Digits, SklearnTable
from tuner.data.in_memory import InMemory
from tuner.models import MLP
from tuner.models.optimisation import decay_factor, parameter_groups

DEFAULT_BETA = 0.9
BETAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)
ALPHAS = tuple(np.geomspace(1e-4, 3.0, 12))  # of the filter, over the range of the shipped space
MOVED = (0.5, 0.98)  # the best α is found at both
FINE = tuple(np.geomspace(10**-2.5, 10**1.5, 13))  # of the filter, for that
FRESH = 2  # seeds on which the choice is trained again


@dataclass(frozen=True)
class Task:
    """A network and its data."""

    network: Callable[[], MLP]
    data: Callable[[], InMemory]
    epochs: int


TASKS: dict[str, Task] = {
    "mlp-digits": Task(lambda: MLP(hidden_units=32), Digits, epochs=6),
    "plain-digits": Task(lambda: MLP(hidden_units=32, norm="none"), Digits, epochs=6),
    "mlp-cancer": Task(lambda: MLP(hidden_units=16), lambda: SklearnTable("breast_cancer"), epochs=12),
}


@dataclass(frozen=True)
class Form:
    """A form of momentum: torch's SGD with the rate α · scale(β), dampened or not."""

    scale: Callable[[float], float]
    dampened: bool
    alpha_of_filter: Callable[[float], float]
    """By β, what the filter's α is multiplied with for steps of the same size."""


FORMS: Mapping[str, Form] = {
    "filter": Form(lambda beta: 1 - beta, False, lambda _: 1.0),
    "dampened": Form(lambda _: 1.0, True, lambda _: 1.0),
    "torch": Form(lambda _: 1.0, False, lambda beta: 1 - beta),
}


def loss(task: str, form: str, alpha: float, beta: float, seed: int) -> float:
    """Log of the best epoch's validation loss."""
    rate = alpha * FORMS[form].scale(beta)
    return train(task, float(f"{rate:.9g}"), beta, FORMS[form].dampened, seed)


@functools.cache
def train(task_name: str, rate: float, beta: float, dampened: bool, seed: int) -> float:
    """The same for a rate of torch's SGD; what was trained is remembered."""
    torch.manual_seed(seed)
    task, data = TASKS[task_name], data_of(task_name)
    network = task.network()
    network.take_shapes(data)
    h = network.hparams
    groups = parameter_groups(network.parameters(), h["weight_decay"])
    optimizer = torch.optim.SGD(groups, rate, momentum=beta, dampening=beta if dampened else 0.0)
    factor = decay_factor(h["lr_schedule"], h["lr_decay"], h["lr_step"])
    assert factor is not None
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    best = guess = float(np.log(data.num_classes or 1))
    for _ in range(task.epochs):
        network.train()
        for x, y in data.train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
        scheduler.step()
        value = evaluate(network, data)
        if not np.isfinite(value):
            break
        best = min(best, value)
    return float(np.log(min(best, guess)))


@torch.no_grad()
def evaluate(network: MLP, data: InMemory) -> float:
    """Mean cross-entropy of the validation part."""
    network.eval()
    losses = [F.cross_entropy(network(x), y, reduction="none") for x, y in data.val_dataloader()]
    return float(torch.cat(losses).mean())


@functools.cache
def data_of(task: str) -> InMemory:
    """The data of a task, made once."""
    data = TASKS[task].data()
    data.batch_size = 32
    return data


# ---- the staged search ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Staged:
    """A staged search with one seed; all losses are logs."""

    first: float  # best after stage 1
    second: float  # best after stage 2
    by_beta: np.ndarray  # of the trials of stage 2
    fresh: float  # mean of the choice on fresh seeds
    beta: float  # the choice


def staged(task: str, form: str, alphas: Sequence[float], betas: Sequence[float], seed: int) -> Staged:
    """Tune α at the default β, then β at the best α."""
    scale = FORMS[form].alpha_of_filter(DEFAULT_BETA)
    first = [loss(task, form, a * scale, DEFAULT_BETA, 1000 * seed + i) for i, a in enumerate(alphas)]
    alpha = alphas[int(np.argmin(first))] * scale
    second = [loss(task, form, alpha, beta, 1000 * seed + 100 + i) for i, beta in enumerate(betas)]
    beta = betas[int(np.argmin(second))] if min(second) < min(first) else DEFAULT_BETA
    fresh = [loss(task, form, alpha, beta, 1000 * seed + 500 + i) for i in range(FRESH)]
    return Staged(min(first), min(*first, *second), np.array(second), float(np.mean(fresh)), beta)


# ---- how far the best α moves --------------------------------------------------------------------------------------


def moves(task: str, form: str, alphas: Sequence[float], seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """The decimal logarithm of the best α at each β of `MOVED`, and the 95 % interval of their difference."""
    draws = np.random.default_rng(0).integers(seeds, size=(2000, seeds))
    best, drawn = [], []
    for beta in MOVED:
        own = [alpha * FORMS[form].alpha_of_filter(beta) for alpha in alphas]
        losses = np.array(
            [[loss(task, form, alpha, beta, 1000 * seed + 900) for alpha in own] for seed in range(seeds)]
        )
        best.append(lowest(np.log10(own), losses.mean(axis=0)))
        drawn.append([lowest(np.log10(own), losses[draw].mean(axis=0)) for draw in draws])
    return np.array(best), np.quantile(np.subtract(drawn[1], drawn[0]), (0.025, 0.975))


def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through the lowest point and its neighbours is lowest; x is evenly spaced."""
    i = int(np.argmin(y))
    if i in (0, len(y) - 1):
        return float(x[i])
    left, middle, right = y[i - 1 : i + 2]
    bend = left - 2 * middle + right
    return float(x[i] + (x[1] - x[0]) * ((left - right) / (2 * bend) if bend > 0 else 0.0))


# ---- figures -------------------------------------------------------------------------------------------------------


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """The mean and its 95 % interval."""
    draw = np.random.default_rng(0).integers(len(differences), size=(4000, len(differences)))
    means = differences[draw].mean(axis=1)
    return float(differences.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def told(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def report(task: str, found: Mapping[str, list[Staged]], betas: Sequence[float]) -> dict[str, float]:
    """Print a task's staged searches; the figures are ratios and shares."""
    stages = ("first", "second", "fresh")
    losses = {(form, name): np.array([getattr(row, name) for row in found[form]]) for form in found for name in stages}
    figures = {}
    print(f"\n{task}: mean log validation loss after stage 1, after stage 2, and of the choice on fresh seeds")
    for form in found:
        print(f"  {form:<17} " + " ".join(f"{losses[form, name].mean():>+9.3f}{'':<17}" for name in stages).rstrip())
    for form, other in (("filter", "torch"), ("dampened", "torch"), ("dampened", "filter")):
        line = []
        for name in stages:
            mean, low, high = interval(losses[form, name] - losses[other, name])
            line.append(f"{'':<3}{told(mean, low, high):<23}")
            figures[f"{task} {form}/{other} {name}"] = round(float(np.exp(mean)), 3)
        print(f"  {form + ' - ' + other:<17} {' '.join(line).rstrip()}")
    print(f"{task}: log loss in stage 2 above that of the best β; at the worst β; share above log 2; choices")
    print(f"  {'β':<7} {' '.join(f'{beta:>6g}' for beta in betas)}   worst  bad  chosen")
    for form, rows in found.items():
        above = np.array([row.by_beta - row.by_beta.min() for row in rows])
        bad = float((above > np.log(2)).mean())
        chosen = ", ".join(f"{beta:g}" for beta in sorted(row.beta for row in rows))
        print(
            f"  {form:<7} {' '.join(f'{value:>+6.2f}' for value in above.mean(axis=0))}"
            f"  {above.max(axis=1).mean():>+6.2f} {bad:>4.2f}  {chosen}"
        )
        figures[f"{task} {form} bad"] = round(bad, 3)
    return figures


def main() -> None:
    """Search in stages, find the optima, print the tables, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task, two seeds, few values")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=8)
    asked = parser.parse_args()
    tasks, seeds, alphas, betas, fine = asked.tasks, asked.seeds, ALPHAS, BETAS, FINE
    if asked.quick:
        tasks, seeds, alphas, betas, fine = ["mlp-cancer"], 2, ALPHAS[7::2], BETAS[1::3], FINE[2::4]
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for task in tasks:
        found = {form: [staged(task, form, alphas, betas, seed) for seed in range(seeds)] for form in FORMS}
        figures |= report(task, found, betas)
        print(f"{task}: log10 of the best α at β = {MOVED[0]:g} and {MOVED[1]:g}; by how much it moves [95 %]")
        for form in FORMS:
            best, (low, high) = moves(task, form, fine, seeds // 2)
            print(f"  {form:<7} {best[0]:+.2f} {best[1]:+.2f}   {told(best[1] - best[0], low, high)}", flush=True)
            figures[f"{task} {form} moves"] = round(abs(best[1] - best[0]), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
