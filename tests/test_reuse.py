"""A study's best in other people's projects: configs, exports, the registry, the test split."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from torch import nn

import tuner
from tuner.best import Best
from tuner.best.formats import hydra
from tuner.best.program import program_of
from tuner.data import Digits, SklearnTable, Tabular, Text
from tuner.errors import BestUnusable, NoBest, SpecError, StudyNotFound, TestSplitUsed
from tuner.home import Home
from tuner.models import MLP
from tuner.service import exporting
from tuner.service.entry import open_storage, start
from tuner.service.exporting import export
from tuner.service.outright import train
from tuner.service.reuse import score
from tuner.space.yaml import read_yaml
from tuner.spec import read_study, trial_config
from tuner.tracking.registry import Candidate, Registry
from tuner.trial import Objective

OWN = """
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 4, slope: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.LeakyReLU(slope), nn.Linear(width, 1))

    def forward(self, x):
        return self.layers(x)


class Own(L.LightningModule):
    def __init__(self, net: nn.Module, optimizer: OptimizerCallable, betas: tuple[float, float] = (0.5, 0.9)) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net", "optimizer"])
        self.net, self.optimizer = net, optimizer
        assert isinstance(betas, tuple)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_error", (self(batch[0]) - batch[1]).square().mean())

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class Rows(L.LightningDataModule):
    def __init__(self, path: str, batch_size: int = 8) -> None:
        super().__init__()
        self.path, self.batch_size = path, batch_size

    def setup(self, stage):
        rows = torch.tensor([[float(v) for v in line.split(",")] for line in Path(self.path).read_text().splitlines()])
        self.rows = torch.utils.data.TensorDataset(rows[:, :3], rows[:, 3:])

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.rows, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.rows, 64)
"""

DIGITS: dict[str, Any] = {
    "study": "digits",
    "model": {"class_path": "tuner.models.MLP", "init_args": {"hidden_units": 16, "depth": 1}},
    "data": {"class_path": "tuner.data.Digits"},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "seed_everything": 7,
    "space": {"model.learning_rate": {"float": {"low": 1e-3, "high": 1.0, "scale": "log", "default": 0.1}}},
    "search": {"trials": 2, "confirm": 2, "training": "lean"},
}

OWN_STUDY: dict[str, Any] = {
    "study": "own",
    "model": {
        "class_path": "own_project.Own",
        "init_args": {
            "net": {"class_path": "own_project.Net"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05, "weight_decay": 0.3}},
        },
    },
    "data": {"class_path": "own_project.Rows", "init_args": {"path": "data/rows.csv"}},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "objective": {"metric": "val_error"},
    "space": {
        "model.optimizer.class_path": {"choice": ["torch.optim.SGD"]},
        "model.optimizer.lr": {"float": {"low": 1e-3, "high": 0.1, "scale": "log"}},
        "model.optimizer.momentum": {
            "float": {"low": 0.1, "high": 0.9},
            "when": {"model.optimizer.class_path": ["torch.optim.SGD"]},
        },
    },
    "search": {"trials": 1, "confirm": 0, "training": "lightning"},
}


@dataclasses.dataclass(frozen=True)
class Project:
    """A user's folder, in which two studies have been run, and an export of the first with its test split scored."""

    folder: Path
    home: Home
    exported: Path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "own_project.py").write_text(OWN)
    (folder / "data").mkdir()
    rows = np.random.default_rng(0).normal(size=(40, 4))
    np.savetxt(folder / "data" / "rows.csv", rows, delimiter=",")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("TUNER_HOME", ".tuner")
        patch.delenv("TUNER_STORAGE", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        tuner.run(DIGITS)
        tuner.run(OWN_STUDY)
        home = Home.from_environment()
        export("digits", folder / "exported", home)
        yield Project(folder, home, folder / "exported")


@pytest.fixture
def no_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A storage that cannot even be opened."""
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TUNER_STORAGE", "no-such-database://")


def read(text: str) -> dict[str, Any]:
    config, problems = read_yaml(text)
    assert problems == []
    return dict(config)


# configs


def test_a_config_is_complete_in_every_class_and_has_the_active_branch_only(project: Project) -> None:
    best = tuner.load_best("own")
    model = read(best.to_yaml())["model"]["init_args"]
    assert model["net"]["init_args"] == {"width": 4, "slope": 0.1}
    optimizer = model["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert optimizer["init_args"]["momentum"] == best.params["model.optimizer.momentum"]
    assert optimizer["init_args"]["weight_decay"] == 0, "AdamW's stays with AdamW"
    assert "amsgrad" not in optimizer["init_args"]


def test_a_config_names_nothing_of_this_machine(project: Project) -> None:
    for text in (f(tuner.load_best("own")) for f in (Best.to_yaml, Best.to_lightning_cli, Best.to_hydra)):
        assert "data/rows.csv" in text
        assert str(project.folder) not in text


def test_a_class_that_is_searched_comes_without_another_s_arguments() -> None:
    base = {"model": {"class_path": "M", "init_args": {"opt": {"class_path": "A", "init_args": {"decay": 1}}}}}
    params = {"model.opt.rate": 2, "model.opt.class_path": "B"}
    made = trial_config(base, params, 0)["model"]["init_args"]["opt"]
    assert made == {"class_path": "B", "init_args": {"rate": 2}}
    short = {"model": {"class_path": "M", "init_args": {"opt": "A"}}}
    assert trial_config(short, {"model.opt.rate": 2}, 0)["model"]["init_args"]["opt"] == {
        "class_path": "A",
        "init_args": {"rate": 2},
    }
    same = trial_config(base, {"model.opt.class_path": "A"}, 0)["model"]["init_args"]["opt"]
    assert same == {"class_path": "A", "init_args": {"decay": 1}}


def test_hydra_makes_objects_that_train_to_the_study_s_value(project: Project) -> None:
    omegaconf, hydra_utils = pytest.importorskip("omegaconf"), pytest.importorskip("hydra.utils")
    best = tuner.load_best("own")
    tree = read(best.to_hydra())
    tree["trainer"] |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    tree["trainer"] |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_epochs": best.epoch}
    config = omegaconf.OmegaConf.create(tree)
    L.seed_everything(config.seed_everything, workers=True)
    made = hydra_utils.instantiate(config)
    made.trainer.fit(made.model, made.data)
    assert made.trainer.callback_metrics["val_error"].item() == pytest.approx(best.value, rel=1e-5)


def test_hydra_builds_later_what_the_module_builds_itself() -> None:
    model = {
        "class_path": "torch.nn.TransformerEncoderLayer",
        "init_args": {"d_model": 8, "nhead": 2, "activation": "torch.nn.functional.gelu"},
    }
    tree = hydra({"model": model, "trainer": {"max_epochs": 1}})
    assert tree["model"]["activation"] == {"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.gelu"}
    assert tree["trainer"] == {"_target_": "lightning.Trainer", "_convert_": "all", "devices": 1, "max_epochs": 1}


def test_a_program_of_fixed_classes_reads_the_arguments_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py"])
    config = read(tuner.load_best("digits").to_lightning_cli(fixed_classes=True))
    config["trainer"]["logger"] = False
    cli = LightningCLI(MLP, Digits, args=config, run=False, save_config_callback=None)
    assert cli.model.hparams["hidden_units"] == 16
    assert cli.trainer.max_epochs == 2


# loading


def test_an_export_loads_without_the_storage_and_without_the_data(project: Project, no_storage: None) -> None:
    best, again = tuner.load_best(project.exported), tuner.load_best("./exported")
    assert best == again
    assert (best.study, best.objective) == ("digits", Objective("val_loss"))
    assert best.value == best.metrics["val_loss"]
    assert len(best.seeds) == 2
    weights = best.trained_module().state_dict()
    assert all(torch.equal(weights[name], t) for name, t in load_file(project.exported / "weights.safetensors").items())
    bare = tuner.load_best("exported/best.yaml")
    assert (bare.config, bare.value) == (best.config, None)
    assert bare.module().hparams["num_classes"] == 10
    with pytest.raises(NoBest, match="a configuration without weights"):
        bare.trained_module()
    with pytest.raises(StudyNotFound, match="must be a folder of `tuner export`"):
        tuner.load_best("./none")


def test_own_modules_load_where_their_data_are_not(project: Project, tmp_path: Path) -> None:
    export("own", tmp_path / "own", project.home, test=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        module = tuner.load_best("./own").trained_module()
    program = torch.export.load(tmp_path / "own" / "model.pt2").module()
    x = torch.randn(5, 3)
    assert torch.allclose(program(x), module(x), atol=1e-6)
    card = (tmp_path / "own" / "README.md").read_text()
    assert "`own_project.Rows` give them**, not raw data" in card
    assert "no `preparation()`" in card


def test_loading_is_light(project: Project) -> None:
    code = (
        "import sys, tuner; best = tuner.load_best('./exported'); best.config; best.to_lightning_cli()\n"
        "print([n for n in ('torch', 'lightning', 'mlflow', 'optuna', 'sqlalchemy', 'numpy') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


class Malice:
    """What a pickle would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


def test_a_checkpoint_that_would_run_code_is_refused(project: Project, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(project.exported, copied)
    checkpoint = torch.load(copied / "model.ckpt", weights_only=True)
    torch.save(checkpoint | {"callbacks": Malice()}, copied / "model.ckpt")
    best = tuner.load_best(copied)
    with pytest.raises(BestUnusable, match="was changed"):
        best.trained_module()
    (copied / "SHA256SUMS").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(BestUnusable, match="objects that run code"):
            best.trained_module()
        (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Malice(), protocol=2))
        with pytest.raises(BestUnusable, match="objects that run code"):
            dataclasses.replace(best, checkpoint=tmp_path / "raw.ckpt").trained_module()
        (tmp_path / "bad.yaml").write_text("model: !!python/object/apply:os.mkdir [owned]\n")
        with pytest.raises(SpecError, match="python/object/apply"):
            tuner.load_best("bad.yaml")
    assert not (tmp_path / "owned").exists()


def test_a_file_that_is_no_config_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(DIGITS))
    with pytest.raises(SpecError, match="tuner run"):
        tuner.load_best(tmp_path / "study.yaml")
    (tmp_path / "odd.yaml").write_text("model: tuner.models.MLP\noptimiser: adam\n")
    with pytest.raises(SpecError, match="optimiser  unknown key"):
        tuner.load_best(tmp_path / "odd.yaml")


# the test split


def test_the_test_split_is_scored_once_and_then_only_told(project: Project) -> None:
    first, second = score("digits", project.home), score("digits", project.home)
    assert first == second
    assert first.before, "the export has scored it"
    with open_storage(project.home) as store:
        (use,) = store.study("digits").facts["test"]
    assert (use["trial"], use["metrics"], use["at"]) == (first.trial, dict(first.metrics), first.at)


def test_another_best_is_not_scored_on_a_used_test_split(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.home.folder, tmp_path / "home")
    home = dataclasses.replace(
        project.home, folder=tmp_path / "home", storage=f"sqlite:///{tmp_path / 'home' / 'tuner.db'}"
    )
    with open_storage(home) as store:
        use = {"trial": 99, "at": "yesterday", "metrics": {"test_acc": 0.5}}
        store.add_facts(store.study("digits").id, {"test": [use]})
    with pytest.raises(TestSplitUsed, match=r"trial 99 at yesterday: test_acc 0.5.*--again"):
        score("digits", home)
    made = export("digits", tmp_path / "out", home)
    assert made.test is None
    assert "trial 99 at yesterday" in (tmp_path / "out" / "README.md").read_text()
    assert not score("digits", home, again=True).before
    with open_storage(home) as store:
        assert len(store.study("digits").facts["test"]) == 2
        store.set_state(store.study("digits").id, "running")
        store.add_facts(store.study("digits").id, {"test": []})
        assert store.become_courier(store.study("digits").id, "somebody", lambda _: [])
    with pytest.raises(SpecError, match="it is running"):
        score("digits", home)


# the export


def test_torch_alone_predicts_the_test_split_with_the_card_s_accuracy(project: Project, tmp_path: Path) -> None:
    data = Digits()
    made = data.preparation()
    inputs, labels = data.splits().test
    raw = inputs / made["multiply"] + made["subtract"]  # as scikit-learn has them
    assert torch.allclose(raw, raw.round(), atol=1e-4)
    np.savez(tmp_path / "test.npz", x=raw.round().numpy(), y=labels.numpy())
    card = (project.exported / "README.md").read_text()
    snippet = card.split("```python\n")[1].split("```")[0].replace("raw = ...", "raw = torch.tensor(test['x'])")
    assert snippet.count("\n") <= 7
    code = (
        f"import sys, numpy as np; test = np.load({str(tmp_path / 'test.npz')!r})\n{snippet}"
        "print((out.argmax(1) == torch.tensor(test['y'])).float().mean().item(), 'tuner' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=project.exported, capture_output=True, text=True, check=True
    )
    accuracy, imported = told.stdout.split()
    assert imported == "False"
    assert f"| test_acc | {float(accuracy):.6g} |" in card
    assert float(accuracy) > 0.7


def test_the_onnx_program_gives_what_the_torch_program_gives(project: Project) -> None:
    inputs, _ = Digits().splits().test
    program = torch.export.load(project.exported / "model.pt2").module()
    graph = ReferenceEvaluator(str(project.exported / "model.onnx"))
    (name,) = graph.input_names
    (out,) = graph.run(None, {name: inputs.numpy()})  # another number of samples than it was written with
    torch.testing.assert_close(torch.from_numpy(out), program(inputs), rtol=1e-4, atol=1e-5)


def test_the_card_has_every_figure(project: Project) -> None:
    card, best = (project.exported / "README.md").read_text(), tuner.load_best(project.exported)
    seeds = [value for _, value in best.seeds]
    assert f"| val_loss | {best.value:.6g} | {np.mean(seeds):.6g} ± {np.std(seeds, ddof=1):.2g} |" in card
    for told in (
        f"seed of these weights: {best.config['seed_everything']}",
        "train 1,079, val 359, test 359 samples",
        Digits().fingerprint(),
        "| model.learning_rate | 0.001 … 1 (log) | 0.1 |",
        "git commit:",
        f"torch {torch.__version__}",
        "epochs, ",
        "2 complete",
        *(str(seed) for seed, _ in best.seeds),
    ):
        assert told in card


def test_checksums_hold(project: Project) -> None:
    told = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=project.exported, capture_output=True, check=True)
    assert told.stdout.count(b": OK") == len(list(project.exported.iterdir())) - 1


def test_an_export_appears_whole_or_not_at_all(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="must be a new or an empty folder"):
        export("digits", project.exported, project.home)

    def broken(*_: Any) -> list[str]:
        raise OSError("no space left on device")

    monkeypatch.setattr(exporting, "save_weights", broken)
    with pytest.raises(OSError, match="no space"):
        export("digits", tmp_path / "out", project.home)
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_says_why_and_the_rest_goes_on(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BestUnusable, match=r"torch.export cannot export it: .+") as caught:
        program_of(Branching(), torch.randn(4, 3))  # type: ignore[arg-type]
    monkeypatch.setattr(exporting, "program_of", lambda *_: (_ for _ in ()).throw(caught.value))
    made = export("digits", tmp_path / "out", project.home, test=False)
    assert made.test == score("digits", project.home), "it was scored before"
    assert made.left_out == {"model.pt2": str(caught.value)}
    assert "model.pt2" not in made.files
    assert "Not here: `model.pt2`, because torch.export cannot" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(BestUnusable, match="exported, but not registered"):
        export("digits", tmp_path / "other", project.home, register="digits")
    assert (tmp_path / "other" / "weights.safetensors").is_file()


def test_registered_models_load_without_pickle_and_only_a_better_one_is_the_champion(
    project: Project, tmp_path: Path, no_storage: None
) -> None:
    import mlflow

    first = export("digits", tmp_path / "first", project.home, register="reused").registered
    assert first is not None
    assert (first.version, first.champion, first.why) == ("1", True, "it is the first")
    client = mlflow.MlflowClient(project.home.tracking)
    tags = client.get_model_version_by_alias("reused", "champion").tags
    assert tags["tuner.study"] == "digits"
    assert tags["tuner.data_hash"] == Digits().fingerprint()
    run = client.get_run(client.get_model_version("reused", "1").run_id)
    assert run.data.tags["mlflow.parentRunId"] == tags["tuner.run_id"]
    assert [found.dataset.name for found in run.inputs.dataset_inputs] == ["tuner.data.Digits"]

    registry, best = Registry(project.home.tracking, project.home.artifacts), tuner.load_best(tmp_path / "first")
    value = float(tags["tuner.value"])
    candidate = Candidate("digits", 0, None, Objective("val_loss"), value, {"hash": Digits().fingerprint()}, {})
    for changed, champion, why in (
        (candidate, False, "not better than"),
        (dataclasses.replace(candidate, value=value / 2, data={"hash": "another"}), False, "other data"),
        (dataclasses.replace(candidate, value=9.0, objective=Objective("val_acc", "maximize")), False, "'maximize"),
        (dataclasses.replace(candidate, value=value / 2), True, "is better than"),
    ):
        crowned = registry._crowned("reused", "1", changed)
        assert (crowned.champion, why in crowned.why) == (champion, True), crowned.why

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(project.home.tracking)
    loaded = mlflow.pytorch.load_model("models:/reused@champion")
    mlflow.set_tracking_uri(before)
    inputs = Digits().splits().test[0]
    module = best.trained_module()
    assert torch.allclose(loaded(inputs), module(inputs), atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", project.home.tracking)
        fetched = tuner.load_best("models:/reused@champion")
        with pytest.raises(StudyNotFound, match="no 'models:/reused@challenger'"):
            tuner.load_best("models:/reused@challenger")
    assert (fetched.config, fetched.value) == (best.config, best.value)
    assert torch.allclose(fetched.trained_module()(inputs), module(inputs))


# warm starts


def test_a_study_begins_where_others_ended(project: Project) -> None:
    spec = read_study(
        {**DIGITS, "study": "next", "space": {"use": "mlp", "from": ["digits", "./exported"]}},
        overrides=[("search.start", [{"model.learning_rate": 0.2}])],
    )
    assert spec.search.start == ["digits", "./exported", {"model.learning_rate": 0.2}]
    with open_storage(project.home) as store:
        first, *others = start(store, spec)["start"]
    rate = tuner.load_best("digits").params["model.learning_rate"]
    assert first["model.learning_rate"] == rate
    assert "model.hidden_units" not in first, "the study file fixes it"
    assert [other["model.learning_rate"] for other in others] == [0.2], "the export is the same best"
    by_set = read_study(DIGITS, overrides=[("space", "mlp"), ("space.from", "digits")])
    assert by_set.search.start == ["digits"]
    with pytest.raises(SpecError, match=r"space.from  must be a study's name.*but got 3"):
        read_study({**DIGITS, "space": {"use": "mlp", "from": 3}})


# training outright


def test_training_outright_gives_the_study_s_value_again(project: Project, tmp_path: Path) -> None:
    best = tuner.load_best("digits")
    (tmp_path / "best.yaml").write_text(best.to_yaml())
    told: list[int] = []
    done = train(
        str(tmp_path / "best.yaml"), project.home, to=tmp_path / "out", told=lambda epoch, metrics: told.append(epoch)
    )
    assert told == [1, 2]
    assert done.metrics["val_loss"] == pytest.approx(best.value, rel=1e-6)
    trained = tuner.load_best(tmp_path / "out")
    assert trained.value == done.metrics["val_loss"]
    assert isinstance(trained.trained_module(), MLP)
    with pytest.raises(SpecError, match="new or an empty folder"):
        train("digits", project.home, to=tmp_path / "out")
    with pytest.raises(SpecError, match="Did you mean 'max_epochs'"):
        train("digits", project.home, overrides=[("trainer.max_epohs", 3)])
    with pytest.raises(SpecError, match=r"net, .*optimizer"):
        train("own", project.home, overrides=[("model", {"class_path": "own_project.Own"})])


def test_training_on_all_takes_the_validation_part_too_or_says_why_not(project: Project, tmp_path: Path) -> None:
    done = train("digits", project.home, on="train+validation", to=tmp_path / "out")
    assert done.epochs == tuner.load_best("digits").epoch
    assert set(done.metrics) == {"train_loss", "train_acc"}
    assert "limit_val_batches" not in (tmp_path / "out" / "best.yaml").read_text()
    with pytest.raises(SpecError, match=r"join_validation\(\), but own_project.Rows has none"):
        train("own", project.home, on="train+validation", to=tmp_path / "own")
    assert not (tmp_path / "own").exists()


# the data


def test_data_modules_join_validation_to_training() -> None:
    data = Digits(batch_size=50)
    splits = data.splits()
    data.join_validation()
    seen = torch.cat([x for x, _ in data.train_dataloader()])  # type: ignore[misc]
    assert torch.allclose(seen.sum(0), splits.train[0].sum(0) + splits.val[0].sum(0), atol=1e-2)
    assert len(seen) == len(splits.train[0]) + len(splits.val[0])
    assert data.splits() is splits, "what is evaluated and standardised stays as it was"
    text = Text(batch_size=4, steps=8)
    alone = len(text.train_dataloader())  # type: ignore[arg-type]
    text.join_validation()
    assert len(text.train_dataloader()) > alone * 1.1  # type: ignore[arg-type]


def test_preparation_turns_raw_values_into_the_rows_that_a_network_sees() -> None:
    from sklearn.datasets import load_wine

    made = SklearnTable("wine").preparation()
    raw = torch.tensor(load_wine().data)
    rows = (raw - torch.tensor(made["subtract"])) * torch.tensor(made["multiply"])
    nearest = torch.cdist(SklearnTable("wine").splits().test[0], rows.float()).min(dim=1).values
    assert nearest.max() < 1e-2


def test_preparation_of_a_table_has_every_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("size,colour,y\n" + "".join(f"{i},{'rg'[i % 2]},{i % 2}\n" for i in range(40)))
    data = Tabular(str(tmp_path / "t.csv"), target="y")
    size, colour = data.preparation()["columns"]
    assert colour == {"column": "colour", "one_hot": ["g", "r"]}
    inputs = data.splits().train[0][:, 0].double()
    raw = inputs / size["multiply"] + size["subtract"]
    assert torch.allclose(raw, raw.round(), atol=1e-4)
    assert size["missing"] == pytest.approx(raw.mean().item(), abs=1e-4)
    assert Text(steps=8).preparation()["vocabulary"][0] == Text(steps=8).vocabulary[0]
