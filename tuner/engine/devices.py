"""How a machine is shared out among the workers of a service: a GPU for each, or a part of the cores."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from tuner.errors import Problem, SpecError

CORES_EACH = 4
"""Cores of a machine without GPUs for which one worker is started."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What one worker gets.

    Attributes:
        device: `cpu`, or `cuda:2`.
        threads: torch threads.
        visible: what CUDA_VISIBLE_DEVICES is for it; it sees no other GPU.
    """

    device: str
    threads: int
    visible: str


def shares(asked: str, gpus: int, cores: int, visible: str | None = None) -> list[Share]:
    """Share a machine out.

    Args:
        asked: `auto` is a worker for each GPU, or `cpu` where there is none; `cpu` a worker for every four cores;
            `cpu:3` three workers; `0,2` a worker on each of these GPUs.
        gpus: how many GPUs there are.
        cores: how many cores there are.
        visible: CUDA_VISIBLE_DEVICES as it is now; `0` is the first of these.

    Raises:
        SpecError: `asked` says something else, or names a GPU that is not there.
    """
    if asked == "auto":
        asked = ",".join(map(str, range(gpus))) if gpus else "cpu"
    if match := re.fullmatch(r"cpu(?::([1-9]\d*))?", asked):
        workers = int(match[1]) if match[1] else max(1, cores // CORES_EACH)
        return [Share("cpu", threads_each(workers, cores), "")] * workers
    if not re.fullmatch(r"\d+(,\d+)*", asked):
        raise _wrong(f"must be auto, cpu, cpu:N or the numbers of GPUs such as 0,1, but got {asked!r}.")
    numbers = list(dict.fromkeys(int(number) for number in asked.split(",")))
    if absent := [number for number in numbers if number >= gpus]:
        there = f"there are {gpus}, counted from 0" if gpus else "torch finds none on this machine"
        raise _wrong(f"names GPU {absent[0]}, but {there}. `tuner doctor` lists them.")
    names = [name.strip() for name in visible.split(",")] if visible else [str(number) for number in range(gpus)]
    threads = threads_each(len(numbers), cores)
    return [Share(f"cuda:{number}", threads, names[number]) for number in numbers]


def threads_each(workers: int, cores: int) -> int:
    """Torch threads of each worker: the cores shared out, one left to the process that tracks and shows."""
    return max(1, round((cores - 1) / workers))


def cores_here() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _wrong(message: str) -> SpecError:
    return SpecError("tuner worker", [Problem("--devices", message)])
