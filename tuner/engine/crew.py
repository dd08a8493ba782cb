"""Worker processes on this machine, forked from one server that has imported the heavy libraries once.

A fork costs milliseconds where a fresh interpreter costs five seconds of imports each. Workers are told to stop by
SIGTERM, ignore the terminal's Ctrl-C (their parent decides), and stop by themselves when their parent is gone.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

from tuner.engine.devices import VISIBLE, Share
from tuner.engine.memory import keep_freed_memory
from tuner.errors import Problem, StorageUnavailable, StudyStopped, WorkerUnfit
from tuner.home import Home
from tuner.space import Space

PRELOAD = ["tuner.engine.warm"]
STUDY_FAILED = 3
UNFIT = 4
LEFT_UNDONE = 5


class Crew:
    """Starts checks and workers.

    Args:
        home: where the storage is.
        logs: the folder where workers write what they print.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        ensure_running()  # begins to import at once, while the caller does other things

    def inspect(self, document: Mapping[str, Any], space: Space | None) -> list[Problem]:
        """Run training's `inspect` in a child, so that this process needs no torch."""
        receive, send = self._context.Pipe(duplex=False)
        child = self._context.Process(target=_inspect, args=(send, document, space))
        child.start()
        send.close()
        try:
            found: list[Problem] | str = pickle.loads(receive.recv_bytes())  # noqa: S301 - from our own child
        except EOFError:
            child.join()
            raise StudyStopped(
                f"the process that checks the study died (exit code {child.exitcode}): importing the study's classes "
                'killed it, or a script calls tuner.run with workers without `if __name__ == "__main__":` above.'
            ) from None
        finally:
            receive.close()
        child.join()
        if isinstance(found, str):
            raise StudyStopped(f"the study could not be checked:\n{found}")
        return found

    def start(self, study: str, index: int, threads: int) -> ForkServerProcess:
        """Start worker `index` on a study."""
        log = self.home.logs(study) / f"worker-{index}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        worker = self._context.Process(
            target=_work, args=(study, self.home, threads, log), name=f"tuner-worker-{index}"
        )
        worker.start()
        return worker

    def gpus(self) -> int:
        """How many GPUs torch finds, asked in a child, so that this process needs no torch."""
        receive, send = self._context.Pipe(duplex=False)
        child = self._context.Process(target=_count_gpus, args=(send,))
        child.start()
        send.close()
        try:
            return int(receive.recv())
        except EOFError:
            raise StudyStopped("the process that counts the GPUs died. Name them with --devices.") from None
        finally:
            receive.close()
            child.join()

    def serve(self, index: int, share: Share, only: str | None, once: bool) -> ForkServerProcess:
        """Start worker `index` of a service."""
        name = f"tuner-worker-{index}"
        worker = self._context.Process(target=_serve, args=(self.home, share, only, once, name), name=name)
        worker.start()
        return worker

    def wait(self, workers: Sequence[ForkServerProcess], timeout: float) -> None:
        """Wait until one of these workers has ended, at most `timeout` seconds."""
        wait([worker.sentinel for worker in workers], timeout=timeout)

    def last_words(self, study: str, index: int) -> str:
        """Where worker `index` wrote its log, and its last line."""
        log = self.home.logs(study) / f"worker-{index}.log"
        lines = (
            [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()] if log.exists() else []
        )
        return f"{lines[-1].strip()} (more in {log})" if lines else f"(nothing in {log})"


def _inspect(send: Connection, document: Mapping[str, Any], space: Space | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_from_here()
    from tuner.training import inspect

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        answer: list[Problem] | str = inspect(document, space)
    except Exception:  # noqa: BLE001 - told to the parent, which raises it
        answer = traceback.format_exc()
    send.send_bytes(pickle.dumps(answer))


def _count_gpus(send: Connection) -> None:
    from tuner.service.gpus import count

    send.send(count())


def _serve(home: Home, share: Share, only: str | None, once: bool, name: str) -> None:
    os.environ[VISIBLE] = share.visible  # before anything asks CUDA
    keep_freed_memory()
    stop = _told_to_stop()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {name} %(message)s", stream=sys.stderr)
    logging.getLogger("tuner").setLevel(logging.INFO)
    from tuner.service.gpus import named
    from tuner.service.shift import Shift

    try:
        shift = Shift(home, stop, device=named(share.device), threads=share.threads, only=only, once=once)
        shift.run()
    except WorkerUnfit as error:
        print(f"{name} is unfit: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    except StorageUnavailable as error:
        sys.exit(f"{name}: {error}")
    if once and shift.refused:
        sys.exit(LEFT_UNDONE)


def _told_to_stop() -> threading.Event:
    """An event that is set by SIGTERM, and when the parent is gone; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_from_here()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_stop_with_parent, args=(stop,), daemon=True).start()
    return stop


def _work(study: str, home: Home, threads: int, log: Path) -> None:
    keep_freed_memory()
    stop = _told_to_stop()
    with log.open("a", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    from tuner.service.worker import work_on

    try:
        work_on(study, home, stop, threads)
    except StudyStopped as error:
        print(f"StudyStopped: {error}", file=sys.stderr)
        sys.exit(STUDY_FAILED)


def _stop_with_parent(stop: threading.Event) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        stop.set()


def _import_from_here() -> None:
    """Find the user's modules in the folder the study is run from, as `python` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
