"""`tuner worker`: processes that serve the queue, and one without torch that watches them and brings results to MLflow.

A worker that dies is started again, after a while if it dies again and again. One that is unfit (its device or disk is
at fault) gets longer pauses: it may be mended meanwhile, and the storage says why it does not work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.engine.crew import LEFT_UNDONE, UNFIT, Crew
from tuner.engine.devices import VISIBLE, Share, cores_here, shares
from tuner.engine.local import on_interrupt
from tuner.engine.workers import WorkerProcess, Workers
from tuner.errors import StorageUnavailable
from tuner.home import Home, shown, silence_telemetry
from tuner.service.couriers import Couriers
from tuner.service.entry import open_storage
from tuner.service.identity import gone
from tuner.storage import Store

log = logging.getLogger("tuner")

LOOK_SECONDS = 0.5
COURIERS_SECONDS = 2.0
STOP_SECONDS = 6.5
"""How long workers get to give their trials back. With what follows it stays within ten seconds."""
LAST_SECONDS = 1.5
"""How long MLflow gets at a stop; what it has not seen by then another service brings, or the next one here."""
DONE_SECONDS = 30.0
MAX_RESTARTS = 3
LONG_LIFE_SECONDS = 60.0
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
UNFIT_SECONDS, LONGEST_UNFIT_SECONDS = 60.0, 1800.0


@dataclass
class Post:
    """One worker's place.

    Attributes:
        share: what it works with.
        process: it, while it lives.
        since: when it was started.
        deaths: how often it died early, one time after the other.
        again: when it is started again.
        closed: whether it is not.
    """

    share: Share
    process: WorkerProcess | None = None
    since: float = 0.0
    deaths: int = 0
    again: float = 0.0
    closed: bool = False


def serve(
    *,
    devices: str = "auto",
    only: str | None = None,
    once: bool = False,
    home: Home | None = None,
    say: Callable[[str], None] = log.info,
) -> bool:
    """Serve the queue with workers on this machine, until SIGTERM or Ctrl-C.

    Args:
        devices: how the machine is shared out, as `shares` reads it.
        only: the name of the one study to serve, or None for all.
        once: end when nothing is left to do.
        home: where things live; by default as the environment says.
        say: told, in a line each, what happens to the workers.

    Returns:
        Whether, with `once`, all was done: False if a worker was unfit, kept dying, or could not work on a study.

    Raises:
        SpecError: `devices` cannot be had.
        StorageUnavailable: the database does not answer, or is not ready for this version.
        StudyNotFound: there is no study of the name `only`.
    """
    silence_telemetry()
    home = home or Home.from_environment()
    with open_storage(home, create=True) as store:
        if only is not None:
            store.study(only)
        crew = Crew(home)
        gpus = 0 if devices.startswith("cpu") else crew.gpus()
        posts = [Post(share) for share in shares(devices, gpus, cores_here(), os.environ.get(VISIBLE))]
        return Service(home, crew, store, posts, only, once, say).run()


class Service:
    """The process that watches the workers; arguments as for `serve`."""

    def __init__(
        self,
        home: Home,
        crew: Workers,
        store: Store,
        posts: Sequence[Post],
        only: str | None,
        once: bool,
        say: Callable[[str], None],
    ) -> None:
        self._home, self._crew, self._store, self._posts = home, crew, store, posts
        self._only, self._once, self._say = only, once, say
        self._stopping = False
        self._well = True
        self._looked = 0.0
        self._couriers = Couriers(home)

    def run(self) -> bool:
        """Serve; see `serve`."""
        self._say(f"{len(self._posts)} workers serve {shown(self._home.storage)}: {self._told()}")
        with on_interrupt(self._stop):
            try:
                while not self._stopping and not all(post.closed for post in self._posts):
                    self._look()
            finally:
                self._end()
        return self._well

    def _told(self) -> str:
        return ", ".join(f"{post.share.device} with {post.share.threads} threads" for post in self._posts)

    def _stop(self, *_: object) -> None:
        if self._stopping:  # asked again: wait for nobody
            for post in self._posts:
                if post.process is not None:
                    post.process.kill()
        self._stopping = True

    def _look(self) -> None:
        """Start who is to be started, wait a little, see who has died, and see to the couriers."""
        for index, post in enumerate(self._posts):
            if post.process is None and not post.closed and time.monotonic() >= post.again:
                post.process = self._crew.serve(index, post.share, self._only, self._once)
                post.since = time.monotonic()
        self._crew.wait([post.process for post in self._posts if post.process is not None], LOOK_SECONDS)
        for index, post in enumerate(self._posts):
            if post.process is not None and not post.process.is_alive():
                self._ended(index, post, post.process)
        if time.monotonic() - self._looked >= COURIERS_SECONDS:
            self._see_to_couriers()

    def _see_to_couriers(self) -> None:
        self._looked = time.monotonic()
        try:
            self._couriers.look(self._store)
        except StorageUnavailable as error:  # the workers wait for it, too, and say so
            log.debug("%s", error)

    def _ended(self, index: int, post: Post, process: WorkerProcess) -> None:
        """Decide what follows the end of a worker."""
        process.join()
        code, lived = process.exitcode, time.monotonic() - post.since
        process.close()
        post.process = None
        if self._stopping:
            return
        if self._once and code in (0, UNFIT, LEFT_UNDONE):
            post.closed = True
            self._well = self._well and code == 0
            return
        post.deaths = 1 if lived > LONG_LIFE_SECONDS and code != UNFIT else post.deaths + 1
        if self._once and post.deaths > MAX_RESTARTS:
            self._say(f"worker {index} keeps dying (exit code {code}); it is not started again.")
            post.closed, self._well = True, False
            return
        first, longest = (
            (UNFIT_SECONDS, LONGEST_UNFIT_SECONDS) if code == UNFIT else (PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        )
        pause = min(first * 2.0 ** (post.deaths - 1), longest)
        post.again = time.monotonic() + pause
        why = "is unfit" if code == UNFIT else f"died (exit code {code})"
        self._say(f"worker {index} {why}; it is started again in {pause:.0f} s. See: tuner doctor")
        self._reclaim(counts=True)

    def _reclaim(self, *, counts: bool) -> None:
        try:
            self._store.reclaim_everywhere(gone, counts=counts)
            self._store.forget_workers(gone)
        except StorageUnavailable as error:  # their leases run out by themselves
            log.warning("%s", error)

    def _end(self) -> None:
        """Let the workers give back what they have; end those that do not; bring MLflow what is quickly brought."""
        living = [post.process for post in self._posts if post.process is not None]
        for process in living:
            process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for process in living:
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        if living:
            self._reclaim(counts=False)  # they were told to stop: that they are gone says nothing of their trials
        self._see_to_couriers()  # a study may have begun since the last time
        late = self._last_to_mlflow(LAST_SECONDS if self._stopping else DONE_SECONDS)
        if late:
            self._say(f"MLflow has not seen everything of {', '.join(late)}; the next service brings it.")

    def _last_to_mlflow(self, patience: float) -> list[str]:
        try:
            return self._couriers.settle(self._store, patience)
        except StorageUnavailable as error:
            log.warning("%s", error)
            return []
