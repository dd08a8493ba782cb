"""Optuna's TPE and Hyperband over a bare torch loop, one trial after the other."""

from __future__ import annotations

from typing import Any

import optuna
from digits_mlp import Task


def suggest(trial: optuna.Trial, name: str, asked: dict[str, Any]) -> Any:
    """Optuna's word for a parameter."""
    if asked["kind"] == "choice":
        return trial.suggest_categorical(name, asked["values"])
    if asked["kind"] == "int":
        return trial.suggest_int(name, asked["low"], asked["high"], log=asked["scale"] == "log")
    if asked["scale"] == "log_complement":
        return 1 - trial.suggest_float(name, 1 - asked["high"], 1 - asked["low"], log=True)
    return trial.suggest_float(name, asked["low"], asked["high"], log=asked["scale"] == "log")


def main() -> None:
    """Search until the target is reached."""
    task = Task.asked()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        config = {name: suggest(trial, name, asked) for name, asked in task.space.items()}
        best = float("inf")
        for epoch, loss in task.train(trial.number, config):
            best = min(best, loss)
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=task.epochs, reduction_factor=3),
    )
    study.optimize(objective)


if __name__ == "__main__":
    main()
