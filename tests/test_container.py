"""The entrypoint of the image: secrets go where libraries look for them, and nothing else changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.container import SecretUnusable, environment, password, password_file

SAY = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:], os.getpid()]))"


def become(secrets: Path, *command: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tuner.container", *command],
        env={**os.environ, "TUNER_SECRETS": str(secrets), "PGPASSFILE": str(secrets.parent / "pgpass"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, text in {"postgres_tuner": r"a:b\c%d", "postgres_mlflow": "other", "mlflow_password": "p w"}.items():
        (folder / name).write_text(f"{text}\n")
    return folder


def test_the_command_takes_the_process_over_with_its_arguments(secrets: Path) -> None:
    place = secrets.parent / "pgpass"
    place.write_text("of an earlier start")
    process = become(
        secrets, sys.executable, "-c", SAY, "a b", "$x", MLFLOW_TRACKING_PASSWORD_FILE=str(secrets / "mlflow_password")
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    variables, arguments, number = json.loads(out)
    assert arguments == ["a b", "$x"]
    assert number == process.pid, "the command must get the signals"
    assert variables["MLFLOW_TRACKING_PASSWORD"] == "p w"  # noqa: S105
    assert "MLFLOW_TRACKING_PASSWORD_FILE" not in variables
    assert place.read_text() == "*:*:*:mlflow:other\n*:*:*:tuner:a\\:b\\\\c%d\n"
    assert place.stat().st_mode & 0o777 == 0o600, "libpq takes no other"


def test_only_variables_that_name_a_secret_are_replaced(secrets: Path) -> None:
    given = {"SSL_CERT_FILE": "/etc/ssl/cert.pem", "A_FILE": str(secrets / "mlflow_password"), "B": "c"}
    assert environment(given, secrets) == {"SSL_CERT_FILE": "/etc/ssl/cert.pem", "A": "p w", "B": "c"}


def test_without_secrets_it_is_only_the_command(tmp_path: Path) -> None:
    process = become(tmp_path / "none", sys.executable, "-c", "print('ran')")
    assert process.communicate() == ("ran\n", "")
    assert not (tmp_path / "pgpass").exists()
    assert password_file(tmp_path / "none") == ""


@pytest.mark.parametrize("content", ["", "\n", "  \n", "two\nlines\n"])
def test_what_is_not_a_password_is_refused(tmp_path: Path, content: str) -> None:
    secret = tmp_path / "postgres_tuner"
    secret.write_text(content)
    with pytest.raises(SecretUnusable, match=r"must be one line, but has \d\. Make it with `make secrets`"):
        password_file(tmp_path)


def test_a_secret_that_cannot_be_read_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    with pytest.raises(SecretUnusable, match=r"must be readable by user .* Is a directory"):
        password(tmp_path / "secrets")
    process = become(tmp_path / "secrets", "true", KEY_FILE=str(tmp_path / "secrets" / "absent"))
    assert "absent must be readable by user" in process.communicate()[1]
    assert process.returncode == 2


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "no command 'tunr'" in become(tmp_path, "tunr").communicate()[1]
