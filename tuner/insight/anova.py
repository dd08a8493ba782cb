"""Two measurements of importance, on trials whose objective is a rank: PED-ANOVA and fANOVA, as Optuna has them.

A share is a fraction of 1; the shares of one method add up to 1. Parameters are measured on the scale that the space
states: Optuna's fANOVA takes a logarithmic parameter as linear, so that its largest decade would decide alone, and
spreads a choice over impossible mixtures of its values, 2^k of them.

The arithmetic is Optuna's; what it does trial by trial is done here for all of them at once (`docs/decisions/0005`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from sklearn.ensemble import RandomForestRegressor

from tuner.space import Choice, IntRange, Parameter

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BEST_FRACTION, BEST_AT_LEAST = 0.1, 5
"""PED-ANOVA's best trials: a tenth, as Optuna has it, and never fewer than the five that Optuna asks for."""

CELLS = 50
"""Of the grid on which PED-ANOVA compares densities."""

NARROWEST = 0.5 / 1.64
"""The smallest deviation of a kernel, in cells: 90 % of it lie in its own cell."""

SHUFFLES = 20
"""A parameter is beyond chance if it beats what any parameter reaches in so many shufflings of the ranks."""

SEED = 0

TREES, MAX_DEPTH = 64, 8
"""Of the forest of fANOVA; fully grown trees take several times as long for 300 trials and say the same."""

TRIALS_A_TREE = 1000
"""A tree is grown from so many trials at most, drawn from all."""


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
        parameters: what is measured, by path; each has two values at least in these trials.
        configs: the values of each trial, without those that do not apply.
        ranks: the rank of each trial, smaller is better.

    Returns:
        None when so many trials share a rank that no best ones stand out.
    """
    best = max(math.ceil(BEST_FRACTION * len(ranks)), BEST_AT_LEAST)
    if best >= len(ranks) or sorted(ranks)[best - 1] == max(ranks):
        return None
    margins = {path: Margin.of(path, parameter, configs) for path, parameter in parameters.items()}
    rng = np.random.default_rng(SEED)

    def measure(places: Floats) -> dict[str, float]:
        top = places <= np.partition(places, best - 1)[best - 1]
        return {path: margin.divergence(top) for path, margin in margins.items()}

    measured = measure(np.asarray(ranks, float))
    shuffled = [measure(rng.permutation(np.asarray(ranks, float))) for _ in range(SHUFFLES)]
    usual = {path: float(np.mean([by_chance[path] for by_chance in shuffled])) for path in parameters}
    factors = [share / usual[path] for by_chance in shuffled for path, share in by_chance.items() if usual[path] > 0]
    factor = max(factors, default=math.inf)
    beyond = frozenset(path for path, share in measured.items() if share > factor * usual[path])
    shares = _shares(measured)
    return PedAnova(shares, beyond) if shares else None


@dataclass(frozen=True)
class Margin:
    """Where trials lie along one parameter.

    Attributes:
        cells: the cell of each trial in the parameter's grid, -1 where it does not apply.
        size: how many cells there are.
        ordered: whether neighbouring cells are alike; those of a choice are not.
        density: of all trials in which it applies, a probability for each cell.
    """

    cells: Ints  # (trials,)
    size: int
    ordered: bool
    density: Floats  # (size,)

    @classmethod
    def of(cls, path: str, parameter: Parameter, configs: Sequence[Mapping[str, Any]]) -> Margin:
        """The margin of a parameter by the values of each trial; None may be one of them."""
        applies = np.array([path in config for config in configs])
        cells = np.full(len(configs), -1, dtype=np.int64)
        cells[applies], size = _cells(parameter, [config[path] for config in configs if path in config])
        ordered = not isinstance(parameter.range, Choice)
        return cls(cells, size, ordered, _density(np.bincount(cells[applies], minlength=size), ordered))

    def divergence(self, top: NDArray[np.bool_]) -> float:
        """How far the density of the best trials is from that of all, by Pearson's divergence.

        It is weighted by how often the parameter applies.

        Args:
            top: which trials are the best, shape (trials,).
        """
        applies = self.cells >= 0
        here = top & applies
        if not here.any():
            return 0.0
        of_top = _density(np.bincount(self.cells[here], minlength=self.size), self.ordered)
        pearson = float(self.density @ (of_top / self.density - 1) ** 2)
        return float((here.sum() / top.sum()) ** 2 / applies.mean() * top.mean() ** 2) * pearson


def _cells(parameter: Parameter, values: Sequence[Any]) -> tuple[Ints, int]:
    """The cell of each value in the grid of its parameter, and how many cells there are.

    A choice has one for each value; so has a range of whole numbers, while they are few: cells without values count.
    """
    allowed = parameter.range
    if isinstance(allowed, Choice):
        return np.array([allowed.values.index(value) for value in values], dtype=np.int64), len(allowed.values)
    places, low, high, size = np.array([allowed.to_unit(value) for value in values]), 0.0, 1.0, CELLS
    if isinstance(allowed, IntRange):
        places, low, high = np.array(values, dtype=float), float(allowed.low), float(allowed.high)
        if allowed.scale == "log":
            size = min(math.ceil(math.log2(high - low + 1)) + 1, CELLS)
            places, low, high = np.log(places), math.log(low), math.log(high)
        else:
            size = min(round((high - low) / allowed.step) + 1, CELLS)
    cells = np.ceil((places - low) / ((high - low) / (size - 1)) - 0.5)
    return np.clip(cells, 0, size - 1).astype(np.int64), size


def _density(counts: Ints, ordered: bool) -> Floats:
    """A Parzen estimate of the density over the cells of a grid: a kernel for each cell with trials, and a wide one.

    Args:
        counts: the trials in each cell, shape (cells,).
        ordered: whether kernels reach into neighbouring cells, with a deviation by Scott's rule.
    """
    seen, size = np.flatnonzero(counts), counts.size
    weights = np.append(counts[seen], 1.0)
    weights /= weights.sum()
    if not ordered:
        kernels = np.full((seen.size + 1, size), 1 / (seen.size + 1))
        kernels[np.arange(seen.size), seen] += 1
        return _never_zero(weights @ (kernels / kernels.sum(axis=1, keepdims=True)))
    below = np.cumsum(counts[seen])
    total = below[-1]
    mean = seen @ counts[seen] / total
    deviation = math.sqrt((seen - mean) ** 2 @ counts[seen] / max(1, total - 1))
    first, third = np.searchsorted(below, total // 4), np.searchsorted(below, total * 3 // 4, side="right")
    between = seen[min(seen.size - 1, third)] - seen[first]
    width = max(1.059 * min(between / 1.34, deviation) * total**-0.2, NARROWEST)
    centres, widths = np.append(seen, (size - 1) / 2), np.append(np.full(seen.size, width), size)
    edges = (np.arange(size + 1) - 0.5 - centres[:, None]) / widths[:, None]  # (kernels, cells + 1)
    mass = ndtr(edges)
    return _never_zero(weights @ (np.diff(mass, axis=1) / (mass[:, -1:] - mass[:, :1])))


def _never_zero(density: Floats) -> Floats:
    return density + 1e-12


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
    paths = sorted(parameters)
    places = np.array([[_place(parameters[p], c.get(p, parameters[p].default)) for p in paths] for c in configs])
    forest = RandomForestRegressor(
        TREES, max_depth=MAX_DEPTH, max_samples=min(len(ranks), TRIALS_A_TREE), random_state=SEED
    )
    forest.fit(places, np.asarray(ranks, float))
    parts = [part for part in (_parts(tree.tree_, len(paths)) for tree in forest.estimators_) if part is not None]
    return _shares(dict(zip(paths, np.mean(parts, axis=0), strict=True))) if parts else {}


def _place(parameter: Parameter, value: Any) -> float:
    """A number as its place in [0, 1] along its scale; a choice as the middle of its cell."""
    allowed = parameter.range
    if isinstance(allowed, Choice):
        return (allowed.values.index(value) + 0.5) / len(allowed.values)
    return allowed.to_unit(value)


def _parts(tree: Any, columns: int) -> Floats | None:
    """The part of a tree's variance over [0, 1]^columns that each column makes alone; None if it does not vary.

    A leaf is a box with one value. The mean over all other columns is a step function of one column.
    """
    low, high = np.zeros((tree.node_count, columns)), np.ones((tree.node_count, columns))
    left, right, split, at = tree.children_left, tree.children_right, tree.feature, tree.threshold
    for node in np.flatnonzero(left >= 0):  # a parent comes before its children
        for child in (left[node], right[node]):
            low[child], high[child] = low[node], high[node]
        high[left[node], split[node]] = low[right[node], split[node]] = at[node]
    leaves = left < 0
    low, high, values = low[leaves], high[leaves], tree.value[leaves, 0, 0]
    widths = high - low
    volumes = widths.prod(axis=1)
    mean = volumes @ values
    total = volumes @ (values - mean) ** 2
    if total <= 0:
        return None
    parts = np.zeros(columns)
    for column in np.unique(split[~leaves]):
        edges, bounds = np.unique(np.concatenate([low[:, column], high[:, column]]), return_inverse=True)
        begins, ends = np.split(bounds, 2)
        weighted = volumes / widths[:, column] * (values - mean)
        rises = np.bincount(begins, weighted, edges.size) - np.bincount(ends, weighted, edges.size)
        parts[column] = np.diff(edges) @ np.cumsum(rises)[:-1] ** 2 / total
    return parts


def _shares(importances: Mapping[str, float]) -> dict[str, float]:
    """Importances as fractions of their sum; nothing when all of them are 0."""
    total = float(sum(importances.values()))
    return {path: float(value) / total for path, value in importances.items()} if total > 0 else {}
