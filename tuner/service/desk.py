"""What a worker needs for one study and keeps while it works on others: parsers, what was measured, the search."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from tuner.cohort import CohortTraining
from tuner.errors import StudyStopped
from tuner.home import Home
from tuner.search import Search
from tuner.service.calling import FunctionTraining
from tuner.service.entry import spec_of
from tuner.service.identity import gone
from tuner.spec import FUNCTION, StudySpec, trial_config
from tuner.storage import Lease, Store, StudyRow
from tuner.study import Training, Work
from tuner.training import Blueprint, Pace, SingleTraining
from tuner.training.function import find


@dataclass(frozen=True)
class Worker:
    """Who works.

    Attributes:
        store: the storage.
        home: where checkpoints are kept.
        owner: its name.
        stopped: whether it was told to stop.
        pause: waits some seconds, or until it is told to stop.
        holding: a context in which a lease is renewed.
    """

    store: Store
    home: Home
    owner: str
    stopped: Callable[[], bool]
    pause: Callable[[float], object]
    holding: Callable[[Lease], AbstractContextManager[object]]


def open_desk(worker: Worker, row: StudyRow) -> Work:
    """Make ready to work on a study: import its classes, build its data once, and note what they are.

    Raises:
        StudyStopped: the data are not those that the study began with.
    """
    spec = spec_of(row)
    training, found = _training(worker, spec)
    search = Search(
        spec.searched,
        spec.goal,
        spec.sampler.name,
        spec.pruner.name,
        spec.seed_everything,
        spec.max_epochs,
        row.facts.get("start", ()),
    )
    work = Work(
        spec=spec,
        store=worker.store,
        study_id=row.id,
        owner=worker.owner,
        search=search,
        training=training,
        checkpoints=worker.home.checkpoints(row.name),
        stopped=worker.stopped,
        pause=worker.pause,
        holding=worker.holding,
        gone=gone,
        seconds_left=seconds_left(spec, row),
    )
    _know_the_data(worker.store, row, found)
    return work


def _training(worker: Worker, spec: StudySpec) -> tuple[Training, str]:
    """Who trains the trials of a study, and a hash of the data that they will see.

    Raises:
        StudyStopped: a function that is to be tuned is not to be found in this process.
    """
    how, pace = spec.search.training, Pace()
    if how == FUNCTION:
        if problems := find(spec.model.class_path, "model.class_path")[1]:
            raise StudyStopped("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        return FunctionTraining(spec.goal, worker.stopped), f"function:{spec.model.class_path}"
    single = SingleTraining(
        example=trial_config(spec.base_config, spec.searched.default_params(), spec.seed_everything),
        objective=spec.goal,
        patience=spec.patience,
        interrupted=lambda: worker.stopped() and not pace.may_end_epoch(),
        mode="lightning" if how == "lightning" else "auto",
    )
    training = CohortTraining(single, spec.searched, how, spec.search.cohort, spec.search.trials, pace)
    return training, data_hash(spec, single.blueprint)


def seconds_left(spec: StudySpec, row: StudyRow) -> float | None:
    """Wall-clock seconds left of a study's budget, or None."""
    return None if spec.search.time is None else spec.search.time - row.active_seconds


def _know_the_data(store: Store, row: StudyRow, found: str) -> None:
    """Note what the study is trained on, or check that it still is that.

    Raises:
        StudyStopped: the data have changed since the study began.
    """
    known = row.facts.get("data_hash")
    if known is None:
        store.add_facts(row.id, facts(found))
    elif known != found:
        raise StudyStopped(
            f"the data are not those that study {row.name!r} began with (hash {known[:12]}…, now {found[:12]}…). "
            f"Put the old ones back, or start another study: --set study={row.name}-2."
        )


def data_hash(spec: StudySpec, blueprint: Blueprint) -> str:
    """A hash of the data as the trials see them."""
    config = trial_config(spec.base_config, spec.searched.default_params(), spec.seed_everything)
    data = blueprint.parts(config).datamodule
    fingerprint: Callable[[], str] | None = getattr(data, "fingerprint", None)
    # Only the data module's author can say what its data are; failing that, hash how it was made, and say so.
    return fingerprint() if fingerprint else "arguments:" + _hash(config.get("data", {}))


def facts(data_hash: str) -> dict[str, Any]:
    """What a reader needs to trust or repeat the study: versions, commit, machine, and a hash of the data."""
    libraries = ("tuner", "torch", "lightning", "optuna", "mlflow", "sqlalchemy", "numpy")
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in libraries}},
        **_git(),
        "platform": platform.platform(),
        "torch_threads": torch.get_num_threads(),
        "data_hash": data_hash,
    }


def _hash(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _git() -> dict[str, Any]:
    """The commit of the folder the study was started in, and whether tracked files differ from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return {"git_commit": None}
    if head.returncode != 0:
        return {"git_commit": None}
    return {"git_commit": head.stdout.strip(), "git_dirty": bool(changed.stdout.strip())}
