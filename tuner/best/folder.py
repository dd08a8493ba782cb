"""A best as a folder that other projects use: configuration, weights, program, model card, checksums.

It appears whole or not at all, and every file but `model.ckpt` is read without tuner, and none of them by unpickling.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.best.best import Best
from tuner.best.checksums import check_sum, write_sums
from tuner.errors import Problem, SpecError, StudyNotFound
from tuner.space.yaml import read_yaml
from tuner.trial import Objective

CONFIG, FACTS, CARD = "best.yaml", "facts.json", "README.md"
CHECKPOINT, WEIGHTS, PROGRAM = "model.ckpt", "weights.safetensors", "model.pt2"
PARTS = ("seed_everything", "model", "data", "trainer")


@contextmanager
def new_folder(to: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place at `to`, with checksums, if the body ends well; else nothing is left.

    Raises:
        SpecError: there is something at `to` already.
    """
    to = to.absolute()
    check_free(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        yield unfinished
        write_sums(unfinished)
        unfinished.chmod(0o755)
        check_free(to)
        unfinished.replace(to)  # over an empty folder, too
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def check_free(to: Path) -> None:
    """Check that a folder can be made: there is none, or an empty one.

    Raises:
        SpecError: there is something.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise SpecError("--to", [Problem(str(to), "must be a new or an empty folder. Name another, or remove it.")])


def save_weights(state: Mapping[str, Any], path: Path) -> list[str]:
    """Write the tensors of a `state_dict` as safetensors; return the names of what is no tensor, and so left out."""
    from safetensors.torch import save_file
    from torch import Tensor

    tensors = {n: t.detach().cpu().contiguous().clone() for n, t in state.items() if isinstance(t, Tensor)}
    save_file(tensors, path)  # clones, because tensors that share memory are refused
    path.chmod(0o644)
    return [name for name in state if name not in tensors]


def read_config(path: Path) -> dict[str, Any]:
    """A configuration of a YAML or JSON file.

    Raises:
        SpecError: it is none; the error carries every problem.
    """
    config, problems = read_yaml(path.read_bytes())
    if not problems and not (isinstance(config, dict) and "model" in config):
        problems = [
            Problem("(the file)", "must hold a configuration with model, data, trainer, as `tuner best` prints it.")
        ]
    if not problems and "space" in config:
        problems = [
            Problem("space", f"belongs to a study, and this wants a configuration. Search it: tuner run {path}")
        ]
    if not problems:
        known = f"A configuration has {', '.join(PARTS)}."
        problems = [Problem(str(key), f"unknown key. {known}") for key in config if key not in PARTS]
    if problems:
        raise SpecError(str(path), problems)
    for part in ("model", "data"):
        if isinstance(config.get(part), str):
            config[part] = {"class_path": config[part]}
    return {key: config[key] for key in PARTS if config.get(key) is not None}


def read_best(path: Path) -> Best:
    """The best of a folder that was exported, or of a YAML file with a configuration.

    Raises:
        StudyNotFound: there is nothing.
        SpecError: the configuration has problems.
        BestUnusable: a file was changed since it was exported.
    """
    path = path.absolute()
    if path.is_file():
        return Best(str(path), None, None, {}, {}, (), None, read_config(path))
    if not (path / CONFIG).is_file():
        raise StudyNotFound(
            f"{path} must be a folder of `tuner export`, or a YAML file, but there is no {path / CONFIG}."
        )
    for name in (CONFIG, FACTS):
        check_sum(path / name)
    facts: dict[str, Any] = json.loads((path / FACTS).read_text("utf-8"))
    return Best(
        study=facts["study"],
        trial=facts["trial"],
        value=facts["value"],
        params=facts["params"],
        metrics=facts["metrics"],
        seeds=tuple((run["seed"], run["value"]) for run in facts["seeds"]),
        checkpoint=path / CHECKPOINT,
        _config=read_config(path / CONFIG),
        objective=Objective(**facts["objective"]) if facts["objective"] else None,
        epoch=facts["epoch"],
    )
