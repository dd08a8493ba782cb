"""Ray Tune's asynchronous halving over random configurations and a bare torch loop, in one actor that is reused."""

from __future__ import annotations

import os
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

import ray
from digits_mlp import Done, Task
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator


class Trial(tune.Trainable):
    """A trial, an epoch at a time."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin to train a configuration."""
        self.task = Task.of(config["folder"])
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin to train another one in the same process."""
        config = {name: new_config[name] for name in self.task.space}
        for name, asked in self.task.space.items():
            if asked["scale"] == "log_complement":
                config[name] = 1 - config[name]
        number = int(self.trial_id.rsplit("_", 1)[1])
        self.epochs = self.task.train(number, config)
        return True

    def step(self) -> dict[str, Any]:
        """Train an epoch."""
        try:
            epoch, loss = next(self.epochs)
        except Done:
            return {"val_loss": 0.0, "over": True, "done": True}
        return {"val_loss": loss, "over": False, "done": epoch == self.task.epochs}


def searched(asked: dict[str, Any]) -> Any:
    """Ray Tune's word for a parameter; of those on the scale log_complement the distance from 1."""
    if asked["kind"] == "choice":
        return tune.choice(asked["values"])
    low, high = asked["low"], asked["high"]
    if asked["kind"] == "int":
        return tune.lograndint(low, high + 1) if asked["scale"] == "log" else tune.randint(low, high + 1)
    if asked["scale"] == "log_complement":
        return tune.loguniform(1 - high, 1 - low)
    return tune.loguniform(low, high) if asked["scale"] == "log" else tune.uniform(low, high)


class Over(tune.Stopper):
    """Ends the whole search when a trial says so."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Hear of a result."""
        self.over = self.over or result["over"]
        return self.over

    def stop_all(self) -> bool:
        """Whether the search is over."""
        return self.over


def main() -> None:
    """Search until the target is reached."""
    task = Task.asked()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        Trial,
        param_space={name: searched(asked) for name, asked in task.space.items()} | {"folder": str(task.folder)},
        tune_config=tune.TuneConfig(
            metric="val_loss",
            mode="min",
            num_samples=100_000,
            search_alg=BasicVariantGenerator(random_state=task.seed, max_concurrent=1),
            scheduler=ASHAScheduler(max_t=task.epochs, grace_period=1, reduction_factor=3),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(task.folder),
            verbose=0,
            stop=Over(),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(fail_fast=True),
        ),
    )
    results = tuner.fit()
    ray.shutdown()
    if results.errors:
        raise results.errors[0]


if __name__ == "__main__":
    main()
