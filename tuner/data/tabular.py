"""A table of your own, CSV or Parquet: numbers standardised, categories one-hot, a class or a number to predict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tuner.data.choice import check_choice
from tuner.data.division import at_random, by_class, check_shares
from tuner.data.features import Category, Feature, Number, encode
from tuner.data.in_memory import Splits
from tuner.data.prepared import QUANTITY, TASKS, Prepared, PreparedData, are_classes, regression
from tuner.data.reading.column import Column, in_order, label, number
from tuner.data.reading.files import Version, find_file
from tuner.data.reading.table import read_table
from tuner.errors import DataError, Problem, did_you_mean

Located = tuple[int, Problem]
"""A problem and its row; -1 is the whole column."""


@dataclass(frozen=True)
class Asked:
    """What the arguments of `Tabular` ask for, apart from the file and the batches."""

    target: str
    categorical: tuple[str, ...]
    ignore: tuple[str, ...]
    task: str
    missing: str
    delimiter: str | None
    decimal: str
    shares: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Target:
    """The column to predict: numbers, labels for classification (or both), and what is wrong with its cells."""

    values: list[float]
    labels: list[str] | None
    problems: list[Located]


class Tabular(PreparedData):
    """A table from a CSV or Parquet file. `target` is predicted from all other columns that are not ignored.

    A column is **numbers** when more than half of its filled cells look like numbers; a cell in it that is none is then
    an error, never a category. Numbers are standardised with the training split's mean and deviation; what is constant
    there becomes 0 everywhere. Every other column, and those that `categorical` names, is **categories**: one input for
    each that the training split has, 1 where the cell is that category and 0 elsewhere. A category that training has
    not seen is all zeros.

    With `task: auto` the target is a class if it is text, true or false, or whole numbers (1 or 1.0) with at most 20
    different values and at least two rows a value on the average; any other numbers are regression. A text column that
    tells rows apart (more than 20 values, and more than half as many as rows; or more than 1,000) is an error unless
    `categorical` names it.

    Args:
        path: the file. A relative path starts at the current folder; if there is none, a file of that name that comes
            with tuner's examples is taken. `.parquet` is Parquet, anything else is CSV with a header, in UTF-8.
        target: the column to predict.
        batch_size: samples a training batch, or `full` for batch gradient descent.
        categorical: columns of numbers that are categories: their text is, so `01` and `1` are two.
        ignore: columns to leave out.
        task: `classification`, `regression` or `auto`.
        missing: `error` tells where cells are missing. `impute` fills in the training split's mean for numbers and
            makes a category of its own for the others. A missing target is always an error.
        delimiter: between cells of a CSV line: by default comma, semicolon, tab or |, as the header has it.
        decimal: the decimal mark of numbers in text, `.` or `,`.
        val_share: share of the rows used for validation.
        test_share: share of the rows kept for the test, which no trial sees.
        seed: fixes the split (by class for classification). It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.

    Raises:
        DataError: there is no such file; or, when the data are first used, everything that is wrong in it.
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        path: str,
        target: str,
        batch_size: int | str = 32,
        categorical: list[str] | None = None,
        ignore: list[str] | None = None,
        task: str = "auto",
        missing: str = "error",
        delimiter: str | None = None,
        decimal: str = ".",
        val_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_shares(val_share, test_share)
        check_choice("task", task, TASKS)
        check_choice("missing", missing, ("error", "impute"))
        check_choice("decimal", decimal, (".", ","))
        if delimiter is not None and len(delimiter) != 1:
            raise ValueError(f"delimiter must be one character, but got {delimiter!r}.")
        self.file = find_file(path)
        self.asked = Asked(
            target=target,
            categorical=tuple(categorical or ()),
            ignore=tuple(ignore or ()),
            task=task,
            missing=missing,
            delimiter=delimiter,
            decimal=decimal,
            shares=(val_share, test_share),
            seed=seed,
        )

    def prepare(self) -> Prepared:
        """The table, prepared once in a process however many trials ask, until the file changes."""
        return _prepared(Version.of(self.file), self.asked)


@lru_cache(maxsize=8)
def _prepared(version: Version, asked: Asked) -> Prepared:
    table = read_table(version.path, asked.delimiter)
    columns = {name: Column(name, cells, table.places, asked.decimal) for name, cells in table.columns.items()}
    _check_columns(list(columns), asked, table.source)
    target = _target(columns[asked.target], asked.task)
    features: list[Feature] = []
    problems = list(target.problems)
    for name, column in columns.items():
        if name != asked.target and name not in asked.ignore:
            feature, wrong = _feature(column, name in asked.categorical, asked.missing)
            features.append(feature)
            problems += wrong
    if problems:
        raise DataError(table.source, [problem for _, problem in sorted(problems, key=lambda found: found[0])])
    return _divided(features, target, asked, table.source)


def _divided(features: list[Feature], target: Target, asked: Asked, source: str) -> Prepared:
    """The rows in their parts, with what follows from the training part."""
    if target.labels is None:
        numbers = torch.tensor(target.values, dtype=torch.float64)  # (N,)
        parts = at_random(len(numbers), asked.shares, asked.seed, source)
        inputs, names = encode(features, parts[0])
        return regression(Splits.of(inputs, numbers, parts), source, names, _columns(features, parts[0]))
    classes = in_order(target.labels)
    index = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([index[label] for label in target.labels])  # (N,)
    parts = by_class(labels, classes, asked.shares, asked.seed, source, QUANTITY if target.values else "")
    inputs, names = encode(features, parts[0])
    return Prepared(Splits.of(inputs, labels, parts), tuple(classes), names, _columns(features, parts[0]))


def _columns(features: list[Feature], train: Tensor) -> tuple[dict[str, Any], ...]:
    return tuple(feature.preparation(train) for feature in features)


def _feature(column: Column, categorical: bool, missing: str) -> tuple[Feature, list[Located]]:
    empty = column.missing("Fill it in, or set missing: impute.") if missing == "error" else []
    if not categorical and column.is_numeric():
        next_step = "Correct it, leave it empty if it is missing, or name the column in categorical."
        values, wrong = column.numbers(", as most cells of the column are", next_step)
        return Number(column.name, values), wrong + empty
    labels = [label(cell) for cell in column.cells]
    return Category(column.name, labels), empty + ([] if categorical else column.identifies())


def _target(column: Column, task: str) -> Target:
    empty = column.missing("Fill it in, or remove the row: a target cannot be guessed.")
    if task == "regression" or (task == "auto" and column.is_numeric()):
        why = " for regression" if task == "regression" else ", as most cells of the column are"
        values, wrong = column.numbers(why, "Correct it, or set task: classification.")
        if task == "regression" or wrong or empty or not are_classes(values):
            return Target(values, None, wrong + empty)
        return Target(values, [label(value) for value in values], [])
    numbers = [number(cell, column.decimal) for cell in column.cells]
    if not empty and all(n is not None and math.isfinite(n) for n in numbers):
        return Target([], [label(n) for n in numbers], [])
    return Target([], [label(cell) for cell in column.cells], empty)


def _check_columns(names: list[str], asked: Asked, source: str) -> None:
    """Check that the columns which the arguments name are there, and that there is something to learn from."""
    named = [("target", asked.target), *(("categorical", name) for name in asked.categorical)]
    named += [("ignore", name) for name in asked.ignore]
    problems = []
    for argument, name in named:
        if name not in names:
            known = did_you_mean(name, names) or f" It has: {', '.join(map(repr, names))}."
            problems.append(Problem(argument, f"must name a column of the file, but got {name!r}.{known}"))
        elif argument != "target" and name == asked.target:
            problems.append(Problem(argument, f"must not name the target {name!r}. Take it out."))
        elif argument == "categorical" and name in asked.ignore:
            problems.append(Problem(argument, f"must not name {name!r}, which is ignored. Take it out of one."))
    if "" in names and "" not in asked.ignore:
        rule = f"has no name in column {names.index('') + 1}, often a row number. Name it, or set ignore: ['']."
        problems.append(Problem("(the header)", rule))
    if not problems and not set(names) - {asked.target, *asked.ignore}:
        problems.append(Problem("(the header)", f"must have columns beside the target, but has {names}."))
    if problems:
        raise DataError(source, problems)
