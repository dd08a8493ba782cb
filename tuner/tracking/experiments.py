"""The MLflow experiment of a study."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from tuner.errors import TrackingUnavailable


def find_or_create_experiment(client: mlflow.MlflowClient, uri: str, artifacts: Path, study: str) -> str:
    """The id of a study's experiment, which has the study's name.

    Args:
        client: of MLflow.
        uri: its tracking URI.
        artifacts: where artifacts go when the URI is a database; a server has its own place.
        study: the study's name.

    Raises:
        TrackingUnavailable: it was deleted in MLflow.
    """
    found = client.get_experiment_by_name(study)
    if found is not None and found.lifecycle_stage != "deleted":
        return str(found.experiment_id)
    if found is not None:
        raise TrackingUnavailable(
            f"MLflow's experiment {study!r} was deleted there. Restore it, or give the study another name."
        )
    local = uri.startswith(("sqlite:", "postgresql", "mysql", "file:")) or "://" not in uri
    location = artifacts.as_uri() + "/" + study if local else None
    try:
        # The kind makes MLflow's UI show charts of training runs first, not traces of language models.
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": _note(study)}
        return str(client.create_experiment(study, artifact_location=location, tags=tags))
    except MlflowException as error:
        found = client.get_experiment_by_name(study)
        if found is None or error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(found.experiment_id)


def newest_pages(uri: str, most: int = 5) -> list[tuple[str, str]]:
    """The experiments that changed last, and where MLflow's UI shows the runs of each, below its address.

    The UI begins with language models, and shows trainings only where an address says so.
    """
    found = mlflow.MlflowClient(tracking_uri=uri).search_experiments(
        max_results=most + 1, order_by=["last_update_time DESC"]
    )
    own = [each for each in found if each.experiment_id != _DEFAULT][:most]
    return [(each.name, f"/#/experiments/{each.experiment_id}/runs?workflowType=machine_learning") for each in own]


_DEFAULT = "0"
"""The experiment that MLflow makes by itself."""


def _note(study: str) -> str:
    """The experiment's description, in Markdown."""
    return (
        f"A study of tuner. The run `{study}` has the answer in its description and the pictures in its artifact "
        "`report.html`; its child runs are the trials, and theirs the runs that confirm them with new seeds."
    )
