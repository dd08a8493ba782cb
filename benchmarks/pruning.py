"""What a pruner saves: real trainings by the priority sampler, the same budget of epochs, with and without pruning.

Every study proposes, trains and prunes as `tuner run` does, until its epochs are spent; pruned trials leave theirs to
others. Told are the best validation loss in the end against that without pruning on the same seed (log, mean and 95 %
interval from the bootstrap over seeds), and the share of the epochs after which it is as low as that without pruning in
the end. A pruner is the default only where it is not worse in the end, and gets there on fewer epochs.

    python benchmarks/pruning.py            # three tasks, 8 seeds, 30 whole trials: half an hour on one core
    python benchmarks/pruning.py --quick    # one task, one seed, 6 whole trials, two pruners
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import torch
from search_quality import TASKS, interval, spaces, train

from tuner.search.search import Search
from tuner.trial import Objective, Trial, TrialResult, TrialState

PRUNED_BY = ("none", "median", "asha", "hyperband")
EPOCHS = {"mlp-digits": 20, "mlp-cancer": 24, "lenet-digits": 12}
"""Twice those of the search benchmark: short trainings leave a pruner nothing to save."""


def study(asked: tuple[str, str, int, int]) -> dict[str, Any]:
    """One study: log of the best validation loss so far, by epoch spent."""
    name, pruner, seed, trials = asked
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = dataclasses.replace(TASKS[name], epochs=EPOCHS[name])
    search = Search(spaces(task)["stated"], Objective("val_loss"), "priority", pruner, seed, task.epochs)
    budget, number, cut, best = trials * task.epochs, 0, 0, np.inf
    curve: list[float] = []
    while len(curve) < budget:
        params = search.propose(number)
        pruned: list[int] = []

        def prune(epoch: int, value: float, number: int = number, pruned: list[int] = pruned) -> bool:
            if np.isfinite(value) and search.should_prune(number, epoch, value):
                pruned.append(epoch)
            return bool(pruned)

        _, _, values = train(task, params, 1000 * seed + number, prune)
        finite = [value for value in values if np.isfinite(value)]
        for value in values:
            best = min(best, value) if np.isfinite(value) else best
            curve.append(float(np.log(best)))
        search.see([_ended(number, params, values, finite, bool(pruned))])
        number, cut = number + 1, cut + bool(pruned)
    return {"task": name, "pruner": pruner, "seed": seed, "curve": curve[:budget], "trials": number, "pruned": cut}


def _ended(number: int, params: Any, values: list[float], finite: list[float], pruned: bool) -> Trial:
    if len(finite) < len(values):
        result = TrialResult(TrialState.PRUNED, infeasible=True, reason="diverged")
    elif pruned:
        result = TrialResult(TrialState.PRUNED, min(finite))
    else:
        result = TrialResult(TrialState.COMPLETE, min(finite))
    return Trial(number, params, 0, result.state, values=dict(enumerate(finite, 1)), result=result)


def main() -> None:
    """Train, print the tables, end with a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one task, one seed, 6 whole trials, two pruners")
    parser.add_argument("--tasks", nargs="+", choices=EPOCHS, default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    tasks, seeds, trials, pruners = asked.tasks, asked.seeds, 30, PRUNED_BY
    if asked.quick:
        tasks, seeds, trials, pruners = ["mlp-cancer"], 1, 6, ("none", "median")
    jobs = [(task, pruner, seed, trials) for seed in range(seeds) for task in tasks for pruner in pruners]
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        rows = pool.map(study, jobs, chunksize=1)
    figures: dict[str, float] = {}
    for task in tasks:
        print(f"\n{task}: {trials} x {EPOCHS[task]} epochs, {seeds} seeds")
        found = {p: [row for row in rows if (row["task"], row["pruner"]) == (task, p)] for p in pruners}
        plain = np.array([row["curve"] for row in found["none"]])
        for pruner, own in found.items():
            curve = np.array([row["curve"] for row in own])
            mean, low, high = interval(curve[:, -1] - plain[:, -1])
            below = np.flatnonzero(curve.mean(axis=0) <= plain[:, -1].mean())
            share = float(below[0] + 1) / curve.shape[1] if len(below) else None
            tried, cut = (np.mean([row[key] for row in own]) for key in ("trials", "pruned"))
            told = f"{tried:.0f} trials, {cut:.0f} pruned; in the end {mean:+.3f} [{low:+.2f}, {high:+.2f}]"
            print(f"  {pruner:<9} {told}; as low after {'never' if share is None else f'{share:.0%}'}")
            figures[f"{task} {pruner} loss ratio"] = round(float(np.exp(mean)), 3)
            if share is not None:
                figures[f"{task} {pruner} share"] = round(share, 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
