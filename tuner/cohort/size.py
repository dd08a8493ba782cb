"""How many trials to train together: by the throughput that was measured, and the memory that was not there."""

from __future__ import annotations

FIRST = 8
MOST = 32
"""More would leave the search too few occasions to learn."""

GAIN = 1.2
"""Twice as many must make each at least so much cheaper, or the search is better served by more cohorts."""


class Sizes:
    """What is known of one shape's cohorts.

    Attributes:
        limit: how many fit into memory, as far as is known.
    """

    def __init__(self) -> None:
        self.limit = MOST
        self._seconds: dict[int, float] = {}  # of a step, by size

    @property
    def best(self) -> int:
        """How many the next cohort should have: twice as many as long as that has paid."""
        size = FIRST
        while size in self._seconds and 2 * size <= min(MOST, self.limit):
            twice = self._seconds.get(2 * size)
            if twice is not None and self._seconds[size] / size < GAIN * twice / (2 * size):
                break
            size *= 2
        return max(1, min(size, self.limit))

    def measured(self, size: int, seconds: float | None) -> None:
        """Note how long a step of a cohort of this size takes."""
        if seconds is not None:
            self._seconds[size] = min(seconds, self._seconds.get(size, seconds))

    def too_many(self, size: int) -> None:
        """Note that so many did not fit into memory."""
        self.limit = max(1, min(self.limit, size // 2))
