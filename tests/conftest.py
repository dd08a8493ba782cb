"""What tests share: a home of their own, and small studies."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch

from tuner.home import Home, silence_telemetry

silence_telemetry()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty TUNER_HOME, and the environment that names it."""
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home.from_environment()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread: tiny tensors only lose by more, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def study() -> dict[str, Any]:
    """A study of seconds: a small MLP on digits, two epochs a trial, no confirming."""
    return {
        "study": "small",
        "model": {"class_path": "tuner.models.MLP", "init_args": {"hidden_units": 16, "depth": 1}},
        "data": {"class_path": "tuner.data.Digits"},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "seed_everything": 7,
        "objective": {"metric": "val_loss", "direction": "minimize"},
        "space": {
            "model.learning_rate": {
                "float": {"low": 1e-3, "high": 1.0, "scale": "log", "default": 0.1},
                "priority": 1,
            },
            "data.batch_size": {"choice": {"values": [64, 256], "default": 64}, "priority": 2},
        },
        "search": {"trials": 4, "confirm": 0},
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'tuner.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of an empty schema on the PostgreSQL server, dropped after the test."""
    server = os.environ.get("TUNER_TEST_POSTGRES")
    if not server:
        pytest.skip("TUNER_TEST_POSTGRES is not set: give the SQLAlchemy URL of a PostgreSQL server to test on")
    schema = f"tuner_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    named = sa.make_url(server).update_query_dict({"options": f"-csearch_path={schema}"})
    yield named.render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    admin.dispose()
