"""A study file for somebody's own module: what its signature tells, as a first draft to be read and changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import yaml

from tuner.errors import Problem, SpecError
from tuner.space import Choice, read_space, shipped_spaces
from tuner.space.documented import Argument, known, propose
from tuner.space.yaml import in_line, read_yaml
from tuner.spec import read_study
from tuner.training import import_class, inspect
from tuner.training.arguments import Logged, arguments, logged
from tuner.training.check import Signature

EPOCHS, TRIALS = 20, 50
_NEVER = frozenset({"self", "args", "kwargs"})
_HIGHER = re.compile(r"acc|f1|auc|auroc|precision|recall|iou|dice|map|r2|bleu|rouge|psnr|ssim|score|kappa|mcc|top_?\d")


@dataclass(frozen=True)
class Drafted:
    """A study file that was drafted.

    Attributes:
        text: the file.
        searched: the paths that its space searches.
        problems: what only its owner can say before it runs.
        notes: what was guessed and should be looked at.
    """

    text: str
    searched: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """`model` or `data`: its class, what of it is searched, what is not, and what must be given."""

    name: str
    class_path: str
    searched: Mapping[str, dict[str, Any]]
    left: Sequence[tuple[Argument, str]]

    @property
    def needed(self) -> list[Argument]:
        """The arguments that somebody must give."""
        return [argument for argument, _ in self.left if argument.required]


def draft(
    model: str,
    data: str | None = None,
    name: str | None = None,
    to: str = "study.yaml",
    problems: Sequence[Problem] = (),
) -> Drafted:
    """Draft a study for a LightningModule and a LightningDataModule.

    Args:
        model: `package.module:Class` or `package.module.Class`.
        data: the same; None where the module has its own data loaders.
        name: of the study; by default the module's class.
        to: what the file will be called, for its comments.
        problems: what is wrong already, to be told with the rest.

    Raises:
        SpecError: a class cannot be imported, or is no such class; all problems at once.
    """
    problems = list(problems)
    owners: dict[str, type] = {}
    paths = {"model": model} | ({"data": data} if data is not None else {})
    for part, given in paths.items():
        base = L.LightningModule if part == "model" else L.LightningDataModule
        at = "MODULE:CLASS" if part == "model" else "--data"
        if given.endswith(".py") or "/" in given or ".py:" in given:
            guess = re.sub(r"\.py(?=:|$)", "", given.removeprefix("./")).replace("/", ".")
            problems.append(Problem(at, f"must be a module's name, not a file's, but got {given!r}. Try {guess}"))
            continue
        owner, wrong = import_class(given.replace(":", ".", 1), base, at)
        problems += wrong
        if owner is not None:
            owners[part], paths[part] = owner, given.replace(":", ".", 1)
    if problems:
        raise SpecError("tuner init", problems)
    parts = [_part(part, paths[part] or "", owner) for part, owner in owners.items()]
    text, notes = _text(parts, logged(owners["model"]), name or _study_name(owners["model"]), to)
    searched = {path: parameter["priority"] for part in parts for path, parameter in part.searched.items()}
    return Drafted(
        text, tuple(sorted(searched, key=lambda path: searched[path])), tuple(_problems(text, parts)), tuple(notes)
    )


def _part(name: str, class_path: str, owner: type) -> _Part:
    searched: dict[str, dict[str, Any]] = {}
    left: list[tuple[Argument, str]] = []
    signature = Signature(owner)
    for argument in arguments(owner):
        if argument.name in _NEVER:
            continue
        path = f"{name}.{argument.name}"
        parameter = propose(argument)
        if parameter is None:
            left.append((argument, _why_not(argument)))
        elif refused := _refused(parameter, signature, path, argument.name):
            left.append((argument, refused))
        else:
            searched[path] = parameter
    return _Part(name, class_path, searched, left)


def _refused(parameter: dict[str, Any], signature: Signature, path: str, name: str) -> str:
    """Why a class does not take a proposed range, or ""."""
    space, problems = read_space({path: parameter})
    if space is not None:
        ranged = space.parameters[path].range
        ends = ranged.values if isinstance(ranged, Choice) else [ranged.low, ranged.high]
        problems = [problem for value in ends for problem in signature.check(name, value, path)]
    return problems[0].message if problems else ""


def _why_not(argument: Argument) -> str:
    """Why an argument is not searched, where there is more to say than that it is not known."""
    if argument.name.lower() in ("betas", "adam_betas"):
        return "a pair; to search it, give the class two arguments, beta1 and beta2"
    if known(argument.name) is not None and argument.default is None:
        return "null by default, so nothing tells where to search"
    if known(argument.name) is not None and not argument.words and isinstance(argument.default, str):
        return "its type lists no words; make it a Literal, or write a choice into the space"
    return ""


def _study_name(owner: type) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_", "-", owner.__name__).lower().strip("-")


def _text(parts: Sequence[_Part], metrics: Sequence[Logged], name: str, to: str) -> tuple[str, list[str]]:
    notes = [
        f"space: there is a documented one for this class: space: {shipped}"
        for shipped in shipped_spaces()
        if parts[0].class_path == f"tuner.models.{parts[0].class_path.rpartition('.')[2]}"
        and shipped.replace("-", "") == parts[0].class_path.rpartition(".")[2].lower()
    ]
    searched = {path: parameter for part in parts for path, parameter in part.searched.items()}
    file = to if to != "-" else "study.yaml"
    lines = [
        f"# A first draft of a study for {parts[0].class_path}, from its signature.",
        "# Read it through, and change what you know better. Then",
        f"#   tuner run {file} --trials 0    checks it",
        f"#   tuner run {file}               runs it",
        f"study: {name}",
        "",
    ]
    for part in parts:
        lines += [*_described(part), ""]
    if len(parts) == 1:
        lines[-1:] = ["# data: {class_path: package.module.Class}   # if the module has no data loaders of its own", ""]
    lines += [
        f"trainer: {{max_epochs: {EPOCHS}}}   # Lightning's Trainer arguments; is that enough for a good trial?",
        "",
    ]
    lines += ["seed_everything: 0", "", *_objective(metrics, notes), ""]
    lines += ["# Priority 1 is searched first; docs/study-file.md has the grammar."]
    if searched:
        ranked = dict(sorted(searched.items(), key=lambda item: item[1]["priority"]))
        for path, parameter in ranked.items():
            lines += ["space:"] * (path == next(iter(ranked))) + [f"  {path}:"]
            lines += [*(f"    {key}: {in_line(value)}" for key, value in parameter.items()), ""]
    else:
        lines += ["# No argument has a name that is known, so nothing is searched yet. Write some in, such as:"]
        lines += ["#   model.ARGUMENT: {float: {low: 1.0e-4, high: 0.1, scale: log}, priority: 1}", "space: {}", ""]
        notes.append("space: no argument has a name that is known; write into it what is to be searched.")
    lines += [f"search: {{trials: {TRIALS}}}"]
    return "\n".join(lines) + "\n", notes


def _described(part: _Part) -> list[str]:
    """One class of the file, and what of it is not searched, as comments."""
    lines = [f"{part.name}:", f"  class_path: {part.class_path}"]
    if part.needed:
        lines += ["  # NEEDED: these have no default. Give each a value, and take the '#' away:", "  # init_args:"]
        lines += [f"  #   {line}" for line in _listed([(a, why) for a, why in part.left if a.required])]
    left = [(argument, why) for argument, why in part.left if not argument.required]
    if left:
        lines += ["  # Not searched. Fix one by `init_args: {NAME: VALUE}`, or write it into the space:"]
        lines += [f"  #   {line}" for line in _listed(left)]
    return lines


def _listed(left: Sequence[tuple[Argument, str]]) -> list[str]:
    """Arguments that are not searched, a line each: value, type, and what is told of it."""
    lines = []
    for argument, why in left:
        value = "…" if argument.required else _value(argument.default)
        kind = argument.type or ("" if argument.required else type(argument.default).__name__)
        told = "; ".join(text for text in (kind, argument.what, why) if text)
        lines.append(f"{argument.name}: {value}" + (f"   # {told}" if told else ""))
    return lines


def _value(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        return in_line(value)
    except yaml.YAMLError:  # no plain value
        return f"a {type(value).__name__}"


def _objective(metrics: Sequence[Logged], notes: list[str]) -> list[str]:
    """The metric to optimise: a loss that is logged on validation, else whatever is."""
    names = sorted({metric.name for metric in metrics if metric.on_validation}, key=_preference)
    if not names:
        trained = ", ".join(metric.name for metric in metrics)
        notes.append("objective.metric: val_loss is a guess; name the metric that the module logs on validation.")
        told = f" (it logs {trained})" if trained else ""
        return [
            f"# A guess: the source does not tell what is logged on validation{told}. Name a metric that is.",
            "objective: {metric: val_loss, direction: minimize}",
        ]
    first, *others = names
    also = f"; so are: {', '.join(others)}" if others else ""
    direction = "maximize" if _is_higher(first) else "minimize"
    return [f"objective: {{metric: {in_line(first)}, direction: {direction}}}   # logged on validation{also}"]


def _is_higher(metric: str) -> bool:
    return "loss" not in metric.lower() and "err" not in metric.lower() and bool(_HIGHER.search(metric.lower()))


def _preference(metric: str) -> tuple[int, int, str]:
    plain = metric.lower()
    kind = 0 if plain in ("val_loss", "val/loss", "valid_loss", "validation_loss") else 1 if "loss" in plain else 2
    return kind, 0 if _is_higher(metric) or re.search(r"err|mse|mae|nll", plain) else 1, metric


def _problems(text: str, parts: Sequence[_Part]) -> list[Problem]:
    """What the check of the draft finds: the arguments that must be given, and what building the classes shows."""
    needed = [
        Problem(f"{part.name}.init_args.{argument.name}", "has no default. Give it a value; the file says where.")
        for part in parts
        for argument in part.needed
    ]
    if needed:
        return needed
    document, problems = read_yaml(text)
    if problems:
        return problems
    try:
        read_study(document, inspect=inspect)
    except SpecError as error:
        return list(error.problems)
    return []
