"""What tests share: a home of their own, and small studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
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
