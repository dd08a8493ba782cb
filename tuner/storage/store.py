"""The store: studies, the queue of their trials, the roster of workers and the outbox to MLflow, on one database."""

from __future__ import annotations

from tuner.storage.outbox import Outbox
from tuner.storage.queue import Queue
from tuner.storage.roster import Roster
from tuner.storage.studies import Studies


class Store(Studies, Queue, Roster, Outbox):
    """Everything that is read and written of one database, each write in one transaction."""
