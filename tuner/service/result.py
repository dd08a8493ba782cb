"""How a study stands: counts, cost, best. Reads the storage only, so it costs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.best import Best, Chosen, choose
from tuner.errors import NoBest
from tuner.home import Home, shown
from tuner.spec import FUNCTION, StudySpec
from tuner.spec.function import plain
from tuner.storage import Store
from tuner.trial import Objective, Trial, TrialState


@dataclass(frozen=True)
class StudyResult:
    """A study as it stands.

    Attributes:
        study: its name.
        state: running, stopped, interrupted, complete or failed.
        trials: proposals of the search by state: complete, pruned, failed, running.
        best: the best trial, or None while none has succeeded.
        chosen: the best trial with its confirming runs as the storage has them.
        cost: `epochs` trained, `seconds` of training, and `wasted_seconds` of them in trials that came to nothing.
        reason: why it failed, in words.
        tracking_uri: where MLflow keeps it.
        storage: where its trials are, without the password.
    """

    study: str
    state: str
    trials: Mapping[str, int]
    best: Best | None
    chosen: Chosen | None
    cost: Mapping[str, float]
    reason: str | None
    tracking_uri: str
    storage: str

    def to_json(self) -> dict[str, Any]:
        """The result as `tuner run --json` prints it."""
        best = None
        if self.best is not None:
            best = {
                "trial": self.best.trial,
                "value": self.best.value,
                "params": dict(self.best.params),
                "config": self.best.config,
                "metrics": dict(self.best.metrics),
                "seeds": [{"seed": seed, "value": value} for seed, value in self.best.seeds],
            }
        return {
            "study": self.study,
            "state": self.state,
            "trials": dict(self.trials),
            "best": best,
            "cost": dict(self.cost),
            "tracking_uri": self.tracking_uri,
            "storage": self.storage,
        }


def result_of(store: Store, name: str, home: Home, trials: list[Trial] | None = None) -> StudyResult:
    """Read how the study of this name stands; `trials` saves reading them again.

    Raises:
        StudyNotFound: there is no such study.
    """
    row = store.study(name)
    summary = store.summary(row.id)
    objective = row.objective
    chosen = choose(store.trials(row.id) if trials is None else trials, objective)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING)
    return StudyResult(
        study=name,
        state=row.state,
        trials={state.value: summary.count(state) for state in states},
        best=_best(name, chosen, objective, home, row.document["search"]["training"] == FUNCTION) if chosen else None,
        chosen=chosen,
        cost={
            "epochs": summary.epochs,
            "seconds": round(summary.seconds, 3),
            "wasted_seconds": round(summary.wasted_seconds, 3),
        },
        reason=row.reason,
        tracking_uri=shown(home.tracking),
        storage=shown(home.storage),
    )


def searching(spec: StudySpec, trials: int) -> str:
    """In words, what proposes configurations, and which priorities it moves after so many finished trials."""
    if spec.sampler.name != "priority":
        return str(spec.sampler)
    from tuner.search import open_priorities  # with Optuna, which those who only read results need not load

    return open_priorities(spec.searched.priorities, list(spec.searched.parameters), trials)


def best_of(store: Store, name: str, home: Home) -> Best:
    """The best of a study.

    Raises:
        StudyNotFound: there is no such study.
        NoBest: none of its trials has succeeded.
    """
    result = result_of(store, name, home)
    if result.best is None:
        counts = ", ".join(f"{count} {state}" for state, count in result.trials.items())
        raise NoBest(
            f"study {name!r} has no best yet: {counts}. {result.reason or 'Let it run on: tuner resume ' + name + '.'}"
        )
    return result.best


def _best(name: str, chosen: Chosen, objective: Objective, home: Home, is_function: bool) -> Best:
    trial = chosen.trial
    params = trial.params or {}
    return Best(
        study=name,
        trial=trial.number,
        value=trial.score,
        params=plain(params) if is_function else params,
        metrics=trial.outcome.metrics,
        seeds=chosen.seeds,
        checkpoint=None if is_function else home.checkpoints(name) / f"trial-{trial.number:04d}.ckpt",
        _config=trial.outcome.config or {},
        objective=objective,
        epoch=trial.outcome.best_epoch,
        is_function=is_function,
    )
