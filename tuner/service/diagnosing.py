"""A stored study is diagnosed: its curves are read, and what only its confirming seeds can tell is added."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tuner.best import choose
from tuner.errors import SpecError
from tuner.insight import Diagnosis, Importance, diagnose
from tuner.insight.followup import follow_up, next_name
from tuner.service.entry import spec_of
from tuner.space.yaml import read_yaml
from tuner.spec import Inspect, StudySpec, read_study
from tuner.storage import Store, StudyRow
from tuner.trial import Trial


def diagnosis_of(
    store: Store,
    row: StudyRow,
    trials: Sequence[Trial] | None = None,
    *,
    trial: int | None = None,
    measured: Importance | None = None,
) -> Diagnosis:
    """Diagnose a study as it stands, or one of its trials.

    Args:
        store: where it is.
        row: the study.
        trials: all of them, if they have been read.
        trial: the number of the one that is asked about.
        measured: the importance of the parameters, where it is known already.

    Raises:
        NoBest: nothing has been trained yet.
        StudyNotFound: there is no such trial.
    """
    spec = spec_of(row)
    trials = store.trials(row.id) if trials is None else trials
    chosen = choose(trials, spec.goal)
    best = chosen.trial.number if chosen is not None else None
    found = diagnose(spec, trials, store.curves(row.id), trial=trial, best=best, measured=measured)
    if trial is not None or chosen is None or chosen.second is None or chosen.told_apart is not False:
        return found
    seeds = f"{len(chosen.seeds)} and {len(chosen.second_seeds)} seeds"
    tie = (
        f"Trial {chosen.trial.number} is named best, but its seeds cannot tell it from trial {chosen.second.number} "
        f"(two-sided t test at 5 %, {seeds}): take whichever is cheaper, or run the study with more search.confirm."
    )
    return replace(found, warnings=(*found.warnings, tie))


def next_study(store: Store, row: StudyRow, found: Diagnosis, inspect: Inspect | None = None) -> str:
    """The file of the study that follows a diagnosis, checked as any study file is.

    A change that the model does not take (a range widened into what it refuses) is left out.

    Args:
        store: where the study is.
        row: the study.
        found: its diagnosis.
        inspect: checks the classes; without it they are believed.

    Raises:
        SpecError: the study file has problems that no change of ours has made.
    """
    spec, trials = spec_of(row), store.trials(row.id)
    name = next_name(row.name, [study.name for study in store.studies()])
    refused: set[str] = set()
    while True:
        text = follow_up(spec, found, trials, name, refused)
        document, problems = read_yaml(text)
        if problems:
            raise SpecError(f"the study after {row.name}", problems)
        try:
            read_study(document, inspect=inspect)
        except SpecError as error:
            paths = {_parameter(p.path, spec) for p in error.problems} - {None} - refused
            if not paths:
                raise
            refused |= {path for path in paths if path is not None}
            continue
        return text


def _parameter(at: str, spec: StudySpec) -> str | None:
    """The parameter that a problem of a space is about; one that was added by us, by its whole path."""
    path = at.removeprefix("space.")
    known = [p for p in spec.searched.parameters if path == p or path.startswith(f"{p}.")]
    if known:
        return max(known, key=len)
    match = re.match(r"((?:model|data|trainer)\.[^.]+)", path)
    return match[1] if match and at.startswith("space.") else None
