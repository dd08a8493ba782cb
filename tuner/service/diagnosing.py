"""A stored study is diagnosed: its curves are read, and what only its confirming seeds can tell is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.best import choose
from tuner.insight import Diagnosis, diagnose
from tuner.service.entry import spec_of
from tuner.storage import Store, StudyRow
from tuner.trial import Trial


def diagnosis_of(
    store: Store, row: StudyRow, trials: Sequence[Trial] | None = None, *, trial: int | None = None
) -> Diagnosis:
    """Diagnose a study as it stands, or one of its trials.

    Args:
        store: where it is.
        row: the study.
        trials: all of them, if they have been read.
        trial: the number of the one that is asked about.

    Raises:
        NoBest: nothing has been trained yet.
        StudyNotFound: there is no such trial.
    """
    spec = spec_of(row)
    trials = store.trials(row.id) if trials is None else trials
    chosen = choose(trials, spec.goal)
    best = chosen.trial.number if chosen is not None else None
    found = diagnose(spec, trials, store.curves(row.id), trial=trial, best=best)
    if trial is not None or chosen is None or chosen.second is None or chosen.told_apart is not False:
        return found
    seeds = f"{len(chosen.seeds)} and {len(chosen.second_seeds)} seeds"
    tie = (
        f"Trial {chosen.trial.number} is named best, but its seeds cannot tell it from trial {chosen.second.number} "
        f"(two-sided t test at 5 %, {seeds}): take whichever is cheaper, or run the study with more search.confirm."
    )
    return replace(found, warnings=(*found.warnings, tie))
