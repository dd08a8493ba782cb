"""The study file: read whole, checked whole, every mistake told with its path; and the configurations that follow."""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import Problem, SpecError, StudyNotFound
from tuner.space import FloatRange, Space
from tuner.space.yaml import read_yaml, write_yaml
from tuner.spec import (
    StudySpec,
    at_path,
    difference,
    example_names,
    parse_override,
    place,
    read_study,
    trial_config,
)
from tuner.training import inspect

OTHERS = '''
"""Modules as users write them."""

import lightning as L
import torch

EPOCHS = 3


class Plain(L.LightningModule):
    def __init__(self, size: int = 1, scale: float = 1.0) -> None:
        super().__init__()
        if size > 100:
            raise ValueError(f"size must be at most 100, but got {size}")


class Needy(L.LightningModule):
    def __init__(self, width: int, height: int = 2) -> None:
        super().__init__()


class Stubborn(L.LightningDataModule):
    def __init__(self, folder: str = "here") -> None:
        raise ValueError(f"there is no folder {folder}")


class Loose(L.LightningModule):
    def __init__(self, **kwargs) -> None:
        super().__init__()
'''


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of the user's own, importable for one test: `others_of_a_user.nets`."""
    package = tmp_path / "others_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(OTHERS)
    (package / "broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "others_of_a_user.nets"
    for name in [name for name in sys.modules if name.startswith("others_of_a_user")]:
        del sys.modules[name]


def told(
    study: Any, overrides: Sequence[tuple[str, Any]] = (), *, classes: bool = False, path: str | None = None
) -> dict[str, str]:
    """The problems of a study by path."""
    with pytest.raises(SpecError) as caught:
        read_study(study, overrides, inspect=inspect if classes else None)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    assert caught.value.exit_code == 2
    for problem in caught.value.problems:
        assert problem.path in str(caught.value)
        assert problem.message in str(caught.value)
    if path is not None:
        assert list(found) == [path]
    return found


# ---- where a study comes from --------------------------------------------------------------------------------------


def test_a_study_may_be_a_mapping(study: dict[str, Any]) -> None:
    spec = read_study(study)
    assert spec.study == "small"
    assert spec.model.class_path == "tuner.models.MLP"
    assert spec.search.trials == 4
    assert list(spec.searched.parameters) == ["model.learning_rate", "data.batch_size"]


def test_the_caller_s_mapping_is_left_as_it_was(study: dict[str, Any]) -> None:
    before = copy.deepcopy(study)
    read_study(study, [("search.trials", 9), ("model.norm", "layer"), ("space.model.learning_rate.priority", 3)])
    assert study == before


def test_a_study_may_be_a_file(study: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(write_yaml(study))
    assert read_study(path).document() == read_study(str(path)).document() == read_study(study).document()


def test_floats_without_a_point_are_floats_in_a_study_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: a\nmodel: {class_path: tuner.models.MLP, init_args: {learning_rate: 1e-3}}\n"
        "space:\n  model.weight_decay:\n    float: {low: 1e-6, high: 1e-1, scale: log}\n"
    )
    spec = read_study(path)
    assert spec.model.init_args == {"learning_rate": 0.001}
    assert spec.searched.parameters["model.weight_decay"].range == FloatRange(low=1e-6, high=0.1, scale="log")


@pytest.mark.parametrize("name", example_names())
def test_every_shipped_example_is_a_study_without_problems(name: str) -> None:
    spec = read_study(name, inspect=inspect)
    assert spec.study == name
    assert spec.searched.parameters


def test_a_study_that_is_nowhere_draws_a_suggestion() -> None:
    with pytest.raises(StudyNotFound, match=r"no file 'digit-mlp', .* Did you mean 'digits-mlp'\?"):
        read_study("digit-mlp")
    with pytest.raises(StudyNotFound, match=r"Shipped examples: .*digits-mlp"):
        read_study("/no/such/file.yaml")


def test_a_folder_is_no_study(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("- study\n", "(the file)", "must be a mapping"),
        ("", "(the file)", "must be a mapping"),
        ("study: [\n", "(the file)", "is not valid YAML: line"),
    ],
)
def test_a_file_that_holds_no_mapping_is_told(tmp_path: Path, text: str, path: str, said: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    assert said in told(file, path=path)[path]


def test_a_file_in_another_encoding_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes("study: größe\n".encode("latin-1"))
    assert "UTF-8" in told(file, path="(the file)")["(the file)"]


def test_a_key_given_twice_is_told_along_with_the_other_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("study: a b\nmodel: tuner.models.MLP\nspace: mpl\nstudy: c d\n")
    problems = told(file)
    assert problems["(the file)"] == "line 4: key 'study' is given twice. Keep one."
    assert problems.keys() == {"(the file)", "study", "space"}


# ---- defaults ------------------------------------------------------------------------------------------------------


def test_what_a_study_leaves_out_is_filled_in() -> None:
    spec = read_study({"study": "a", "model": "tuner.models.MLP", "data": "tuner.data.Digits", "space": "mlp"})
    assert spec.goal.metric == "val_loss"
    assert spec.goal.direction == "minimize"
    assert spec.seed_everything == 0
    search = spec.search
    assert (search.sampler, search.pruner, search.trials, search.confirm) == ("priority", "auto", 100, 3)
    assert (search.epochs, search.time, search.trial_time) == (None, None, None)
    assert (search.training, search.cohort, search.patience) == ("auto", "auto", "auto")


def test_a_class_may_be_named_without_arguments() -> None:
    spec = read_study({"study": "a", "model": "tuner.models.MLP", "data": "tuner.data.Digits", "space": "mlp"})
    assert spec.base_config == {
        "seed_everything": 0,
        "model": {"class_path": "tuner.models.MLP"},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {},
    }


def test_a_study_may_have_no_data() -> None:
    spec = read_study({"study": "a", "model": "tuner.models.MLP", "space": {"model.depth": {"choice": [1, 2]}}})
    assert spec.data is None
    assert "data" not in spec.base_config
    assert "data" not in spec.document()


@pytest.mark.parametrize(
    ("trainer", "search", "patience"),
    [
        ({"max_epochs": 100}, {}, 25),
        ({"max_epochs": 8}, {}, 5),
        ({}, {}, 250),
        ({"max_epochs": 100}, {"patience": 3}, 3),
        ({"max_epochs": 100}, {"patience": None}, None),
    ],
)
def test_patience_is_a_quarter_of_the_epochs_and_at_least_five(
    study: dict[str, Any], trainer: dict[str, Any], search: dict[str, Any], patience: int | None
) -> None:
    assert read_study(study | {"trainer": trainer, "search": search}).patience == patience


@pytest.mark.parametrize("epochs", [-1, None])
def test_a_trial_without_a_limit_counts_as_lightning_s_own_thousand_epochs(
    study: dict[str, Any], epochs: int | None
) -> None:
    assert read_study(study | {"trainer": {"max_epochs": epochs}}).max_epochs == 1000


# ---- durations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("90s", 90.0),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("1h 30m 5s", 5405.0),
        (45, 45.0),
        (0.5, 0.5),
        (None, None),
    ],
)
def test_a_duration_is_seconds_or_a_number_with_its_unit(
    study: dict[str, Any], given: Any, seconds: float | None
) -> None:
    spec = read_study(study | {"search": {"time": given, "trial_time": given}})
    assert spec.search.time == spec.search.trial_time == seconds


@pytest.mark.parametrize("given", ["ten minutes", "10", "10min", "m10", "", "10m!", "-5m", "1h-30m", "10 m x", "1e3s"])
def test_a_duration_that_cannot_be_read_is_told_with_an_example(study: dict[str, Any], given: str) -> None:
    problems = told(study | {"search": {"time": given}}, path="search.time")
    assert problems["search.time"] == f"must be a time such as 90s, 10m or 1h30m, but got {given!r}."


@pytest.mark.parametrize(("given", "said"), [("0s", "above 0"), (0, "above 0"), (-3, "above 0"), (True, "a number")])
def test_a_duration_must_be_above_zero(study: dict[str, Any], given: Any, said: str) -> None:
    assert f"must be {said}" in told(study | {"search": {"time": given}}, path="search.time")["search.time"]


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        ({"serach": {}}, "serach", "unknown key. Did you mean 'search'?"),
        ({"search": {"sampeler": "tpe"}}, "search.sampeler", "unknown key. Did you mean 'sampler'?"),
        ({"search": {"sampler": "tpee"}}, "search.sampler", "Did you mean 'tpe'?"),
        ({"search": {"pruner": "hyperbnad"}}, "search.pruner", "Did you mean 'hyperband'?"),
        ({"search": {"pruner": False}}, "search.pruner", "False is not one of: auto, none, median"),
        ({"search": {"trials": -1}}, "search.trials", "must be at least 0, but got -1"),
        ({"search": {"trials": "40"}}, "search.trials", "a whole number, but got '40'. YAML reads it as text: drop"),
        ({"search": {"trials": 1.5}}, "search.trials", "must be a whole number, but got 1.5"),
        ({"search": {"epochs": 0}}, "search.epochs", "must be at least 1, but got 0"),
        ({"search": {"confirm": 101}}, "search.confirm", "must be at most 100, but got 101"),
        ({"search": {"training": "fast"}}, "search.training", "'fast' is not one of: auto, lightning, lean, cohort"),
        ({"search": 3}, "search", "must be a mapping, but got 3"),
        ({"objective": {"direction": "min"}}, "objective.direction", "is not one of: minimize, maximize"),
        ({"objective": {"direction": "minimise"}}, "objective.direction", "Did you mean 'minimize'?"),
        ({"objective": {"metrics": "val_acc"}}, "objective.metrics", "Did you mean 'metric'?"),
        ({"seed_everything": -1}, "seed_everything", "must be at least 0, but got -1"),
        ({"seed_everything": 2**32}, "seed_everything", "must be below 4294967296"),
        ({"seed_everything": True}, "seed_everything", "must be a whole number, but got True"),
        ({"study": "my study"}, "study", "Did you mean 'my-study'?"),
        ({"study": "../up"}, "study", "must be letters, digits"),
        ({"study": "a" * 101}, "study", "100"),
        ({"study": 3}, "study", "must be text, but got 3"),
        ({"model": {"class_pth": "tuner.models.MLP"}}, "model.class_pth", "Did you mean 'class_path'?"),
        ({"trainer": ["max_epochs"]}, "trainer", "must be a mapping"),
        ({"space": "mpl"}, "space", "Did you mean 'mlp'?"),
    ],
)
def test_a_mistake_is_told_with_its_path_and_the_next_step(
    study: dict[str, Any], change: dict[str, Any], path: str, said: str
) -> None:
    assert said in told(study | change)[path]


@pytest.mark.parametrize("key", ["study", "model", "space"])
def test_what_a_study_cannot_do_without_is_required(study: dict[str, Any], key: str) -> None:
    del study[key]
    assert told(study, path=key)[key] == "is required."


@pytest.mark.parametrize("cohort", [0, "four", True])
def test_a_cohort_of_a_wrong_kind_is_one_problem(study: dict[str, Any], cohort: Any) -> None:
    problems = told(study | {"search": {"cohort": cohort}})
    assert list(problems) == ["search.cohort"], problems


def test_mistakes_of_every_part_are_told_at_once(study: dict[str, Any]) -> None:
    study["space"]["model.learning_rate"]["float"]["scale"] = "logarithmic"
    study["model"]["class_path"] = "tuner.modles.MLP"
    study["search"]["trials"] = -2
    problems = told(study, classes=True)
    assert problems == {
        "space.model.learning_rate.float.scale": problems["space.model.learning_rate.float.scale"],
        "model.class_path": "no module 'tuner.modles'. Did you mean 'tuner.models'?",
        "search.trials": "must be at least 0, but got -2.",
    }
    assert "'logarithmic' is not one of: linear, log" in problems["space.model.learning_rate.float.scale"]


def test_the_error_reads_as_a_list_with_paths(study: dict[str, Any], tmp_path: Path) -> None:
    study["search"]["trials"] = -2
    study["serach"] = {}
    path = tmp_path / "study.yaml"
    path.write_text(write_yaml(study))
    with pytest.raises(SpecError) as caught:
        read_study(path)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path} has 2 problems:"
    assert sorted(lines) == [
        "  search.trials  must be at least 0, but got -2.",
        "  serach         unknown key. Did you mean 'search'?",
    ]


# ---- --set ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("search.trials=20", "search.trials", 20),
        ("model.learning_rate=1e-3", "model.learning_rate", 0.001),
        ("search.time=10m", "search.time", "10m"),
        ("space.model.momentum=null", "space.model.momentum", None),
        ("model.init_args.norm=layer", "model.init_args.norm", "layer"),
        ("trainer.callbacks=[]", "trainer.callbacks", []),
        ("space={use: mlp, change: {}}", "space", {"use": "mlp", "change": {}}),
        ("data.folder=a=b", "data.folder", "a=b"),
        ("study=", "study", None),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(text: str, path: str, value: Any) -> None:
    read = parse_override(text)
    assert read == (path, value)
    assert type(read[1]) is type(value)


@pytest.mark.parametrize("text", ["search.trials", "=3", ""])
def test_an_override_without_a_path_or_value_is_told(text: str) -> None:
    with pytest.raises(SpecError, match=r"must be PATH=VALUE, such as search\.trials=20"):
        parse_override(text)


def test_an_override_whose_value_is_no_yaml_is_told_with_its_path() -> None:
    with pytest.raises(SpecError, match=r"--set model\.norm .*is not valid YAML"):
        parse_override("model.norm=[")


def overridden(study: Any, *texts: str) -> StudySpec:
    return read_study(study, [parse_override(text) for text in texts])


def test_an_override_replaces_what_the_file_says(study: dict[str, Any]) -> None:
    spec = overridden(study, "search.trials=20", "study=other", "objective.metric=val_acc", "trainer.max_epochs=5")
    assert (spec.search.trials, spec.study, spec.goal.metric, spec.max_epochs) == (20, "other", "val_acc", 5)
    assert spec.search.confirm == 0


@pytest.mark.parametrize("text", ["model.norm=layer", "model.init_args.norm=layer"])
def test_the_short_and_the_long_form_of_a_path_are_one(study: dict[str, Any], text: str) -> None:
    assert overridden(study, text).model.init_args == {"hidden_units": 16, "depth": 1, "norm": "layer"}


def test_an_override_may_set_arguments_where_there_were_none(study: dict[str, Any]) -> None:
    spec = overridden(study, "data.seed=3", "model.class_path=tuner.models.MLP")
    assert spec.data is not None
    assert spec.data.init_args == {"seed": 3}
    assert spec.model.init_args == {"hidden_units": 16, "depth": 1}


def test_an_override_reaches_a_class_that_the_file_names_in_one_word(study: dict[str, Any]) -> None:
    spec = overridden(study | {"model": "tuner.models.MLP"}, "model.norm=layer")
    assert spec.model.model_dump()["init_args"] == {"norm": "layer"}


@pytest.mark.parametrize("path", ["model", "model.optimizer"])
def test_an_override_by_another_class_does_not_drop_arguments_in_silence(study: dict[str, Any], path: str) -> None:
    adam = {"class_path": "torch.optim.Adam", "init_args": {"eps": 1e-6}}
    study["model"] = {"class_path": "tuner.models.MLP", "init_args": {"depth": 1, "optimizer": adam}}
    with pytest.raises(SpecError) as refused:
        overridden(study, f"{path}=some.Other")
    (problem,) = refused.value.problems
    assert problem.path == f"--set {path}"
    assert ("depth, optimizer" if path == "model" else "eps") in problem.message
    told = shlex.split(problem.message.partition("Keep")[2])
    keep, drop = (text for before, text in pairwise(told) if before == "--set")
    kept, dropped = overridden(study, keep), overridden(study, drop)
    whole = {"class_path": "some.Other", "init_args": {"depth": 1, "optimizer": adam}}
    nested = {**study["model"], "init_args": {"depth": 1, "optimizer": {**adam, "class_path": "some.Other"}}}
    bare = {**study["model"], "init_args": {"depth": 1, "optimizer": {"class_path": "some.Other"}}}
    assert kept.base_config["model"] == (whole if path == "model" else nested)
    assert dropped.base_config["model"] == ({"class_path": "some.Other"} if path == "model" else bare)


def test_an_override_by_the_same_class_changes_nothing(study: dict[str, Any]) -> None:
    named = study["model"]["class_path"]
    assert overridden(study, f"model={named}").base_config == overridden(study).base_config


def test_the_last_of_two_overrides_wins(study: dict[str, Any]) -> None:
    assert overridden(study, "search.trials=20", "search.trials=30").search.trials == 30


@pytest.mark.parametrize("space", ["mlp", {"use": "mlp"}, {"use": "mlp", "change": {"model.depth": None}}])
def test_an_override_changes_one_number_of_a_shipped_space(study: dict[str, Any], space: Any) -> None:
    spec = overridden(study | {"space": space}, "space.model.momentum.float.high=0.99")
    momentum = spec.searched.parameters["model.momentum"]
    assert momentum.range == FloatRange(low=0.0, high=0.99, scale="log_complement", default=0.9)
    assert momentum.priority == 4


def test_an_override_keeps_the_changes_that_the_file_makes(study: dict[str, Any]) -> None:
    space = {"use": "mlp", "change": {"model.dropout": None, "model.momentum": {"priority": 1}}}
    spec = overridden(study | {"space": space}, "space.model.momentum.float.high=0.99")
    momentum = spec.searched.parameters["model.momentum"]
    assert (momentum.priority, momentum.range.contains(0.995)) == (1, False)
    assert "model.dropout" not in spec.searched.parameters


def test_an_override_removes_a_parameter(study: dict[str, Any]) -> None:
    assert "model.momentum" not in overridden(study | {"space": "mlp"}, "space.model.momentum=null").searched.parameters
    assert list(overridden(study, "space.data.batch_size=null").searched.parameters) == ["model.learning_rate"]


def test_an_override_adds_or_replaces_a_parameter(study: dict[str, Any]) -> None:
    spec = overridden(study, "space.model.norm={choice: [batch, layer]}", "space.data.batch_size={choice: [32]}")
    assert spec.searched.defaults == {"model.learning_rate": 0.1, "data.batch_size": 32, "model.norm": "batch"}


@pytest.mark.parametrize(("key", "value", "read"), [("priority", "1", 1), ("what", "size of a batch", None)])
def test_an_override_changes_a_heading_of_a_parameter(
    study: dict[str, Any], key: str, value: str, read: int | None
) -> None:
    parameter = overridden(study, f"space.data.batch_size.{key}={value}").searched.parameters["data.batch_size"]
    assert getattr(parameter, key) == (read or value)


def test_an_override_changes_a_condition(study: dict[str, Any]) -> None:
    spec = overridden(study | {"space": "mlp"}, "space.model.adam_eps.when.model.optimizer=sgd")
    assert spec.searched.conditions["model.adam_eps"] == {"model.optimizer": ["sgd"]}


def test_an_override_replaces_the_whole_space(study: dict[str, Any]) -> None:
    assert "model.lr_decay" in overridden(study, "space=mlp").searched.parameters
    assert list(overridden(study, "space={model.depth: {int: {low: 1, high: 3}}}").searched.parameters) == [
        "model.depth"
    ]


@pytest.mark.parametrize("path", ["space.change.model.momentum.float.high", "space.model.momentum.float.high"])
def test_an_override_may_spell_out_the_path_of_a_change_as_the_file_does(study: dict[str, Any], path: str) -> None:
    study["space"] = {"use": "mlp", "change": {"model.momentum": {"float": {"high": 0.95}}}}
    momentum = overridden(study, f"{path}=0.99").searched.parameters["model.momentum"]
    assert momentum.range == FloatRange(low=0.0, high=0.99, scale="log_complement", default=0.9)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("study.name=3", "--set study.name"),
        ("space.model.learning_rate.float.low.x=3", "--set space.model.learning_rate.float.low.x"),
    ],
)
def test_an_override_below_what_is_no_mapping_is_told(study: dict[str, Any], text: str, path: str) -> None:
    assert "is not a mapping" in told(study, [parse_override(text)], path=path)[path]


def test_an_override_of_a_space_that_is_not_there_is_a_mistake_of_the_file(study: dict[str, Any]) -> None:
    del study["space"]
    assert "space" in told(study, [("space.model.momentum", None)])


def test_an_override_with_a_mistake_is_told_with_the_file_s_mistakes(study: dict[str, Any]) -> None:
    study["serach"] = {}
    problems = told(study, [("search.trials", "many"), ("space.data.batch_size.priority", 0), ("study.x", 1)])
    assert problems.keys() == {"serach", "search.trials", "space.data.batch_size.priority", "--set study.x"}


# ---- what needs the user's classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_path", "said"),
    [
        ("tuner.modles.MLP", "no module 'tuner.modles'. Did you mean 'tuner.models'?"),
        ("tuner.models.mpl.MLP", "no module 'tuner.models.mpl'. Did you mean 'tuner.models.mlp'?"),
        ("nowhere_at_all_7.nets.Net", "no module 'nowhere_at_all_7'. Run tuner from the folder that holds it"),
        ("tuner.models.MPL", "tuner.models has no 'MPL'. Did you mean 'MLP'?"),
        ("MLP", "must be package.module.Class, but got 'MLP'"),
        ("pathlib.Path", "pathlib.Path must be a lightning LightningModule, but it is the class Path"),
        ("tuner.data.Digits", "must be a lightning LightningModule, but it is the class Digits"),
        ("math.pi", "must be a lightning LightningModule, but it is a float"),
        ("others_of_a_user.nets.EPOCHS", "must be a lightning LightningModule, but it is a int"),
        ("others_of_a_user.nets.Plane", "has no 'Plane'. Did you mean 'Plain'?"),
        ("others_of_a_user.broken.Net", "importing others_of_a_user.broken raised RuntimeError: no licence"),
    ],
)
def test_a_model_that_cannot_be_had_is_told(study: dict[str, Any], others: str, class_path: str, said: str) -> None:
    study["model"] = {"class_path": class_path}
    assert said in told(study, classes=True, path="model.class_path")["model.class_path"]


@pytest.mark.parametrize("class_path", ["tuner.errors.models.MLP", "tuner..MLP", ".models.MLP"])
def test_a_path_that_leads_through_no_package_is_told(study: dict[str, Any], class_path: str) -> None:
    study["model"] = {"class_path": class_path}
    message = told(study, classes=True, path="model.class_path")["model.class_path"]
    assert message.startswith(("no module ", "must be package.module.Class"))


def test_data_must_be_a_data_module(study: dict[str, Any]) -> None:
    study["data"] = {"class_path": "tuner.models.MLP"}
    assert "must be a lightning LightningDataModule" in told(study, classes=True)["data.class_path"]


@pytest.mark.parametrize(
    ("part", "arguments", "path", "said"),
    [
        ("model", {"hiden_units": 3}, "model.init_args.hiden_units", "Did you mean 'hidden_units'?"),
        ("data", {"zzz": 3}, "data.init_args.zzz", "It takes: batch_size, flat, val_share, test_share, seed"),
        ("model", {"hidden_units": "many"}, "model.init_args.hidden_units", "must be int, but got 'many'"),
        ("model", {"hidden_units": 1.5}, "model.init_args.hidden_units", "must be int, but got 1.5"),
        ("model", {"norm": 3}, "model.init_args.norm", "must be text, but got 3"),
        ("model", {"dropout": "x"}, "model.init_args.dropout", "must be float, but got 'x'"),
        ("data", {"flat": 0.5}, "data.init_args.flat", "but got 0.5"),
    ],
)
def test_an_argument_that_the_class_does_not_take_is_told(
    study: dict[str, Any], part: str, arguments: dict[str, Any], path: str, said: str
) -> None:
    study[part]["init_args"] = arguments
    assert said in told(study, classes=True, path=path)[path]


def test_a_constructor_that_raises_is_a_problem_of_its_part(study: dict[str, Any], others: str) -> None:
    study["model"]["init_args"]["norm"] = "bach"
    wrong = told(study, classes=True, path="model.init_args.norm")
    assert "Did you mean 'batch'?" in wrong["model.init_args.norm"]
    study["model"] = {"class_path": f"{others}.Plain", "init_args": {"size": 101}}
    study["space"] = {"model.scale": {"float": {"low": 1, "high": 2}}}
    assert told(study, classes=True, path="model")["model"] == "size must be at most 100, but got 101"
    study["model"]["init_args"]["size"] = 100
    study["data"] = {"class_path": f"{others}.Stubborn"}
    assert told(study, classes=True, path="data")["data"] == "there is no folder here"


def test_a_required_argument_must_be_set_or_searched(study: dict[str, Any], others: str) -> None:
    study["model"] = {"class_path": f"{others}.Needy"}
    study["space"] = {"model.height": {"int": {"low": 1, "high": 3}}}
    problem = told(study, classes=True, path="model")["model"]
    assert "width" in problem
    assert "Set it under init_args, or search it in the space" in problem
    study["space"]["model.width"] = {"int": {"low": 1, "high": 3}}
    assert set(read_study(study, inspect=inspect).searched.parameters) == {"model.width", "model.height"}
    del study["space"]["model.width"]
    study["model"]["init_args"] = {"width": 3}
    assert set(read_study(study, inspect=inspect).searched.parameters) == {"model.height"}


def test_a_keyword_argument_that_the_constructor_does_not_take_is_a_problem_of_its_part(study: dict[str, Any]) -> None:
    study["model"]["dict_kwargs"] = {"colour": "red"}
    problems = told(study, classes=True)
    assert [path.split(".")[0] for path in problems] == ["model"]


@pytest.mark.parametrize(
    ("path", "values", "said"),
    [
        ("model.learing_rate", {"float": {"low": 0.1, "high": 1.0}}, "Did you mean 'learning_rate'?"),
        ("data.batchsize", {"choice": [1, 2]}, "Digits has no argument 'batchsize'. Did you mean 'batch_size'?"),
        ("trainer.gradient_clip_vl", {"float": {"low": 0.1, "high": 1.0}}, "Did you mean 'gradient_clip_val'?"),
        ("model.depth", {"float": {"low": 0.5, "high": 1.5}}, "must be int, but got 0.5"),
        ("model.norm", {"choice": ["batch", 3]}, "must be text, but got 3"),
        ("model.norm", {"int": {"low": 1, "high": 3}}, "must be text, but got 1"),
    ],
)
def test_a_space_that_does_not_fit_the_classes_is_told(
    study: dict[str, Any], path: str, values: dict[str, Any], said: str
) -> None:
    study["space"][path] = values
    assert said in told(study, classes=True, path=f"space.{path}")[f"space.{path}"]


def test_a_space_may_not_name_data_that_the_study_has_not(study: dict[str, Any]) -> None:
    del study["data"]
    assert "no `data`" in told(study, classes=True, path="space.data.batch_size")["space.data.batch_size"]


@pytest.mark.parametrize(
    ("trainer", "path", "said"),
    [
        ({"max_epoch": 2}, "trainer.max_epoch", "Trainer has no argument 'max_epoch'. Did you mean 'max_epochs'?"),
        ({"max_epochs": "x"}, "trainer.max_epochs", "must be int, but got 'x'"),
        ({"accelerator": "abacus"}, "trainer", "invalid accelerator name"),
        ({"max_epochs": -5}, "trainer", "max_epochs"),
    ],
)
def test_an_argument_that_the_trainer_does_not_take_is_told(
    study: dict[str, Any], trainer: dict[str, Any], path: str, said: str
) -> None:
    assert said in told(study | {"trainer": trainer}, classes=True, path=path)[path]


def test_three_mistakes_of_the_classes_are_told_at_once(study: dict[str, Any]) -> None:
    study["model"]["init_args"] |= {"norms": "batch", "depth": "deep"}
    study["trainer"]["max_epoch"] = 3
    study["space"]["model.wdith"] = {"int": {"low": 1, "high": 2}}
    assert told(study, classes=True).keys() == {
        "model.init_args.norms",
        "model.init_args.depth",
        "trainer.max_epoch",
        "space.model.wdith",
    }


PARTS = ["data", "trainer", "space", "model.init_args", "data.init_args", "model.dict_kwargs", "model.class_path"]


def with_junk(study: dict[str, Any], path: str, junk: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    node = study
    for parent in parents:
        node = node[parent]
    node[last] = junk
    return study


@pytest.mark.parametrize("junk", [None, 3, "x", [], ["a"], True], ids=repr)
@pytest.mark.parametrize("path", PARTS)
def test_a_part_of_a_wrong_kind_is_told_and_never_a_crash(study: dict[str, Any], path: str, junk: Any) -> None:
    with pytest.raises(SpecError) as caught:
        read_study(with_junk(study, path, junk), inspect=inspect)
    # `data: null` is no data at all, which is allowed until the space wants to set something on it.
    paths = [problem.path.removeprefix("space.") for problem in caught.value.problems]
    assert any(found.startswith(path) for found in paths)


@pytest.mark.parametrize("junk", [None, 3, ["a"]], ids=repr)
@pytest.mark.parametrize("path", PARTS)
def test_a_part_of_a_wrong_kind_is_one_problem(study: dict[str, Any], path: str, junk: Any) -> None:
    assert len(told(with_junk(study, path, junk), classes=True)) == 1


def test_the_user_s_own_module_and_its_arguments_are_accepted(study: dict[str, Any], others: str) -> None:
    study["model"] = {"class_path": f"{others}.Plain", "init_args": {"scale": 2}}
    study["space"] = {"model.size": {"int": {"low": 1, "high": 9}}}
    assert read_study(study, inspect=inspect).model.init_args == {"scale": 2}


def test_inspecting_leaves_the_document_alone(study: dict[str, Any]) -> None:
    before = copy.deepcopy(study)
    assert inspect(study, read_study(study).searched) == []
    assert study == before


def test_an_inspector_s_problems_join_the_others(study: dict[str, Any]) -> None:
    def grumble(document: Any, space: Space | None) -> list[Problem]:
        assert space is not None
        return [Problem("model", f"I do not like it with {len(space.parameters)} parameters.")]

    study["seed_everything"] = -1
    with pytest.raises(SpecError) as caught:
        read_study(study, inspect=grumble)
    assert {p.path for p in caught.value.problems} == {"seed_everything", "model"}


# ---- what init_args fix --------------------------------------------------------------------------------------------


def test_what_the_file_fixes_goes_out_of_a_shipped_space(study: dict[str, Any]) -> None:
    spec = read_study(study | {"space": "mlp"})
    assert not {"model.hidden_units", "model.depth"} & spec.searched.parameters.keys()
    assert "model.learning_rate" in spec.searched.parameters


def test_what_the_file_fixes_decides_the_conditions_of_a_shipped_space(study: dict[str, Any]) -> None:
    study["model"]["init_args"]["optimizer"] = "adam"
    searched = read_study(study | {"space": "mlp"}).searched
    assert "model.momentum" not in searched.parameters
    assert "model.adam_beta1" in searched.parameters
    assert searched.conditions.keys() == {"model.lr_decay", "model.penalty_p"}


def test_what_the_file_fixes_and_its_own_space_searches_is_searched(study: dict[str, Any]) -> None:
    study["model"]["init_args"]["learning_rate"] = 0.5
    assert "model.learning_rate" in read_study(study).searched.parameters


def test_a_change_to_a_shipped_space_is_the_study_s_own_word(study: dict[str, Any]) -> None:
    space = {"use": "mlp", "change": {"model.depth": {"int": {"high": 3}}}}
    searched = read_study(study | {"space": space}).searched
    assert "model.depth" in searched.parameters
    assert "model.hidden_units" not in searched.parameters


def test_the_trainer_s_arguments_fix_a_parameter_too(study: dict[str, Any]) -> None:
    clip = {"float": {"low": 0.1, "high": 1.0}}
    study["trainer"]["gradient_clip_val"] = 0.5
    own = read_study(study | {"space": {"trainer.gradient_clip_val": clip}})
    assert list(own.searched.parameters) == ["trainer.gradient_clip_val"]


def test_an_override_fixes_a_parameter_of_a_shipped_space(study: dict[str, Any]) -> None:
    spec = overridden(study | {"space": "mlp"}, "model.dropout=0.2", "data.batch_size=32")
    assert not {"model.dropout", "data.batch_size"} & spec.searched.parameters.keys()


# ---- the configuration of a trial ----------------------------------------------------------------------------------


def test_a_trial_s_configuration_has_its_values_and_its_seed(study: dict[str, Any]) -> None:
    base = read_study(study).base_config
    before = copy.deepcopy(base)
    config = trial_config(base, {"model.learning_rate": 0.3, "data.batch_size": 32, "trainer.max_epochs": 9}, 11)
    assert config == {
        "seed_everything": 11,
        "model": {
            "class_path": "tuner.models.MLP",
            "init_args": {"hidden_units": 16, "depth": 1, "learning_rate": 0.3},
        },
        "data": {"class_path": "tuner.data.Digits", "init_args": {"batch_size": 32}},
        "trainer": {"max_epochs": 9, "accelerator": "cpu"},
    }
    assert base == before


def test_a_value_of_the_trial_beats_the_one_of_the_file() -> None:
    base = {"model": {"class_path": "a.B", "init_args": {"depth": 1}}}
    assert trial_config(base, {"model.depth": 4}, 0)["model"]["init_args"] == {"depth": 4}


@pytest.mark.parametrize(
    ("path", "placed"),
    [
        ("model.norm", {"model": {"class_path": "a.B", "init_args": {"norm": 1}}}),
        ("model.init_args.norm", {"model": {"class_path": "a.B", "init_args": {"norm": 1}}}),
        ("model.class_path", {"model": {"class_path": 1}}),
        ("model.dict_kwargs.norm", {"model": {"class_path": "a.B", "dict_kwargs": {"norm": 1}}}),
        ("trainer.max_epochs", {"model": {"class_path": "a.B"}, "trainer": {"max_epochs": 1}}),
        ("search.a.b", {"model": {"class_path": "a.B"}, "search": {"a": {"b": 1}}}),
        ("seed", {"model": {"class_path": "a.B"}, "seed": 1}),
    ],
)
def test_a_value_is_placed_where_lightning_cli_would_look(path: str, placed: dict[str, Any]) -> None:
    config: dict[str, Any] = {"model": {"class_path": "a.B"}}
    place(config, path, 1)
    assert config == placed


def test_a_value_is_placed_inside_a_class_that_is_an_argument() -> None:
    config: dict[str, Any] = {
        "model": {"class_path": "a.B", "init_args": {"loss": {"class_path": "a.Loss", "init_args": {"p": 1}}}}
    }
    place(config, "model.loss.smoothing", 0.1)
    assert config["model"]["init_args"]["loss"]["init_args"] == {"p": 1, "smoothing": 0.1}
    assert at_path(config, "model.loss.smoothing") == 0.1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.norm", "batch"),
        ("model.init_args.norm", "batch"),
        ("model.class_path", "a.B"),
        ("trainer.max_epochs", 3),
        ("trainer", {"max_epochs": 3}),
        ("model.dropout", "nowhere"),
        ("search.trials", "nowhere"),
        ("trainer.max_epochs.x", "nowhere"),
        ("model.nothing", None),
    ],
)
def test_a_value_is_found_at_its_short_and_at_its_long_path(path: str, value: Any) -> None:
    config = {
        "model": {"class_path": "a.B", "init_args": {"norm": "batch", "nothing": None}},
        "trainer": {"max_epochs": 3},
    }
    assert at_path(config, path, "nowhere") == value


@pytest.mark.parametrize("path", ["model.norm", "model.init_args.norm", "data.batch_size", "trainer.max_epochs"])
def test_what_is_placed_is_found_again(study: dict[str, Any], path: str) -> None:
    place(study, path, "here")
    assert at_path(study, path) == "here"


# ---- the document --------------------------------------------------------------------------------------------------


def variants(study: dict[str, Any]) -> list[dict[str, Any]]:
    no_data = {key: value for key, value in study.items() if key != "data"} | {
        "space": {"model.depth": {"choice": [1, 2]}}
    }
    return [
        study,
        no_data,
        study | {"space": "mlp", "search": {"time": "10m", "patience": None, "cohort": 4, "trials": None}},
        study | {"space": {"use": "mlp", "change": {"model.momentum": {"float": {"high": 0.95}}}}},
        study | {"model": {"class_path": "a.B", "init_args": {"x": [1, {"y": None}]}, "dict_kwargs": {"z": 1}}},
        study | {"objective": {"metric": "val_acc", "direction": "maximize"}},
    ]


@pytest.mark.parametrize("index", range(6))
def test_the_document_of_a_study_reads_back_to_it(study: dict[str, Any], index: int) -> None:
    spec = read_study(variants(study)[index])
    document, problems = read_yaml(write_yaml(spec.document()))
    assert problems == []
    again = read_study(document)
    assert again.document() == spec.document()
    assert again.model_copy(update={"space": None}) == spec.model_copy(update={"space": None})
    assert again.searched.parameters == spec.searched.parameters
    assert again.base_config == spec.base_config
    assert difference(spec.document(), again.document()) == []


def test_the_document_spells_the_space_out_so_that_a_later_version_of_it_changes_nothing(
    study: dict[str, Any],
) -> None:
    space = read_study(study | {"space": "mlp"}).document()["space"]
    assert space["model.lr_decay"]["float"] == {"low": 0.5, "high": 0.99, "scale": "log_complement", "default": 0.95}
    assert "use" not in space


# ---- difference ----------------------------------------------------------------------------------------------------


def changed(study: dict[str, Any], *texts: str) -> list[tuple[str, Any, Any]]:
    return difference(read_study(study).document(), overridden(study, *texts).document())


def test_a_study_does_not_differ_from_itself(study: dict[str, Any]) -> None:
    assert changed(study) == []


def test_budgets_may_change(study: dict[str, Any]) -> None:
    assert (
        changed(
            study, "search.trials=99", "search.epochs=7", "search.time=1h", "search.trial_time=1m", "search.confirm=5"
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("search.sampler=tpe", ("search.sampler", "priority", "tpe")),
        ("search.pruner=none", ("search.pruner", "auto", "none")),
        ("search.cohort=2", ("search.cohort", "auto", 2)),
        ("search.patience=2", ("search.patience", "auto", 2)),
        ("search.training=lightning", ("search.training", "auto", "lightning")),
        ("seed_everything=8", ("seed_everything", 7, 8)),
        ("objective.direction=maximize", ("objective.direction", "minimize", "maximize")),
        ("trainer.max_epochs=3", ("trainer.max_epochs", 2, 3)),
        ("trainer.gradient_clip_val=1.0", ("trainer.gradient_clip_val", None, 1.0)),
        ("model.norm=layer", ("model.init_args.norm", None, "layer")),
        ("model.depth=2", ("model.init_args.depth", 1, 2)),
        ("data.class_path=a.B", ("data.class_path", "tuner.data.Digits", "a.B")),
        ("space.data.batch_size.priority=1", ("space.data.batch_size.priority", 2, 1)),
        (
            "space.data.batch_size.choice.values=[64, 128]",
            ("space.data.batch_size.choice.values", [64, 256], [64, 128]),
        ),
        ("study=other", ("study", "small", "other")),
    ],
)
def test_every_other_change_is_reported_with_its_path_and_both_values(
    study: dict[str, Any], text: str, change: tuple[str, Any, Any]
) -> None:
    assert changed(study, text) == [change]


def test_a_parameter_that_is_gone_and_one_that_is_new_are_reported(study: dict[str, Any]) -> None:
    found = changed(study, "space.data.batch_size=null", "space.model.norm={choice: [batch]}")
    assert [(path, old is None, new is None) for path, old, new in found] == [
        ("space.data.batch_size", False, True),
        ("space.model.norm", True, False),
    ]


def test_true_is_not_one(study: dict[str, Any]) -> None:
    old, new = read_study(study).document(), read_study(study).document()
    old["trainer"]["benchmark"], new["trainer"]["benchmark"] = True, 1
    assert difference(old, new) == [("trainer.benchmark", True, 1)]


# auto


def _space(count: int, **more: Any) -> dict[str, Any]:
    return {f"model.p{i}": {"float": {"low": 0.0, "high": 1.0}} for i in range(count)} | more


def _study_of(space: dict[str, Any], **search: Any) -> StudySpec:
    return read_study({"study": "s", "model": {"class_path": "m.M"}, "space": space, "search": search})


@pytest.mark.parametrize(
    ("parameters", "trials", "name", "why"),
    [
        (12, 100, "priority", "12 parameters, 100 trials"),
        (25, 500, "priority", "25 parameters, 500 trials"),
        (26, 100, "tpe", "26 parameters"),
        (12, 501, "tpe", "501 trials"),
        (12, None, "priority", "12 parameters"),
    ],
)
def test_auto_picks_a_sampler_by_space_and_budget_and_says_why(
    parameters: int, trials: int | None, name: str, why: str
) -> None:
    picked = _study_of(_space(parameters), sampler="auto", trials=trials).sampler
    assert picked.name == name
    assert why in str(picked)


def test_a_sampler_that_is_named_is_taken_and_warned_of_beyond_what_it_is_made_for() -> None:
    study = _study_of(_space(30), sampler="priority", trials=600)
    assert (study.sampler.name, study.sampler.why) == ("priority", "")
    assert any("30 and 600. auto would take tpe" in told for told in study.warnings())
    assert not any("auto would take" in told for told in _study_of(_space(25), trials=500).warnings())


def test_auto_prunes_only_what_is_long_enough() -> None:
    def pruner(epochs: int, trials: int = 100) -> str:
        study = {"study": "s", "model": {"class_path": "m.M"}, "space": _space(1), "trainer": {"max_epochs": epochs}}
        return read_study(study | {"search": {"trials": trials}}).pruner.name

    assert [pruner(4), pruner(5), pruner(50), pruner(50, trials=5)] == ["none", "median", "median", "none"]


# search.start


def test_what_to_begin_with_may_be_one_entry_or_many() -> None:
    assert _study_of(_space(2), start="other").search.start == ["other"]
    assert _study_of(_space(2), start={"model.p1": 0.25}).search.start == [{"model.p1": 0.25}]
    assert _study_of(_space(2), start=["other", {"model.p1": 0.25}]).search.start == ["other", {"model.p1": 0.25}]


def test_wrong_values_to_begin_with_are_told_all_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        _study_of(_space(2), start=[{"model.p0": 2.0}, {"model.q1": 0.5, "model.p1": 0.5}])
    assert [(p.path, p.message) for p in caught.value.problems] == [
        ("search.start.0.model.p0", "2.0 lies outside what the space has for it."),
        ("search.start.1.model.q1", "is not searched. Did you mean 'model.p1'?"),
    ]


def test_a_choice_that_is_spelt_out_may_lose_values_that_others_wait_for() -> None:
    space = {
        "model.kind": {"choice": ["a", "b", "c"]},
        "model.x": {"float": {"low": 0.0, "high": 1.0}, "when": {"model.kind": ["b", "c"]}},
        "model.y": {"float": {"low": 0.0, "high": 1.0}, "when": {"model.kind": "c"}},
    }
    study = {"study": "s", "model": {"class_path": "m.M"}, "space": space}
    left = read_study(study, [("space.model.kind.choice", ["a", "b"])]).searched
    assert {path: dict(p.when) for path, p in left.parameters.items()} == {
        "model.kind": {},
        "model.x": {"model.kind": ["b"]},
    }


def test_a_stored_study_may_have_begun_outside_its_space_of_today() -> None:
    study = {"study": "s", "model": {"class_path": "m.M"}, "space": _space(2), "search": {"start": {"model.p0": 0.9}}}
    narrower = [("space.model.p0.float.high", 0.5)]
    with pytest.raises(SpecError):
        read_study(study, narrower)
    assert read_study(study, narrower, stored=True).searched.parameters["model.p0"].range.contains(0.5)


def test_a_default_stated_for_a_stored_space_takes_the_place_of_all() -> None:
    rate = {"float": {"low": 0.0, "high": 1.0}, "default_when": {"model.kind": {"a": 0.9}}}
    study = {
        "study": "s",
        "model": {"class_path": "m.M"},
        "space": {"model.kind": {"choice": ["a", "b"]}, "model.x": rate},
    }
    assert read_study(study).searched.default_params() == {"model.kind": "a", "model.x": 0.9}
    own = read_study(study, [("space.model.x.float.default", 0.3)]).searched
    assert own.default_params() == {"model.kind": "a", "model.x": 0.3}
    none = read_study(study, [("space.model.x.default_when", None)]).searched
    assert none.default_params() == {"model.kind": "a", "model.x": 0.5}
