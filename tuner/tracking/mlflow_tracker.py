"""Studies and trials as MLflow runs, written through the client in batches.

Every write may be repeated: run ids are found again by tag, and MLflow itself drops a metric that it has already got
(same key, step, timestamp and value). So what could not be sent is simply sent again, and arrives once. Only making a
run is not repeated blindly: one whose answer was lost may be there, so after an error `open` looks for it first.
"""

from __future__ import annotations

import math
import os
import posixpath
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException

from tuner.errors import TrackingDoubtful, TrackingRefused, TrackingUnavailable
from tuner.home import shown
from tuner.tracking.experiments import find_or_create_experiment
from tuner.tracking.local_store import create_local_store
from tuner.trial import Objective, Trial, TrialState

TrackedReport = tuple[int, float, Mapping[str, float | None]]
"""Epoch, seconds since 1970, metrics."""

_STATUS = {
    TrialState.COMPLETE: RunStatus.FINISHED,
    TrialState.PRUNED: RunStatus.KILLED,
    TrialState.FAILED: RunStatus.FAILED,
}
_MAX_PARAM, _MAX_TAG, _BATCH = 6000, 8000, 1000
PARENT, STUDY, UID = "mlflow.parentRunId", "tuner.study", "tuner.uid"
NUMBER, TOKEN, STATE = "tuner.trial", "tuner.token", "tuner.state"
_REFUSED = ("INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST")
_DOUBTFUL = "BAD_REQUEST"
"""What MLflow says of a wrong request, but also whenever its database raises anything but an OperationalError: a
pool without a free connection, a replica that only reads, tables that are being migrated. Proxies say it, too."""


class MLflowTracker:
    """One study in MLflow.

    Args:
        uri: MLflow's tracking URI.
        artifacts: where artifacts go when the URI is a database; a server has its own place.
        study: the study's name, which is also the experiment's and the parent run's.
        objective: named in tags, and logged as `best_…`.
        uid: tells this study from others of its name on the same server; by default the name.

    Every method raises TrackingUnavailable when MLflow does not answer; nothing is lost by opening another tracker and
    calling it again.
    """

    def __init__(self, uri: str, artifacts: Path, study: str, objective: Objective, uid: str | None = None) -> None:
        self.uri = uri
        self.uid = uid or study
        self.study = study
        self.objective = objective
        self._artifacts = artifacts
        self._experiment = ""
        self._parent = ""
        self._runs: dict[int, str] = {}
        self._known: set[str] = set()  # runs of trials that were there when it was opened, deleted ones, too
        self._described: set[str] = set()  # runs that have their params for sure; sending them again changes nothing
        self._sent: dict[str, int] = {}  # by run: the last epoch that it has for sure
        self._tokens: dict[str, str] = {}  # by run: the token of the attempt whose metrics it holds
        with self._mapped():
            create_local_store(uri, artifacts)
            self._client = mlflow.MlflowClient(tracking_uri=uri)

    def open(
        self,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        known_run: str | None = None,
        started: float | None = None,
    ) -> str:
        """Create the parent run, or find it again and set it running; return its id.

        Args:
            tags: of the run.
            params: of the run.
            known_run: its id, if it is known.
            started: when the study began, in seconds since 1970; by default now.
        """
        with self._mapped():
            self._experiment = find_or_create_experiment(self._client, self.uri, self._artifacts, self.study)
            parent = known_run if known_run and self._exists(known_run) else self._find_parent()
            if parent is None:
                mine = {STUDY: self.study, UID: self.uid, "tuner.kind": "study"}
                with _without_retries():
                    began = int((started or time.time()) * 1000)
                    run = self._client.create_run(self._experiment, began, tags=mine, run_name=self.study)
                parent = str(run.info.run_id)
            self._parent = parent
            self._client.update_run(parent, status="RUNNING")
            self._log(parent, [], tags, params)
            self._know_children()
            return parent

    def missing(self, runs: Mapping[int, str]) -> list[int]:
        """Which of these trials (their runs by number) MLflow did not have when it was opened: it was set up anew."""
        return [number for number, run in runs.items() if run not in self._known]

    def _know_children(self) -> None:
        """Learn the trials' runs, and delete those that are there twice: the first one's answer had been lost.

        A run whose creation was answered has params next.
        """
        for run in sorted(self._children(), key=lambda run: not run.data.params):  # written ones come first
            self._known.add(run.info.run_id)
            if run.info.lifecycle_stage != "active":
                continue
            number, token = int(run.data.tags[NUMBER]), run.data.tags[TOKEN]
            if self._runs.setdefault(number, run.info.run_id) == run.info.run_id:
                self._tokens[run.info.run_id] = token
            elif not run.data.params:
                self._client.delete_run(run.info.run_id)

    def write(
        self,
        trial: Trial,
        reports: Sequence[TrackedReport],
        known_run: str | None,
        extra_tags: Mapping[str, str] | None = None,
    ) -> str | None:
        """Bring one trial up to date; return its run's id, or None when it has none.

        A trial that went back to the queue is KILLED until somebody takes it again; then it gets a new run, because
        metrics cannot be taken back from the old one, which is deleted. The epochs that it goes on after are in both.
        """
        with self._mapped():
            run = self._runs.get(trial.number) or known_run
            if trial.state is TrialState.WAITING:
                if run is not None:
                    self._log(run, [], {STATE: trial.state.value, "tuner.reason": "back in the queue"})
                    self._client.set_terminated(run, "KILLED")
                return run
            if run is not None and self._tokens.get(run) != str(trial.token):
                if run in self._tokens:
                    self._client.delete_run(run)
                run = None
            tags = {**(extra_tags or {}), **self._tags(trial)}
            if run is None:
                run, tags = self._create_child(trial, tags), {}
            params = {} if run in self._described else {**(trial.params or {}), "seed_everything": trial.seed}
            metrics = [
                Metric(_legal(name), value, int(at * 1000), epoch)
                for epoch, at, values in reports
                if epoch > self._sent.get(run, 0)
                for name, value in values.items()
                if value is not None and math.isfinite(value)
            ]
            if trial.result is not None:
                result, ended = trial.result, int((trial.finished or 0) * 1000)
                told = self.results(result.metrics)
                told |= {"best_epoch": float(result.best_epoch or 0), "epochs": float(result.epochs)}
                told["seconds"] = trial.train_seconds
                metrics += [Metric(_legal(n), v, ended, 0) for n, v in told.items() if math.isfinite(v)]
            self._log(run, metrics, tags, params)
            self._described.add(run)
            self._sent[run] = reports[-1][0] if reports else 0
            if trial.result is not None:
                self._client.set_terminated(run, RunStatus.to_string(_STATUS[trial.state]), ended)
            return run

    @staticmethod
    def _tags(trial: Trial) -> dict[str, str]:
        """How a trial stands, and what is to be known of it besides its numbers."""
        tags = {STATE: trial.state.value}
        if trial.attempt > 1:
            tags["tuner.attempts"] = str(trial.attempt)
        if trial.began_after:
            tags["tuner.began_after"] = str(trial.began_after)
        if trial.result is not None:
            told = {"reason": trial.result.reason, "trained": trial.result.trained, "traceback": trial.result.detail}
            tags |= {f"tuner.{name}": text for name, text in told.items() if text}
            seconds = trial.result.seconds.items()
            tags["tuner.seconds"] = ", ".join(f"{phase} {value:.3g}" for phase, value in seconds)
        return tags

    def delete(self) -> None:
        """Mark the study's runs as deleted, its trials' first; they can be restored until `mlflow gc` is run."""
        with self._mapped():
            found = self._client.get_experiment_by_name(self.study)
            if found is None or found.lifecycle_stage == "deleted":
                return
            self._experiment = found.experiment_id
            for run in list(self._children(ViewType.ACTIVE_ONLY)):
                self._client.delete_run(run.info.run_id)
            while parent := self._find_parent():
                self._client.delete_run(parent)

    def results(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Validation metrics at the best epoch, as runs name them.

        MLflow's charts show names without a `/` in alphabetical order, and after all groups with one. So these few
        stand before the curves, and the rest (of training, of layers) is for the curves alone.
        """
        mine = self.objective.metric
        told = {name: value for name, value in metrics.items() if name == mine or name.startswith("val_")}
        return {f"best_{name}": value for name, value in told.items() if "/" not in name}

    def progress(self, values: Sequence[tuple[int, float, float]]) -> None:
        """Log the best value so far on the parent: (trials completed by then, seconds since 1970, value)."""
        with self._mapped():
            name = _legal(f"best_{self.objective.metric}")
            self._log(self._parent, [Metric(name, value, int(at * 1000), count) for count, at, value in values], {})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the parent run."""
        with self._mapped():
            self._log(self._parent, [], tags)

    def attach(self, files: Mapping[str, str]) -> None:
        """Save texts as artifacts of the parent run, by file name."""
        with self._mapped(), tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder) / name
                path.write_text(text, "utf-8")
                self._client.log_artifact(self._parent, str(path))

    def close(self, status: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """Say how the study ended: FINISHED, FAILED or KILLED."""
        with self._mapped():
            moment = int(time.time() * 1000)
            numbers = [
                Metric(_legal(name), value, moment, 0) for name, value in metrics.items() if math.isfinite(value)
            ]
            self._log(self._parent, numbers, tags)
            self._client.set_terminated(self._parent, status)

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _find_parent(self) -> str | None:
        mine = f"tags.`tuner.kind` = 'study' and tags.`{UID}` = '{self.uid}'"
        runs = self._client.search_runs([self._experiment], mine, max_results=1)
        return runs[0].info.run_id if runs else None

    def _children(self, which: int = ViewType.ALL) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                f"tags.`{NUMBER}` != '' and tags.`{UID}` = '{self.uid}'",
                which,
                5000,
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create_child(self, trial: Trial, about: Mapping[str, str]) -> str:
        """Create a trial's run, with all its tags: each further request is some transactions."""
        above, name = self._parent, f"trial-{trial.number:04d}"
        if trial.confirms is not None:
            above = self._runs.get(trial.confirms, self._parent)
            name = f"trial-{trial.confirms:04d}-seed-{trial.seed}"
        tags = {
            **{name: value[:_MAX_TAG] for name, value in about.items()},
            PARENT: above,
            STUDY: self.study,
            UID: self.uid,
            NUMBER: str(trial.number),
            TOKEN: str(trial.token),
            "tuner.kind": "trial" if trial.confirms is None else "confirmation",
            "tuner.objective": f"{self.objective.direction} {self.objective.metric}",
        }
        started = int((trial.started or 0) * 1000)
        with _without_retries():
            run = self._client.create_run(self._experiment, start_time=started, run_name=name, tags=tags).info.run_id
        self._runs[trial.number] = str(run)
        self._tokens[str(run)] = str(trial.token)
        return str(run)

    def _log(
        self, run: str, metrics: Sequence[Metric], tags: Mapping[str, str], params: Mapping[str, Any] | None = None
    ) -> None:
        """Send all that there is at once, or as few batches as MLflow takes."""
        told = [RunTag(name, value[:_MAX_TAG]) for name, value in tags.items()]
        given = [Param(_legal(name), str(value)[:_MAX_PARAM]) for name, value in (params or {}).items()]
        for start in range(0, max(len(metrics), 1), _BATCH):
            first = start == 0
            self._client.log_batch(
                run,
                metrics=metrics[start : start + _BATCH],
                tags=told if first else [],
                params=given if first else [],
            )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except TrackingUnavailable:
            raise
        except Exception as error:  # MLflow lets its database's and its HTTP library's own errors through
            reason = shown(str(error)).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            if getattr(error, "error_code", None) in _REFUSED:
                raise TrackingRefused(f"MLflow at {shown(self.uri)} refuses this: {reason}") from error
            if getattr(error, "error_code", None) == _DOUBTFUL:
                raise TrackingDoubtful(f"MLflow at {shown(self.uri)} does not take this now: {reason}") from error
            raise TrackingUnavailable(f"MLflow at {shown(self.uri)} does not answer: {reason}") from error


@contextmanager
def _without_retries() -> Iterator[None]:
    """Keep MLflow from asking again by itself: a request whose answer is late would be answered twice."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _legal(name: str) -> str:
    """A metric's or parameter's name as MLflow takes it: letters, digits and `_-./: `; no path that climbs."""
    taken = re.sub(r"[^\w\-./: ]", "_", name)[:250]
    return posixpath.normpath(f"/{taken}").strip("/") or "_"
