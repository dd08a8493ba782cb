"""Warnings of the study check: batch normalisation where it is seldom what one wants (documented.md §5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted import Net
from torch import nn

from tuner.errors import SpecError
from tuner.spec import StudySpec, read_study
from tuner.training import inspect


def asked(model: str, data: str, space: Any, **init_args: Any) -> dict[str, Any]:
    return {
        "study": "s",
        "model": {"class_path": f"tuner.models.{model}", "init_args": init_args},
        "data": {"class_path": f"tuner.data.{data}"},
        "trainer": {"max_epochs": 1},
        "space": space,
    }


RATE = {"model.learning_rate": {"float": {"low": 0.01, "high": 0.1}}}


def warnings_of(document: dict[str, Any]) -> list[str]:
    spec: StudySpec = read_study(document, inspect=inspect)
    return spec.warnings()


def test_batch_normalisation_with_small_batches_draws_a_warning_with_advice() -> None:
    document = asked("MLP", "Digits", RATE | {"data.batch_size": {"choice": [4, 16]}})
    (told,) = warnings_of(document)
    assert told.startswith("space.data.batch_size: batch normalisation with batches of 4")
    assert "Use layer or group normalisation, or larger batches." in told


def test_it_is_enough_that_the_search_may_choose_it() -> None:
    searched = {"model.norm": {"choice": ["layer", "batch"]}, "data.batch_size": {"int": {"low": 2, "high": 64}}}
    assert len(warnings_of(asked("MLP", "Digits", RATE | searched))) == 1
    searched["model.norm"] = {"choice": ["layer", "none"]}
    assert warnings_of(asked("MLP", "Digits", RATE | searched)) == []


@pytest.mark.parametrize(("size", "warned"), [(7, True), (8, False), ("full", False)])
def test_eight_samples_are_enough_and_so_is_the_whole_split(size: Any, warned: bool) -> None:
    document = asked("MLP", "Digits", RATE)
    document["data"]["init_args"] = {"batch_size": size}
    told = warnings_of(document)
    assert bool(told) == warned
    assert all(warning.startswith("data.batch_size: ") for warning in told)


def test_layer_normalisation_draws_none_with_any_batch() -> None:
    document = asked("MLP", "Digits", RATE | {"data.batch_size": {"choice": [1, 2]}}, norm="layer")
    assert warnings_of(document) == []


def test_batch_normalisation_in_a_recurrent_network_draws_a_warning_with_advice() -> None:
    (told,) = warnings_of(asked("RNNLanguageModel", "Text", RATE, norm="batch"))
    assert told == (
        "model.norm: batch normalisation in a recurrent network mixes sequences and steps. Use layer normalisation."
    )
    assert warnings_of(asked("RNNLanguageModel", "Text", RATE, norm="layer")) == []


class Own(Net):
    """A module of somebody else, who calls nothing by our names."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(3)
        self.rnn = nn.GRU(3, 3)


def test_a_module_of_one_s_own_is_looked_into(study: dict[str, Any]) -> None:
    study["model"] = {"class_path": f"{__name__}.Own"}
    study["data"] = {"class_path": "scripted.Points"}
    study["space"] = {"trainer.gradient_clip_val": {"float": {"low": 0.1, "high": 1.0}}}
    told = warnings_of(study)
    assert [warning for warning in told if warning.startswith("model: batch normalisation in a recurrent network")]


@pytest.mark.parametrize(
    ("model", "data", "space"),
    [
        ("MLP", "Digits", "mlp"),
        ("RNNLanguageModel", "Text", "rnn"),
    ],
)
def test_the_shipped_spaces_draw_no_warning(model: str, data: str, space: str) -> None:
    document = asked(model, data, space)
    document["trainer"]["max_epochs"] = 20
    assert warnings_of(document) == []


def test_steps_of_the_rate_that_never_come_draw_a_warning() -> None:
    document = asked("MLP", "Digits", "mlp")
    document["trainer"]["max_epochs"] = 10
    (told,) = warnings_of(document)
    assert told == (
        "space.model.lr_schedule: 'step' lowers the rate every 10 epochs, but a trial has 10. "
        "Set model.init_args.lr_step lower."
    )
    document["model"]["init_args"] = {"lr_step": 3}
    assert warnings_of(document) == []
    assert len(warnings_of(asked("MLP", "Digits", RATE, lr_schedule="step"))) == 1
    assert warnings_of(asked("MLP", "Digits", RATE, lr_schedule="none")) == []


def test_a_warning_is_no_mistake_and_not_part_of_the_stored_study() -> None:
    document = asked("MLP", "Digits", RATE, norm="batch")
    document["data"]["init_args"] = {"batch_size": 2}
    spec = read_study(document, inspect=inspect)
    assert len(spec.warnings()) == 1
    assert read_study(spec.document()).document() == spec.document()
    assert read_study(spec.document()).warnings() == []


def test_data_that_do_not_fit_the_model_are_told_before_anything_runs(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,y\n1,2,u\n3,x,v\n" + "5,6,u\n7,8,v\n" * 10)
    document = asked("MLP", "Tabular", RATE)
    document["data"]["init_args"] = {"path": str(table), "target": "y"}
    with pytest.raises(SpecError) as caught:
        read_study(document, inspect=inspect)
    (problem,) = caught.value.problems
    assert problem.path == "data"
    assert "t.csv" in problem.message
    assert "line 3" in problem.message
    with pytest.raises(SpecError, match="LeNet takes images of shape"):
        read_study(asked("LeNet", "Digits", RATE), inspect=inspect)
