"""Search in the order of stated priorities: what matters most moves first, and no door is ever closed.

The first trial is the default configuration, the next ones step the priority-1 parameters up and down around their
defaults. Then a proposal mutates one of the best configurations, draws around the defaults, or draws at random; a
parameter of priority r moves with a probability that falls with r and grows with the number of trials
(documented.md §1; search.md, soft staged opening).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from tuner.space import Choice, FloatRange, IntRange, Space
from tuner.space.grammar import Range

UNRANKED = 4
"""The priority of a parameter that states none: neither first nor last."""

_SWEEP = (-1 / 6, 1 / 6, -1 / 3, 1 / 3)
"""Where the priority-1 parameters are tried first, as steps from their defaults on the unit scale."""


class PrioritySampler(BaseSampler):
    """An ordinary Optuna sampler that lets stated priorities drive the search.

    Stateless: a proposal follows from the seed, the trial's number and the finished trials of the study, so any
    number of workers and restarts agree.

    Args:
        priorities: the stated priority by parameter; 1 is searched first, equal numbers together.
        defaults: the value to start from by parameter; parameters without one start from a random value.
        conditions: for each conditional parameter, the values of others under which it applies. Optuna only asks for
            parameters that apply, so this is information, not a filter.
        seed: fixes every draw; None draws a seed.
    """

    def __init__(
        self,
        priorities: Mapping[str, int] | None = None,
        defaults: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Mapping[str, list[Any]]] | None = None,
        seed: int | None = None,
    ) -> None:
        self.priorities = dict(priorities or {})
        self.defaults = dict(defaults or {})
        self.conditions = {name: dict(when) for name, when in (conditions or {}).items()}
        self._ranges: dict[str, Range] = {}
        self._number: int | None = None
        self._seed = int(np.random.default_rng(seed).integers(2**32)) if seed is None else seed

    @classmethod
    def from_space(cls, space: Space | Any, seed: int | None = None) -> PrioritySampler:
        """A sampler with a space's priorities, defaults and scales (`tuner.search_space("mlp")`, or a Space)."""
        space = space if isinstance(space, Space) else space.space
        sampler = cls(space.priorities, space.defaults, space.conditions, seed)
        sampler._ranges = {path: parameter.range for path, parameter in space.parameters.items()}
        return sampler

    def at(self, number: int) -> PrioritySampler:
        """This sampler for the trial of this number, whatever number the study at hand gives it; returns itself."""
        self._number = number
        return self

    def opening(self, name: str, trials: int) -> float:
        """The probability with which a parameter moves in a proposal made after `trials` finished trials."""
        return _opening(self.priorities.get(name, UNRANKED), trials)

    def reseed_rng(self) -> None:
        """Nothing to do: draws follow from the seed and the trial's number."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is proposed on its own, from a base that the whole trial shares."""
        if len(study.directions) > 1:
            raise ValueError("PrioritySampler takes one objective. For several, use optuna.samplers.TPESampler.")
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose the parameters that are asked for together, each as `sample_independent` would."""
        return {name: self.sample_independent(study, trial, name, values) for name, values in search_space.items()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Propose one parameter's value."""
        self.infer_relative_search_space(study, trial)
        ranked = self._best_first(study)
        number = trial.number if self._number is None else self._number
        default = self._fitting(self.defaults.get(param_name), param_distribution)
        if default is not None and number <= len(_SWEEP):
            swept = number > 0 and self.priorities.get(param_name, UNRANKED) == self._first_rank()
            return self._step(param_name, param_distribution, default, number) if swept else default

        whole = np.random.default_rng([self._seed, number])  # the same for every parameter of the trial
        own = np.random.default_rng([self._seed, number, zlib.crc32(param_name.encode())])
        manner = whole.choice(["mutate", "defaults", "anywhere"], p=[0.6, 0.2, 0.2])
        leaders = ranked[: min(5, 1 + len(ranked) // 5)]
        leader = leaders[int(whole.integers(len(leaders)))] if leaders else None
        base = default
        if manner == "mutate" and leader is not None:
            base = self._fitting(leader.params.get(param_name, default), param_distribution)
        opening = self.opening(param_name, len(ranked))
        if base is None or (manner == "anywhere" and own.random() < max(opening, 0.5)):
            return self._draw(param_name, param_distribution, own)
        if own.random() > opening:
            return base
        if not self._ordered(param_name, param_distribution):
            return self._draw(param_name, param_distribution, own)
        rank = self.priorities.get(param_name, UNRANKED)
        width = 0.12 if manner == "mutate" else min(0.5, 0.3 / np.sqrt(rank) * (1 + len(ranked) / 30))
        return self._shift(param_name, param_distribution, base, float(own.normal(0.0, width)))

    def _first_rank(self) -> int:
        """The priority that is searched first, among the parameters that have a default to step from."""
        return min((self.priorities.get(name, UNRANKED) for name in self.defaults), default=UNRANKED)

    @staticmethod
    def _fitting(value: Any, distribution: BaseDistribution) -> Any:
        """The value, if the distribution can take it; None otherwise."""
        try:
            fits = value is not None and distribution._contains(distribution.to_internal_repr(value))
        except ValueError:  # not one of the choices
            fits = False
        return value if fits else None

    def _step(self, name: str, distribution: BaseDistribution, default: Any, number: int) -> Any:
        """The first steps up and down from a default: four different values, wherever in its range it lies."""
        if isinstance(distribution, CategoricalDistribution):
            start = distribution.choices.index(default)
            return distribution.choices[(start + number) % len(distribution.choices)]
        step = _SWEEP[number - 1]
        unit = self._range(name, distribution).to_unit(default)
        if not 0 <= unit + step <= 1:
            step *= -1.5  # inwards, and not onto the step that goes there anyway
        return self._shift(name, distribution, default, step)

    @staticmethod
    def _best_first(study: optuna.Study) -> Sequence[FrozenTrial]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1
        return sorted(finished, key=lambda t: (sign * t.values[0], t.number))

    def _ordered(self, name: str, distribution: BaseDistribution) -> bool:
        own = self._ranges.get(name)
        return own.ordered if isinstance(own, Choice) else not isinstance(distribution, CategoricalDistribution)

    def _draw(self, name: str, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[rng.integers(len(distribution.choices))]
        return _on_grid(self._range(name, distribution).from_unit(float(rng.random())), distribution)

    def _shift(self, name: str, distribution: BaseDistribution, value: Any, step: float) -> Any:
        """The value one step away on the unit scale, reflected at the ends; a choice moves at least one cell."""
        if isinstance(distribution, CategoricalDistribution):
            if not self._ordered(name, distribution):
                return value
            count = len(distribution.choices)
            cells = round(step * count) or (1 if step > 0 else -1)
            index = distribution.choices.index(value) + cells
            return distribution.choices[min(max(index, 0), count - 1)]
        values = self._range(name, distribution)
        unit = values.to_unit(value) + step
        return _on_grid(values.from_unit(-unit if unit < 0 else 2 - unit if unit > 1 else unit), distribution)

    def _range(self, name: str, distribution: BaseDistribution) -> FloatRange | IntRange:
        """The distribution's range, on the scale that the space states or, without one, the distribution's."""
        own = self._ranges.get(name)
        scale = own.scale if isinstance(own, FloatRange | IntRange) else "linear"
        if isinstance(distribution, IntDistribution | FloatDistribution) and distribution.log:
            scale = "log"
        if isinstance(distribution, IntDistribution):
            whole = IntRange.model_construct(low=distribution.low, high=distribution.high, step=distribution.step)
            return whole.model_copy(update={"scale": scale})
        if isinstance(distribution, FloatDistribution):
            real = FloatRange.model_construct(low=distribution.low, high=distribution.high)
            return real.model_copy(update={"scale": scale})
        raise TypeError(f"{name} has a distribution of an unknown kind: {distribution!r}")


def _on_grid(value: Any, distribution: BaseDistribution) -> Any:
    """The nearest value that a float distribution with a step can take."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    steps = round((value - distribution.low) / distribution.step)
    return float(min(distribution.low + steps * distribution.step, distribution.high))


def open_priorities(priorities: Mapping[str, int], names: Sequence[str], trials: int) -> str:
    """In words, which priorities a proposal made after `trials` finished trials moves, and how often.

    Args:
        priorities: the stated priority by parameter.
        names: every parameter of the space.
        trials: finished trials.
    """
    ranks = sorted({priorities.get(name, UNRANKED) for name in names})
    if trials <= len(_SWEEP) and 1 in ranks:
        return "priority 1 around its default"
    told = [f"{rank}: {_opening(rank, trials):.0%}" for rank in ranks]
    return "each priority moves with chance " + ", ".join(told)


def _opening(rank: int, trials: int) -> float:
    return float(np.clip(0.7 / rank + trials / (60 * rank), 0.04, 0.8))
