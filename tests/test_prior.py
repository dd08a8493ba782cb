"""What studies have taught, carried from project to project: the file, its check, and how a space begins with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tuner.cli.app import app
from tuner.errors import SpecError
from tuner.home import Home
from tuner.service.entry import enter, open_storage, start
from tuner.service.learning import laid_over, learn
from tuner.space import Space, read_space
from tuner.space.prior import Found, Prior, carried, read_prior, relative
from tuner.space.yaml import read_yaml
from tuner.spec import read_study
from tuner.storage import Store
from tuner.trial import Report, TrialResult, TrialState

OWN: dict[str, Any] = {
    "lr": {"float": {"low": 1e-4, "high": 1.0, "scale": "log", "default": 0.01}, "priority": 1},
    "momentum": {"float": {"low": 0.0, "high": 0.999, "scale": "log_complement", "default": 0.9}},
    "num_layers": {"int": {"low": 1, "high": 6, "default": 2}},
    "act": {"choice": ["relu", "tanh", "gelu"]},
    "width_of_it": {"int": {"low": 1, "high": 9}},
}
STUDY: dict[str, Any] = {
    "study": "taught",
    "model": "project.Net",
    "data": "project.Rows",
    "trainer": {"max_epochs": 3},
    "space": {
        **{f"model.{name}": parameter for name, parameter in OWN.items()},
        "data.batch_size": {"choice": {"values": [16, 32, 64], "default": 32}},
    },
    "search": {"trials": 6, "confirm": 0},
}
BEST = {
    "model.lr": 0.04,
    "model.momentum": 0.99,
    "model.num_layers": 4,
    "model.act": "tanh",
    "model.width_of_it": 7,
    "data.batch_size": 64,
}


def finish(store: Store, study: int, params: dict[str, Any], value: float) -> None:
    """Add a trial as a worker leaves it."""
    lease = store.claim(study, "me", open_new=True)
    assert lease is not None
    assert store.propose(lease, params)
    store.report_together([(lease, Report(1, {"val_loss": value}, value))], False)
    store.finish(lease, TrialResult(TrialState.COMPLETE, value, {"val_loss": value}, 1, 1, config={}))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A storage with a study that has ended, and one without a best."""
    folder = tmp_path_factory.mktemp("prior")
    home = Home(folder, f"sqlite:///{folder / 'tuner.db'}", "")
    with open_storage(home, create=True) as store:
        row = enter(store, read_study(STUDY))
        finish(store, row.id, BEST, 0.1)
        finish(store, row.id, {**BEST, "model.lr": 0.02, "model.num_layers": 3}, 0.2)
        for number in range(4):
            finish(store, row.id, {**BEST, "model.lr": 0.001, "model.act": "gelu", "model.num_layers": number + 1}, 0.9)
        enter(store, read_study({**STUDY, "study": "begun"}))
    return home


@pytest.fixture(scope="module")
def prior(home: Home) -> Prior:
    return learn(["taught"], home)


def space(document: Any) -> Space:
    found, problems = read_space(document)
    assert problems == []
    assert found is not None
    return found


def test_a_prior_has_bests_distances_and_widths_by_path_and_documented_name(prior: Prior) -> None:
    (origin,) = prior.studies
    assert (origin.model, origin.data, origin.value, origin.trials) == ("project.Net", "project.Rows", 0.1, 6)
    assert list(prior.hyperparameters) == list(BEST)
    rate = prior.hyperparameters["model.lr"]
    assert (rate.name, rate.scale) == ("learning_rate", "log")
    assert rate.found == [Found(study="taught", best=0.04, default=0.01, relative=4.0, among=[0.02, 0.04])]
    assert prior.hyperparameters["model.num_layers"].found[0].relative == 2.0
    assert prior.hyperparameters["model.momentum"].found[0].relative == 0.1
    assert prior.hyperparameters["model.act"].found[0].among == ["tanh"]
    assert prior.hyperparameters["model.width_of_it"].name is None
    assert prior.hyperparameters["data.batch_size"].found[0].relative == 2.0


def test_it_reads_back_and_names_nothing_of_this_machine(prior: Prior, home: Home, tmp_path: Path) -> None:
    (tmp_path / "prior.yaml").write_text(prior.text())
    assert read_prior(str(tmp_path / "prior.yaml")) == prior
    assert str(home.folder) not in prior.text()
    assert prior.text().count("\n") < 45, "for people"


def test_the_same_class_takes_its_values_as_they_are(prior: Prior) -> None:
    (suggested,) = prior.suggestions(read_study(STUDY).searched, "project.Net")
    assert suggested[1] == BEST


def test_another_class_takes_half_the_distance_under_the_documented_names(prior: Prior) -> None:
    (suggested,) = prior.suggestions(space("mlp"), "tuner.models.MLP")
    values = suggested[1]
    assert values["model.learning_rate"] == pytest.approx(0.3 * 2)
    assert values["model.momentum"] == pytest.approx(1 - 0.1 * 0.1**0.5)
    assert values["model.depth"] == 3
    assert values["model.activation"] == "tanh"
    assert values["data.batch_size"] == 32, "the nearest of its choice to 32 · √2"
    assert "model.hidden_units" not in values
    for path, value in values.items():
        assert space("mlp").parameters[path].range.contains(value)


@pytest.mark.parametrize(
    ("best", "default", "scale", "far"),
    [
        (0.2, 0.1, "log", 2.0),
        (0.2, 0.1, "linear", 0.1),
        (0.99, 0.9, "log_complement", 0.1),
        (0.0, 0.1, "log", None),
        (1.0, 0.0, "log", None),
        ("a", "b", None, None),
    ],
)
def test_distances_are_on_the_scale(best: Any, default: Any, scale: str | None, far: float | None) -> None:
    assert relative(best, default, scale) == far


def test_what_does_not_fit_is_moved_or_left_out() -> None:
    (parameter,) = space({"model.lr": {"float": {"low": 0.1, "high": 1, "scale": "log"}}}).parameters.values()
    assert carried(Found(study="s", best="full", default=3), None, parameter) == "full"
    document = {
        "tuner_prior": 1,
        "studies": [
            {"study": "s", "model": "a.B", "objective": "x", "direction": "minimize", "value": 1.0, "trials": 1}
        ],
        "hyperparameters": {
            "model.lr": {"scale": "log", "found": [{"study": "s", "best": 5.0, "default": 1.0}]},
            "model.mode": {"found": [{"study": "s", "best": "odd"}]},
        },
    }
    other = space({"model.lr": {"float": {"low": 0.1, "high": 1}}, "model.mode": {"choice": ["even", "none"]}})
    ((_, values),) = read_prior("x", document).suggestions(other, "a.B")
    assert values == {"model.lr": 1.0}


def test_a_study_begins_with_a_prior(prior: Prior, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "prior.yaml"
    file.write_text(prior.text())
    spec = read_study({**STUDY, "study": "next", "search": {"start": str(file)}})
    by_from = read_study({"study": "n", "model": "tuner.models.MLP", "space": {"use": "mlp", "from": str(file)}})
    with open_storage(home) as store:
        assert start(store, spec)["start"] == [BEST]
        (first,) = start(store, by_from)["start"]
    assert first["model.learning_rate"] == pytest.approx(0.6)
    assert first["model.optimizer"] == "sgd", "of which the prior says nothing"


def test_a_prior_is_laid_over_a_space_with_reasons(prior: Prior, tmp_path: Path) -> None:
    document, problems = read_yaml(laid_over(prior, "mlp"))
    assert problems == []
    assert document["use"] == "mlp"
    read = space(document)
    assert read.parameters["model.learning_rate"].default == pytest.approx(0.6)
    assert read.parameters["model.learning_rate"].range.low == space("mlp").parameters["model.learning_rate"].range.low  # type: ignore[union-attr]
    assert (
        "was 0.3, begins with 0.6 by taught (project.Net on project.Rows" in read.parameters["model.learning_rate"].why
    )
    (tmp_path / "study.yaml").write_text(f"model: project.Net\nspace: {STUDY['space']}\n")
    own = space(read_yaml(laid_over(prior, str(tmp_path / "study.yaml")))[0])
    assert own.defaults == BEST
    assert "its leaders: 0.02 … 0.04" in own.parameters["model.lr"].why
    with pytest.raises(SpecError, match="no hyperparameter in common"):
        laid_over(prior.model_copy(update={"hyperparameters": {}}), "mlp")


def test_all_that_is_wrong_with_a_prior_comes_at_once(tmp_path: Path) -> None:
    def problems(text: str) -> dict[str, str]:
        (tmp_path / "prior.yaml").write_text(text)
        with pytest.raises(SpecError) as caught:
            read_prior(str(tmp_path / "prior.yaml"))
        return {problem.path: problem.message for problem in caught.value.problems}

    assert "python/object" in problems("tuner_prior: !!python/object/apply:os.mkdir [owned]\n")["(the file)"]
    assert "must be a prior" in problems("model: x\n")["(the file)"]
    assert "must be 1, the format" in problems("tuner_prior: 2\n")["tuner_prior"]
    told = problems(
        "tuner_prior: 1\nstudies: []\nhyperparameters: {model.lr: {found: [{study: s, bst: 1}], scale: cubic}}\n"
    )
    assert set(told) == {
        "studies",
        "hyperparameters.model.lr.scale",
        "hyperparameters.model.lr.found.0.best",
        "hyperparameters.model.lr.found.0.bst",
    }
    origin = "{study: s, model: m.M, objective: l, direction: minimize, value: 1.0, trials: 3}"
    lost = "{model.lr: {found: [{study: t, best: 1, default: 1}]}}"
    lost = f"tuner_prior: 1\nstudies: [{origin}]\nhyperparameters: {lost}\n"
    assert problems(lost) == {"hyperparameters.model.lr.found.0.study": "'t' is not among the file's studies."}


def test_the_commands_write_read_and_never_overwrite(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_HOME", str(home.folder))
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["prior", "export", "taught"]).exit_code == 0
    wrong = runner.invoke(app, ["prior", "export", "taugt", "begun"]).exception
    assert isinstance(wrong, SpecError)
    assert [problem.path for problem in wrong.problems] == ["--to prior.yaml", "taugt", "begun"]
    assert "Did you mean 'taught'?" in wrong.problems[1].message
    assert "has no best yet" in wrong.problems[2].message
    told = runner.invoke(app, ["prior", "import", "prior.yaml"])
    assert "taught: project.Net on project.Rows, 6 trials, val_loss 0.1" in told.stdout
    assert "model.lr" in told.stdout
    made = runner.invoke(app, ["prior", "import", "prior.yaml", "--space", "mlp", "--to", "space.yaml"])
    assert made.exit_code == 0
    assert space("space.yaml").parameters["model.learning_rate"].default == pytest.approx(0.6)
