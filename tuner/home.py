"""Where things live: one folder on a laptop, servers named by the environment in a team."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "JSONARGPARSE_DEPRECATION_WARNINGS": "off",  # Lightning's calls, not ours or the user's
}


def silence_telemetry() -> None:
    """Turn off every library's telemetry, noise and minutes of silent retries, unless the user set them."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is being made (`path` with `.init` behind it): one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.init").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def shown(url: str) -> str:
    """Return `url` as it may be printed or logged: without its password."""
    url = re.sub(r"(:/+[^:/\s]*):[^\s?]*?(@)(?=[^@\s]*(?:\s|$))", r"\1:***\2", url)
    return re.sub(r"(?i)((?:password|passwd|pwd|token|api_?key)=)[^&\s]*", r"\1***", url)


@dataclass(frozen=True)
class Home:
    """The places of one installation.

    Attributes:
        folder: `TUNER_HOME`, by default `./.tuner`; holds `tuner.db`, `mlflow.db`, `artifacts/`,
            `checkpoints/`, `logs/`.
        storage: `TUNER_STORAGE`, an SQLAlchemy URL, by default the SQLite file in the folder.
        tracking: `MLFLOW_TRACKING_URI`, by default the SQLite file in the folder.
    """

    folder: Path
    storage: str
    tracking: str

    @classmethod
    def from_environment(cls) -> Home:
        """Read the places from the environment; nothing is created."""
        folder = Path(os.environ.get("TUNER_HOME") or ".tuner").expanduser().resolve()
        return cls(
            folder=folder,
            storage=os.environ.get("TUNER_STORAGE") or f"sqlite:///{folder / 'tuner.db'}",
            tracking=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}",
        )

    @property
    def artifacts(self) -> Path:
        """Where MLflow keeps artifacts when it runs without a server."""
        return self.folder / "artifacts"

    def checkpoints(self, study: str) -> Path:
        """Where the weights of a study's leading trials lie, and what its running trials go on from."""
        return self.folder / "checkpoints" / study

    def logs(self, study: str) -> Path:
        """Where a study's workers write what they print."""
        return self.folder / "logs" / study
