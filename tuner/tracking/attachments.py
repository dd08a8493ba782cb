"""Texts attached to a run that is there already."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow

from tuner.errors import TrackingUnavailable
from tuner.home import shown
from tuner.tracking.local_store import create_local_store


def attach_to(uri: str, artifacts: Path, run: str, files: Mapping[str, str]) -> None:
    """Save texts as artifacts of a run, by file name.

    Raises:
        TrackingUnavailable: MLflow does not answer, or has no such run.
    """
    try:
        create_local_store(uri, artifacts)
        client = mlflow.MlflowClient(tracking_uri=uri)
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder) / name
                path.write_text(text, "utf-8")
                client.log_artifact(run, str(path))
    except Exception as error:  # MLflow lets its database's and its HTTP library's own errors through
        raise TrackingUnavailable(f"MLflow at {shown(uri)} did not take {', '.join(files)}: {error}") from error
