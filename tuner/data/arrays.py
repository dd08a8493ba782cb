"""Arrays of your own from an .npz file: vectors, sequences, images, or anything with a first dimension of samples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from tuner.data.choice import check_choice
from tuner.data.division import at_random, by_class, check_shares
from tuner.data.in_memory import Split, Splits
from tuner.data.prepared import QUANTITY, TASKS, Prepared, PreparedData, are_classes, regression
from tuner.data.reading.archive import Array, Keys, Pair, read_archive
from tuner.data.reading.column import in_order, label
from tuner.data.reading.files import Version, find_file
from tuner.errors import DataError, Problem


class Arrays(PreparedData):
    """Inputs and targets from an .npz file, as `numpy.savez(path, x=..., y=...)` writes it.

    Inputs have shape (N, …); numbers of shape (N,) are taken as (N, 1). They are standardised with the training
    split's mean and deviation of each entry of their second dimension: every feature alone for vectors (N, F), every
    channel alone for images (N, C, H, W) and series (N, C, L). What is constant in training becomes 0. Targets have
    shape (N,) or (N, 1). With `task: auto` they are classes if they are text, true or false, or whole numbers (1 or
    1.0) with at most 20 different values in training and at least two samples a value on the average; any other numbers
    are regression. Classes become 0 to C-1 in their order and keep their values as `class_names`.

    Args:
        path: the file. A relative path starts at the current folder; if there is none, a file of that name that comes
            with tuner's examples is taken.
        inputs: name of the input array.
        targets: name of the target array.
        batch_size: samples a training batch, or `full` for batch gradient descent.
        task: `classification`, `regression` or `auto`.
        val_inputs: name of the validation inputs, where the file has a validation split; else it is drawn.
        val_targets: name of the validation targets.
        test_inputs: name of the test inputs, where the file has a test split; else it is drawn.
        test_targets: name of the test targets.
        val_share: share of the samples used for validation, if it is drawn.
        test_share: share of the samples kept for the test, which no trial sees, if it is drawn.
        seed: fixes the split (by class for classification). It is the same in every trial of a study.
        order_seed: fixes the order of the training batches, which is then the same in every trial; by default each
            trial's own seed does.

    Raises:
        DataError: there is no such file; or, when the data are first used, everything that is wrong in it.
        ValueError: an argument outside its range, or inputs named without targets.
    """

    RAW = "the values of the file; numbers of shape (N,) as (N, 1)"

    def __init__(
        self,
        path: str,
        inputs: str = "x",
        targets: str = "y",
        batch_size: int | str = 32,
        task: str = "auto",
        val_inputs: str | None = None,
        val_targets: str | None = None,
        test_inputs: str | None = None,
        test_targets: str | None = None,
        val_share: float = 0.2,
        test_share: float = 0.2,
        seed: int = 0,
        order_seed: int | None = None,
    ) -> None:
        super().__init__(batch_size, order_seed)
        check_shares(val_share, test_share)
        check_choice("task", task, TASKS)
        self.file = find_file(path)
        val, test = _both("val", val_inputs, val_targets), _both("test", test_inputs, test_targets)
        self.keys = Keys((inputs, targets), val, test)
        self.task, self.val_share, self.test_share, self.seed = task, val_share, test_share, seed

    def prepare(self) -> Prepared:
        """The arrays, prepared once in a process however many trials ask, until the file changes."""
        return _prepared(Version.of(self.file), self.keys, self.task, self.val_share, self.test_share, self.seed)


def _both(part: str, inputs: str | None, targets: str | None) -> tuple[str, str] | None:
    if (inputs is None) != (targets is None):
        raise ValueError(f"{part}_inputs and {part}_targets go together, but got {inputs!r} and {targets!r}.")
    return None if inputs is None or targets is None else (inputs, targets)


@lru_cache(maxsize=4)
def _prepared(version: Version, keys: Keys, task: str, val_share: float, test_share: float, seed: int) -> Prepared:
    source = str(version.path)
    given = read_archive(version.path, keys)
    names = _classes(given["train"][1], task)
    _check_targets(given, keys, names, source)
    pairs = {part: _tensors(pair, names) for part, pair in given.items()}
    inputs, labels = pairs["train"]
    shares = {"val": val_share, "test": test_share}
    drawn = {part: share for part, share in shares.items() if part not in pairs}
    draw = tuple(drawn.values())
    if names is None:
        indices = at_random(len(labels), draw, seed, source)
    else:
        advice = QUANTITY if given["train"][1].dtype.kind in "iuf" else ""
        indices = by_class(labels, names, draw, seed, source, advice)
    for part, index in zip(("train", *drawn), indices, strict=True):
        pairs[part] = (inputs[index], labels[index])
    splits = Splits(pairs["train"], pairs["val"], pairs["test"])
    splits = splits.standardised(over=tuple(d for d in range(inputs.dim()) if d != 1))
    return regression(splits, source) if names is None else Prepared(splits, names)


def _classes(targets: Array, task: str) -> tuple[str, ...] | None:
    """The classes that training targets are; None where they are numbers."""
    numbers = targets.dtype.kind in "iuf"
    if task == "regression" or (task == "auto" and numbers and not are_classes(targets.tolist())):
        return None
    return tuple(in_order(label(value) for value in np.unique(targets).tolist()))


def _check_targets(given: dict[str, Pair], keys: Keys, names: tuple[str, ...] | None, source: str) -> None:
    """Check that targets are numbers for regression, and that no part has a class that training does not have."""
    problems = []
    for part, pair in (("train", keys.train), ("val", keys.val), ("test", keys.test)):
        if pair is None:
            continue
        targets = given[part][1]
        if names is None and targets.dtype.kind not in "iuf":
            rule = f"must hold numbers for regression, but holds {targets.dtype}. Set task: classification."
            problems.append(Problem(f"array {pair[1]!r}", rule))
        elif names is not None and (unknown := sorted({label(v) for v in np.unique(targets).tolist()} - set(names))):
            rule = f"must hold classes that {keys.train[1]!r} has, but holds {', '.join(unknown)}, too."
            problems.append(Problem(f"array {pair[1]!r}", rule))
    if problems:
        raise DataError(source, problems)


def _tensors(pair: Pair, names: tuple[str, ...] | None) -> Split:
    x, y = pair
    small = x.dtype.kind == "b" or x.dtype.itemsize <= 2 or x.dtype == np.float32
    inputs = torch.from_numpy(x.astype(np.float32 if small else np.float64))
    if names is None:
        return inputs, torch.from_numpy(y.astype(np.float64))
    values, positions = np.unique(y, return_inverse=True)
    codes = np.array([names.index(label(value)) for value in values.tolist()], dtype=np.int64)
    return inputs, torch.from_numpy(codes[positions])
