"""Workers in a Ray cluster: each is a process minded by an actor, which holds its place and its share of a GPU.

Ray decides where workers are and starts the actors of a lost node elsewhere. Who owns a trial the leases decide, as
everywhere: no method that trains is ever retried by Ray, and a worker that starts anew begins by looking for trials
that were lost. An actor that disappears takes its worker with it, which gives its trials back if it still can.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from tuner.engine.crew import Crew
from tuner.engine.devices import VISIBLE, Share
from tuner.home import Home, silence_telemetry

log = logging.getLogger("tuner")

STOP_SECONDS = 5.5
"""How long a worker gets to give its trials back: a second less than whoever told its actor waits for that, so that a
worker which had to be killed is known to be dead when its trials are returned."""
LOST = 1
"""The exit code of a worker whose actor is gone for good."""


class Attendant:
    """The actor: minds one worker process on its node, once.

    Where the storage is comes with each call, not with the actor: Ray keeps what makes an actor in its tables.

    Args:
        index: the worker's number.
        folder: where the code of the studies is, if that exists on the node; None leaves the folder as Ray sets it.
    """

    def __init__(self, index: int, folder: str | None) -> None:
        silence_telemetry()
        if folder is not None and Path(folder).is_dir():
            os.chdir(folder)
        self._index = index
        self._lock = threading.Lock()
        self._child: ForkServerProcess | None = None
        self._stopping = False
        self._ended = threading.Event()

    @ray.method(max_task_retries=-1)
    def place(self) -> str:
        """The machine's name; answered once there is room for the worker."""
        return socket.gethostname()

    def serve(self, home: Home, share: Share, only: str | None, once: bool) -> tuple[int, str]:
        """Serve the queue, and return the worker's exit code and its last words."""
        share = _seen_here(share)
        crew = Crew(home)
        return self._mind(lambda: crew.serve(self._index, share, only, once)), ""

    def work(self, study: str, home: Home, share: Share) -> tuple[int, str]:
        """Work on a study, and return the worker's exit code and its last words."""
        _seen_here(share)
        crew = Crew(home)
        code = self._mind(lambda: crew.start(study, self._index, share.threads))
        return code, f"{crew.last_words(study, self._index)} on {socket.gethostname()}"

    def stop(self) -> None:
        """Let the worker give its trials back; end it if that takes too long."""
        with self._lock:
            self._stopping = True
            child = self._child
        if child is not None and not self._ended.is_set():
            child.terminate()
            if not self._ended.wait(STOP_SECONDS):
                child.kill()

    def _mind(self, start: Callable[[], ForkServerProcess]) -> int:
        with self._lock:
            if self._stopping:
                return 0
            child = self._child = start()
        child.join()  # in this thread alone: an exit code can be read once
        self._ended.set()
        return LOST if child.exitcode is None else child.exitcode


def _seen_here(share: Share) -> Share:
    """The share by the names of this node; the worker sees the GPU that Ray has given to the actor, and no other."""
    numbers = ray.get_gpu_ids() if share.device != "cpu" else []
    os.environ[VISIBLE] = visible = ",".join(map(str, numbers))
    return Share(f"cuda:{visible}" if numbers else "cpu", share.threads, visible)


class Seat:
    """A worker in the cluster as its starter sees it, by the methods of a process.

    It lives from the moment it is asked for: also while the cluster has no room for it yet, and while Ray moves its
    actor to another node.

    Args:
        name: what the worker is called.
        actor: its attendant.
        begin: asks the attendant to start the worker, and returns Ray's reference to the end of that.
    """

    def __init__(self, name: str, actor: Any, begin: Callable[[Any], Any]) -> None:
        self._name, self._actor, self._begin = name, actor, begin
        self._placed = self._told_to_stop = False
        self.exitcode: int | None = None
        self.words = ""
        self.reference = actor.place.remote()

    def is_alive(self) -> bool:
        """Look where it stands, and go on from there; False once it has ended."""
        if self.exitcode is None and ray.wait([self.reference], timeout=0)[0]:
            try:
                self._go_on(ray.get(self.reference))
            except ActorUnavailableError as error:
                self._moved(error)
            except RayError as error:
                log.warning("%s is lost: %s", self._name, str(error).strip())
                self.exitcode, self.words = LOST, str(error).strip()
        return self.exitcode is None

    def terminate(self) -> None:
        """Let the worker give its trials back; one that has no place yet ends at once."""
        self._told_to_stop = True
        if self._placed:
            self._actor.stop.remote()
        else:
            self.kill()

    def kill(self) -> None:
        """End it at once, and for good."""
        ray.kill(self._actor)
        if self.exitcode is None:
            self.exitcode = 0 if self._told_to_stop else LOST

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most `timeout` seconds."""
        if self.exitcode is None:
            ray.wait([self.reference], timeout=timeout)
            self.is_alive()

    def close(self) -> None:
        """Give its place back."""
        ray.kill(self._actor)

    def _go_on(self, answer: Any) -> None:
        if self._placed:
            self.exitcode, self.words = answer
            return
        log.info("%s is on %s", self._name, answer)
        self._placed = True
        self.reference = self._begin(self._actor)

    def _moved(self, error: Exception) -> None:
        """Its node or its actor is gone; Ray starts the actor again, and the worker begins anew there."""
        log.warning("%s has lost its place; Ray finds it another. (%s)", self._name, str(error).strip())
        if self._told_to_stop:
            self.kill()
            return
        self._placed = False
        self.reference = self._actor.place.remote()


class RayCrew:
    """Starts workers in the Ray cluster that this process is connected to.

    Args:
        home: where things live, on every node.
        cpus: how many CPUs each worker gets, by Ray's count.
        gpus: which share of a GPU each worker gets, 0 to 1.
        folder: where the code of the studies is; see `Attendant`.
    """

    def __init__(self, home: Home, cpus: float, gpus: float, folder: str | None) -> None:
        self._home, self._cpus, self._gpus, self._folder = home, cpus, gpus, folder
        self._seats: dict[int, Seat] = {}
        self._begun: dict[int, int] = {}
        self._actors = ray.remote(Attendant)

    @property
    def share(self) -> Share:
        """What each worker gets."""
        return Share("cuda" if self._gpus else "cpu", max(1, int(self._cpus)), "")

    def start(self, study: str, index: int, threads: int) -> Seat:
        """Start worker `index` on a study, with the threads that Ray's CPUs allow."""
        return self._seat(index, lambda actor: actor.work.remote(study, self._home, self.share))

    def serve(self, index: int, share: Share, only: str | None, once: bool) -> Seat:
        """Start worker `index` of a service."""
        return self._seat(index, lambda actor: actor.serve.remote(self._home, share, only, once))

    def wait(self, workers: Sequence[Seat], timeout: float) -> None:
        """Wait until there is news of one of these workers, at most `timeout` seconds."""
        if workers:
            ray.wait([worker.reference for worker in workers], timeout=timeout)
        else:
            threading.Event().wait(timeout)

    def last_words(self, study: str, index: int) -> str:
        """What worker `index` on a study wrote last, and where there is more."""
        return self._seats[index].words

    def _seat(self, index: int, begin: Callable[[Any], Any]) -> Seat:
        times = self._begun[index] = self._begun.get(index, 0) + 1
        name = f"tuner-worker-{index}"
        actor = self._actors.options(
            name=name if times == 1 else f"{name}-{times}",  # Ray gives a name back late
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=3,  # the worker is minded by one thread, told to stop by another
        ).remote(index, self._folder)
        seat = self._seats[index] = Seat(name, actor, begin)
        return seat
