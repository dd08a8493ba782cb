"""Couriers of several studies: those that a service works on, and those that ended while MLflow was away."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from tuner.home import Home
from tuner.service.courier import Courier
from tuner.storage import Store

STANDBY_SECONDS = 5.0
BEHIND_SECONDS = 10.0
"""How often it is looked for studies that have ended and are not all in MLflow."""
MOST_BEHIND = 4
"""So many of them are brought at once: each takes connections to the storage."""


class Couriers:
    """Follows studies.

    The storage elects one courier for each study among all services, and another one when that one dies.

    Args:
        home: where the storage and MLflow are.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._following: dict[str, Courier] = {}
        self._ending: dict[str, Courier] = {}
        self._looked = -math.inf

    def look(self, store: Store) -> None:
        """Begin to follow the studies of the queue that have begun; let go of those that are done and told."""
        wanted = store.in_queue()
        self._bury()
        for name in self._following.keys() - set(wanted):
            courier = self._ending[name] = self._following.pop(name)
            courier.end()
        for name in wanted:
            if name not in self._following and name not in self._ending:
                self._following[name] = Courier(name, self._home, standby=STANDBY_SECONDS, counts_time=False).start()
        self.catch_up(store)

    def catch_up(self, store: Store, besides: Collection[str] = (), *, at_once: bool = False) -> bool:
        """Bring MLflow what it lacks of studies that have ended; the process that ran one may be gone.

        Args:
            store: the storage.
            besides: studies of which another one in this process is the courier.
            at_once: look now, however short ago the last look was.

        Returns:
            Whether any is being brought.
        """
        self._bury()
        if at_once or time.monotonic() - self._looked >= BEHIND_SECONDS:
            self._looked = time.monotonic()
            here = {*self._following, *self._ending, *besides}
            free = max(0, MOST_BEHIND - len(self._ending))
            for name in [name for name in store.behind() if name not in here][:free]:
                courier = self._ending[name] = Courier(name, self._home, counts_time=False).start()
                courier.end()
        return bool(self._ending)

    def _bury(self) -> None:
        self._ending = {name: courier for name, courier in self._ending.items() if courier.alive}

    def settle(self, store: Store, patience: float) -> list[str]:
        """End all of them as `finish` does, and try once to bring what MLflow lacks of any study that has ended."""
        until = time.monotonic() + patience
        late = self.finish(patience)
        tried: set[str] = set()
        while not late and time.monotonic() < until and self.catch_up(store, tried, at_once=True):
            tried |= self._ending.keys()
            late = self.finish(max(0.0, until - time.monotonic()))
        return late

    def finish(self, patience: float) -> list[str]:
        """End all of them; returns the names of studies of which MLflow has not taken all within `patience` seconds."""
        until = time.monotonic() + patience
        couriers = {**self._ending, **self._following}
        self._following, self._ending = {}, couriers
        for courier in couriers.values():
            courier.end()
        for courier in couriers.values():
            courier.finish(max(0.0, until - time.monotonic()))
        return sorted(name for name, courier in couriers.items() if courier.problem is not None)
