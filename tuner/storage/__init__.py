"""The storage: studies, trials and reports in SQLite or PostgreSQL; the truth that every other room follows."""

from tuner.storage.database import Database, share_safely
from tuner.storage.rows import COMPLETE, FAILED, RUNNING, STOPPED, Lease, StudyRow, Summary, Untracked
from tuner.storage.schema import initialise, is_current
from tuner.storage.store import Store

__all__ = [
    "COMPLETE",
    "FAILED",
    "RUNNING",
    "STOPPED",
    "Database",
    "Lease",
    "Store",
    "StudyRow",
    "Summary",
    "Untracked",
    "initialise",
    "is_current",
    "share_safely",
]
