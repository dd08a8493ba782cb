"""The unit cube: configurations as points, every parameter on the scale that its space states."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.space import Choice, FloatRange, IntRange
from tuner.space.grammar import Range

Points = NDArray[np.float64]
"""Configurations as points, shape (N, D), each coordinate in [0, 1]."""


_MANY_CELLS = 4096
"""A parameter with more values than this is a continuum to the search."""


@dataclass(frozen=True)
class Axis:
    """One parameter as a coordinate of the cube.

    Attributes:
        name: the parameter.
        distribution: as Optuna has it.
        range: the space's own range, which may state a scale that Optuna has not.
    """

    name: str
    distribution: BaseDistribution
    range: Range | None = None

    @property
    def ordered(self) -> bool:
        """Whether neighbouring values are alike; not so for a choice of names."""
        if not isinstance(self.distribution, CategoricalDistribution):
            return True
        return isinstance(self.range, Choice) and self.range.ordered

    @property
    def cells(self) -> int:
        """How many values there are; 0 is a continuum."""
        if isinstance(self.distribution, CategoricalDistribution):
            return len(self.distribution.choices)
        if isinstance(self.distribution, IntDistribution):
            return (self.distribution.high - self.distribution.low) // self.distribution.step + 1
        if isinstance(self.distribution, FloatDistribution) and self.distribution.step is not None:
            return round((self.distribution.high - self.distribution.low) / self.distribution.step) + 1
        return 0

    def fits(self, value: Any) -> bool:
        """Whether the parameter can have this value."""
        try:
            return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))
        except (ValueError, TypeError):  # not one of the choices
            return False

    def to_unit(self, value: Any) -> float:
        """The coordinate of a value; a choice is the middle of its cell."""
        if isinstance(self.distribution, CategoricalDistribution):
            return (self.distribution.to_internal_repr(value) + 0.5) / len(self.distribution.choices)
        return min(max(self._range.to_unit(value), 0.0), 1.0)

    def beyond(self, value: Any) -> float | None:
        """The coordinate of a value that the parameter cannot have any more; None if it has no place on this axis.

        On the same scale, up to a whole range beyond an end; between the cells of its neighbours in an ordered choice;
        and for a choice without order, away from all that is left.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not self.ordered:
            return 2.0 + zlib.crc32(repr(value).encode()) / 2**32
        if not number:
            return None
        if isinstance(self.distribution, CategoricalDistribution):
            below = [v for v in self.distribution.choices if isinstance(v, int | float) and v < value]
            return len(below) / len(self.distribution.choices)
        try:
            return min(max(self._range.to_unit(value), -1.0), 2.0)
        except ValueError:  # no place on a logarithmic scale
            return -1.0 if value < self._range.low else 2.0

    def from_unit(self, unit: float) -> Any:
        """The value at a coordinate."""
        if isinstance(self.distribution, CategoricalDistribution):
            count = len(self.distribution.choices)
            return self.distribution.choices[min(int(unit * count), count - 1)]
        value = self._range.from_unit(unit)
        if isinstance(self.distribution, FloatDistribution) and self.distribution.step is not None:
            steps = round((value - self.distribution.low) / self.distribution.step)
            return float(min(self.distribution.low + steps * self.distribution.step, self.distribution.high))
        return value

    def cells_at(self) -> tuple[Points, Points]:
        """The coordinates of all values, and the edges between them; both empty for a continuum."""
        count = self.cells
        if count == 0 or count > _MANY_CELLS:
            return np.empty(0), np.empty(0)
        if isinstance(self.distribution, CategoricalDistribution):
            return (np.arange(count) + 0.5) / count, np.arange(1, count) / count
        low, step = self.distribution.low, self.distribution.step or 1  # type: ignore[attr-defined]
        values = [low + step * i for i in range(count)]
        middles = np.array([self._range.to_unit(value) for value in values])
        return middles, np.array([self._range.to_unit(value + step / 2) for value in values[:-1]])

    @cached_property
    def _range(self) -> FloatRange | IntRange:
        """The distribution's range, on the scale that the space states or, without one, the distribution's."""
        d, scale = self.distribution, "linear"
        if isinstance(self.range, FloatRange | IntRange):
            scale = self.range.scale
        if isinstance(d, IntDistribution | FloatDistribution) and d.log:
            scale = "log"
        if isinstance(d, IntDistribution):
            whole = IntRange.model_construct(low=d.low, high=d.high, step=d.step)
            return whole.model_copy(update={"scale": scale})
        if isinstance(d, FloatDistribution):
            return FloatRange.model_construct(low=d.low, high=d.high).model_copy(update={"scale": scale})
        raise TypeError(f"{self.name} has a distribution of an unknown kind: {d!r}")


class Cube:
    """Parameters as the axes of a unit cube.

    Args:
        distributions: Optuna's distribution of each parameter.
        ranges: the space's own ranges, where there is a space.
        defaults: where an axis rests while nothing is said of it (a conditional parameter that does not apply); the
            middle where there is none.
        conditions: for each conditional parameter, the values of others under which it applies.
        defaults_when: other defaults of a continuous parameter: the choice that decides, and the default by its value.
            Each of them is at the coordinate of the default, and the scale below and above is stretched to fit, so that
            a step from one is like the same step from another.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        ranges: Mapping[str, Range] | None = None,
        defaults: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Mapping[str, Sequence[Any]]] | None = None,
        defaults_when: Mapping[str, tuple[str, Mapping[Any, Any]]] | None = None,
    ) -> None:
        self.axes = [Axis(name, distributions[name], (ranges or {}).get(name)) for name in distributions]
        self.names = [axis.name for axis in self.axes]
        self.ordered = np.array([axis.ordered for axis in self.axes], dtype=bool)
        self._cells = [axis.cells_at() for axis in self.axes]
        self._given = given = defaults or {}
        self._given_when = {k: v for k, v in (defaults_when or {}).items() if k in self.names}
        self.has_default = np.array([a.name in given and a.fits(given[a.name]) for a in self.axes], dtype=bool)
        rest = [a.to_unit(given[a.name]) if k else 0.5 for a, k in zip(self.axes, self.has_default, strict=True)]
        self._conditions: list[
            tuple[int, int, Points]
        ] = []  # axis, the axis it waits for, the coordinates it waits for
        self.rest = np.array(rest)
        self.rest = self.snap(np.array([rest]))[0]
        for name, when in (conditions or {}).items():
            for parent, values in when.items():
                if name in self.names and parent in self.names:
                    waited = self.axes[self.names.index(parent)]
                    at = np.array([waited.to_unit(value) for value in values if waited.fits(value)])
                    self._conditions.append((self.names.index(name), self.names.index(parent), at))

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> Points:
        """Configurations as points of shape (N, D).

        What they leave out rests. A value from before the space was changed lies outside the cube.
        """
        points = np.tile(self.rest, (len(configs), 1))
        for i, config in enumerate(configs):
            for j, axis in enumerate(self.axes):
                value = config.get(axis.name)
                if axis.name not in config:
                    continue
                at = axis.to_unit(value) if axis.fits(value) else axis.beyond(value)
                if at is not None and axis.name in self._given_when:
                    other = self._default_of(j, config)
                    at = _stretched(at, axis.to_unit(other), float(self.rest[j]))
                points[i, j] = self.rest[j] if at is None else at
        return points

    def decode(self, point: NDArray[np.float64]) -> dict[str, Any]:
        """The configuration at a point of shape (D,)."""
        config = {axis.name: axis.from_unit(float(unit)) for axis, unit in zip(self.axes, point, strict=True)}
        for name in self._given_when:
            j = self.names.index(name)
            other = self.axes[j].to_unit(self._default_of(j, config))
            config[name] = self.axes[j].from_unit(_stretched(float(point[j]), float(self.rest[j]), other))
        at_default = self.has_default & (point == self.rest)  # exactly: there and back rounds the last digit
        return config | {self.names[j]: self._default_of(int(j), config) for j in np.flatnonzero(at_default)}

    def _default_of(self, axis: int, config: Mapping[str, Any]) -> Any:
        """The default of a parameter beside these values of others."""
        name = self.names[axis]
        parent, values = self._given_when.get(name, ("", {}))
        usual = self._given[name] if self.has_default[axis] else self.axes[axis].from_unit(float(self.rest[axis]))
        return values.get(config.get(parent), usual)

    def inside(self, points: Points) -> NDArray[np.bool_]:
        """Which points lie in the cube, shape (N,): those from before the space was changed may not."""
        return np.asarray(((points >= 0.0) & (points <= 1.0)).all(axis=1))

    def snap(self, points: Points) -> Points:
        """Move points to the nearest values; what does not apply rests, and so does a choice that is no more."""
        gone = ~self.ordered & (points > 1.0)
        snapped = np.where(gone, self.rest, np.clip(points, 0.0, 1.0)) if gone.any() else np.clip(points, 0.0, 1.0)
        for j, (middles, edges) in enumerate(self._cells):
            if len(middles):
                snapped[:, j] = middles[np.searchsorted(edges, snapped[:, j], side="right")]
        applies = np.ones(points.shape, dtype=bool)
        for j, parent, values in self._conditions:
            holds = np.isclose(snapped[:, parent, None], values).any(axis=1)
            applies[:, j] &= holds & applies[:, parent]
            snapped[:, j] = np.where(applies[:, j], snapped[:, j], self.rest[j])
        return snapped


def _stretched(unit: float, origin: float, target: float) -> float:
    """Map [0, 1] onto itself so that `origin` comes to `target`, linearly on either side; as it is at an end."""
    if origin == target or not (0.0 < origin < 1.0 and 0.0 < target < 1.0):
        return unit
    if unit <= origin:
        return unit * target / origin
    return target + (unit - origin) * (1.0 - target) / (1.0 - origin)
