"""The grammar of search spaces: what it accepts, what it says about mistakes, and what the shipped spaces promise."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import yaml

from tuner.data import Digits, SklearnTable, Text
from tuner.models import MLP, DenseNet, LeNet, MLPRegressor, Network, ResNet, RNNLanguageModel
from tuner.space import Choice, FloatRange, IntRange, Parameter, Space, read_space, shipped_spaces
from tuner.space.yaml import read_yaml, write_yaml

FAMILIES: dict[str, tuple[type[Network], type[L.LightningDataModule]]] = {
    "mlp": (MLP, Digits),
    "mlp-regressor": (MLPRegressor, SklearnTable),
    "lenet": (LeNet, Digits),
    "resnet": (ResNet, Digits),
    "densenet": (DenseNet, Digits),
    "rnn": (RNNLanguageModel, Text),
}
"""Whose arguments each shipped space names."""


def ok(value: Any) -> Space:
    space, problems = read_space(value)
    assert problems == []
    assert space is not None
    return space


def wrong(value: Any) -> dict[str, str]:
    """The problems of a space by path; none may hide behind another of the same path."""
    space, problems = read_space(value)
    assert space is None
    found = {problem.path: problem.message for problem in problems}
    assert len(found) == len(problems)
    return found


def one(kind: str, **keys: Any) -> dict[str, str]:
    """The problems of a space of one parameter, by path below it."""
    return {path.removeprefix("space.model.x."): m for path, m in wrong({"model.x": {kind: keys}}).items()}


def in_file(text: str) -> tuple[Space | None, list[str]]:
    document, problems = read_yaml(text)
    if problems:
        return None, [p.message for p in problems]
    space, problems = read_space(document)
    return space, [f"{p.path}: {p.message}" for p in problems]


# ---- each kind -----------------------------------------------------------------------------------------------------


def test_a_float_has_bounds_a_scale_and_a_default() -> None:
    parameter = ok({"model.x": {"float": {"low": 1, "high": 4.0}}}).parameters["model.x"]
    assert parameter.kind == "float"
    assert parameter.range == FloatRange(low=1.0, high=4.0, scale="linear", default=None)
    assert parameter.default == 2.5


def test_an_int_has_bounds_a_step_and_a_default() -> None:
    parameter = ok({"model.x": {"int": {"low": 16, "high": 64, "step": 16, "default": 48}}}).parameters["model.x"]
    assert parameter.kind == "int"
    assert parameter.default == 48
    assert [n for n in range(100) if parameter.range.contains(n)] == [16, 32, 48, 64]


def test_a_choice_may_be_a_bare_list_and_starts_at_its_first_value() -> None:
    parameter = ok({"model.x": {"choice": ["sgd", "adam"]}}).parameters["model.x"]
    assert parameter.kind == "choice"
    assert parameter.default == "sgd"
    assert ok({"model.x": {"choice": {"values": ["sgd", "adam"], "default": "adam"}}}).defaults == {"model.x": "adam"}


def test_a_choice_may_start_at_a_stated_null() -> None:
    space = ok({"trainer.gradient_clip_val": {"choice": {"values": [0.5, 1.0, None], "default": None}}})
    assert space.defaults == {"trainer.gradient_clip_val": None}


def test_a_stated_null_default_survives_the_document() -> None:
    space = ok({"trainer.gradient_clip_val": {"choice": {"values": [0.5, 1.0, None], "default": None}}})
    assert ok(space.document()).defaults == space.defaults == {"trainer.gradient_clip_val": None}


@pytest.mark.parametrize("falsy", [False, 0, 0.0, ""])
def test_a_stated_default_that_looks_empty_is_still_the_default(falsy: Any) -> None:
    other = {bool: True, int: 3, float: 0.5, str: "a"}[type(falsy)]
    assert ok({"model.x": {"choice": {"values": [other, falsy], "default": falsy}}}).defaults == {"model.x": falsy}


@pytest.mark.parametrize(
    ("given", "middle"),
    [
        ({"float": {"low": 0.0, "high": 10.0}}, 5.0),
        ({"float": {"low": 0.01, "high": 1.0, "scale": "log"}}, 0.1),
        ({"float": {"low": 0.0, "high": 0.99, "scale": "log_complement"}}, 0.9),
        ({"int": {"low": 1, "high": 5}}, 3),
        ({"choice": [3, 1, 2]}, 3),
    ],
)
def test_without_a_default_the_search_starts_in_the_middle_of_the_scale(given: dict[str, Any], middle: float) -> None:
    assert ok({"model.x": given}).defaults["model.x"] == pytest.approx(middle)


@pytest.mark.parametrize(
    ("values", "ordered"),
    [
        ([16, 32, 64], True),
        ([0.1, 1, 2.5], True),
        ([64, 32], False),
        (["a", "b"], False),
        ([False, True], False),
        ([1, None], False),
    ],
)
def test_only_numbers_in_rising_order_are_neighbours(values: list[Any], ordered: bool) -> None:
    assert Choice(values=values).ordered is ordered


def test_a_range_contains_only_its_own_kind_of_number() -> None:
    real, whole = FloatRange(low=0.0, high=2.0), IntRange(low=0, high=2)
    assert real.contains(0)
    assert real.contains(2.0)
    assert whole.contains(2)
    for value in (True, "1", None, 2.1, -1, math.nan):
        assert not real.contains(value)
        assert not whole.contains(value)
    assert not whole.contains(1.0)


def test_a_choice_tells_true_from_one() -> None:
    assert Choice(values=[0, 1]).contains(1)
    assert not Choice(values=[0, 1]).contains(True)
    assert not Choice(values=[True, False]).contains(0)


# ---- each rule, and what is said when it is broken -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "keys", "path", "said"),
    [
        ("float", {"low": 0.1, "high": 0.01}, "float", "low must be below high, but got low=0.1, high=0.01. Swap them"),
        ("float", {"low": 0.5, "high": 0.5}, "float", "both are 0.5. Set the value under init_args"),
        ("float", {"low": 0, "high": 1, "scale": "log"}, "float", "low must be above 0 on a log scale, but got 0"),
        ("float", {"low": -1, "high": 1, "scale": "log"}, "float", "low must be above 0 on a log scale, but got -1"),
        ("float", {"low": 0, "high": 1, "scale": "log_complement"}, "float", "high must be below 1"),
        ("float", {"low": 0, "high": 1, "default": 1.5}, "float", "default must lie between low and high"),
        ("float", {"low": 0, "high": 1, "default": -0.1}, "float", "got default=-0.1, low=0.0, high=1.0"),
        ("float", {"low": 0, "high": 1, "scale": "logarithmic"}, "float.scale", "'logarithmic' is not one of: linear"),
        ("float", {"low": 0, "high": 1, "scale": "lgo"}, "float.scale", "Did you mean 'log'?"),
        ("float", {"low": 0}, "float.high", "is required"),
        ("float", {"low": "0.5", "high": 1}, "float.low", "must be a number, but got '0.5'. YAML reads it as text"),
        ("float", {"low": "small", "high": 1}, "float.low", "must be a number, but got 'small'"),
        ("float", {"low": False, "high": 1}, "float.low", "must be a number, but got False"),
        ("float", {"low": -math.inf, "high": 1}, "float.low", "finite"),
        ("float", {"low": 0, "high": math.nan}, "float.high", "finite"),
        ("float", {"low": 0, "high": 1, "default": math.nan}, "float.default", "finite"),
        ("float", {"low": 0, "high": 1, "defualt": 1}, "float.defualt", "unknown key. Did you mean 'default'?"),
        ("float", {"low": 0, "high": 1, "q": 1}, "float.q", "Known here: low, high, scale, default"),
        ("int", {"low": 5, "high": 1}, "int", "low must be below high, but got low=5, high=1. Swap them?"),
        ("int", {"low": 1.5, "high": 4}, "int.low", "must be a whole number, but got 1.5"),
        ("int", {"low": 1, "high": True}, "int.high", "must be a whole number, but got True"),
        ("int", {"low": 0, "high": 4, "scale": "log"}, "int", "low must be above 0 on a log scale, but got 0"),
        ("int", {"low": 1, "high": 4, "scale": "log_complement"}, "int.scale", "not one of: linear, log"),
        ("int", {"low": 1, "high": 9, "scale": "log", "step": 2}, "int", "step must be 1 on a log scale, but got 2"),
        ("int", {"low": 1, "high": 4, "step": 0}, "int.step", "must be at least 1, but got 0"),
        ("int", {"low": 10, "high": 45, "step": 10}, "int", "but got high=45. The nearest is 40"),
        ("int", {"low": 10, "high": 40, "step": 10, "default": 25}, "int", "whole steps of 10, but got 25"),
        ("int", {"low": 1, "high": 4, "default": 7}, "int", "got default=7, low=1, high=4"),
        ("choice", {"values": []}, "choice.values", "at least 1 value, but got []"),
        ("choice", {"values": ["a", "b", "a"]}, "choice", "must differ from each other"),
        ("choice", {"values": ["a", "b"], "default": "c"}, "choice", "default must be one of ['a', 'b'], but got 'c'"),
        (
            "choice",
            {"values": ["a", "b"], "default": None},
            "choice",
            "default must be one of ['a', 'b'], but got None",
        ),
        ("choice", {"values": [False, "full"]}, "choice", "quote them?"),
        ("choice", {"default": 1}, "choice.values", "is required"),
    ],
)
def test_a_broken_rule_is_told_with_its_path_and_its_value(
    kind: str, keys: dict[str, Any], path: str, said: str
) -> None:
    problems = one(kind, **keys)
    assert list(problems) == [path]
    assert said in problems[path]


def test_a_default_of_another_type_is_not_one_of_the_values() -> None:
    assert "default must be one of [1, 2], but got True" in one("choice", values=[1, 2], default=True)["choice"]


def test_a_value_that_is_no_scalar_is_one_problem_of_the_choice() -> None:
    problems = one("choice", values=["adam", {"sgd": 1}])
    assert len(problems) == 1, problems


@pytest.mark.parametrize(
    ("parameter", "path", "said"),
    [
        ({}, "space.model.x", "must have exactly one of float, int, choice, but got none"),
        (
            {"float": {"low": 0, "high": 1}, "choice": [1, 2]},
            "space.model.x",
            "exactly one of float, int, choice, but got float and choice",
        ),
        ({"choice": [1, 2], "priority": 0}, "space.model.x.priority", "must be at least 1, but got 0"),
        ({"choice": [1, 2], "priority": 1.5}, "space.model.x.priority", "must be a whole number, but got 1.5"),
        ({"choice": [1, 2], "what": 3}, "space.model.x.what", "must be text, but got 3"),
        ({"choice": [1, 2], "priorty": 3}, "space.model.x.priorty", "Did you mean 'priority'?"),
        ({"flaot": {"low": 0, "high": 1}, "int": {"low": 0, "high": 1}}, "space.model.x.flaot", "mean 'float'?"),
        (None, "space.model.x", "must be a mapping, but got None"),
        ([0.1, 0.2], "space.model.x", "must be a mapping, but got [0.1, 0.2]"),
    ],
)
def test_a_parameter_has_one_kind_and_known_headings(parameter: Any, path: str, said: str) -> None:
    problems = wrong({"model.x": parameter})
    assert list(problems) == [path]
    assert said in problems[path]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("learning_rate", "Did you mean 'model.learning_rate'?"),
        ("modle.learning_rate", "Did you mean 'model'?"),
        ("model", "must be a config path below model, data or trainer"),
        ("objective.metric", "must be a config path below model, data or trainer"),
    ],
)
def test_a_path_must_begin_at_model_data_or_trainer(path: str, said: str) -> None:
    problems = wrong({path: {"choice": [1, 2]}})
    assert list(problems) == [f"space.{path}"]
    assert said in problems[f"space.{path}"]


def test_all_problems_of_a_space_are_told_at_once() -> None:
    problems = wrong(
        {
            "model.a": {"float": {"low": 2, "high": 1, "scale": "lin"}},
            "model.b": {"int": {"low": 1, "high": 4}, "choice": [1]},
            "data.c": {"choice": [], "priority": -1},
            "d": {"choice": [1, 2]},
            "model.e": {"choice": [1, 2], "when": {"model.nobody": 3}},
        }
    )
    assert set(problems) == {
        "space.model.a.float.scale",
        "space.model.b",
        "space.data.c.choice.values",
        "space.data.c.priority",
        "space.d",
        "space.model.e.when.model.nobody",
    }


@pytest.mark.parametrize("value", [None, 3, True, ["mlp"], 1.5])
def test_a_space_is_a_name_or_a_mapping(value: Any) -> None:
    assert "must be a name, a mapping or" in wrong(value)["space"]


# ---- scales --------------------------------------------------------------------------------------------------------

FLOATS = [
    FloatRange(low=-3.0, high=5.0),
    FloatRange(low=1e-6, high=1e2, scale="log"),
    FloatRange(low=0.0, high=0.999, scale="log_complement"),
    FloatRange(low=0.5, high=0.9999, scale="log_complement"),
]


@pytest.mark.parametrize("values", FLOATS, ids=lambda v: f"{v.scale} {v.low} {v.high}")
def test_a_float_goes_to_the_unit_scale_and_back(values: FloatRange) -> None:
    assert values.to_unit(values.low) == pytest.approx(0.0, abs=1e-12)
    assert values.to_unit(values.high) == pytest.approx(1.0)
    for i in range(21):
        assert values.to_unit(values.from_unit(i / 20)) == pytest.approx(i / 20, abs=1e-9)
    assert values.from_unit(0.0) == pytest.approx(values.low, rel=1e-12)
    assert values.from_unit(1.0) == pytest.approx(values.high, rel=1e-12)
    assert all(values.contains(values.from_unit(i / 100)) for i in range(101))


@pytest.mark.parametrize("values", [*FLOATS, IntRange(low=2, high=9), IntRange(low=1, high=512, scale="log")])
def test_a_unit_outside_its_range_lands_on_the_nearest_end(values: FloatRange | IntRange) -> None:
    assert values.from_unit(-0.3) == pytest.approx(values.low, rel=1e-12)
    assert values.from_unit(1.3) == pytest.approx(values.high, rel=1e-12)


def test_on_a_log_scale_each_decade_is_an_equal_step() -> None:
    values = FloatRange(low=1e-4, high=1.0, scale="log")
    assert [values.to_unit(10.0**-k) for k in (4, 3, 2, 1, 0)] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert values.from_unit(0.5) == pytest.approx(0.01)


def test_on_a_log_complement_scale_halving_the_rest_to_one_is_an_equal_step() -> None:
    values = FloatRange(low=0.0, high=1 - 2**-8, scale="log_complement")
    units = [values.to_unit(1 - 2.0**-k) for k in range(9)]
    assert units == pytest.approx([k / 8 for k in range(9)])
    assert values.from_unit(3 / 8) == pytest.approx(0.875)


def test_on_a_log_complement_scale_each_nine_is_an_equal_step() -> None:
    values = FloatRange(low=0.9, high=0.9999, scale="log_complement")
    assert values.to_unit(0.99) == pytest.approx(1 / 3)
    assert values.from_unit(2 / 3) == pytest.approx(0.999)


@pytest.mark.parametrize(
    "values",
    [
        IntRange(low=-2, high=7),
        IntRange(low=1, high=40, scale="log"),
        IntRange(low=1, high=2, scale="log"),
        IntRange(low=10, high=50, step=10),
    ],
)
def test_every_whole_number_goes_to_the_unit_scale_and_back(values: IntRange) -> None:
    for number in range(values.low, values.high + 1, values.step):
        assert 0 < values.to_unit(number) < 1
        assert values.from_unit(values.to_unit(number)) == number


def test_whole_numbers_share_the_unit_scale_evenly() -> None:
    values = IntRange(low=1, high=5)
    drawn = [values.from_unit((i + 0.5) / 1000) for i in range(1000)]
    assert {n: drawn.count(n) for n in range(1, 6)} == {1: 200, 2: 200, 3: 200, 4: 200, 5: 200}


def test_whole_numbers_in_steps_share_the_unit_scale_evenly_and_stay_on_the_steps() -> None:
    values = IntRange(low=0, high=9, step=3)
    drawn = [values.from_unit((i + 0.5) / 400) for i in range(400)]
    assert {n: drawn.count(n) for n in set(drawn)} == {0: 100, 3: 100, 6: 100, 9: 100}


def test_on_a_log_scale_each_doubling_of_a_whole_number_gets_about_the_same_share() -> None:
    values = IntRange(low=16, high=512, scale="log")
    drawn = [values.from_unit((i + 0.5) / 3200) for i in range(3200)]
    shares = [sum(16 * 2**k <= n < 32 * 2**k for n in drawn) / len(drawn) for k in range(5)]
    assert shares == pytest.approx([0.2] * 5, abs=0.02)
    assert all(type(n) is int for n in drawn)


# ---- when ----------------------------------------------------------------------------------------------------------

CHAIN = {
    "model.c": {"choice": [1, 2], "when": {"model.b": 3}},
    "model.b": {"int": {"low": 1, "high": 5, "default": 3}, "when": {"model.a": ["x", "y"]}},
    "model.a": {"choice": ["x", "y", "z"]},
}


def test_parents_come_before_the_parameters_that_depend_on_them() -> None:
    assert list(ok(CHAIN).parameters) == ["model.a", "model.b", "model.c"]


def test_a_single_value_stands_for_a_list_of_one() -> None:
    assert ok(CHAIN).conditions == {"model.b": {"model.a": ["x", "y"]}, "model.c": {"model.b": [3]}}


def test_a_parameter_applies_only_while_its_whole_chain_does() -> None:
    space = ok(CHAIN)
    assert space.active("model.a", {})
    assert space.active("model.b", {"model.a": "y"})
    assert not space.active("model.b", {"model.a": "z"})
    assert space.active("model.c", {"model.a": "x", "model.b": 3})
    assert not space.active("model.c", {"model.a": "x", "model.b": 4})
    assert not space.active("model.c", {"model.a": "z"})


def test_every_condition_must_hold() -> None:
    space = ok(
        {
            "model.a": {"choice": [1, 2]},
            "model.b": {"choice": [1, 2]},
            "model.c": {"choice": [1, 2], "when": {"model.a": 1, "model.b": 2}},
        }
    )
    applies = [(a, b) for a in (1, 2) for b in (1, 2) if space.active("model.c", {"model.a": a, "model.b": b})]
    assert applies == [(1, 2)]


def test_the_default_configuration_leaves_out_what_does_not_apply() -> None:
    assert ok(CHAIN).default_params() == {"model.a": "x", "model.b": 3, "model.c": 1}
    other = CHAIN | {"model.a": {"choice": {"values": ["x", "y", "z"], "default": "z"}}}
    assert ok(other).default_params() == {"model.a": "z"}


@pytest.mark.parametrize(
    ("when", "path", "said"),
    [
        ({"model.optimiser": "adam"}, "model.optimiser", "no such parameter in the space. Did you mean 'model.optim"),
        ({"model.x": 1}, "model.x", "no such parameter"),
        ({"model.optimizer": "adagrad"}, "model.optimizer", "model.optimizer never is 'adagrad'"),
        ({"model.depth": 9}, "model.depth", "model.depth never is 9"),
        ({"model.depth": "2"}, "model.depth", "model.depth never is '2'"),
        ({"model.optimizer": []}, "model.optimizer", "at least 1 value"),
    ],
)
def test_a_condition_that_can_never_hold_is_a_problem(when: dict[str, Any], path: str, said: str) -> None:
    problems = wrong(
        {
            "model.optimizer": {"choice": ["sgd", "adam"]},
            "model.depth": {"int": {"low": 1, "high": 5}},
            "model.x": {"choice": [1, 2], "when": when},
        }
    )
    assert list(problems) == [f"space.model.x.when.{path}"]
    assert said in problems[f"space.model.x.when.{path}"]


def test_each_impossible_value_of_a_condition_is_told() -> None:
    space, problems = read_space(
        {
            "model.optimizer": {"choice": ["sgd", "adam"]},
            "model.x": {"choice": [1, 2], "when": {"model.optimizer": ["adm", "sgd", "adgrad"]}},
        }
    )
    assert space is None
    assert ["adm" in problems[0].message, "adgrad" in problems[1].message] == [True, True]
    assert len(problems) == 2


def test_conditions_that_wait_for_each_other_are_a_problem() -> None:
    problems = wrong(
        {
            "model.a": {"choice": [1, 2], "when": {"model.c": 1}},
            "model.b": {"choice": [1, 2], "when": {"model.a": 1}},
            "model.c": {"choice": [1, 2], "when": {"model.b": 1}},
            "model.d": {"choice": [1, 2]},
        }
    )
    assert list(problems) == ["space"]
    assert "model.a, model.b, model.c wait for each other" in problems["space"]
    assert "model.d" not in problems["space"]


def test_a_condition_on_a_parameter_with_mistakes_is_not_a_second_mistake() -> None:
    problems = wrong(
        {"model.a": {"choice": [1, 1]}, "model.b": {"choice": [1, 2], "when": {"model.a": 1}}},
    )
    assert list(problems) == ["space.model.a.choice"]


def test_a_choice_of_a_shipped_space_may_lose_values_that_others_wait_for() -> None:
    before = ok("mlp")
    fewer = ok({"use": "mlp", "change": {"model.optimizer": {"choice": {"values": ["sgd", "adam"]}}}})
    assert fewer.parameters["model.adam_beta2"].when == {"model.optimizer": ["adam"]}
    assert fewer.parameters["model.learning_rate"].default_when == {"model.optimizer": {"adam": 0.005}}
    assert fewer.parameters.keys() == before.parameters.keys()
    only = ok({"use": "mlp", "change": {"model.optimizer": {"choice": ["sgd", "adagrad"]}}})
    assert before.parameters.keys() - only.parameters.keys() == {
        "model.adam_beta1",
        "model.adam_beta2",
        "model.adam_eps",
    }


def test_a_change_of_what_the_changes_take_away_is_told() -> None:
    optimizer = {"choice": {"values": ["adam", "adamw"], "default": "adam"}}
    change = {"model.optimizer": optimizer, "model.momentum": {"float": {"high": 0.99}}}
    problems = wrong({"use": "mlp", "change": change})
    assert list(problems) == ["space.change.model.momentum"]
    assert "only applies to values that the changes take away" in problems["space.change.model.momentum"]
    assert "model.momentum" not in ok({"use": "mlp", "change": change | {"model.momentum": None}}).parameters


# ---- default_when --------------------------------------------------------------------------------------------------

RATE: dict[str, Any] = {
    "model.rate": {
        "float": {"low": 1e-4, "high": 1.0, "scale": "log", "default": 0.1},
        "default_when": {"model.optimizer": {"adam": 1e-3, "rmsprop": 1e-9}},
    },
    "model.optimizer": {"choice": {"values": ["sgd", "adam", "rmsprop"], "default": "sgd"}},
}


def test_a_default_may_follow_another_parameter() -> None:
    space = ok(RATE)
    assert list(space.parameters) == ["model.optimizer", "model.rate"]
    assert space.default_params() == {"model.optimizer": "sgd", "model.rate": 0.1}
    assert space.complete({"model.optimizer": "adam"})["model.rate"] == 1e-3
    assert space.complete({"model.optimizer": "rmsprop"})["model.rate"] == 1e-4, "moved into the range"
    adam = {"model.optimizer": {"choice": {"values": ["sgd", "adam", "rmsprop"], "default": "adam"}}}
    assert ok(RATE | adam).default_params()["model.rate"] == 1e-3
    assert ok(space.document()).document() == space.document()


def test_a_default_that_follows_what_is_fixed_is_decided() -> None:
    left = ok(RATE).without({"model.optimizer": "adam"})
    assert left.defaults == {"model.rate": 1e-3}
    assert left.parameters["model.rate"].default_when == {}
    assert ok(RATE).without({"model.optimizer": "other"}).defaults == {"model.rate": 0.1}


def test_a_study_s_own_default_takes_the_place_of_all() -> None:
    own = ok({"use": "mlp", "change": {"model.learning_rate": {"float": {"default": 0.05}}}})
    assert own.complete({"model.optimizer": "adam"})["model.learning_rate"] == 0.05
    wider = ok({"use": "mlp", "change": {"model.learning_rate": {"float": {"high": 1.0}}}})
    assert wider.complete({"model.optimizer": "adam"})["model.learning_rate"] == 0.005


@pytest.mark.parametrize(
    ("parameter", "path", "said"),
    [
        (
            {"float": {"low": 0, "high": 1}, "default_when": {"model.b": {"z": 0.5}}},
            ".default_when.model.b",
            "never is 'z'",
        ),
        ({"float": {"low": 0, "high": 1}, "default_when": {"model.q": {"x": 0.5}}}, ".default_when.model.q", "no such"),
        (
            {"int": {"low": 0, "high": 1}, "default_when": {"model.b": {"x": 0.5}}},
            "",
            "is for a float, but this is int",
        ),
    ],
)
def test_a_wrong_default_when_is_told(parameter: dict[str, Any], path: str, said: str) -> None:
    problems = wrong({"model.a": parameter, "model.b": {"choice": ["x", "y"]}})
    assert list(problems) == [f"space.model.a{path}"]
    assert said in problems[f"space.model.a{path}"]


def test_beginning_elsewhere_moves_the_default_of_that_word_alone() -> None:
    moved = ok(RATE).starting_at({"model.optimizer": "adam", "model.rate": 0.01})
    assert moved.default_params() == {"model.optimizer": "adam", "model.rate": 0.01}
    assert moved.complete({"model.optimizer": "sgd"})["model.rate"] == 0.1


# ---- use, change ---------------------------------------------------------------------------------------------------


def test_a_shipped_space_is_used_by_its_name() -> None:
    space = ok("mlp")
    assert ok({"use": "mlp"}).document() == space.document()
    assert space.stated == frozenset()


def test_a_change_is_merged_into_the_parameter() -> None:
    before, after = ok("mlp"), ok({"use": "mlp", "change": {"model.momentum": {"float": {"high": 0.99}}}})
    momentum = after.parameters["model.momentum"]
    assert momentum.range == FloatRange(low=0.0, high=0.99, scale="log_complement", default=0.9)
    assert momentum.priority == 4
    assert momentum.when == {"model.optimizer": ["sgd"]}
    others = [path for path in before.parameters if path != "model.momentum"]
    assert [after.parameters[p] for p in others] == [before.parameters[p] for p in others]
    assert after.stated == {"model.momentum"}


def test_a_file_may_use_another_space(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("use: mlp\nchange:\n  model.depth: {int: {high: 2}}\n  model.dropout: null\n")
    space = ok(str(mine))
    assert space.parameters["model.depth"].range.contains(2)
    assert not space.parameters["model.depth"].range.contains(3)
    assert space.parameters.keys() == ok("mlp").parameters.keys() - {"model.dropout"}
    assert space.stated == frozenset()
    further = ok({"use": str(mine), "change": {"model.depth": {"priority": 1}}})
    assert further.priorities["model.depth"] == 1
    assert not further.parameters["model.depth"].range.contains(3)
    assert further.stated == {"model.depth"}


def test_files_that_use_each_other_are_told(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(f"use: {other}\n")
    other.write_text(f"use: {one}\n")
    assert "use each other. Drop one `use`." in wrong(str(one))["space.use.use"]


def test_a_mistake_in_a_file_that_is_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("use: mlpp\n")
    assert "Did you mean 'mlp'?" in wrong(str(tmp_path / "mine.yaml"))["space.use"]


def test_a_change_of_the_priority_leaves_the_range_alone() -> None:
    after = ok({"use": "mlp", "change": {"model.dropout": {"priority": 2}}})
    assert after.priorities["model.dropout"] == 2
    assert after.parameters["model.dropout"].range == ok("mlp").parameters["model.dropout"].range


def test_a_change_of_kind_replaces_the_range() -> None:
    after = ok({"use": "mlp", "change": {"model.hidden_units": {"choice": [32, 64]}}}).parameters["model.hidden_units"]
    assert after.kind == "choice"
    assert after.range == Choice(values=[32, 64])
    assert after.priority == 3


def test_null_removes_a_parameter() -> None:
    after = ok({"use": "mlp", "change": {"model.dropout": None, "model.depth": None}})
    assert set(ok("mlp").parameters) - set(after.parameters) == {"model.dropout", "model.depth"}
    assert after.stated == frozenset()


def test_a_change_may_add_a_parameter() -> None:
    clip = {"float": {"low": 0.1, "high": 10.0, "scale": "log"}, "priority": 8}
    after = ok({"use": "mlp", "change": {"trainer.gradient_clip_val": clip}})
    assert after.parameters["trainer.gradient_clip_val"].range == FloatRange(low=0.1, high=10.0, scale="log")
    assert after.stated == {"trainer.gradient_clip_val"}


def test_a_change_that_breaks_the_merged_parameter_is_told() -> None:
    problems = wrong({"use": "mlp", "change": {"model.learning_rate": {"float": {"high": 0.05}}}})
    assert "got default=0.3, low=0.0001, high=0.05" in problems["space.model.learning_rate.float"]


def test_removing_a_parent_that_others_wait_for_is_told() -> None:
    problems = wrong({"use": "mlp", "change": {"model.optimizer": None}})
    assert "space.model.momentum.when.model.optimizer" in problems


@pytest.mark.parametrize(
    ("value", "path", "said"),
    [
        ("mpl", "space", "no space 'mpl', neither shipped nor a YAML file here. Did you mean 'mlp'?"),
        ("transformer", "space", "Shipped: densenet, lenet, mlp"),
        ({"use": "mpl"}, "space.use", "Did you mean 'mlp'?"),
        ({"use": 3}, "space.use", "must be the name of a space, but got 3"),
        ({"use": "mlp", "chnage": {}}, "space.chnage", "unknown key. Did you mean 'change'?"),
        ({"use": "mlp", "change": ["model.momentum"]}, "space.change", "must be a mapping of parameters"),
    ],
)
def test_an_unknown_space_or_key_draws_a_suggestion(value: Any, path: str, said: str) -> None:
    problems = wrong(value)
    assert list(problems) == [path]
    assert said in problems[path]


def test_the_problems_of_use_and_of_its_neighbours_are_told_together() -> None:
    assert set(wrong({"use": "mpl", "change": 3, "also": 1})) == {"space.use", "space.change", "space.also"}


def test_removing_a_parameter_that_is_not_there_is_a_mistake_with_a_suggestion() -> None:
    _, problems = read_space({"use": "mlp", "change": {"model.momentun": None}})
    assert ["Did you mean 'model.momentum'?" in problem.message for problem in problems] == [True]


def test_a_partial_change_of_an_unknown_parameter_suggests_the_one_that_was_meant() -> None:
    problems = wrong({"use": "mlp", "change": {"model.momentun": {"float": {"high": 0.99}}}})
    assert any("Did you mean 'model.momentum'?" in message for message in problems.values()), problems


def test_a_space_may_be_a_yaml_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model.x:\n  float: {low: 1e-4, high: 1e-1, scale: log}\n")
    assert ok(str(path)).parameters["model.x"].range == FloatRange(low=1e-4, high=0.1, scale="log")
    assert ok({"use": str(path), "change": {"model.x": {"priority": 1}}}).priorities == {"model.x": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "must hold a mapping of parameters"),
        ("model.x: {float: [}\n", "not valid YAML"),
        ("model.x: {choice: [1, 2]}\nmodel.x: {choice: [1]}\n", "line 2: key 'model.x' is given twice"),
    ],
)
def test_a_space_file_with_mistakes_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert said in wrong(str(path))["space"]


# ---- YAML ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 0.0001), ("1E5", 1e5), ("-2.5e3", -2500.0), ("+.5e1", 5.0), ("1.0e-4", 0.0001), ("6e2", 600.0)],
)
def test_a_number_with_an_exponent_is_a_float(text: str, value: float) -> None:
    read, problems = read_yaml(f"a: {text}")
    assert problems == []
    assert read == {"a": value}
    assert type(read["a"]) is float


@pytest.mark.parametrize(
    ("text", "value"), [("1e", "1e"), ("e5", "e5"), ("'1e-4'", "1e-4"), ("1-4", "1-4"), ("12", 12), ("0.5", 0.5)]
)
def test_other_scalars_are_read_as_yaml_reads_them(text: str, value: Any) -> None:
    assert read_yaml(f"a: {text}") == ({"a": value}, [])


def test_a_key_given_twice_is_told_with_its_line() -> None:
    _, problems = read_yaml("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\na: 2\n")
    assert {p.message for p in problems} == {
        "line 5: key 'c' is given twice. Keep one.",
        "line 6: key 'a' is given twice. Keep one.",
    }


def test_a_merged_key_may_be_overridden() -> None:
    assert read_yaml("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  x: 3\n") == (
        {"base": {"x": 1, "y": 2}, "more": {"x": 3, "y": 2}},
        [],
    )


def test_two_merges_into_one_mapping_are_no_key_given_twice() -> None:
    text = "a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n"
    assert read_yaml(text) == ({"a": {"x": 1}, "b": {"y": 2}, "c": {"x": 1, "y": 2}}, [])


@pytest.mark.parametrize(
    ("text", "where"),
    [("a: [1, 2\nb: 3", "line 2, column"), ("a: b: c", "line 1, column 5"), ("a: !!python/object:x.Y {}", "line 1")],
)
def test_text_that_is_no_yaml_is_told_with_its_place(text: str, where: str) -> None:
    document, problems = read_yaml(text, "here")
    assert document is None
    assert [p.path for p in problems] == ["here"]
    assert problems[0].message.startswith("is not valid YAML")
    assert where in problems[0].message


def test_a_character_that_yaml_forbids_is_told_like_any_other_mistake() -> None:
    document, problems = read_yaml("a: \x07bell")
    assert document is None
    assert [p.message.startswith("is not valid YAML") for p in problems] == [True]


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "true"])
def test_a_bare_no_among_words_is_rejected_and_told_to_be_quoted(word: str) -> None:
    space, told = in_file(f"model.norm: {{choice: [batch, layer, {word}]}}\n")
    assert space is None
    assert ["quote them?" in line and "space.model.norm.choice" in line for line in told] == [True]


def test_a_quoted_no_is_a_word() -> None:
    space, told = in_file("model.norm: {choice: [batch, 'no']}\n")
    assert told == []
    assert space is not None
    assert space.parameters["model.norm"].range == Choice(values=["batch", "no"])


def test_true_and_false_alone_are_a_choice() -> None:
    space, told = in_file("data.flat: {choice: [yes, no]}\n")
    assert told == []
    assert space is not None
    assert space.defaults == {"data.flat": True}


def test_what_is_written_reads_back_in_any_yaml_reader() -> None:
    document = {"a": 1e-4, "b": 1e30, "c": "1e-4", "d": "no", "e": None, "f": [True, 0.1, "β"], "g": 3}
    assert yaml.safe_load(write_yaml(document)) == document
    assert read_yaml(write_yaml(document)) == (document, [])


# ---- without -------------------------------------------------------------------------------------------------------


def test_a_fixed_path_leaves_the_space_and_decides_the_conditions_on_it() -> None:
    left = ok("mlp").without({"model.optimizer": "adam"})
    assert not {"model.optimizer", "model.momentum", "model.nesterov"} & left.parameters.keys()
    assert {"model.adam_beta1", "model.adam_beta2", "model.adam_eps"} <= left.parameters.keys()
    assert left.conditions.keys() == {"model.lr_decay", "model.penalty_p"}


def test_a_value_that_the_space_does_not_know_switches_all_that_depends_on_it_off() -> None:
    left = ok("mlp").without({"model.optimizer": "lion"})
    gone = ok("mlp").parameters.keys() - left.parameters.keys()
    assert gone == {
        "model.optimizer",
        "model.momentum",
        "model.nesterov",
        "model.adam_beta1",
        "model.adam_beta2",
        "model.adam_eps",
    }


def test_what_depends_on_a_dropped_parameter_is_dropped_too() -> None:
    assert list(ok(CHAIN).without({"model.a": "z"}).parameters) == []
    left = ok(CHAIN).without({"model.a": "y"})
    assert left.conditions == {"model.c": {"model.b": [3]}}


def test_fixing_a_path_in_the_middle_of_a_chain_decides_what_is_below_it() -> None:
    left = ok(CHAIN).without({"model.b": 3})
    assert list(left.parameters) == ["model.a", "model.c"]
    assert left.active("model.c", {"model.a": "z"})


def test_fixing_nothing_changes_nothing() -> None:
    assert ok(CHAIN).without({}) == ok(CHAIN)


def test_fixing_one_of_two_conditions_leaves_the_other() -> None:
    space = ok(
        {
            "model.a": {"choice": [1, 2]},
            "model.b": {"choice": [1, 2]},
            "model.c": {"choice": [1, 2], "when": {"model.a": 1, "model.b": 2}},
        }
    )
    assert space.without({"model.a": 1}).conditions == {"model.c": {"model.b": [2]}}
    assert list(space.without({"model.a": 2}).parameters) == ["model.b"]


def test_the_space_itself_is_not_changed_by_fixing() -> None:
    space = ok("mlp")
    before = space.document()
    space.without({"model.optimizer": "adam", "model.depth": 3})
    assert space.document() == before


# ---- document ------------------------------------------------------------------------------------------------------

SPACES: dict[str, Any] = {
    "mlp": "mlp",
    "mlp with changes": {"use": "mlp", "change": {"model.hidden_units": {"choice": [32, 64]}, "model.depth": None}},
    "a chain of conditions": CHAIN,
    "every kind": {
        "model.a": {"float": {"low": 0, "high": 1}, "what": "a", "why": "b", "priority": 2},
        "model.b": {"int": {"low": 0, "high": 9, "step": 3, "default": 3}},
        "model.c": {"choice": {"values": [None, 1, 1.5, "x"], "default": "x"}},
        "data.d": {"choice": [True, False], "when": {"model.c": [None, 1]}},
    },
}


@pytest.mark.parametrize("value", SPACES.values(), ids=SPACES.keys())
def test_the_document_of_a_space_reads_back_to_the_same_space(value: Any) -> None:
    space = ok(value)
    again = ok(space.document())
    assert again.parameters == space.parameters
    assert list(again.parameters) == list(space.parameters)
    assert again.stated == space.parameters.keys()


@pytest.mark.parametrize("value", SPACES.values(), ids=SPACES.keys())
def test_the_document_of_a_space_survives_a_yaml_file(value: Any) -> None:
    document = ok(value).document()
    assert read_yaml(write_yaml(document)) == (document, [])


def test_the_document_keeps_the_order_in_which_parameters_are_proposed() -> None:
    # Samplers draw in this order: a worker that reads the stored document must draw what its neighbour draws.
    left = ok(
        {
            "model.a": {"choice": [1, 2]},
            "model.b": {"choice": [1, 2]},
            "model.c": {"choice": [1, 2], "when": {"model.b": 1}},
            "model.d": {"choice": [1, 2], "when": {"model.a": 1}},
        }
    ).without({"model.a": 1})
    assert list(ok(left.document()).parameters) == list(left.parameters)


# ---- what the shipped spaces promise -------------------------------------------------------------------------------


def test_the_spaces_that_are_shipped_are_known() -> None:
    assert shipped_spaces() == sorted([*FAMILIES, "optimiser"])


def owners(name: str) -> list[dict[str, type]]:
    """The classes that a shipped space is for; what all networks share is for every one of them."""
    pairs = FAMILIES.values() if name == "optimiser" else [FAMILIES[name]]
    return [{"model": model, "data": data, "trainer": L.Trainer} for model, data in pairs]


def _stated(parameter: Parameter) -> Any:
    return parameter.range.default


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_parameter_says_what_and_why_and_in_which_order(name: str) -> None:
    for path, parameter in ok(name).parameters.items():
        assert len(parameter.what.split()) >= 2, path
        assert len(parameter.why.split()) >= 4, path
        assert parameter.priority is not None, path


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_parameter_states_a_default_in_its_range(name: str) -> None:
    for path, parameter in ok(name).parameters.items():
        assert _stated(parameter) is not None, path
        assert parameter.range.contains(_stated(parameter)), path
        assert parameter.default == _stated(parameter), path


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_parameter_is_an_argument_of_what_it_configures(name: str) -> None:
    for path in ok(name).parameters:
        root, _, argument = path.partition(".")
        for owner in owners(name):
            assert argument in inspect.signature(owner[root]).parameters, path


@pytest.mark.parametrize("name", FAMILIES)
def test_every_default_of_a_family_s_space_is_the_class_s_own(name: str) -> None:
    # Removing a parameter from the space must not silently change what is trained.
    (owner,) = owners(name)
    for path, parameter in ok(name).parameters.items():
        root, _, argument = path.partition(".")
        assert inspect.signature(owner[root]).parameters[argument].default == parameter.default, path


@pytest.mark.parametrize("name", FAMILIES)
def test_every_value_of_a_family_s_space_is_one_that_the_model_takes(name: str) -> None:
    model, _ = FAMILIES[name]
    space = ok(name)
    for path, parameter in space.parameters.items():
        ranged = parameter.range
        for value in ranged.values if isinstance(ranged, Choice) else (ranged.low, ranged.high):
            params = space.default_params() | {path: value}
            for parent, values in parameter.when.items():
                params[parent] = values[0]
            arguments = {at.removeprefix("model."): v for at, v in params.items() if at.startswith("model.")}
            model(**arguments)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_shares_the_optimiser_s_space(name: str) -> None:
    space = ok(name)
    for path, parameter in ok("optimiser").parameters.items():
        shared = space.parameters[path]
        assert (shared.what, shared.priority, shared.when) == (parameter.what, parameter.priority, parameter.when), path


@pytest.mark.parametrize("name", FAMILIES)
def test_the_documented_order_of_priorities_is_the_one_shipped(name: str) -> None:
    # documented.md §1
    priorities = ok(name).priorities
    documented = {
        "model.learning_rate": 1,
        "data.batch_size": 2,
        "model.hidden_units": 3,
        "model.momentum": 4,
        "model.depth": 5,
        "model.lr_decay": 6,
        "model.adam_beta1": 7,
        "model.adam_beta2": 7,
        "model.adam_eps": 7,
    }
    assert {path: priorities[path] for path in documented} == documented
    widths_and_depths = {"model.channels", "model.stages", "model.blocks"}  # hidden units and depth by other names
    rest = priorities.keys() - documented.keys() - widths_and_depths
    assert all(priorities[path] > 7 for path in rest)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_documented_scales_are_the_ones_shipped(name: str) -> None:
    # documented.md §1
    parameters = ok(name).parameters
    scales = {path: getattr(p.range, "scale", None) for path, p in parameters.items()}
    assert scales["model.learning_rate"] == "log"
    assert scales["model.hidden_units"] == "log"
    assert [scales[f"model.{n}"] for n in ("momentum", "adam_beta1", "adam_beta2")] == ["log_complement"] * 3
    assert scales["model.adam_eps"] == "log"
    sizes = parameters["data.batch_size"].range
    assert isinstance(sizes, Choice)
    assert all(math.log2(float(size)).is_integer() for size in sizes.values if size is not None)
    assert parameters["model.hidden_units"].kind == parameters["model.depth"].kind == "int"
