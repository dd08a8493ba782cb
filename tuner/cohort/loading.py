"""The batches of all slices: each slice's own, in its own order, gathered by one index where that can be."""

# Shapes: K = slices, B = batch.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tuner.cohort.draws import Draws
from tuner.cohort.errors import NotFusable
from tuner.cohort.step import Batches
from tuner.data.loader import Pass


def batches_of(passes: Sequence[Iterator[Any] | None], draws: Sequence[Draws]) -> Iterator[Batches]:
    """One pass over the loaders of all slices.

    Args:
        passes: an iterator of each slice, all equally long; an empty place has None, and gets what another slice gets.
        draws: the random states that each slice draws its order from.

    Raises:
        NotFusable: the batches of the slices have different shapes.
    """
    taken = [k for k, one in enumerate(passes) if one is not None]
    given = [passes[k] for k in taken]
    place = [taken.index(k) if k in taken else 0 for k in range(len(passes))]
    own = [draws[k] for k in taken]
    if not _alike(given):
        for batches in _together(given, own):
            yield stacked([batches[at] for at in place])
        return
    orders = []
    for one, drawn in zip(given, own, strict=True):
        with drawn.going_on():
            orders.append(list(one.orders))
    if len({len(order) for order in orders}) > 1:
        raise NotFusable("the trials' loaders have different lengths")
    loader = given[0].loader
    spec: pytree.TreeSpec | None = None
    for index, shared in _indices(orders, place, sum(tensor[0].numel() for tensor in loader.tensors)):
        several = loader.gather(index)
        if spec is None:
            spec = pytree.tree_structure(several)  # a tuple or a list of tensors, always the same
        for batch in zip(*(tensor.unbind(0) for tensor in several), strict=True):
            yield Batches(batch, shared, spec)


def _indices(orders: Sequence[Sequence[Tensor]], place: Sequence[int], values: int) -> Iterator[tuple[Tensor, bool]]:
    """The indices of all slices, of some batches at a time, and whether they are the same for all slices.

    Args:
        orders: by slice, the indices of each batch.
        place: which of them stands at which place.
        values: how many numbers one index stands for.

    Yields:
        Shape (S, K, …) for S batches of one length, or (S, …) if all slices have the same.
    """
    first = orders[0]
    if any(one.shape != chosen.shape for order in orders[1:] for one, chosen in zip(order, first, strict=True)):
        raise NotFusable("the batches of its trials have different shapes")
    shared = all(torch.equal(one, chosen) for order in orders[1:] for one, chosen in zip(order, first, strict=True))
    for _, alike in groupby(range(len(first)), key=lambda i: first[i].shape):
        batches = list(alike)
        size = values * max(1, first[batches[0]].numel()) * (1 if shared else len(place))
        several = max(1, _GATHERED // size)
        for start in range(0, len(batches), several):
            some = batches[start : start + several]
            own = [torch.stack([order[i] for i in some]) for order in (orders[:1] if shared else orders)]
            yield (own[0], True) if shared else (torch.stack([own[at] for at in place], dim=1), False)


_GATHERED = 2**18
"""Numbers that are gathered at a time at most: 1 MiB of float32, which stays near the processor."""


def stacked(batches: Sequence[Any]) -> Batches:
    """The batches of the slices as one.

    Raises:
        NotFusable: their tensors have different shapes, or what is no tensor differs.
    """
    flat = [pytree.tree_flatten(batch) for batch in batches]
    leaves, spec = flat[0]
    if any(other != spec for _, other in flat):
        raise NotFusable("the batches of its trials are made up differently")
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise NotFusable("its batches hold other things than tensors")
    parts = list(zip(*(leaves for leaves, _ in flat), strict=True))
    if any(len({(tensor.shape, tensor.dtype) for tensor in part}) > 1 for part in parts):
        raise NotFusable("the batches of its trials have different shapes")
    return Batches(tuple(torch.stack(part) for part in parts), False, spec)


def _alike(passes: Sequence[Any]) -> TypeGuard[Sequence[Pass]]:
    """Whether all slices read the same tensors by index."""
    first = passes[0]
    return isinstance(first, Pass) and all(
        isinstance(one, Pass)
        and type(one.loader) is type(first.loader)
        and len(one.loader.tensors) == len(first.loader.tensors)
        and all(a is b for a, b in zip(one.loader.tensors, first.loader.tensors, strict=True))
        for one in passes
    )


def _together(passes: Sequence[Any], draws: Sequence[Draws]) -> Iterator[list[Any]]:
    """What each iterator gives next, drawn from its own slice's random state."""
    while True:
        given = []
        for one, drawn in zip(passes, draws, strict=True):
            with drawn.going_on():
                given.append(next(one, _END))
        if any(one is _END for one in given):
            if not all(one is _END for one in given):
                raise NotFusable("the trials' loaders have different lengths")
            return
        yield given


_END = object()
