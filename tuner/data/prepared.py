"""Data that are prepared once: the splits, what a model and a reader must know of them, and classes or numbers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from tuner.data.in_memory import InMemory, Splits
from tuner.errors import DataError, Problem

TASKS = ("auto", "classification", "regression")
"""What the target may be said to be; `auto` asks `are_classes`."""

FEW = 20
"""A target of whole numbers is a class if it has no more values than this, and two samples a value on the average."""


QUANTITY = "If the target is a quantity, set task: regression."
"""The next step where numbers that were taken for classes do not do as such."""


@dataclass(frozen=True)
class Prepared:
    """Splits that are ready for training.

    Attributes:
        splits: float32 inputs of shape (N, …) with int64 classes or float64 numbers of shape (N,).
        class_names: of class 0 to C-1; None where the target is a number.
        feature_names: of the columns of a table.
        columns: how the inputs are made from each column of a table.
    """

    splits: Splits
    class_names: tuple[str, ...] | None
    feature_names: tuple[str, ...] | None = None
    columns: tuple[Mapping[str, Any], ...] | None = None


class PreparedData(InMemory):
    """An abstract data module whose files are read when something is first asked of it.

    One data module sees one version of its files. A new one of a changed file reads it again.
    """

    @abstractmethod
    def prepare(self) -> Prepared:
        """Read and prepare the data, or give what was prepared earlier from the same file and arguments."""

    @cached_property
    def prepared(self) -> Prepared:
        """The data, as this data module sees them."""
        return self.prepare()

    def splits(self) -> Splits:
        """The three splits, prepared once in a process however many trials ask."""
        return self.prepared.splits

    @cached_property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one input, without the batch."""
        return tuple(self.splits().train[0].shape[1:])

    @cached_property
    def num_classes(self) -> int | None:  # type: ignore[override]
        """Number of classes; None where the target is a number."""
        return None if self.class_names is None else len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of class 0 to C-1; None where the target is a number."""
        return self.prepared.class_names

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the input's features; None where they have none."""
        return self.prepared.feature_names

    @property
    def target_mean(self) -> float | None:
        """Mean of the training split's target in its own units; None for classes."""
        return None if self.class_names is not None else self.splits().train[1].mean().item()

    @property
    def target_std(self) -> float | None:
        """Deviation of the training split's target in its own units, above 0; None for classes."""
        return None if self.class_names is not None else self.splits().train[1].std(correction=0).item()

    def preparation(self) -> dict[str, Any]:
        """How inputs are made from raw data, as plain values; of a table's columns each, in their order."""
        if self.prepared.columns is None:
            return super().preparation()
        return {
            "inputs": "the columns side by side, in this order",
            "columns": [dict(c) for c in self.prepared.columns],
        }

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make float64 float32 for Apple's GPUs, which have no other; elsewhere a batch stays as it is."""
        if self.trainer is None or self.trainer.strategy.root_device.type != "mps":
            return batch
        return tuple(tensor.float() if tensor.dtype == torch.float64 else tensor for tensor in batch)


def are_classes(values: Collection[float]) -> bool:
    """Whether numbers are whole, few and repeated, so that `task: auto` takes them for classes."""
    different = set(values)
    few = len(different) <= FEW and 2 * len(different) <= len(values)
    return few and all(float(value).is_integer() for value in different)


def regression(
    splits: Splits,
    source: str,
    feature_names: tuple[str, ...] | None = None,
    columns: tuple[Mapping[str, Any], ...] | None = None,
) -> Prepared:
    """Splits whose target is a number, float64: rounded before it is standardised, it could lose all that varies.

    Raises:
        DataError: the target is the same in all training samples, so there is nothing to learn.
    """
    target = splits.train[1]
    if bool((target == target[0]).all()):
        rule = f"must vary among the training samples, but is always {target[0].item():.10g}. Name another target."
        raise DataError(source, [Problem("(the target)", rule)])
    return Prepared(splits, None, feature_names, columns)
