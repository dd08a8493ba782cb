"""SIGTERM while the lean loop trains: noticed between two batches, as the Trainer does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def noticing_sigterm() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying from it; a handler that is there already runs as well.

    Yields:
        Whether it has come.
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield lambda: False
        return
    received = threading.Event()

    def handle(number: int, frame: Any) -> None:
        received.set()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, handle)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
