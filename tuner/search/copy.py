"""A copy of every finished trial in Optuna's own tables, so that Optuna's tools (dashboard, CLI, plots) see the study.

The study's own tables are the truth; this copy is written when a trial is finished, and so never holds a trial that
somebody forgot.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tuner.search.search_space import distribution
from tuner.space import Space
from tuner.trial import Objective, Trial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)

Prepare = Callable[[Any], None]
"""Given Optuna's engine, makes it safe to share (the storage room knows how)."""


def create_optuna_tables(url: str) -> None:
    """Create or check Optuna's tables; one process at a time."""
    RDBStorage(url).engine.dispose()


class OptunaCopy:
    """Optuna's study of the same name, filled with our finished trials.

    Args:
        url: the storage.
        prepare: called with Optuna's engine.
        name: the study's name.
        objective: which way is better.
        space: what is searched.
    """

    def __init__(self, url: str, prepare: Prepare, name: str, objective: Objective, space: Space) -> None:
        engine_kwargs = {} if url.startswith("sqlite") else {"pool_pre_ping": True}
        storage = RDBStorage(url, engine_kwargs=engine_kwargs, skip_table_creation=True)
        prepare(storage.engine)
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
        for trial in sorted(trials, key=lambda t: t.number):
            if not trial.state.finished or trial.confirms is not None or trial.params is None:
                continue
            if trial.number not in self._copied:
                self._study.add_trial(self._frozen(trial))
                self._copied.add(trial.number)

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


def _local(moment: float | None) -> dt.datetime:
    """Optuna keeps local time without a zone."""
    return dt.datetime.fromtimestamp(moment or 0.0)
