"""The grammar of one parameter: what it is, its range, its priority, and when it applies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr | None


class Strict(BaseModel):
    """A part of a study file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class FloatRange(Strict):
    """A real number between `low` and `high`, both included.

    `scale` says how it is searched: `linear`; `log`, for what varies over decades; `log_complement`, the logarithm of
    1 - x, for what approaches 1 (a momentum of 0.9, 0.99, 0.999).
    """

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    scale: Literal["linear", "log", "log_complement"] = "linear"
    default: float | None = Field(None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> FloatRange:
        _check_order(self.low, self.high)
        if self.scale == "log" and self.low <= 0:
            raise ValueError(
                f"low must be above 0 on a log scale, but got {self.low}. Raise low, or use scale: linear."
            )
        if self.scale == "log_complement" and self.high >= 1:
            raise ValueError(f"high must be below 1 on a log_complement scale, but got {self.high}. Use 0.999?")
        _check_default(self.default, self.low, self.high)
        return self

    def contains(self, value: Any) -> bool:
        """Whether `value` is a number in the range."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def to_unit(self, value: float) -> float:
        """Map the range onto [0, 1] along its scale."""
        low, high, x = (self._scaled(v) for v in (self.low, self.high, value))
        return (x - low) / (high - low) if high > low else 0.5

    def from_unit(self, unit: float) -> float:
        """Map [0, 1] onto the range along its scale."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        x = low + min(max(unit, 0.0), 1.0) * (high - low)
        value = math.exp(x) if self.scale == "log" else 1.0 - math.exp(-x) if self.scale == "log_complement" else x
        return min(max(value, self.low), self.high)

    def _scaled(self, value: float) -> float:
        if self.scale == "log":
            return math.log(value)
        return -math.log1p(-value) if self.scale == "log_complement" else value

    @property
    def listed(self) -> list[Any] | None:
        """None: it cannot be listed."""
        return None

    @property
    def middle(self) -> float:
        """The value searched around when the space states no default."""
        return self.from_unit(0.5)


class IntRange(Strict):
    """A whole number between `low` and `high`, both included, in steps of `step`."""

    low: int
    high: int
    scale: Literal["linear", "log"] = "linear"
    step: int = Field(1, ge=1)
    default: int | None = None

    @model_validator(mode="after")
    def _check(self) -> IntRange:
        _check_order(self.low, self.high)
        if self.scale == "log" and self.low <= 0:
            raise ValueError(
                f"low must be above 0 on a log scale, but got {self.low}. Raise low, or use scale: linear."
            )
        if self.scale == "log" and self.step != 1:
            raise ValueError(f"step must be 1 on a log scale, but got {self.step}. Drop step, or use a choice.")
        if (self.high - self.low) % self.step:
            high = self.low + (self.high - self.low) // self.step * self.step
            raise ValueError(f"high must be low plus whole steps, but got high={self.high}. The nearest is {high}.")
        _check_default(self.default, self.low, self.high)
        if self.default is not None and (self.default - self.low) % self.step:
            raise ValueError(f"default must be low plus whole steps of {self.step}, but got {self.default}.")
        return self

    def contains(self, value: Any) -> bool:
        """Whether `value` is a whole number that the range can take."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def to_unit(self, value: float) -> float:
        """Map the range, half a step wider at both ends, onto [0, 1] along its scale."""
        low, high = self._edges()
        x = math.log(value) if self.scale == "log" else float(value)
        return (x - low) / (high - low)

    def from_unit(self, unit: float) -> int:
        """Map [0, 1] onto the whole numbers of the range along its scale."""
        low, high = self._edges()
        x = low + min(max(unit, 0.0), 1.0) * (high - low)
        x = math.exp(x) if self.scale == "log" else x
        value = self.low + round((x - self.low) / self.step) * self.step
        return int(min(max(value, self.low), self.high))

    def _edges(self) -> tuple[float, float]:
        low, high = self.low - self.step / 2, self.high + self.step / 2
        return (math.log(low), math.log(high)) if self.scale == "log" else (low, high)

    @property
    def listed(self) -> list[Any] | None:
        """All values, or None if there are more than a thousand."""
        values = range(self.low, self.high + 1, self.step)
        return list(values) if len(values) <= 1000 else None

    @property
    def middle(self) -> int:
        """The value searched around when the space states no default."""
        return self.from_unit(0.5)


class Choice(Strict):
    """One of a list of values; numbers in rising order are searched as neighbours."""

    values: list[Scalar] = Field(min_length=1)
    default: Scalar = None

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if len({(type(v), v) for v in self.values}) < len(self.values):
            raise ValueError(f"values must differ from each other, but got {self.values}.")
        if any(isinstance(v, bool) for v in self.values) and any(isinstance(v, str) for v in self.values):
            raise ValueError(
                f"values must not mix true/false with words, but got {self.values}. "
                "YAML reads yes, no, on and off as true and false: quote them?"
            )
        if "default" in self.model_fields_set and not self.contains(self.default):
            raise ValueError(f"default must be one of {self.values}, but got {self.default!r}.")
        return self

    def contains(self, value: Any) -> bool:
        """Whether `value` is one of the values, of the same type."""
        return any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values)

    @property
    def listed(self) -> list[Any] | None:
        """All values."""
        return list(self.values)

    @property
    def ordered(self) -> bool:
        """Whether neighbours in the list are neighbours in effect: numbers in rising order."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        return len(numbers) == len(self.values) and numbers == sorted(numbers)

    @property
    def middle(self) -> Scalar:
        """The value searched around when the space states no default: the first."""
        return self.values[0]


Range = FloatRange | IntRange | Choice
Condition = Mapping[str, tuple[Scalar, ...]]


class Parameter(Strict):
    """One searched hyperparameter, under the same headings for every one.

    Attributes:
        what: what it is, in a few words.
        why: why it is searched, and here.
        priority: 1 is searched first (documented.md §1); equal numbers are searched together; None comes last.
        when: it applies only while every named parameter has one of the listed values.
        default_when: other defaults of a float, by the word that another parameter has: `{model.optimizer: {adam:
            0.003}}`. The search takes steps alike from each of them.
    """

    what: str = ""
    why: str = ""
    priority: int | None = Field(None, ge=1)
    float_: FloatRange | None = Field(None, alias="float")
    int_: IntRange | None = Field(None, alias="int")
    choice: Choice | None = None
    when: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(default_factory=dict)
    default_when: Annotated[dict[str, dict[str, float]], Field(max_length=1)] = Field(default_factory=dict)

    @field_validator("default_when", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="before")
    @classmethod
    def _single_values(cls, value: Any) -> Any:
        """Let `when: {model.optimizer: adam}` stand for `when: {model.optimizer: [adam]}`."""
        if isinstance(value, dict) and isinstance(value.get("when"), dict):
            when = {k: v if isinstance(v, list) else [v] for k, v in value["when"].items()}
            return {**value, "when": when}
        return value

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        kinds = [k for k, v in (("float", self.float_), ("int", self.int_), ("choice", self.choice)) if v is not None]
        if len(kinds) != 1:
            got = " and ".join(kinds) if kinds else "none"
            raise ValueError(f"must have exactly one of float, int, choice, but got {got}.")
        if self.default_when and self.float_ is None:
            raise ValueError(f"default_when is for a float, but this is {kinds[0]}. State one default.")
        return self

    def default_for(self, params: Mapping[str, Any]) -> Scalar:
        """The default beside these values of other parameters, moved into the range."""
        for parent, words in self.default_when.items():
            if self.float_ is not None and (word := params.get(parent)) in words:
                return min(max(words[word], self.float_.low), self.float_.high)
        return self.default

    @property
    def range(self) -> Range:
        """The float, int or choice of this parameter."""
        for candidate in (self.float_, self.int_, self.choice):
            if candidate is not None:
                return candidate
        raise AssertionError("a Parameter has exactly one range")

    @property
    def kind(self) -> str:
        """`float`, `int` or `choice`."""
        return "float" if self.float_ else "int" if self.int_ else "choice"

    @property
    def default(self) -> Scalar:
        """The stated default, or the middle of the range on its scale (the first value of a choice)."""
        values = self.range
        if isinstance(values, Choice):
            return values.default if "default" in values.model_fields_set else values.middle
        return values.middle if values.default is None else values.default


def _check_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low must be below high, but got low={low}, high={high}. Swap them?")
    if low == high:
        raise ValueError(f"low must be below high, but both are {low}. Set the value under init_args instead?")


def _check_default(default: float | None, low: float, high: float) -> None:
    if default is not None and not low <= default <= high:
        raise ValueError(f"default must lie between low and high, but got default={default}, low={low}, high={high}.")
