"""One worker: it takes trials of a study and trains them until nothing is left or it is told to stop."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch

from tuner.cohort import CohortTraining
from tuner.errors import StorageUnavailable, StudyStopped
from tuner.home import Home
from tuner.search import Search
from tuner.service.entry import spec_of
from tuner.service.identity import gone, identity
from tuner.spec import StudySpec, trial_config
from tuner.storage import FAILED, Database, Lease, Store, StudyRow
from tuner.study import Work
from tuner.training import Blueprint, SingleTraining

log = logging.getLogger("tuner")

HEARTBEAT_SECONDS = 10.0


def work_on(study: str, home: Home, stop: threading.Event | Any, threads: int | None = None) -> None:
    """Work on a study until its budget is spent, or `stop` is set.

    Args:
        study: its name in the storage.
        home: where the storage and the checkpoints are.
        stop: an event (of threads or of processes); when it is set, the trial at hand goes back to the queue.
        threads: torch threads of this worker; None leaves them as they are.

    Raises:
        StudyStopped: the study itself is wrong; its state in the storage is failed, with the reason.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    database = Database(home.storage)
    store = Store(database)
    row = store.study(study)
    spec = spec_of(row)
    owner = identity()
    store.reclaim(row.id, gone)
    leases = Leases(store)
    how = spec.search.training
    single = SingleTraining(
        example=trial_config(spec.base_config, spec.searched.default_params(), spec.seed_everything),
        objective=spec.goal,
        patience=spec.patience,
        interrupted=stop.is_set,
        mode="lightning" if how == "lightning" else "auto",
    )
    training = CohortTraining(single, spec.searched, how, spec.search.cohort, spec.search.trials)
    work = Work(
        spec=spec,
        store=store,
        study_id=row.id,
        owner=owner,
        search=Search(
            spec.searched,
            spec.goal,
            spec.sampler.name,
            spec.pruner.name,
            spec.seed_everything,
            spec.max_epochs,
            row.facts.get("start", ()),
        ),
        training=training,
        checkpoints=home.checkpoints(study),
        stopped=stop.is_set,
        pause=stop.wait,
        holding=leases.hold,
        gone=gone,
        seconds_left=None if spec.search.time is None else spec.search.time - row.active_seconds,
    )
    cpu = time.process_time()
    try:
        _know_the_data(store, row, data_hash(spec, single.blueprint))
        work.run()
        store.add_ledger(row.id, {"worker_cpu": time.process_time() - cpu})
    except StudyStopped as error:
        store.set_state(row.id, FAILED, str(error))
        raise
    finally:
        leases.close()
        database.close()


class Leases:
    """Renews the leases that a worker holds, from a thread that beats through long training steps."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tuner-heartbeat", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[None]:
        """Keep a lease from running out while the body runs."""
        with self._lock:
            self._held[lease.trial_id] = lease
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(lease.trial_id)

    def close(self) -> None:
        """Stop beating."""
        self._closed.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            with self._lock:
                held = list(self._held.values())
            if not held:
                continue
            try:
                self._store.renew(held)
            except StorageUnavailable as error:  # the next beat tries again, well before the leases run out
                log.warning("a heartbeat was lost: %s", error)


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
    data = blueprint.build(config, callbacks=[]).datamodule
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
