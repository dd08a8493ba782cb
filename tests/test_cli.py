"""The command line from outside: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuner.space.yaml import read_yaml


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "MLFLOW_TRACKING"))}
    command = [sys.executable, "-m", "tuner", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def write(folder: Path, study: dict[str, Any], name: str = "study.yaml") -> str:
    (folder / name).write_text(json.dumps(study))  # JSON is YAML
    return name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which a small study has been run by the command, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    overrides = ["trainer.max_epochs=2", "study=small", "search.confirm=0", "model.init_args.hidden_units=16"]
    told = run(folder, "run", "digits-mlp", "--trials", "3", "--json", *[a for o in overrides for a in ("--set", o)])
    assert told.returncode == 0, told.stderr
    return folder, json.loads(told.stdout)


def test_run_prints_one_json_object_with_these_keys(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = finished
    assert set(printed) == {"study", "state", "trials", "best", "cost", "tracking_uri", "storage"}
    assert set(printed["trials"]) == {"complete", "pruned", "failed", "running"}
    assert set(printed["best"]) == {"trial", "value", "params", "config", "metrics", "seeds"}
    assert set(printed["cost"]) == {"epochs", "seconds", "wasted_seconds"}
    assert printed["state"] == "complete"
    assert sum(printed["trials"].values()) == 3
    assert printed["best"]["config"]["model"]["init_args"]["hidden_units"] == 16
    assert "model.hidden_units" not in printed["best"]["params"], "what the study file fixes is not searched"
    assert (folder / ".tuner" / "tuner.db").is_file()


def test_best_prints_the_config_and_nothing_else(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = finished
    as_yaml = run(folder, "best", "small")
    assert as_yaml.returncode == 0
    assert as_yaml.stderr == ""
    assert read_yaml(as_yaml.stdout) == (printed["best"]["config"], [])
    as_json = run(folder, "best", "small", "--format", "json")
    assert json.loads(as_json.stdout) == printed["best"]["config"]


def test_best_imports_no_torch(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    code = (
        "import sys; sys.argv = ['tuner', 'best', 'small']\n"
        "from tuner.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'lightning', 'mlflow', 'optuna') if n in sys.modules], file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert "learning_rate" in told.stdout
    assert told.stderr.strip() == "[]"


def test_the_best_config_runs_under_plain_lightning_cli(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = finished
    (folder / "best.yaml").write_text(run(folder, "best", "small", "--format", "lightning-cli").stdout)
    (folder / "main.py").write_text(
        "import torch; torch.set_num_threads(1)\n"
        "from lightning.pytorch.cli import LightningCLI\n"
        "cli = LightningCLI(save_config_callback=None)\n"
        "print('VALUE', cli.trainer.callback_metrics['val_loss'].item())\n"
    )
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    told = subprocess.run(
        [sys.executable, "main.py", "fit", "--config", "best.yaml", *quiet],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    value = float(told.stdout.split("VALUE")[1])
    assert value == pytest.approx(printed["best"]["value"], rel=1e-4)


def test_list_and_show_tell_how_studies_stand(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, printed = finished
    listed = run(folder, "list")
    assert "small" in listed.stdout
    assert "complete" in listed.stdout
    assert json.loads(run(folder, "list", "--json").stdout) == [printed]
    told = json.loads(run(folder, "show", "small", "--json").stdout)
    now = told.pop("now")
    assert told == printed
    assert (now["workers"], now["failures"], now["seconds_left"]) == ({}, [], None)
    assert len(now["history"]) == printed["trials"]["complete"]
    assert now["history"][-1] == printed["best"]["value"]
    leaders = {key: printed["best"][key] for key in ("trial", "value", "params")}
    assert {key: now["leaders"][0][key] for key in leaders} == leaders
    page = run(folder, "show", "small").stdout
    assert "Leaders" in page
    assert "stated priorities: 1 learning_rate; 2 batch_size; 4 momentum" in page
    assert f"in trial {printed['best']['trial']}" in page


def test_resume_goes_on_past_the_first_budget(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", str(folder), str(copied)], check=True)
    told = run(copied, "resume", "small", "--trials", "5", "--json")
    assert told.returncode == 0, told.stderr
    assert sum(json.loads(told.stdout)["trials"].values()) == 5


def test_resume_goes_on_in_a_narrower_space_and_says_so(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", str(folder), str(copied)], check=True)
    wrong = run(
        copied, "resume", "small", "--set", "space.model.learning_rate.float.high=0.01", "--set", "model.norm=none"
    )
    assert wrong.returncode == 2
    assert "--set model.norm  A study that goes on may change its space and search.confirm" in wrong.stderr
    narrow = ["--set", "space.model.learning_rate.float={low: 0.3, high: 0.31, default: 0.305}"]
    told = run(copied, "resume", "small", "--trials", "6", "--json", *narrow)
    assert told.returncode == 0, told.stderr
    with sqlite3.connect(copied / ".tuner" / "tuner.db") as database:
        new = database.execute("SELECT params FROM tuner_trial WHERE number >= 3 AND confirms IS NULL").fetchall()
    assert len(new) >= 2
    assert all(0.3 <= json.loads(params)["model.learning_rate"] <= 0.31 for (params,) in new)
    page = run(copied, "show", "small").stdout
    assert "space changed after 3 trials: model.learning_rate.float.low" in page
    back = run(copied, "resume", "small", "--trials", "6", "--set", "space.model.nonsense.float={low: 0, high: 1}")
    assert back.returncode == 2
    assert "nonsense" in back.stderr


def test_no_trials_check_everything_and_train_nothing(tmp_path: Path) -> None:
    told = run(tmp_path, "run", "digits-mlp", "--trials", "0")
    assert told.returncode == 0, told.stderr
    assert "The study is sound; nothing was trained" in told.stdout
    wrong = run(
        tmp_path, "run", "digits-mlp", "--trials", "0", "--set", "model.init_args.wdith=3", "--set", "study=other"
    )
    assert wrong.returncode == 2
    assert "wdith" in wrong.stderr


def test_describing_commands_tell_what_is_shipped(tmp_path: Path) -> None:
    assert "tuner.models.MLP" in run(tmp_path, "models").stdout
    assert "digits-mlp" in run(tmp_path, "examples").stdout
    space = run(tmp_path, "space", "mlp").stdout
    assert "model.learning_rate" in space
    assert "step size α" in space
    assert not (tmp_path / ".tuner").exists()


def test_doctor_finds_everything_at_hand(tmp_path: Path) -> None:
    told = run(tmp_path, "doctor")
    assert told.returncode == 0, told.stdout
    assert "FAIL" not in told.stdout
    assert not (tmp_path / ".tuner").exists(), "looking creates nothing"


def test_doctor_says_what_is_wrong_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = os.environ | {
        "TUNER_HOME": str(tmp_path / "home"),
        "TUNER_STORAGE": "postgresql+psycopg://somebody:secret@127.0.0.1:9/none",
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "tuner", "doctor"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 1
    assert told.stdout.count("FAIL") == 2
    assert "Check TUNER_STORAGE" in told.stdout
    assert "secret" not in told.stdout + told.stderr


def test_doctor_takes_a_server_s_password_and_does_not_show_it(tmp_path: Path) -> None:
    environment = os.environ | {
        "TUNER_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": "http://somebody:s3cret@127.0.0.1:9",
    }
    command = [sys.executable, "-m", "tuner", "doctor"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 1
    assert "does not answer" in told.stdout
    assert "s3cret" not in told.stdout + told.stderr


def test_three_mistakes_are_told_together_and_nothing_is_created(tmp_path: Path, study: dict[str, Any]) -> None:
    study["model"]["class_path"] = "tuner.models.MPL"
    study["search"]["sampler"] = "tpo"
    study["space"]["model.learning_rate"]["float"]["default"] = 7
    told = run(tmp_path, "run", write(tmp_path, study), "--json")
    assert told.returncode == 2
    assert told.stdout == ""
    assert "study.yaml has 3 problems" in told.stderr
    assert "Did you mean 'MLP'" in told.stderr
    assert "Did you mean 'tpe'" in told.stderr
    assert "default must lie between low and high" in told.stderr
    assert not (tmp_path / ".tuner").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "digits-mpl"], "Did you mean 'digits-mlp'"),
        (["run", "digits-mlp", "--set", "search.trials"], "must be PATH=VALUE"),
        (["run", "digits-mlp", "--set", "search.trails=3"], "Did you mean 'trials'"),
        (["run", "digits-mlp", "--time", "10 parsecs"], "must be a time such as"),
        (["run", "digits-mlp", "--workers", "0"], "greater than"),
        (["rum"], "No such command 'rum'"),
        (["best", "small"], "there are no studies"),
        (["space", "mpl"], "Did you mean 'mlp'"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    answer = run(tmp_path, *arguments)
    assert answer.returncode == 2, answer
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / ".tuner").exists()


def test_a_study_in_which_nothing_succeeds_ends_with_1(tmp_path: Path, study: dict[str, Any]) -> None:
    (tmp_path / "mine.py").write_text(
        "from tuner.models import MLP\n"
        "class Broken(MLP):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        raise KeyError('no such column')\n"
    )
    study["model"]["class_path"] = "mine.Broken"
    told = run(tmp_path, "run", write(tmp_path, study), "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["best"] is None
    assert "no such column" in told.stderr
    assert "Traceback" not in told.stderr
    shown = run(tmp_path, "show", "small").stdout
    assert "Came to nothing (3)" in shown


def test_several_workers_share_one_study(tmp_path: Path, study: dict[str, Any]) -> None:
    study["search"]["trials"] = 9
    told = run(tmp_path, "run", write(tmp_path, study), "--workers", "3", "--json")
    assert told.returncode == 0, told.stderr
    assert sum(json.loads(told.stdout)["trials"].values()) == 9
    from tuner.home import Home
    from tuner.service.entry import open_storage

    storage = f"sqlite:///{tmp_path}/.tuner/tuner.db"
    with open_storage(Home(tmp_path / ".tuner", storage, "")) as store:
        trials = store.trials(store.study("small").id)
    assert [t.number for t in trials] == list(range(9))
    assert len({json.dumps(t.params, sort_keys=True) for t in trials}) == 9
