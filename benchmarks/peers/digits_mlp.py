"""What every peer trains: an MLP on scikit-learn's digits, in plain torch, and the file in which its events are noted.

The same network, descent, data and division as `tuner.models.MLP` and `tuner.data.Digits` have, of which nothing is
imported here (`time_to_target.py --check` compares them). What is searched, which samples are whose, and what is to be
reached is in the folder that the harness names, in `task.json`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

WORST = 1e3
"""The loss of a trial that has diverged, for searches that want a number."""


class Done(SystemExit):
    """The target is reached: the process may end. When the time is over, the harness ends it."""

    def __init__(self) -> None:
        super().__init__(0)


@dataclass
class Task:
    """What the harness asks for.

    Attributes:
        seed: of the search; trials derive theirs from it.
        epochs: of a whole trial.
        space: by name: `kind` (float, int or choice), `low`, `high`, `scale` or `values`, and `default`.
        parts: indices of the samples to train on, to validate and to test with.
        loss: the validation loss that is to be reached, or less.
        accuracy: the validation accuracy that is to be reached at the same epoch of the same trial, or more.
        events: where to note what happens, a line of JSON each.
        folder: for whatever a side wants to write.
    """

    seed: int
    epochs: int
    space: dict[str, dict[str, Any]]
    parts: list[list[int]]
    loss: float
    accuracy: float
    events: Path
    folder: Path
    stepped: bool = field(default=False, init=False)

    @classmethod
    def of(cls, folder: str | Path) -> Task:
        """The task of a folder."""
        folder = Path(folder)
        torch.set_num_threads(1)
        return cls(**json.loads((folder / "task.json").read_text()), events=folder / "events.jsonl", folder=folder)

    @classmethod
    def asked(cls) -> Task:
        """The task of the folder that the command line names."""
        return cls.of(sys.argv[1])

    @cached_property
    def data(self) -> list[tuple[Tensor, Tensor]]:
        """Inputs (N, 64) and labels (N,) of the three parts, standardised by the first."""
        bunch = load_digits()
        images = torch.tensor(bunch.images, dtype=torch.float32)
        labels = torch.tensor(bunch.target, dtype=torch.int64)
        kept = [torch.tensor(part) for part in self.parts]
        mean, deviation = images[kept[0]].mean(), images[kept[0]].std(correction=0)
        return [(((images[part] - mean) / deviation).reshape(-1, 64), labels[part]) for part in kept]

    def note(self, kind: str, **what: Any) -> None:
        """Append an event."""
        with self.events.open("a") as file:
            file.write(json.dumps({"kind": kind, "at": time.time()} | what) + "\n")

    def step(self) -> None:
        """The next training step is the first one, unless there has been another."""
        if not self.stepped:
            self.stepped = True
            self.note("step")

    def report(self, trial: int | str, epoch: int, loss: float, accuracy: float, network: nn.Module) -> bool:
        """Note what a trial has after an epoch, counted from 1; True when the target is reached."""
        self.note("epoch", trial=trial, epoch=epoch, val_loss=loss, val_acc=accuracy)
        reached = loss <= self.loss and accuracy >= self.accuracy
        if reached:
            self.note("test", trial=trial, epoch=epoch, test_acc=evaluate(network, self.data[2])[1])
        return reached

    def train(self, trial: int, config: Mapping[str, Any], going: Going | None = None) -> Iterator[tuple[int, float]]:
        """Train a configuration epoch by epoch in a bare loop: yields each one's number and its validation loss.

        Args:
            trial: its number, which gives its seed.
            config: by name.
            going: what to go on with; by default a network that is not trained yet.

        Raises:
            Done: it has reached the target.
        """
        self.data  # noqa: B018 - read before the first step
        going = going or Going.begin(config, self.seed_of(trial))
        inputs, labels = self.data[0]
        self.step()
        while going.epoch < self.epochs:
            going.network.train()
            for batch in torch.randperm(len(labels)).split(config["batch_size"]):
                loss = F.cross_entropy(going.network(inputs[batch]), labels[batch])
                going.optimizer.zero_grad()
                loss.backward()
                going.optimizer.step()
            going.schedule.step()
            going.epoch += 1
            value, accuracy = evaluate(going.network, self.data[1])
            if self.report(trial, going.epoch, value, accuracy, going.network):
                raise Done
            yield going.epoch, value

    def seed_of(self, trial: int) -> int:
        """A trial's seed."""
        return 1000 * self.seed + trial


@dataclass
class Going:
    """A training that may go on."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    epoch: int = 0

    @classmethod
    def begin(cls, config: Mapping[str, Any], seed: int) -> Going:
        """Build a configuration's network, its descent and its decay."""
        torch.manual_seed(seed)
        network = build(config["hidden_units"], config["depth"], config["dropout"])
        optimizer = descent(network, config["learning_rate"], config["momentum"], config["weight_decay"])
        return cls(network, optimizer, decay(optimizer, config["lr_decay"]))

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        parts = (self.network.state_dict(), self.optimizer.state_dict(), self.schedule.state_dict(), self.epoch)
        torch.save(parts, path)

    def load(self, path: Path) -> Going:
        """Go on where another of the same configuration was."""
        network, optimizer, schedule, self.epoch = torch.load(path)
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)
        self.schedule.load_state_dict(schedule)
        return self


def build(units: int, depth: int, dropout: float) -> nn.Sequential:
    """A perceptron from (B, 64) to logits (B, 10): affine map, ReLU and dropout `depth` times, and an affine map."""
    layers: list[nn.Module] = []
    width = 64
    for _ in range(depth):
        layers += [nn.Linear(width, units), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    last = nn.Linear(width, 10)
    nn.init.xavier_uniform_(last.weight)
    network = nn.Sequential(*layers, last)
    for affine in network:
        if isinstance(affine, nn.Linear):
            nn.init.zeros_(affine.bias)
    return network


def descent(network: nn.Module, rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD with momentum as a filter v ← β v + (1-β) g from v = 0; biases do not decay."""
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, rate, momentum=momentum, dampening=momentum)
    for parameter in network.parameters() if momentum > 0 else ():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def decay(optimizer: torch.optim.Optimizer, gamma: float) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate falls by γ an epoch."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: gamma**epoch)


@torch.no_grad()
def evaluate(network: nn.Module, part: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    network.eval()
    inputs, labels = part
    logits = network(inputs)
    loss = float(F.cross_entropy(logits, labels))
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    return loss if math.isfinite(loss) else WORST, accuracy
