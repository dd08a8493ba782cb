"""MLflow's model registry: a best becomes a version of a registered model, and the champion if it is better."""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pytorch
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, RunTag
from mlflow.exceptions import MlflowException

from tuner.errors import BestUnusable, StudyNotFound, TrackingUnavailable
from tuner.home import shown
from tuner.tracking.experiments import find_or_create_experiment
from tuner.tracking.local_store import create_local_store
from tuner.tracking.mlflow_tracker import PARENT, STUDY
from tuner.trial import Objective

CHAMPION = "champion"
DATA_HASH, OBJECTIVE, VALUE = "tuner.data_hash", "tuner.objective", "tuner.value"
FILES = "extra_files"
"""Where MLflow keeps files beside a model."""


@dataclass(frozen=True)
class Candidate:
    """What is registered.

    Attributes:
        study: its name.
        trial: the number of the best trial.
        run: of the study in MLflow; None while MLflow has not seen it.
        value: to be compared with the champion's.
        data: `class_path` and `hash`.
        metrics: of the weights.
    """

    study: str
    trial: int
    run: str | None
    objective: Objective
    value: float
    data: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def tags(self) -> dict[str, str]:
        """What links a version to its study, its run and its data, and what it is compared by."""
        return {
            STUDY: self.study,
            "tuner.trial": str(self.trial),
            "tuner.run_id": self.run or "",
            "tuner.data": str(self.data.get("class_path", "")),
            DATA_HASH: str(self.data.get("hash", "")),
            OBJECTIVE: f"{self.objective.direction} {self.objective.metric}",
            VALUE: repr(self.value),
        }


@dataclass(frozen=True)
class Registered:
    """A version of a registered model.

    Attributes:
        model: its name.
        version: its number.
        champion: whether the alias `champion` points to it now.
        why: in words, why it does or does not.
    """

    model: str
    version: str
    champion: bool
    why: str


class Registry:
    """The registry at a tracking URI.

    Args:
        uri: MLflow's tracking URI.
        artifacts: where artifacts go when the URI is a database.

    Every method raises TrackingUnavailable when MLflow does not answer.
    """

    def __init__(self, uri: str, artifacts: Path) -> None:
        self.uri, self._artifacts = uri, artifacts
        with self._mapped():
            create_local_store(uri, artifacts)
            self._client = mlflow.MlflowClient(tracking_uri=uri)

    def register(self, name: str, model: Any, example: Any, files: Path, candidate: Candidate) -> Registered:
        """Log a module as a `torch.export` program, with the files of an export beside it, and register it.

        Args:
            name: of the registered model.
            model: a torch module; its `forward` takes one tensor.
            example: an input of shape (B, …), B at least 2; only its shape and type are kept.
            files: the exported folder.
            candidate: what is known of it.
        """
        with self._mapped(), self._quietly():
            run = self._create_run(candidate)
            with mlflow.start_run(run_id=run):
                logged = mlflow.pytorch.log_model(
                    model,
                    name=name,
                    input_example=example.new_zeros(example.shape).numpy(),
                    serialization_format="pt2",
                    pip_requirements=[f"torch=={_version('torch')}", f"numpy=={_version('numpy')}"],
                    extra_files=[str(path) for path in sorted(files.iterdir())],
                    metadata=candidate.tags,
                )
            return self._crowned(name, self._create_version(name, logged, run, candidate), candidate)

    def fetch(self, uri: str, into: Path) -> Path:
        """Get the exported folder of a version, once.

        Args:
            uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
            into: a folder that keeps what was fetched.

        Raises:
            StudyNotFound: there is no such model, alias or version.
            BestUnusable: it was not registered by tuner.
        """
        with self._mapped():
            try:
                found = self._resolve(uri)
                name, version = str(found.name), str(found.version)
                kept = into / name / str(found.run_id)  # another server, or a model made anew, counts from 1 again
                if kept.is_dir():
                    return kept
                with tempfile.TemporaryDirectory() as folder, self._quietly():
                    got = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=folder))
                    if not (got / FILES / "best.yaml").is_file():
                        raise BestUnusable(
                            f"{uri} must be a model that `tuner export --register` has registered, but it has no "
                            "configuration of tuner. Load it with mlflow.pytorch.load_model."
                        )
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    unfinished = Path(tempfile.mkdtemp(prefix=f".{version}.", dir=kept.parent))
                    shutil.copytree(got / FILES, unfinished, dirs_exist_ok=True)
                    unfinished.replace(kept)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise StudyNotFound(f"no {uri!r} in the registry at {shown(self.uri)}: {error.message}") from error
                raise
        return kept

    def _resolve(self, uri: str) -> Any:
        """The version that a `models:/` URI means."""
        told = uri.removeprefix("models:/")
        if "@" in told:
            name, alias = told.rsplit("@", 1)
            return self._client.get_model_version_by_alias(name, alias)
        name, _, version = told.rpartition("/")
        if not name:
            raise StudyNotFound(f"must be models:/NAME@{CHAMPION} or models:/NAME/VERSION, but got {uri!r}.")
        return self._client.get_model_version(name, version)

    def _create_run(self, candidate: Candidate) -> str:
        """A run for the export, below the study's, that names the data."""
        experiment = find_or_create_experiment(self._client, self.uri, self._artifacts, candidate.study)
        tags = {**candidate.tags, "tuner.kind": "export", "mlflow.source.name": "tuner"}
        if candidate.run:
            tags[PARENT] = candidate.run
        run = self._client.create_run(experiment, run_name=f"export-trial-{candidate.trial:04d}", tags=tags).info
        metrics = [Metric(name, value, run.start_time, 0) for name, value in candidate.metrics.items()]
        self._client.log_batch(run.run_id, metrics=metrics, tags=[RunTag("tuner.state", "complete")])
        digest = str(candidate.data.get("hash", ""))[-36:]
        data = Dataset(str(candidate.data.get("class_path") or "data"), digest or "unknown", "code", "{}")
        self._client.log_inputs(run.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
        return str(run.run_id)

    def _create_version(self, name: str, logged: Any, run: str, candidate: Candidate) -> str:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(
            name, logged.model_uri, run_id=run, tags=candidate.tags, model_id=logged.model_id
        )
        return str(made.version)

    def _crowned(self, name: str, version: str, candidate: Candidate) -> Registered:
        """Move the alias if the version is better than the champion, on the same data."""
        reigning = self._champion(name)
        if reigning is None:
            better, why = True, "it is the first"
        else:
            better, why = _compare(candidate, reigning.version, reigning.tags)
        if better:
            self._client.set_registered_model_alias(name, CHAMPION, version)
        self._client.set_model_version_tag(name, version, "tuner.champion", f"{better}: {why}")
        return Registered(name, version, better, why)

    def _champion(self, name: str) -> Any | None:
        try:
            return self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """MLflow's fluent calls on this registry, without their banners; its global URI is put back."""
        before, logger = mlflow.get_tracking_uri(), logging.getLogger("mlflow")
        level = logger.level
        mlflow.set_tracking_uri(self.uri)
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            mlflow.set_tracking_uri(before)
            logger.setLevel(level)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (TrackingUnavailable, StudyNotFound, BestUnusable):
            raise
        except Exception as error:  # MLflow lets its database's and its HTTP library's own errors through
            told = shown(str(error)).strip() or type(error).__name__
            raise TrackingUnavailable(f"MLflow at {shown(self.uri)} did not do this: {told[:500]}") from error


def _compare(candidate: Candidate, version: str, tags: Mapping[str, str]) -> tuple[bool, str]:
    """Whether a candidate is better than the champion with these tags, and why."""
    own = candidate.tags
    reigns = f"champion, version {version},"
    if tags.get(OBJECTIVE) != own[OBJECTIVE]:
        return False, f"the {reigns} is judged by {tags.get(OBJECTIVE, 'nothing')!r}, this by {own[OBJECTIVE]!r}"
    if not own[DATA_HASH] or tags.get(DATA_HASH) != own[DATA_HASH]:
        return False, (
            f"the {reigns} was measured on other data (hash {tags.get(DATA_HASH, '')[:12]}…, here "
            f"{own[DATA_HASH][:12]}…), so the values cannot be compared"
        )
    reigning, metric = float(tags[VALUE]), candidate.objective.metric
    better = candidate.objective.better(candidate.value, reigning)
    word = "better than" if better else "not better than"
    # A data module without fingerprint() is known by its arguments only.
    same = "by the same arguments of the data module" if own[DATA_HASH].startswith("arguments:") else "on the same data"
    return better, f"{metric} {candidate.value:.6g} is {word} {reigning:.6g} of the {reigns} {same}"


def _version(library: str) -> str:
    from importlib.metadata import version

    return version(library).partition("+")[0]
