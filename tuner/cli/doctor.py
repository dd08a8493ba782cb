"""Is everything at hand? Storage, tracking, devices, versions; each failure with its remedy."""

from __future__ import annotations

import base64
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from tuner.errors import StudyNotFound, TunerError
from tuner.home import Home, shown


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, and what was seen or must be done."""

    subject: str
    ok: bool
    text: str


def examine(home: Home) -> list[Finding]:
    """Look at everything; changes nothing."""
    return [_folder(home), _storage(home), *_workers(home), _tracking(home), *_devices(), *_versions()]


def _folder(home: Home) -> Finding:
    parent = next(folder for folder in (home.folder, *home.folder.parents) if folder.exists())
    if os.access(parent, os.W_OK):
        return Finding("home", ok=True, text=f"{home.folder}")
    return Finding("home", ok=False, text=f"{parent} is not writable. Set TUNER_HOME to a folder that is.")


def _storage(home: Home) -> Finding:
    from tuner.service.entry import open_storage

    try:
        with open_storage(home) as store:
            studies = store.studies()
            waiting = sum(store.count_untracked(study.id) for study in studies)
            behind = store.behind()
    except StudyNotFound:
        return Finding("storage", ok=True, text=f"{shown(home.storage)}: not there yet, the first run makes it")
    except TunerError as error:
        return Finding("storage", ok=False, text=f"{error} Check TUNER_STORAGE and that the database runs.")
    text = f"{shown(home.storage)}: {len(studies)} studies"
    if waiting:
        text += f"; {waiting} trials wait to be sent to MLflow"
    if behind:
        text += f"; MLflow lacks the end of {', '.join(behind)} (the next tuner run or tuner worker sends it)"
    return Finding("storage", ok=True, text=text)


def _workers(home: Home) -> list[Finding]:
    """The workers of the service, and what keeps them from working."""
    from tuner.cli.tables import worker_cells
    from tuner.service.entry import open_storage

    try:
        with open_storage(home) as store:
            workers = store.workers()
    except TunerError:
        return []  # the storage's own finding says what is wrong
    findings = []
    for worker in workers:
        name, device, threads, since, seen = worker_cells(worker)
        told = f"{name} on {device} with {threads} threads since {since}, last seen {seen}"
        if worker.trouble is not None:
            findings.append(Finding("worker", ok=False, text=f"{told}, takes no work: {worker.trouble}"))
        elif not worker.left:
            at = f"works on {worker.study}" if worker.study else "waits for work"
            findings.append(Finding("worker", ok=True, text=f"{told}, {at}"))
        for study, why in worker.refused.items():
            findings.append(Finding("worker", ok=False, text=f"{told}, does not work on {study}: {why}"))
    return findings


def _tracking(home: Home) -> Finding:
    if home.tracking.startswith("sqlite:"):
        return Finding("tracking", ok=True, text=f"{shown(home.tracking)} (no server needed)")
    if not home.tracking.startswith(("http://", "https://")):
        return Finding("tracking", ok=True, text=f"{shown(home.tracking)} (a database, not asked)")
    try:
        with urllib.request.urlopen(_health(home.tracking), timeout=5) as answer:  # noqa: S310 - http or https
            answer.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        remedy = "Start the server or correct MLFLOW_TRACKING_URI; training goes on meanwhile and its data waits."
        reason = shown(str(error)) if isinstance(error, urllib.error.URLError) else type(error).__name__
        return Finding("tracking", ok=False, text=f"{shown(home.tracking)} does not answer: {reason}. {remedy}")
    return Finding("tracking", ok=True, text=f"{shown(home.tracking)} answers")


def _health(url: str) -> urllib.request.Request:
    """The request for a server's health; a name and password in the URL go into its header, as a browser does it."""
    parts = urllib.parse.urlsplit(url.rstrip("/"))
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(f"{parts.scheme}://{host}{parts.path}/health")  # noqa: S310 - http or https
    if at:
        told = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_header("Authorization", f"Basic {told}")
    return request


def _devices() -> list[Finding]:
    import torch

    found = [Finding("cpu", ok=True, text=f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")]
    gpus = (f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count()))
    return found + [Finding("gpu", ok=True, text=gpu) for gpu in gpus]


def _versions() -> list[Finding]:
    from packaging.requirements import Requirement

    findings = []
    for text in requires("tuner") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            remedy = f"is missing. Run: pip install '{wanted}'"
            findings.append(Finding("version", ok=False, text=f"{wanted.name} {remedy}"))
            continue
        ok = wanted.specifier.contains(found, prereleases=True)
        remedy = "" if ok else f", but tuner needs {wanted.specifier}. Run: pip install '{wanted}'"
        findings.append(Finding("version", ok=ok, text=f"{wanted.name} {found}{remedy}"))
    return findings
