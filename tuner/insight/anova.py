"""Two measurements of importance, both by Optuna, on trials whose objective is a rank.

A share is a fraction of 1; the shares of one method add up to 1. Parameters are measured on the scale that the space
states: Optuna's fANOVA takes a logarithmic parameter as linear, so that its largest decade would decide alone, and
spreads a choice over impossible mixtures of its values, 2^k of them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from tuner.space import Choice, IntRange, Parameter

optuna.logging.set_verbosity(optuna.logging.WARNING)

BEST_FRACTION, BEST_AT_LEAST = 0.1, 5
"""PED-ANOVA's best trials: a tenth, as Optuna has it, and never fewer than the five that Optuna asks for."""

SHUFFLES = 20
"""A parameter is beyond chance if it beats what any parameter reaches in so many shufflings of the ranks."""

SEED = 0

MAX_DEPTH = 8
"""Of the trees of fANOVA; fully grown ones take 10 s for 300 trials and say the same."""

Axis = tuple[BaseDistribution, Callable[[Any], Any]]
"""A parameter as Optuna has it, and the map of its values to that."""


@dataclass(frozen=True)
class PedAnova:
    """What PED-ANOVA measures.

    Attributes:
        shares: the share of each parameter.
        beyond_chance: the parameters whose share shuffled ranks do not explain. Each is compared with its own mean
            over the shufflings, and must exceed it by a larger factor than any parameter does in any of them.
    """

    shares: Mapping[str, float]
    beyond_chance: frozenset[str]


def ped_anova(
    parameters: Mapping[str, Parameter], configs: Sequence[Mapping[str, Any]], ranks: Sequence[float]
) -> PedAnova | None:
    """The share of each parameter in what sets the best trials apart from all (Watanabe et al., IJCAI 2023).

    A conditional parameter is measured among the trials in which it applies (conditional PED-ANOVA, KDD 2026).

    Args:
        parameters: what is measured, by path.
        configs: the values of each trial, without those that do not apply.
        ranks: the rank of each trial, smaller is better.

    Returns:
        None when so many trials share a rank that no best ones stand out.
    """
    best = max(math.ceil(BEST_FRACTION * len(ranks)), BEST_AT_LEAST)
    if best >= len(ranks) or sorted(ranks)[best - 1] == max(ranks):
        return None
    study = _study({path: _grid_axis(parameter) for path, parameter in parameters.items()}, configs, ranks)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=(best - 0.5) / len(ranks))
    rng = np.random.default_rng(SEED)

    def measure(places: Sequence[float]) -> dict[str, float]:
        return evaluator.evaluate(study, params=list(parameters), target=lambda trial: places[trial.number])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that low ranks are better, and that some parameter applies but once
        measured = measure(ranks)
        shuffled = [measure(rng.permutation(ranks).tolist()) for _ in range(SHUFFLES)]
    usual = {path: float(np.mean([by_chance[path] for by_chance in shuffled])) for path in parameters}
    factors = [share / usual[path] for by_chance in shuffled for path, share in by_chance.items() if usual[path] > 0]
    factor = max(factors, default=math.inf)
    beyond = frozenset(path for path, share in measured.items() if share > factor * usual[path])
    shares = _shares(measured)
    return PedAnova(shares, beyond) if shares else None


def fanova(
    parameters: Mapping[str, Parameter], configs: Sequence[Mapping[str, Any]], ranks: Sequence[float]
) -> dict[str, float]:
    """The share of each parameter, alone, in the variance of the ranks over the space (Hutter et al., ICML 2014).

    A random forest predicts the ranks; its seed is fixed. It needs every parameter in every trial, so one that does
    not apply stands at its default, as in the search.

    Args:
        parameters: what is measured, by path.
        configs: the values of each trial, without those that do not apply.
        ranks: the rank of each trial.

    Returns:
        The shares; nothing when the ranks do not vary.
    """
    if min(ranks) == max(ranks):
        return {}
    defaults = {path: parameter.default for path, parameter in parameters.items()}
    axes = {path: _unit_axis(parameter) for path, parameter in parameters.items()}
    study = _study(axes, [defaults | dict(config) for config in configs], ranks)
    evaluator = FanovaImportanceEvaluator(max_depth=MAX_DEPTH, seed=SEED)
    return _shares(evaluator.evaluate(study, params=list(parameters)))


def _study(
    axes: Mapping[str, Axis], configs: Sequence[Mapping[str, Any]], ranks: Sequence[float]
) -> optuna.study.Study:
    """An Optuna study in memory that holds these trials and these parameters."""
    study = optuna.create_study(direction="minimize")
    for config, rank in zip(configs, ranks, strict=True):
        here = {path: axis for path, axis in axes.items() if path in config}
        study.add_trial(
            optuna.trial.create_trial(
                params={path: to_axis(config[path]) for path, (_, to_axis) in here.items()},
                distributions={path: distribution for path, (distribution, _) in here.items()},
                value=rank,
            )
        )
    return study


def _unit_axis(parameter: Parameter) -> Axis:
    """A number as its place in [0, 1] along its scale; a choice as the middle of its cell."""
    values = parameter.range
    if isinstance(values, Choice):
        return FloatDistribution(0.0, 1.0), lambda value: (values.values.index(value) + 0.5) / len(values.values)
    return FloatDistribution(0.0, 1.0), values.to_unit


def _grid_axis(parameter: Parameter) -> Axis:
    """The same, but a choice by its index and whole numbers as such: cells of PED-ANOVA's grid without values count."""
    values = parameter.range
    if isinstance(values, Choice):
        return CategoricalDistribution(range(len(values.values))), values.values.index
    if isinstance(values, IntRange):
        return IntDistribution(values.low, values.high, log=values.scale == "log", step=values.step), int
    return _unit_axis(parameter)


def _shares(importances: Mapping[str, float]) -> dict[str, float]:
    """Importances as fractions of their sum; nothing when all of them are 0."""
    total = float(sum(importances.values()))
    return {path: float(value) / total for path, value in importances.items()} if total > 0 else {}
