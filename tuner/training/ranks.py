"""A trial on several devices: a process for each of them, and none of them is the worker.

Lightning would start the program again for every device but the first, and that program is `tuner` itself. Instead the
worker forks a process for each device, which all train the same configuration; it answers their reports, and when one
dies or somebody asks to stop, it ends the others. The worker itself never joins a process group that could hang.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tuner.errors import StudyStopped, TrialInterrupted
from tuner.trial import Objective, OnReport, Report, TrialResult, TrialState, Verdict

log = logging.getLogger("tuner")

LOOK_SECONDS = 0.2
"""How often the worker looks whether somebody has asked it to stop."""


@dataclass(frozen=True)
class Task:
    """What every rank of a trial is told.

    Attributes:
        count: how many ranks there are.
        threads: torch threads of each.
        environment: of the worker, with where the ranks meet.
    """

    config: Mapping[str, Any]
    objective: Objective
    patience: int | None
    count: int
    threads: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Stopped:
    """A rank says that the study itself is wrong."""

    reason: str


@dataclass(frozen=True)
class Ended:
    """A rank says how the trial ended, and which metrics differed from rank to rank."""

    result: TrialResult
    averaged: Sequence[str] = ()


@dataclass(frozen=True)
class Rank:
    """One of the processes."""

    number: int
    process: ForkServerProcess
    pipe: Connection


def task_of(config: Mapping[str, Any], objective: Objective, patience: int | None, count: int) -> Task:
    """What the ranks of a trial are told; they share this worker's threads, and meet at a free port."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    threads = max(1, torch.get_num_threads() // count)
    return Task(config, objective, patience, count, threads, {**os.environ, **meeting})


def train_on_ranks(
    task: Task,
    on_report: OnReport,
    keep_weights: Callable[[TrialResult], Path | None],
    interrupted: Callable[[], bool],
) -> TrialResult:
    """Train a configuration in a process for each device.

    Args:
        task: what they are told.
        on_report: told of every epoch, by the metrics that the ranks agree on.
        keep_weights: asked when the trial is complete.
        interrupted: asked several times a second; True drops the trial at once.

    Raises:
        TrialInterrupted: somebody asked to stop.
        StudyStopped: the study itself is wrong.
    """
    started = time.perf_counter()
    with _started(task) as ranks:
        ended = _minded(ranks, on_report, keep_weights, interrupted)
    took = time.perf_counter() - started
    result = ended.result
    if result.config is None:
        result = replace(result, config=dict(task.config))
    spent = {"train": 0.0, "report": 0.0, **result.seconds}
    return replace(
        result,
        trained=f"{_told(task.count, ended.averaged)}{(result.trained or '').removeprefix('lightning')}",
        seconds={**spent, "build": max(0.0, took - spent["train"] - spent["report"])},
    )


def _told(count: int, averaged: Sequence[str]) -> str:
    told = f"lightning: in {count} processes, one for each device"
    if not averaged:
        return told
    names = ", ".join(averaged)
    return f"{told}; the mean over them is taken of {names}: log it with sync_dist=True"


def _minded(
    ranks: Sequence[Rank],
    on_report: OnReport,
    keep_weights: Callable[[TrialResult], Path | None],
    interrupted: Callable[[], bool],
) -> Ended:
    """Answer what the ranks say, until the first has ended well, or one of them has not."""
    while True:
        for rank, said in _heard(ranks, interrupted):
            match said:
                case Stopped():
                    raise StudyStopped(said.reason)
                case Report():
                    verdict = on_report(said)
                    if verdict in (Verdict.STOP, Verdict.GIVE_BACK):
                        raise TrialInterrupted("asked to stop")
                    _tell(ranks, verdict)
                case TrialResult():
                    _tell([rank], keep_weights(said))
                case Ended() if rank.number == 0 or said.result.state is TrialState.FAILED or said.result.infeasible:
                    return said


def _heard(ranks: Sequence[Rank], interrupted: Callable[[], bool]) -> Iterator[tuple[Rank, Any]]:
    """What the ranks have to say next; one that has died says so by that."""
    pipes: list[Any] = [rank.pipe for rank in ranks]
    ready = wait([*pipes, *(rank.process.sentinel for rank in ranks)], LOOK_SECONDS)
    if interrupted():
        raise TrialInterrupted("asked to stop")
    for rank in ranks:
        if rank.pipe in ready:
            try:
                said = rank.pipe.recv()
            except (EOFError, ConnectionResetError):
                rank.process.join()
                said = _death(rank)
            yield rank, said
        elif rank.process.sentinel in ready and not rank.pipe.poll():
            rank.process.join()
            if rank.process.exitcode:
                yield rank, _death(rank)


def _death(rank: Rank) -> Ended:
    code = rank.process.exitcode or 0
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    hint = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
    reason = f"the process of device {rank.number} died, {how}{hint}"
    return Ended(TrialResult(TrialState.FAILED, reason=reason))


def _tell(ranks: Sequence[Rank], answer: Any) -> None:
    for rank in ranks:
        with suppress(BrokenPipeError, ConnectionResetError):  # one that has just died is found when it is heard
            rank.pipe.send(answer)


@contextmanager
def _started(task: Task) -> Iterator[list[Rank]]:
    """The processes of a trial; none of them is left afterwards."""
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tuner.training.rank"])  # of no effect where a worker's server runs already
    ranks: list[Rank] = []
    with ExitStack() as ending:
        for number in range(task.count):
            here, there = context.Pipe()
            ending.callback(here.close)
            process = context.Process(target=_run, args=(there, number, task), name=f"tuner-rank-{number}")
            with _without_main(task):
                process.start()
            ending.callback(_end, process)
            ranks.append(Rank(number, process, here))
            there.close()
            for stream in (1, 2):
                send_handle(here, stream, process.pid)
        yield ranks


def _end(process: ForkServerProcess) -> None:
    process.kill()
    process.join()
    process.close()


def _run(pipe: Connection, number: int, task: Task) -> None:
    from tuner.training.rank import run

    run(pipe, number, task)


@contextmanager
def _without_main(task: Task) -> Iterator[None]:
    """Start a process that does not run the caller's script again, unless it needs the classes there."""
    if "__main__." in repr(task.config):
        yield
        return
    script, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script
