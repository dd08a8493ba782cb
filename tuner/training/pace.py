"""When a running trial is written down, and whether it may end its epoch before it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_SECONDS = 30.0
"""A snapshot is due at the first epoch's end so long after the one before."""

LONG_EPOCH_SECONDS = 5.0
"""After an epoch that took so long, a snapshot is due whenever the one before was."""

SHARE = 0.02
"""Of the training's time, this much at most is spent on snapshots."""

GRACE_SECONDS = 4.0
"""Who asks for a stop waits so long for an epoch's end; what is left until workers are killed is for the batch at hand,
the snapshot and the storage."""


class Pace:
    """The clock of what a worker trains at a time: one trial, or the trials of one cohort.

    Args:
        clock: seconds of any origin.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: float | None = None
        self.begin()

    def begin(self) -> None:
        """Training begins, so nothing is worth writing down yet."""
        self._epoch_began = self._wrote = self._clock()
        self._epoch_seconds: float | None = None
        self._cost = 0.0

    def epoch_ended(self) -> bool:
        """An epoch has ended; the answer says whether a snapshot is due."""
        now = self._clock()
        self._epoch_seconds, self._epoch_began = now - self._epoch_began, now
        least = 0.0 if self._epoch_seconds >= LONG_EPOCH_SECONDS else EVERY_SECONDS
        return now - self._wrote >= max(least, self._cost / SHARE)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write snapshots in the body, whose cost decides when the next ones are due."""
        began = self._clock()
        yield
        self._epoch_began = self._wrote = self._clock()
        self._cost = self._wrote - began

    def may_end_epoch(self) -> bool:
        """Whether the epoch at hand ends soon enough for somebody who asks for a stop; the first time counts."""
        now = self._clock()
        if self._asked is None:
            self._asked = now
        if self._epoch_seconds is None:  # nobody knows how long it takes, and no epoch would be lost
            return False
        return max(now, self._epoch_began + self._epoch_seconds) < self._asked + GRACE_SECONDS
