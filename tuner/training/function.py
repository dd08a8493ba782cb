"""A plain function that is tuned: found by its path, called with values and a `report`, its end made a result."""

from __future__ import annotations

import inspect
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from tuner.errors import Problem, StudyStopped, TrialDiverged, TrialEnded, TrialInterrupted
from tuner.training.blueprint import quiet_lightning
from tuner.training.check import import_named
from tuner.training.single import failure_of
from tuner.trial import VALUE, OnReport, Report, TrialResult, TrialState, Verdict

Function = Callable[..., Any]

_HERE: dict[str, Function] = {}
"""The functions that this program has handed over, also those that no other could import."""


def remember(function: Function) -> str:
    """Keep a function for this process; returns its path, by which others find it if they can import it."""
    named: Any = getattr(function, "func", function)  # a partial has none of its own
    named = named if hasattr(named, "__qualname__") else type(named)
    path = f"{named.__module__}.{named.__qualname__}"
    _HERE[path] = function
    return path


def find(path: str, at: str) -> tuple[Function | None, list[Problem]]:
    """The function at a path: of this program, or imported; a mistake is a problem with the next step."""
    if path in _HERE:
        return _HERE[path], []
    module, _, name = path.rpartition(".")
    here = getattr(sys.modules["__main__"], name, None) if module == "__main__" else None
    if here is None and ("<" in path or module == "__main__"):
        rule = (
            f"must be a function at the top of a module for others to import it, but is {path}. Call tuner.run again "
            "in the program that has it (without workers, if it is made inside another function), or move it."
        )
        return None, [Problem(at, rule)]
    found, problems = (here, []) if here is not None else import_named(path, at)
    if problems:
        return None, problems
    if not callable(found) or (isinstance(found, type) and issubclass(found, L.LightningModule)):
        rule = f"must be a function with search.training: function, but {path} is {type(found).__name__}. "
        return None, [Problem(at, rule + "A LightningModule wants another training, such as auto.")]
    return found, _signature_problems(found, path, at)


def _signature_problems(function: Function, path: str, at: str) -> list[Problem]:
    if _takes(function) is None:
        rule = f"must take (params, report) or (params), but it is {path}{inspect.signature(function)}."
        return [Problem(at, rule)]
    return []


def _takes(function: Function) -> int | None:
    """How many of (params, report) a function takes; None if it is called otherwise."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in, and not told
        return 2
    for count in (2, 1):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count
    return None


def inspect_function(document: Mapping[str, Any]) -> list[Problem]:
    """Check a study of a function: is it there, and does it take what it will be given?"""
    problems = [
        Problem(part, "belongs to a LightningModule; a function has its data itself. Leave it out.")
        for part in ("data",)
        if part in document
    ]
    trainer = document.get("trainer") or {}
    problems += [
        Problem(f"trainer.{key}", "has no meaning for a function; of the trainer, only max_epochs has.")
        for key in (trainer if isinstance(trainer, Mapping) else ())
        if key != "max_epochs"
    ]
    described = document.get("model")
    if isinstance(described, Mapping) and isinstance(described.get("class_path"), str):
        problems += find(described["class_path"], "model.class_path")[1]
    return problems


class Reporter:
    """What a tuned function is given as `report`.

    Attributes:
        trial: the number of the trial.
        seed: its seed; Python, NumPy and torch are seeded with it already.
    """

    def __init__(self, trial: int, seed: int, on_report: OnReport, interrupted: Callable[[], bool]) -> None:
        self.trial, self.seed = trial, seed
        self.said: list[Report] = []
        self.verdict = Verdict.GO_ON
        self.seconds = 0.0
        self.reporting = False
        self.unreported: Exception | None = None
        self._on_report, self._interrupted = on_report, interrupted
        self._began = time.perf_counter()

    def __call__(self, value: float, epoch: float | None = None, **metrics: float) -> None:
        """Say how the trial stands, so that a hopeless one ends early.

        Args:
            value: the objective as it is now.
            epoch: how much has been trained, counted from 1; by default one more than last time.
            metrics: others, to be seen in MLflow.

        Raises:
            TrialEnded: the trial is to end; let it pass.
            TrialInterrupted: somebody asked to stop; let it pass.
        """
        self._raise_if_over()
        if self._interrupted():
            raise TrialInterrupted("asked to stop")
        last = self.said[-1].epoch if self.said else 0
        epoch = last + 1 if epoch is None else epoch
        if not isinstance(epoch, int) or epoch <= last:
            raise ValueError(f"report's epoch must be a whole number above the last one, {last}, but got {epoch!r}.")
        value = number(value, "report's value")
        if not math.isfinite(value):
            raise TrialDiverged(f"diverged: it reported {value} at epoch {epoch}")
        told = {VALUE: value, **{name: number(metric, f"report's {name}") for name, metric in metrics.items()}}
        self.say(Report(epoch, told, value, time.perf_counter() - self._began))
        self._raise_if_over()

    def say(self, report: Report) -> Verdict:
        """Write a report; the answer is kept, too."""
        began, self.reporting = time.perf_counter(), True
        try:
            self.verdict = self._on_report(report)
        except Exception as error:
            self.unreported = error  # not the trial's fault, whatever the function does with it
            raise
        finally:
            self.reporting = False
            self.seconds += time.perf_counter() - began
        self.said.append(report)
        return self.verdict

    def _raise_if_over(self) -> None:
        if self.unreported is not None:
            raise self.unreported
        if self.verdict in (Verdict.STOP, Verdict.GIVE_BACK):
            raise TrialInterrupted("asked to stop")
        if self.verdict in (Verdict.PRUNE, Verdict.HALT):
            raise TrialEnded("the trial is to end here; let this pass through your function")


def call(
    config: Mapping[str, Any],
    number_of_trial: int,
    better: Callable[[float, float], bool],
    on_report: OnReport,
    interrupted: Callable[[], bool],
) -> TrialResult:
    """Call a study's function with the values of one trial.

    Args:
        config: `model` names the function and its values, `seed_everything` seeds it.
        number_of_trial: for the function to know.
        better: whether the first value beats the second.
        on_report: told of every report; answers whether to go on.
        interrupted: whether somebody asked to stop.

    Returns:
        The result: complete with what it returned; pruned, where others were better or the value is not finite; failed
        with the reason, where it raised.

    Raises:
        TrialInterrupted: somebody asked to stop.
        StudyStopped: there is no such function in this process.
    """
    quiet_lightning()
    function, problems = find(config["model"]["class_path"], "model.class_path")
    if function is None:
        raise StudyStopped("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
    seed = config["seed_everything"]
    L.seed_everything(seed, workers=True)
    report = Reporter(number_of_trial, seed, on_report, interrupted)
    given = (dict(config["model"].get("init_args", {})), report)[: _takes(function)]
    started = time.perf_counter()
    outcome: dict[str, Any]
    try:
        with _interruptible(report):
            returned = function(*given)
        outcome = _finished(report, returned, better)
    except (TrialInterrupted, StudyStopped):
        raise
    except Exception as error:  # the user's code ran there and may have raised anything
        if report.unreported is not None:
            raise report.unreported from error
        outcome = _ended(report, better) if isinstance(error, TrialEnded) else _raised(report, error, better)
    train = time.perf_counter() - started - report.seconds
    return TrialResult(
        **outcome,
        epochs=report.said[-1].epoch if report.said else 0,
        config={key: value for key, value in config.items() if key != "trainer"},
        trained="function",
        seconds={"train": train, "report": report.seconds},
    )


def _finished(report: Reporter, returned: Any, better: Callable[[float, float], bool]) -> dict[str, Any]:
    """How a trial ended whose function returned; what it returned is its last report."""
    if report.unreported is not None:
        raise report.unreported
    if report.verdict in (Verdict.STOP, Verdict.GIVE_BACK):
        raise TrialInterrupted("asked to stop")
    if report.verdict in (Verdict.PRUNE, Verdict.HALT):  # it has caught what it was told
        return _ended(report, better)
    value = number(returned, "what the function returns")
    if not math.isfinite(value):
        raise TrialDiverged(f"diverged: it returned {value}")
    last = report.said[-1] if report.said else Report(0, {}, math.nan)
    if value != last.value:
        last = Report(last.epoch + 1, {**last.metrics, VALUE: value}, value)
        if report.say(last) is Verdict.GIVE_BACK:
            raise TrialInterrupted("asked to stop")
    return {"state": TrialState.COMPLETE, "value": value, "metrics": last.metrics, "best_epoch": last.epoch}


def _ended(report: Reporter, better: Callable[[float, float], bool]) -> dict[str, Any]:
    """How a trial ended that was told to: with the best that it reported."""
    best, last = report.said[0], report.said[-1]
    for said in report.said:
        best = said if better(said.value, best.value) else best
    pruned = report.verdict is not Verdict.HALT
    return {
        "state": TrialState.PRUNED if pruned else TrialState.COMPLETE,
        "value": best.value,
        "metrics": best.metrics,
        "best_epoch": best.epoch,
        "reason": f"pruned at epoch {last.epoch}: other trials were better there"
        if pruned
        else f"a time or epoch budget was spent at epoch {last.epoch}",
    }


def _raised(report: Reporter, error: Exception, better: Callable[[float, float], bool]) -> dict[str, Any]:
    """How a trial ended whose function raised; `optuna.TrialPruned` means there what it means here."""
    names = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(error).__mro__}
    if "optuna.TrialPruned" in names and report.said:
        return {**_ended(report, better), "reason": f"the function pruned itself: {error}"}
    return failure_of(error)


def number(value: Any, what: str) -> float:
    """A number, also one of NumPy or torch.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, str | bytes | bool) or value is None:
        raise TypeError(f"{what} must be a number, but got {value!r}.")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be a number, but got {type(value).__name__}.") from error


@contextmanager
def _interruptible(report: Reporter) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the function, too, which may report seldom or never; not while a report is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        before[signum](signum, frame)
        if not report.reporting:
            raise TrialInterrupted("asked to stop")

    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    for each in (int(signal.SIGINT), int(signal.SIGTERM)):
        if callable(earlier := signal.getsignal(each)):
            before[each] = earlier
    for each in before:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, handled in before.items():
            signal.signal(each, handled)
