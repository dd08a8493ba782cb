"""Reading arrays by name from an .npz file, and saying what is wrong with them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tuner.errors import DataError, Problem, did_you_mean

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]


@dataclass(frozen=True)
class Keys:
    """The arrays' names in the file, (inputs, targets) of each part; a part without names is drawn."""

    train: tuple[str, str]
    val: tuple[str, str] | None
    test: tuple[str, str] | None


def read_archive(path: Path, keys: Keys) -> dict[str, Pair]:
    """Read the parts that the file has.

    Returns:
        Inputs of shape (N, …) with two dimensions at least, and targets of shape (N,), for `train`, `val` and `test`
        as far as they are named: finite, of one kind, and as long as each other.

    Raises:
        DataError: the file is no such archive, or everything that is wrong with the arrays.
    """
    source = str(path)
    asked = {"train": keys.train, "val": keys.val, "test": keys.test}
    found: dict[str, Pair] = {}
    with path.open("rb") as file, _opened(file, source) as held:
        problems = [
            Problem(argument, f"must name an array of the file, but got {name!r}.{_held(name, held.files)}")
            for part, pair in asked.items()
            for argument, name in zip(_arguments(part), pair or (), strict=pair is not None)
            if name not in held.files
        ]
        if problems:
            raise DataError(source, problems)
        for part, pair in asked.items():
            if pair is not None:
                x, y = (_array(held, name, source) for name in pair)
                found[part] = (x[:, None] if x.ndim == 1 else x, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y)
    for part, (x, y) in found.items():
        problems += _wrong(x, y, asked[part] or keys.train)
    train_x, train_y = found["train"]
    for part, (x, y) in found.items():
        if x.shape[1:] != train_x.shape[1:]:
            rule = f"must have samples of shape {train_x.shape[1:]} as the training inputs, but got {x.shape[1:]}."
            problems.append(Problem(f"{part}_inputs", rule))
        if (y.dtype.kind == "f") != (train_y.dtype.kind == "f"):
            rule = f"must be of the same kind as the training targets ({train_y.dtype}), but got {y.dtype}."
            problems.append(Problem(f"{part}_targets", rule))
    if problems:
        raise DataError(source, problems)
    return found


def _opened(file: BinaryIO, source: str) -> Any:
    rule = "must be an .npz archive as numpy.savez writes it, but {}."
    try:
        held = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise DataError(source, [Problem("(the file)", rule.format("it is something else"))]) from None
    if not isinstance(held, np.lib.npyio.NpzFile):
        raise DataError(source, [Problem("(the file)", rule.format("it is a single array"))])
    return held


def _array(held: Any, name: str, source: str) -> Array:
    try:
        array: Array = held[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        rule = f"must be an array of numbers, or of text for targets, but cannot be read: {error}"
        raise DataError(source, [Problem(f"array {name!r}", rule)]) from None
    if array.ndim == 0:
        raise DataError(source, [Problem(f"array {name!r}", f"must have samples, but is the single value {array}.")])
    return array


def _arguments(part: str) -> tuple[str, str]:
    return ("inputs", "targets") if part == "train" else (f"{part}_inputs", f"{part}_targets")


def _held(name: str, files: list[str]) -> str:
    return f"{did_you_mean(name, files)} It holds: {', '.join(files) or 'nothing'}."


def _wrong(x: Array, y: Array, names: tuple[str, str]) -> list[Problem]:
    """What is wrong with the inputs and targets of a part."""
    x_at, y_at = (f"array {name!r}" for name in names)
    problems = []
    if len(x) != len(y):
        problems.append(Problem(x_at, f"must be as long as {names[1]!r}, but they have {len(x)} and {len(y)} samples."))
    if x.size == 0:
        problems.append(Problem(x_at, f"must have samples and values, but has shape {x.shape}."))
    if x.dtype.kind not in "biuf":
        problems.append(Problem(x_at, f"must hold numbers, but holds {x.dtype}."))
    if y.ndim != 1:
        problems.append(Problem(y_at, f"must have shape (N,) or (N, 1), but has {y.shape}."))
    if y.dtype.kind not in "biufU":
        problems.append(Problem(y_at, f"must hold whole numbers, text or floating-point numbers, but holds {y.dtype}."))
    for at, array in ((x_at, x), (y_at, y)):
        if array.dtype.kind == "f" and len(bad := np.argwhere(~np.isfinite(array))):
            first = tuple(bad[0].tolist())
            more = f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
            where = f"[{', '.join(map(str, first))}]"
            rule = f"must be finite, but {where} is {array[first]}{more} (sample {first[0]}, from 0). Correct it."
            problems.append(Problem(at, rule))
    return problems
