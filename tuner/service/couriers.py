"""The couriers of a service: one for each study that has something to be brought, on whichever machine is elected."""

from __future__ import annotations

import time

from tuner.home import Home
from tuner.service.courier import Courier
from tuner.storage import Store

STANDBY_SECONDS = 5.0


class Couriers:
    """Follows the studies of the queue.

    The storage elects one courier for each study among all services, and another one when that one dies.

    Args:
        home: where the storage and MLflow are.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._following: dict[str, Courier] = {}
        self._ending: dict[str, Courier] = {}

    def look(self, store: Store) -> None:
        """Begin to follow studies that have begun; let go of those that are done and told."""
        wanted = store.in_queue()
        self._ending = {name: courier for name, courier in self._ending.items() if courier.alive}
        for name in self._following.keys() - set(wanted):
            courier = self._ending[name] = self._following.pop(name)
            courier.end()
        for name in wanted:
            if name not in self._following and name not in self._ending:
                self._following[name] = Courier(name, self._home, standby=STANDBY_SECONDS, counts_time=False).start()

    def finish(self, patience: float) -> list[str]:
        """End all of them; returns the names of studies for which MLflow takes longer than `patience` seconds."""
        until = time.monotonic() + patience
        couriers = {**self._ending, **self._following}
        for courier in couriers.values():
            courier.end()
        for courier in couriers.values():
            courier.finish(max(0.0, until - time.monotonic()))
        return sorted(name for name, courier in couriers.items() if courier.alive)
