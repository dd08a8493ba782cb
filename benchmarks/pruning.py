"""What a pruner saves: real trainings by the priority sampler, with and without pruning.

Every study proposes, trains and prunes as `tuner run` does, until the epochs of 30 whole trials are spent; pruned
trials leave theirs to others. The best validation loss is compared with that without pruning on the same seed (log,
mean and 95 % interval from the bootstrap over seeds) twice: after 30 trials, as a budget of trials ends, with the share
of the epochs that these took; and when the epochs are spent, as a budget of epochs ends. A pruner is the default only
where it saves epochs and is not worse. What was trained is kept, line by line, and not trained again.

    python benchmarks/pruning.py            # three tasks, 8 seeds, 30 whole trials: an hour on one core
    python benchmarks/pruning.py --report   # trains nothing: the tables of what is kept
    python benchmarks/pruning.py --quick    # one task, one seed, 6 whole trials, two pruners
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
import torch
from search_quality import TASKS, interval, spaces, train

from tuner.search.search import Search
from tuner.trial import Objective, Trial, TrialResult, TrialState

RESULTS = Path(__file__).parent / "results" / "pruning.jsonl"
PRUNED_BY = ("none", "median", "asha", "hyperband")
EPOCHS = {"mlp-digits": 20, "mlp-cancer": 24, "lenet-digits": 12}
"""Twice those of the search benchmark: short trainings leave a pruner nothing to save."""


def study(asked: tuple[str, str, int, int]) -> dict[str, Any]:
    """One study: the log of the best validation loss, and the epoch spent, each time it became lower."""
    name, pruner, seed, trials = asked
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task = dataclasses.replace(TASKS[name], epochs=EPOCHS[name])
    search = Search(spaces(task)["stated"], Objective("val_loss"), "priority", pruner, seed, task.epochs)
    budget, number, cut, best = trials * task.epochs, 0, 0, np.inf
    curve: list[float] = []
    spent = budget
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
        if number == trials:
            spent = len(curve)
    curve = [round(value, 5) for value in curve[:budget]]
    steps = [[epoch, value] for epoch, value in enumerate(curve, 1) if epoch == 1 or value != curve[epoch - 2]]
    told = {"task": name, "pruner": pruner, "seed": seed, "asked": trials, "trials": number, "pruned": cut}
    return {**told, "spent": min(spent, budget), "epochs": budget, "best": steps}


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
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="train nothing; the tables of what is kept")
    asked = parser.parse_args()
    tasks, seeds, trials, pruners = asked.tasks, asked.seeds, 30, PRUNED_BY
    if asked.quick:
        tasks, seeds, trials, pruners = ["mlp-cancer"], 1, 6, ("none", "median")
    jobs = [(task, pruner, seed, trials) for seed in range(seeds) for task in tasks for pruner in pruners]
    kept = asked.results.read_text().splitlines() if asked.results.exists() and not asked.quick else []
    rows = {_job(row): row for row in map(json.loads, kept)}
    if not asked.report:
        with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
            for row in pool.imap_unordered(study, [job for job in jobs if job not in rows]):
                rows[_job(row)] = row
                if not asked.quick:
                    with asked.results.open("a") as out:
                        out.write(json.dumps(row) + "\n")
    figures: dict[str, float] = {}
    for task in tasks:
        found = {
            p: {seed: rows[task, p, seed, trials] for seed in range(seeds) if (task, p, seed, trials) in rows}
            for p in pruners
        }
        common = sorted(set.intersection(*(set(own) for own in found.values())))
        if not common:
            continue
        print(f"\n{task}: {trials} x {EPOCHS[task]} epochs, {len(common)} seeds; log of the best loss against none's")
        plain = np.array([_best(found["none"][seed], found["none"][seed]["epochs"]) for seed in common])
        for pruner, by_seed in found.items():
            own = [by_seed[seed] for seed in common]
            after = interval(np.array([_best(row, row["spent"]) for row in own]) - plain)
            ended = interval(np.array([_best(row, row["epochs"]) for row in own]) - plain)
            share = float(np.mean([row["spent"] / row["epochs"] for row in own]))
            tried, cut = (np.mean([row[key] for row in own]) for key in ("trials", "pruned"))
            print(
                f"  {pruner:<9} after {trials} trials, {share:.0%} of the epochs: {_told(after)}; when all are spent, "
                f"after {tried:.0f} trials, {cut:.0f} of them pruned: {_told(ended)}"
            )
            figures |= {
                f"{task} {pruner} epochs": round(share, 2),
                f"{task} {pruner} loss at {trials} trials": round(float(np.exp(after[0])), 3),
                f"{task} {pruner} loss at all epochs": round(float(np.exp(ended[0])), 3),
            }
    print(json.dumps(figures))


def _job(row: dict[str, Any]) -> tuple[str, str, int, int]:
    return row["task"], row["pruner"], row["seed"], row["asked"]


def _best(row: dict[str, Any], epoch: int) -> float:
    """The log of the best loss after so many epochs."""
    return float([value for at, value in row["best"] if at <= epoch][-1])


def _told(found: tuple[float, float, float]) -> str:
    mean, low, high = found
    return f"{mean:+.3f} [{low:+.2f}, {high:+.2f}]"


if __name__ == "__main__":
    main()
