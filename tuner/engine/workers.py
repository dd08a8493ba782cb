"""What whoever watches workers knows of one, whether it is a process of this machine or an actor of Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tuner.engine.devices import Share


class WorkerProcess(Protocol):
    """A worker that was started, by the methods of a `multiprocessing.Process`."""

    @property
    def exitcode(self) -> int | None:
        """How it ended; None while it lives."""

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""

    def terminate(self) -> None:
        """Tell it to give its trials back and to end."""

    def kill(self) -> None:
        """End it at once."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most `timeout` seconds."""

    def close(self) -> None:
        """Let go of what it held; it has ended."""


class Workers(Protocol):
    """Starts workers somewhere."""

    def start(self, study: str, index: int, threads: int) -> WorkerProcess:
        """Start worker `index` on a study."""

    def serve(self, index: int, share: Share, only: str | None, once: bool) -> WorkerProcess:
        """Start worker `index` of a service."""

    def wait(self, workers: Sequence[Any], timeout: float) -> None:
        """Wait until one of these workers has ended, at most `timeout` seconds."""

    def last_words(self, study: str, index: int) -> str:
        """What worker `index` on a study wrote last, and where there is more."""
