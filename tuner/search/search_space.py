"""A space as Optuna sees it: a distribution for every parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.errors import SpecError
from tuner.space import FloatRange, IntRange, Parameter, Space, read_space
from tuner.space.grammar import Scalar


class SearchSpace:
    """An ordinary Optuna search space with what else is known about its parameters.

    Attributes:
        priorities: the stated priority by parameter; 1 is searched first.
        defaults: the value that the search starts from, by parameter.
        conditions: for each conditional parameter, the values of others under which it applies.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.priorities: dict[str, int] = space.priorities
        self.defaults: dict[str, Scalar] = space.defaults
        self.conditions: dict[str, dict[str, list[Scalar]]] = space.conditions

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distribution of each parameter, parents of conditions first."""
        return {path: distribution(parameter) for path, parameter in self.space.parameters.items()}


def search_space(name_or_mapping: str | Mapping[str, Any]) -> SearchSpace:
    """Return a documented space by name, or one's own given as a mapping, for use with Optuna.

    Raises:
        SpecError: there is no such space, or the mapping has problems; all are listed.
    """
    value = name_or_mapping if isinstance(name_or_mapping, str) else dict(name_or_mapping)
    space, problems = read_space(value)
    if space is None:
        raise SpecError("the space", problems)
    return SearchSpace(space)


def distribution(parameter: Parameter) -> BaseDistribution:
    """The values of a parameter as an Optuna distribution."""
    values = parameter.range
    if isinstance(values, FloatRange):
        return FloatDistribution(values.low, values.high, log=values.scale == "log")
    if isinstance(values, IntRange):
        return IntDistribution(values.low, values.high, log=values.scale == "log", step=values.step)
    return CategoricalDistribution(values.values)


def straight_distribution(parameter: Parameter) -> BaseDistribution:
    """Like `distribution`, but for a log_complement scale, which Optuna has not, that of 1 - x on a log scale."""
    values = parameter.range
    if isinstance(values, FloatRange) and values.scale == "log_complement":
        return FloatDistribution(1 - values.high, 1 - values.low, log=True)
    return distribution(parameter)


def straighten(parameter: Parameter, value: Any) -> Any:
    """A value as `straight_distribution` has it; the map is its own inverse."""
    values = parameter.range
    if not isinstance(values, FloatRange) or values.scale != "log_complement":
        return value
    return min(max(1 - value, 1 - values.high), 1 - values.low)


def bend(parameter: Parameter, value: Any) -> Any:
    """The inverse of `straighten`."""
    values = parameter.range
    if not isinstance(values, FloatRange) or values.scale != "log_complement":
        return value
    bent = 1 - value
    return min(max(bent, values.low), values.high) if math.isfinite(bent) else values.low
