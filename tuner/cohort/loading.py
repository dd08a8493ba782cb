"""The batches of all slices: each slice's own, in its own order, gathered by one index where that can be."""

# Shapes: K = slices, B = batch.

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    for index, shared in _indices(orders, place):
        batch = loader.gather(index)
        if spec is None:
            spec = pytree.tree_structure(batch)  # a tuple or a list of tensors, always the same
        yield Batches(tuple(batch), shared, spec)


def _indices(orders: Sequence[Sequence[Tensor]], place: Sequence[int]) -> Iterator[tuple[Tensor, bool]]:
    """The indices of all slices batch by batch, shape (K, …), or (…) if they are the same; and whether they are."""
    first = orders[0]
    if any(one.shape != chosen.shape for order in orders[1:] for one, chosen in zip(order, first, strict=True)):
        raise NotFusable("the batches of its trials have different shapes")
    if all(torch.equal(one, chosen) for order in orders[1:] for one, chosen in zip(order, first, strict=True)):
        yield from ((chosen, True) for chosen in first)
    elif first[0].dim() == 1:  # all of the epoch at once
        whole = torch.stack([torch.cat(list(orders[at])) for at in place])
        yield from ((part, False) for part in whole.split([len(chosen) for chosen in first], dim=1))
    else:
        yield from (
            (torch.stack([order[i] for order in map(orders.__getitem__, place)]), False) for i in range(len(first))
        )


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
