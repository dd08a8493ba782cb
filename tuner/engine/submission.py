"""Into the storage by command: a study is checked and entered, to be worked on here or by the workers of a service."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuner.engine.crew import Crew
from tuner.home import Home, silence_telemetry
from tuner.service.entry import enter, open_storage, spec_of
from tuner.service.result import StudyResult, result_of
from tuner.spec import FUNCTION, Inspect, StudySpec, read_study
from tuner.storage import Store

log = logging.getLogger("tuner")


def submit(
    study: str | Path | Mapping[str, Any],
    *,
    resume: bool = False,
    overrides: Sequence[tuple[str, Any]] = (),
    priority: int | None = None,
    home: Home | None = None,
) -> StudyResult:
    """Check a study as `run` does, and hand it to the workers of the service.

    Args:
        study: a YAML file, the name of a shipped example, or the document itself.
        resume: `study` is the name of a stored study, which goes back to the queue.
        overrides: values that replace what the study says, by path.
        priority: the higher, the earlier it is served; None leaves it as it is, 0 at first.
        home: where things live; by default as the environment says.

    Returns:
        How the study stands now.

    Raises:
        SpecError, StudyChanged, StudyNotFound: nothing was entered.
    """
    silence_telemetry()
    home = home or Home.from_environment()
    with entered(study, overrides, Crew(home).inspect, home, resume=resume) as (spec, store):
        submitted = {"folder": str(Path.cwd()), "machine": socket.gethostname()}
        store.submit(store.study(spec.study).id, priority, {"submitted": submitted})
        return result_of(store, spec.study, home)


@contextmanager
def entered(
    study: str | Path | Mapping[str, Any],
    overrides: Sequence[tuple[str, Any]],
    inspect: Inspect,
    home: Home,
    *,
    resume: bool,
) -> Iterator[tuple[StudySpec, Store]]:
    """Check a study, and create it or set it running; arguments and errors as for `submit`.

    Nothing is created, the storage included, unless the study is sound.
    """
    changes_space = any(path.partition(".")[0] == "space" for path, _ in overrides)
    if not resume:
        spec = read_study(study, overrides, inspect)
    with open_storage(home, create=not resume) as store:
        if resume:
            row = store.study(str(study))
            # Budgets alone leave nothing to inspect that was not inspected before; a function may be another program's.
            again = changes_space or row.document["search"]["training"] == FUNCTION
            spec = spec_of(row, overrides, inspect if again else None)
        for warning in spec.warnings():
            log.warning(warning)
        enter(store, spec, change_space=resume and changes_space)
        yield spec, store
