"""The examples that are projects of their own: run as their README says, and the notebook from top to bottom."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.home import Home
from tuner.service import drafting
from tuner.service.reuse import load
from tuner.space.yaml import read_yaml

EXAMPLES = Path(__file__).parent.parent / "examples"


def command(folder: Path, *arguments: str) -> None:
    """Run Python in a folder; it sees nothing of this checkout but the installed tuner."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "MLFLOW_TRACKING", "PYTHONPATH"))}
    run = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder, copied, in which its study has been run."""
    folder = tmp_path_factory.mktemp("projects") / "own"
    shutil.copytree(EXAMPLES / "own_module", folder, ignore=shutil.ignore_patterns(".tuner", "__pycache__"))
    command(folder, "-m", "tuner", "run", "study.yaml", "--trials", "3", "--set", "search.confirm=0", "--quiet")
    return folder


def test_the_best_config_trains_in_the_project_s_own_program(project: Path) -> None:
    home = Home(project / ".tuner", f"sqlite:///{project / '.tuner' / 'tuner.db'}", "")
    best = load("spirals", home)
    assert best.value is not None
    (project / "best.yaml").write_text(best.to_lightning_cli())
    logging = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=."]
    command(project, "main.py", "fit", "--config", "best.yaml", f"--trainer.max_epochs={best.epoch}", *logging)
    (log,) = project.glob("lightning_logs/version_0/metrics.csv")
    with log.open() as rows:
        trained = [float(row["val_loss"]) for row in csv.DictReader(rows) if row["val_loss"]][-1]
    assert trained == pytest.approx(best.value, rel=1e-3)
    assert "tuner" not in (project / "main.py").read_text().split('"""')[2]


def test_the_study_is_what_init_drafts_but_for_what_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_module"))
    monkeypatch.chdir(EXAMPLES / "own_module")
    draft, _ = read_yaml(drafting.draft("models.net:Net", "spirals:Spirals").text)
    assert sys.modules["models"] is not sys.modules["tuner.models"]
    for name in ("models", "models.net", "spirals"):
        monkeypatch.delitem(sys.modules, name)
    edited, _ = read_yaml((EXAMPLES / "own_module" / "study.yaml").read_text())
    assert list(draft["space"]) == list(edited["space"])
    assert (draft["model"], draft["data"], draft["objective"]) == (edited["model"], edited["data"], edited["objective"])
    changed = {path for path in draft["space"] if draft["space"][path] != edited["space"][path]}
    assert changed == {"model.lr", "model.p_dropout"}


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    for name in ("TUNER_HOME", "TUNER_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells), "its outputs are stripped"
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    told = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "complete {" in told
    assert "validation accuracy" in told
