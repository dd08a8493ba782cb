"""What the storage knows of a study, as the record that its page and its note are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tuner.best import choose
from tuner.errors import NoBest
from tuner.insight import Diagnosis, Importance, importance
from tuner.report import StudyRecord
from tuner.service.diagnosing import diagnosis_of
from tuner.service.entry import spec_of
from tuner.storage import Store, StudyRow
from tuner.trial import Trial


def record_of(
    store: Store,
    row: StudyRow,
    trials: Sequence[Trial] | None = None,
    *,
    measured: bool = True,
    most: float = math.inf,
) -> StudyRecord:
    """A study as it stands.

    Args:
        store: where it is.
        row: the study.
        trials: all of its trials; saves reading them again.
        measured: whether importance is measured and the study diagnosed, which takes seconds.
        most: with more epochs than this it is not diagnosed, which reads the curves of all trials.
    """
    spec = spec_of(row)
    trials = store.trials(row.id) if trials is None else trials
    chosen = choose(trials, spec.goal)
    summary = store.summary(row.id)
    found = importance(spec.searched, spec.goal, trials) if measured and spec.searched.parameters else None
    return StudyRecord(
        name=row.name,
        state=row.state,
        objective=spec.goal,
        space=spec.searched,
        trials=trials,
        chosen=chosen,
        importance=found,
        curves=store.curves(row.id, [chosen.trial.number]) if chosen is not None else {},
        epochs=summary.epochs,
        seconds=summary.seconds,
        wasted_seconds=summary.wasted_seconds,
        reason=row.reason,
        document=row.document,
        facts=row.facts,
        created_at=row.created_at,
        diagnosis=_diagnosis(store, row, trials, found) if measured and summary.epochs <= most else None,
    )


def _diagnosis(store: Store, row: StudyRow, trials: Sequence[Trial], measured: Importance | None) -> Diagnosis | None:
    try:
        return diagnosis_of(store, row, trials, measured=measured)
    except NoBest:  # nothing has been trained yet
        return None
