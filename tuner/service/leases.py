"""The heartbeat of a worker: a thread that renews its leases, and finds the trials of workers that have died."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tuner.errors import StorageUnavailable
from tuner.service.identity import gone
from tuner.storage import Lease, Store

log = logging.getLogger("tuner")

HEARTBEAT_SECONDS = 10.0


class Leases:
    """Renews the leases that a worker holds, from a thread that beats through long training steps.

    At each beat it also returns to the queue what dead workers held: those who live may be busy for hours.

    Args:
        store: the storage.
        also: called at each beat.
        seconds: between two beats, at most.
    """

    def __init__(
        self, store: Store, also: Callable[[], None] = lambda: None, seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self._store = store
        self._also = also
        self._seconds = seconds
        self._held: dict[int, Lease] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._dice = random.Random()  # noqa: S311 - no secret; its own, since the global one is the training's
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
        # Not all at once where many began together: a beat that meets a write needs a second connection.
        while not self._closed.wait(self._dice.uniform(0.5, 1.0) * self._seconds):
            with self._lock:
                held = list(self._held.values())
            try:
                if held:
                    self._store.renew(held)
                self._store.reclaim_everywhere(gone)
                self._also()
            except StorageUnavailable as error:  # the next beat tries again, well before the leases run out
                log.warning("a heartbeat was lost: %s", error)
