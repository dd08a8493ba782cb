"""What a study file may say, checked at birth."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator

from tuner.space import Space
from tuner.space.grammar import Strict
from tuner.spec.automatic import MOST_PARAMETERS, MOST_TRIALS, Picked, pick_pruner, pick_sampler
from tuner.trial import Direction, Objective

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Sampler = Literal["auto", "priority", "tpe", "gp", "random", "grid", "cmaes", "qmc"]
Pruner = Literal["auto", "none", "median", "asha", "hyperband", "patience"]


def _seconds(value: Any) -> Any:
    """Read "90s", "10m", "1h30m" or a number of seconds."""
    if not isinstance(value, str):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", value)
    if not parts or "".join(number + unit for number, unit in parts) != re.sub(r"\s", "", value):
        raise ValueError(f"must be a time such as 90s, 10m or 1h30m, but got {value!r}.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


def _listed(value: Any) -> Any:
    """One entry stands for a list of it."""
    return [value] if isinstance(value, str | dict) else value


class ClassSpec(Strict):
    """A class to import and the arguments to build it with, as LightningCLI writes them."""

    class_path: str
    init_args: dict[str, Any] = Field(default_factory=dict)
    dict_kwargs: dict[str, Any] = Field(default_factory=dict)


class ObjectiveSpec(Strict):
    """The metric to optimise: any that the module logs on validation."""

    metric: str = "val_loss"
    direction: Direction = "minimize"


class SearchSpec(Strict):
    """How to search, and the budgets; whichever is spent first ends the search.

    Attributes:
        sampler: what proposes configurations; `auto` picks by budget and space.
        pruner: what stops trials that others have overtaken; `auto` picks by budget.
        trials: how many configurations are tried.
        epochs: training epochs over all trials.
        time: wall-clock seconds of the whole study; with `confirm`, its last fifth is kept for confirming.
        trial_time: wall-clock seconds of one trial, which ends at the next epoch.
        start: configurations to begin with: names of stored studies, whose best is taken, files of a configuration
            (`tuner best NAME > best.yaml`), or values by path. The first one also takes the place of the defaults.
        training: how trials are trained: `lightning` by its Trainer, `lean` by a bare loop to the same numbers,
            `cohort` several in one pass, `auto` by whatever is fastest and faithful; `function` calls the plain
            function that `model` names.
        cohort: trials trained in one pass, at most; 1 is never; `auto` is by what was measured.
        confirm: new seeds with which the leading configurations are run again before a best is named; 0 is off.
        patience: epochs without improvement after which a trial stops early; null is never; `auto` is a quarter of
            `max_epochs`, at least 5.
    """

    sampler: Sampler = "priority"
    pruner: Pruner = "auto"
    trials: int | None = Field(100, ge=0)
    epochs: int | None = Field(None, ge=1)
    time: Seconds | None = None
    trial_time: Seconds | None = None
    start: Annotated[list[str | dict[str, Any]], BeforeValidator(_listed)] = Field(default_factory=list)
    training: Literal["auto", "lightning", "lean", "cohort", "function"] = "auto"
    cohort: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    confirm: int = Field(3, ge=0, le=100)
    patience: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"

    @field_validator("sampler")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value == "cmaes" and importlib.util.find_spec("cmaes") is None:
            raise ValueError("cmaes needs a package of that name. Run: pip install 'tuner[cmaes]'")
        return value


FUNCTION: Final = "function"

ALONE = ("lightning", "lean", FUNCTION)
"""Ways of training by which every trial is trained alone."""

BUDGETS = frozenset({"trials", "epochs", "time", "trial_time", "confirm"})
"""The keys of `search` that may change when a study goes on: they say how long, not what is searched."""


class StudySpec(Strict):
    """One study, complete and without contradictions.

    `model`, `data`, `trainer` and `seed_everything` are exactly what LightningCLI reads.
    """

    study: Annotated[str, Field(max_length=100)]
    model: ClassSpec
    data: ClassSpec | None = None
    trainer: dict[str, Any] = Field(default_factory=dict)
    seed_everything: int = Field(0, ge=0, lt=2**32)
    objective: ObjectiveSpec = Field(default_factory=ObjectiveSpec)
    space: Any
    search: SearchSpec = Field(default_factory=SearchSpec)
    _noticed: tuple[str, ...] = PrivateAttr(default=())

    @field_validator("study")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            fixed = re.sub(r"[^A-Za-z0-9._-]+", "-", value).strip("-.")
            raise ValueError(f"must be letters, digits, '.', '_' and '-', but got {value!r}. Did you mean {fixed!r}?")
        return value

    @property
    def goal(self) -> Objective:
        """The objective as the noun that every room knows."""
        return Objective(self.objective.metric, self.objective.direction)

    @property
    def searched(self) -> Space:
        """What is searched: the space without what the study file fixes."""
        if not isinstance(self.space, Space):
            raise TypeError("a StudySpec gets its space from read_study")
        return self.space

    @property
    def base_config(self) -> dict[str, Any]:
        """What every trial has in common, as LightningCLI reads it."""
        config: dict[str, Any] = {"seed_everything": self.seed_everything}
        config["model"] = self.model.model_dump(exclude_defaults=True)
        if self.data is not None:
            config["data"] = self.data.model_dump(exclude_defaults=True)
        return config | {"trainer": dict(self.trainer)}

    @property
    def max_epochs(self) -> int:
        """How long a trial trains at most (1000 is Lightning's own default)."""
        epochs = self.trainer.get("max_epochs")
        return epochs if isinstance(epochs, int) and epochs > 0 else 1000

    @property
    def sampler(self) -> Picked:
        """What proposes configurations, and why where that is left to us."""
        named = self.search.sampler
        return pick_sampler(self.searched, self.search.trials) if named == "auto" else Picked(named)

    @property
    def pruner(self) -> Picked:
        """What stops trials that others have overtaken, and why where that is left to us."""
        named = self.search.pruner
        return pick_pruner(self.max_epochs, self.search.trials) if named == "auto" else Picked(named)

    @property
    def patience(self) -> int | None:
        """Epochs without improvement after which a trial stops early."""
        if self.search.patience == "auto":
            return max(5, self.max_epochs // 4)
        return self.search.patience

    def noticing(self, space: Space, noticed: Iterable[str]) -> StudySpec:
        """The spec with its space as it is searched, and with what the check of the classes warns of."""
        spec = self.model_copy(update={"space": space})
        spec._noticed = tuple(noticed)
        return spec

    def warnings(self) -> list[str]:
        """What the file says that has no effect, or is seldom what one wants."""
        told = list(self._noticed)
        if isinstance(self.search.cohort, int) and self.search.cohort > 1 and self.search.training in ALONE:
            told.append(f"search.cohort has no effect with training: {self.search.training}, which is one by one.")
        if self.search.sampler == "priority":
            trials, parameters = self.search.trials or 0, len(self.searched.parameters)
            if trials > MOST_TRIALS or parameters > MOST_PARAMETERS:
                told.append(
                    f"search.sampler: priority models up to {MOST_PARAMETERS} parameters and {MOST_TRIALS} trials "
                    f"well, and here are {parameters} and {trials}. auto would take tpe."
                )
        if self.search.time is None and self.search.trials is None and self.search.epochs is None:
            told.append("search has no budget (trials, epochs or time): the study runs until it is stopped.")
        return told

    def document(self) -> dict[str, Any]:
        """The spec as the mapping that reads back to it, the space spelt out."""
        document = self.model_dump(mode="json", exclude={"space"})
        if self.data is None:
            del document["data"]
        for part in ("model", "data"):
            if part in document and not document[part]["dict_kwargs"]:
                del document[part]["dict_kwargs"]
        return document | {"space": self.searched.document()}
