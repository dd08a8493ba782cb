"""How much each hyperparameter mattered, measured by two methods, beside the order in which they were stated.

Both methods see ranks instead of the objective: one diverged trial would otherwise be most of its variance. So a share
speaks of which trial was better, not by how much.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.insight.outcome import counts, kind, ranks, values_of
from tuner.insight.parameter import PED_ANOVA, ParameterImportance
from tuner.insight.sentences import disagreements
from tuner.space import Space
from tuner.trial import Objective, Trial

MIN_TRIALS, MIN_COMPLETE = 10, 5
"""With fewer trials than this, and fewer complete ones among them, nothing is measured."""

MIN_APPLIED = 5
"""A conditional parameter that applied in fewer trials is not measured."""


@dataclass(frozen=True)
class Importance:
    """What a study says about the importance of its hyperparameters.

    Attributes:
        parameters: every parameter, in the stated order.
        complete: complete trials that were measured.
        pruned: pruned trials that were measured, with what their value would have become.
        infeasible: trials that never had a value to keep (diverged, out of memory), measured as the worst.
        left_out: finished proposals that were not measured: they failed, or the space has been changed since.
        agreement_ped_anova: rank correlation (Spearman) of the stated order with PED-ANOVA's: 1 is the same order, -1
            the reverse; None with fewer than three measured parameters or when either order is one tie.
        agreement_fanova: the same with fANOVA's.
        sentences: in plain words, where the methods disagree with each other and where both disagree with the order.
        reason: why nothing could be measured, in words.
    """

    parameters: tuple[ParameterImportance, ...]
    complete: int = 0
    pruned: int = 0
    infeasible: int = 0
    left_out: int = 0
    agreement_ped_anova: float | None = None
    agreement_fanova: float | None = None
    sentences: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def trials(self) -> int:
        """How many trials were measured."""
        return self.complete + self.pruned + self.infeasible


def prepare() -> None:
    """Import what a measurement takes, a second or two, while something else is waited for."""
    from tuner.insight import anova  # noqa: F401 - with it scikit-learn


def importance(space: Space, objective: Objective, trials: Sequence[Trial]) -> Importance:
    """Measure how much each parameter mattered in the trials of a study.

    Proposals of the search count; confirming runs, failed trials and those outside the space do not. A pruned trial
    counts with what its value would have become, one that diverged or ran out of memory as the worst. It is the
    importance among the trials seen, and a search sees most of the space where it expects the best. The same trials
    give the same shares.

    Args:
        space: what was searched.
        objective: which way is better.
        trials: all trials of the study, in any order.
    """
    counted = sorted((t for t in trials if counts(t) and _within(space, t)), key=lambda t: t.number)
    kinds = Counter(kind(trial) for trial in counted)
    stated = [ParameterImportance(path, p.priority) for path, p in space.parameters.items()]
    stated.sort(key=lambda p: p.rank)
    values = values_of(counted, objective)
    reason = _too_few(kinds)
    if reason is None and len(set(values)) == 1:
        reason = f"all {len(counted)} trials have the same {objective.metric}, so nothing made a difference"
    parameters = _measured(space, stated, counted, ranks(values)) if reason is None else stated
    return Importance(
        tuple(parameters),
        complete=kinds["complete"],
        pruned=kinds["pruned"],
        infeasible=kinds["infeasible"],
        left_out=sum(t.confirms is None and t.state.finished for t in trials) - len(counted),
        agreement_ped_anova=_agreement([(p, p.ped_anova) for p in parameters]),
        agreement_fanova=_agreement([(p, p.fanova) for p in parameters]),
        sentences=tuple(disagreements(parameters)),
        reason=reason,
    )


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where it says nothing: below three, or all tied."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return statistics.correlation(ranks(one), ranks(other))


def _too_few(kinds: Mapping[str, int]) -> str | None:
    total, complete = sum(kinds.values()), kinds.get("complete", 0)
    if total < MIN_TRIALS:
        return f"it takes {MIN_TRIALS} finished trials to measure, and there are {total}"
    if complete < MIN_COMPLETE:
        return f"it takes {MIN_COMPLETE} complete trials to measure, and there are {complete}"
    return None


def _measured(
    space: Space, stated: Sequence[ParameterImportance], trials: Sequence[Trial], places: Sequence[float]
) -> list[ParameterImportance]:
    """The parameters with their shares.

    Args:
        space: what was searched.
        stated: the parameters, in the stated order.
        trials: the trials that count.
        places: the rank of each trial, smaller is better.
    """
    from tuner.insight import anova  # imports scikit-learn, a second that only a measurement is worth

    configs: list[dict[str, Any]] = [dict(trial.params or {}) for trial in trials]
    reasons = {path: _unmeasurable(path, configs) for path in space.parameters}
    varied = {path: parameter for path, parameter in space.parameters.items() if reasons[path] is None}
    configs = [{path: value for path, value in config.items() if path in varied} for config in configs]
    by_ped_anova = anova.ped_anova(varied, configs, places) if varied else None
    by_fanova = anova.fanova(varied, configs, places) if varied else {}
    shares = by_ped_anova.shares if by_ped_anova else {}
    beyond = by_ped_anova.beyond_chance if by_ped_anova else ()
    too_equal = f"too many trials are equally good for {PED_ANOVA}" if varied and not shares else None
    return [
        ParameterImportance(
            p.path,
            p.priority,
            shares.get(p.path),
            by_fanova.get(p.path),
            beyond_chance=p.path in beyond,
            reason=reasons[p.path] or too_equal,
        )
        for p in stated
    ]


def _within(space: Space, trial: Trial) -> bool:
    """Whether the space, which may have been changed since, has every value of the trial."""
    params = trial.params or {}
    return all(p.range.contains(params[path]) for path, p in space.parameters.items() if path in params)


def _unmeasurable(path: str, configs: Sequence[Mapping[str, Any]]) -> str | None:
    """Why this parameter cannot be measured in these trials, in words."""
    seen = [config[path] for config in configs if path in config]
    if not seen:
        return "it never applied"
    if len(seen) < MIN_APPLIED:
        return f"it applied in {len(seen)} of {len(configs)} trials"
    if len(set(seen)) == 1:
        return f"it was {seen[0]} in every trial"
    return None


def _agreement(shares: Sequence[tuple[ParameterImportance, float | None]]) -> float | None:
    """The rank correlation of the stated order with that of the shares, over the parameters that have one."""
    measured = [(p.rank, -share) for p, share in shares if share is not None]
    return rank_correlation([rank for rank, _ in measured], [share for _, share in measured])
