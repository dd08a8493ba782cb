"""What to try next: the stated priorities shape a Gaussian process and the candidates it chooses from.

All happens in the unit cube (`cube.py`). The first point is the defaults, the next few are small steps away from the
best so far. From then on a Gaussian process, whose length scales are expected to be the shorter the higher a
parameter's priority, picks the candidate of the largest expected improvement. Candidates are mutations of the best
points, and draws around the defaults and anywhere. Always a parameter of priority r moves with a probability that falls
with r and grows with the number of trials. So the learning rate moves first and Adam's ε last, and no door is ever
closed (documented.md §1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri
from threadpoolctl import ThreadpoolController

from tuner.search.cube import Cube, Points
from tuner.search.gaussian_process import GaussianProcess, Prior

Array = NDArray[np.float64]

FEWEST = 4
"""With fewer finished trials there is no model: proposals are small steps away from the best so far."""

FIRST_STEP = 0.2
"""How far these steps go for a parameter of priority 1; one of priority r goes 1/√r of it."""

SWEEP = 0.2
"""The deviation, as a share of the range, with which a first cohort is spread over the first priority. Evenly over the
whole range, two thirds of it were trials that nobody would start by hand."""

MOST = 200
"""With more finished trials the model takes the best ones and a random choice of the others."""

EXPLORING = 0.25
"""The share of proposals that take a value which no trial has had, while there is one."""

_CANDIDATES = 1000
_STEPS = (0.02, 0.05, 0.1, 0.2)
"""How far mutations go."""


def opening(rank: Array | float, trials: int) -> Array:
    """The probability with which a parameter of this priority moves, after so many finished trials."""
    moved: Array = np.clip(0.7 / np.asarray(rank) + trials / (60 * np.asarray(rank)), 0.04, 0.8)
    return moved


def width(rank: Array | float, trials: int) -> Array:
    """The deviation of draws of a parameter of this priority, as a share of its range, after so many trials.

    Steps away from the best while there is no model, later draws around the default.
    """
    if trials < FEWEST:
        return np.asarray(FIRST_STEP / np.sqrt(rank))
    return np.minimum(0.5, 0.3 / np.sqrt(rank) * (1 + trials / 30))


@dataclass(frozen=True)
class Observed:
    """What is known: finished trials with their values (smaller is better), and points that are being tried.

    Attributes:
        points: finished trials, shape (N, D).
        values: theirs, shape (N,), finite.
        running: points that are being tried, shape (R, D).
        trials: how many trials are finished, of which the points may be a choice.
    """

    points: Points
    values: Array
    running: Points
    trials: int


class Proposer:
    """Proposes points.

    Args:
        cube: the parameters as axes.
        ranks: the stated priority of each axis, at least 1, shape (D,).
    """

    def __init__(self, cube: Cube, ranks: Array) -> None:
        self.cube = cube
        self.ranks = ranks

    def first(self, rng: np.random.Generator) -> Array:
        """The defaults, with a random value where there is none; shape (D,)."""
        point: Array = self._at_rest(1, rng)[0]
        return point

    def sweep(self, size: int, rng: np.random.Generator, shape: NDArray[np.bool_]) -> Points:
        """A first cohort, shape (size, D): the defaults, and the first priority swept, most densely around its default.

        All others take small steps from their defaults, except on the axes of the shape, which stay.
        """
        points = self._mutated(self._at_rest(size, rng), opening(self.ranks, 0), rng, width(self.ranks, 0))
        points = np.where(shape, self.cube.rest, points)
        points[0] = self.cube.rest
        known = self.cube.has_default & ~shape
        highest = self.ranks[known].min(initial=np.inf)
        quantiles = np.delete(ndtri((np.arange(size) + 0.5) / size), size // 2)  # the defaults are the middle one
        for j in np.flatnonzero(known & (self.ranks == highest)):
            points[1:, j] = rng.permutation(_reflected(self.cube.rest[j] + SWEEP * quantiles))
        return self.cube.snap(points)

    def propose(self, observed: Observed, rng: np.random.Generator) -> Array:
        """The point to try next, shape (D,)."""
        point: Array = self.cohort(observed, 1, rng)[0]
        return point

    def cohort(
        self,
        observed: Observed,
        size: int,
        rng: np.random.Generator,
        shape: NDArray[np.bool_] | None = None,
        like: Array | None = None,
    ) -> Points:
        """Points to try together, shape (size, D).

        Each is chosen as if those before it had been tried already, with what the model expects of them. So are the
        points that are running.

        Args:
            observed: what is known.
            size: how many points.
            rng: draws the candidates.
            shape: axes on which all points must agree, with the first of them; shape (D,).
            like: a point with which the first of them must agree there, too; shape (D,).
        """
        with _one_thread().limit(limits=1, user_api="blas"):
            return self._cohort(observed, size, rng, shape, [] if like is None else [like])

    def _cohort(
        self,
        observed: Observed,
        size: int,
        rng: np.random.Generator,
        shape: NDArray[np.bool_] | None,
        like: list[Array],
    ) -> Points:
        trials = observed.trials
        best = observed.points[np.argsort(observed.values, kind="stable")[: min(5, 1 + trials // 5)]]
        best = self.cube.snap(best)  # they may be from before the space was changed
        if trials < FEWEST:
            return self._unmodelled(best, observed, size, rng, shape, like)
        values = _standardised(observed.values)
        model = GaussianProcess.fit(observed.points, values, self.cube.ordered, self._prior())
        for point in observed.running:
            model = model.imagine(point)
        taken = np.concatenate([observed.points, observed.running])
        chosen: list[Array] = []
        for _ in range(size):
            agreed = like or chosen
            hold = self._holding(agreed, shape, self._untried(taken, shape if agreed else None, rng))
            score = _log_improvement(model, self.cube.inside(model.points))
            candidates = self._new(hold(self._candidates(best, trials, rng)), taken)
            point = candidates[int(np.argmax(score(candidates)))]
            for step in (0.1, 0.05, 0.02):
                near = hold(self._mutated(np.tile(point, (64, 1)), np.full(len(self.ranks), 0.5), rng, step))
                near = np.concatenate([point[None], self._new(near, taken, keep=False)])
                point = near[int(np.argmax(score(near)))]
            chosen.append(point)
            taken = np.concatenate([taken, point[None]])
            model = model.imagine(point)
        return np.stack(chosen)

    def _prior(self) -> Prior:
        """Length scales that grow with the priority's number and with the number of axes."""
        grown = math.log(0.35) + 0.5 * math.log(len(self.ranks) / 4) + 0.15 * (self.ranks - self.ranks.mean())
        return Prior(np.clip(grown, math.log(0.05), math.log(5.0)))

    def _unmodelled(
        self,
        best: Points,
        observed: Observed,
        size: int,
        rng: np.random.Generator,
        shape: NDArray[np.bool_] | None,
        like: list[Array],
    ) -> Points:
        """Small steps from the best point, or from the defaults, while there is too little to learn from.

        A step that made it worse is tried the other way (mirrored sampling: Brockhoff et al., PPSN 2010). Choices
        without order stay: a step to another value is no small one. What has no default is drawn anew.
        """
        taken = np.concatenate([observed.points, observed.running])
        if size == 1 and len(best):
            back = self._holding(like, shape)(self._mirrored(best[:1], observed.points[-1:]))
            if len(self._new(back, np.concatenate([taken, best[:1]]), keep=False)):
                return back
        chance = opening(self.ranks, observed.trials)
        if self.cube.ordered.any():
            chance = np.where(self.cube.ordered, chance, 0.0)
        chosen: list[Array] = []
        for _ in range(size):
            hold = self._holding(like or chosen, shape)
            bases = np.tile(best[0], (32, 1)) if len(best) else self._at_rest(32, rng)
            steps = self._mutated(bases, chance, rng, width(self.ranks, 0))
            drawn = self._new(hold(np.where(self.cube.has_default, steps, rng.random(steps.shape))), taken, keep=False)
            if len(drawn) == 0:  # all that has an order rests: step in what has none
                drawn = self._new(hold(self._mutated(bases, opening(self.ranks, observed.trials), rng)), taken)
            chosen.append(drawn[0])
            taken = np.concatenate([taken, drawn[:1]])
        return np.stack(chosen)

    def _mirrored(self, best: Points, latest: Points) -> Points:
        """The step from the best point to the latest one, the other way, along what has an order and a default."""
        moves = self.cube.ordered & self.cube.has_default
        return self.cube.snap(_reflected(np.where(moves, 2 * best - self.cube.snap(latest), best)))

    def _holding(
        self, agreed: list[Array], shape: NDArray[np.bool_] | None, choice: tuple[int, float] | None = None
    ) -> Callable[[Points], Points]:
        """What makes candidates agree with the first of these points on the axes of the shape, and take a choice."""

        def hold(points: Points) -> Points:
            held = points.copy()
            if choice is not None:
                held[:, choice[0]] = choice[1]
            if shape is not None and agreed:
                held = np.where(shape, agreed[0], held)
            return self.cube.snap(held)

        return hold

    def _untried(
        self, taken: Points, shape: NDArray[np.bool_] | None, rng: np.random.Generator
    ) -> tuple[int, float] | None:
        """Now and then a value that no trial has had of a choice without order: an axis and its coordinate there.

        No model can know what such a value is worth. Those of the highest priority come first.
        """
        if rng.random() >= EXPLORING:
            return None
        untried = []
        for j in np.flatnonzero(~self.cube.ordered):
            if shape is None or not shape[j]:
                cells = self.cube.axes[j].cells
                values = (np.arange(cells) + 0.5) / cells
                untried += [(self.ranks[j], int(j), v) for v in values if not np.isclose(taken[:, j], v).any()]
        if not untried:
            return None
        first = [(j, float(v)) for rank, j, v in untried if rank == min(rank for rank, _, _ in untried)]
        return first[int(rng.integers(len(first)))]

    def _candidates(self, best: Points, trials: int, rng: np.random.Generator) -> Points:
        mutations = int(0.45 * _CANDIDATES)
        around = int(0.35 * _CANDIDATES)
        leaders = best[rng.integers(len(best), size=mutations)]
        anywhere = self.cube.snap(rng.random((_CANDIDATES - mutations - around, len(self.ranks))))
        moved = self._mutated(leaders, opening(self.ranks, trials), rng)
        return np.concatenate([moved, self._around_defaults(around, trials, rng), anywhere])

    def _mutated(
        self, points: Points, chance: Array, rng: np.random.Generator, step: Array | float | None = None
    ) -> Points:
        """Points of which every axis has moved with its chance, at least one of them; by a drawn step or this one."""
        count, axes = points.shape
        moves = rng.random((count, axes)) < chance
        moves[np.arange(count), rng.choice(axes, size=count, p=chance / chance.sum())] = True
        size = step if step is not None else rng.choice(_STEPS, size=(count, 1))
        near = _reflected(points + rng.normal(size=points.shape) * size)
        moved = np.where(self.cube.ordered, near, rng.random(points.shape))
        return self.cube.snap(np.where(moves, moved, points))

    def _around_defaults(self, count: int, trials: int, rng: np.random.Generator) -> Points:
        """Draws around the defaults, the wider the higher the priority and the more trials there are."""
        near = _reflected(self.cube.rest + rng.normal(size=(count, len(self.ranks))) * width(self.ranks, trials))
        chance = np.where(self.cube.ordered, 1.0, opening(self.ranks, trials))
        moved = np.where(self.cube.ordered, near, rng.random(near.shape))
        drawn = np.where(rng.random(near.shape) < chance, moved, self.cube.rest)
        anywhere = rng.random(near.shape)
        return self.cube.snap(np.where(self.cube.has_default, drawn, anywhere))

    def _at_rest(self, count: int, rng: np.random.Generator) -> Points:
        """The defaults, with random values where there are none."""
        return self.cube.snap(np.where(self.cube.has_default, self.cube.rest, rng.random((count, len(self.ranks)))))

    @staticmethod
    def _new(points: Points, taken: Points, *, keep: bool = True) -> Points:
        """The points that are not taken; all of them if none is left and `keep` asks for some."""
        known = {point.tobytes() for point in np.round(taken, 9)}
        new = points[[point.tobytes() not in known for point in np.round(points, 9)]]
        return points if keep and len(new) == 0 else new


@cache
def _one_thread() -> ThreadpoolController:
    """These matrices are too small to share between threads, and with one the last digit is always the same."""
    return ThreadpoolController()


def _reflected(points: Array) -> Array:
    """Points beyond an end of the unit interval, folded back into it."""
    folded = np.abs(points) % 2.0
    return np.where(folded > 1.0, 2.0 - folded, folded)


def thinned(values: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which of many trials the model takes: the best three fifths of MOST, and a random choice of the others."""
    if len(values) <= MOST:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    best = MOST * 3 // 5
    others = rng.choice(order[best:], size=MOST - best, replace=False)
    return np.sort(np.concatenate([order[:best], others]))


def _standardised(values: Array) -> Array:
    """Values with the median at 0 and the good half's spread at 1; the bad half is compressed to its logarithm.

    So a trial that diverged is bad, but does not drown the differences between good ones.
    """
    median = float(np.median(values))
    good = values[values <= median]
    spread = median - float(np.quantile(good, 0.2)) if len(good) > 1 else 0.0
    spread = spread or float(values.max() - values.min()) or 1.0
    scaled = (values - median) / spread
    scaled = np.where(scaled > 0, np.log1p(np.maximum(scaled, 0)), scaled)
    deviation = float(scaled.std()) or 1.0
    standard: Array = (scaled - scaled.mean()) / deviation
    return standard


def _log_improvement(model: GaussianProcess, inside: NDArray[np.bool_]) -> Callable[[Points], Array]:
    """The logarithm of the expected improvement over the best that the model believes in, of the points inside."""
    known, _ = model.predict(model.points[inside] if inside.any() else model.points)
    best = float(known.min())

    def score(points: Points) -> Array:
        mean, variance = model.predict(points)
        deviation = np.sqrt(variance)
        z = (best - mean) / deviation
        log_density = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        far = z < -5  # where φ(z) + z Φ(z) cancels, it is φ(z) / z² to first order
        ratio = z * np.exp(log_ndtr(np.where(far, 0.0, z)) - np.where(far, 0.0, log_density))
        inner = np.where(far, -2 * np.log(np.maximum(-z, 1.0)), np.log1p(np.where(far, 0.0, ratio)))
        logged: Array = np.log(deviation) + log_density + inner
        return logged

    return score
