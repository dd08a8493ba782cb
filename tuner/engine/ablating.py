"""Run an ablation on this machine: its runs are planted in the storage, trained as any study's, and compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.engine.crew import Crew
from tuner.engine.local import Watch, inspect_here, run_crew, run_here
from tuner.engine.submission import entered
from tuner.home import Home, silence_telemetry
from tuner.insight import Ablation
from tuner.service.ablating import ablation_of, attach, drawn, plan_ablation

log = logging.getLogger("tuner")

PICTURE = "ablation.svg"


@dataclass(frozen=True)
class Ablated:
    """An ablation that has been run.

    Attributes:
        ablation: what it taught.
        picture: the learning curves, an SVG.
        base: in words, what everything else was fixed at.
    """

    ablation: Ablation
    picture: str
    base: str


def ablate(
    study: str | Path | Mapping[str, Any],
    over: str,
    seeds: int,
    *,
    overrides: Sequence[tuple[str, Any]] = (),
    workers: int = 1,
    home: Home | None = None,
    watch: Watch = lambda *_: None,
) -> Ablated:
    """Train every value of a choice with the same seeds, everything else fixed, and compare them.

    Asked again it goes on where it stopped; with more seeds, only the new ones are trained.

    Args:
        study: a stored study, fixed at its best; else a study file, a shipped example or a document, at its defaults.
        over: the choice, such as `model.norm=none,batch,layer`.
        seeds: runs of each value.
        overrides: values that replace what the study says, by path; `study` names the ablation.
        workers: processes that train; 0 trains in this process.
        home: where things live; by default as the environment says.
        watch: called now and then while it runs.

    Raises:
        SpecError, StudyChanged, StudyNotFound, NoBest: nothing has run.
        StudyStopped: it cannot go on.
        KeyboardInterrupt: interrupted; the state is saved.
    """
    silence_telemetry()
    home = home or Home.from_environment()
    plan = plan_ablation(study, over, seeds, home, overrides)
    crew = Crew(home) if workers else None
    with entered(plan.document, (), crew.inspect if crew else inspect_here, home, resume=False) as (spec, store):
        row = store.study(spec.study)
        store.plant(row.id, plan.runs)
        if crew is None:
            run_here(spec, store, home)
        else:
            run_crew(spec, store, home, crew, workers, watch)
        row = store.study(spec.study)
        ablation = ablation_of(store, row, plan)
        picture = drawn(store, row, ablation)
        if (why := attach(row, home, {PICTURE: picture})) is not None:
            log.warning("the picture is not in MLflow: %s", why)
    return Ablated(ablation, picture, plan.base)
