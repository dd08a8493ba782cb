"""All wrong arguments at once, and wrong values of a space, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.errors import SpecError
from tuner.spec import read_study
from tuner.training import inspect

RATE = {"model.learning_rate": {"float": {"low": 0.01, "high": 0.1}}}


def problems_of(network: str, module: str, space: Any = None, **init_args: dict[str, Any]) -> dict[str, str]:
    document = {
        "study": "s",
        "model": {"class_path": f"tuner.models.{network}", "init_args": init_args.get("model", {})},
        "data": {"class_path": f"tuner.data.{module}", "init_args": init_args.get("data", {})},
        "trainer": {"max_epochs": 20},
        "space": space or RATE,
    }
    with pytest.raises(SpecError) as caught:
        read_study(document, inspect=inspect)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_all_refused_arguments_come_at_once_each_with_its_path() -> None:
    wrong = {"activation": "rellu", "dropout": 1.5, "norm": "batsh", "optimizer": "adm", "depth": 0, "hidden_units": 8}
    told = problems_of("ResNet", "Digits", model=wrong, data={"val_share": 2.0})
    assert told.keys() == {f"model.init_args.{name}" for name in wrong if name != "hidden_units"} | {
        "data.init_args.val_share"
    }
    assert "Did you mean 'relu'?" in told["model.init_args.activation"]


def test_an_argument_that_is_needed_is_given_to_every_try(tmp_path: Path) -> None:
    told = problems_of("MLP", "Tabular", data={"path": "iris.csv", "target": "species", "task": "x", "missing": "y"})
    assert told.keys() == {"data.init_args.task", "data.init_args.missing"}
    told = problems_of("MLP", "Tabular", data={"path": str(tmp_path / "none.csv"), "target": "species"})
    assert told.keys() == {"data.init_args"}
    assert "there is no such file" in told["data.init_args"]


@pytest.mark.parametrize(
    ("model", "path", "described", "said"),
    [
        ("MLP", "model.norm", {"choice": ["batch", "instance"]}, "'instance' is among its values: norm must be one of"),
        ("MLP", "model.dropout", {"float": {"low": 0.0, "high": 1.5}}, "1.5 is among its values: dropout must be"),
        ("DenseNet", "model.activation", {"choice": ["relu", "maxout"]}, "'maxout' is among its values"),
        ("ResNet", "model.depth", {"int": {"low": 0, "high": 3}}, "0 is among its values: depth must be at least 1"),
        ("MLP", "data.batch_size", {"choice": [32, "ful"]}, "'ful' is among its values: batch_size must be"),
    ],
)
def test_a_value_of_the_space_that_the_class_refuses_is_told(model: str, path: str, described: Any, said: str) -> None:
    flat = {"flat": False} if model != "MLP" else {}
    told = problems_of(model, "Digits", RATE | {path: described}, data=flat)
    assert list(told) == [f"space.{path}"]
    assert told[f"space.{path}"].startswith(said)


def test_a_value_is_tried_where_it_applies() -> None:
    space = RATE | {
        "model.cell": {"choice": {"values": ["gru", "rnn"], "default": "gru"}},
        "model.activation": {
            "choice": {"values": ["tanh", "relu"], "default": "tanh"},
            "when": {"model.cell": ["rnn"]},
        },
    }
    document = {
        "study": "s",
        "model": {"class_path": "tuner.models.RNNLanguageModel"},
        "data": {"class_path": "tuner.data.Text"},
        "trainer": {"max_epochs": 20},
        "space": space,
    }
    read_study(document, inspect=inspect)  # a GRU would refuse relu
    del space["model.activation"]["when"]
    with pytest.raises(SpecError, match="'relu' is among its values"):
        read_study(document, inspect=inspect)


def test_a_whole_column_of_mistakes_is_told_by_its_first_ten(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a;kind\n" + "\n".join(f"{i},5;{'uv'[i % 2]}" for i in range(100)))
    document = {
        "study": "s",
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": "tuner.data.Tabular", "init_args": {"path": str(table), "target": "kind"}},
        "trainer": {"max_epochs": 20},
        "space": RATE,
    }
    with pytest.raises(SpecError) as caught:
        read_study(document, inspect=inspect)
    assert len(caught.value.problems) == 11
    assert "90 more problems like these." in caught.value.problems[-1].message


def test_a_class_of_the_user_s_own_is_not_tried_out(study: dict[str, Any]) -> None:
    study["model"] = {"class_path": "scripted.Net", "init_args": {"width": 4}}
    study["data"] = {"class_path": "scripted.Points"}
    study["space"] = {"model.dropout": {"float": {"low": 0.0, "high": 1.5}}}
    read_study(study, inspect=inspect)
