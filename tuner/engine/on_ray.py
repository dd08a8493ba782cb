"""`--engine ray`: the same workers in a Ray cluster. What must hold before they are started is checked here."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.engine.crew import Crew
from tuner.engine.local import Watch, run_crew
from tuner.engine.serving import Post, Service
from tuner.engine.submission import entered
from tuner.errors import Problem, SpecError
from tuner.home import Home, shown, silence_telemetry
from tuner.service.entry import open_storage
from tuner.service.result import StudyResult

if TYPE_CHECKING:
    from tuner.engine.ray_crew import RayCrew

log = logging.getLogger("tuner")

ADDRESS = "RAY_ADDRESS"
CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Places:
    """What workers in a Ray cluster get.

    Attributes:
        workers: how many; None is as many as the cluster has room for now, at least one.
        cpus: CPUs of each, a fraction of one or a whole number.
        gpus: the share of a GPU that each gets, 0 to 1; None is 1 if the cluster has any, else 0.
        working_dir: a folder that Ray sends to every node, where workers then run; None sends nothing.
    """

    workers: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    working_dir: Path | None = None

    def problems(self) -> list[Problem]:
        """What is wrong with it, by the options of the command line."""
        found = []
        if self.workers is not None and self.workers < 1:
            found.append(Problem("--workers", f"must be at least 1, but got {self.workers}."))
        if not (0 < self.cpus < 1 or (self.cpus >= 1 and self.cpus == int(self.cpus))):
            found.append(
                Problem("--cpus-per-worker", f"must be a fraction of one or a whole number, but got {self.cpus:g}.")
            )
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            found.append(
                Problem("--gpus-per-worker", f"must be 0 to 1, since a worker trains on one GPU; got {self.gpus:g}.")
            )
        if self.working_dir is not None and not self.working_dir.is_dir():
            found.append(Problem("--working-dir", f"must be a folder, but {self.working_dir} is none."))
        return found


def serve_on_ray(
    *,
    address: str | None = None,
    places: Places | None = None,
    only: str | None = None,
    once: bool = False,
    home: Home | None = None,
    say: Callable[[str], None] = log.info,
) -> bool:
    """Serve the queue with workers in a Ray cluster, until SIGTERM or Ctrl-C.

    Args:
        address: of the cluster, as `ray.init` takes it; None is RAY_ADDRESS, else the cluster on this machine.
        places: what the workers get.
        only: the name of the one study to serve, or None for all.
        once: end when nothing is left to do.
        home: where things live, on every node; by default as the environment says here.
        say: told, in a line each, what happens to the workers.

    Returns:
        As `tuner.engine.serve`.

    Raises:
        SpecError: Ray is not installed, there is no such cluster, or the storage cannot be reached from it.
        StorageUnavailable: the database does not answer, or is not ready for this version.
        StudyNotFound: there is no study of the name `only`.
    """
    silence_telemetry()
    home, places = home or Home.from_environment(), places or Places()
    _check("tuner worker", places)
    with open_storage(home, create=True) as store:
        if only is not None:
            store.study(only)
        with _crew("tuner worker", address or os.environ.get(ADDRESS) or "auto", places, home) as (crew, workers):
            posts = [Post(crew.share) for _ in range(workers)]
            return Service(home, crew, store, posts, only, once, say).run()


def run_on_ray(
    study: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[tuple[str, Any]] = (),
    workers: int = 1,
    home: Home | None = None,
    watch: Watch = lambda *_: None,
) -> StudyResult:
    """Create or continue a study, and work on it in a Ray cluster until its budget is spent.

    The cluster is that of RAY_ADDRESS, or else one that is started on this machine and ends with the study.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        overrides: values that replace what the study says, by path.
        workers: how many train.
        home: where things live, on every node; by default as the environment says here.
        watch: called now and then while the study runs.

    Returns:
        How the study stands at the end.

    Raises:
        SpecError: as for `serve_on_ray`; nothing has run.
        SpecError, StudyChanged, StudyStopped, KeyboardInterrupt: as for `tuner.engine.run`.
    """
    silence_telemetry()
    home, places = home or Home.from_environment(), Places(workers=workers)
    _check("tuner run", places)
    with (
        entered(study, overrides, Crew(home).inspect, home, resume=False) as (spec, store),
        _crew("tuner run", os.environ.get(ADDRESS) or "local", places, home) as (crew, _),
    ):
        return run_crew(spec, store, home, crew, workers, watch)


def _check(command: str, places: Places) -> None:
    """Check what can be checked without a cluster.

    Raises:
        SpecError: all that is wrong.
    """
    problems = places.problems()
    if importlib.util.find_spec("ray") is None:
        problems.insert(0, Problem("--engine", "ray is not installed. Install it with: pip install 'tuner[ray]'"))
    if problems:
        raise SpecError(command, problems)


@contextmanager
def _crew(command: str, address: str, places: Places, home: Home) -> Iterator[tuple[RayCrew, int]]:
    """Connect to a cluster; yield what starts workers there, and how many are wanted.

    Raises:
        SpecError: it cannot be connected to, or does not reach the storage.
    """
    import ray

    from tuner.engine.ray_crew import RayCrew

    _connect(command, address, places.working_dir)
    try:
        listed: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node for node in listed if node["Alive"]]
        if problem := storage_problem(home, [node["NodeManagerHostname"] for node in nodes]):
            raise SpecError(command, [problem])
        resources = [node["Resources"] for node in nodes]
        gpus = places.gpus if places.gpus is not None else float(any(each.get("GPU") for each in resources))
        room = sum(room_for(each, places.cpus, gpus) for each in resources)
        workers = places.workers or max(1, room)
        if workers > room:
            log.warning("the cluster has room for %d of %d workers; the others wait until it grows", room, workers)
        yield RayCrew(home, places.cpus, gpus, None if places.working_dir else str(Path.cwd())), workers
    finally:
        ray.shutdown()


def _connect(command: str, address: str, working_dir: Path | None) -> None:
    import ray

    try:
        _answers(address)
        ray.init(
            address=address,
            runtime_env={"working_dir": str(working_dir)} if working_dir else None,
            logging_level=logging.WARNING,
            log_to_driver=command == "tuner worker",  # what workers print; `run` has its panel there
            include_dashboard=False if address == "local" else None,
        )
    except (OSError, ImportError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        option = "--address" if command == "tuner worker" else ADDRESS
        message = f"no Ray cluster at {shown(address)}: {reason} Start one with: ray start --head"
        raise SpecError(command, [Problem(option, message)]) from error


def _answers(address: str) -> None:
    """Look whether anybody listens at `host:port`: Ray itself would wait for minutes, and say nothing.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"nobody listens there ({error}).") from error


def storage_problem(home: Home, machines: Sequence[str]) -> Problem | None:
    """Why workers on these machines, one entry a node, cannot reach the storage, if that can be told from here."""
    if not home.storage.startswith("sqlite") or list(machines) == [socket.gethostname()]:
        return None
    where = f"has {len(machines)} nodes" if len(machines) > 1 else f"is on {', '.join(machines)}"
    return Problem(
        "TUNER_STORAGE",
        f"is an SQLite file, which one machine alone can use, but the Ray cluster {where}. Set TUNER_STORAGE to a "
        "PostgreSQL database that all nodes reach, and run once: tuner init-db",
    )


def room_for(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    """For how many workers a node has room, if nothing else runs there."""
    by_cpus = int(resources.get("CPU", 0.0) / cpus + 1e-9)
    return min(by_cpus, int(resources.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpus
