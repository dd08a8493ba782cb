"""Samplers by name; each is made anew for every proposal, from the study's seed and the trial's number.

So what is proposed follows from the storage alone: a study that was killed and continued proposes what it would have
proposed undisturbed, and no two workers draw the same numbers.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler

from tuner.errors import Problem, SpecError
from tuner.search.priority import PrioritySampler
from tuner.search.search_space import straight_distribution, straighten
from tuner.space import Choice, Parameter, Space
from tuner.trial import trial_seed


class NumberedQMCSampler(optuna.samplers.QMCSampler):
    """Optuna's quasi-Monte Carlo sampler, at the point of the sequence that belongs to the trial's number.

    Optuna counts its points in the study's attributes, which a study continued elsewhere does not have.
    """

    def __init__(self, space: Space, number: int, seed: int) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)
        self._number = number
        self._dimensions = {
            path: straight_distribution(parameter) for path, parameter in space.parameters.items() if not parameter.when
        }

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every parameter that always applies; conditional ones are drawn at random."""
        return self._dimensions

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._number


_GRID_POINTS = 5


def grid_values(parameter: Parameter) -> list[Any]:
    """The values of a parameter in the grid: all of a choice, at most five of a range, evenly spaced on its scale."""
    if isinstance(parameter.range, Choice):
        return list(parameter.range.values)
    return sorted({parameter.range.from_unit(i / (_GRID_POINTS - 1)) for i in range(_GRID_POINTS)})


def _grid(space: Space) -> dict[str, list[Any]]:
    """The grid's values as Optuna has them."""
    return {p: [straighten(q, value) for value in grid_values(q)] for p, q in space.parameters.items()}


class NumberedGridSampler(BaseSampler):
    """The grid's points one after the other, in an order drawn from the seed; ranges are cut into five points."""

    def __init__(self, space: Space, number: int, seed: int) -> None:
        self._values = _grid(space)
        size = math.prod(len(v) for v in self._values.values())
        # A fixed odd stride through a power of two visits every point once, in a scattered order, without listing them.
        power = 1 << max(size - 1, 1).bit_length()
        index, stride = (seed * 2 + 1) % power, (seed * 2654435761 % power) | 1
        seen = -1
        while seen < number % size:
            index = (index + stride) % power
            seen += index < size
        self._index = index

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is looked up on its own."""
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        """Nothing is sampled together."""
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """The coordinate of this trial's point."""
        index = self._index
        for path, values in self._values.items():
            index, here = divmod(index, len(values))
            if path == param_name:
                return values[here]
        raise KeyError(param_name)


Make = Callable[[Space, int, int], BaseSampler]

SAMPLERS: Mapping[str, Make] = {
    "priority": lambda space, number, seed: PrioritySampler.from_space(space, seed=seed).at(number),
    "tpe": lambda _, number, seed: optuna.samplers.TPESampler(seed=trial_seed(seed, number)),
    "gp": lambda _, number, seed: _gp(trial_seed(seed, number)),
    "random": lambda _, number, seed: optuna.samplers.RandomSampler(seed=trial_seed(seed, number)),
    "grid": NumberedGridSampler,
    "cmaes": lambda _, number, seed: _cmaes(trial_seed(seed, number)),
    "qmc": NumberedQMCSampler,
}
"""By name: from the space, the trial's number and the study's seed to a sampler for this one proposal."""


def _gp(seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)


def _cmaes(seed: int) -> BaseSampler:
    if importlib.util.find_spec("cmaes") is None:
        problem = Problem("search.sampler", "cmaes needs the package cmaes. Install tuner[cmaes].")
        raise SpecError("the study", [problem])
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
