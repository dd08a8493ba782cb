"""Everything that can go wrong, as one tree.

TunerError                    exit code 1 unless a subclass says otherwise
├── SpecError                 the study file is wrong; nothing has run               (exit 2)
├── StudyChanged              the file differs from the study stored under its name  (exit 2)
├── StudyNotFound             no such study, file or example                         (exit 2)
├── StudyInUse                somebody works on the study that is to be deleted      (exit 2)
├── TrialFailed               this trial only; the study goes on
│   ├── TrialDiverged         the objective is NaN or infinite
│   ├── TrialOutOfMemory      the device or the host ran out of memory
│   └── TrialImpossible       this configuration cannot be trained on these data; the search learns the worst from it
├── TrialEnded                a function's report: the trial is to end, pruned or with what it has
├── TrialInterrupted          somebody asked to stop; the trial goes back to the queue
├── LeaseLost                 another worker owns this trial now; its result is not ours to write
├── StudyStopped              nothing more will be tried
│   ├── MissingMetric         the objective's metric was never logged
│   └── DataError             a data file is wrong (found before anything runs, it is a SpecError)
├── WorkerUnfit               this worker can work on nothing: its device or disk is at fault
├── StudyRefused              this worker cannot work on this study; others may
├── NoBest                    no trial has succeeded, so there is no best
├── BestUnusable              a best's file is changed or not safe to read, or a model cannot do what was asked of it
├── TestSplitUsed             the test split has been used for another configuration of the study   (exit 2)
├── StorageUnavailable        the study's database does not answer
└── TrackingUnavailable       MLflow does not answer; training goes on, the data waits
    ├── TrackingRefused       MLflow does not take this, and never will; the rest goes on
    └── TrackingDoubtful      the same, unless it is MLflow's database that is in trouble: it says so in the same words
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known name closest to `name`, or "" when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a study file: where it is, and the rule it breaks with its value and the next step.

    A `warning` does not stop the study: it is allowed, and seldom what one wants.
    """

    path: str
    message: str
    warning: bool = False


class TunerError(Exception):
    """Base of every error that tuner raises on purpose; its text is meant for the user."""

    exit_code = 1


class SpecError(TunerError):
    """The study file is wrong, nothing has run. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(_listing(source, self.problems, len(self.problems)))


class StudyChanged(TunerError):
    """The study file differs from the study that is stored under its name."""

    exit_code = 2


class StudyNotFound(TunerError):
    """There is no study, file or shipped example of this name."""

    exit_code = 2


class StudyInUse(TunerError):
    """Somebody works on the study that is to be deleted; nothing was."""

    exit_code = 2


class TrialFailed(TunerError):
    """This trial cannot be finished; the study goes on without it."""


class TrialDiverged(TrialFailed):
    """The objective became NaN or infinite."""


class TrialOutOfMemory(TrialFailed):
    """The device or the host ran out of memory."""


class TrialImpossible(TrialFailed, ValueError):
    """This configuration cannot be trained on these data; the search learns the worst from it."""


class TrialEnded(TunerError):
    """Raised by a function's `report`: the trial is to end, because others were better or a budget is spent."""


class TrialInterrupted(TunerError):
    """Somebody asked to stop; the trial goes back to the queue."""

    exit_code = 130


class LeaseLost(TunerError):
    """Another worker owns this trial now; what this one has to say about it is not written."""


class StudyStopped(TunerError):
    """Nothing more will be tried in this study."""


class MissingMetric(StudyStopped):
    """The objective names a metric that the module does not log on validation."""

    def __init__(self, metric: str, logged: Iterable[str]) -> None:
        names = sorted(logged)
        listed = ", ".join(names) if names else "none at all"
        super().__init__(
            f"objective.metric must be a metric logged on validation or in training, but got {metric!r}; "
            f"logged: {listed}."
            f"{did_you_mean(metric, names) or ' Log it with self.log in validation_step, or name one of these.'}"
        )


class DataError(StudyStopped, ValueError):
    """A data file is wrong. Carries every problem found; its text tells the first ten.

    Given a text alone, it says just that: so torch rebuilds an error that a `DataLoader`'s worker has raised.
    """

    def __init__(self, source: str, problems: Sequence[Problem] | None = None) -> None:
        if problems is None:
            super().__init__(source)
            source, problems = "the data", [Problem("(the data)", source)]
        else:
            super().__init__(_listing(source, problems, 10))
        self.source, self.problems = source, tuple(problems)


class WorkerUnfit(TunerError):
    """This worker can work on nothing: its device or its disk is at fault."""


class StudyRefused(TunerError):
    """This worker cannot work on this study (a module or a file is missing there); others may."""


class NoBest(TunerError):
    """No trial of the study has succeeded."""


class BestUnusable(TunerError):
    """A file of a best is missing, changed or not safe to read, or its model cannot do what was asked of it."""


class TestSplitUsed(TunerError):
    """The test split has been used for another configuration of the study."""

    exit_code = 2
    __test__ = False  # pytest would take the name for a group of tests


class StorageUnavailable(TunerError):
    """The study's database does not answer."""


class TrackingUnavailable(TunerError):
    """MLflow does not answer."""


class TrackingRefused(TrackingUnavailable):
    """MLflow answers that it does not take this, and never will."""


class TrackingDoubtful(TrackingUnavailable):
    """MLflow answers as if it did not take this; but so it does for many a trouble of its database, which may pass."""


def _listing(source: str, problems: Sequence[Problem], told: int) -> str:
    """The first problems of a file, a line each, and how many more there are."""
    width = max((len(problem.path) for problem in problems[:told]), default=0)
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    lines = [f"  {problem.path:<{width}}  {problem.message}" for problem in problems[:told]]
    more = [f"  … and {len(problems) - told} more"] if len(problems) > told else []
    return "\n".join([f"{source} has {count}:", *lines, *more])
