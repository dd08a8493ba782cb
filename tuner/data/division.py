"""Dividing samples into training and other parts, by class or at random, always by a seed of the data's own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tuner.errors import DataError, Problem


def check_shares(val_share: float, test_share: float) -> None:
    """Check that both shares are sensible together.

    Raises:
        ValueError: `val_share` is not in (0, 1), `test_share` is not in [0, 1), or nothing is left to train on.
    """
    if not (0 < val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise ValueError(f"val_share and test_share must leave training data, but got {val_share=}, {test_share=}.")


def stratified(labels: Tensor, shares: tuple[float, ...], seed: int) -> list[Tensor]:
    """Split sample indices so that every class keeps its share in every part.

    Args:
        labels: shape (N,), whole numbers.
        shares: sizes of all parts but the first, as shares of N.
        seed: fixes the split; it is the data's own, not the trial's, so all trials see the same one.

    Returns:
        Index tensors of the first part (what is left) and of each further part.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in labels.unique():
        indices = (labels == label).nonzero().flatten()
        indices = indices[torch.randperm(len(indices), generator=generator)]
        sizes = _sizes(len(indices), shares)
        for part, chunk in zip(parts, indices.split(sizes), strict=True):
            part.append(chunk)
    return [torch.cat(part).sort().values for part in parts]


def by_class(
    labels: Tensor, names: Sequence[str], shares: tuple[float, ...], seed: int, source: str, advice: str = ""
) -> list[Tensor]:
    """Split as `stratified` does, after checking that every class is in every part.

    Args:
        labels: shape (N,), from 0 to C-1.
        names: of the C classes.
        shares: sizes of all parts but the first, as shares of N; a share of 0 gives an empty part.
        seed: fixes the split.
        source: the file, for the error.
        advice: a next step to add where a class has too few samples.

    Raises:
        DataError: there are fewer than two classes, or a class has too few samples.
    """
    if len(names) < 2:
        raise DataError(source, [Problem("(the classes)", f"there must be two at least, but got {list(names)}.")])
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    few = [(name, count) for name, count in zip(names, counts, strict=True) if not _fills(count, shares)]
    if few:
        rule = (
            f"needs {_needed(shares)} samples at least for every part to get one, but has {{count}}. "
            f"Add samples, leave the class out, or change val_share or test_share. {advice}".rstrip()
        )
        raise DataError(source, [Problem(f"class {name!r}", rule.format(count=count)) for name, count in few])
    return stratified(labels, shares, seed)


def at_random(count: int, shares: tuple[float, ...], seed: int, source: str) -> list[Tensor]:
    """Split `count` sample indices at random.

    Args:
        count: N.
        shares: sizes of all parts but the first, as shares of N; a share of 0 gives an empty part.
        seed: fixes the split.
        source: the file, for the error.

    Raises:
        DataError: there are too few samples for every part to have one.
    """
    if not _fills(count, shares):
        rule = f"there must be samples for every part, but got {count} samples for shares of {list(shares)}. Add some."
        raise DataError(source, [Problem("(the rows)", rule)])
    return stratified(torch.zeros(count, dtype=torch.int64), shares, seed)


def _sizes(count: int, shares: tuple[float, ...]) -> list[int]:
    others = [round(share * count) for share in shares]
    return [count - sum(others), *others]


def _fills(count: int, shares: tuple[float, ...]) -> bool:
    """Whether so many samples leave none of the parts empty that ought to have some."""
    first, *others = _sizes(count, shares)
    return first > 0 and all(size > 0 for size, share in zip(others, shares, strict=True) if share > 0)


def _needed(shares: tuple[float, ...]) -> int:
    """The least count that leaves no part empty; with extreme shares one that is certainly enough, for brevity."""
    asked = [share for share in shares if share > 0]
    if not asked:
        return 1
    rest = 1 - sum(asked)
    least = max(1, int(0.5 / min(asked)))  # a part that is rounded to one sample has half of it
    enough = max(least, math.ceil(len(asked) / 2 / rest)) + 2  # as rounding adds half a sample to each at most
    tried = range(least, min(enough, least + 1000))
    return next((count for count in tried if _fills(count, shares)), enough)
