"""What else a study taught, a sentence each: edges of ranges, what did not matter, what mattered most, the waste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.insight.across import edge, explored
from tuner.insight.importance import Importance
from tuner.insight.parameter import FANOVA, PED_ANOVA, ParameterImportance
from tuner.insight.reading import Reading
from tuner.insight.subject import Subject
from tuner.trial import Trial, TrialState

IDLE = 0.03
"""A parameter whose share is below this by both methods did not matter."""

MIN_FOR_IDLE = 30
"""So many trials must have been measured before a parameter is said not to matter."""

METHODS = (PED_ANOVA, FANOVA)

WASTED = 0.5
"""A share of the training time that came to nothing, from which on it is said."""

MIN_FOR_WASTE = 20
LATE = 0.25
"""A best that was found in this first part of the trials was found early."""

NATURAL_ENDS = {"dropout": 0.0, "momentum": 0.0, "penalty": 0.0, "nesterov": 0.0, "depth": 1}
"""Ends of a range below which there is nothing."""


def remarks(
    trials: Sequence[Trial], subject: Subject, readings: Mapping[int, Reading], measured: Importance | None
) -> tuple[str, ...]:
    """The sentences, the weightiest first; none where one trial alone is asked about, and nothing was measured."""
    if measured is None:
        return ()
    return (
        *_edges(subject),
        *_importance(measured, idle(measured, subject, trials)),
        *_waste(trials, subject, readings),
    )


def idle(measured: Importance | None, subject: Subject, trials: Sequence[Trial]) -> tuple[str, ...]:
    """The paths of the parameters that were tried out and did not matter, by both methods over enough trials."""
    if measured is None or measured.trials < MIN_FOR_IDLE:
        return ()
    return tuple(
        p.path
        for p in measured.parameters
        if _did_not_matter(p)
        and p.path in subject.params
        and explored(p.path, subject.parameters[p.path], subject.params[p.path], trials)
    )


def _edges(subject: Subject) -> list[str]:
    found = []
    for path, parameter in subject.parameters.items():
        value = subject.params.get(path)
        side = edge(parameter, value)
        name = path.rpartition(".")[2]
        if side is None or (side == "low" and NATURAL_ENDS.get(name) == value):
            continue
        shown = f"{value:.3g}" if isinstance(value, float) else value
        end = "lower" if side == "low" else "upper"
        found.append(
            f"The best has {subject.name(path)} {shown}, at the {end} end of its range: better ones may lie beyond."
        )
    return found


def _importance(measured: Importance, nothing: Sequence[str]) -> list[str]:
    if measured.reason is not None:
        return []
    found = list(measured.sentences)
    if nothing:
        listed = ", ".join(path.partition(".")[2] for path in nothing)
        found.append(
            f"{listed} did not matter (below {IDLE:.0%} by both methods over {measured.trials} trials): the next study "
            "has fewer directions without."
        )
    return found


def _did_not_matter(parameter: ParameterImportance) -> bool:
    shares = parameter.shares
    return len(shares) == len(METHODS) and not parameter.beyond_chance and all(s < IDLE for s in shares.values())


def _waste(trials: Sequence[Trial], subject: Subject, readings: Mapping[int, Reading]) -> list[str]:
    proposals = sorted((t for t in trials if t.confirms is None and t.result is not None), key=lambda t: t.number)
    found = []
    spent = sum(t.train_seconds + t.wasted_seconds for t in proposals)
    lost = [
        t for t in proposals if t.state is TrialState.FAILED or (t.number in readings and readings[t.number].diverged)
    ]
    for_nothing = sum(t.train_seconds for t in lost) + sum(t.wasted_seconds for t in proposals)
    if spent > 0 and len(proposals) >= 5 and for_nothing / spent >= WASTED:
        found.append(
            f"{for_nothing / spent:.0%} of the training time came to nothing: {len(lost)} of {len(proposals)} trials "
            "failed or diverged."
        )
    best = subject.trial.number
    ahead = [t.number for t in proposals].index(best) if any(t.number == best for t in proposals) else 0
    if len(proposals) >= MIN_FOR_WASTE and ahead + 1 <= LATE * len(proposals):
        later = proposals[ahead + 1 :]
        epochs = sum(t.outcome.epochs for t in later)
        total = sum(t.outcome.epochs for t in proposals)
        found.append(
            f"The best is trial {best}; the {len(later)} trials after it took {epochs} of {total} epochs and found "
            "nothing better: a smaller budget, or another space, would have done."
        )
    return found
