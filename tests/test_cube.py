"""Configurations as points of the unit cube."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.search.cube import Cube
from tuner.space import Choice, FloatRange

DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "momentum": FloatDistribution(0.0, 0.999),
    "width": IntDistribution(4, 64, log=True),
    "patch": IntDistribution(4, 16, step=4),
    "grid": FloatDistribution(0.0, 1.0, step=0.25),
    "size": CategoricalDistribution([16, 32, 64]),
    "kind": CategoricalDistribution(["a", "b", None, True]),
}
RANGES: dict[str, Any] = {
    "momentum": FloatRange(low=0.0, high=0.999, scale="log_complement"),
    "size": Choice(values=[16, 32, 64]),
    "kind": Choice(values=["a", "b"]),
}
DEFAULTS = {"rate": 0.1, "momentum": 0.9, "width": 17, "patch": 8, "grid": 0.5, "size": 32, "kind": "b"}


def test_configurations_come_back_as_they_were() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES, DEFAULTS)
    rng = np.random.default_rng(0)
    for point in cube.snap(rng.random((200, 7))):
        config = cube.decode(point)
        assert all(DISTRIBUTIONS[k]._contains(DISTRIBUTIONS[k].to_internal_repr(v)) for k, v in config.items())
        again = cube.decode(cube.encode([config])[0])
        assert again == pytest.approx({k: v for k, v in config.items() if isinstance(v, float)} | again)
        assert {k: v for k, v in again.items() if not isinstance(v, float)} == {
            k: v for k, v in config.items() if not isinstance(v, float)
        }


def test_the_point_at_rest_is_the_defaults_to_the_last_digit() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES, DEFAULTS)
    assert cube.decode(cube.rest) == DEFAULTS
    assert np.array_equal(cube.encode([DEFAULTS])[0], cube.rest)


def test_scales_are_those_of_the_space_and_else_of_the_distribution() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES)
    halves = dict(zip(cube.names, cube.encode([{"rate": 0.01, "momentum": 1 - 0.001**0.5}])[0], strict=True))
    assert halves["rate"] == pytest.approx(0.5)
    assert halves["momentum"] == pytest.approx(0.5)


def test_choices_are_the_middles_of_their_cells_and_numbers_in_order_are_neighbours() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES)
    point = dict(zip(cube.names, cube.encode([{"size": 64, "kind": None}])[0], strict=True))
    assert (point["size"], point["kind"]) == (pytest.approx(5 / 6), pytest.approx(5 / 8))
    assert dict(zip(cube.names, cube.ordered, strict=True)) == {name: name != "kind" for name in cube.names}


def test_points_snap_to_the_value_that_they_decode_to() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES)
    points = np.random.default_rng(1).random((300, 7))
    for point, snapped in zip(points, cube.snap(points), strict=True):
        whole = {k: v for k, v in cube.decode(point).items() if k not in ("rate", "momentum")}
        assert {k: v for k, v in cube.decode(snapped).items() if k in whole} == whole
    widths = np.unique(cube.snap(np.linspace(0, 1, 5001)[:, None].repeat(7, axis=1))[:, cube.names.index("width")])
    assert len(widths) == 61


def test_what_a_configuration_leaves_out_or_has_besides_rests() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES, DEFAULTS)
    assert np.array_equal(cube.encode([{}, {"other": 1, "rate": "fast"}]), np.stack([cube.rest] * 2))


@pytest.mark.parametrize(
    ("name", "value", "at"),
    [
        ("rate", 10.0, 1.25),  # a decade beyond four decades
        ("rate", 1e-6, -0.5),
        ("rate", 1e9, 2.0),  # never farther than a whole range
        ("rate", 0.0, -1.0),  # no place on a logarithmic scale
        ("patch", 20, 1.125),  # four cells of a quarter
        ("size", 8, 0.0),  # before 16
        ("size", 48, 2 / 3),  # between 32 and 64
        ("size", 128, 1.0),
    ],
)
def test_a_value_from_before_a_change_lies_where_its_scale_puts_it(name: str, value: float, at: float) -> None:
    cube = Cube(DISTRIBUTIONS, RANGES, DEFAULTS)
    assert cube.encode([{name: value}])[0, cube.names.index(name)] == pytest.approx(at)


def test_categories_that_are_no_more_differ_from_all_others_and_are_not_proposed() -> None:
    cube = Cube(DISTRIBUTIONS, RANGES, DEFAULTS)
    points = cube.encode([{"kind": "gone"}, {"kind": "lost"}, {"kind": "a"}])
    column = points[:, cube.names.index("kind")]
    assert len(set(column)) == 3
    assert list(cube.inside(points)) == [False, False, True]
    snapped = cube.snap(points)
    assert cube.inside(snapped).all()
    assert [cube.decode(point)["kind"] for point in snapped] == ["b", "b", "a"]


def test_what_does_not_apply_rests_also_below_something_that_does_not_apply() -> None:
    distributions: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(["a", "b"]),
        "x": FloatDistribution(0, 1),
        "y": FloatDistribution(0, 1),
    }
    conditions = {"x": {"kind": ["b"]}, "y": {"x": [0.25], "kind": ["a", "b"]}}
    cube = Cube(distributions, {}, {"kind": "a", "x": 0.25, "y": 0.75}, conditions)
    snapped = cube.snap(np.array([[0.1, 0.4, 0.4], [0.9, 0.4, 0.4], [0.9, 0.25, 0.4]]))
    assert snapped.tolist() == [[0.25, 0.25, 0.75], [0.75, 0.4, 0.75], [0.75, 0.25, 0.4]]


def test_every_default_of_a_parameter_is_at_the_same_coordinate() -> None:
    distributions: dict[str, BaseDistribution] = {
        "kind": CategoricalDistribution(["sgd", "adam"]),
        "rate": FloatDistribution(1e-4, 1.0, log=True),
    }
    cube = Cube(distributions, {}, {"kind": "sgd", "rate": 0.1}, None, {"rate": ("kind", {"adam": 1e-3})})
    sgd, adam = cube.encode([{"kind": "sgd", "rate": 0.1}, {"kind": "adam", "rate": 1e-3}])
    assert sgd[1] == pytest.approx(0.75)
    assert adam[1] == pytest.approx(0.75)
    assert cube.decode(np.array([adam[0], cube.rest[1]])) == {"kind": "adam", "rate": 1e-3}
    # Half way down from the default, and half way up: on its own logarithmic scale from each default.
    values = {
        kind: [cube.decode(np.array([at, unit]))["rate"] for unit in (0.0, 0.375, 0.875, 1.0)]
        for kind, at in (("sgd", sgd[0]), ("adam", adam[0]))
    }
    assert values["sgd"] == pytest.approx([1e-4, 10**-2.5, 10**-0.5, 1.0])
    assert values["adam"] == pytest.approx([1e-4, 10**-3.5, 10**-1.5, 1.0])
    for kind, rates in values.items():
        again = cube.encode([{"kind": kind, "rate": rate} for rate in rates])[:, 1]
        assert again == pytest.approx([0.0, 0.375, 0.875, 1.0])
