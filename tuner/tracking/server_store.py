"""The database of an MLflow server: its tables are created or migrated before the server starts."""

from __future__ import annotations

import logging

from mlflow.db import upgrade

from tuner.errors import TrackingUnavailable
from tuner.home import shown


def migrate_server_store(uri: str) -> None:
    """Do what `mlflow db upgrade` does; two of these at once may break each other, so hold a lock.

    Raises:
        TrackingUnavailable: the database does not answer, or is of a newer MLflow.
    """
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells each table that it makes
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        upgrade.main([uri], standalone_mode=False)
    except Exception as error:
        reason = shown(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TrackingUnavailable(f"MLflow's database {shown(uri)} could not be prepared: {reason}") from error
