"""What happens to a service in a storm: workers are killed, MLflow is killed, and the database is away for a while."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from mlflow_server import MlflowServer

from tuner.errors import StorageUnavailable
from tuner.service.identity import gone
from tuner.storage import Store
from tuner.storage.tables import TrialTable
from tuner.trial import Trial, TrialState

LAST_ATTEMPT = 3
"""A trial that loses its worker in this attempt is failed, by design; so the storm spares those."""


def process_of(owner: str) -> int:
    """The number of a worker's process."""
    return int(owner.split("|")[1])


def processes_of(session: int) -> list[int]:
    """The processes of a session, zombies too: those whose leader was started with `start_new_session`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            found.append(int(stat.parent.name))
    return found


def lock_for(file: Path, seconds: float) -> None:
    """Let nobody write into an SQLite file for a while, as a backup or a slow disk does."""
    with closing(sqlite3.connect(file, timeout=60.0, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)  # this is the fault
        connection.execute("ROLLBACK")


class Storm:
    """Kills workers every few seconds; in the second quarter of the study MLflow is away, and at its half the database.

    Args:
        store: the storage, as the test sees it.
        study: the id of the study, of `trials` trials.
        server: MLflow.
        strike: lets the database be away once, and returns when it is back.
        every: seconds between two kills.
        most: kills at most.
    """

    def __init__(
        self,
        store: Store,
        study: int,
        trials: int,
        server: MlflowServer,
        strike: Callable[[], None],
        *,
        every: float,
        most: int,
    ) -> None:
        self._store, self._study, self._trials, self._server, self._strike = store, study, trials, server, strike
        self._every, self._most = every, most
        self._dice = random.Random(0)  # noqa: S311 - no secret
        self._killed_at = time.monotonic()
        self._struck: Future[None] | None = None
        self._restarted: Future[None] | None = None
        self._mlflow_died: float | None = None
        self.kills = 0
        self.mlflow_seconds = self.database_seconds = 0.0

    def rage(self, alive: Callable[[], None]) -> list[Trial]:
        """Until every trial has ended, let things happen; `alive` raises if the service has died."""
        with ThreadPoolExecutor(2) as hands:
            while True:
                alive()
                trials = self._look()
                done = sum(trial.state.finished for trial in trials)
                if done == self._trials and self._all_is_back():
                    return trials
                self._mlflow(done, hands)
                self._database(done, hands)
                if self.kills < self._most and done and time.monotonic() - self._killed_at >= self._every:
                    self._kill()
                time.sleep(0.1)

    def _look(self) -> list[Trial]:
        while True:
            try:
                return self._store.trials(self._study)
            except StorageUnavailable:  # it is the one that makes it so
                time.sleep(0.1)

    def _all_is_back(self) -> bool:
        futures = (self._struck, self._restarted)
        for future in futures:
            if future is not None and future.done():
                future.result()
        return all(future is not None and future.done() for future in futures)

    def _mlflow(self, done: int, hands: ThreadPoolExecutor) -> None:
        """Kill it after a quarter of the trials, and start it again after half of them."""
        if self._mlflow_died is None and done >= self._trials / 4:
            self._server.signal(signal.SIGKILL)
            self._mlflow_died = time.monotonic()
        if self._mlflow_died is not None and self._restarted is None and done >= self._trials / 2:
            self._restarted = hands.submit(self._start_mlflow, self._mlflow_died)

    def _start_mlflow(self, died: float) -> None:
        self._server.start()
        self.mlflow_seconds = time.monotonic() - died

    def _database(self, done: int, hands: ThreadPoolExecutor) -> None:
        if self._struck is None and done >= self._trials / 2:
            self._struck = hands.submit(self._strike_database)

    def _strike_database(self) -> None:
        began = time.monotonic()
        self._strike()
        self.database_seconds = time.monotonic() - began

    def _kill(self) -> None:
        """Kill a worker, whatever it is doing, unless a trial would be failed by that."""
        try:
            owners = [worker.owner for worker in self._store.workers() if not worker.left and not gone(worker.owner)]
        except StorageUnavailable:
            return
        if not owners:
            return
        victim = self._dice.choice(owners)
        try:
            os.kill(process_of(victim), signal.SIGSTOP)  # so that what it holds stays the same until the end
            kill = self._may_lose(victim)
            os.kill(process_of(victim), signal.SIGKILL if kill else signal.SIGCONT)
        except ProcessLookupError:  # it has just ended by itself
            return
        self.kills += kill
        self._killed_at = time.monotonic()

    def _may_lose(self, owner: str) -> bool:
        """Whether no trial of this worker is in its last attempt."""
        held = sa.select(sa.func.coalesce(sa.func.max(TrialTable.attempt), 0)).where(
            TrialTable.owner == owner, TrialTable.state == TrialState.RUNNING
        )
        try:
            with self._store.database.read() as session:
                return session.execute(held).scalar_one() < LAST_ATTEMPT
        except StorageUnavailable:
            return False
