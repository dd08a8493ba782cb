"""One configuration trained outright, into a folder that `tuner.load_best` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuner.best import Best
from tuner.best.folder import CHECKPOINT, CONFIG, FACTS, WEIGHTS, new_folder, save_weights
from tuner.best.record import Record
from tuner.errors import Problem, SpecError
from tuner.home import Home
from tuner.service.reuse import REGISTERED, load
from tuner.spec.config import place
from tuner.training.outright import check_config, train_on_all, train_outright
from tuner.trial import Objective, TrialResult

On = Literal["train", "train+validation"]


@dataclass(frozen=True)
class Trained:
    """What a training has made.

    Attributes:
        to: the folder.
        epochs: epochs trained.
        kept: the epoch whose weights were kept.
        metrics: at that epoch.
        on: what was trained on.
    """

    to: Path
    epochs: int
    kept: int
    metrics: Mapping[str, float]
    on: On


def train(
    source: str,
    home: Home,
    *,
    overrides: Sequence[tuple[str, Any]] = (),
    on: On = "train",
    objective: Objective | None = None,
    to: Path | None = None,
    told: Callable[[int, Mapping[str, float]], None] = lambda *_: None,
) -> Trained:
    """Train a configuration.

    Args:
        source: what `load` takes: a YAML file, a study's name, an exported folder, a registered model.
        home: where things live.
        overrides: values that replace what the configuration says, by path.
        on: the training part, where the best epoch on the validation part is kept; or both parts, where the last is.
        objective: which epoch is the best; by default the study's, else the lowest `val_loss`.
        to: the folder; by default a new one below `trained/` in the home.
        told: called after each epoch with its number and the metrics.

    Raises:
        SpecError: the configuration has problems, there is something at `to`, or the data cannot be joined.
        TunerError: it could not be trained to its end.
    """
    best = load(source, home)
    config = {"seed_everything": 0, **best.config}
    if on != "train" and best.epoch is not None:  # nothing is left to tell which epoch is the best
        place(config, "trainer.max_epochs", best.epoch)
    for path, value in overrides:
        if path.partition(".")[0] not in ("seed_everything", "model", "data", "trainer"):
            rule = "must be a path below model, data or trainer, or seed_everything."
            raise SpecError("--set", [Problem(path, rule)])
        place(config, path, value)
    check_config(config, source)
    goal = objective or best.objective or Objective("val_loss")
    target = to or _free(home.folder / "trained" / _name(source))
    with new_folder(target) as folder:
        if on == "train":
            result = train_outright(config, goal, folder / CHECKPOINT, told)
        else:
            result = train_on_all(config, folder / CHECKPOINT, told)
        _write(folder, _name(source), result, goal if on == "train" else None)
    return Trained(target, result.epochs, result.best_epoch or result.epochs, result.metrics, on)


def _write(folder: Path, name: str, result: TrialResult, objective: Objective | None) -> None:
    value = result.value if objective else None
    config = result.config or {}
    made = Best(name, None, value, {}, result.metrics, (), folder / CHECKPOINT, config, objective, result.best_epoch)
    (folder / CONFIG).write_text(made.to_yaml(), "utf-8")
    (folder / FACTS).write_text(json.dumps(Record(made).to_json(), indent=2), "utf-8")
    save_weights(made.trained_module().state_dict(), folder / WEIGHTS)


def _name(source: str) -> str:
    """What a source is called: a file's or a folder's own name, a registered model's."""
    return source.removeprefix(REGISTERED).replace("/", "-") if source.startswith(REGISTERED) else Path(source).stem


def _free(folder: Path) -> Path:
    """The folder, or the next number of it that is not there."""
    number, free = 2, folder
    while free.exists():
        number, free = number + 1, folder.with_name(f"{folder.name}-{number}")
    return free
