"""Trials that call a plain function, one after the other, as a study's loop has them trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from tuner.cohort import Job, Judge, More
from tuner.errors import TrialInterrupted
from tuner.training.function import call
from tuner.trial import Objective, Report, TrialResult, Verdict


class FunctionTraining:
    """Calls a study's function with the values of each trial. What it made is its own: no weights, no checkpoints.

    Args:
        objective: which way is better.
        interrupted: whether somebody asked to stop.
    """

    size = 1
    shape: Collection[str] = frozenset()

    def __init__(self, objective: Objective, interrupted: Callable[[], bool]) -> None:
        self._objective, self._interrupted = objective, interrupted

    def train(self, jobs: Sequence[Job], judge: Judge, more: More) -> Iterator[tuple[Job, TrialResult]]:
        """Call the function for each trial; a trial that another worker has now is not yielded."""
        for job in jobs:
            verdict = Verdict.GO_ON

            def on_report(report: Report, job: Job = job) -> Verdict:
                nonlocal verdict
                (verdict,) = judge([(job, report)])
                return verdict

            try:
                result = call(job.config, job.number, self._objective.better, on_report, self._interrupted)
            except TrialInterrupted:
                if verdict is Verdict.GIVE_BACK and not self._interrupted():
                    continue
                raise
            yield job, result
