"""Run a study on this machine: workers in processes of their own, or in this one."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from tuner.engine.crew import STUDY_FAILED, Crew
from tuner.engine.devices import cores_here, threads_each
from tuner.engine.submission import entered
from tuner.engine.workers import WorkerProcess, Workers
from tuner.errors import StudyStopped, TunerError
from tuner.home import Home, silence_telemetry
from tuner.service.courier import Courier
from tuner.service.couriers import Couriers
from tuner.service.identity import gone
from tuner.service.result import StudyResult, result_of
from tuner.spec import StudySpec
from tuner.storage import FAILED, STOPPED, Store, StudyRow

log = logging.getLogger("tuner")

STOP_SECONDS = 10.0
LOOK_SECONDS = 0.5
OTHERS_SECONDS = 5.0
"""How long MLflow gets, at the end of a run, for what it lacks of other studies."""
MAX_RESTARTS = 3

Watch = Callable[[Store, str], object]
"""Called about twice a second while a study runs, with the storage and the study's name."""


def run(
    study: str | Path | Mapping[str, Any],
    *,
    resume: bool = False,
    overrides: Sequence[tuple[str, Any]] = (),
    workers: int = 0,
    home: Home | None = None,
    watch: Watch = lambda *_: None,
) -> StudyResult:
    """Create or continue a study and work on it until its budget is spent.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        resume: `study` is the name of a stored study to go on with.
        overrides: values that replace what the study says, by path.
        workers: processes that train; 0 trains in this process, where a debugger can follow.
        home: where things live; by default as the environment says.
        watch: called now and then while the study runs.

    Returns:
        How the study stands at the end.

    Raises:
        SpecError, StudyChanged, StudyNotFound: nothing has run.
        StudyStopped: the study cannot go on.
        KeyboardInterrupt: interrupted; the state is saved, running trials are back in the queue.
    """
    silence_telemetry()
    if workers and multiprocessing.parent_process() is not None:
        raise TunerError(
            "a worker process was about to run the whole study again, because starting it runs the script that "
            'called tuner.run. Put that call under `if __name__ == "__main__":`, or use workers=0.'
        )
    home = home or Home.from_environment()
    crew = Crew(home) if workers else None
    inspect = crew.inspect if crew else inspect_here
    with entered(study, overrides, inspect, home, resume=resume) as (spec, store):
        if crew is None:
            return run_here(spec, store, home)
        return run_crew(spec, store, home, crew, workers, watch)


def inspect_here(document: Mapping[str, Any], space: Any) -> Any:
    """Run training's `inspect` in this process."""
    from tuner.training import inspect

    return inspect(document, space)


def run_here(spec: StudySpec, store: Store, home: Home) -> StudyResult:
    """Train in this process; the courier is a thread of it."""
    from tuner.service.worker import work_on

    stop = threading.Event()
    row = store.study(spec.study)
    courier, others = _couriers(spec.study, home)
    try:
        with on_interrupt(lambda *_: stop.set()):
            work_on(spec.study, home, stop)
        if stop.is_set():
            _stopped(store, row)
            raise KeyboardInterrupt
    finally:
        _finish(courier, others, store, row)
    return result_of(store, spec.study, home)


def run_crew(spec: StudySpec, store: Store, home: Home, crew: Workers, workers: int, watch: Watch) -> StudyResult:
    """Train in worker processes; this one watches them and brings their results to MLflow."""
    row = store.study(spec.study)
    store.reclaim(row.id, gone)
    threads = threads_each(workers, cores_here())
    running: dict[int, WorkerProcess] = {}
    courier, others = _couriers(spec.study, home, ahead=cores_here() > workers)
    try:
        with on_interrupt(_raise_interrupt):
            for index in range(workers):
                running[index] = crew.start(spec.study, index, threads)
            _watch(spec.study, store, crew, running, threads, watch)
    except KeyboardInterrupt:
        if courier.in_charge:  # another terminal may be running the same study, and goes on
            _stopped(store, row)
        raise
    except StudyStopped as error:
        store.set_state(row.id, FAILED, str(error))
        raise
    finally:
        with on_interrupt(lambda *_: _kill(running)):  # a second Ctrl-C waits for nobody, but still cleans up
            _stop(running)
            store.reclaim(row.id, gone)
            _finish(courier, others, store, row)
            watch(store, spec.study)
    return result_of(store, spec.study, home)


def _stopped(store: Store, row: StudyRow) -> None:
    """Call a study stopped, unless it is in the queue, too: then it is no longer run here, and workers go on."""
    if store.study(row.name).submitted is None:
        store.set_state(row.id, STOPPED)


def _couriers(study: str, home: Home, *, ahead: bool = False) -> tuple[Courier, Couriers]:
    """The courier of a study, at work; and those of studies that ended while MLflow was away, which it sets to work."""
    others = Couriers(home)
    courier = Courier(study, home, ahead=ahead, beside=lambda store: others.catch_up(store, [study]))
    return courier.start(), others


def _finish(courier: Courier, others: Couriers, store: Store, row: StudyRow) -> None:
    """End the couriers, and say what the study's own could not bring."""
    courier.finish()
    others.finish(OTHERS_SECONDS)
    later = "the next `tuner run`, `tuner resume` or `tuner worker` sends"
    if waiting := store.count_untracked(row.id):
        reason = courier.problem or "another process brings them"
        log.warning(f"{waiting} trials are not in MLflow yet ({reason}); {later} them.")
    elif courier.problem:
        log.warning(f"how the study ended is not in MLflow yet ({courier.problem}); {later} it.")


def _watch(
    study: str, store: Store, crew: Workers, running: dict[int, WorkerProcess], threads: int, watch: Watch
) -> None:
    """Watch until every worker has ended by itself; start those again that died."""
    row = store.study(study)
    deaths: dict[int, int] = {}
    finished = 0
    while running:
        crew.wait(list(running.values()), LOOK_SECONDS)
        watch(store, study)
        for index, worker in list(running.items()):
            if worker.is_alive():
                continue
            worker.join()
            code = worker.exitcode
            worker.close()
            del running[index]
            if code == STUDY_FAILED:
                raise StudyStopped(store.study(study).reason or crew.last_words(study, index))
            if code:
                store.reclaim(row.id, gone)
                done = sum(trial.state.finished for trial in store.trials(row.id))
                if done > finished:
                    deaths.clear()
                finished, deaths[index] = done, deaths.get(index, 0) + 1
                if deaths[index] > MAX_RESTARTS:
                    raise StudyStopped(f"workers keep dying (exit code {code}): {crew.last_words(study, index)}")
                running[index] = crew.start(study, index, threads)


def _stop(running: Mapping[int, WorkerProcess]) -> None:
    """Ask the workers to stop at the next batch; end those that do not listen."""
    for worker in running.values():
        worker.terminate()
    until = time.monotonic() + STOP_SECONDS
    for worker in running.values():
        worker.join(max(0.0, until - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def _kill(running: Mapping[int, WorkerProcess]) -> None:
    for worker in running.values():
        worker.kill()


def _raise_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def on_interrupt(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM with `handler` inside; outside the main thread leave them alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
