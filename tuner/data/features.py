"""What a network takes of a table's column: a standardised number, or one input for each category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tuner.data.in_memory import moments
from tuner.data.reading.column import in_order


@dataclass(frozen=True)
class Number:
    """A column of numbers, NaN where they are missing."""

    name: str
    values: list[float]

    def encode(self, train: Tensor) -> tuple[Tensor, list[str]]:
        """The column standardised by the rows `train`, shape (N, 1), missing ones by their mean; and its name."""
        values, _, centre, deviation = self._filled(train)
        return ((values - centre) / deviation).float().unsqueeze(1), [self.name]

    def preparation(self, train: Tensor) -> dict[str, Any]:
        """How a cell becomes an input: what stands for a missing one, and what to subtract and then multiply by."""
        _, mean, centre, deviation = self._filled(train)
        taken_out = {"subtract": centre.item(), "multiply": (1 / deviation).item()}
        return {"column": self.name, "missing": mean.item(), **taken_out}

    def _filled(self, train: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values with the training mean for missing ones, that mean, and what standardises them."""
        values = torch.tensor(self.values, dtype=torch.float64)
        mean = values[train].nanmean().nan_to_num()  # 0 where training has none
        values = torch.where(values.isnan(), mean, values)
        return values, mean, *moments(values[train], over=(0,))


@dataclass(frozen=True)
class Category:
    """A column of categories, by their labels."""

    name: str
    labels: list[str]

    def encode(self, train: Tensor) -> tuple[Tensor, list[str]]:
        """One input for each category among the rows `train`, shape (N, categories); and their names.

        A category that is not among them is all zeros. One that is alone there is a constant, so it is 0.
        """
        known = self._known(train)
        index = {label: i for i, label in enumerate(known)}
        codes = torch.tensor([index.get(label, -1) for label in self.labels])
        chosen = codes.unsqueeze(1) == torch.arange(len(known))
        return chosen.float() * (len(known) > 1), [f"{self.name}={label}" for label in known]

    def preparation(self, train: Tensor) -> dict[str, Any]:
        """The categories, an input for each: 1 where the cell is that one (but 0 where there is one only), 0 else."""
        return {"column": self.name, "one_hot": self._known(train)}

    def _known(self, train: Tensor) -> list[str]:
        """The categories among the rows `train`."""
        return in_order(self.labels[row] for row in train.tolist())


Feature = Number | Category


def encode(features: list[Feature], train: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """All columns side by side, shape (N, F), prepared by the rows `train` alone; and the F names."""
    parts, names = zip(*(feature.encode(train) for feature in features), strict=True)
    return torch.cat(parts, dim=1), tuple(name for group in names for name in group)
