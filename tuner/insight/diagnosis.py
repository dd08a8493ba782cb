"""What a study taught: does its best underfit, overfit, …, by which numbers, and what to change (documented.md §9).

The model design flow: look at the fit to the training data first; if it is bad, the model underfits; if it is good,
look at the validation data; if that fit is bad, it overfits; else it is done. Before that: did it diverge, did anything
arrive at the first layers, did it learn anything at all?
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner.errors import NoBest, StudyNotFound
from tuner.insight.across import trends
from tuner.insight.finding import Curves, Diagnosis
from tuner.insight.importance import Importance, importance
from tuner.insight.reading import Reading, read, yardstick
from tuner.insight.remarks import idle, remarks
from tuner.insight.remedies import remedies
from tuner.insight.subject import Subject
from tuner.insight.verdict import Judgement, judge_study, judge_trial
from tuner.spec import StudySpec
from tuner.trial import Objective, Trial, TrialState

LEADERS = 3
"""So many of the best trials are read beside the best one; that of a majority of them is the study's verdict."""


def diagnose(
    spec: StudySpec,
    trials: Sequence[Trial],
    curves: Curves,
    *,
    trial: int | None = None,
    best: int | None = None,
    measured: Importance | None = None,
) -> Diagnosis:
    """Say what limits a study, from its learning curves and from what sets its trials apart.

    Args:
        spec: the study (`spec_of(row)`): its space, objective and epochs.
        trials: all its trials (`Store.trials`), in any order.
        curves: what they said after each epoch (`Store.curves`); those that are missing are not read.
        trial: diagnose this one alone, from its own curves.
        best: the number of the best trial, as `tuner.best.choose` has it; without it, the one of the best value.
        measured: the importance of the parameters, where it is known already; to measure it takes seconds.

    Raises:
        NoBest: no trial has ended yet, so there is nothing to read.
        StudyNotFound: there is no trial of this number.
    """
    goal = spec.goal
    stick = yardstick(trials, curves, goal)
    if trial is not None:
        one = _numbered(trials, trial, spec.study)
        reading = read(one, curves.get(trial, ()), stick, goal)
        if not reading.epochs and not reading.diverged:
            raise NoBest(f"trial {trial} of {spec.study!r} has no finished epoch, so there are no curves to read.")
        subject = Subject(spec, one)
        judgement = judge_trial(reading, stick, subject)
        return _told(spec, judgement, subject, trials)
    ended = [t for t in trials if t.result is not None and t.confirms is None]
    readings = {t.number: read(t, curves.get(t.number, ()), stick, goal) for t in ended}
    readings = {number: r for number, r in readings.items() if r.epochs or r.diverged}
    if not readings:
        raise NoBest(f"study {spec.study!r} has no trial that has ended with an epoch trained. Let it run on.")
    leaders = _leaders([t for t in ended if t.number in readings], goal, best)
    subject = Subject(spec, leaders[0] if leaders else next(t for t in ended if t.number in readings))
    judgement = judge_study(
        [readings[t.number] for t in leaders],
        list(readings.values()),
        stick,
        subject,
        trends(spec.searched, goal, trials),
    )
    measured = measured or importance(spec.searched, spec.goal, trials)
    return _told(spec, judgement, subject, trials, readings, measured)


def _told(
    spec: StudySpec,
    judgement: Judgement,
    subject: Subject,
    trials: Sequence[Trial],
    readings: dict[int, Reading] | None = None,
    measured: Importance | None = None,
) -> Diagnosis:
    alone = readings is None
    return Diagnosis(
        study=spec.study,
        verdict=judgement.verdict,
        confidence=judgement.confidence,
        headline=judgement.headline(spec.study, subject.trial.number, alone=alone),
        evidence=tuple(judgement.evidence),
        advice=tuple(remedies(judgement, subject, trials, readings or {})),
        warnings=(*judgement.notes, *remarks(trials, subject, readings or {}, measured)),
        idle=idle(measured, subject, trials),
        trial=subject.trial.number,
        alone=alone,
    )


def _numbered(trials: Sequence[Trial], number: int, study: str) -> Trial:
    found = next((t for t in trials if t.number == number), None)
    if found is None:
        highest = max((t.number for t in trials), default=None)
        there = "there is none yet" if highest is None else f"they are numbered from 0 to {highest}"
        raise StudyNotFound(f"no trial {number} in study {study!r}; {there}.")
    return found


def _leaders(trials: Sequence[Trial], goal: Objective, best: int | None) -> list[Trial]:
    """The best trials, the chosen one first; complete ones, or what there is with a value."""
    valued = [t for t in trials if t.value is not None]
    complete = [t for t in valued if t.outcome.state is TrialState.COMPLETE]
    ranked = sorted(complete or valued, key=lambda t: (t.number != best, goal.key(t.score), t.number))
    return ranked[:LEADERS]
