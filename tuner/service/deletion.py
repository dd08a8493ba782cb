"""A study deleted: what the storage, Optuna's tables, MLflow and the folders have of it."""

from __future__ import annotations

import shutil
import time

from tuner.errors import StudyInUse
from tuner.home import Home
from tuner.search import delete_copy
from tuner.service.identity import gone, identity
from tuner.storage import INTERRUPTED, QUEUED, RUN, RUNNING, STOPPED, OptunaTables, Store, StudyRow

PATIENCE_SECONDS, LOOK_SECONDS = 75.0, 0.2
"""How long workers and couriers of a stopped study get to let go of it: more than a lease lasts."""


def delete(store: Store, home: Home, name: str, *, keep_mlflow: bool, patience: float = PATIENCE_SECONDS) -> None:
    """Delete a study. What was interrupted on the way is deleted by deleting it again.

    Args:
        store: the storage.
        home: where MLflow and the folders are.
        name: the study's.
        keep_mlflow: leave its runs in MLflow as they are; otherwise they are marked as deleted there.
        patience: seconds that a stopped study's workers get to let go of it.

    Raises:
        StudyNotFound: there is none.
        StudyInUse: somebody works on it, and it has not been stopped; or they do not let go of it.
        TrackingUnavailable: MLflow does not answer; nothing was deleted.
    """
    row = store.study(name)
    store.reclaim(row.id, gone)
    row = store.study(name)
    if row.state == RUNNING:
        raise StudyInUse(f"{name} is in use{_told(store.holders(row.id, gone))}. Stop it first: tuner stop {name}")
    if row.state in (QUEUED, INTERRUPTED):
        store.set_state(row.id, STOPPED)  # so that no worker takes a trial any more
    _wait_until_nobody_has_it(store, row.id, name, patience)
    try:
        if not keep_mlflow:
            _delete_from_mlflow(store, home, row)
        for folder in (home.checkpoints(name), home.logs(name)):
            if folder.exists():
                shutil.rmtree(folder)
        delete_copy(home.storage, OptunaTables, name)
        store.remove(row.id)  # last, since it is what finds the rest
    finally:
        store.leave_courier(row.id, identity())


def _delete_from_mlflow(store: Store, home: Home, row: StudyRow) -> None:
    """Mark what MLflow has of a study as deleted; what it never had needs no MLflow."""
    if row.tracked.get(RUN) or store.tracked_runs(row.id):
        from tuner.tracking import MLflowTracker  # a second of imports

        uid = row.tracked.get("uid")
        MLflowTracker(home.tracking, home.artifacts, row.name, row.objective, uid).delete()


def _wait_until_nobody_has_it(store: Store, study_id: int, name: str, patience: float) -> None:
    """Wait for the workers of a stopped study, and become its courier, so that nobody brings it to MLflow meanwhile.

    Raises:
        StudyInUse: they take too long.
    """
    until = time.monotonic() + patience
    while (holders := store.holders(study_id, gone)) or not store.become_courier(study_id, identity(), gone):
        if time.monotonic() >= until:
            whom = _told(holders) or ", by who brings it to MLflow"
            raise StudyInUse(f"{name} is stopped, but still in use{whom}. Try again when they have let go of it.")
        time.sleep(LOOK_SECONDS)


def _told(owners: list[str]) -> str:
    """Where those are who hold trials."""
    machines = sorted({owner.partition("|")[0].partition("/")[0] for owner in owners})
    return f" on {', '.join(machines)}" if machines else ""
