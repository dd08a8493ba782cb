"""The diagnosis on made-up curves: each verdict, what speaks for it, its remedies, and the next study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tuner.errors import NoBest, StudyNotFound
from tuner.insight import Curves, Diagnosis, diagnose
from tuner.insight.followup import follow_up, next_name
from tuner.space.yaml import read_yaml
from tuner.spec import StudySpec, read_study
from tuner.trial import Report, Trial, TrialResult, TrialState

LN10 = math.log(10)
RATE: dict[str, Any] = {"float": {"low": 1e-3, "high": 1.0, "scale": "log", "default": 0.1}, "priority": 1}
UNITS: dict[str, Any] = {"int": {"low": 4, "high": 64, "scale": "log", "default": 16}, "priority": 3}
DROPOUT: dict[str, Any] = {"float": {"low": 0.0, "high": 0.5, "default": 0.1}, "priority": 9}
ARGUMENTS: dict[str, Any] = {
    "hidden_units": 64,
    "depth": 2,
    "activation": "relu",
    "norm": "batch",
    "dropout": 0.0,
    "learning_rate": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "lr_schedule": "none",
    "weight_decay": 1e-3,
    "penalty": 0.0,
    "clip_norm": None,
}
"""Arguments of the model, as the complete configuration of a trial has them."""


def spec(space: dict[str, Any] | None = None, **more: Any) -> StudySpec:
    document = {
        "study": "made",
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {"max_epochs": 10},
        "space": space or {"model.learning_rate": RATE},
    }
    return read_study(document | more)


class Made:
    """A study in the making: trials with curves that a test spells out."""

    def __init__(self, entropy: float | None = LN10) -> None:
        self.trials: list[Trial] = []
        self.curves: dict[int, list[Report]] = {}
        self.entropy = entropy

    def add(
        self,
        val: Sequence[float],
        train: Sequence[float] | None = None,
        params: dict[str, Any] | None = None,
        logged: Sequence[dict[str, float]] = (),
        state: TrialState = TrialState.COMPLETE,
        reason: str | None = None,
        infeasible: bool = False,
        **arguments: Any,
    ) -> Made:
        number = len(self.trials)
        known = {} if self.entropy is None else {"val_label_entropy": self.entropy}
        reports = []
        for i, value in enumerate(val):
            metrics = {"val_loss": value, **known, **(logged[i] if logged else {})}
            reports.append(Report(i + 1, metrics | ({} if train is None else {"train_loss": train[i]}), value))
        self.curves[number] = reports
        best = min(range(len(val)), key=lambda i: val[i]) if val else None
        params = params or {"model.learning_rate": 0.1}
        result = TrialResult(
            state,
            value=None if best is None else val[best],
            best_epoch=None if best is None else best + 1,
            epochs=len(val),
            reason=reason,
            infeasible=infeasible,
            config={"model": {"class_path": "tuner.models.MLP", "init_args": {**ARGUMENTS, **arguments}}},
            seconds={"train": 1.0},
        )
        self.trials.append(Trial(number, params, seed=number, state=state, result=result))
        return self

    def diagnosed(self, study: StudySpec | None = None, **asked: Any) -> Diagnosis:
        return diagnose(study or spec(), self.trials, self.curves, **asked)


def falling(start: float, end: float, epochs: int = 10) -> list[float]:
    """A curve that has flattened out by its end."""
    return [end + (start - end) * math.exp(-1.2 * i) for i in range(epochs)]


def well(made: Made, count: int = 3) -> Made:
    for i in range(count):
        made.add(falling(2.0, 0.08 + 0.01 * i), falling(2.0, 0.03))
    return made


def test_a_study_that_fits_is_fine_and_says_by_which_numbers() -> None:
    found = well(Made()).diagnosed()
    assert (found.verdict, found.confidence, found.trial) == ("fine", "high", 0)
    assert "0.08" in found.headline
    assert "2.3, the entropy of the labels" in found.headline
    assert found.evidence[0].value < found.evidence[0].threshold


def test_bad_training_fit_is_underfitting_and_a_larger_network_the_remedy() -> None:
    made = Made()
    for i in range(3):
        made.add(falling(2.3, 1.42 + 0.01 * i), falling(2.3, 1.4), hidden_units=2, depth=1)
    found = made.diagnosed()
    assert found.verdict == "underfitting"
    assert found.evidence[0].measure == "training loss"
    assert found.evidence[0].value == pytest.approx(1.4 / LN10, rel=1e-3)
    first = found.advice[0]
    assert first.hyperparameter == "model.hidden_units"
    assert first.parameter is not None
    assert first.parameter["int"]["low"] == 2
    assert first.parameter["int"]["high"] >= 64


def test_the_fit_is_judged_by_the_lower_loss_since_dropout_raises_the_training_loss() -> None:
    made = Made()
    for _ in range(3):
        made.add(falling(2.3, 0.1), falling(2.3, 0.9), dropout=0.5)
    assert made.diagnosed().verdict == "fine"


def test_a_loss_still_falling_at_its_end_asks_for_more_epochs_first() -> None:
    made = Made()
    for i in range(3):
        made.add([2.3 - 0.1 * e + 0.01 * i for e in range(10)], [2.3 - 0.1 * e for e in range(10)])
    found = made.diagnosed()
    assert found.verdict == "underfitting"
    assert found.advice[0].hyperparameter == "trainer.max_epochs"
    assert found.advice[0].value > 10


def test_steps_too_short_to_move_are_underfitting_and_not_nothing_learned() -> None:
    made = Made()
    for rate in (1e-5, 2e-5, 4e-5):
        flat = [2.52, 2.53, 2.52, 2.52, 2.51, 2.52]
        made.add(flat, [v + 0.1 for v in flat], {"model.learning_rate": rate})
    slow = {"model.learning_rate": {"float": {"low": 1e-5, "high": 1e-4, "scale": "log"}}}
    found = made.diagnosed(spec(slow))
    assert found.verdict == "underfitting"
    assert found.advice[0].hyperparameter == "model.learning_rate"
    assert found.advice[0].parameter is not None
    assert found.advice[0].parameter["float"]["high"] >= 1


def test_a_gap_is_overfitting_with_the_documented_remedies_in_order() -> None:
    made = Made()
    for i in range(3):
        made.add([1.5, 0.9, 0.8 + 0.01 * i, 0.85, 0.9], [1.5, 0.5, 0.1, 0.02, 0.01])
    found = made.diagnosed()
    assert (found.verdict, found.confidence) == ("overfitting", "high")
    assert [a.hyperparameter for a in found.advice] == [
        "model.penalty",
        "model.weight_decay",
        "model.dropout",
        "model.hidden_units",
        "model.depth",
    ]


def test_losses_that_move_apart_after_the_best_epoch_are_overfitting_too() -> None:
    made = Made()
    for _ in range(3):
        made.add([1.2, 0.75, 0.73, 0.85, 0.86, 0.9], [2.1, 1.7, 1.6, 1.3, 1.1, 0.9])
    found = made.diagnosed()
    assert found.verdict == "overfitting"
    assert found.evidence[0].measure == "moved apart after the best epoch"


def test_a_training_set_learned_by_heart_is_overfitting_although_validation_never_got_anywhere() -> None:
    made = Made()
    for _ in range(4):
        made.add([2.31, 2.4, 2.8, 3.5], [2.3, 1.8, 0.9, 0.3])
    found = made.diagnosed()
    assert found.verdict == "overfitting"
    assert "by heart" in found.headline


def test_validation_that_never_beats_the_label_frequencies_has_learned_nothing() -> None:
    made = Made()
    for i in range(4):
        made.add([2.45, 2.36, 2.34 + 0.01 * i, 2.35, 2.36], [2.5, 2.35, 2.29, 2.26, 2.25])
    found = made.diagnosed()
    assert (found.verdict, found.confidence) == ("learned_nothing", "high")
    assert "2.34" in found.headline
    assert any("labels belong together" in line for line in found.warnings)


def test_a_trial_on_its_way_to_nothing_does_not_hide_those_that_have_arrived() -> None:
    made = Made()
    made.add([2.6, 2.5, 2.42, 2.36, 2.31], [2.7, 2.6, 2.5, 2.42, 2.38])  # steady, and the lowest
    for _ in range(3):
        made.add([2.4, 2.33, 2.34, 2.35, 2.34], [2.4, 2.3, 2.28, 2.27, 2.26])
    assert made.diagnosed().verdict == "learned_nothing"


def test_losses_that_blow_up_diverge_and_the_rates_are_taken_below_them() -> None:
    made = Made()
    for rate in (30.0, 100.0):
        made.add(
            [],
            params={"model.learning_rate": rate},
            state=TrialState.PRUNED,
            infeasible=True,
            reason="diverged: val_loss is nan at epoch 1",
        )
    made.add([40.0, 300.0, 90.0], [30.0, 400.0, 80.0], {"model.learning_rate": 20.0})
    high = {"model.learning_rate": {"float": {"low": 10.0, "high": 200.0, "scale": "log"}}}
    found = made.diagnosed(spec(high))
    assert (found.verdict, found.confidence) == ("diverging", "high")
    assert found.evidence[0].value == 1.0
    rates = found.advice[0].parameter
    assert found.advice[0].hyperparameter == "model.learning_rate"
    assert rates is not None
    assert rates["float"]["high"] <= 1.0
    assert {"model.lr_schedule", "data.batch_size", "model.clip_norm"} >= {a.hyperparameter for a in found.advice[1:]}


def test_a_study_of_which_no_trial_ever_had_a_value_diverges() -> None:
    made = Made()
    for _ in range(3):
        made.add([], state=TrialState.PRUNED, infeasible=True, reason="diverged: val_loss is nan at epoch 1")
    assert made.diagnosed().verdict == "diverging"


def test_trials_out_of_memory_have_not_diverged() -> None:
    made = well(Made())
    for _ in range(5):
        made.add([], state=TrialState.PRUNED, infeasible=True, reason="out of memory: ...")
    found = made.diagnosed()
    assert found.verdict == "fine"
    assert not any("diverged" in line for line in found.lines)


def test_a_best_that_is_well_outweighs_others_that_diverged() -> None:
    made = well(Made())
    for _ in range(5):
        made.add([], state=TrialState.PRUNED, infeasible=True, reason="diverged: val_loss is nan at epoch 1")
    found = made.diagnosed()
    assert found.verdict == "fine"
    assert "5 of 8 trials diverged." in found.warnings


def gradients(first: float, last: float, epochs: int) -> list[dict[str, float]]:
    return [{"grad_norm/net.2": first, "grad_norm/net.10": last, "grad_norm/net.4": 0.5}] * epochs


def test_gradient_norms_of_the_layers_show_vanishing_in_the_order_of_the_layers() -> None:
    made = Made()
    for _ in range(3):
        made.add(
            [2.31, 2.30, 2.30], [2.32, 2.31, 2.31], logged=gradients(1e-7, 1.0, 3), activation="sigmoid", norm="none"
        )
    found = made.diagnosed()
    assert (found.verdict, found.confidence) == ("vanishing", "high")
    assert found.evidence[0].value == pytest.approx(1e-7)
    assert [a.hyperparameter for a in found.advice][:2] == ["model.activation", "model.norm"]
    assert found.advice[0].parameter is not None
    assert found.advice[0].parameter["choice"]["values"][0] == "relu"


def test_small_first_gradients_of_a_network_that_learns_do_not_count_as_vanishing() -> None:
    made = Made()
    for _ in range(3):
        made.add(falling(2.3, 0.1), falling(2.3, 0.05), logged=gradients(1e-7, 1.0, 10))
    assert made.diagnosed().verdict == "fine"


def test_deep_sigmoids_at_the_label_entropy_are_called_vanishing_with_less_confidence() -> None:
    made = Made()
    for _ in range(3):
        made.add([2.31, 2.30, 2.30], [2.32, 2.31, 2.31], activation="sigmoid", norm="none", depth=10)
    found = made.diagnosed()
    assert (found.verdict, found.confidence) == ("vanishing", "medium")
    assert any("LayerStatistics" in line for line in found.lines)


def test_drifting_layer_inputs_are_worth_a_word_and_name_normalisation() -> None:
    def moved(epochs: int) -> list[dict[str, float]]:
        return [{"preact_mean/net.2": 2.0 * e, "preact_std/net.2": 1.0} for e in range(epochs)]

    made = Made()
    for _ in range(3):
        made.add(falling(2.3, 0.1), falling(2.3, 0.05), logged=moved(10), norm="none")
    assert any("18.0 of their deviations" in line and "normalisation" in line for line in made.diagnosed().warnings)


def test_more_capacity_that_helped_across_trials_says_underfitting_where_the_curve_alone_does_not() -> None:
    space = {"model.learning_rate": RATE, "model.hidden_units": UNITS}
    made = Made()
    for i, units in enumerate((4, 6, 8, 12, 16, 24, 32, 48, 64)):
        loss = 0.9 - 0.06 * i
        made.add(
            falling(2.3, loss), falling(2.3, loss - 0.05), {"model.learning_rate": 0.1, "model.hidden_units": units}
        )
    found = made.diagnosed(spec(space))
    assert found.verdict == "underfitting"
    assert any("more hidden_units was better" in e.says for e in found.evidence)
    assert found.advice[0].hyperparameter == "model.hidden_units"
    assert "at the upper end of its range" in " ".join(found.warnings)


def test_what_neither_capacity_nor_time_lowers_may_be_noise() -> None:
    space = {"model.learning_rate": RATE, "model.hidden_units": UNITS}
    made = Made()
    order = (16, 4, 64, 8, 32, 12, 48, 24)
    for i, units in enumerate(order):
        loss = 1.0 + 0.001 * i
        made.add(falling(2.3, loss), falling(2.3, loss), {"model.learning_rate": 0.1, "model.hidden_units": units})
    found = made.diagnosed(spec(space))
    assert found.verdict == "fine"
    assert found.confidence == "medium"
    assert any("noise in the data" in line for line in found.warnings)


def test_more_dropout_that_helped_lowers_the_bar_for_overfitting_and_comes_first() -> None:
    space = {"model.learning_rate": RATE, "model.dropout": DROPOUT}
    made = Made()
    for i, rate in enumerate((0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5)):
        loss = 0.42 - 0.03 * i
        params = {"model.learning_rate": 0.1, "model.dropout": rate}
        made.add(falling(2.3, loss), falling(2.3, 0.02), params, dropout=rate)
    found = made.diagnosed(spec(space))
    assert found.verdict == "overfitting"
    assert found.evidence[0].threshold == pytest.approx(0.07)
    assert found.advice[0].hyperparameter == "model.dropout"


def test_without_a_yardstick_the_losses_alone_are_read_and_that_is_said() -> None:
    found = well(Made(entropy=None)).diagnosed()
    assert found.verdict == "fine"
    assert found.confidence != "high"
    assert any("no yardstick" in line for line in found.warnings)
    made = Made(entropy=None)
    for _ in range(3):
        made.add([2.3, 1.3, 1.2, 1.5, 1.9], [2.3, 0.9, 0.4, 0.1, 0.02])
    assert made.diagnosed().verdict == "overfitting"


def test_without_a_yardstick_losses_that_are_thrown_about_diverge() -> None:
    made = Made(entropy=None)
    for i in range(3):
        made.add([900.0, 300.0, 2000.0, 700.0], [1000.0 + i, 5000.0, 800.0, 9000.0], {"model.learning_rate": 1.0})
    found = made.diagnosed()
    assert (found.verdict, found.advice[0].hyperparameter) == ("diverging", "model.learning_rate")


def test_an_accuracy_to_be_maximised_is_read_as_an_error_rate() -> None:
    study = spec(objective={"metric": "val_acc", "direction": "maximize"})
    made = Made()
    for i in range(3):
        made.add(falling(2.0, 0.08), falling(2.0, 0.03))
        curve = made.curves[i]
        made.curves[i] = [replace(r, value=1 - r.value / 3, metrics={"val_acc": 1 - r.value / 3}) for r in curve]
        result = replace(made.trials[i].outcome, value=1 - 0.08 / 3)
        made.trials[i] = replace(made.trials[i], result=result)
    found = made.diagnosed(study)
    assert found.verdict == "fine"
    assert any("without a training loss" in found.headline for _ in (0,))


def test_leaders_that_disagree_cost_confidence() -> None:
    made = Made()
    made.add([1.5, 0.9, 0.80, 0.85], [1.5, 0.5, 0.1, 0.02])
    made.add(falling(2.0, 0.81), falling(2.0, 0.79))
    made.add([1.5, 0.9, 0.82, 0.85], [1.5, 0.5, 0.1, 0.02])
    found = made.diagnosed()
    assert (found.verdict, found.confidence) == ("overfitting", "medium")
    assert "2 of the 3 best trials" in found.headline


def test_one_trial_is_diagnosed_by_its_own_curves() -> None:
    made = well(Made())
    made.add([1.5, 0.9, 0.8, 0.85, 0.9], [1.5, 0.5, 0.1, 0.02, 0.01])
    assert made.diagnosed().verdict == "fine"
    found = made.diagnosed(trial=3)
    assert (found.verdict, found.trial, found.alone) == ("overfitting", 3, True)
    assert found.headline.startswith("Trial 3 of made")
    with pytest.raises(StudyNotFound, match="numbered from 0 to 3"):
        made.diagnosed(trial=9)


def test_nothing_trained_is_said_and_not_guessed() -> None:
    with pytest.raises(NoBest):
        Made().diagnosed()


def test_the_json_has_the_keys_of_the_contract() -> None:
    made = Made()
    for i in range(3):
        made.add([1.5, 0.9, 0.8 + 0.01 * i, 0.85], [1.5, 0.5, 0.1, 0.02])
    told = made.diagnosed().to_json()
    assert {"study", "verdict", "evidence", "advice"} <= told.keys()
    assert all({"hyperparameter", "change", "reason"} <= advice.keys() for advice in told["advice"])
    assert all(any(c.isdigit() for c in evidence["says"]) for evidence in told["evidence"])


def test_a_best_found_early_says_that_the_rest_of_the_budget_found_nothing() -> None:
    made = Made()
    for i in range(24):
        loss = 0.08 if i == 2 else 0.1 + 0.001 * i
        made.add(falling(2.0, loss), falling(2.0, 0.05), {"model.learning_rate": 0.01 * (i + 1)})
    assert any("the 21 trials after it took 210 of 240 epochs" in line for line in made.diagnosed().warnings)


# The next study.


def written(made: Made, study: StudySpec, found: Diagnosis | None = None) -> tuple[str, StudySpec]:
    text = follow_up(study, found or made.diagnosed(study), made.trials, "made-2")
    document, problems = read_yaml(text)
    assert not problems, text
    return text, read_study(document)


def test_the_next_study_begins_with_this_best_and_has_the_remedies_with_their_reasons() -> None:
    made = Made()
    for i in range(3):
        made.add([2.3 - 0.1 * e + 0.01 * i for e in range(10)], [2.3 - 0.1 * e for e in range(10)], hidden_units=2)
    text, after = written(made, spec())
    assert after.study == "made-2"
    assert after.search.start == ["made"]
    assert after.max_epochs == 40
    assert "# max_epochs: 40 instead of 10" in text
    assert after.searched.parameters["model.hidden_units"].range.contains(64)
    assert text.startswith("# The study after made")


def test_the_next_study_moves_a_range_whose_edge_holds_the_best() -> None:
    made = Made()
    for i in range(12):
        rate = 10 ** (-3 + 3 * i / 11)
        made.add(falling(2.0, 0.3 - 0.02 * i), falling(2.0, 0.05), {"model.learning_rate": rate})
    _, after = written(made, spec())
    values = after.searched.parameters["model.learning_rate"].range
    assert values.high > 1.0  # type: ignore[union-attr]
    assert values.contains(1.0)


def test_the_next_study_narrows_around_the_best_ones() -> None:
    made = Made()
    for i in range(16):
        rate = 10 ** (-3 + 3 * i / 15)
        made.add(falling(2.0, 0.08 + 0.05 * abs(i - 7)), falling(2.0, 0.05), {"model.learning_rate": rate})
    text, after = written(made, spec())
    values = after.searched.parameters["model.learning_rate"].range
    assert values.low > 1e-3  # type: ignore[union-attr]
    assert values.high < 1.0  # type: ignore[union-attr]
    assert "the best 4 trials lie between" in text


def test_best_ones_that_agree_are_said_to() -> None:
    made = Made()
    for i in range(16):
        params = {"model.hidden_units": 16 if i < 4 else 4 if i % 2 else 64}
        made.add(falling(2.0, 0.08 + 0.05 * i), falling(2.0, 0.05), params)
    text, _ = written(made, spec({"model.hidden_units": UNITS}))
    assert "the best 4 trials all have 16" in text


def test_a_range_that_nobody_looked_around_in_is_not_narrowed() -> None:
    space = {"model.learning_rate": RATE, "model.hidden_units": UNITS}
    made = Made()
    for i in range(16):
        params = {"model.learning_rate": 10 ** (-3 + 3 * i / 15), "model.hidden_units": 4 if i == 15 else 16}
        made.add(falling(2.0, 0.08 + 0.05 * abs(i - 7)), falling(2.0, 0.05), params)
    _, after = written(made, spec(space))
    assert after.searched.parameters["model.hidden_units"].range.low == 4  # type: ignore[union-attr]
    assert after.searched.parameters["model.learning_rate"].range.low > 1e-3  # type: ignore[union-attr]


def test_the_next_study_fixes_what_did_not_matter_and_keeps_what_hangs_on_it() -> None:
    space = {
        "model.learning_rate": RATE,
        "model.dropout": DROPOUT,
        "model.weight_decay": {"float": {"low": 1e-6, "high": 1e-1, "scale": "log"}, "priority": 9},
    }
    made = Made()
    for i in range(60):
        rate, dropout = 10 ** (-3 + 3 * ((i * 37) % 60) / 59), 0.5 * ((i * 23) % 60) / 59
        decay = 10 ** (-6 + 5 * ((i * 17) % 60) / 59)
        loss = 0.1 + 0.3 * abs(math.log10(rate) + 1.5)
        params = {"model.learning_rate": rate, "model.dropout": dropout, "model.weight_decay": decay}
        made.add(falling(2.0, loss), falling(2.0, 0.1), params)
    found = made.diagnosed(spec(space))
    idle = next(line for line in found.warnings if "did not matter" in line)
    text, after = written(made, spec(space), found)
    assert "weight_decay" in idle
    assert "model.weight_decay" not in after.searched.parameters
    assert after.model.init_args["weight_decay"] == made.trials[found.trial or 0].params["model.weight_decay"]  # type: ignore[index]
    assert "which the best has, since it did not matter" in text


def test_a_path_that_is_refused_stays_as_it_was() -> None:
    made = Made()
    for i in range(12):
        rate = 10 ** (-3 + 3 * i / 11)
        made.add(falling(2.0, 0.3 - 0.02 * i), falling(2.0, 0.05), {"model.learning_rate": rate})
    text = follow_up(spec(), made.diagnosed(), made.trials, "made-2", without=["model.learning_rate"])
    document, _ = read_yaml(text)
    assert document["space"]["model.learning_rate"]["float"]["high"] == 1.0


def test_activations_that_are_left_out_take_their_conditions_with_them() -> None:
    space = {
        "model.activation": {"choice": ["sigmoid", "tanh", "relu"], "priority": 8},
        "model.maxout_pieces": {"int": {"low": 2, "high": 4}, "when": {"model.activation": ["sigmoid"]}},
    }
    made = Made()
    for _ in range(3):
        params = {"model.activation": "sigmoid", "model.maxout_pieces": 2}
        made.add([2.31, 2.30, 2.30], [2.32, 2.31, 2.31], params, logged=gradients(1e-7, 1.0, 3), activation="sigmoid")
    _, after = written(made, spec(space))
    assert "sigmoid" not in after.searched.parameters["model.activation"].range.listed  # type: ignore[operator]
    assert "model.maxout_pieces" not in after.searched.parameters


def test_names_count_on() -> None:
    assert next_name("digits-mlp", ["digits-mlp"]) == "digits-mlp-2"
    assert next_name("digits-mlp-2", ["digits-mlp-2", "digits-mlp-3"]) == "digits-mlp-4"


def test_curves_by_number_are_all_that_is_read() -> None:
    made = well(Made())
    curves: Curves = {0: made.curves[0]}
    assert diagnose(spec(), made.trials, curves).trial == 0
