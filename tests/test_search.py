"""The search: what every sampler and pruner promises, how stated priorities drive one, and the copy for Optuna."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import random
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState as OptunaState

from tuner.errors import SpecError
from tuner.search import OptunaCopy, PrioritySampler, Search, create_optuna_tables, open_priorities, search_space
from tuner.search.history import History
from tuner.search.pruners import PRUNERS, MedianPruner
from tuner.search.samplers import SAMPLERS
from tuner.space import Space, read_space
from tuner.storage import OptunaTables
from tuner.trial import Objective, Trial, TrialResult, TrialState

pytestmark = pytest.mark.usefixtures("one_thread")

LOSS = Objective("val_loss", "minimize")
ACCURACY = Objective("val_acc", "maximize")
EPOCHS = 10

EVERY_KIND: dict[str, Any] = {
    "model.optimizer": {"choice": ["sgd", "adam"], "priority": 3},
    "model.learning_rate": {"float": {"low": 1e-3, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1},
    "model.momentum": {
        "float": {"low": 0.0, "high": 0.99, "scale": "log_complement", "default": 0.9},
        "priority": 2,
        "when": {"model.optimizer": "sgd"},
    },
    "model.adam_beta2": {
        "float": {"low": 0.9, "high": 0.9999, "scale": "log_complement"},
        "when": {"model.optimizer": "adam"},
    },
    "model.amsgrad": {"choice": [False, True], "when": {"model.optimizer": "adam", "model.depth": [1, 2, 3]}},
    "model.depth": {"int": {"low": 1, "high": 5, "default": 2}, "priority": 4},
    "model.hidden_units": {"int": {"low": 8, "high": 64, "scale": "log"}, "priority": 2},
    "data.batch_size": {"choice": {"values": [16, 32, 64, 128], "default": 64}, "priority": 2},
    "model.dropout": {"float": {"low": 0.0, "high": 0.5}, "priority": 5},
    "trainer.gradient_clip_val": {"choice": [None, 0.5, 1.0]},
    "model.patch": {"int": {"low": 4, "high": 16, "step": 4}},
}


def space_of(value: Any) -> Space:
    space, problems = read_space(value)
    assert space is not None, problems
    return space


def search_of(
    space: Any = EVERY_KIND,
    sampler: str = "random",
    pruner: str = "none",
    seed: int = 0,
    objective: Objective = LOSS,
    epochs: int = EPOCHS,
) -> Search:
    return Search(space if isinstance(space, Space) else space_of(space), objective, sampler, pruner, seed, epochs)


def finished(
    number: int,
    params: Mapping[str, Any] | None,
    value: float | None,
    state: TrialState = TrialState.COMPLETE,
    values: Mapping[int, float] | None = None,
    **result: Any,
) -> Trial:
    return Trial(
        number=number,
        params=params,
        seed=100 + number,
        state=state,
        values=values if values is not None else ({} if value is None else {1: value}),
        result=TrialResult(state, value, epochs=1, **result),
        started=1000.0 + number,
        finished=1060.0 + number,
    )


def loss_of(params: Mapping[str, Any]) -> float:
    """A made-up training: best near a learning rate of 0.03, sgd and three layers."""
    return float(
        (math.log10(params["model.learning_rate"]) + 1.5) ** 2
        + 0.3 * (params["model.optimizer"] == "adam")
        + 0.1 * abs(params["model.depth"] - 3)
        + params["model.dropout"]
    )


def trained(search: Search, number: int, params: Mapping[str, Any], bad: tuple[int, int] = (2, 4)) -> Trial:
    """Train as loss_of says, ask the pruner at three epochs; of the bad ones, the first diverges, the other raises."""
    if number == bad[0]:
        return finished(number, params, None, TrialState.PRUNED, infeasible=True, reason="diverged")
    values: dict[int, float] = {}
    for epoch in (1, 2, 3):
        values[epoch] = loss_of(params) + 1 / epoch
        if search.should_prune(number, epoch, values[epoch]):
            return finished(number, params, values[epoch], TrialState.PRUNED, values)
        if number == bad[1]:
            return finished(number, params, None, TrialState.FAILED, values, reason="ValueError")
    return finished(number, params, values[3], TrialState.COMPLETE, values)


def run(search: Search, trials: int, seen: list[Trial] | None = None) -> list[Trial]:
    """Propose, train and tell until there are so many trials."""
    done = list(seen or [])
    for number in range(len(done), trials):
        params = search.propose(number)
        done.append(trained(search, number, params))
        search.see([done[-1]])
    return done


def proposals(search: Search, trials: int) -> list[Any]:
    return [trial.params for trial in run(search, trials)]


# ---- what every sampler promises -----------------------------------------------------------------------------------

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@every_sampler
def test_proposals_lie_within_the_space(sampler: str) -> None:
    space = space_of(EVERY_KIND)
    for params in proposals(search_of(space, sampler), 13):
        for path, value in params.items():
            assert space.parameters[path].range.contains(value), (path, value)


@every_sampler
def test_conditional_parameters_appear_exactly_when_they_apply(sampler: str) -> None:
    always = {path for path, described in EVERY_KIND.items() if "when" not in described}
    optimizers = set()
    for params in proposals(search_of(sampler=sampler), 24):
        expected = set(always)
        if params["model.optimizer"] == "sgd":
            expected |= {"model.momentum"}
        else:
            expected |= {"model.adam_beta2"}
            if params["model.depth"] <= 3:
                expected |= {"model.amsgrad"}
        assert params.keys() == expected
        optimizers.add(params["model.optimizer"])
    assert optimizers == {"sgd", "adam"}


@every_sampler
def test_proposals_are_plain_values_that_json_keeps(sampler: str) -> None:
    for params in proposals(search_of(sampler=sampler), 24):
        kept = json.loads(json.dumps(params))
        assert kept == params
        assert [type(v) for v in kept.values()] == [type(v) for v in params.values()]


@every_sampler
def test_the_same_seed_proposes_the_same(sampler: str) -> None:
    assert proposals(search_of(sampler=sampler, seed=3), 12) == proposals(search_of(sampler=sampler, seed=3), 12)


@every_sampler
def test_another_seed_proposes_something_else(sampler: str) -> None:
    first, second = (proposals(search_of(sampler=sampler, seed=seed), 10) for seed in (3, 4))
    assert sum(a != b for a, b in zip(first, second, strict=True)) >= 5


@every_sampler
def test_nothing_is_proposed_twice_while_there_is_something_new(sampler: str) -> None:
    tried = [repr(sorted(params.items())) for params in proposals(search_of(sampler=sampler), 24)]
    assert len(set(tried)) == len(tried)


# cmaes keeps its state in Optuna's trials, and begins again after a restart (docs/decisions/0001).
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"cmaes"}))
def test_a_search_rebuilt_half_way_proposes_what_an_uninterrupted_one_does(sampler: str, pruner: str) -> None:
    def search() -> Search:
        return search_of(sampler=sampler, pruner=pruner, seed=5)

    whole = run(search(), 14)
    for half in (5, 12):
        late = search()
        late.see(whole[:half])
        again = run(late, 14, seen=whole[:half])
        assert [t.params for t in again] == [t.params for t in whole], half


@every_sampler
def test_what_is_told_twice_or_only_confirms_teaches_the_search_nothing(sampler: str) -> None:
    done = run(search_of(sampler=sampler, seed=5), 11)
    best = TrialResult(TrialState.COMPLETE, -9.0)
    confirming = [Trial(40 + i, done[i].params, 1, TrialState.COMPLETE, confirms=i, result=best) for i in range(3)]
    proposed = []
    for told in ([done], [done, done], [done, confirming]):
        search = search_of(sampler=sampler, seed=5)
        for trials in told:
            search.see(trials)
        proposed.append(search.propose(11))
    assert proposed[0] == proposed[1] == proposed[2]


@every_sampler
def test_workers_that_propose_side_by_side_propose_different_things(sampler: str) -> None:
    done = run(search_of(sampler=sampler, seed=5), 11)
    tried = []
    for number in (11, 12, 13):
        worker = search_of(sampler=sampler, seed=5)
        worker.see([*done, *[Trial(11 + i, params, 0, TrialState.RUNNING) for i, params in enumerate(tried)]])
        tried.append(worker.propose(number))
    assert len({repr(params) for params in tried}) == 3


def test_a_sampler_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "cmaes" else found(name, *a))
    with pytest.raises(SpecError, match=r"Install tuner\[cmaes\]"):
        Search(space_of(EVERY_KIND), LOSS, "cmaes", "none", 0, EPOCHS).propose(0)


def test_the_grid_visits_every_point_once_before_any_twice() -> None:
    space = {
        "model.norm": {"choice": ["none", "batch", "layer"]},
        "model.depth": {"int": {"low": 1, "high": 2}},
        "model.dropout": {"float": {"low": 0.0, "high": 0.8}},
    }
    search = search_of(space, "grid", seed=9)
    points = [tuple(search.propose(number).values()) for number in range(30)]
    expected = {(n, d, r) for n in ("none", "batch", "layer") for d in (1, 2) for r in (0.0, 0.2, 0.4, 0.6, 0.8)}
    assert {(n, d, round(r, 9)) for n, d, r in points} == expected
    assert len(set(points)) == 30


def test_the_grid_is_even_on_a_log_complement_scale() -> None:
    space = {"model.momentum": {"float": {"low": 0.0, "high": 0.9999, "scale": "log_complement"}}}
    search = search_of(space, "grid")
    values = sorted(search.propose(number)["model.momentum"] for number in range(5))
    assert values == pytest.approx([0.0, 0.9, 0.99, 0.999, 0.9999])


def test_optuna_s_samplers_search_log_complement_scales_evenly_in_the_logarithm() -> None:
    space = {"model.momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement"}}}
    search = search_of(space, "qmc")
    values = [search.propose(number)["model.momentum"] for number in range(60)]
    counts = [sum(low <= v < high for v in values) for low, high in ((0, 0.9), (0.9, 0.99), (0.99, 1))]
    assert all(16 <= count <= 24 for count in counts), counts


def distances(sampler: str, objective: Objective, trials: int) -> list[float]:
    """How far, in decades, each proposal lies from a learning rate of 0.003 and a momentum of 0.99."""
    space = {
        "model.learning_rate": {"float": {"low": 1e-4, "high": 1.0, "scale": "log"}, "priority": 1},
        "model.momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement"}, "priority": 2},
    }
    search = search_of(space, sampler, seed=2, objective=objective)
    found = []
    for number in range(trials):
        params = search.propose(number)
        rate, momentum = params["model.learning_rate"], params["model.momentum"]
        found.append(math.hypot(math.log10(rate / 0.003), math.log10((1 - momentum) / 0.01)))
        search.see([finished(number, params, found[-1] if objective is LOSS else -found[-1])])
    return found


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "priority"])
def test_a_sampler_that_learns_gets_nearer_to_the_best_than_chance(sampler: str) -> None:
    learnt, chance = (statistics.median(distances(name, LOSS, 25)[16:]) for name in (sampler, "random"))
    assert learnt < 0.75 * chance


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes", "priority"])
def test_maximising_is_minimising_the_negative(sampler: str) -> None:
    assert distances(sampler, LOSS, 12) == pytest.approx(distances(sampler, ACCURACY, 12))


# ---- trials that failed --------------------------------------------------------------------------------------------


def memory(search: Search) -> list[optuna.trial.FrozenTrial]:
    """What the samplers learn from: Optuna's trials, besides those that it ignores."""
    return [t for t in search._study.get_trials() if t.state is not OptunaState.FAIL]


BAD = [
    {"state": TrialState.PRUNED, "infeasible": True, "reason": "diverged"},
    {"state": TrialState.FAILED, "reason": "ValueError"},
]


@pytest.mark.parametrize("bad", BAD, ids=["infeasible", "failed"])
@pytest.mark.parametrize("sampler", ["priority", "tpe", "random", "qmc", "grid"])
@pytest.mark.parametrize("proposed_here", [True, False])
def test_a_trial_that_failed_is_remembered_as_pruned_with_nothing_to_show(
    sampler: str, proposed_here: bool, bad: dict[str, Any]
) -> None:
    search = search_of(sampler=sampler)
    params = search.propose(0) if proposed_here else search_of(sampler=sampler).propose(0)
    if proposed_here:
        search.should_prune(0, 1, 2.5)
    search.see([finished(0, params, None, values={1: 2.5}, **bad)])
    (remembered,) = memory(search)
    assert remembered.state is OptunaState.PRUNED
    assert remembered.value is None
    assert remembered.intermediate_values == {}
    assert remembered.params.keys() == params.keys()


@pytest.mark.parametrize("bad", BAD, ids=["infeasible", "failed"])
@pytest.mark.parametrize(("objective", "worst"), [(LOSS, 3.0), (ACCURACY, 1.0)])
def test_to_a_sampler_that_forgets_pruned_trials_a_failed_one_is_as_bad_as_the_worst(
    bad: dict[str, Any], objective: Objective, worst: float
) -> None:
    search = search_of(sampler="gp", objective=objective)
    for number, value in enumerate((2.0, 3.0, 1.0)):
        search.see([finished(number, search.propose(number), value)])
    search.see([finished(3, search.propose(3), None, **bad)])
    assert [(t.state, t.value) for t in memory(search)][3] == (OptunaState.COMPLETE, worst)


def test_a_pruned_trial_keeps_its_curve_and_a_complete_one_its_value() -> None:
    search = search_of(sampler="tpe")
    search.see([finished(0, search.propose(0), 0.5, values={1: 0.7, 2: 0.5})])
    search.see([finished(1, search.propose(1), 0.6, TrialState.PRUNED, values={1: 0.9, 2: 0.6})])
    complete, pruned = memory(search)
    assert (complete.state, complete.value) == (OptunaState.COMPLETE, 0.5)
    assert pruned.state is OptunaState.PRUNED


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pruned_trial_without_a_value_is_no_crash(sampler: str) -> None:
    search = search_of(sampler=sampler)
    search.see([finished(0, search.propose(0), 0.5)])
    search.see([finished(1, search.propose(1), None, TrialState.PRUNED, reason="pruned before it was validated")])
    assert search.propose(2)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_region_where_trials_diverge_is_proposed_less_and_less(sampler: str) -> None:
    space = {
        "model.learning_rate": {"float": {"low": 1e-4, "high": 10.0, "scale": "log"}},
        "model.dropout": {"float": {"low": 0.0, "high": 0.5}},
    }
    search = search_of(space, sampler, seed=1)
    diverged = []
    for number in range(30):
        params = search.propose(number)
        rate = params["model.learning_rate"]
        diverged.append(rate > 0.03)  # half of the range
        if diverged[-1]:
            trial = finished(number, params, None, TrialState.PRUNED, infeasible=True, reason="diverged")
        else:
            trial = finished(number, params, abs(math.log10(rate / 0.002)) + params["model.dropout"])
        search.see([trial])
    assert sum(diverged[:10]) >= 4, "the region was met"
    assert sum(diverged[15:]) / 15 < 1 / 3, diverged


# ---- stated priorities ---------------------------------------------------------------------------------------------

RANKED: dict[str, Any] = {
    f"model.p{rank}": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}, "priority": rank} for rank in (1, 2, 3, 5, 9)
}


def moved(params: Mapping[str, Any], space: Space) -> set[str]:
    return {path for path, value in params.items() if value != space.defaults[path]}


def test_the_first_trial_is_the_default_configuration() -> None:
    for seed in range(5):
        search = search_of("mlp", "priority", seed=seed)
        assert search.propose(0) == search.space.default_params()
        assert "model.adam_beta1" not in search.space.default_params()


def test_the_next_trials_take_small_steps_the_first_priority_oftenest_and_farthest() -> None:
    space = space_of(RANKED)
    moves: Counter[str] = Counter()
    far: dict[str, list[float]] = {path: [] for path in space.parameters}
    for seed in range(60):
        search = search_of(space, "priority", seed=seed)
        for number in range(4):
            for path, value in search.propose(number).items():
                moves[path] += value != space.defaults[path]
                far[path].append(abs(value - space.defaults[path]))
    chances = [moves[f"model.p{rank}"] / 180 for rank in (1, 2, 3, 5, 9)]
    assert all(low > high for low, high in itertools.pairwise(chances)), chances
    assert chances[0] > 0.6
    steps = [statistics.fmean([step for step in far[f"model.p{rank}"] if step]) for rank in (1, 9)]
    assert steps[0] > 2 * steps[1]
    assert max(far["model.p1"]) < 0.6  # 4 deviations


def test_the_next_trials_step_away_from_the_best_so_far() -> None:
    space = space_of({"model.a": {"float": {"low": 0.0, "high": 1.0, "default": 0.9}, "priority": 1}})
    near = []
    for seed in range(20):
        search = search_of(space, "priority", seed=seed)
        search.see([finished(0, {"model.a": 0.9}, 5.0), finished(1, {"model.a": 0.2}, 1.0)])
        near.append(abs(search.propose(2)["model.a"] - 0.2))
    assert statistics.fmean(near) < 0.25


def test_choices_without_order_rest_in_the_first_trials() -> None:
    space = space_of(
        {
            "model.norm": {"choice": {"values": ["batch", "layer", "none"], "default": "layer"}, "priority": 1},
            "model.b": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}, "priority": 2},
        }
    )
    tried = [search_of(space, "priority", seed=seed).propose(number) for seed in range(10) for number in range(4)]
    assert {params["model.norm"] for params in tried} == {"layer"}


@pytest.mark.parametrize(
    "space",
    [
        {"model.b": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}, "priority": 2}},
        {"model.b": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}}},
        {
            "model.norm": {"choice": ["batch", "layer", "none"], "priority": 1},
            "model.b": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}, "priority": 2},
        },
    ],
    ids=["priority one is fixed", "no priorities", "priority one has no order"],
)
def test_no_trial_repeats_another(space: dict[str, Any]) -> None:
    search = search_of(space, "priority")
    tried = [search.propose(number) for number in range(5)]
    assert len({repr(params) for params in tried}) == 5, tried


def test_a_default_at_the_end_of_its_range_is_left_for_four_different_values() -> None:
    search = search_of({"model.a": {"float": {"low": 0.0, "high": 1.0, "default": 0.0}, "priority": 1}}, "priority")
    assert len({search.propose(number)["model.a"] for number in range(5)}) == 5


def test_low_numbers_move_more_often_than_high_ones() -> None:
    space = space_of(RANKED)
    moves: Counter[str] = Counter()
    for seed in range(20):
        search = search_of(space, "priority", seed=seed)
        for number in range(25):
            counted = moved(search.propose(number), space) if number >= 5 else set()
            moves.update(counted)
    rates = [moves[f"model.p{rank}"] / 400 for rank in (1, 2, 3, 5, 9)]
    assert all(low > high + 0.04 for low, high in itertools.pairwise(rates)), rates
    assert rates[0] > 0.6
    assert 0.02 < rates[-1] < 0.35


def test_reversed_priorities_reverse_what_moves() -> None:
    priorities = {"x": 9, "y": 1}
    study = optuna.create_study(sampler=PrioritySampler(priorities, {"x": 0.5, "y": 0.5}, seed=0))
    moves: Counter[str] = Counter()
    for _ in range(150):
        trial = study.ask({"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)})
        moves.update(name for name, value in trial.params.items() if value != 0.5)
    assert moves["y"] > 2 * moves["x"]


def test_a_parameter_without_a_priority_is_neither_first_nor_last() -> None:
    sampler = PrioritySampler({"first": 1, "last": 9})
    for trials in (0, 10, 40):
        assert sampler.opening("first", trials) > sampler.opening("unranked", trials) > sampler.opening("last", trials)


def test_with_more_trials_every_parameter_moves_more_often_and_none_ever_stands_still() -> None:
    sampler = PrioritySampler({"a": 1, "b": 4, "c": 50})
    for name in "abc":
        chances = [sampler.opening(name, trials) for trials in (0, 5, 20, 100, 1000)]
        assert chances == sorted(chances)
        assert all(0 < chance < 1 for chance in chances)
    assert sampler.opening("b", 1000) > 2 * sampler.opening("b", 0)


def test_every_value_is_reached_in_the_end() -> None:
    space = space_of(EVERY_KIND)
    search = search_of(space, "priority", seed=3)
    seen: dict[str, set[Any]] = {path: set() for path in space.parameters}
    for number in range(400):
        params = search.propose(number)
        search.see([trained(search, number, params, bad=(-1, -1))])
        for path, value in params.items():
            values = space.parameters[path].range
            seen[path].add(math.floor(values.to_unit(value) * 5 * 0.999) if hasattr(values, "scale") else value)
    fifths = {0, 1, 2, 3, 4}
    assert seen["model.learning_rate"] == seen["model.momentum"] == seen["model.dropout"] == fifths
    assert seen["model.adam_beta2"] == seen["model.hidden_units"] == seen["model.depth"] == fifths
    assert seen["data.batch_size"] == {16, 32, 64, 128}
    assert seen["trainer.gradient_clip_val"] == {None, 0.5, 1.0}
    assert seen["model.optimizer"] == {"sgd", "adam"}
    assert seen["model.amsgrad"] == {False, True}


@pytest.mark.parametrize(("direction", "best"), [("minimize", 0.1), ("maximize", 0.9)])
def test_proposals_gather_around_the_best_so_far(direction: str, best: float) -> None:
    study = optuna.create_study(direction=direction, sampler=PrioritySampler({"x": 4}, {"x": 0.5}, seed=0))
    for value in (0.1, 0.9):
        study.add_trial(
            optuna.create_trial(params={"x": value}, distributions={"x": FloatDistribution(0, 1)}, value=value)
        )
    drawn = [study.ask({"x": FloatDistribution(0, 1)}).params["x"] for _ in range(120)]
    near = sum(abs(x - best) < 0.1 for x in drawn)
    assert near > 60
    assert sum(abs(x - (1 - best)) < 0.1 for x in drawn) < near / 4


# ---- the priority sampler as an ordinary Optuna sampler ------------------------------------------------------------


class TestPrioritySamplerPassesOptunasOwnSuites(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], PrioritySampler]:
        return PrioritySampler


def parabola(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -10, 10)
    n = trial.suggest_int("n", 1, 64, log=True)
    kind = trial.suggest_categorical("kind", ["a", "b", None])
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    assert -10 <= x <= 10
    assert n in range(1, 65)
    assert kind in ("a", "b", None)
    assert 1e-5 <= rate <= 1.0
    return (x - 3) ** 2 + abs(n - 8) + (kind != "b") + abs(math.log10(rate) + 3)


def test_without_arguments_it_searches_an_ordinary_study() -> None:
    study = optuna.create_study(sampler=PrioritySampler())
    study.optimize(parabola, n_trials=20)
    assert all(trial.state is OptunaState.COMPLETE for trial in study.trials)
    assert len({trial.params["x"] for trial in study.trials}) > 5


def test_an_ordinary_study_ends_far_closer_to_the_optimum_with_it_than_at_random() -> None:
    def best(sampler: optuna.samplers.BaseSampler) -> float:
        study = optuna.create_study(sampler=sampler)
        study.optimize(parabola, n_trials=60)
        return study.best_value

    for seed in range(3):
        assert best(PrioritySampler(seed=seed)) < best(optuna.samplers.RandomSampler(seed=seed)) / 4


def test_the_same_seed_gives_the_same_ordinary_study() -> None:
    params = []
    for seed in (7, 7, 8):
        study = optuna.create_study(sampler=PrioritySampler(seed=seed))
        study.optimize(parabola, n_trials=15)
        params.append([trial.params for trial in study.trials])
    assert params[0] == params[1]
    assert params[0] != params[2]


def test_without_a_seed_two_studies_differ() -> None:
    firsts = {optuna.create_study(sampler=PrioritySampler()).ask().suggest_float("x", 0, 1) for _ in range(3)}
    assert len(firsts) == 3


def test_from_a_space_it_begins_at_the_space_s_defaults_and_steps_on_the_space_s_scales() -> None:
    space = search_space("mlp")
    study = optuna.create_study(sampler=PrioritySampler.from_space(space, seed=0))
    first = study.ask(space.distributions())
    assert first.params == space.defaults
    study.tell(first, 1.0)
    second = study.ask(space.distributions())
    assert second.params != space.defaults
    assert second.params["model.optimizer"] == "sgd"
    assert 0.03 < second.params["model.learning_rate"] < 3.0  # a step on the log scale


def test_from_a_space_it_searches_log_complement_scales_evenly_in_the_logarithm() -> None:
    space = search_space({"model.momentum": {"float": {"low": 0.0, "high": 0.9999, "scale": "log_complement"}}})
    sampler = PrioritySampler.from_space(space, seed=0)
    sampler.defaults = {}  # so that it draws over the whole range
    study = optuna.create_study(sampler=sampler)
    drawn = [study.ask(space.distributions()).params["model.momentum"] for _ in range(200)]
    assert 30 < sum(x < 0.9 for x in drawn) < 70
    assert 30 < sum(x >= 0.999 for x in drawn) < 70


def test_a_default_outside_the_distribution_is_not_proposed() -> None:
    study = optuna.create_study(sampler=PrioritySampler(defaults={"x": 5.0, "k": "gone"}))
    for _ in range(12):
        trial = study.ask()
        assert 0 <= trial.suggest_float("x", 0, 1) <= 1
        assert trial.suggest_categorical("k", ["a", "b"]) in ("a", "b")
        study.tell(trial, 1.0)


def test_when_a_range_is_narrowed_proposals_lie_in_the_new_one() -> None:
    study = optuna.create_study(sampler=PrioritySampler(seed=0))
    for _ in range(15):
        trial = study.ask()
        study.tell(trial, -trial.suggest_float("x", 0, 10))  # the best ones are near 10
    for _ in range(30):
        assert 0 <= study.ask().suggest_float("x", 0, 5) <= 5


def test_when_a_user_s_range_is_narrower_than_the_space_s_proposals_lie_in_the_user_s() -> None:
    study = optuna.create_study(sampler=PrioritySampler.from_space(search_space("mlp"), seed=0))
    for _ in range(30):
        trial = study.ask()
        assert 0.05 <= trial.suggest_float("model.learning_rate", 0.05, 0.5, log=True) <= 0.5
        study.tell(trial, 1.0)


# ---- pruners -------------------------------------------------------------------------------------------------------

SMALL = {"model.learning_rate": {"float": {"low": 0.0, "high": 1.0}}}


def curve(number: int, epoch: int) -> float:
    """Trials end anywhere between 1 and 2, in a scattered order, and fall as they train."""
    return 1 + (number * 7 % 13) / 13 + 1 / epoch


def simulate(
    search: Search, trials: int, curves: Callable[[int, int], float], workers: list[Search] | None = None
) -> dict[int, int]:
    """Train trials one after the other; return the epoch at which each was pruned."""
    pruned: dict[int, int] = {}
    for number in range(trials):
        params = search.propose(number)
        values: dict[int, float] = {}
        for epoch in range(1, EPOCHS + 1):
            values[epoch] = curves(number, epoch)
            told = [search.should_prune(number, epoch, values[epoch])]
            for other in workers or []:
                other.see([Trial(number, params, 0, TrialState.RUNNING, values=dict(values))])
            if told[0]:
                pruned[number] = epoch
                break
        state = TrialState.PRUNED if number in pruned else TrialState.COMPLETE
        done = finished(number, params, curves(number, max(values)), state, values)
        for each in (search, *(workers or [])):
            each.see([done])
    return pruned


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("objective", [LOSS, ACCURACY])
@pytest.mark.parametrize("best", [0, 3, 9, 14])
def test_the_best_trial_is_never_pruned(pruner: str, objective: Objective, best: int) -> None:
    sign = 1 if objective is LOSS else -1

    def curves(number: int, epoch: int) -> float:
        return sign * (0.5 / epoch if number == best else curve(number, epoch))

    pruned = simulate(search_of(SMALL, pruner=pruner, objective=objective), 15, curves)
    assert best not in pruned


@pytest.mark.parametrize("pruner", sorted(set(PRUNERS) - {"none", "patience"}))
@pytest.mark.parametrize("objective", [LOSS, ACCURACY])
def test_hopeless_trials_are_pruned_before_their_end(pruner: str, objective: Objective) -> None:
    sign = 1 if objective is LOSS else -1

    def curves(number: int, epoch: int) -> float:
        return sign * (curve(number, epoch) if number < 12 else 50.0 + number - epoch)

    pruned = simulate(search_of(SMALL, pruner=pruner, objective=objective), 18, curves)
    hopeless = {number: epoch for number, epoch in pruned.items() if number >= 12}
    assert len(hopeless) >= 4
    assert all(epoch < EPOCHS for epoch in hopeless.values())


def test_none_never_prunes() -> None:
    assert simulate(search_of(SMALL, pruner="none"), 15, lambda number, epoch: float(number + epoch)) == {}


def test_the_median_pruner_waits_for_five_trials_that_set_the_yardstick() -> None:
    pruned = simulate(search_of(SMALL, pruner="median"), 8, lambda number, epoch: float(number))
    assert pruned.keys() == {5, 6, 7}


def test_the_median_pruner_lets_a_long_trial_warm_up_for_a_tenth_of_its_epochs() -> None:
    search = search_of(SMALL, pruner="median", epochs=40)
    simulate(search, 6, lambda number, epoch: 1.0)
    search.propose(6)
    assert [search.should_prune(6, epoch, 9.0) for epoch in (1, 2, 3)] == [False] * 3
    assert search.should_prune(6, 5, 9.0)


def test_patience_prunes_a_trial_that_has_not_improved_for_more_than_two_epochs() -> None:
    def curves(number: int, epoch: int) -> float:
        return 6.0 if number == 1 and epoch > 3 else 5.0 - epoch / 10

    assert simulate(search_of(SMALL, pruner="patience"), 3, curves) == {1: 6}


@pytest.mark.parametrize("pruner", PRUNERS)
def test_who_takes_a_trial_over_prunes_as_its_first_worker_would_have(pruner: str) -> None:
    search, other = search_of(SMALL, pruner=pruner), search_of(SMALL, pruner=pruner)
    simulate(search, 10, curve, workers=[other])
    for number, value in ((10, 9.0), (11, 0.1), (12, 8.0)):
        params = search.propose(number)
        first: list[bool] = []
        second: list[bool] = []
        values: dict[int, float] = {}
        for epoch in range(1, EPOCHS + 1):
            other.see([Trial(number, params, 0, TrialState.RUNNING, values=dict(values))])
            first.append(search.should_prune(number, epoch, value))
            second.append(other.should_prune(number, epoch, value))
            values[epoch] = value
        assert first == second


@pytest.mark.parametrize("pruner", PRUNERS)
def test_who_joins_late_has_heard_what_the_others_have(pruner: str) -> None:
    own, watching = search_of(SMALL, pruner=pruner), search_of(SMALL, pruner=pruner)
    simulate(own, 12, curve, workers=[watching])
    done = [t for t in watching._study.get_trials() if t.state.is_finished()]
    late = search_of(SMALL, pruner=pruner)
    late.see(
        finished(
            n,
            t.params,
            t.value if t.state is OptunaState.COMPLETE else None,
            state=TrialState.COMPLETE if t.state is OptunaState.COMPLETE else TrialState.PRUNED,
            values=t.intermediate_values,
        )
        for n, t in enumerate(done)
    )
    joined = late._study.get_trials()
    assert [(t.state, t.value, t.params) for t in joined] == [(t.state, t.value, t.params) for t in done]
    assert [dict(t.system_attrs) for t in joined] == [dict(t.system_attrs) for t in done]
    assert [t.intermediate_values for t in joined] == [t.intermediate_values for t in done]


@pytest.mark.parametrize("pruner", sorted(PRUNERS))
def test_finished_trials_are_taken_over_without_asking_the_pruner(pruner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = search_of(SMALL).propose(0)
    late = search_of(SMALL, pruner=pruner)

    def prune(*_: Any) -> bool:
        raise AssertionError("a look at every other trial, for every epoch of every trial")

    monkeypatch.setattr(late._study.pruner, "prune", prune)
    late.see([finished(0, params, 0.5, values={epoch: 1.0 / epoch for epoch in range(1, EPOCHS + 1)})])
    assert memory(late)[0].intermediate_values[EPOCHS] == 1.0 / EPOCHS


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_median_is_optuna_s(direction: str) -> None:
    draw = random.Random(3)  # noqa: S311 - no secret
    ours, theirs = MedianPruner(20), optuna.pruners.MedianPruner(5, 2)
    study = optuna.create_study(direction=direction)
    answers = Counter[bool]()
    for number in range(30):
        trial = study.ask()
        for epoch in range(1, draw.randint(2, 20)):
            trial.report(math.nan if draw.random() < 0.1 else draw.random() + number % 5, epoch)
            frozen = study.get_trials()[-1]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # Optuna's, of nothing but NaN
                asked = theirs.prune(study, frozen)
            assert ours.prune(study, frozen) == asked
            answers[asked] += 1
        study.tell(trial, draw.random(), state=OptunaState.COMPLETE)
    assert min(answers.values()) > 50


def test_what_was_read_of_a_study_bit_by_bit_is_what_is_read_at_once() -> None:
    draw = random.Random(4)  # noqa: S311 - no secret
    study, history, running = optuna.create_study(), History(), list[optuna.Trial]()
    for _ in range(60):
        running.append(study.ask({"x": FloatDistribution(0, 1)}))
        running[-1].report(draw.random(), 1)
        running[-1].report(draw.random(), draw.choice([2, 3]))
        for trial in draw.sample(running, draw.randint(0, len(running) // 2)):
            running.remove(trial)
            state = draw.choice([OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL])
            study.tell(trial, draw.random() if state is OptunaState.COMPLETE else None, state=state)
        history.read(study.get_trials())
        history.values(1.0)
    whole = History()
    whole.read(study.get_trials())
    assert len(whole.trials) > 20
    assert [history.trials[i].number for i in history.order] == [whole.trials[i].number for i in whole.order]
    assert history.values(1.0)[history.order].tolist() == whole.values(1.0)[whole.order].tolist()
    assert sorted(t.number for t in history.running) == sorted(t.number for t in running)


def test_a_confirming_run_is_never_pruned() -> None:
    search = search_of(SMALL, pruner="median")
    simulate(search, 10, curve)
    assert not any(search.should_prune(99, epoch, 1e9) for epoch in range(1, EPOCHS + 1))


def test_a_trial_that_went_back_to_the_queue_no_longer_counts() -> None:
    search = search_of(SMALL, pruner="median")
    params = search.propose(0)
    for epoch in range(1, 4):
        search.should_prune(0, epoch, -100.0)
    search.see([Trial(0, params, 0, TrialState.WAITING)])
    assert [t.state for t in search._study.get_trials()] == [OptunaState.FAIL]
    search.see([Trial(0, params, 0, TrialState.RUNNING, attempt=2)])
    assert not search.should_prune(0, 1, 5.0)
    search.see([finished(0, params, 5.0)])
    assert [(t.state, t.value) for t in memory(search)] == [(OptunaState.COMPLETE, 5.0)]


def test_a_trial_that_another_worker_takes_up_counts_with_what_it_kept() -> None:
    search = search_of(SMALL, pruner="median")
    params = search.propose(0)
    for epoch in (1, 2, 3):
        search.should_prune(0, epoch, -100.0)
    kept = {1: -100.0}
    search.see([Trial(0, params, 0, TrialState.RUNNING, attempt=2, values=kept)])
    assert [t.intermediate_values for t in memory(search)] == [kept]
    again = kept | {2: 0.5}
    search.see([Trial(0, params, 0, TrialState.RUNNING, attempt=2, values=again)])
    assert [t.intermediate_values for t in memory(search)] == [again]
    assert not search.should_prune(0, 3, 0.25)


# ---- a space as Optuna sees it -------------------------------------------------------------------------------------


def test_each_kind_becomes_its_optuna_distribution() -> None:
    assert search_space(EVERY_KIND).distributions() == {
        "model.optimizer": CategoricalDistribution(["sgd", "adam"]),
        "model.learning_rate": FloatDistribution(1e-3, 1.0, log=True),
        "model.momentum": FloatDistribution(0.0, 0.99),
        "model.adam_beta2": FloatDistribution(0.9, 0.9999),
        "model.amsgrad": CategoricalDistribution([False, True]),
        "model.depth": IntDistribution(1, 5),
        "model.hidden_units": IntDistribution(8, 64, log=True),
        "data.batch_size": CategoricalDistribution([16, 32, 64, 128]),
        "model.dropout": FloatDistribution(0.0, 0.5),
        "trainer.gradient_clip_val": CategoricalDistribution([None, 0.5, 1.0]),
        "model.patch": IntDistribution(4, 16, step=4),
    }


def test_a_search_space_tells_priorities_defaults_and_conditions() -> None:
    space = search_space("mlp")
    assert space.priorities["model.learning_rate"] == 1
    assert space.defaults["model.hidden_units"] == 256
    assert space.conditions["model.momentum"] == {"model.optimizer": ["sgd"]}
    assert space.priorities.keys() == space.defaults.keys() == space.distributions().keys()


def test_parents_come_before_what_depends_on_them() -> None:
    names = list(search_space("mlp").distributions())
    assert names.index("model.optimizer") < min(names.index("model.momentum"), names.index("model.adam_eps"))


def test_an_ordinary_study_can_ask_for_a_documented_space() -> None:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask(search_space("mlp").distributions())
    space = space_of("mlp")
    assert all(space.parameters[path].range.contains(value) for path, value in trial.params.items())


@pytest.mark.parametrize("wrong", ["mpl", {"model.x": {"float": {"low": 2, "high": 1}}}])
def test_a_search_space_with_problems_is_an_error_that_lists_them(wrong: Any) -> None:
    with pytest.raises(SpecError) as caught:
        search_space(wrong)
    assert len(caught.value.problems) == 1


# ---- the copy for Optuna's tools -----------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/optuna.db"
    create_optuna_tables(url)
    return url


def copy_of(url: str, objective: Objective = LOSS) -> OptunaCopy:
    return OptunaCopy(url, OptunaTables, "small", objective, space_of(EVERY_KIND))


@pytest.fixture
def copied(url: str) -> Iterator[Callable[[], list[optuna.trial.FrozenTrial]]]:
    """What a tool of Optuna's reads."""
    storage = optuna.storages.RDBStorage(url)
    yield lambda: optuna.load_study(study_name="small", storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()


def sgd(rate: float) -> dict[str, Any]:
    return {"model.optimizer": "sgd", "model.learning_rate": rate, "model.momentum": 0.9, "model.patch": 8}


TRIALS = [
    finished(0, sgd(0.1), 0.5, values={1: 0.8, 2: 0.5}, metrics={"val_loss": 0.5, "val_acc": 0.9}),
    finished(1, sgd(0.2), 0.7, TrialState.PRUNED, values={1: 0.7}, reason="pruned at epoch 1"),
    finished(2, sgd(0.9), None, TrialState.PRUNED, values={1: 5.0}, infeasible=True, reason="diverged"),
    finished(3, sgd(0.4), None, TrialState.FAILED, values={}, reason="ValueError: no"),
]


def test_finished_trials_are_copied_with_their_states_values_and_curves(
    url: str, copied: Callable[[], list[optuna.trial.FrozenTrial]]
) -> None:
    copy = copy_of(url)
    copy.write(reversed(TRIALS))
    copy.close()
    trials = copied()
    assert [t.state for t in trials] == [
        OptunaState.COMPLETE,
        OptunaState.PRUNED,
        OptunaState.PRUNED,
        OptunaState.FAIL,
    ]
    assert [t.params for t in trials] == [t.params for t in TRIALS]
    assert trials[0].value == 0.5
    assert [t.intermediate_values for t in trials] == [{1: 0.8, 2: 0.5}, {1: 0.7}, {}, {}]
    assert [t.user_attrs["tuner.trial"] for t in trials] == [0, 1, 2, 3]
    assert [t.user_attrs["seed"] for t in trials] == [100, 101, 102, 103]
    assert trials[0].user_attrs["val_acc"] == 0.9
    assert trials[2].user_attrs["reason"] == "diverged"
    assert [t.duration.total_seconds() for t in trials if t.duration] == [60.0] * 4


def test_a_trial_is_copied_once_however_often_and_by_whomever_it_is_written(
    url: str, copied: Callable[[], list[optuna.trial.FrozenTrial]]
) -> None:
    first = copy_of(url)
    first.write(TRIALS[:2])
    first.write(TRIALS[:3])
    first.close()
    later = copy_of(url)
    later.write(TRIALS)
    later.close()
    assert [t.user_attrs["tuner.trial"] for t in copied()] == [0, 1, 2, 3]


def test_only_finished_proposals_of_the_search_are_copied(
    url: str, copied: Callable[[], list[optuna.trial.FrozenTrial]]
) -> None:
    copy = copy_of(url)
    result = TrialResult(TrialState.COMPLETE, 0.4)
    copy.write(
        [
            Trial(0, sgd(0.1), 0, TrialState.RUNNING, values={1: 0.5}),
            Trial(1, None, 0),
            Trial(2, sgd(0.1), 0, TrialState.COMPLETE, confirms=0, result=result),
            finished(3, None, None, TrialState.FAILED),
        ]
    )
    assert copied() == []
    copy.write([finished(0, sgd(0.1), 0.5)])
    copy.close()
    assert [t.value for t in copied()] == [0.5]


EXTREME = [
    *TRIALS,
    finished(4, sgd(0.5), 0.6, values={1: math.inf, 2: -math.inf, 3: math.nan, 4: 0.6}),
]


def test_trials_written_at_once_are_those_that_optuna_itself_would_write(
    url: str, copied: Callable[[], list[optuna.trial.FrozenTrial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = copy_of(url)
    fast.write(EXTREME)
    fast.close()
    mine = copied()
    monkeypatch.setattr("tuner.storage.optuna_tables.KNOWN", 0)  # tables of another format
    slow = OptunaCopy(url, OptunaTables, "by add_trial", LOSS, space_of(EVERY_KIND))
    slow.write(EXTREME)
    slow.close()
    storage = optuna.storages.RDBStorage(url)
    theirs = optuna.load_study(study_name="by add_trial", storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    told = [[(repr({**vars(t), "_trial_id": 0}), t.number) for t in trials] for trials in (mine, theirs)]
    assert told[0] == told[1]


@pytest.mark.parametrize(("objective", "best"), [(LOSS, 0.2), (ACCURACY, 0.8)])
def test_optuna_s_tools_find_the_best_trial_of_the_copy(url: str, objective: Objective, best: float) -> None:
    copy = copy_of(url, objective)
    copy.write([finished(i, sgd(0.1), value) for i, value in enumerate((0.5, 0.2, 0.8))])
    copy.close()
    storage = optuna.storages.RDBStorage(url)
    try:
        assert optuna.load_study(study_name="small", storage=storage).best_value == best
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize(
    ("priorities", "names", "trials", "told"),
    [
        ({"a": 1, "b": 2}, "ab", 0, "priority 1 in 70% of proposals (±20% of the range), 2 in 35% (±14%)"),
        (
            {"a": 1, "b": 7, "c": 9},
            "abc",
            30,
            "priority 1 in 80% of proposals (±50% of the range), 7 to 9 in 17% or less",
        ),
        ({"a": 1, "b": 2, "c": 3}, "abc", 500, "priority 1 to 3 in 80% of proposals (±50% of the range)"),
        ({"a": 1, "b": 4}, "ab", 60, "priority 1 in 80% of proposals (±50% of the range), 4 in 42% (±45%)"),
        ({"a": 5, "b": 8}, "ab", 0, "priority 5 in 14% of proposals (±9% of the range), 8 in 9%"),
        ({"a": 1}, "az", 0, "priority 1 in 70% of proposals (±20% of the range), 4 in 18%"),
        ({}, "z", 0, "each parameter in 18% of proposals (±10% of its range)"),
    ],
)
def test_the_open_priorities_in_words(priorities: dict[str, int], names: str, trials: int, told: str) -> None:
    assert open_priorities(priorities, list(names), trials) == told


# A space that has changed


WIDE: dict[str, Any] = {
    "model.x": {"float": {"low": 0.0, "high": 1.0, "default": 0.5}, "priority": 1},
    "model.kind": {"choice": {"values": ["a", "b", "c"], "default": "a"}, "priority": 2},
}
NARROW: dict[str, Any] = {
    "model.x": {"float": {"low": 0.4, "high": 1.0, "default": 0.9}, "priority": 1},
    "model.kind": {"choice": {"values": ["a", "b"], "default": "a"}, "priority": 2},
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_in_a_narrower_space(sampler: str) -> None:
    trials = []
    before = search_of(space_of(WIDE), sampler)
    for number in range(12):
        params = before.propose(number)
        trials.append(finished(number, params, params["model.x"]))
        before.see([trials[-1]])
    after = search_of(space_of(NARROW), sampler)
    after.see(trials)
    for number in range(12, 16):
        params = after.propose(number)
        assert 0.4 <= params["model.x"] <= 1.0
        assert params["model.kind"] in ("a", "b")
        after.see([finished(number, params, params["model.x"])])


def test_trials_outside_a_narrowed_space_still_inform_the_search() -> None:
    """The lower the better, and all of it was seen below the new range: the search leans to its lower end."""

    def proposed(values: Callable[[float], float]) -> list[float]:
        lows = []
        for seed in range(8):
            search = search_of(space_of(NARROW), "priority", seed=seed)
            grid = [0.05 * i for i in range(8)]  # 0 to 0.35, all outside
            search.see([finished(i, {"model.x": x, "model.kind": "a"}, values(x)) for i, x in enumerate(grid)])
            lows.append(search.propose(8)["model.x"])
        return lows

    falling, rising = proposed(lambda x: 1 - x), proposed(lambda x: x)
    assert statistics.fmean(falling) > statistics.fmean(rising) + 0.1


def test_a_widened_space_is_searched_beyond_its_old_end() -> None:
    search = search_of(space_of(WIDE), "priority", seed=3)
    values = [0.4 + 0.06 * i for i in range(10)]
    search.see([finished(i, {"model.x": x, "model.kind": "a"}, x) for i, x in enumerate(values)])
    assert min(search.propose(number)["model.x"] for number in range(10, 16)) < 0.35


def test_optuna_s_tables_take_trials_of_a_changed_space(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    create_optuna_tables(url)
    for space, number, params in [
        (WIDE, 0, {"model.x": 0.1, "model.kind": "c"}),
        (NARROW, 1, {"model.x": 0.9, "model.kind": "b"}),
        (NARROW, 2, {"model.x": 0.1, "model.kind": "c"}),  # it was begun before the change
    ]:
        copy = OptunaCopy(url, OptunaTables, "s", Objective("val_loss"), space_of(space))
        copy.write([finished(number, params, 1.0)])
        copy.close()
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [trial.params for trial in trials] == [{"model.x": 0.1, "model.kind": "c"}, {"model.x": 0.9}, {}]
    aside = [trial.user_attrs.get("params outside Optuna's space") for trial in trials]
    assert aside == [None, {"model.kind": "b"}, {"model.x": 0.1, "model.kind": "c"}]


@pytest.mark.parametrize(
    "now",
    [
        {"choice": [0.1, 0.2]},
        {"int": {"low": 1, "high": 3}},
        {"float": {"low": 0.1, "high": 1.0}},
    ],
    ids=["another kind", "whole numbers", "another scale"],
)
def test_optuna_s_tables_take_trials_of_a_parameter_of_another_kind(tmp_path: Path, now: dict[str, Any]) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    create_optuna_tables(url)
    for number, described in enumerate(({"float": {"low": 0.1, "high": 1.0, "scale": "log"}}, now, now)):
        space = space_of({"model.x": described})
        copy = OptunaCopy(url, OptunaTables, "s", Objective("val_loss"), space)
        copy.write([finished(number, space.default_params(), 1.0)])
        copy.close()
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert [len(trial.params) for trial in trials] == [1, 0, 0]
    assert all("params outside Optuna's space" in trial.user_attrs for trial in trials[1:])


# A space that can be exhausted


FEW: dict[str, Any] = {
    "model.optimizer": {"choice": ["sgd", "adam"], "priority": 2},
    "model.depth": {"int": {"low": 1, "high": 3, "default": 2}, "priority": 1},
    "model.nesterov": {"choice": [False, True], "when": {"model.optimizer": "sgd"}},
}


def test_the_configurations_of_a_small_space_are_counted_by_what_applies() -> None:
    configurations = space_of(FEW).configurations(100)
    assert configurations is not None
    assert len(configurations) == 9  # adam with 3 depths, sgd with 3 depths times nesterov or not
    assert len({repr(c) for c in configurations}) == 9
    assert {"model.optimizer": "adam", "model.depth": 1} in configurations
    assert space_of(FEW).configurations(8) is None
    assert space_of(WIDE).configurations(10**9) is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_configuration_of_a_small_space_is_tried_once(sampler: str) -> None:
    search = search_of(space_of(FEW), sampler)
    tried = []
    while not search.exhausted:
        tried.append(search.propose(len(tried)))
        search.see([finished(len(tried) - 1, tried[-1], float(len(tried) % 4))])
        assert len(tried) <= 9
    assert len({repr(sorted(params.items())) for params in tried}) == 9


def test_a_space_with_a_range_is_never_exhausted() -> None:
    assert not search_of(space_of(WIDE)).finite
    assert not search_of(space_of(WIDE)).exhausted


def test_values_that_somebody_else_was_faster_with_are_not_proposed_again() -> None:
    search = search_of(space_of(FEW), "priority")
    first = search.propose(0)
    search.see([Trial(1, first, 0, TrialState.RUNNING)])
    assert search.propose(0) != first


# Configurations to begin with


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_trials_are_those_to_begin_with_whatever_the_sampler(sampler: str) -> None:
    search = Search(space_of(EVERY_KIND), LOSS, sampler, "none", 0, EPOCHS, start=beginnings())
    assert [search.propose(number) for number in range(2)] == beginnings()
    assert search.propose(2) not in beginnings()


def beginnings() -> list[dict[str, Any]]:
    space = space_of(EVERY_KIND)
    momentum = {"model.momentum": 0.75, "model.learning_rate": 0.02, "model.hidden_units": 33}
    return [space.complete(momentum), space.complete({"model.optimizer": "adam", "model.adam_beta2": 0.99})]


def test_the_search_steps_away_from_where_it_begins_instead_of_from_the_defaults() -> None:
    space = space_of({"model.x": {"float": {"low": 0.0, "high": 1.0, "default": 0.1}, "priority": 1}})
    search = Search(space, LOSS, "priority", "none", 0, EPOCHS, start=[{"model.x": 0.7}])
    assert search.propose(0) == {"model.x": 0.7}
    near = [Search(space, LOSS, "priority", "none", seed, EPOCHS, [{"model.x": 0.7}]).propose(1) for seed in range(20)]
    assert statistics.fmean(abs(params["model.x"] - 0.7) for params in near) < 0.25


def test_what_to_begin_with_is_left_out_once_the_space_has_it_no_more() -> None:
    search = Search(space_of(NARROW), LOSS, "priority", "none", 0, EPOCHS, [{"model.x": 0.1, "model.kind": "b"}])
    assert search.propose(0) == {"model.x": 0.9, "model.kind": "b"}


def test_a_configuration_is_completed_with_the_defaults_of_what_applies() -> None:
    space = space_of(FEW)
    assert space.complete({"model.depth": 1}) == {"model.optimizer": "sgd", "model.depth": 1, "model.nesterov": False}
    assert space.complete({"model.optimizer": "adam", "model.nesterov": True}) == {
        "model.optimizer": "adam",
        "model.depth": 2,
    }


def test_what_to_begin_with_keeps_its_place_in_a_space_that_has_lost_a_parameter() -> None:
    start = [{"model.x": 0.1, "model.kind": "a"}, {"model.x": 0.6, "model.kind": "b", "model.gone": 3}]
    for sampler in ("priority", "tpe"):
        search = Search(space_of(NARROW), LOSS, sampler, "none", 0, EPOCHS, start)
        assert search.propose(0) != start[0]
        assert search.propose(1) == {"model.x": 0.6, "model.kind": "b"}


def test_a_grid_with_ranges_is_exhausted_after_its_points() -> None:
    space = {
        "model.momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement"}},
        "model.rate": {"float": {"low": 1e-3, "high": 1.0, "scale": "log"}},
        "model.norm": {"choice": ["a", "b"]},
    }
    search = search_of(space, "grid")
    tried = []
    while not search.exhausted:
        tried.append(search.propose(len(tried)))
        assert len(tried) <= 50
    assert len({repr(params) for params in tried}) == 50


def test_a_refused_proposal_is_forgotten_and_the_next_is_another() -> None:
    search = search_of(WIDE, "priority", pruner="median")
    for number in range(6):
        search.see([finished(number, search.propose(number), 1.0, values=dict.fromkeys(range(1, EPOCHS), 1.0))])
    first = search.propose(6)
    search.refuse(6)
    assert not search.should_prune(6, 5, 99.0), "a confirming run may get the number"
    assert search.propose(6) != first


def test_the_first_trials_differ_also_where_all_that_has_an_order_rests() -> None:
    space = {
        "model.act": {"choice": ["relu", "tanh", "elu", "gelu"]},
        "model.optimizer": {"choice": ["sgd", "adam"]},
        "model.beta": {"float": {"low": 0.0, "high": 1.0}, "when": {"model.optimizer": "adam"}},
    }
    search = search_of(space, "priority")
    tried = [search.propose(number) for number in range(4)]
    assert len({repr(params) for params in tried}) == 4
