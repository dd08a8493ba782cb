"""The storage: studies, trials and reports in SQLite or PostgreSQL; the truth that every other room follows."""

from tuner.storage.database import Database, share_safely
from tuner.storage.schema import initialise
from tuner.storage.store import Lease, Store, StudyRow, Summary

__all__ = ["Database", "Lease", "Store", "StudyRow", "Summary", "initialise", "share_safely"]
