"""The storage: studies, trials and reports in SQLite or PostgreSQL; the truth that every other room follows."""

from tuner.storage.database import Database
from tuner.storage.feed import Feed
from tuner.storage.optuna_tables import OptunaTables
from tuner.storage.outbox import ENDED, RUN
from tuner.storage.roster import Queued
from tuner.storage.rows import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    PAUSED,
    QUEUED,
    RUNNING,
    STOPPED,
    Heard,
    Lease,
    StudyRow,
    Summary,
    Untracked,
    WorkerRow,
)
from tuner.storage.schema import initialise, is_current, one_initialiser
from tuner.storage.store import Store

__all__ = [
    "COMPLETE",
    "ENDED",
    "FAILED",
    "INTERRUPTED",
    "PAUSED",
    "QUEUED",
    "RUN",
    "RUNNING",
    "STOPPED",
    "Database",
    "Feed",
    "Heard",
    "Lease",
    "OptunaTables",
    "Queued",
    "Store",
    "StudyRow",
    "Summary",
    "Untracked",
    "WorkerRow",
    "initialise",
    "is_current",
    "one_initialiser",
]
