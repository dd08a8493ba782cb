"""A copy of every finished trial in Optuna's own tables, so that Optuna's tools (dashboard, CLI, plots) see the study.

The study's own tables are the truth; this copy is written when a trial is finished, and so never holds a trial that
somebody forgot.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tuner.search.search_space import distribution
from tuner.space import Space
from tuner.trial import Objective, Trial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)

Prepare = Callable[[Any], Any]
"""Given Optuna's engine, makes it safe to share and returns what writes to its tables (the storage room knows how)."""


def create_optuna_tables(url: str) -> None:
    """Create or check Optuna's tables; one process at a time."""
    RDBStorage(url).engine.dispose()


def delete_copy(url: str, prepare: Prepare, name: str) -> None:
    """Delete Optuna's study of this name, if there is one; arguments as for `OptunaCopy`."""
    storage = RDBStorage(url, skip_table_creation=True)
    try:
        prepare(storage.engine)
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


class OptunaCopy:
    """Optuna's study of the same name, filled with our finished trials.

    Args:
        url: the storage.
        prepare: called with Optuna's engine; returns a writer with `known` and `add`.
        name: the study's name.
        objective: which way is better.
        space: what is searched.
    """

    def __init__(self, url: str, prepare: Prepare, name: str, objective: Objective, space: Space) -> None:
        engine_kwargs = {} if url.startswith("sqlite") else {"pool_pre_ping": True}
        storage = RDBStorage(url, engine_kwargs=engine_kwargs, skip_table_creation=True)
        self._tables = prepare(storage.engine)
        self._engine = storage.engine
        self._study = optuna.create_study(
            storage=storage, study_name=name, direction=objective.direction, load_if_exists=True
        )
        self._space = space
        self._distributions = {path: distribution(parameter) for path, parameter in space.parameters.items()}
        self._copied = set()
        for known in self._study.get_trials(deepcopy=False):
            self._copied.add(known.user_attrs.get("tuner.trial"))
            for path, there in known.distributions.items():
                try:
                    check_distribution_compatibility(there, self._distributions.get(path, there))
                except ValueError:  # of another kind, on another scale, other choices: to Optuna another parameter
                    del self._distributions[path]

    def write(self, trials: Iterable[Trial]) -> None:
        """Copy the finished proposals of the search that are not there yet, by number."""
        new = [
            trial
            for trial in sorted(trials, key=lambda t: t.number)
            if trial.state.finished and trial.confirms is None and trial.params is not None
            if trial.number not in self._copied
        ]
        frozen = [self._frozen(trial) for trial in new]
        if self._tables.known:
            self._tables.add(self._study.study_name, [_rows(trial) for trial in frozen])
        else:  # slower by far, and right whatever the tables look like
            for trial in frozen:
                self._study.add_trial(trial)
        self._copied |= {trial.number for trial in new}

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def _frozen(self, trial: Trial) -> FrozenTrial:
        result = trial.outcome
        inside, outside = self._space.divide(trial.params or {})
        params = {path: value for path, value in inside.items() if path in self._distributions}
        infeasible = result.infeasible or (result.state is TrialState.PRUNED and result.value is None)
        state = {
            TrialState.COMPLETE: OptunaState.COMPLETE,
            TrialState.PRUNED: OptunaState.PRUNED,
            TrialState.FAILED: OptunaState.FAIL,
        }[result.state]
        attributes: dict[str, Any] = {"tuner.trial": trial.number, "seed": trial.seed, "epochs": result.epochs}
        if result.reason:
            attributes["reason"] = result.reason
        if aside := outside | {path: value for path, value in inside.items() if path not in params}:
            attributes["params outside Optuna's space"] = aside
        return FrozenTrial(
            number=-1,
            trial_id=-1,
            state=state,
            value=result.value if state is OptunaState.COMPLETE else None,
            datetime_start=_local(trial.started),
            datetime_complete=_local(trial.finished),
            params=params,
            distributions={path: self._distributions[path] for path in params},
            user_attrs=attributes | dict(result.metrics),
            system_attrs={},
            intermediate_values={} if infeasible else dict(trial.values),
        )


def _rows(trial: FrozenTrial) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """A trial as rows of Optuna's tables."""
    row = {
        "state": trial.state.name,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }
    value = {"objective": 0, "value": trial.value, "value_type": "FINITE"}
    return row, {
        "trial_values": [] if trial.value is None else [value],
        "trial_params": [
            {
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ],
        "trial_user_attributes": [
            {"key": name, "value_json": json.dumps(value)} for name, value in trial.user_attrs.items()
        ],
        "trial_intermediate_values": [
            {"step": step, "intermediate_value": number, "intermediate_value_type": word}
            for step, value in trial.intermediate_values.items()
            for number, word in [_number(value)]
        ],
    }


def _number(value: float) -> tuple[float | None, str]:
    """A number as Optuna keeps it: what is not finite has a word instead."""
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Optuna's tables hold UTC without saying so."""
    return None if moment is None else moment.astimezone(dt.UTC).replace(tzinfo=None)


def _local(moment: float | None) -> dt.datetime:
    """Optuna keeps local time without a zone."""
    return dt.datetime.fromtimestamp(moment or 0.0)
