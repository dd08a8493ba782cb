"""An ablation as a study of its own: one choice, the same seeds for each of its values, everything else fixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.best import choose
from tuner.errors import NoBest, Problem, SpecError, StudyNotFound, TrackingUnavailable
from tuner.home import Home
from tuner.insight import Ablation, compare, draw
from tuner.service.entry import open_storage
from tuner.space import Parameter, Space, short
from tuner.space.space import ROOTS
from tuner.space.yaml import read_yaml
from tuner.spec import place, read_study
from tuner.storage import Store, StudyRow
from tuner.trial import trial_seed

LEAST_VALUES = 2


@dataclass(frozen=True)
class Plan:
    """What an ablation is going to run.

    Attributes:
        document: its study file.
        over: the path of the choice.
        values: its values.
        runs: the searched values and the seed of each run.
        base: in words, what everything else is fixed at.
    """

    document: dict[str, Any]
    over: str
    values: tuple[Any, ...]
    runs: tuple[tuple[dict[str, Any], int], ...]
    base: str


def read_over(text: str) -> tuple[str, list[Any]]:
    """Read `model.norm=none,batch,layer`: a path, and YAML values.

    Raises:
        SpecError: it is something else, with all its problems.
    """
    path, equals, told = text.partition("=")
    path = short(path.strip())
    values, problems = read_yaml(f"[{told}]", f"--over {path}")
    root, _, rest = path.partition(".")
    if not equals or root not in ROOTS or not rest:
        rule = f"must be PATH=V1,V2 with a path below {', '.join(ROOTS)}, such as model.norm=none,batch,layer."
        problems = [Problem(text, rule)]
    elif not problems and any(isinstance(value, list | dict) for value in values):
        problems = [Problem(f"--over {path}", f"values must be words or numbers, but got {told}.")]
    elif not problems and len({(type(v), v) for v in values}) < LEAST_VALUES:
        problems = [Problem(f"--over {path}", f"must have two different values at least, but got {told or 'none'}.")]
    if problems:
        raise SpecError("--over", problems)
    return path, values


def plan_ablation(
    study: str | Path | Mapping[str, Any],
    over: str,
    seeds: int,
    home: Home,
    overrides: Sequence[tuple[str, Any]] = (),
) -> Plan:
    """Plan an ablation.

    Args:
        study: a stored study, which is fixed at its best; else a study file, a shipped example or a document, which is
            fixed at the defaults of its space.
        over: the choice, such as `model.norm=none,batch,layer`.
        seeds: how many runs each value gets.
        home: where the storage is.
        overrides: values that replace what the study says, by path; `study` names the ablation.

    Raises:
        SpecError: the choice or the study has problems.
        StudyNotFound: there is no such study or file.
        NoBest: the stored study has no best yet.
    """
    path, values = read_over(over)
    name = next((value for key, value in overrides if key == "study"), None)
    others = [(key, value) for key, value in overrides if key != "study"]
    row, best, base = _stored(study, home)
    spec = read_study(row.document if row is not None else study, others, stored=row is not None)
    set_here = {short(key) for key, _ in others}
    space = _with_choice(spec.searched, path, values)
    start = {p: v for p, v in best.items() if p != path and p not in set_here}
    space = space.starting_at(space.divide(start)[0])
    completed = [space.complete({path: value}) for value in values]
    absent = object()
    fixed = {
        p: completed[0][p]
        for p in space.parameters
        if p in completed[0] and all(c.get(p, absent) == completed[0][p] for c in completed) and p != path
    }
    left = space.without(fixed)
    document = copy.deepcopy(spec.document())
    for p, value in fixed.items():
        place(document, p, value)
    document |= {
        "study": name or f"{spec.study}-{path.rpartition('.')[2]}",
        "space": left.document(),
        "search": {
            **document["search"],
            "sampler": "random",
            "pruner": "none",
            "patience": None,
            "confirm": 0,
            "start": [],
            "trials": len(values) * seeds,
            "epochs": None,
            "time": None,
            "trial_time": None,
        },
    }
    seeded = [trial_seed(spec.seed_everything, -1001 - number) for number in range(seeds)]
    # Seed by seed, so that those that are trained together are compared with each other.
    params = [{p: v for p, v in c.items() if p in left.parameters} for c in completed]
    runs = tuple((one, seed) for seed in seeded for one in params)
    return Plan(document, path, tuple(values), runs, base or f"the defaults of {spec.study}")


def ablation_of(store: Store, row: StudyRow, plan: Plan) -> Ablation:
    """What the runs of an ablation say."""
    return compare(row.name, plan.over, plan.values, row.objective, store.trials(row.id))


def drawn(store: Store, row: StudyRow, ablation: Ablation) -> str:
    """The learning curves as an SVG."""
    return draw(ablation, store.curves(row.id))


def attach(row: StudyRow, home: Home, files: Mapping[str, str]) -> str | None:
    """Log texts as artifacts of the study's run in MLflow; in words, why not."""
    from tuner.tracking.attachments import attach_to

    run = row.tracked.get("run_id")
    if run is None:
        return "MLflow has not seen the study"
    try:
        attach_to(home.tracking, home.artifacts, run, files)
    except TrackingUnavailable as error:
        return str(error)
    return None


def _stored(study: str | Path | Mapping[str, Any], home: Home) -> tuple[StudyRow | None, dict[str, Any], str]:
    """The stored study of this name, the values of its best, and that in words; nothing if there is no such study."""
    if not isinstance(study, str) or Path(study).is_file():
        return None, {}, ""
    try:
        with open_storage(home) as store:
            row = store.find(study)
            chosen = None if row is None else choose(store.trials(row.id), row.objective)
    except StudyNotFound:  # there is no storage yet
        return None, {}, ""
    if row is None:
        return None, {}, ""
    if chosen is None:
        raise NoBest(f"study {study!r} has no best yet, so there is nothing to fix the rest at. Let it run on.")
    return row, dict(chosen.trial.params or {}), f"the best of {study} (trial {chosen.trial.number})"


def _with_choice(space: Space, path: str, values: Sequence[Any]) -> Space:
    """The space with the choice in the place of what it had there, first of all and without conditions."""
    known = space.parameters.get(path)
    given: dict[str, Any] = {"choice": {"values": list(values)}, "priority": 1}
    given |= {"what": known.what} if known is not None and known.what else {}
    try:
        choice = Parameter.model_validate(given)
    except ValueError as error:
        raise SpecError("--over", [Problem(f"--over {path}", str(error))]) from error
    parameters = {path: choice} | {p: q for p, q in space.parameters.items() if p != path}
    return Space(parameters, space.stated | {path})
