"""A worker of the service: turn after turn at the studies of the queue, until it is told to stop.

A turn lasts until nothing is left to do, or for a while if another study has waited longer; one of higher priority
takes over at the end of a trial. What the worker knows of a study it keeps for its next turn there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tuner.errors import (
    LeaseLost,
    StorageUnavailable,
    StudyNotFound,
    StudyRefused,
    StudyStopped,
    TunerError,
    WorkerUnfit,
)
from tuner.home import Home
from tuner.service.desk import Worker, open_desk, seconds_left
from tuner.service.entry import spec_of
from tuner.service.health import MOST_IN_A_ROW, Health
from tuner.service.identity import gone, identity, machine
from tuner.service.leases import HEARTBEAT_SECONDS, Leases
from tuner.spec import FUNCTION, StudySpec
from tuner.storage import FAILED, Database, Queued, Store
from tuner.study import Work
from tuner.training import fault_of, import_class
from tuner.training.function import find

log = logging.getLogger("tuner")

TURN_SECONDS = 60.0
LOOK_SECONDS = 5.0
SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 5.0
REFUSED_SECONDS, LONGEST_REFUSED_SECONDS = 60.0, 3600.0
DESKS = 8
OUTAGE_SECONDS = 3600.0


class Shift:
    """One worker process.

    Args:
        home: where the storage and the checkpoints are.
        stop: an event; when it is set, running trials go back to the queue and the shift ends.
        device: what it trains on, as it is told: `cpu`, `cuda:0 …`.
        threads: torch threads to pin it to; None leaves them as they are.
        only: the name of the one study to work on, or None for all.
        once: end when nothing is left to do.
        turn_seconds: how long a study keeps the worker while another of the same priority waits.
        heartbeat: seconds between two signs of life.
        owner: its name; by default that of this process.
    """

    def __init__(
        self,
        home: Home,
        stop: threading.Event | Any,
        *,
        device: str = "cpu",
        threads: int | None = None,
        only: str | None = None,
        once: bool = False,
        turn_seconds: float = TURN_SECONDS,
        heartbeat: float = HEARTBEAT_SECONDS,
        owner: str | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._stop, self._only, self._once, self._turn_seconds = stop, only, once, turn_seconds
        self._database = Database(home.storage)
        self._store = Store(self._database)
        self._owner = owner or identity()
        self._device = device
        self._heartbeat = heartbeat
        self._home = home
        self.health = Health(machine(), device, [home.folder])
        self._desks: OrderedDict[int, Desk] = OrderedDict()
        self._here: Queued | None = None
        self._began = self._looked = 0.0
        self._not_before: dict[int, float] = {}
        self.refused: dict[int, str] = {}
        self._refusals: dict[int, int] = {}
        self._crashes = 0
        self._busy = False
        self._last: int | None = None

    def run(self) -> None:
        """Work until it is told to stop; with `once`, until nothing is left to do.

        Raises:
            WorkerUnfit: its device or disk is at fault; the storage knows why.
        """
        self._sign_in()
        leases = Leases(self._store, self._beat, self._heartbeat)
        self._worker = Worker(self._store, self._home, self._owner, self._stop.is_set, self._stop.wait, leases.hold)
        try:
            self.health.check()
            self._work()
        except WorkerUnfit as error:
            self._store.note_trouble(self._owner, str(error))
            raise
        finally:
            leases.close()
            try:
                self._store.sign_out(self._owner)
            except StorageUnavailable as error:  # then the roster forgets this worker when it has been silent
                log.warning("%s", error)
            self._database.close()

    def _work(self) -> None:
        wait = SHORTEST_WAIT_SECONDS
        while not self._stop.is_set():
            try:
                queued = self._store.turn(self._owner, self._only, self._not_now())
                if queued is not None and self._turn(queued):
                    wait = SHORTEST_WAIT_SECONDS
                    continue
                if queued is not None:
                    continue  # there was nothing to do there; perhaps elsewhere
                if self._busy:
                    self._store.leave(self._owner)
                    self._busy = False
                if self._once and self._store.next_in_queue(self._owner, self._only, self.refused) is None:
                    return
            except StorageUnavailable as error:
                log.warning("%s Trying again in %.1f s.", error, wait)
            self._stop.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _turn(self, queued: Queued) -> bool:
        """Work on a study for a while; returns whether there was anything to do."""
        self._busy = True
        if queued.id != self._last:
            log.info("works on %s", queued.name)
            self._last = queued.id
        self._here, self._began, self._looked = queued, time.monotonic(), time.monotonic()
        worked = False
        try:
            worked = self._at_desk(queued).run()
            self._crashes = 0
        except StorageUnavailable:
            raise
        except WorkerUnfit:
            self._store.forget_setbacks(queued.id, self.health.places)
            raise
        except StudyRefused as error:
            self._refuse(queued, str(error))
        except StudyNotFound:
            log.info("%s was deleted", queued.name)
        except StudyStopped as error:
            log.warning("%s is given up: %s", queued.name, error)
            self._store.set_state(queued.id, FAILED, str(error))
        except LeaseLost as error:
            log.warning("%s", error)
        except Exception as error:  # noqa: BLE001 - told, and after three in a row the worker ends by it
            self._crashed(queued, error)
        finally:
            self._here = None
        if not worked and queued.id not in self.refused:
            self._not_before[queued.id] = time.monotonic() + LONGEST_WAIT_SECONDS
        return worked

    def _at_desk(self, queued: Queued) -> Work:
        """What this worker has for a study, made anew if the study has been submitted with changes.

        Raises:
            StudyRefused: this worker cannot work on it.
        """
        desk = self._desks.pop(queued.id, None)
        if desk is None or desk.queued != queued:
            desk = Desk(queued, self._open(queued))
        self._desks[queued.id] = desk
        while len(self._desks) > DESKS:
            self._desks.popitem(last=False)
        row = self._store.study(queued.name)
        desk.work.began, desk.work.seconds_left = time.monotonic(), seconds_left(desk.work.spec, row)
        return desk.work

    def _open(self, queued: Queued) -> Work:
        row = self._store.study(queued.name)
        try:
            _import_classes(spec_of(row))
            work = open_desk(self._worker, row)
        except (StorageUnavailable, StudyRefused):
            raise
        except Exception as error:
            # Whatever is wrong, the study was sound where it was submitted: it is this machine that differs.
            if (fault := fault_of(error)) is not None and fault.everywhere:
                self.health.suspect(fault, str(error))
            text = str(error) if isinstance(error, TunerError) else f"{type(error).__name__}: {error}"
            raise StudyRefused(text) from error
        work.elsewhere, work.patient, work.condition = self._elsewhere, False, self.health
        work.document, work.outage_seconds = row.document, OUTAGE_SECONDS
        if self.refused.pop(queued.id, None) is not None:
            self._store.refuse(self._owner, queued.name, None)
        return work

    def _elsewhere(self) -> bool:
        """Whether this worker's turn is over: its study has changed, or another one comes first."""
        moment = time.monotonic()
        if self._here is None or moment - self._looked < min(LOOK_SECONDS, self._turn_seconds):
            return False
        self._looked = moment
        try:
            first = self._store.next_in_queue(self._owner, self._only, self._not_now())
        except StorageUnavailable as error:  # no reason to drop what is being trained
            log.warning("%s", error)
            return False
        if first is None or first.id == self._here.id:
            return first != self._here
        return first.priority > self._here.priority or moment - self._began >= self._turn_seconds

    def _not_now(self) -> list[int]:
        """Studies at which there was nothing to do a moment ago, or which this worker refuses."""
        moment = time.monotonic()
        self._not_before = {study: until for study, until in self._not_before.items() if until > moment}
        return list(self._not_before)

    def _refuse(self, queued: Queued, reason: str) -> None:
        if self.refused.get(queued.id) != reason:
            log.warning("%s is left to other workers: %s", queued.name, reason)
        self.refused[queued.id] = reason
        self._refusals[queued.id] = times = self._refusals.get(queued.id, 0) + 1
        self._not_before[queued.id] = time.monotonic() + min(
            REFUSED_SECONDS * 2.0 ** (times - 1), LONGEST_REFUSED_SECONDS
        )
        self._desks.pop(queued.id, None)
        self._store.forget_setbacks(queued.id, self.health.places)
        self._store.refuse(self._owner, queued.name, reason)

    def _crashed(self, queued: Queued, error: Exception) -> None:
        """Take note of an error that nobody expects; the third in a row says that this worker is at fault.

        Raises:
            WorkerUnfit: it is.
        """
        log.exception("working on %s raised what nobody expected; its trials are back in the queue", queued.name)
        self._desks.pop(queued.id, None)
        self._crashes += 1
        if (fault := fault_of(error)) is not None and fault.everywhere:
            self.health.suspect(fault, str(error))
        if self._crashes >= MOST_IN_A_ROW:
            told = f"{type(error).__name__}: {error}"
            raise WorkerUnfit(f"{MOST_IN_A_ROW} errors in a row, the last on {queued.name}: {told}") from error

    def _sign_in(self) -> None:
        self._store.sign_in(
            self._owner,
            machine=machine(),
            device=self._device,
            threads=torch.get_num_threads(),
            folder=str(Path.cwd()),
        )
        self._store.forget_workers(gone)
        self._store.reclaim_everywhere(gone)

    def _beat(self) -> None:
        if not self._store.beat(self._owner):
            self._sign_in()
        self._store.forget_workers(gone)


class Desk:
    """What a worker has for one study, and by which of its versions."""

    def __init__(self, queued: Queued, work: Work) -> None:
        self.queued, self.work = queued, work


def _import_classes(spec: StudySpec) -> None:
    """Import the classes that a study names.

    Raises:
        StudyRefused: they are not on this machine; the error says what is missing, and what to do.
    """
    if spec.search.training == FUNCTION:
        problems = find(spec.model.class_path, "model.class_path")[1]
    else:
        problems = import_class(spec.model.class_path, L.LightningModule, "model.class_path")[1]
    if spec.data is not None:
        problems += import_class(spec.data.class_path, L.LightningDataModule, "data.class_path")[1]
    if problems:
        raise StudyRefused("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
