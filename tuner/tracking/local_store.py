"""MLflow's own SQLite file, made whole or not at all."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tuner.home import alone

_SCHEME = "sqlite:///"


def create_local_store(uri: str, artifacts: Path) -> None:
    """Create the SQLite file of an embedded MLflow, if `uri` names one that is not there.

    MLflow builds its tables in some fifty steps over seconds, and a process killed among them leaves a file that no
    later one can open or mend. So they are built beside the file's place, and moved there when they are complete.
    """
    if not uri.startswith(_SCHEME):
        return
    path = Path(uri.removeprefix(_SCHEME))
    if path.exists():
        return
    with alone(path):
        if path.exists():
            return
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.unlink(missing_ok=True)
        artifacts.mkdir(parents=True, exist_ok=True)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells that it makes tables
        store = SqlAlchemyStore(f"{_SCHEME}{unfinished}", artifacts.as_uri())  # type: ignore[no-untyped-call]
        store.engine.dispose()
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays: each of a trial's commits syncs one file, not three
        unfinished.replace(path)
