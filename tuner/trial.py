"""The nouns that every room speaks in: a trial, what it reports, how it ends, and what is best."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, Literal

Direction = Literal["minimize", "maximize"]

VALUE = "value"
"""The metric of a function that is tuned: what it returns."""


class TrialState(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to the trial."""
        return self in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED)


class Verdict(Enum):
    """The answer to a report."""

    GO_ON = "go on"
    PRUNE = "prune"
    """Other trials were better at this epoch."""
    HALT = "halt"
    """A budget is spent: end the trial at this epoch with what it has."""
    STOP = "stop"
    """The study is being stopped: end this epoch, write down where the trial is, and drop it."""
    GIVE_BACK = "give back"
    """Another worker has the trial now: drop it at once."""


class Fault(StrEnum):
    """What of a worker a failed trial may be due to."""

    DEVICE = "device"
    DISK = "disk"
    IMPORT = "import"
    """A package or module that is not installed there."""
    FILES = "files"
    """A file that is not there, or may not be read."""

    @property
    def everywhere(self) -> bool:
        """Whether a worker with this fault can work on no study at all."""
        return self in (Fault.DEVICE, Fault.DISK)


@dataclass(frozen=True)
class Objective:
    """What a study optimises: a metric that the module logs on validation, and which way is better."""

    metric: str
    direction: Direction = "minimize"

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is strictly better than `than`."""
        return value < than if self.direction == "minimize" else value > than

    def key(self, value: float) -> float:
        """A sort key: the smallest is the best."""
        return value if self.direction == "minimize" else -value

    @property
    def worst(self) -> float:
        """The value that any other one beats."""
        return math.inf if self.direction == "minimize" else -math.inf


@dataclass(frozen=True)
class Report:
    """What a trial says after an epoch's validation.

    Attributes:
        epoch: how many epochs have been trained, so 1 for the first report.
        metrics: every metric that the module logged, by name.
        value: the objective's metric.
        seconds: wall-clock seconds since the trial's training began.
    """

    epoch: int
    metrics: Mapping[str, float]
    value: float
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED or FAILED.
        value: the objective at the best epoch; finite when the trial is COMPLETE, None when it never had a finite one.
        metrics: every metric at the best epoch.
        best_epoch: the epoch of `value`, counted from 1; its weights are the ones kept.
        epochs: epochs trained.
        reason: why the trial ended other than by finishing its epochs, in words.
        infeasible: the configuration itself is bad (diverged, out of memory): the search learns the worst from it.
        config: the complete configuration, as LightningCLI reads it.
        seconds: wall-clock seconds by phase (`ask`, `build`, `train`, `report`).
        detail: the traceback of a FAILED trial.
        trained: how: `lean`, `lightning`, `cohort of 8`, with the reason after a colon where it was not asked for.
        fault: what of the worker a FAILED trial may be due to; not stored.
    """

    state: TrialState
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int = 0
    reason: str | None = None
    infeasible: bool = False
    config: Mapping[str, Any] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    detail: str | None = None
    trained: str | None = None
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if not self.state.finished:
            raise ValueError(f"a result's state must be complete, pruned or failed, but got {self.state.value!r}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a result's value must be finite or None, but got {self.value}")
        if self.state is TrialState.COMPLETE and self.value is None:
            raise ValueError("a complete trial must have a value")


@dataclass(frozen=True)
class Trial:
    """One configuration of a study and what became of it.

    Attributes:
        number: counted from 0 within the study.
        params: the searched values by config path; None until the search has proposed them.
        seed: what `seed_everything` is called with.
        confirms: the number of the trial that this one repeats with a new seed, or None for a proposal of the search.
        attempt: how many workers have started it.
        values: the objective by epoch, as reported so far.
        revision: grows with every change, so that a reader can tell what it has not seen.
        token: the fencing token of whoever owns the trial now.
        began_after: the epoch after which the attempt at hand began, 0 where it began anew; None while the trial waits
            for another attempt, or its new owner has not said yet.
    """

    number: int
    params: Mapping[str, Any] | None
    seed: int
    state: TrialState = TrialState.WAITING
    confirms: int | None = None
    attempt: int = 0
    values: Mapping[int, float] = field(default_factory=dict)
    result: TrialResult | None = None
    revision: int = 0
    token: int = 0
    started: float | None = None
    finished: float | None = None
    wasted_seconds: float = 0.0
    began_after: int | None = 0

    def with_params(self, params: Mapping[str, Any]) -> Trial:
        """The same trial, now that the search has proposed its values."""
        return replace(self, params=dict(params))

    @property
    def outcome(self) -> TrialResult:
        """The result of a finished trial.

        Raises:
            ValueError: the trial is not finished.
        """
        if self.result is None:
            raise ValueError(f"trial {self.number} is {self.state.value}, so it has no result yet")
        return self.result

    @property
    def score(self) -> float:
        """The objective of a trial that had a finite one.

        Raises:
            ValueError: it had none.
        """
        if self.outcome.value is None:
            raise ValueError(f"trial {self.number} had no finite objective: {self.outcome.reason}")
        return self.outcome.value

    @property
    def value(self) -> float | None:
        """The objective, once the trial is finished and had a finite one."""
        return self.result.value if self.result else None

    @property
    def train_seconds(self) -> float:
        """Wall-clock seconds spent on the finished attempt."""
        return sum(self.result.seconds.values()) if self.result else 0.0


OnReport = Callable[[Report], Verdict]
"""Called after each epoch's validation; the answer says whether to go on."""


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial, in [0, 2**32), from the study's seed and the trial's number."""
    digest = hashlib.sha256(f"{study_seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
