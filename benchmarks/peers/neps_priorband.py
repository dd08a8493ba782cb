"""NePS's PriorBand, told the defaults of the space, over a bare torch loop that goes on where a lower rung ended."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path
from typing import Any

import neps
import numpy as np
import torch
from digits_mlp import Going, Task


def searched(asked: dict[str, Any]) -> Any:
    """NePS's word for a parameter with its default; of those on the scale log_complement the distance from 1."""
    low, high, default, log = (asked.get(name) for name in ("low", "high", "default", "scale"))
    told: dict[str, Any] = {"prior_confidence": "medium"}
    if asked["kind"] == "choice":
        return neps.Categorical(tuple(asked["values"]), prior=asked["values"].index(default), **told)
    if log == "log_complement":
        return neps.Float(1 - high, 1 - low, log=True, prior=1 - default, **told)
    kind = neps.Integer if asked["kind"] == "int" else neps.Float
    return kind(low, high, log=log == "log", prior=default, **told)


def main() -> None:
    """Search until the target is reached."""
    task = Task.asked()
    logging.disable(logging.WARNING)
    for seeding in (random.seed, np.random.seed, torch.manual_seed):  # it draws from the global generators
        seeding(task.seed)
    turned = [name for name, asked in task.space.items() if asked.get("scale") == "log_complement"]

    def evaluate(
        pipeline_directory: Path, previous_pipeline_directory: Path | None, epochs: int, **given: Any
    ) -> float:
        config = given | {name: 1 - given[name] for name in turned}
        number = int(re.findall(r"\d+", pipeline_directory.name)[0])
        with torch.random.fork_rng():
            going = Going.begin(config, task.seed_of(number))
            if previous_pipeline_directory is not None:
                going.load(previous_pipeline_directory / "going.pt")
            loss = next(loss for epoch, loss in task.train(number, config, going) if epoch == epochs)
        going.save(pipeline_directory / "going.pt")
        return loss

    parameters = {name: searched(asked) for name, asked in task.space.items()}
    space = type("Space", (neps.PipelineSpace,), parameters | {"epochs": neps.IntegerFidelity(1, task.epochs)})
    neps.run(
        evaluate,
        space(),
        root_directory=task.folder / "neps",
        optimizer=("priorband", {"sample_prior_first": True}),
        worker_evaluations_to_spend=1_000_000,
    )


if __name__ == "__main__":
    main()
