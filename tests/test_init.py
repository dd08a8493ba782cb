"""`tuner init`: what names, types, docstrings and logging tell of somebody's own module."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Literal

import lightning as L
import pytest
from typer.testing import CliRunner

from tuner.cli.app import app
from tuner.errors import Problem, SpecError
from tuner.service import drafting
from tuner.service.drafting import draft
from tuner.space import read_space
from tuner.space.documented import Argument, known, propose
from tuner.space.yaml import in_line, read_yaml
from tuner.training.arguments import arguments, logged

OWN = '''
from typing import Literal

import lightning as L
import torch
from torch import nn


class Own(L.LightningModule):
    """A module.

    Args:
        lr: how fast it learns. Nothing else.
        hidden_dim: units of the one layer
        classes: how many there are
    """

    def __init__(
        self,
        lr: float = 0.002,
        hidden_dim: int = 8,
        p_dropout: float = 0.1,
        l2: float = 0.0,
        act: Literal["relu", "tanh"] = "relu",
        betas: tuple[float, float] = (0.9, 0.999),
        classes: int = 3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, classes))

    def _step(self, batch, stage):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log(f"{stage}_loss", loss)
        return loss

    def training_step(self, batch, batch_idx):
        return self._step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self._step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Rows(L.LightningDataModule):
    def __init__(self, batch_size: int = 32, workers: int = 0) -> None:
        super().__init__()


class Files(Rows):
    def __init__(self, root: str, **kwargs) -> None:
        super().__init__(**kwargs)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_to_draft.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


# names


@pytest.mark.parametrize(
    ("name", "default", "kind", "priority", "ranged"),
    [
        ("lr", 1e-3, "float", 1, {"low": 1e-5, "high": 0.1, "scale": "log"}),
        ("learning_rate", 0.3, "float", 1, {"low": 0.003, "high": 3.0, "scale": "log"}),
        ("encoder_lr", 0.01, "float", 1, {"low": 1e-4, "high": 1.0, "scale": "log"}),
        ("batch_size", 64, "choice", 2, {"values": [16, 32, 64, 128, 256]}),
        ("batch_size", 4, "choice", 2, {"values": [4, 8, 16]}),
        ("hidden_size", 128, "int", 3, {"low": 32, "high": 512, "scale": "log"}),
        ("d_model", 64, "choice", 3, {"values": [16, 32, 64, 128, 256]}),
        ("momentum", 0.9, "float", 4, {"low": 0.0, "high": 0.999, "scale": "log_complement"}),
        ("num_layers", 1, "int", 5, {"low": 1, "high": 4}),
        ("beta2", 0.99, "float", 7, {"low": 0.9, "high": 0.9999, "scale": "log_complement"}),
        ("eps", 1e-8, "float", 7, {"low": 1e-10, "high": 1e-4, "scale": "log"}),
        ("p_dropout", 0.0, "float", 9, {"low": 0.0, "high": 0.6}),
        ("dropout", 0.8, "float", 9, {"low": 0.0, "high": 0.9}),
        ("weight_decay", 0.01, "float", 9, {"low": 1e-5, "high": 1.0, "scale": "log"}),
        ("l2", 0, "choice", 9, {"values": [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2]}),
    ],
)
def test_usual_names_get_a_range_around_their_own_default(
    name: str, default: Any, kind: str, priority: int, ranged: dict[str, Any]
) -> None:
    parameter = propose(Argument(name, default))
    assert parameter is not None
    assert parameter[kind] == {**ranged, "default": default}
    assert parameter["priority"] == priority
    assert parameter["why"]
    space, problems = read_space({f"model.{name}": parameter})
    assert problems == []
    assert space is not None


def test_a_required_hyperparameter_begins_with_what_is_usual() -> None:
    parameter = propose(Argument("lr", type="float"))
    assert parameter is not None
    assert parameter["float"]["default"] == 1e-3
    assert "the usual default" in parameter["why"]


@pytest.mark.parametrize(
    "argument",
    [
        Argument("num_classes", 10),
        Argument("lr", None, "float | None"),
        Argument("lr", -1.0),
        Argument("momentum", 1.0),
        Argument("hidden_dim", 0),
        Argument("batch_size", "full", "int | str"),
        Argument("activation", "relu", "str"),
        Argument("dropout", True),
        Argument("eps", 0.5),
    ],
)
def test_what_is_not_known_is_not_guessed(argument: Argument) -> None:
    assert propose(argument) is None


def test_words_that_a_type_lists_become_a_choice() -> None:
    parameter = propose(Argument("activation", "tanh", "Literal", ("relu", "tanh")))
    assert parameter is not None
    assert parameter["choice"] == {"values": ["relu", "tanh"], "default": "tanh"}
    assert propose(Argument("mode", "a", "Literal", ("a", "b"))) is None, "nobody knows what it does"
    assert known("P_Dropout") is known("dropout")


# classes


class Act(enum.Enum):
    RELU = "r"
    TANH = "t"


class Base(L.LightningModule):
    def __init__(self, lr: float, width: NotHere = 3) -> None:  # type: ignore[name-defined]  # noqa: F821
        """Build it.

        Args:
            lr: the rate, as in 0.1.
                Small is safe.
            width: how wide.
        """

    def log_all(self, prefix: str, value: Any) -> None:
        figures = {f"{prefix}/acc": value, "epoch_figure": value}
        self.log_dict(figures)


class Derived(Base):
    def __init__(self, act: Act = Act.RELU, mode: Literal["a", "b"] | None = None, flag: bool = False, **kwargs: Any):
        super().__init__(**kwargs)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_all("valid", 1.0)
        self.log(name="error_rate", value=1.0)
        self.log(f"{batch}_{batch_idx}", 1.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.log("train_loss", 1.0)
        self.log_all(prefix="train", value=1.0)


def test_arguments_come_with_types_defaults_and_docstrings_of_bases_too() -> None:
    found = {argument.name: argument for argument in arguments(Derived)}
    assert list(found) == ["act", "mode", "flag", "lr", "width"]
    assert (found["act"].default, found["act"].words) == ("RELU", ("RELU", "TANH"))
    assert found["mode"].words == ("a", "b")
    assert found["flag"].words == (False, True)
    assert found["lr"].required
    assert found["lr"].what == "the rate, as in 0.1"
    assert found["width"] == Argument("width", 3, "NotHere", (), "how wide")


def test_metrics_are_read_from_the_source_and_words_followed_to_their_callers() -> None:
    found = {metric.name: metric.on_validation for metric in logged(Derived)}
    assert found == {
        "valid/acc": True,
        "error_rate": True,
        "train_loss": False,
        "train/acc": False,
        "epoch_figure": False,
    }


# the file


def test_a_draft_passes_the_check_and_says_what_it_left_out(folder: Path) -> None:
    drafted = draft("own_to_draft:Own", "own_to_draft.Rows")
    assert (drafted.problems, drafted.notes) == ((), ())
    document, problems = read_yaml(drafted.text)
    assert problems == []
    assert document["study"] == "own"
    assert document["model"] == {"class_path": "own_to_draft.Own"}
    assert document["objective"] == {"metric": "val_loss", "direction": "minimize"}
    assert drafted.searched == tuple(document["space"])
    assert drafted.searched[:3] == ("model.lr", "data.batch_size", "model.hidden_dim")
    assert {"model.p_dropout", "model.l2", "model.act"} <= set(drafted.searched)
    assert document["space"]["model.lr"]["what"] == "how fast it learns"
    assert all(parameter["why"] for parameter in document["space"].values())
    assert "#   classes: 3   # int; how many there are" in drafted.text
    assert "#   betas: [0.9, 0.999]   # tuple[float, float]; a pair; to search it" in drafted.text


def test_what_has_no_default_is_asked_of_the_reader(folder: Path) -> None:
    drafted = draft("own_to_draft:Own", "own_to_draft:Files")
    (problem,) = drafted.problems
    assert problem.path == "data.init_args.root"
    lines = drafted.text.splitlines()
    at = next(index for index, line in enumerate(lines) if "NEEDED" in line)
    assert lines[at + 1 : at + 3] == ["  # init_args:", "  #   root: …   # str"]
    filled = "\n".join([*lines[: at + 1], "  init_args:", "    root: here", *lines[at + 3 :]])
    document, problems = read_yaml(filled)
    assert problems == []
    assert document["data"] == {"class_path": "own_to_draft.Files", "init_args": {"root": "here"}}


def test_all_that_is_wrong_comes_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        draft("tests/own.py:Own", "tuner.data:Digit", problems=[Problem("--to x", "is there.")])
    told = {problem.path: problem.message for problem in caught.value.problems}
    assert list(told) == ["--to x", "MODULE:CLASS", "--data"]
    assert "Try tests.own:Own" in told["MODULE:CLASS"]
    assert "Did you mean 'Digits'?" in told["--data"]


def test_the_command_writes_a_file_and_never_over_another(folder: Path) -> None:
    command = ["init", "own_to_draft:Own", "--data", "own_to_draft:Rows"]
    runner = CliRunner()
    first = runner.invoke(app, [*command, "--to", "new/study.yaml", "--name", "mine"])
    assert first.exit_code == 0, first.output
    assert "searches model.lr, data.batch_size" in first.stderr
    written = (folder / "new" / "study.yaml").read_text()
    assert "study: mine" in written
    again = runner.invoke(app, [*command, "--to", "new/study.yaml"])
    assert isinstance(again.exception, SpecError)
    assert "overwrite it with --force" in str(again.exception)
    assert runner.invoke(app, [*command, "--to", "new/study.yaml", "--force"]).exit_code == 0
    assert "study: own" in (folder / "new" / "study.yaml").read_text()
    printed = runner.invoke(app, [*command, "--to", "-"])
    assert read_yaml(printed.stdout)[0]["study"] == "own"


def test_a_shipped_class_has_a_documented_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafting, "_problems", lambda *_: [])  # its check is slow, and tested elsewhere
    drafted = draft("tuner.models:MLP", "tuner.data:Digits")
    assert drafted.notes == ("space: there is a documented one for this class: space: mlp",)


def test_values_are_written_in_one_line() -> None:
    assert in_line({"low": 1e-4, "words": ["none", "1e-3", None, True]}) == (
        "{low: 0.0001, words: [none, '1e-3', null, true]}"
    )
    assert in_line("none") == "none"
