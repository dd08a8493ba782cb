"""The next study's file: the space moved and narrowed as the diagnosis advises, begun with this study's best."""

from __future__ import annotations

import copy
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.insight.finding import Diagnosis
from tuner.insight.remedies import narrower, told
from tuner.insight.subject import Subject
from tuner.space import read_space, removed_values, without_values
from tuner.space.yaml import write_yaml
from tuner.spec import StudySpec, place
from tuner.trial import Trial

WIDTH = 110


@dataclass
class Draft:
    """A follow-up in the making.

    Attributes:
        document: the study file but for its space.
        space: the parameters by path, as they are written.
        reasons: by path, what was changed and why.
    """

    document: dict[str, Any]
    space: dict[str, Any]
    reasons: dict[str, str] = field(default_factory=dict)


def follow_up(
    spec: StudySpec,
    diagnosis: Diagnosis,
    trials: Sequence[Trial],
    name: str,
    without: Collection[str] = (),
) -> str:
    """Write the study file that follows a diagnosis, with its reasons as comments.

    Args:
        spec: the study that was diagnosed.
        diagnosis: of the study.
        trials: all its trials.
        name: of the next study.
        without: paths that are to stay as they were.
    """
    best = next(t for t in trials if t.number == diagnosis.trial)
    subject = Subject(spec, best)
    draft = Draft(_base(spec, name), dict(spec.searched.document()))
    for advice in diagnosis.advice:
        if advice.hyperparameter in without:
            continue
        why = f"{advice.change}: {advice.reason}"
        if advice.parameter is not None:
            _search(draft, advice.hyperparameter, advice.parameter, why)
        else:
            _fix(draft, {advice.hyperparameter: advice.value}, why)
    _narrow(draft, subject, trials, without)
    _fix_idle(draft, diagnosis, subject, without)
    if best.value is not None:
        draft.document["search"]["start"] = [spec.study]
        draft.reasons["search.start"] = f"the best of {spec.study}, trial {best.number}, is tried first"
    return _written(draft, diagnosis)


def next_name(name: str, taken: Collection[str]) -> str:
    """digits, digits-2, digits-3, …: the next that is not taken."""
    match = re.fullmatch(r"(.+)-(\d+)", name)
    stem, number = (match[1], int(match[2])) if match else (name, 1)
    while f"{stem}-{number + 1}" in taken:
        number += 1
    return f"{stem}-{number + 1}"


def _base(spec: StudySpec, name: str) -> dict[str, Any]:
    """The study file without its space, and without what only repeats defaults."""
    whole = spec.document()
    search = spec.search.model_dump(mode="json", exclude_defaults=True, exclude={"start"})
    kept = {key: copy.deepcopy(whole[key]) for key in ("model", "data", "trainer") if whole.get(key)}
    for part in ("model", "data"):
        if part in kept and not kept[part].get("init_args"):
            kept[part].pop("init_args", None)
    return {
        "study": name,
        **kept,
        "seed_everything": whole["seed_everything"],
        "objective": whole["objective"],
        "search": {"trials": spec.search.trials, **search},
    }


def _search(draft: Draft, path: str, parameter: Mapping[str, Any], why: str) -> None:
    """Search a parameter so; what another one had under values that are gone is gone, too."""
    before = draft.space.get(path)
    draft.space[path] = {**(before or {}), **parameter}
    if before is not None and _kinds(parameter) and _kinds(parameter) != _kinds(before):
        draft.space[path] = {k: v for k, v in draft.space[path].items() if k not in _kinds(before) - _kinds(parameter)}
    else:
        draft.space = without_values(draft.space, path, removed_values(before, draft.space[path]))
    _unfix(draft.document, path)
    draft.reasons[path] = why


def _fix(draft: Draft, values: Mapping[str, Any], why: str) -> None:
    """Search parameters no longer, or set something that is not searched."""
    searched = {path: value for path, value in values.items() if path in draft.space}
    if searched:
        space, _ = read_space(draft.space)
        if space is None:
            return
        draft.space = space.without(searched).document()
    for path, value in values.items():
        place(draft.document, path, value)
        draft.reasons[path] = why


def _narrow(draft: Draft, subject: Subject, trials: Sequence[Trial], without: Collection[str]) -> None:
    """Narrow what no advice is about to where the best trials lie."""
    for advice in narrower(subject, trials):
        path = advice.hyperparameter
        if path in draft.space and path not in draft.reasons and path not in without and advice.parameter is not None:
            _search(draft, path, advice.parameter, f"{advice.change}: {advice.reason}")


def _fix_idle(draft: Draft, diagnosis: Diagnosis, subject: Subject, without: Collection[str]) -> None:
    """Fix at the best's value what did not matter."""
    for path in diagnosis.idle:
        if path in draft.space and path in subject.params and path not in draft.reasons and path not in without:
            value = subject.params[path]
            _fix(draft, {path: value}, f"fixed at {told(value)}, which the best has, since it did not matter")


def _unfix(document_: dict[str, Any], path: str) -> None:
    """Take a value out of the study file that is searched now."""
    root, _, rest = path.partition(".")
    node = document_.get(root, {})
    for arguments in (node, node.get("init_args", {})):
        if isinstance(arguments, dict):
            arguments.pop(rest, None)


def _kinds(parameter: Mapping[str, Any] | None) -> set[str]:
    return {"float", "int", "choice"} & set(parameter or ())


def _written(draft: Draft, diagnosis: Diagnosis) -> str:
    """The file: sections in the order of every study file, the reasons above what they are about."""
    lines = [
        f"# The study after {diagnosis.study}, as `tuner diagnose {diagnosis.study} --next` wrote it.",
        *_comment(diagnosis.headline),
        *(line for e in diagnosis.evidence[1:] for line in _comment(e.says)),
        *(line for warning in diagnosis.warnings for line in _comment(warning)),
    ]
    order = ("study", "model", "data", "trainer", "seed_everything", "objective", "space", "search")
    for section in order:
        if section == "space":
            lines.append("space:")
            for path, given in draft.space.items():
                parameter = {heading: value for heading, value in given.items() if value not in ({}, "")}
                lines += [f"  {line}" for line in _comment(draft.reasons.get(path, ""))]
                lines += [f"  {line}" for line in write_yaml({path: parameter}, short=True).splitlines()]
            continue
        if section not in draft.document:
            continue
        for path, why in draft.reasons.items():
            if path.partition(".")[0] == section and path not in draft.space:
                lines += _comment(f"{path.partition('.')[2]}: {why}")
        whole = draft.document[section]
        lines += write_yaml({section: whole}, short=isinstance(whole, dict)).splitlines()
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]
