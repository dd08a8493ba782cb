"""The priority sampler: an ordinary Optuna sampler that lets stated priorities drive the search.

What it proposes is decided in `proposal.py`; here is what Optuna asks and knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from tuner.search.cube import Cube
from tuner.search.history import OUTSIDE, History
from tuner.search.proposal import Observed, Proposer, opening, thinned, width
from tuner.search.search_space import distribution
from tuner.space import Space
from tuner.space.grammar import Range

UNRANKED = 4
"""The priority of a parameter that states none: neither first nor last."""


class PrioritySampler(BaseSampler):
    """An ordinary Optuna sampler that lets stated priorities drive the search.

    Stateless: a proposal follows from the seed, the trial's number and the trials of the study, so any number of
    workers and restarts agree. Trials that run are imagined to end as expected, so that workers propose different
    things. Pruned trials count with what their last value would have become, and those that never had one
    (diverged, out of memory) with the worst value seen.

    Args:
        priorities: the stated priority by parameter; 1 is searched first, equal numbers together.
        defaults: the value to start from by parameter; parameters without one start from a random value.
        conditions: for each conditional parameter, the values of others under which it applies; while it does not
            apply, it is taken to be at its default.
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
        self._defaults_when: dict[str, tuple[str, dict[str, Any]]] = {}
        self._known: dict[str, BaseDistribution] = {}
        self._number: int | None = None
        self._seed = int(np.random.default_rng(seed).integers(2**32)) if seed is None else seed

    @classmethod
    def from_space(cls, space: Space | Any, seed: int | None = None) -> PrioritySampler:
        """A sampler with a space's priorities, defaults and scales (`tuner.search_space("mlp")`, or a Space)."""
        space = space if isinstance(space, Space) else space.space
        sampler = cls(space.priorities, space.defaults, space.conditions, seed)
        sampler._ranges = {path: parameter.range for path, parameter in space.parameters.items()}
        sampler._defaults_when = space.defaults_when
        sampler._known = {path: distribution(parameter) for path, parameter in space.parameters.items()}
        return sampler

    def at(self, number: int) -> PrioritySampler:
        """This sampler for the trial of this number in a copy of a study of its space; returns itself."""
        self._number = number
        return self

    def opening(self, name: str, trials: int) -> float:
        """The probability with which a parameter moves in a mutation made after `trials` finished trials."""
        return float(opening(self.priorities.get(name, UNRANKED), trials))

    def reseed_rng(self) -> None:
        """Nothing to do: draws follow from the seed and the trial's number."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every parameter of the space, and those that trials of the study have had, each as it was latest."""
        if len(study.directions) > 1:
            raise ValueError("PrioritySampler takes one objective. For several, use optuna.samplers.TPESampler.")
        known = dict(self._known)
        if known and self._number is not None:  # a copy of ours has the space's parameters only
            return known
        for other in study.get_trials(deepcopy=False):
            if other.distributions.keys() - known.keys() or not self._known:
                known.update(other.distributions)
        return known

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose the parameters that are known, together."""
        if not search_space:
            return {}
        proposer = self._proposer(search_space)
        rng = self._rng(trial)
        if self._number_of(trial) == 0:
            return proposer.cube.decode(proposer.first(rng))
        return proposer.cube.decode(proposer.propose(self._observed(study, trial, proposer.cube, rng), rng))

    def cohort(
        self,
        study: optuna.Study,
        search_space: dict[str, BaseDistribution],
        size: int,
        shape: Collection[str] = (),
        like: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Propose configurations to train together.

        The first of a study is the default configuration with the parameters of the first priority swept around their
        defaults, crossed with small steps of the rest.

        Args:
            study: the study.
            search_space: Optuna's distribution of each parameter.
            size: how many.
            shape: parameters on which all of them must agree (batch size, width, depth: what gives tensors their
                shapes).
            like: a configuration that is being trained, with which they must agree, too.
        """
        proposer = self._proposer(search_space)
        number = len(study.get_trials(deepcopy=False)) if self._number is None else self._number
        rng = np.random.default_rng([self._seed, number, size])
        fixed = np.array([name in shape for name in proposer.cube.names], dtype=bool)
        if number == 0 and proposer.cube.has_default.any():
            points = proposer.sweep(size, rng, fixed)
        else:
            observed = self._observed(study, None, proposer.cube, rng)
            points = proposer.cohort(observed, size, rng, fixed, proposer.cube.encode([like])[0] if like else None)
        return [proposer.cube.decode(point) for point in points]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Propose one parameter that no trial has had before, around its default."""
        self.infer_relative_search_space(study, trial)
        number = self._number_of(trial)
        proposer = self._proposer({param_name: param_distribution})
        rng = np.random.default_rng([self._seed, number, *param_name.encode()])
        nothing = Observed(np.empty((0, 1)), np.empty(0), np.empty((0, 1)), 0)
        point = proposer.first(rng) if number == 0 else proposer.propose(nothing, rng)
        return proposer.cube.decode(point)[param_name]

    def _proposer(self, search_space: Mapping[str, BaseDistribution]) -> Proposer:
        cube = Cube(search_space, self._ranges, self.defaults, self.conditions, self._defaults_when)
        ranks = np.array([max(1, self.priorities.get(name, UNRANKED)) for name in cube.names], dtype=float)
        return Proposer(cube, ranks)

    def _number_of(self, trial: FrozenTrial) -> int:
        return trial.number if self._number is None else self._number

    def _rng(self, trial: FrozenTrial) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._number_of(trial)])

    def _observed(
        self, study: optuna.Study, trial: FrozenTrial | None, cube: Cube, rng: np.random.Generator
    ) -> Observed:
        history = History.of(study)
        sign = 1.0 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1.0
        order = history.order
        values = history.values(sign)[order]
        kept = thinned(values, rng)
        chosen = [history.trials[i] for i in order[kept]]
        asking = None if trial is None else trial.number
        running = [t.params for t in history.running if t.params and t.number != asking]
        params = [t.params | t.user_attrs.get(OUTSIDE, {}) for t in chosen]
        return Observed(cube.encode(params), values[kept], cube.encode(running), len(values))


def values_of(trials: Sequence[FrozenTrial], sign: float) -> NDArray[np.float64]:
    """What finished trials count as, smaller is better; as `History.values` says.

    Args:
        trials: complete and pruned trials.
        sign: 1 to minimise, -1 to maximise.
    """
    history = History()
    history.read(trials)
    return history.values(sign)


_WIDE_OPEN = 0.2


def open_priorities(priorities: Mapping[str, int], names: Sequence[str], trials: int) -> str:
    """In words, with which chance a proposal made after `trials` finished trials moves each priority, and how far.

    How far is the deviation of a draw, as a share of the range. What seldom moves is told in one.

    Args:
        priorities: the stated priority by parameter.
        names: every parameter of the space.
        trials: finished trials.
    """
    if not any(name in priorities for name in names):
        each = float(opening(UNRANKED, trials))
        return f"each parameter in {each:.0%} of proposals (±{_widths([UNRANKED], trials)} of its range)"
    ranks = sorted({max(1, priorities.get(name, UNRANKED)) for name in names})
    chances = {rank: float(opening(rank, trials)) for rank in ranks}
    opened = [rank for rank in ranks if chances[rank] >= _WIDE_OPEN or rank == ranks[0]]
    told: list[str] = []
    for chance, group in groupby(opened, key=lambda rank: f"{chances[rank]:.0%}"):
        alike = list(group)
        units = ("", "") if told else (" of proposals", " of the range")
        told.append(f"{_from_to(alike)} in {chance}{units[0]} (±{_widths(alike, trials)}{units[1]})")
    if seldom := ranks[len(opened) :]:
        told.append(f"{_from_to(seldom)} in {chances[seldom[0]]:.0%}{' or less' * (len(seldom) > 1)}")
    return "priority " + ", ".join(told)


def _widths(ranks: Sequence[int], trials: int) -> str:
    least, most = (f"{100 * float(width(rank, trials)):.0f}" for rank in (ranks[-1], ranks[0]))
    return f"{most}%" if least == most else f"{least} to {most}%"


def _from_to(ranks: Sequence[int]) -> str:
    return f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"{ranks[0]}"
