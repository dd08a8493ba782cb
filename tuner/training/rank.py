"""One process of a trial on several devices: it trains as the others do, and asks the worker what to do."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import lightning as L
import torch

from tuner.errors import StudyStopped
from tuner.training.observer import Observer
from tuner.training.ranks import Ended, Stopped, Task
from tuner.training.single import SingleTraining
from tuner.trial import Report, TrialResult, Verdict


def run(pipe: Connection, number: int, task: Task) -> None:
    """Train the configuration on one device.

    Args:
        pipe: to the worker.
        number: of this device, from 0; the first speaks for all.
        task: what is to be trained.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's business
    threading.Thread(target=_end_with_worker, daemon=True).start()
    for stream in (1, 2):
        os.dup2(recv_handle(pipe), stream)
    os.environ.clear()
    os.environ.update(task.environment, LOCAL_RANK=str(number))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    torch.set_num_threads(task.threads)
    AgreeingObserver.averaged = {}

    def on_report(report: Report) -> Verdict:
        if number == 0:
            pipe.send(report)
        verdict: Verdict = pipe.recv()
        return verdict

    def keep_weights(result: TrialResult) -> Path | None:
        if number:
            return None
        pipe.send(result)
        path: Path | None = pipe.recv()
        return path

    try:
        training = RankTraining(task.config, task.objective, task.patience, mode="lightning")
        result = training.train(task.config, on_report, keep_weights)
        pipe.send(Ended(result, tuple(AgreeingObserver.averaged)))
    except StudyStopped as error:
        pipe.send(Stopped(str(error)))
    pipe.recv()  # nobody answers: the worker ends all ranks together, so that none sees another one leave


class AgreeingObserver(Observer):
    """An observer that takes for a metric what all ranks say of it, so that all come to the same verdict."""

    averaged: Mapping[str, None] = {}

    def logged(self, trainer: L.Trainer) -> dict[str, float]:
        """The metrics as they stand now, on all ranks."""
        return self.agreed(super().logged(trainer))

    def agreed(self, metrics: dict[str, float]) -> dict[str, float]:
        """What all ranks say of the metrics: the mean over them of those that differ."""
        if not torch.distributed.is_initialized():
            return metrics
        gathered: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, metrics)
        agreed, differing = agree(gathered)
        type(self).averaged = {**self.averaged, **dict.fromkeys(differing)}
        return agreed


def agree(said: list[Mapping[str, float]]) -> tuple[dict[str, float], list[str]]:
    """What several ranks agree on, and the names of the metrics of which the mean was taken.

    Args:
        said: the metrics of each rank.
    """
    agreed, differing = {}, []
    for name in dict.fromkeys(name for metrics in said for name in metrics):
        values = [metrics[name] for metrics in said if name in metrics]
        agreed[name] = values[0]
        if len({repr(value) for value in values}) > 1:
            agreed[name] = sum(values) / len(values)
            differing.append(name)
    return agreed, differing


class RankTraining(SingleTraining):
    """Trains one configuration on one device of several."""

    observer = AgreeingObserver

    def devices(self, config: Mapping[str, Any]) -> int:
        """One: the others have processes of their own."""
        return 1

    def trainer(self, config: Mapping[str, Any], callbacks: list[L.Callback]) -> L.Trainer:
        """A trainer that starts no processes: they are here."""
        trainer = super().trainer(config, callbacks)
        trainer.strategy._launcher = None
        return trainer

    def save(self, trainer: L.Trainer, path: Path) -> None:
        """Write a checkpoint without waiting for the other ranks, which do not write it."""
        trainer.strategy.save_checkpoint(trainer._checkpoint_connector.dump_checkpoint(True), path)


def _end_with_worker() -> None:
    worker = parent_process()
    if worker is not None:
        wait([worker.sentinel])
        os._exit(1)
