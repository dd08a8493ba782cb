"""What is tried next: priorities, categories that nobody tried, cohorts, and trials that count although they failed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from tuner.search import PrioritySampler, search_space
from tuner.search.cube import Cube
from tuner.search.priority import values_of
from tuner.search.proposal import MOST, Observed, Proposer, _log_improvement, _standardised, thinned

pytestmark = pytest.mark.usefixtures("one_thread")

AXES: dict[str, BaseDistribution] = {f"p{i}": FloatDistribution(0.0, 1.0) for i in range(1, 7)}


def proposer(ranks: list[float] | None = None, distributions: dict[str, BaseDistribution] | None = None) -> Proposer:
    axes = distributions or AXES
    cube = Cube(axes, {}, {name: 0.5 for name in axes if isinstance(axes[name], FloatDistribution)})
    return Proposer(cube, np.array(ranks or [1.0, 2, 3, 4, 5, 6]))


def seen(points: Any, values: Any, running: Any = None) -> Observed:
    points = np.asarray(points, dtype=float)
    return Observed(
        points, np.asarray(values, float), np.empty((0, points.shape[1])) if running is None else running, len(values)
    )


def study_of(objective: Any, trials: int, seed: int = 0, **sampler: Any) -> optuna.Study:
    study = optuna.create_study(sampler=PrioritySampler(seed=seed, **sampler))
    study.optimize(objective, n_trials=trials)
    return study


# ---- the model chooses ---------------------------------------------------------------------------------------------


def test_it_finds_the_minimum_of_a_smooth_function_in_few_trials() -> None:
    def bowl(trial: optuna.Trial) -> float:
        return sum(
            w * (trial.suggest_float(n, 0, 1) - g) ** 2 for n, w, g in [("a", 9, 0.2), ("b", 3, 0.8), ("c", 1, 0.6)]
        )

    defaults = {"a": 0.5, "b": 0.5, "c": 0.5}
    best = [
        study_of(bowl, 25, seed, priorities={"a": 1, "b": 2, "c": 3}, defaults=defaults).best_value for seed in range(3)
    ]
    assert max(best) < 0.02


def test_the_improvement_is_that_of_a_normal_variable() -> None:
    points = np.random.default_rng(0).random((12, 6))
    values = _standardised(points[:, 0] + points[:, 1] ** 2)
    from tuner.search.gaussian_process import GaussianProcess, Prior

    model = GaussianProcess.fit(points, values, np.ones(6, bool), Prior(np.zeros(6)))
    new = np.random.default_rng(1).random((5, 6))
    mean, variance = model.predict(new)
    best = model.predict(points)[0].min()
    draws = np.random.default_rng(2).normal(size=(400_000, 1)) * np.sqrt(variance) + mean
    by_hand = np.maximum(best - draws, 0).mean(axis=0)
    score = _log_improvement(model, np.ones(12, bool))(new)
    likely = by_hand > 1e-4
    assert likely.any()
    assert np.exp(score)[likely] == pytest.approx(by_hand[likely], rel=0.1)
    assert np.isfinite(_log_improvement(model, np.ones(12, bool))(np.repeat(points, 2, axis=0))).all()


def test_while_nothing_is_known_mutations_of_the_defaults_move_high_priorities_most() -> None:
    nothing = seen(np.empty((0, 6)), [])
    moved = np.array([proposer().propose(nothing, np.random.default_rng(i)) != 0.5 for i in range(400)])
    share = moved.mean(axis=0)
    assert all(share[:-1] > share[1:]), share
    assert share[0] > 0.6 > 0.25 > share[-1] > 0.02


def test_a_step_that_made_it_worse_is_tried_the_other_way() -> None:
    rest, step = np.full(6, 0.5), np.array([0.1, 0.0, -0.2, 0.0, 0.0, 0.0])
    random = np.random.default_rng(0)
    worse = seen([rest, rest + step], [1.0, 2.0])
    np.testing.assert_allclose(proposer().propose(worse, random), rest - step)
    asked = seen([rest, rest + step], [1.0, 2.0], running=np.array([rest - step]))
    assert not np.allclose(proposer().propose(asked, random), rest - step), "another worker tries it"
    better = seen([rest, rest + step], [2.0, 1.0])
    assert not np.allclose(proposer().propose(better, random), rest - step)


def test_what_has_no_default_is_not_mirrored() -> None:
    cube = Cube({"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}, {}, {"a": 0.5})
    tried = seen([[0.5, 0.9], [0.6, 0.2]], [1.0, 2.0])
    drawn = Proposer(cube, np.array([1.0, 1.0])).propose(tried, np.random.default_rng(0))
    np.testing.assert_allclose(drawn, [0.4, 0.9])


def test_points_that_are_running_are_not_proposed_again_and_push_others_away() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((20, 6))
    values = (points[:, 0] - 0.3) ** 2
    first = proposer().propose(seen(points, values), np.random.default_rng(5))
    again = proposer().propose(seen(points, values, first[None]), np.random.default_rng(5))
    assert np.abs(first - again).max() > 0.01


def test_sixteen_workers_that_ask_at_once_get_sixteen_proposals() -> None:
    space = search_space("mlp")
    study = optuna.create_study(sampler=PrioritySampler.from_space(space, seed=0))
    for number in range(12):
        trial = study.ask(space.distributions())
        study.tell(trial, 1.0 + number % 3)
    asked = [study.ask(space.distributions()).params for _ in range(16)]
    assert len({repr(sorted(params.items())) for params in asked}) == 16


def test_a_choice_that_nobody_tried_is_tried() -> None:
    axes: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(list("abcd"))}
    cube = Cube(axes, {}, {"x": 0.5, "kind": "a"})
    chooser = Proposer(cube, np.array([1.0, 8.0]))
    points, tried = [cube.rest], set()
    for number in range(30):
        values = [abs(p[0] - 0.4) for p in points]
        points.append(chooser.propose(seen(points, values), np.random.default_rng(number)))
        tried.add(cube.decode(points[-1])["kind"])
    assert tried == set("abcd")


# ---- cohorts -------------------------------------------------------------------------------------------------------


def test_a_cohort_agrees_on_its_shape_and_differs_elsewhere() -> None:
    space = search_space("mlp")
    sampler = PrioritySampler.from_space(space, seed=0)
    shape = ("data.batch_size", "model.hidden_units", "model.depth", "model.norm", "model.activation")
    study = optuna.create_study()
    for _ in range(3):
        configs = sampler.cohort(study, space.distributions(), 8, shape)
        assert len({repr([config[name] for name in shape]) for config in configs}) == 1
        assert len({config["model.learning_rate"] for config in configs}) == 8
        for config in configs:
            value = abs(math.log(config["model.learning_rate"] / 0.05))
            study.add_trial(optuna.create_trial(value=value, params=config, distributions=space.distributions()))


def test_the_first_cohort_is_the_defaults_and_a_sweep_of_the_first_priority() -> None:
    space = search_space("mlp")
    configs = PrioritySampler.from_space(space, seed=0).cohort(optuna.create_study(), space.distributions(), 8)
    assert configs[0] == space.defaults
    sgd = [config for config in configs if config["model.optimizer"] == "sgd"]  # others have other defaults
    rates = sorted(math.log(config["model.learning_rate"] / 0.3) for config in sgd)
    assert rates[0] < -math.log(10), "far below the default"
    assert rates[-1] > math.log(5), "far above it"
    assert sum(abs(rate) < math.log(10) for rate in rates) > len(rates) / 2, "most of them near"
    eps = [config["model.adam_eps"] for config in configs if "model.adam_eps" in config]
    assert eps.count(1e-8) >= len(eps) - 2, "the last priority stays, mostly"


@pytest.mark.parametrize("size", [1, 2, 7, 8, 16])
def test_a_first_cohort_has_no_trial_twice(size: int) -> None:
    space = search_space("mlp")
    for seed in range(20):
        sampler = PrioritySampler.from_space(space, seed=seed)
        configs = sampler.cohort(optuna.create_study(), space.distributions(), size, ("data.batch_size",))
        assert len({repr(sorted(config.items(), key=str)) for config in configs}) == size


# ---- what trials count as ------------------------------------------------------------------------------------------


def trial(state: TrialState, value: float | None, curve: dict[int, float] | None = None) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(state=state, value=value, intermediate_values=curve or {})


def test_pruned_trials_count_with_what_they_would_have_become_and_infeasible_ones_as_the_worst() -> None:
    trials = [
        trial(TrialState.COMPLETE, 1.0, {1: 4.0, 2: 2.0}),
        trial(TrialState.COMPLETE, 3.0, {1: 9.0, 2: 4.0}),
        trial(TrialState.PRUNED, None, {1: 6.0, 2: 4.0}),  # 4 · median(1/2, 3/4)
        trial(TrialState.PRUNED, None, {1: 2.4}),  # 2.4 · median(1/4, 1/3) = 0.7, but never better than the best
        trial(TrialState.PRUNED, None),
    ]
    assert values_of(trials, 1.0).tolist() == pytest.approx([1.0, 3.0, 2.5, 1.0, 3.0])


def test_where_values_may_be_negative_differences_count_instead_of_ratios() -> None:
    trials = [
        trial(TrialState.COMPLETE, 0.9, {1: 0.5}),
        trial(TrialState.COMPLETE, 0.8, {1: 0.6}),
        trial(TrialState.PRUNED, None, {1: 0.2}),  # to be maximised: 0.2 + median(0.4, 0.2)
    ]
    assert values_of(trials, -1.0).tolist() == pytest.approx([-0.9, -0.8, -0.5])


def test_a_wall_in_the_space_is_learnt() -> None:
    def wall(asked: optuna.Trial) -> float:
        x, y = asked.suggest_float("x", 0, 1), asked.suggest_float("y", 0, 1)
        if x > 0.6:
            raise optuna.TrialPruned
        return 1 - x + 0.1 * y  # gets better towards the wall

    wasted = [
        sum(t.state is TrialState.PRUNED for t in study_of(wall, 60, seed, defaults={"x": 0.3, "y": 0.5}).trials)
        for seed in range(4)
    ]
    assert max(wasted) < 20, "a third of 60"


def test_of_many_trials_the_best_and_some_others_are_kept() -> None:
    values = np.random.default_rng(0).random(1000)
    kept = thinned(values, np.random.default_rng(1))
    assert len(kept) == len(set(kept.tolist())) == MOST
    assert set(np.argsort(values)[:120].tolist()) <= set(kept.tolist())
    assert values[kept].max() > 0.9
    assert thinned(values[:50], np.random.default_rng(1)).tolist() == list(range(50))


def test_a_diverged_trial_does_not_drown_the_others() -> None:
    standard = _standardised(np.array([0.10, 0.11, 0.12, 0.13, 0.14, 1e6]))
    good = np.diff(standard[:3])
    assert good.min() > 0.05
    assert standard[-1] < 5
