"""The study as a diagnosis sees it: which hyperparameters play which role, and what the best trial has of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuner.insight.across import place
from tuner.space import Choice, Parameter, Space, read_space, shipped_spaces
from tuner.spec import StudySpec, at_path
from tuner.trial import Trial

LEARNING_RATE = ("learning_rate", "lr")
UNITS = ("hidden_units", "hidden_size", "hidden_dim", "n_hidden", "width", "channels", "units")
DEPTH = ("depth", "num_layers", "n_layers", "layers", "blocks", "stages")
CAPACITY = (*UNITS, *DEPTH)
DROPOUT = ("dropout", "dropout_rate", "drop_rate", "p_dropout")
DECAY = ("weight_decay",)
PENALTY = ("penalty", "l1", "l2", "l1_strength", "l2_strength")
REGULARISERS = (*DROPOUT, *DECAY, *PENALTY)
ACTIVATION, NORM, OPTIMIZER = ("activation",), ("norm",), ("optimizer",)
MOMENTUM, SCHEDULE, BATCH = ("momentum",), ("lr_schedule",), ("batch_size",)
CLIP = ("clip_norm", "gradient_clip_val")

SATURATING = ("sigmoid",)
"""Activations whose slope is at most 0.25."""

SPACES = {"RNNLanguageModel": "rnn", "MLPRegressor": "mlp-regressor"}
"""The documented spaces of models by whose names they do not go."""


@dataclass(frozen=True)
class Subject:
    """A study and the trial that is read.

    Attributes:
        spec: the study.
        trial: its best, or the one asked about.
    """

    spec: StudySpec
    trial: Trial

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """What is searched."""
        return self.spec.searched.parameters

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """The searched values of the trial."""
        return self.trial.params or {}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The trial's complete configuration, every argument of the model included where that is known."""
        if self.trial.result is not None and self.trial.result.config:
            return self.trial.result.config
        return self.spec.base_config

    def value(self, path: str) -> Any:
        """What the trial has there."""
        return self.params.get(path, at_path(self.config, path))

    @staticmethod
    def name(path: str) -> str:
        """A path without its root."""
        return path.partition(".")[2] or path

    def names(self, paths: Iterable[str]) -> str:
        """Several of them, for a sentence."""
        return " or ".join(map(self.name, paths))

    def paths(self, role: Sequence[str]) -> list[str]:
        """The searched hyperparameters that play a role in the trial."""
        return [p for name in role for p in self.parameters if p.rpartition(".")[2] == name and p in self.params]

    def known(self, role: Sequence[str]) -> str | None:
        """The path of the first hyperparameter of a role, searched or only an argument of the model; else None."""
        searched = self.paths(role)
        if searched:
            return searched[0]
        absent = object()
        there = (f"{root}.{name}" for name in role for root in ("model", "data"))
        return next(
            (p for p in there if p not in self.parameters and at_path(self.config, p, absent) is not absent), None
        )

    def breadth(self, path: str) -> float:
        """How many times its smallest value the largest of a range is."""
        values = self.parameters[path].range
        if isinstance(values, Choice):
            numbers = [v for v in values.values if isinstance(v, int | float) and v > 0]
            return max(numbers) / min(numbers) if len(numbers) > 1 else 1.0
        return values.high / values.low if values.low > 0 else float("inf")

    @property
    def activation(self) -> str:
        """The activation, where the model has an argument of that name."""
        return str(self.value("model.activation"))

    @property
    def saturating(self) -> int:
        """How many layers of an activation that saturates stand on one another without normalisation or skips."""
        depth = next((self.value(f"model.{name}") for name in DEPTH if self.value(f"model.{name}")), None)
        plain = self.value("model.norm") in (None, "none", False)
        if self.activation not in SATURATING or not plain or not isinstance(depth, int):
            return 0
        return depth

    @cached_property
    def documented(self) -> Space:
        """The documented space of the model's class; empty for classes of your own."""
        package, _, cls = self.spec.model.class_path.rpartition(".")
        name = SPACES.get(cls, cls.lower())
        if package != "tuner.models" or name not in shipped_spaces():
            return Space({})
        space, _ = read_space(name)
        return space or Space({})

    def place(self, path: str) -> float | None:
        """Where in its range the trial's value lies."""
        return place(self.parameters[path], self.params.get(path))
