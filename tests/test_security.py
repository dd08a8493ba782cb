"""What SECURITY.md promises: no password in what is written, no way out of the folders, nothing unsafe is loaded."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import torch
from own_postgres import OwnPostgres, free_port

from tuner.best import Best
from tuner.cli import main
from tuner.errors import BestUnusable, SpecError
from tuner.home import Home
from tuner.spec import read_study
from tuner.tracking.local_store import create_local_store

ROOT = Path(__file__).parent.parent
PASSWORD = "hunter2:/@%é secret"  # noqa: S105 - what URLs and patterns stumble over
FORMS = (PASSWORD, quote(PASSWORD, safe=""), "hunter2")


def says_no_password(text: str) -> bool:
    return not any(form in text for form in FORMS)


# Passwords


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    """A PostgreSQL that wants PASSWORD."""
    postgres = OwnPostgres(PASSWORD, ["--auth-host=scram-sha-256", "--encoding=UTF8"])
    yield postgres
    postgres.close()


def storage(postgres: OwnPostgres, password: str) -> str:
    return f"postgresql+psycopg://postgres:{quote(password, safe='')}@127.0.0.1:{postgres.port}/postgres"


@pytest.mark.parametrize(
    "command",
    [["list"], ["show", "x"], ["best", "x"], ["stop", "x"], ["init-db"], ["doctor"]],
    ids=lambda command: command[0],
)
def test_a_wrong_password_is_refused_and_not_repeated(
    postgres: OwnPostgres,
    home: Home,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong = f"{PASSWORD}wrong"
    monkeypatch.setenv("TUNER_STORAGE", storage(postgres, wrong))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://tuner:{quote(wrong, safe='')}@127.0.0.1:{free_port()}")
    monkeypatch.setattr(sys, "argv", ["tuner", *command])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capfd.readouterr()
    assert "password authentication failed" in said.out + said.err
    assert says_no_password(said.out + said.err + caplog.text)


def test_a_study_leaves_no_password_anywhere(postgres: OwnPostgres, study: dict[str, Any], tmp_path: Path) -> None:
    """Neither in what it prints, logs and keeps, nor in MLflow's files, nor in the storage, nor in `ps`."""
    study["search"]["trials"] = 2
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    environment = {**os.environ, "TUNER_HOME": str(tmp_path / "home"), "TUNER_STORAGE": storage(postgres, PASSWORD)}
    environment.pop("MLFLOW_TRACKING_URI", None)

    def start(*command: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", *command],
            cwd=tmp_path,
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    made = start("init-db")
    assert "is ready" in made.communicate()[0]
    running = start("run", "study.yaml", "--json")
    listed = set()
    while running.poll() is None:
        listed |= set(subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout.splitlines())
    said = running.communicate()[0]
    assert running.returncode == 0, said
    assert '"storage": "postgresql+psycopg://postgres:***@127.0.0.1' in said
    create_local_store(f"sqlite:///{tmp_path}/home/mlflow.db", tmp_path / "home" / "artifacts")
    sent = said
    while "not in MLflow yet" in sent:  # on a machine that is too busy to send all within half a minute
        sent = start("resume", "small").communicate()[0]
        said += sent
    away = f"http://tuner:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}"
    resumed = start("resume", "small", "--trials", "3", MLFLOW_TRACKING_URI=away)
    said += resumed.communicate()[0]
    assert resumed.returncode == 0, said
    assert "are not in MLflow yet" in said
    assert any("multiprocessing.forkserver" in line for line in listed), "the workers were not seen"
    assert says_no_password("\n".join(listed))
    assert says_no_password(said)
    kept = {path: path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert {"mlflow.db", "worker-0.log", "study.yaml", "best.yaml"} <= {path.name for path in kept}
    assert not [path for path, content in kept.items() if any(form.encode() in content for form in FORMS)]
    server = ["--host=127.0.0.1", f"--port={postgres.port}", "--username=postgres"]
    dump = subprocess.run(
        ["pg_dump", *server], env={**environment, "PGPASSWORD": PASSWORD}, capture_output=True, check=True
    ).stdout.decode()
    assert "tuner_study" in dump
    assert says_no_password(dump)


# Paths

NAMES = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:x",
    "a\0b",
    "a\nb",
    "a\n",
    "~",
    "-rf",
    "ü",
    "a b",
    "$(id)",
    "x" * 101,
    "",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_study_s_name_cannot_be_a_path(study: dict[str, Any], name: str) -> None:
    with pytest.raises(SpecError) as told:
        read_study({**study, "study": name})
    assert [problem.path for problem in told.value.problems] == ["study"]


@pytest.mark.parametrize("name", ["a", "nul", "a..b", "A-1_2.3", "x" * 100])
def test_names_that_are_allowed_stay_in_their_folders(study: dict[str, Any], home: Home, name: str) -> None:
    read_study({**study, "study": name})
    for folder in (home.checkpoints(name), home.logs(name)):
        assert folder.resolve().parent in (home.folder / "checkpoints", home.folder / "logs")


@pytest.mark.parametrize("command", [["show"], ["best"], ["stop"], ["resume"]], ids=lambda command: command[0])
def test_commands_look_a_name_up_before_they_touch_a_file(
    home: Home, command: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tuner", *command, "../../outside"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert re.search("no stud|there is no .*outside", capfd.readouterr().err)
    assert not home.folder.exists()


# Loading


class Malicious:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.made,))


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_malicious_checkpoint_is_refused(
    study: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    made, path = tmp_path / "made", tmp_path / "trial-0000.ckpt"
    content = {"state_dict": {}, "hyper_parameters": {}, "extra": Malicious(made)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # not even where the environment asks for it
    config = {key: study[key] for key in ("model", "data", "trainer", "seed_everything")}
    best = Best("small", 0, 0.5, {}, {}, (), path, config)
    with pytest.raises(BestUnusable, match="must hold weights and plain values only"):
        best.trained_module()
    assert not made.exists()


def _sources() -> list[Path]:
    return sorted(path for folder in ("tuner", "models", "search_spaces") for path in (ROOT / folder).rglob("*.py"))


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call in the code: its file, the dotted name that is called, and the call."""
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                yield path.relative_to(ROOT).as_posix(), ast.unparse(node.func), node


def _given(call: ast.Call, name: str) -> Any:
    value = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else None


def test_nothing_is_loaded_in_a_way_that_runs_code() -> None:
    found = {(file, name) for file, name, _ in _calls() if name in UNSAFE or name.split(".")[-1] == "unsafe_load"}
    assert found == {
        ("tuner/engine/crew.py", "pickle.loads"),  # the answer of a child, through a pipe that nobody else has
        ("tuner/cohort/replay.py", "exec"),  # code made of a recorded graph: of operations, not of anybody's text
    }
    for file, name, call in _calls():
        if name in ("torch.load", "owner.load_from_checkpoint") or name.endswith(".load_from_checkpoint"):
            assert _given(call, "weights_only") is True, file
        if name in ("np.load", "numpy.load"):
            assert _given(call, "allow_pickle") is False, file


UNSAFE = {
    *("eval", "exec", "pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load"),
    *("marshal.loads", "shelve.open", "yaml.load", "yaml.full_load", "os.system", "os.popen"),
}


def test_no_shell_is_started() -> None:
    assert [(file, name) for file, name, call in _calls() if _given(call, "shell") is True] == []


def test_sql_is_written_by_sqlalchemy() -> None:
    """Text is sent to a database in one place, where none of it comes from anywhere else."""
    raw = {(file, ast.unparse(call)) for file, name, call in _calls() if name in ("text", "sa.text", "sqlalchemy.text")}
    raw |= {
        (file, ast.unparse(call))
        for file, name, call in _calls()
        if name.split(".")[-1] in ("exec_driver_sql", "executescript") or name == "cursor.execute"
    }
    assert raw == {
        ("tuner/storage/database.py", "cursor.execute(f'PRAGMA {pragma}')"),
        ("tuner/storage/database.py", "cursor.execute('PRAGMA journal_mode=WAL')"),
        ("tuner/storage/database.py", "connection.exec_driver_sql('BEGIN' if read_only else 'BEGIN IMMEDIATE')"),
    }
