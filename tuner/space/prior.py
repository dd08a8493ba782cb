"""What studies have taught, as a file that goes from project to project: each hyperparameter's bests.

A value found for the same class is taken as it is. For another class the hyperparameter is found by its documented name
(`lr` is `learning_rate`), and what counts is how far the best lay from the default, on its scale; half of that, because
another class is another network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tuner.errors import Problem, SpecError
from tuner.space.documented import known
from tuner.space.grammar import Choice, IntRange, Parameter, Scalar, Strict
from tuner.space.problems import problems_of
from tuner.space.space import Space
from tuner.space.yaml import in_line, read_yaml

KEY, VERSION = "tuner_prior", 1


class Origin(Strict):
    """A study that something was learnt from.

    Attributes:
        study: its name.
        model: the class that was tuned.
        data: the class of its data, or None.
        objective: what was optimised.
        direction: which way is better.
        value: of its best: the mean over the confirming seeds, where there are any.
        trials: how many have ended.
    """

    study: str
    model: str
    data: str | None = None
    objective: str
    direction: Literal["minimize", "maximize"]
    value: float = Field(allow_inf_nan=False)
    trials: int = Field(ge=1)


class Found(Strict):
    """What one study has found of one hyperparameter.

    Attributes:
        study: which.
        best: the value of its best trial.
        default: where its space began.
        relative: how far the best lies from the default on its scale: their ratio (of 1 - x for `log_complement`), or
            their difference for `linear`; None for words.
        among: the values of its leading trials: the lowest and the highest, or the words.
    """

    study: str
    best: Scalar
    default: Scalar = None
    relative: float | None = Field(None, allow_inf_nan=False)
    among: list[Scalar] = Field(default_factory=list)


class Learnt(Strict):
    """What is known of one hyperparameter.

    Attributes:
        name: its documented name, if it has one.
        scale: on which it was searched; None for words.
        found: by study.
    """

    name: str | None = None
    scale: Literal["linear", "log", "log_complement"] | None = None
    found: list[Found] = Field(min_length=1)


class Prior(Strict):
    """What studies have taught, by config path."""

    tuner_prior: int
    studies: list[Origin] = Field(min_length=1)
    hyperparameters: dict[str, Learnt]

    def text(self) -> str:
        """The file, to be read by people, too."""
        lines = [
            "# What studies have taught, from `tuner prior export`. Begin another with it:",
            "#   space: {use: mlp, from: prior.yaml}, or search: {start: [prior.yaml]}",
            f"{KEY}: {self.tuner_prior}",
            "studies:",
            *(f"- {in_line(origin.model_dump(exclude_defaults=True))}" for origin in self.studies),
            "",
            "hyperparameters:" + ("" if self.hyperparameters else " {}"),
        ]
        for path, learnt in self.hyperparameters.items():
            lines += [f"  {path}:"]
            lines += [f"    {key}: {value}" for key, value in (("name", learnt.name), ("scale", learnt.scale)) if value]
            lines += ["    found:"]
            lines += [f"    - {in_line(found.model_dump(exclude_defaults=True))}" for found in learnt.found]
        return "\n".join(lines) + "\n"

    def suggestions(self, space: Space, model: str) -> list[tuple[Origin, dict[str, Any]]]:
        """What each study suggests for a space, by path: values that it can take, those of the best studies first.

        Args:
            space: of another study.
            model: its class.
        """
        made = [(origin, self._suggestion(origin, space, model)) for origin in self.studies]
        made = [(origin, values) for origin, values in made if values]
        return sorted(made, key=lambda pair: pair[0].model != model)  # of the same class first

    def _suggestion(self, origin: Origin, space: Space, model: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for path, parameter in space.parameters.items():
            learnt, found = self._about(path, origin.study)
            if learnt is None or found is None:
                continue
            value = found.best if origin.model == model else carried(found, learnt.scale, parameter)
            if (fitting := _fitted(value, parameter)) is not None:
                values[path] = fitting
        return values

    def _about(self, path: str, study: str) -> tuple[Learnt | None, Found | None]:
        """What a study has found at a path, or else under the same documented name in the same part of its config."""
        name = known(path.rpartition(".")[2])
        named = [
            learnt
            for at, learnt in self.hyperparameters.items()
            if at == path or (name is not None and learnt.name == name.name)
        ]
        named.sort(key=lambda learnt: learnt is not self.hyperparameters.get(path))
        for learnt in named:
            for found in learnt.found:
                if found.study == study:
                    return learnt, found
        return None, None


def relative(best: Any, default: Any, scale: str | None) -> float | None:
    """How far a best lies from a default, on a scale."""
    if scale is None or best is None or default is None:
        return None
    if scale == "linear":
        return float(f"{best - default:.4g}")
    best, default = (1 - best, 1 - default) if scale == "log_complement" else (best, default)
    return float(f"{best / default:.4g}") if default and best / default > 0 else None


def scale_of(parameter: Parameter) -> Literal["linear", "log", "log_complement"] | None:
    """The scale on which a parameter is compared; None for words."""
    values = parameter.range
    if isinstance(values, Choice):
        return "log" if values.ordered and all(isinstance(v, int | float) and v > 0 for v in values.values) else None
    return values.scale


def carried(found: Found, scale: str | None, parameter: Parameter) -> Any:
    """What a best of another class says here: from this default half as far as it lay from its own, on its scale."""
    own = parameter.default
    if found.relative is None or not isinstance(own, int | float) or isinstance(own, bool):
        return found.best
    if scale == "linear":
        return own + found.relative / 2
    if scale == "log_complement":
        return 1 - (1 - own) * math.sqrt(found.relative)
    return own * math.sqrt(found.relative)


def _fitted(value: Any, parameter: Parameter) -> Any:
    """The value, or the nearest that the parameter can take; None if there is none."""
    values = parameter.range
    is_number = _is_number(value)
    if isinstance(values, Choice):
        if values.contains(value):
            return next(own for own in values.values if own == value and _is_number(own) is is_number)
        if not (is_number and values.ordered):
            return None
        return min(values.values, key=lambda v: abs(math.log((float(v or 0) + 1e-12) / (float(value) + 1e-12))))
    if not is_number:
        return None
    inside = min(max(value, values.low), values.high)
    if isinstance(values, IntRange):
        return values.from_unit(values.to_unit(inside))
    return float(inside)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def blended(suggestions: Sequence[Mapping[str, Any]], space: Space) -> dict[str, Any]:
    """One value for each parameter that studies have suggested something for: the median, or the most frequent word."""
    made: dict[str, Any] = {}
    for path, parameter in space.parameters.items():
        values = [suggestion[path] for suggestion in suggestions if path in suggestion]
        if not values:
            continue
        ranged = parameter.range
        if isinstance(ranged, Choice) and not ranged.ordered:
            made[path] = Counter(values).most_common(1)[0][0]
        else:
            made[path] = sorted(values)[(len(values) - 1) // 2]
    return made


def is_prior(document: Any) -> bool:
    """Whether a document says of itself that it is a prior."""
    return isinstance(document, Mapping) and KEY in document


def read_prior(source: str, document: Any = None) -> Prior:
    """Read a prior and check it whole.

    Args:
        source: its file.
        document: what it holds, if that has been read already.

    Raises:
        SpecError: it has problems; the error carries all of them.
    """
    problems: list[Problem] = []
    if document is None:
        path = Path(source)
        if not path.is_file():
            rule = "must be a file of `tuner prior export`, but there is none."
            raise SpecError(source, [Problem("(the file)", rule)])
        document, problems = read_yaml(path.read_bytes())
    if not problems and not is_prior(document):
        rule = f"must be a prior, with {KEY}: {VERSION}, as `tuner prior export` writes it."
        problems = [Problem("(the file)", rule)]
    if not problems and document[KEY] != VERSION:
        rule = f"must be {VERSION}, the format that this version of tuner reads, but got {document[KEY]!r}."
        problems = [Problem(KEY, f"{rule} Export it again, or install another version.")]
    if problems:
        raise SpecError(source, problems)
    try:
        prior = Prior.model_validate(document)
    except ValidationError as error:
        raise SpecError(source, problems_of(error, Prior)) from None
    named = {origin.study for origin in prior.studies}
    problems = [
        Problem(f"hyperparameters.{path}.found.{index}.study", f"{found.study!r} is not among the file's studies.")
        for path, learnt in prior.hyperparameters.items()
        for index, found in enumerate(learnt.found)
        if found.study not in named
    ]
    if problems:
        raise SpecError(source, problems)
    return prior
