"""What studies have taught, taken from the storage, and laid over another space (docs/reuse.md)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.best import choose, leading
from tuner.errors import NoBest, Problem, SpecError, TunerError
from tuner.home import Home
from tuner.service.entry import open_storage
from tuner.space import Choice, Parameter, Space, read_space, shipped_spaces
from tuner.space.documented import known
from tuner.space.prior import VERSION, Found, Learnt, Origin, Prior, blended, relative, scale_of
from tuner.space.yaml import in_line, read_yaml
from tuner.storage import Store, StudyRow
from tuner.trial import Trial

LEADERS = 10
"""The leading trials, a third at most, say which values a hyperparameter supports."""


def learn(names: Sequence[str], home: Home, problems: Sequence[Problem] = ()) -> Prior:
    """What stored studies have taught.

    Args:
        names: of the studies.
        home: where they are.
        problems: what is wrong already, to be told with the rest.

    Raises:
        SpecError: one is not there, or has no best; all problems at once.
    """
    problems = list(problems)
    studies: list[Origin] = []
    found: dict[str, Learnt] = {}
    with open_storage(home) as store:
        for name in dict.fromkeys(names):
            try:
                origin, learnt = _learnt(store, store.study(name))
            except TunerError as error:
                problems.append(Problem(name, str(error)))
                continue
            studies.append(origin)
            for path, one in learnt.items():
                earlier = found[path].found if path in found else []
                found[path] = one.model_copy(update={"found": [*earlier, *one.found]})
    if problems:
        raise SpecError("tuner prior export", problems)
    return Prior(tuner_prior=VERSION, studies=studies, hyperparameters=found)


def _learnt(store: Store, row: StudyRow) -> tuple[Origin, dict[str, Learnt]]:
    document = row.document
    objective = row.objective
    trials = store.trials(row.id)
    chosen = choose(trials, objective)
    if chosen is None:
        raise NoBest("has no best yet, so there is nothing to learn from it. Let it run on, or leave it out.")
    space, _ = read_space(dict(document["space"]))
    seeds = [value for _, value in chosen.seeds]
    ended = [trial for trial in trials if trial.confirms is None and trial.state.finished]
    origin = Origin(
        study=row.name,
        model=document["model"]["class_path"],
        data=(document.get("data") or {}).get("class_path"),
        objective=objective.metric,
        direction=objective.direction,
        value=float(f"{statistics.fmean(seeds) if seeds else chosen.trial.score:.6g}"),
        trials=len(ended),
    )
    leaders = leading(trials, objective, max(1, min(LEADERS, len(ended) // 3)))
    params: Mapping[str, Any] = chosen.trial.params or {}
    searched = space.parameters if space else {}
    return origin, {path: _one(path, searched[path], params, leaders, row.name) for path in params if path in searched}


def _one(path: str, parameter: Parameter, params: Mapping[str, Any], leaders: Sequence[Trial], study: str) -> Learnt:
    """What a study has found of one hyperparameter."""
    name, scale = known(path.rpartition(".")[2]), scale_of(parameter)
    default = parameter.default_for(params)
    values = [trial.params[path] for trial in leaders if trial.params and path in trial.params]
    if isinstance(parameter.range, Choice) and scale is None:
        among = [value for value in parameter.range.values if value in values]
    else:
        among = sorted({_rounded(value) for value in values})
        among = [among[0], among[-1]] if len(among) > 1 else among
    found = Found(
        study=study, best=params[path], default=default, relative=relative(params[path], default, scale), among=among
    )
    return Learnt(name=name.name if name else None, scale=scale, found=[found])


def laid_over(prior: Prior, source: str) -> str:
    """A space that begins where studies ended, as a file: the space of that name, or of a space's or a study's file.

    Raises:
        SpecError: there is no such space, or the studies have nothing to say of it.
    """
    document: Any = source
    model = f"tuner.models.{source}"
    if source not in shipped_spaces() and Path(source).is_file():
        document, problems = read_yaml(Path(source).read_bytes())
        if problems:
            raise SpecError(source, problems)
        if isinstance(document, dict) and "space" in document:
            described = document.get("model")
            model = described.get("class_path", "") if isinstance(described, dict) else str(described)
            document = document["space"]
    space, problems = read_space(document)
    if space is None:
        raise SpecError(source, problems)
    suggestions = prior.suggestions(space, _class_of(model, prior))
    values = blended([values for _, values in suggestions], space)
    if not values:
        rule = "the studies of the prior have no hyperparameter in common with it, by path or by documented name."
        raise SpecError(source, [Problem("(the space)", rule)])
    begun = space.starting_at(values).document()
    told = {path: _why(path, prior, space, suggestions) for path in values}
    lines = ["# Begins where these studies ended: " + ", ".join(origin.study for origin, _ in suggestions)]
    indent = ""
    if isinstance(document, str):
        lines += [f"use: {document}", "change:"]
        indent, begun = "  ", {path: begun[path] for path in values}
    for path, parameter in begun.items():
        if path in told:
            parameter = parameter | {"why": "; ".join(filter(None, [parameter.get("why"), told[path]]))}
        lines += [f"{indent}{path}:", *(f"{indent}  {key}: {in_line(value)}" for key, value in parameter.items())]
    return "\n".join(lines) + "\n"


def _class_of(model: str, prior: Prior) -> str:
    """The class that a space belongs to; of a documented space, the one that its name stands for."""
    plain = model.replace("-", "").lower()
    return next((origin.model for origin in prior.studies if origin.model.lower() == plain), model)


def _why(path: str, prior: Prior, space: Space, suggestions: Sequence[tuple[Origin, Mapping[str, Any]]]) -> str:
    """Where a default comes from, in words."""
    told = []
    for origin, values in suggestions:
        if path not in values:
            continue
        on = f" on {origin.data}" if origin.data else ""
        among = _among(path, prior, origin.study)
        told.append(f"{_number(values[path])} by {origin.study} ({origin.model}{on}{among})")
    return f"was {_number(space.parameters[path].default)}, begins with {' and '.join(told)}"


def _among(path: str, prior: Prior, study: str) -> str:
    learnt = prior.hyperparameters.get(path)
    values = [found.among for found in learnt.found if found.study == study and len(found.among) > 1] if learnt else []
    if not values:
        return ""
    between = " … " if learnt and learnt.scale else ", "
    return f"; its leaders: {between.join(map(_number, values[0]))}"


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def summary(prior: Prior) -> list[str]:
    """What a prior says, in lines."""
    lines = ["studies:"]
    for origin in prior.studies:
        on = f" on {origin.data}" if origin.data else ""
        lines.append(
            f"  {origin.study}: {origin.model}{on}, {origin.trials} trials, {origin.objective} {origin.value:.6g}"
        )
    lines.append("their bests:")
    width = max(map(len, prior.hyperparameters), default=0)
    for path, learnt in prior.hyperparameters.items():
        bests = ", ".join(f"{_number(one.best)} (from {_number(one.default)})" for one in learnt.found)
        lines.append(f"  {path:<{width}}  {bests}")
    return lines
