"""Our arithmetic of PED-ANOVA and fANOVA gives what Optuna's evaluators give, trial by trial."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from tuner.insight import anova
from tuner.space import Choice, IntRange, Parameter, read_space

Config = Mapping[str, Any]
MLP, _ = read_space("mlp")
STEPS, _ = read_space(
    {
        "model.width": {"int": {"low": 10, "high": 4000, "step": 10}},  # more values than the grid has cells
        "model.layers": {"int": {"low": 1, "high": 3}},
        "model.units": {"int": {"low": 1, "high": 100_000, "scale": "log"}},
        "model.kind": {"choice": ["a", "b"]},
        "trainer.gradient_clip_val": {"choice": [None, 0.5, 1.0]},  # None is a value as any other
        "model.rate": {
            "float": {"low": 1e-5, "high": 1.0, "scale": "log", "default": 0.1},
            "when": {"model.kind": "b"},
        },
    }
)
SPACES = {"mlp": MLP, "steps": STEPS}


def drawn(name: str, count: int, seed: int, ties: bool) -> tuple[Mapping[str, Parameter], list[Config], list[float]]:
    """Configurations of a space, and ranks that some of their parameters move."""
    space, draw = SPACES[name], np.random.default_rng(seed)
    assert space is not None
    configs: list[Config] = []
    for _ in range(count):
        config: dict[str, Any] = {}
        for path, parameter in space.parameters.items():
            if space.active(path, config):
                allowed, unit = parameter.range, float(draw.random())
                choice = isinstance(allowed, Choice)
                config[path] = allowed.values[int(unit * len(allowed.values))] if choice else allowed.from_unit(unit)
        configs.append(config)
    varied = {p: q for p, q in space.parameters.items() if len({c[p] for c in configs if p in c}) > 1}
    configs = [{path: value for path, value in config.items() if path in varied} for config in configs]
    first, *_, last = varied
    assert any(None in config.values() for config in configs) == (name == "steps")
    ranks = [3 * place(varied[first], c.get(first)) + place(varied[last], c.get(last)) + draw.random() for c in configs]
    return varied, configs, [float(round(rank) if ties else rank) for rank in ranks]


def place(parameter: Parameter, value: Any) -> float:
    """The place in [0, 1] of a value; of none, the middle."""
    return 0.5 if value is None else unit_axis(parameter)[1](value)


def optunas(
    axes: Mapping[str, tuple[BaseDistribution, Any]], configs: Sequence[Config], ranks: Sequence[float]
) -> optuna.Study:
    study = optuna.create_study()
    for config, rank in zip(configs, ranks, strict=True):
        here = [path for path in axes if path in config]
        params = {path: axes[path][1](config[path]) for path in here}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions={p: axes[p][0] for p in here}, value=rank)
        )
    return study


def shares(importances: Mapping[str, float]) -> dict[str, float]:
    return {path: value / sum(importances.values()) for path, value in importances.items()}


def grid_axis(parameter: Parameter) -> tuple[BaseDistribution, Any]:
    allowed = parameter.range
    if isinstance(allowed, Choice):
        return CategoricalDistribution(range(len(allowed.values))), allowed.values.index
    if isinstance(allowed, IntRange):
        return IntDistribution(allowed.low, allowed.high, log=allowed.scale == "log", step=allowed.step), int
    return FloatDistribution(0.0, 1.0), allowed.to_unit


def unit_axis(parameter: Parameter) -> tuple[BaseDistribution, Any]:
    allowed = parameter.range
    if isinstance(allowed, Choice):
        return FloatDistribution(0.0, 1.0), lambda value: (allowed.values.index(value) + 0.5) / len(allowed.values)
    return FloatDistribution(0.0, 1.0), allowed.to_unit


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("name", "count"), [("mlp", 12), ("mlp", 90), ("steps", 12), ("steps", 60), ("steps", 250)])
def test_ped_anova_is_optuna_s(name: str, count: int, ties: bool) -> None:
    parameters, configs, ranks = drawn(name, count, count, ties)
    found = anova.ped_anova(parameters, configs, ranks)
    assert found is not None
    best = max(-(-count // 10), 5)
    study = optunas({path: grid_axis(parameter) for path, parameter in parameters.items()}, configs, ranks)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=(best - 0.5) / count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = shares(evaluator.evaluate(study, params=list(parameters)))
    assert dict(found.shares) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("name", "count"), [("mlp", 12), ("mlp", 90), ("steps", 60)])
def test_fanova_is_optuna_s(name: str, count: int, ties: bool) -> None:
    parameters, configs, ranks = drawn(name, count, count, ties)
    found = anova.fanova(parameters, configs, ranks)
    defaults = {path: parameter.default for path, parameter in parameters.items()}
    axes = {path: unit_axis(parameter) for path, parameter in parameters.items()}
    study = optunas(axes, [defaults | dict(config) for config in configs], ranks)
    evaluator = FanovaImportanceEvaluator(n_trees=anova.TREES, max_depth=anova.MAX_DEPTH, seed=anova.SEED)
    assert found == pytest.approx(shares(evaluator.evaluate(study, params=list(parameters))), abs=1e-9)


def test_ranks_that_do_not_vary_leave_nothing_to_measure() -> None:
    parameters, configs, _ = drawn("steps", 20, 0, ties=False)
    assert anova.fanova(parameters, configs, [1.0] * 20) == {}
    assert anova.ped_anova(parameters, configs, [1.0] * 20) is None


def test_a_tree_of_many_trials_is_grown_from_some_and_the_answer_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, configs, ranks = drawn("steps", 1500, 0, ties=False)
    by_some = anova.fanova(parameters, configs, ranks)
    monkeypatch.setattr(anova, "TRIALS_A_TREE", 1500)
    by_all = anova.fanova(parameters, configs, ranks)
    assert by_some != by_all
    assert by_some == pytest.approx(by_all, abs=0.05)
