"""The importance of hyperparameters: on objectives whose answer is known, and what is said about it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from rich.console import Console

from tuner.cli.tables import importance_part, importance_table, study_page
from tuner.insight import Importance, importance
from tuner.insight.importance import rank_correlation
from tuner.insight.outcome import ranks
from tuner.service.result import StudyResult
from tuner.space import Choice, Space, read_space
from tuner.storage import StudyRow
from tuner.trial import Direction, Objective, Trial, TrialResult, TrialState

LOSS, ACCURACY = Objective("val_loss"), Objective("val_acc", "maximize")
SPACE: dict[str, Any] = {
    "model.learning_rate": {"float": {"low": 1e-4, "high": 1.0, "scale": "log"}, "priority": 1},
    "data.batch_size": {"choice": [16, 32, 64, 128], "priority": 2},
    "model.momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement"}, "priority": 4},
}
CONDITIONAL: dict[str, Any] = SPACE | {
    "model.optimizer": {"choice": ["sgd", "adam"], "priority": 8},
    "model.adam_beta1": {
        "float": {"low": 0.5, "high": 0.99, "default": 0.9},
        "priority": 7,
        "when": {"model.optimizer": "adam"},
    },
}
Score = Callable[[dict[str, float]], float]
"""The objective from the unit coordinates of the parameters that apply, by their short names."""


def space_of(document: dict[str, Any]) -> Space:
    space, problems = read_space(document)
    assert space is not None, problems
    return space


def study(space: Space, score: Score, count: int = 60, seed: int = 0) -> list[Trial]:
    """Complete trials of random configurations."""
    draw = random.Random(seed)  # noqa: S311
    trials = []
    for number in range(count):
        params: dict[str, Any] = {}
        units: dict[str, float] = {}
        for path, parameter in space.parameters.items():
            if space.active(path, params):
                values = parameter.range
                params[path] = (
                    draw.choice(values.values) if isinstance(values, Choice) else values.from_unit(draw.random())
                )
                place = values.values.index(params[path]) if isinstance(values, Choice) else None
                units[path.partition(".")[2]] = (
                    values.to_unit(params[path]) if place is None else place / (len(values.values) - 1)
                )
        result = TrialResult(TrialState.COMPLETE, value=score(units))
        trials.append(Trial(number, params, seed=number, state=result.state, result=result))
    return trials


def learning_rate_first(units: dict[str, float]) -> float:
    return 9 * units["learning_rate"] + 3 * units["batch_size"] + units["momentum"]


def momentum_first(units: dict[str, float]) -> float:
    return units["learning_rate"] + 0.2 * units["batch_size"] + 9 * units["momentum"]


def shares(found: Importance, method: str) -> dict[str, float | None]:
    return {p.name: getattr(p, method) for p in found.parameters}


# What is measured


@pytest.mark.parametrize("method", ["ped_anova", "fanova"])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_weights_of_nine_three_and_one_come_out_in_this_order(method: str, direction: Direction) -> None:
    sign = 1 if direction == "minimize" else -1
    trials = study(space_of(SPACE), lambda units: sign * learning_rate_first(units), count=200)
    found = shares(importance(space_of(SPACE), Objective("value", direction), trials), method)
    assert found["learning_rate"] > found["batch_size"] > found["momentum"]
    assert sum(found.values()) == pytest.approx(1)


def test_the_same_trials_give_the_same_shares_in_any_order_and_on_any_scale_of_the_objective() -> None:
    space = space_of(SPACE)
    trials = study(space, learning_rate_first)
    found = importance(space, LOSS, trials)
    stretched = [replace(t, result=replace(t.outcome, value=10**t.score)) for t in reversed(trials)]
    assert importance(space, LOSS, stretched) == found


def test_one_diverged_trial_does_not_drown_the_others() -> None:
    space = space_of(SPACE)
    trials = study(space, learning_rate_first)
    huge = replace(trials[7], result=TrialResult(TrialState.COMPLETE, value=1e30))
    found = shares(importance(space, LOSS, [*trials[:7], huge, *trials[8:]]), "fanova")
    assert found["learning_rate"] > 0.6


def test_bad_trials_count_as_bad_and_confirming_failed_and_running_ones_not_at_all() -> None:
    space = space_of(SPACE)
    trials = study(space, learning_rate_first)
    bad = TrialResult(TrialState.PRUNED, reason="diverged", infeasible=True)
    good = trials[0].params
    others = [
        Trial(60, good, 0, TrialState.COMPLETE, confirms=0, result=TrialResult(TrialState.COMPLETE, value=99.0)),
        Trial(61, good, 0, TrialState.FAILED, result=TrialResult(TrialState.FAILED, reason="KeyError")),
        Trial(62, good, 0, TrialState.RUNNING),
        Trial(63, None, 0),
    ]
    assert importance(space, LOSS, [*trials, *others]) == replace(importance(space, LOSS, trials), left_out=1)
    pruned = [replace(t, state=TrialState.PRUNED, result=replace(t.outcome, state=TrialState.PRUNED)) for t in trials]
    infeasible = Trial(60, trials[0].params, 0, TrialState.PRUNED, result=bad)
    found = importance(space, LOSS, [*trials[:30], *pruned[30:], infeasible])
    assert (found.complete, found.pruned, found.infeasible, found.trials) == (30, 30, 1, 61)
    worst = Trial(60, trials[0].params, 0, TrialState.COMPLETE, result=TrialResult(TrialState.COMPLETE, value=1e9))
    assert found.parameters == importance(space, LOSS, [*trials, worst]).parameters


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_pruned_trial_counts_with_what_it_would_have_become(direction: Direction) -> None:
    """A loss halves after the first epoch, an accuracy grows by 9, and so it would have for those pruned there."""
    space, sign = space_of(SPACE), 1 if direction == "minimize" else -1
    objective = Objective("value", direction)
    trials = study(space, lambda units: (1 if sign == 1 else 20) + sign * learning_rate_first(units))
    trials = [replace(t, values={1: 2 * t.score if sign == 1 else t.score - 9, 5: t.score}) for t in trials]
    by_number = importance(space, objective, trials).parameters
    best = min(trials, key=lambda t: objective.key(t.score)).number
    cut = [
        replace(t, values={1: t.values[1]}, result=TrialResult(TrialState.PRUNED, value=t.values[1]))
        if t.number % 2 and t.number != best
        else t
        for t in trials
    ]
    found = importance(space, objective, cut)
    assert found.pruned >= 29
    assert [(p.ped_anova, p.fanova) for p in found.parameters] == [(p.ped_anova, p.fanova) for p in by_number]


def test_a_conditional_parameter_is_measured_by_both_methods() -> None:
    space = space_of(CONDITIONAL)

    def beta_matters(units: dict[str, float]) -> float:
        return 3 * units["adam_beta1"] if "adam_beta1" in units else 1.0

    found = importance(space, LOSS, study(space, beta_matters, count=150))
    for method in ("ped_anova", "fanova"):
        measured = shares(found, method)
        assert max(measured, key=lambda name: measured[name] or 0) == "adam_beta1"


def test_what_decides_whether_a_parameter_applies_does_not_make_it_important() -> None:
    space = space_of(CONDITIONAL)
    found = importance(space, LOSS, study(space, lambda units: units["optimizer"] + 0.1 * units["momentum"], count=150))
    for method in ("ped_anova", "fanova"):
        assert shares(found, method)["adam_beta1"] < 0.15
    assert shares(found, "fanova")["optimizer"] > 0.6  # PED-ANOVA sees that the best have sgd and a low momentum alike


def test_parameters_that_never_or_hardly_applied_or_never_changed_are_named_with_the_reason() -> None:
    space = space_of(CONDITIONAL)
    trials = study(space, learning_rate_first, count=40)
    constant = [replace(t, params={**(t.params or {}), "data.batch_size": 64}) for t in trials]
    kept = [t for t in constant if "model.adam_beta1" not in (t.params or {})]
    few = [*kept, *[t for t in constant if t not in kept][:3]]
    found = {p.name: p for p in importance(space, LOSS, few).parameters}
    assert found["batch_size"].reason == "it was 64 in every trial"
    assert found["adam_beta1"].reason == f"it applied in 3 of {len(few)} trials"
    assert found["batch_size"].ped_anova is found["batch_size"].fanova is found["adam_beta1"].fanova is None
    assert found["learning_rate"].reason is None
    never = {p.name: p for p in importance(space, LOSS, kept).parameters}
    assert never["adam_beta1"].reason == "it never applied"


def test_trials_outside_a_space_that_was_narrowed_do_not_count() -> None:
    trials = study(space_of(SPACE), learning_rate_first)
    narrow = space_of({**SPACE, "data.batch_size": {"choice": [16, 32], "priority": 2}})
    inside = [t for t in trials if (t.params or {})["data.batch_size"] in (16, 32)]
    assert 10 <= len(inside) < 60
    left_out = len(trials) - len(inside)
    assert importance(narrow, LOSS, trials) == replace(importance(narrow, LOSS, inside), left_out=left_out)


def test_too_few_trials_equal_values_and_too_many_ties_are_told() -> None:
    space = space_of(SPACE)
    trials = study(space, learning_rate_first, count=12)
    assert importance(space, LOSS, trials[:9]).reason == "it takes 10 finished trials to measure, and there are 9"
    pruned = [replace(t, result=replace(t.outcome, state=TrialState.PRUNED)) for t in trials]
    assert importance(space, LOSS, pruned).reason == "it takes 5 complete trials to measure, and there are 0"
    assert importance(space, LOSS, []).reason is not None
    equal = importance(space, ACCURACY, study(space, lambda units: 0.5))
    assert equal.reason == "all 60 trials have the same val_acc, so nothing made a difference"
    assert equal.sentences == ()
    tied = study(space, lambda units: 0.0 if units["learning_rate"] < 0.02 else 1.0)
    found = importance(space, LOSS, tied)
    assert {p.ped_anova for p in found.parameters} == {None}
    assert {p.reason for p in found.parameters} == {"too many trials are equally good for PED-ANOVA"}
    assert found.agreement_ped_anova is None
    assert found.parameters[0].fanova is not None


def test_too_few_trials_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tuner.insight import importance\nfrom tuner.space import read_space\n"
        "from tuner.trial import Objective\nimportance(read_space('mlp')[0], Objective('val_loss'), [])\n"
        "print([n for n in ('optuna', 'sklearn', 'numpy', 'scipy', 'torch') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


# Beside the stated order


def test_the_rank_correlation_is_the_one_computed_by_hand() -> None:
    assert ranks([3.0, 1.0, 2.0, 1.0]) == [4, 1.5, 3, 1.5]
    # Differences of ranks 0, 1, 1, 0: 1 - 6 · 2 / (4 · 15) = 0.8.
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert rank_correlation([1, 2, 3], [9, 5, 1]) == pytest.approx(-1)
    tied, values = [1, 2, 2, 7, 7, 7, 8], [0.3, 0.1, 0.4, 0.1, 0.2, 0.9, 0.8]
    assert rank_correlation(tied, values) == pytest.approx(scipy.stats.spearmanr(tied, values).statistic)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2]) is None


def test_the_right_order_correlates_fully_and_needs_no_sentence() -> None:
    found = importance(space_of(SPACE), LOSS, study(space_of(SPACE), learning_rate_first, count=200))
    assert found.agreement_ped_anova == found.agreement_fanova == pytest.approx(1)
    assert found.sentences == ()
    assert found.parameters[0].beyond_chance


def test_a_parameter_that_matters_more_than_stated_is_named() -> None:
    found = importance(space_of(SPACE), LOSS, study(space_of(SPACE), momentum_first, count=200))
    assert found.agreement_fanova == pytest.approx(-0.5)  # ranks 1, 2, 3 against 2, 3, 1: 1 - 6 · 6 / (3 · 8)
    assert len(found.sentences) == 1
    assert found.sentences[0].startswith("momentum is stated 4th but explains most of all: ")


def test_a_parameter_without_a_priority_is_stated_last() -> None:
    document = {**SPACE, "model.momentum": {k: v for k, v in SPACE["model.momentum"].items() if k != "priority"}}
    space = space_of(document)
    found = importance(space, LOSS, study(space, momentum_first, count=200))
    assert found.parameters[-1].name == "momentum"
    assert found.sentences[0].startswith("momentum is stated last but explains most of all: ")


def test_methods_that_name_different_parameters_disagree_in_a_sentence() -> None:
    def two_questions(units: dict[str, float]) -> float:
        """The learning rate moves every rank; but the best trials, all at low ones, differ by the momentum."""
        if units["learning_rate"] > 0.5:
            return 5 + units["learning_rate"]
        return 2 + units["learning_rate"] if units["momentum"] > 0.15 else units["momentum"]

    found = importance(space_of(SPACE), LOSS, study(space_of(SPACE), two_questions, count=200))
    assert found.sentences[0].startswith("The methods disagree: by PED-ANOVA, momentum matters most (")
    assert "by fANOVA, learning_rate (" in found.sentences[0]


def test_noise_is_told_as_chance_and_not_as_importance() -> None:
    space = space_of(SPACE)
    told = []
    for seed in range(10):
        noise = np.random.default_rng(1000 + seed)
        told.append(importance(space, LOSS, study(space, lambda _, noise=noise: noise.random(), 60, seed)).sentences)
    chance = ("By PED-ANOVA no parameter stands out from chance: more trials would tell.",)
    assert sum(sentences == chance for sentences in told) >= 8


# What is shown


def shown(part: Any) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def page(trials: list[Trial]) -> str:
    document = {
        "study": "small",
        "model": {"class_path": "tuner.models.MLP"},
        "objective": {"metric": "val_loss", "direction": "minimize"},
        "search": {"sampler": "priority"},
        "space": SPACE,
    }
    row = StudyRow(1, "small", document, "complete", None, seed=0, created_at=0.0, active_seconds=0.0)
    counts = dict.fromkeys(("complete", "pruned", "failed", "running"), 0) | {"complete": len(trials)}
    cost = {"epochs": 1, "seconds": 1.0, "wasted_seconds": 0.0}
    result = StudyResult("small", "complete", counts, None, None, cost, None, "", "")
    return shown(study_page(row, result, trials)) + shown(importance_part(row, trials))


def test_the_page_shows_both_methods_beside_the_priorities() -> None:
    told = page(study(space_of(SPACE), momentum_first))
    assert "Stated priority beside measured importance" in told
    heading = next(line for line in told.splitlines() if "PED-ANOVA" in line)
    assert heading.split() == ["priority", "parameter", "PED-ANOVA", "fANOVA"]
    assert "rank correlation with the stated order: PED-ANOVA -" in told
    assert "momentum is stated 4th but explains most of all" in told
    assert "from 60 trials: 60 complete. A search looks most where it expects the best" in told


def test_the_page_of_a_short_study_says_how_many_trials_are_missing() -> None:
    told = page(study(space_of(SPACE), momentum_first, count=3))
    assert "Importance is not measured: it takes 10 finished trials to measure, and there are 3." in told
    assert "fANOVA" not in told


def test_what_was_not_measured_is_a_dash_with_its_reason() -> None:
    space = space_of(SPACE)
    trials = [replace(t, params={**(t.params or {}), "data.batch_size": 64}) for t in study(space, momentum_first)]
    row = next(
        line for line in shown(importance_table(importance(space, LOSS, trials))).splitlines() if "batch" in line
    )
    assert " ".join(row.split()) == "2 batch_size – – it was 64 in every trial"


def test_the_page_says_how_many_trials_are_not_measured() -> None:
    trials = study(space_of(SPACE), learning_rate_first)
    assert "left out" not in page(trials)
    lost = Trial(60, trials[0].params, 0, TrialState.FAILED, result=TrialResult(TrialState.FAILED, reason="KeyError"))
    told = " ".join(page([*trials, lost]).split())
    assert "from 60 trials: 60 complete; left out: 1 that failed or lie outside the space as it is now." in told
